package autosign

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// ca plays the Puppet server's CA and a PuppetDB.
type ca struct {
	mu      sync.Mutex
	cleaned []string
	dir     string // what it deletes goes from here
	purged  []string
	fail    bool
}

func (c *ca) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	raw, _ := io.ReadAll(r.Body)
	switch {
	case c.fail:
		w.WriteHeader(http.StatusForbidden)
	case r.Method == http.MethodPut && r.URL.Path == "/puppet-ca/v1/clean":
		var in struct{ Certnames []string }
		_ = json.Unmarshal(raw, &in)
		c.cleaned = append(c.cleaned, in.Certnames...)
	case r.Method == http.MethodDelete && strings.HasPrefix(r.URL.Path, "/puppet-ca/v1/certificate_status/"):
		// As Puppet's server does it: the certificate goes too, and is not revoked.
		name := strings.TrimPrefix(r.URL.Path, "/puppet-ca/v1/certificate_status/") + ".pem"
		one, two := os.Remove(filepath.Join(c.dir, "requests", name)), os.Remove(filepath.Join(c.dir, "signed", name))
		if one != nil && two != nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPost && r.URL.Path == "/pdb/cmd/v1" && r.URL.Query().Get("command") == "deactivate_node" && r.URL.Query().Get("version") == "3":
		var in struct {
			Certname string
			At       time.Time `json:"producer_timestamp"`
		}
		if err := json.Unmarshal(raw, &in); err != nil || in.At.IsZero() || in.Certname != r.URL.Query().Get("certname") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.purged = append(c.purged, in.Certname)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func TestClean(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	c := &ca{}
	srv := httptest.NewServer(c)
	defer srv.Close()
	cloud := machines{"i-run": {ID: "i-run", State: "running"}, "i-stop": {ID: "i-stop", State: "stopped"}, "i-end": {ID: "i-end", State: "terminated"}}
	l := Ledger(t.TempDir())
	for i, e := range []Entry{
		{Certname: "running", Instance: "i-run", Signed: now.Add(-time.Hour)},
		{Certname: "stopped", Instance: "i-stop", Signed: now.Add(-time.Hour)},
		{Certname: "ended", Instance: "i-end", Signed: now.Add(-time.Minute)},
		{Certname: "forgotten", Instance: "i-gone", Signed: now.Add(-time.Hour)},
		{Certname: "not seen yet", Instance: "i-new", Signed: now.Add(-time.Minute)},
		{Certname: "cleaned", Instance: "i-old", Signed: now.Add(-time.Hour), Cleaned: now.Add(-time.Minute)},
		{Certname: "cleaned long ago", Instance: "i-older", Signed: now.Add(-72 * time.Hour), Cleaned: now.Add(-48 * time.Hour)},
	} {
		e.Token = strings.Repeat(string(rune('a'+i)), 64)
		if err := l.add(e); err != nil {
			t.Fatal(err)
		}
	}
	cl := Cleaner{Ledger: l, Cloud: cloud, CA: srv.URL, PuppetDB: srv.URL, Client: srv.Client(), Now: func() time.Time { return now }}

	c.fail = true
	if _, err := cl.Clean(t.Context()); err == nil || !strings.Contains(err.Error(), "403") {
		t.Fatalf("a CA that refuses gives %v", err)
	}
	c.fail = false
	names, err := cl.Clean(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := "stopped,ended,forgotten"
	if got := strings.Join(names, ","); got != want || strings.Join(c.cleaned, ",") != want || strings.Join(c.purged, ",") != want {
		t.Errorf("cleaned %s, on the CA %v, in PuppetDB %v; want %s", got, c.cleaned, c.purged, want)
	}
	if names, err = cl.Clean(t.Context()); err != nil || len(names) != 0 {
		t.Errorf("a second time: %v, %v", names, err)
	}
	es, err := l.entries()
	if err != nil || len(es) != 6 {
		t.Errorf("the ledger has %d entries, %v; the one of long ago should be gone", len(es), err)
	}
	cl.Cloud = machines(nil)
	if _, err := cl.Clean(t.Context()); err == nil {
		t.Error("without the cloud's answer something was decided")
	}
}

func TestExecutable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs another user")
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("/tmp", "autosign-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "dayfly-autosign")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		file, dir os.FileMode
		ok        bool
	}{{0o755, 0o755, true}, {0o700, 0o755, false}, {0o644, 0o755, false}, {0o755, 0o700, false}} {
		if err := os.Chmod(file, c.file); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, c.dir); err != nil {
			t.Fatal(err)
		}
		err := Executable(file, u.Username)
		if c.ok != (err == nil) || (err != nil && !strings.Contains(err.Error(), "list of names")) {
			t.Errorf("mode %o in a folder of mode %o: %v", c.file, c.dir, err)
		}
	}
	if err := Writable(dir, u.Username); err == nil {
		t.Error("a folder of root's is said to be writable by nobody")
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A Puppet server answers "400: Host does not match SNI" otherwise.
func TestHostIsTheServersName(t *testing.T) {
	for address, want := range map[string]string{"https://localhost:8140/x": "puppet.corp.example:8140", "https://puppetdb.corp.example:8081/y": "puppetdb.corp.example:8081"} {
		got := ""
		c := http.Client{Transport: named{"puppet.corp.example", roundTrip(func(r *http.Request) (*http.Response, error) {
			got = r.Host
			return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
		})}}
		if _, err := c.Get(address); err != nil || got != want {
			t.Errorf("%s is asked as %q, %v; want %q", address, got, err, want)
		}
	}
}

func TestPendingRequests(t *testing.T) {
	now := time.Now()
	c := &ca{dir: t.TempDir()}
	srv := httptest.NewServer(c)
	defer srv.Close()
	put := func(folder, name string, age time.Duration) {
		t.Helper()
		file := filepath.Join(c.dir, folder, name+".pem")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	const bake, node, young, granted, signed = "bake-0123456789abcdef-1-0011aabb", "web.production.i-0123456789abcdef0", "bake-0123456789abcdef-2-0011aabb", "bake-0123456789abcdef-3-0011aabb", "bake-0123456789abcdef-4-0011aabb"
	for _, n := range []string{bake, node, granted, signed, "laptop.corp.example", "bake-of-somebody", "puppet"} {
		put("requests", n, time.Hour+time.Minute)
	}
	put("requests", young, 59*time.Minute)
	put("signed", signed, time.Minute)
	l := Ledger(t.TempDir())
	if err := l.add(Entry{Token: strings.Repeat("a", 64), Certname: granted, Instance: "i-1", Signed: now}); err != nil {
		t.Fatal(err)
	}
	cl := Cleaner{Ledger: l, Cloud: machines{"i-1": {ID: "i-1", State: "running"}}, CA: srv.URL, CADir: c.dir, Client: srv.Client(), Now: func() time.Time { return now }}
	want := bake + "," + node
	left := func() int {
		files, err := os.ReadDir(filepath.Join(c.dir, "requests"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	if certificates, requests, err := cl.Plan(t.Context()); err != nil || len(certificates) != 0 || strings.Join(requests, ",") != want || left() != 8 {
		t.Errorf("planned %v and %v, %v; %d are left", certificates, requests, err, left())
	}
	c.fail = true
	if names, err := cl.Requests(t.Context()); err == nil || !strings.Contains(err.Error(), "403") || len(names) != 0 {
		t.Errorf("a CA that refuses: %v, %v", names, err)
	}
	c.fail = false
	if names, err := cl.Requests(t.Context()); err != nil || strings.Join(names, ",") != want || left() != 6 {
		t.Errorf("removed %v, %v; %d are left", names, err, left())
	}
	if names, err := cl.Requests(t.Context()); err != nil || len(names) != 0 {
		t.Errorf("a second time: %v, %v", names, err)
	}
	if names, err := cl.discard(t.Context(), []string{bake}); err != nil || len(names) != 1 {
		t.Errorf("one that is gone: %v, %v", names, err)
	}
	if _, err := os.Stat(filepath.Join(c.dir, "signed", signed+".pem")); err != nil {
		t.Error("a certificate was deleted without being revoked")
	}
}
