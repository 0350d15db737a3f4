// Package puppetserver runs Debian's real Puppet server as an instance of a
// region, from an image that Dayfly baked, and bakes against it with the real
// binaries. It needs root, and bin/ as `make build` makes it; -short leaves it
// out. The server is started once for all tests: its start takes most of the
// time.
package puppetserver

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/autosign/csrtest"
)

const (
	serverName = "puppet.corp.example"
	puppet     = "https://" + serverName + ":8140"
	version    = "1.0.0" // of the control repo
)

func TestPuppetServer(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	if os.Getenv("DAYFLY_TEST_PUPPETSERVER") == "" {
		t.Skip("takes longer than all others together: make test-puppetserver")
	}
	if os.Geteuid() != 0 {
		t.Skip("real instances need root")
	}
	if _, err := os.Stat("/usr/bin/aws"); err != nil {
		t.Skip("Debian's awscli is not installed: scripts/deps.sh test")
	}
	w := setup(t)
	for _, c := range []struct {
		name string
		f    func(*testing.T)
	}{
		{"the server's image, and its start", w.start},
		{"a bake", w.bake},
		{"instances that run Puppet at first boot", w.firstBoot},
		{"bakes that fail", w.failures},
		{"requests", w.requests},
	} {
		began := time.Now()
		if !t.Run(c.name, c.f) {
			return
		}
		t.Logf("%s: %.0f s", c.name, time.Since(began).Seconds())
	}
}

// start bakes the Puppet server's image from masterless code, unless an earlier
// run did, and deploys it.
func (w *world) start(t *testing.T) {
	dir := filepath.Join(w.dir, "server-blueprint")
	_ = os.RemoveAll(dir)
	w.run(t, filepath.Join(w.root, "examples/puppetserver/stage.sh"), "server", "http://"+w.box, dir)
	var b struct {
		Image  string
		Cached bool
	}
	w.json(t, &b, "bake", dir)
	w.image = b.Image
	t.Logf("image %s, from the cache: %v", b.Image, b.Cached)
	var e struct{ Address string }
	w.json(t, &e, "deploy", dir, "ca")
	w.address = strings.TrimPrefix(e.Address, "http://")
	w.address, _, _ = strings.Cut(w.address, ":")
	var is struct {
		Reservations []struct {
			Instances []struct {
				InstanceID string `json:"InstanceId"`
				Tags       []struct{ Key, Value string }
			}
		}
	}
	w.aws(t, &is, "ec2", "describe-instances", "--filters", "Name=tag:dayfly:environment,Values=puppetserver-ca", "Name=instance-state-name,Values=running")
	if len(is.Reservations) != 1 || len(is.Reservations[0].Instances) != 1 {
		t.Fatalf("the server's instances: %+v", is)
	}
	i := is.Reservations[0].Instances[0]
	w.master = i.InstanceID
	for _, tag := range i.Tags {
		if tag.Key == "dayfly:owner" {
			w.owner = tag.Value
		}
	}
	if got, err := w.get(puppet + "/status/v1/simple"); err != nil || got != "running" {
		t.Fatalf("the Puppet server says %q, %v", got, err)
	}
}

// shop makes a copy of the shop's blueprint that is baked against the server.
func (w *world) shop(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(w.dir, name)
	_ = os.RemoveAll(dir)
	w.run(t, filepath.Join(w.root, "examples/puppetserver/stage.sh"), "shop", "http://"+w.box, w.address, dir)
	edit(t, filepath.Join(dir, "dayfly.yaml"), "  verify:", "  keep_failed: 0s\n  verify:")
	return dir
}

// entry is what dayfly-autosign notes down of a certificate.
type entry struct {
	Certname, Instance, Role string
	Cleaned                  time.Time
}

func (w *world) ledger(t *testing.T) []entry {
	t.Helper()
	out, err := w.inside(w.master, "cat /var/lib/dayfly-autosign/*.json")
	if err != nil && !strings.Contains(out, "No such file") {
		t.Fatalf("%v: %s", err, out)
	}
	var es []entry
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var e entry
		if d.Decode(&e) != nil {
			return es
		}
		es = append(es, e)
	}
}

// signed tells whether the CA hands out a certificate of this name.
func (w *world) signed(t *testing.T, name string) bool {
	t.Helper()
	raw, err := w.get(puppet + "/puppet-ca/v1/certificate/" + name)
	if err != nil && !strings.Contains(err.Error(), "404") {
		t.Fatal(err)
	}
	return err == nil && strings.Contains(raw, "BEGIN CERTIFICATE")
}

// cleaned waits until the CA has taken a certificate back.
func (w *world) cleaned(t *testing.T, name string) {
	t.Helper()
	w.until(t, 90*time.Second, func() error {
		for _, e := range w.ledger(t) {
			if e.Certname == name && !e.Cleaned.IsZero() {
				if w.signed(t, name) {
					t.Fatalf("%s is noted as cleaned, and the CA has its certificate", name)
				}
				return nil
			}
		}
		return fmt.Errorf("the certificate of %s is not cleaned", name)
	})
}

// bake makes the shop's image from what the server says: the checks on its
// canaries (examples/puppetserver/shop.yaml) want what Hiera wrote, a class that
// the node classifier alone assigns, the pinned environment and the
// certificate's extensions.
func (w *world) bake(t *testing.T) {
	dir := w.shop(t, "shop")
	edit(t, filepath.Join(dir, "dayfly.yaml"), "  verify:", "  boot: puppet\n  verify:")
	edit(t, filepath.Join(dir, "dayfly.yaml"), "deadline: 2m", "deadline: 8m")
	var b struct{ Image string }
	w.json(t, &b, "bake", dir)
	var i struct {
		Checks []struct {
			Name, On string
			Passed   bool
		}
	}
	w.json(t, &i, "image", "show", b.Image)
	n := 0
	for _, c := range i.Checks {
		if c.Name == "verify/server.yaml" && c.Passed {
			n++
		}
	}
	if n != 2 {
		t.Errorf("the server's own check passed on %d canaries: %+v", n, i.Checks)
	}
	report := w.must(t, "image", "show", b.Image, "--report")
	name := ""
	for line := range strings.Lines(report) {
		if v, ok := strings.CutPrefix(line, "host: "); ok {
			name = strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	if !strings.HasPrefix(name, "bake-") || !strings.Contains(report, "environment: production") || !strings.Contains(report, "Class[Company]") && !strings.Contains(report, "- Company") || !strings.Contains(report, version) {
		t.Errorf("the report of %q: %.2000s", name, report)
	}
	found := false
	for _, e := range w.ledger(t) {
		found = found || e.Certname == name && e.Role == "web"
	}
	if !found {
		t.Errorf("dayfly-autosign knows nothing of %s: %+v", name, w.ledger(t))
	}
	w.cleaned(t, name)
	var again struct{ Cached bool }
	if w.json(t, &again, "bake", dir); !again.Cached {
		t.Error("unchanged inputs were baked again")
	}
}

// firstBoot deploys the image that was baked with boot: puppet: each instance gets
// a certificate for itself, and a catalog that is for it and not for a builder;
// the certificates go when the instances have gone.
func (w *world) firstBoot(t *testing.T) {
	w.must(t, "deploy", filepath.Join(w.dir, "shop"), "small")
	var names []string
	for _, e := range w.ledger(t) {
		role, instance, _ := strings.Cut(e.Certname, ".production.")
		if role != "web" {
			continue
		}
		names = append(names, e.Certname)
		if instance != e.Instance || !w.signed(t, e.Certname) {
			t.Errorf("%+v", e)
		}
		said, err := w.inside(e.Instance, "cat /etc/company; cat /var/lib/dayfly/report.json; ls /var/lib/dayfly/puppet/conf /var/lib/dayfly/puppet/ssl/certs")
		if err != nil || !strings.Contains(said, "datacenter cph1\n") || !strings.Contains(said, "role web in production, image shop-") ||
			!strings.Contains(said, `"puppet":{"certname":"`+e.Certname+`","runs":`) || !strings.Contains(said, e.Certname+".pem") || strings.Contains(said, "csr_attributes") {
			t.Errorf("%s: %v: %s", e.Instance, err, said)
		}
	}
	if len(names) != 3 {
		t.Fatalf("%d instances have certificates, want 3: %+v", len(names), w.ledger(t))
	}
	w.must(t, "env", "destroy", "shop-small")
	for _, n := range names {
		w.cleaned(t, n)
	}
}

// failures bakes for an environment, a role and a version that the server has
// not; each gets its certificate first, and loses it.
func (w *world) failures(t *testing.T) {
	before := map[string]bool{}
	for _, e := range w.ledger(t) {
		before[e.Certname] = true
	}
	var all sync.WaitGroup
	for _, c := range []struct{ name, from, to, want string }{
		{"absent", "environment: production", "environment: absent", "the server has no environment of the name image.puppet.environment"},
		{"nobody", "role: web", "role: nobody", "there is no role for bake-"},
		{"newer", `version_url: "http://` + w.box + `/control/VERSION"`, `version: "9.9.9"`, "has version " + version + ", and this image is to be made from 9.9.9"},
	} {
		dir := w.shop(t, c.name)
		edit(t, filepath.Join(dir, "dayfly.yaml"), c.from, c.to)
		all.Go(func() {
			out, err := w.try("bake", dir)
			if err == nil || !strings.Contains(out, c.want) || !strings.Contains(out, "step converge") {
				t.Errorf("%s: %v; it does not say %q:\n%s", c.name, err, c.want, out)
			}
		})
	}
	all.Wait()
	n := 0
	for _, e := range w.ledger(t) {
		if !before[e.Certname] {
			n++
			w.cleaned(t, e.Certname)
		}
	}
	if n != 3 {
		t.Errorf("%d certificates were granted to 3 builders", n)
	}
}

func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// requests sends the CA requests that must stay unsigned, each with one thing
// wrong, and then the same with nothing wrong.
func (w *world) requests(t *testing.T) {
	var nets struct {
		Subnets []struct {
			SubnetID string `json:"SubnetId"`
		}
	}
	w.aws(t, &nets, "ec2", "describe-subnets")
	var base struct{ Parameter struct{ Value string } }
	w.aws(t, &base, "ssm", "get-parameter", "--name", "/aws/service/debian/release/12-slim/latest/amd64")
	launch := func(owner string) string {
		t.Helper()
		var r struct {
			Instances []struct {
				InstanceID string `json:"InstanceId"`
			}
		}
		w.aws(t, &r, "ec2", "run-instances", "--image-id", base.Parameter.Value, "--instance-type", "t3.small", "--subnet-id", nets.Subnets[0].SubnetID, "--tag-specifications",
			fmt.Sprintf(`[{"ResourceType":"instance","Tags":[{"Key":"dayfly:owner","Value":%q},{"Key":"dayfly:object","Value":"bake/test"}]}]`, owner))
		id := r.Instances[0].InstanceID
		t.Cleanup(func() { w.aws(t, nil, "ec2", "terminate-instances", "--instance-ids", id) })
		w.until(t, time.Minute, func() error { _, err := process(id); return err })
		return id
	}
	ours, foreign := launch(w.owner), launch("somebody-else")
	// right is a request with nothing wrong, for a name that was never asked for:
	// a Puppet server ignores a second request for a name.
	right := func(t *testing.T, instance string) csrtest.Request {
		t.Helper()
		r := csrtest.Request{CommonName: fmt.Sprintf("bake-%s-1-%s", random(8), random(4)), Token: random(32),
			Extensions: map[string]string{"1.1.2": instance, "1.1.3": "shop-0123456789abcdef", "1.1.12": "production", "1.1.13": "web"}}
		w.aws(t, nil, "ec2", "create-tags", "--resources", instance, "--tags",
			fmt.Sprintf(`[{"Key":"dayfly:puppet","Value":"certname=%s token=%x role=web environment=production"}]`, r.CommonName, sha256.Sum256([]byte(r.Token))))
		return r
	}
	send := func(t *testing.T, name string, r csrtest.Request) (status int, body string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodPut, puppet+"/puppet-ca/v1/certificate_request/"+name, bytes.NewReader(r.PEM(t)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "text/plain")
		res, err := w.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var b bytes.Buffer
		_, _ = b.ReadFrom(res.Body)
		return res.StatusCode, b.String()
	}
	// refusals are what dayfly-autosign told the Puppet server's log of a name.
	refused := func(t *testing.T, name, want string) {
		t.Helper()
		w.until(t, 10*time.Second, func() error {
			out, _ := w.inside(w.master, "grep -hF 'refused \""+name+"\"' /var/log/puppetserver/puppetserver.log")
			if strings.Contains(out, want) {
				return nil
			}
			return fmt.Errorf("the Puppet server's log does not say %q of %s: %s", want, name, out[max(0, len(out)-1000):])
		})
	}
	other := "bake-" + random(8) + "-1-" + random(4)
	for _, c := range []struct {
		what, instance string
		change         func(*csrtest.Request)
		want           string // in the log; "" = the Puppet server itself refuses
	}{
		{"a wrong common name", ours, func(r *csrtest.Request) { r.CommonName = other }, ""},
		{"an instance that may have another name", foreign, func(r *csrtest.Request) { r.Extensions["1.1.2"] = ours }, "may have a certificate for "},
		{"a forbidden extension", ours, func(r *csrtest.Request) { r.Extensions["1.3.1"] = "true" }, "would give the certificate rights on this server"},
		{"an extension that nobody expects", ours, func(r *csrtest.Request) { r.Extensions["1.1.4"] = "x" }, "is not expected"},
		{"a foreign instance", foreign, func(*csrtest.Request) {}, "is not of this installation"},
		{"no token", ours, func(r *csrtest.Request) { r.Token = "" }, "no one-time token"},
		{"a wrong token", ours, func(r *csrtest.Request) { r.Token = random(32) }, "not the one that the instance was made with"},
		{"another role", ours, func(r *csrtest.Request) { r.Extensions["1.1.13"] = "database" }, "was made with the role web"},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := right(t, c.instance)
			name := r.CommonName
			c.change(&r)
			status, body := send(t, name, r)
			if c.want == "" && status/100 != 4 {
				t.Errorf("the Puppet server takes it: %d %s", status, body)
			}
			if w.signed(t, name) || w.signed(t, r.CommonName) {
				t.Fatal("it was signed")
			}
			if c.want != "" {
				refused(t, name, c.want)
			}
		})
	}
	t.Run("autosign that the server's user cannot execute", func(t *testing.T) {
		const program = "/usr/local/sbin/dayfly-autosign"
		if out, err := w.inside(w.master, "chmod 0700 "+program); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		defer w.inside(w.master, "chmod 0755 "+program)
		if out, err := w.inside(w.master, program+" admin check"); err == nil || !strings.Contains(out, "list of names instead of running it") {
			t.Errorf("admin check says %v: %s", err, out)
		}
		r := right(t, ours)
		if send(t, r.CommonName, r); w.signed(t, r.CommonName) {
			t.Error("it was signed, without having been asked")
		}
	})
	if out, err := w.inside(w.master, "/usr/local/sbin/dayfly-autosign admin check"); err != nil {
		t.Fatalf("admin check: %v: %s", err, out)
	}
	// All the others had one thing wrong.
	good := right(t, ours)
	name := good.CommonName
	if status, body := send(t, name, good); status/100 != 2 || !w.signed(t, name) {
		t.Fatalf("the right request was not signed: %d %s", status, body)
	}
	t.Run("a used token", func(t *testing.T) {
		r := right(t, ours)
		r.Token = good.Token
		if send(t, r.CommonName, r); w.signed(t, r.CommonName) {
			t.Fatal("it was signed")
		}
		refused(t, r.CommonName, "the token was used already, for "+name)
	})
	w.aws(t, nil, "ec2", "terminate-instances", "--instance-ids", ours)
	w.cleaned(t, name)
}
