package secrets

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The secrets are put together here, so that none stands in the source.
var (
	random  = "q7Zt" + "9Kx2" + "Lm4V" + "b8Nc" + "1Ws5" + "Yd3R" + "f6Hj" + "0Pga" + "Tz8e" + "Uk2i"
	upper   = "Q7ZT9KX2" + "LM4VB8NC"
	keyBody = strings.Repeat("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n", 4)
)

func pem(kind string) string {
	return "-----BEGIN " + kind + "-----\n" + keyBody + "-----END " + kind + "-----\n"
}

// planted is an image full of secrets: the kind that each must be found as.
var planted = map[string][2]string{
	"/srv/app/tls.key":                     {"private key", pem("PRIVATE KEY")},
	"/etc/nginx/site.pem":                  {"private key", "certificate first\n" + pem("RSA PRIVATE KEY")},
	"/opt/ec.pem":                          {"private key", pem("EC PRIVATE KEY")},
	"/root/keys/backup":                    {"private key", pem("OPENSSH PRIVATE KEY")},
	"/root/.ssh/id_ed25519":                {"SSH key", pem("OPENSSH PRIVATE KEY")},
	"/home/ann/.ssh/authorized_keys":       {"SSH login", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFoo ann\n"},
	"/etc/puppet/ssl/private_keys/web.pem": {"Puppet's private key", pem("RSA PRIVATE KEY")},
	"/etc/puppet/csr_attributes.yaml":      {"certificate request attributes with a token", "custom_attributes:\n  1.2.840.113549.1.9.7: abc\n"},
	"/root/.aws/credentials":               {"AWS credentials", "[default]\naws_access_key_id = AKIA" + upper + "\naws_secret_access_key = " + random + "\n"},
	"/etc/app/env":                         {"AWS access key", "KEY=AKIA" + upper + "\n"},
	"/etc/app/aws.ini":                     {"AWS secret key", "aws_secret_access_key = " + random + "\n"},
	"/etc/app/github":                      {"GitHub token", "TOKEN ghp_" + random + "\n"},
	"/etc/app/gitlab":                      {"GitLab token", "x glpat-" + random[:20] + "\n"},
	"/etc/app/slack":                       {"Slack token", "xoxb-" + random[:30] + "\n"},
	"/etc/app/hook":                        {"Slack webhook", "https://hooks.slack.com/services/T" + upper[:8] + "/B" + upper[:8] + "/" + random[:24] + "\n"},
	"/etc/app/google":                      {"Google API key", "AIza" + random[:35] + "\n"},
	"/etc/app/stripe":                      {"Stripe key", "sk_live_" + random[:24] + "\n"},
	"/etc/app/jwt":                         {"JSON web token", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0." + random + "\n"},
	"/etc/app/database.yml":                {"password", "production:\n  username: shop\n  password: " + random[:14] + "\n"},
	"/etc/app/settings.json":               {"password", `{"client_secret": "` + random[:20] + `"}` + "\n"},
	"/etc/app/url":                         {"password in an address", "DATABASE_URL=postgres://shop:" + random[:12] + "@db.corp/shop\n"},
	"/root/.netrc":                         {"netrc login", "machine h login ann password pw\n"},
	"/root/.pgpass":                        {"PostgreSQL login", "db:5432:shop:ann:pw\n"},
	"/root/.docker/config.json":            {"Docker login", `{"auths":{"r":{"auth":"YW5uOnB3"}}}`},
	"/root/.kube/config":                   {"Kubernetes login", "users:\n- user:\n    token: " + random + "\n"},
	"/root/.git-credentials":               {"Git login", "https://ann:pw@git\n"},
	"/root/.npmrc":                         {"npm registry login", "//r/:_authToken=" + random + "\n"},
	"/root/.pypirc":                        {"PyPI login", "[pypi]\npassword = x\n"},
	"/home/ann/.bash_history":              {"shell history", "ls\n"},
	"/etc/shadow":                          {"login with a password", "root:$y$j9T$abc$def:19000:0:99999:7:::\n"},
	"/etc/nginx/.htpasswd":                 {"web password file", "ann:$apr1$abc$def\n"},
	"/usr/local/share/changed-by-nobody":   {"private key", "x\n" + pem("PRIVATE KEY")},
	"/var/lib/app/with\x0abinary":          {"private key", "\x00\x01\n" + pem("PRIVATE KEY")},
	"/etc/app/dayfly":                      {"Dayfly token", "dfl_" + random[:32] + "\n"},
	"/etc/app/age":                         {"age secret key", "AGE-SECRET-KEY-1" + strings.ToUpper(random[:29]+random[:29]) + "\n"},
	"/home/ann/.config/gcloud/application_default_credentials.json": {"Google credentials", "{}"},
}

// lookalikes are no secrets.
var lookalikes = map[string]string{
	"/etc/manual":                   "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n",
	"/etc/public.pem":               pem("PUBLIC KEY") + pem("CERTIFICATE"),
	"/etc/example":                  "aws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n",
	"/etc/pam.d/login":              "password requisite pam_deny.so\npassword\t[success=1 default=ignore]\tpam_unix.so obscure use_authtok\n",
	"/etc/template":                 "password: ${DB_PASSWORD}\npassword = {{ vault_password }}\nsecret: <%= @secret %>\napi_key: $API_KEY\n",
	"/etc/placeholder":              "password=changeme123\nsecret: your-secret-1\npassword: xxxxxxxx1\n# password = " + random + "\n",
	"/etc/words":                    "password: required\nsecret = enabled\nauth_token: /etc/app/token1\n",
	"/etc/shadow":                   "root:!*:19000:0:99999:7:::\nann:!:19000::::::\n",
	"/root/.bashrc":                 "alias ls='ls --color'\n",
	"/root/.netrc":                  "",
	"/etc/ssh/ssh_host_ed25519_key": pem("OPENSSH PRIVATE KEY"),
	"/usr/share/doc/x":              "see https://user:pass@host/\n",
	"/etc/code.rb":                  "password = params.fetch(:password1)\n",
}

func plant(t testing.TB, root string, files map[string]string) {
	t.Helper()
	for p, body := range files {
		real := filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(real), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(real, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func scan(t testing.TB, root string) Result {
	t.Helper()
	r, err := Scan(context.Background(), Config{Root: root, Own: []string{"/etc/ssh/ssh_host_*"}, Allow: []string{"/srv/allowed/*"}, Most: 500})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPlanted(t *testing.T) {
	root := t.TempDir()
	files := map[string]string{"/srv/allowed/key": pem("PRIVATE KEY")}
	for p, s := range planted {
		files[p] = s[1]
	}
	plant(t, root, files)
	found := map[string][]string{}
	for _, f := range scan(t, root).Findings {
		found[f.Path] = append(found[f.Path], f.Kind)
		if strings.Contains(fmt.Sprint(f), random[:12]) || strings.Contains(fmt.Sprint(f), keyBody[:20]) {
			t.Errorf("a finding tells the secret: %+v", f)
		}
	}
	for p, s := range planted {
		if !slices.Contains(found[p], s[0]) {
			t.Errorf("%q: %q, want %s", p, found[p], s[0])
		}
		delete(found, p)
	}
	for p, k := range found {
		t.Errorf("%s: %v is none", p, k)
	}
}

func TestLookalikes(t *testing.T) {
	root := t.TempDir()
	plant(t, root, lookalikes)
	for _, f := range scan(t, root).Findings {
		t.Errorf("%+v is none", f)
	}
}

// What a package brought and nobody changed is its own matter.
func TestPackaged(t *testing.T) {
	root := t.TempDir()
	key := pem("PRIVATE KEY")
	plant(t, root, map[string]string{"/usr/lib/python/test.pem": key, "/usr/lib/python/other.pem": key})
	r := scan(t, root)
	if len(r.Findings) != 2 {
		t.Fatal(r)
	}
	out, err := os.ReadFile(filepath.Join(root, "/usr/lib/python/test.pem"))
	if err != nil {
		t.Fatal(err)
	}
	sum := md5sum(out)
	plant(t, root, map[string]string{"/var/lib/dpkg/info/python.md5sums": sum + "  usr/lib/python/test.pem\n" + strings.Repeat("0", 32) + "  usr/lib/python/other.pem\n"})
	if r := scan(t, root); len(r.Findings) != 1 || r.Findings[0].Path != "/usr/lib/python/other.pem" {
		t.Errorf("%+v", r.Findings)
	}
}

// Nothing in a file system hangs a scan or breaks it.
func TestTraps(t *testing.T) {
	root := t.TempDir()
	plant(t, root, map[string]string{"/etc/a": "x", "/etc/locked": pem("PRIVATE KEY")})
	for _, err := range []error{
		syscall.Mkfifo(filepath.Join(root, "etc/fifo"), 0o600),
		os.Symlink("loop", filepath.Join(root, "etc/loop")),
		os.Symlink("../etc", filepath.Join(root, "etc/up")),
		os.Symlink("/dev/zero", filepath.Join(root, "etc/zero")),
		os.Chmod(filepath.Join(root, "etc/locked"), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(root, "etc/huge"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1 << 40); err != nil {
		t.Skip("no sparse files here")
	}
	f.Close()
	begun := time.Now()
	scan(t, root)
	if d := time.Since(begun); d > 10*time.Second {
		t.Errorf("it took %s", d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Scan(ctx, Config{Root: root}); err == nil {
		t.Error("it goes on though it shall not")
	}
}

func FuzzMatch(f *testing.F) {
	for p, s := range planted {
		f.Add(p, []byte(s[1]))
	}
	f.Fuzz(func(t *testing.T, p string, body []byte) {
		for _, x := range Match(p, body) {
			if x.Path != p || x.Kind == "" || x.Line < 0 {
				t.Errorf("%+v", x)
			}
		}
	})
}
