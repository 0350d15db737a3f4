package puppet

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/handoff"
)

const secret = "5ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4"

// fakePuppet plays the agent: each run ends with the next of CODES and says
// what SAYS has; it notes its arguments and what it found in its folder.
const fakePuppet = `#!/bin/sh
here=$(dirname "$0")
echo "$*" >>"$here/args"
conf=
for a in "$@"; do
	[ "$last" != --confdir ] || conf=$a
	last=$a
done
case $1 in
apply) cp "$here/settings" "$here/armed"; exit 0 ;;
esac
n=$(($(cat "$here/n" 2>/dev/null || echo 0) + 1))
echo $n >"$here/n"
[ $n -gt 1 ] || { cat "$conf/csr_attributes.yaml" >"$here/csr"; stat -c %a "$conf/csr_attributes.yaml" >"$here/mode"; cp "$conf/puppet.conf" "$here/puppet.conf"; }
code=$(echo $CODES | cut -d' ' -f$n)
[ -n "$code" ] || code=$(echo $CODES | awk '{print $NF}')
summary=$(sed -n 's/^lastrunfile = //p' "$conf/puppet.conf")
mkdir -p "$(dirname "$summary")"
printf -- '---\nversion:\n  config: "%s"\n  puppet: 7.23.0\nresources:\n  changed: 0\n' "$CATALOG" >"$summary"
[ ! -e "$here/says" ] || cat "$here/says"
exit $code
`

type stage struct {
	codes   string
	says    string
	catalog string
	run     func(*Run)
	status  http.HandlerFunc // of the Puppet server; nil = fine
	server  func() string    // another address for it
	armed   bool             // by the server's own catalog
}

type played struct {
	code    int
	out     string
	dir     string
	deleted bool
}

func (p played) read(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(p.dir, "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// play runs the script with everything around it played.
func play(t *testing.T, s stage) played {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(filepath.Join(dir, "bake/inputs/modules"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"puppet": fakePuppet, "settings": "{}\n"}
	if s.says != "" {
		files["says"] = s.says
	}
	if s.armed {
		files["armed"] = "{}\n"
	}
	for name, body := range files {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if s.status == nil {
		s.status = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "running") }
	}
	ps := httptest.NewTLSServer(s.status)
	defer ps.Close()
	var mu sync.Mutex
	deleted := false
	cloud := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch p := r.URL.Path; {
		case strings.HasPrefix(p, "/bucket/"):
			if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AKID/") {
				w.WriteHeader(http.StatusForbidden)
			} else if r.Method == http.MethodDelete {
				deleted = true
				w.WriteHeader(http.StatusNoContent)
			} else {
				fmt.Fprint(w, secret)
			}
		case strings.HasSuffix(p, "/instance-id"):
			fmt.Fprint(w, "i-0123456789abcdef0")
		case strings.HasSuffix(p, "/security-credentials/"):
			fmt.Fprint(w, "role")
		case strings.HasSuffix(p, "/security-credentials/role"):
			fmt.Fprint(w, `{"AccessKeyId" : "AKID", "SecretAccessKey" : "SECRET", "Token" : "SESSION"}`)
		default:
			fmt.Fprint(w, "session")
		}
	}))
	defer cloud.Close()
	u, err := url.Parse(ps.URL)
	if err != nil {
		t.Fatal(err)
	}
	r := Run{Environment: "production", Role: "web", MaxRuns: 3, Deadline: time.Minute, Server: &Server{
		Host: u.Hostname(), Port: u.Port(), Sign: 5 * time.Minute, Certname: "bake-0123456789abcdef-1-89abcdef", Image: "shop-0123456789abcdef",
		Bucket: "bucket", Key: "bake/x/1/token-1", Region: "local-1",
	}}
	if s.server != nil {
		o, err := url.Parse(s.server())
		if err != nil {
			t.Fatal(err)
		}
		r.Server.Host, r.Server.Port = o.Hostname(), o.Port()
	}
	if s.run != nil {
		s.run(&r)
	}
	script := r.Script()
	for _, c := range [][2]string{
		{"PATH=/usr/local/sbin", "PATH=" + bin + ":/usr/local/sbin"}, {Dir, filepath.Join(dir, "bake")}, {"http://169.254.169.254", cloud.URL},
		{handoff.Settings, filepath.Join(bin, "settings")}, {handoff.ArmedFile, filepath.Join(bin, "armed")}, {"PATIENCE='20'", "PATIENCE='2'"},
	} {
		if !strings.Contains(script, c[0]) {
			t.Fatalf("the script has no %q any more", c[0])
		}
		script = strings.ReplaceAll(script, c[0], c[1])
	}
	cmd := exec.Command("sh", "-s")
	cmd.Stdin = strings.NewReader(script)
	cmd.Env = append(os.Environ(), "CODES="+s.codes, "CATALOG="+s.catalog, "AWS_ENDPOINT_URL="+cloud.URL)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	p := played{code: cmd.ProcessState.ExitCode(), out: string(out), dir: dir, deleted: deleted}
	args, _ := os.ReadFile(filepath.Join(bin, "args"))
	for where, text := range map[string]string{"what the script says": p.out, "an argument list": string(args)} {
		if strings.Contains(text, secret) || strings.Contains(text, "SECRET") {
			t.Errorf("a secret is in %s:\n%s", where, text)
		}
	}
	return p
}

func needCurl(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
}

func TestAgentSettles(t *testing.T) {
	needCurl(t)
	p := play(t, stage{codes: "2 2 0", catalog: "1.0.0", run: func(r *Run) { r.Server.Version, r.Server.Fingerprint = "1.0.0", "ABCD" }})
	if p.code != 0 {
		t.Fatalf("exit code %d\n%s", p.code, p.out)
	}
	if !p.deleted {
		t.Error("the token is in the bucket still")
	}
	csr := p.read(t, "csr")
	for _, want := range []string{secret, `pp_instance_id: "i-0123456789abcdef0"`, `pp_role: "web"`, `pp_image_name: "shop-0123456789abcdef"`, `pp_environment: "production"`} {
		if !strings.Contains(csr, want) {
			t.Errorf("csr_attributes.yaml lacks %s:\n%s", want, csr)
		}
	}
	if m := strings.TrimSpace(p.read(t, "mode")); m != "600" {
		t.Errorf("csr_attributes.yaml has the mode %s", m)
	}
	if _, err := os.Stat(filepath.Join(p.dir, "bake/puppet/conf/csr_attributes.yaml")); !os.IsNotExist(err) {
		t.Error("csr_attributes.yaml is there after the runs")
	}
	for _, want := range []string{"certname = bake-0123456789abcdef-1-89abcdef", "ca_fingerprint = ABCD", "strict_environment_mode = true"} {
		if !strings.Contains(p.read(t, "puppet.conf"), want) {
			t.Errorf("puppet.conf lacks %q", want)
		}
	}
	for _, want := range []string{"--onetime --no-daemonize --no-splay --no-usecacheonfailure --detailed-exitcodes --environment production --waitforcert 10 --maxwaitforcert 300", "include dayfly::handoff"} {
		if !strings.Contains(p.read(t, "args"), want) {
			t.Errorf("puppet was not run with %q:\n%s", want, p.read(t, "args"))
		}
	}
	if strings.Count(p.out, "puppet run ") != 3 || CatalogVersion(p.out) != "1.0.0" || !strings.Contains(p.out, "the hand-off is armed") {
		t.Error(p.out)
	}
}

func TestAgentArmedByTheServer(t *testing.T) {
	needCurl(t)
	p := play(t, stage{codes: "0", armed: true})
	if p.code != 0 || strings.Contains(p.read(t, "args"), "apply") {
		t.Errorf("exit code %d; puppet ran with\n%s", p.code, p.read(t, "args"))
	}
}

func TestAgentFails(t *testing.T) {
	needCurl(t)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close) // the cases run on after this function
	for _, c := range []struct {
		what string
		s    stage
		want string
	}{
		{"exit code 1", stage{codes: "1", says: "Error: Could not retrieve catalog from remote server: Error 500 on SERVER: Server Error: Evaluation Error: there is no role for it (file: /etc/puppet/code/environments/production/manifests/site.pp, line: 6) on node bake-1\nError: Could not retrieve catalog; skipping run\n"}, "there is no role for it"},
		{"exit code 4", stage{codes: "4", says: "Error: /Stage[main]/Shop/Package[jq]/ensure: change from 'purged' to 'present' failed: no network\n"}, "/Stage[main]/Shop/Package[jq]/ensure: change from"},
		{"exit code 6", stage{codes: "2 6", says: "Error: /Stage[main]/Shop/Service[cron]/ensure: it does not start\n"}, "/Stage[main]/Shop/Service[cron]"},
		{"never settles", stage{codes: "2", says: "Notice: /Stage[main]/Role::Web/Exec[date]/returns: executed successfully\n"}, "run 3 still changed something, and 3 is the most"},
		{"an environment that the server has not", stage{codes: "1", says: "Error: Environment 'absent' not found on server, aborting run.\n"}, "the server has no environment of the name"},
		{"another environment", stage{codes: "1", says: "Error: Not using catalog because its environment 'testing' does not match agent specified environment 'production' and strict_environment_mode is set\n"}, "node classifier puts this builder into another environment"},
		{"signs too late", stage{codes: "1", says: "Error: Couldn't fetch certificate from CA server; you might still need to sign this agent's certificate (bake-1). Exiting now because the maxwaitforcert timeout has been exceeded.\n"}, "dayfly-autosign admin check says whether Puppet can execute it at all"},
		{"a CA of another fingerprint", stage{codes: "1", says: "Error: CA bundle with digest (SHA256) AB did not match expected digest CD\n"}, "image.puppet.ca_fingerprint names another CA"},
		{"another CA", stage{codes: "1", says: "Error: certificate verify failed [self signed certificate in certificate chain for CN=evil]\n"}, "the server shows a certificate of another CA"},
		{"a certificate of tomorrow", stage{codes: "1", says: "Error: The certificate 'CN=puppet' is not yet valid, verify time is synchronized\n"}, "the clocks of server and builder differ"},
		{"a server that is down", stage{server: func() string { return "https://127.0.0.1:1" }}, "it refuses connections"},
		{"a name that nobody knows", stage{server: func() string { return "https://puppet.invalid:8140" }}, "its name is not known here; give image.puppet.address"},
		{"a server that is slow", stage{status: func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(10 * time.Second):
			}
		}}, "it is too slow"},
		{"something else on its port", stage{server: func() string { return strings.Replace(plain.URL, "http:", "https:", 1) }}, "does not speak Puppet's TLS"},
		{"a clock that is ahead", stage{status: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		}}, "s ahead of this builder"},
		{"a clock that is behind", stage{status: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		}}, "s behind this builder"},
		{"another version", stage{codes: "0", catalog: "1.1.0", run: func(r *Run) { r.Server.Version = "1.0.0" }}, "has version 1.1.0, and this image is to be made from 1.0.0"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			p := play(t, c.s)
			if p.code == 0 {
				t.Fatalf("it ended well:\n%s", p.out)
			}
			if got := Explain(p.out); !strings.Contains(got, c.want) {
				t.Errorf("the explanation is %q, want %q; the output:\n%s", got, c.want, p.out)
			}
		})
	}
}

func TestVersionUnknown(t *testing.T) {
	needCurl(t)
	p := play(t, stage{codes: "0", catalog: "1700000000", run: func(r *Run) { r.Server.Version = "1.0.0" }})
	if p.code != 0 || !strings.Contains(p.out, "tells no version of its own") {
		t.Errorf("exit code %d\n%s", p.code, p.out)
	}
}

func TestClaim(t *testing.T) {
	c := Claim{Certname: "bake-0123456789abcdef-12-89abcdef", Token: HashToken(secret), Role: "role_web", Environment: "production"}
	s := c.String()
	if len(s) > 256 || strings.Contains(s, secret) {
		t.Errorf("the tag's value has %d characters: %s", len(s), s)
	}
	if got, err := ParseClaim(s); err != nil || got != c {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", s + " role=other", s + " admin=yes", strings.Replace(s, "bake-", "node-", 1), strings.Replace(s, "role=role_web", "", 1)} {
		if got, err := ParseClaim(bad); err == nil {
			t.Errorf("%q is read as %+v", bad, got)
		}
	}
}
