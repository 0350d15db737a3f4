package autosign

import (
	"context"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/autosign/csrtest"
	"github.com/dayfly-infra/dayfly/internal/puppet"
)

const (
	name  = "bake-0123456789abcdef-1-89abcdef"
	token = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	id    = "i-0123456789abcdef0"
)

type machines map[string]Machine

func (m machines) Machines(_ context.Context, ids []string) (map[string]Machine, error) {
	if m == nil {
		return nil, errors.New("throttled")
	}
	out := map[string]Machine{}
	for _, id := range ids {
		if v, ok := m[id]; ok {
			out[id] = v
		}
	}
	return out, nil
}

func good() csrtest.Request {
	return csrtest.Request{CommonName: name, Token: token, Extensions: map[string]string{"1.1.2": id, "1.1.3": "shop-0123456789abcdef", "1.1.12": "production", "1.1.13": "web"}}
}

func claim() puppet.Claim {
	return puppet.Claim{Certname: name, Token: puppet.HashToken(token), Role: "web", Environment: "production"}
}

func machine() Machine {
	return Machine{ID: id, State: "running", Tags: map[string]string{tagOwner: "us", tagObject: "bake/shop-1", puppet.ClaimTag: claim().String()}}
}

func judge(t testing.TB, cloud Cloud) Judge {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"ca/signed", "ledger"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return Judge{Owner: "us", CADir: filepath.Join(dir, "ca"), Ledger: Ledger(filepath.Join(dir, "ledger")), Cloud: cloud, Now: time.Now}
}

func TestGranted(t *testing.T) {
	j := judge(t, machines{id: machine()})
	csr := good().PEM(t)
	if err := j.Decide(t.Context(), name, csr); err != nil {
		t.Fatal(err)
	}
	es, err := j.Ledger.entries()
	if err != nil || len(es) != 1 || es[0].Certname != name || es[0].Instance != id || es[0].Token != puppet.HashToken(token) {
		t.Fatalf("the ledger has %+v, %v", es, err)
	}
	raw, _ := os.ReadFile(j.Ledger.file(es[0]))
	if strings.Contains(string(raw), token) {
		t.Error("the token itself is in the ledger")
	}
	if err := j.Decide(t.Context(), name, csr); err == nil || !strings.Contains(err.Error(), "used already") {
		t.Errorf("a used token gives %v", err)
	}
}

// TestOnce sends the same good request many times at once.
func TestOnce(t *testing.T) {
	j := judge(t, machines{id: machine()})
	csr := good().PEM(t)
	var granted sync.Map
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if j.Decide(t.Context(), name, csr) == nil {
				granted.Store(i, true)
			}
		})
	}
	wg.Wait()
	n := 0
	granted.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d of 20 requests with one token were granted", n)
	}
}

func TestRefused(t *testing.T) {
	ext := func(k, v string) func(*csrtest.Request) { return func(r *csrtest.Request) { r.Extensions[k] = v } }
	drop := func(k string) func(*csrtest.Request) { return func(r *csrtest.Request) { delete(r.Extensions, k) } }
	tags := func(k, v string) func(*Machine) { return func(m *Machine) { m.Tags[k] = v } }
	other := claim()
	other.Token = puppet.HashToken("another")
	elsewhere := claim()
	elsewhere.Certname = "bake-0123456789abcdef-2-89abcdef"
	for _, c := range []struct {
		what    string
		name    string
		request func(*csrtest.Request)
		machine func(*Machine)
		bytes   func([]byte) []byte
		want    string
	}{
		{what: "a name like a command", name: "clean", want: "not a name"},
		{what: "a name like an option", name: "--check", want: "not a name"},
		{what: "a path", name: "../../etc/passwd", want: "not a name"},
		{what: "a node's name", name: "web.corp.example", want: "not a name"},
		{what: "another common name", request: func(r *csrtest.Request) { r.CommonName = "puppet.corp.example" }, want: "is not the certname"},
		{what: "more in the subject", request: func(r *csrtest.Request) { r.Organization = "x" }, want: "nothing else"},
		{what: "no token", request: func(r *csrtest.Request) { r.Token = "" }, want: "no one-time token"},
		{what: "a short token", request: func(r *csrtest.Request) { r.Token = "abc" }, want: "no one-time token"},
		{what: "a wrong token", request: func(r *csrtest.Request) { r.Token = strings.Repeat("f", 64) }, want: "not the one"},
		{what: "pp_authorization", request: ext("1.3.1", "true"), want: "rights on this server"},
		{what: "pp_cli_auth", request: ext("1.3.39", "true"), want: "rights on this server"},
		{what: "an extension nobody expects", request: ext("1.1.4", "x"), want: "is not expected"},
		{what: "an unknown arc", request: ext("1.3.6.1.4.1.99999.1", "x"), want: "is not expected"},
		{what: "alternative names", request: func(r *csrtest.Request) {
			r.More = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte{0x30, 0x08, 0x82, 0x06, 'p', 'u', 'p', 'p', 'e', 't'}}}
		}, want: "is not expected"},
		{what: "no instance", request: drop("1.1.2"), want: "pp_instance_id"},
		{what: "an instance that is none", request: ext("1.1.2", "i-*"), want: "nobody expects"},
		{what: "no role", request: drop("1.1.13"), want: "no pp_role"},
		{what: "another role", request: ext("1.1.13", "database"), want: "was made with the role web"},
		{what: "another environment", request: ext("1.1.12", "testing"), want: "was made for the environment production"},
		{what: "a foreign instance", machine: tags(tagOwner, "them"), want: "not of this installation"},
		{what: "an instance that no record stands behind", machine: tags(tagObject, ""), want: "no tag dayfly:object"},
		{what: "an instance that may have none", machine: tags(puppet.ClaimTag, ""), want: "may not have a certificate"},
		{what: "an instance with another token", machine: tags(puppet.ClaimTag, other.String()), want: "not the one"},
		{what: "an instance for another name", machine: tags(puppet.ClaimTag, elsewhere.String()), want: "not for bake-"},
		{what: "a stopped instance", machine: func(m *Machine) { m.State = "stopped" }, want: "not running"},
		{what: "an unknown instance", machine: func(m *Machine) { m.ID = "" }, want: "there is no instance"},
		{what: "too much", bytes: func(b []byte) []byte { return append(b, make([]byte, MaxRequest)...) }, want: "more than"},
		{what: "nothing", bytes: func([]byte) []byte { return nil }, want: "not one PEM"},
		{what: "two requests", bytes: func(b []byte) []byte { return append(b, b...) }, want: "not one PEM"},
		{what: "a wrong signature", bytes: func(b []byte) []byte {
			p, _ := pem.Decode(b)
			p.Bytes[len(p.Bytes)-3] ^= 1
			return pem.EncodeToMemory(p)
		}, want: "signature is wrong"},
		{what: "a changed request", bytes: func(b []byte) []byte {
			p, _ := pem.Decode(b)
			p.Bytes = []byte(strings.Replace(string(p.Bytes), "web", "wex", 1))
			return pem.EncodeToMemory(p)
		}, want: "signature is wrong"},
	} {
		t.Run(c.what, func(t *testing.T) {
			r, m := good(), machine()
			if c.request != nil {
				c.request(&r)
			}
			if c.machine != nil {
				c.machine(&m)
			}
			csr := r.PEM(t)
			if c.bytes != nil {
				csr = c.bytes(csr)
			}
			n := c.name
			if n == "" {
				n = name
			}
			j := judge(t, machines{m.ID: m})
			err := j.Decide(t.Context(), n, csr)
			if err == nil {
				t.Fatal("granted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("refused with %q, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), r.Token) && r.Token != "" {
				t.Error("the token is in the reason")
			}
			if es, _ := j.Ledger.entries(); len(es) != 0 {
				t.Error("a refused request left a trace in the ledger")
			}
		})
	}
	t.Run("an existing certificate", func(t *testing.T) {
		j := judge(t, machines{id: machine()})
		if err := os.WriteFile(filepath.Join(j.CADir, "signed", name+".pem"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := j.Decide(t.Context(), name, good().PEM(t)); err == nil || !strings.Contains(err.Error(), "has a certificate") {
			t.Errorf("%v", err)
		}
	})
	t.Run("a CA that is elsewhere", func(t *testing.T) {
		j := judge(t, machines{id: machine()})
		j.CADir += "/elsewhere"
		if err := j.Decide(t.Context(), name, good().PEM(t)); err == nil || !strings.Contains(err.Error(), "ca_dir") {
			t.Errorf("%v", err)
		}
	})
	t.Run("a cloud that does not answer", func(t *testing.T) {
		if err := judge(t, machines(nil)).Decide(t.Context(), name, good().PEM(t)); err == nil || !strings.Contains(err.Error(), "throttled") {
			t.Errorf("%v", err)
		}
	})
	t.Run("nobody's machine", func(t *testing.T) {
		j := judge(t, machines{id: machine()})
		j.Owner = ""
		if err := j.Decide(t.Context(), name, good().PEM(t)); err == nil || !strings.Contains(err.Error(), "owner is not set") {
			t.Errorf("%v", err)
		}
	})
	t.Run("a ledger that cannot be written", func(t *testing.T) {
		j := judge(t, machines{id: machine()})
		j.Ledger += "/missing"
		if err := j.Decide(t.Context(), name, good().PEM(t)); err == nil || !strings.Contains(err.Error(), "ledger") {
			t.Errorf("%v", err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(name, good().PEM(f))
	f.Add("clean", []byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, certname string, csr []byte) {
		r, err := Parse(certname, csr)
		if err != nil {
			return
		}
		if r.Certname != certname || !puppet.CertnameForm.MatchString(r.Certname) || !tokenForm.MatchString(r.Token) || !instanceForm.MatchString(r.Instance) || r.Role == "" {
			t.Errorf("taken: %+v", r)
		}
	})
}

// The request was made by Puppet 7.23's own classes, with csr_attributes.yaml
// as a builder writes it: only the token and the names are made up.
func TestPuppetsOwnRequest(t *testing.T) {
	csr, err := os.ReadFile("testdata/puppet-7.23.csr")
	if err != nil {
		t.Fatal(err)
	}
	j := judge(t, machines{id: machine()})
	if err := j.Decide(t.Context(), name, csr); err != nil {
		t.Fatal(err)
	}
	r, err := Parse(name, csr)
	if err != nil || r.Token != token || r.Instance != id || r.Role != "web" || r.Image != "shop-0123456789abcdef" || r.Environment != "production" {
		t.Errorf("%+v, %v", r, err)
	}
}

// later is a cloud whose instances are on their way for so many looks.
type later struct {
	machines
	looks *int
	state string // meanwhile; "" = not known
}

func (l later) Machines(ctx context.Context, ids []string) (map[string]Machine, error) {
	ms, err := l.machines.Machines(ctx, ids)
	if *l.looks--; *l.looks >= 0 {
		for k, m := range ms {
			if m.State = l.state; l.state == "" {
				delete(ms, k)
			} else {
				ms[k] = m
			}
		}
	}
	return ms, err
}

// A refusal is for good, so what will be otherwise in a moment is waited for.
func TestOnItsWay(t *testing.T) {
	for _, c := range []struct {
		state string
		looks int
		want  string
	}{
		{"pending", 3, ""}, {"pending", 100, "is pending, not running"}, {"", 1, ""}, {"", 100, "there is no instance"},
	} {
		looks := c.looks
		err := judge(t, later{machines{id: machine()}, &looks, c.state}).Decide(t.Context(), name, good().PEM(t))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %d looks: %v, want %q", c.state, c.looks, err, c.want)
		}
	}
}
