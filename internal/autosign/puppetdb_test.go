package autosign

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/store/pgtest"
)

// puppetdb starts Debian's PuppetDB on a database of its own and returns its
// address.
func puppetdb(t *testing.T) string {
	t.Helper()
	const jar = "/usr/share/puppetdb/puppetdb.jar"
	if _, err := os.Stat(jar); err != nil {
		t.Skip("Debian's puppetdb is not installed, so it was NOT tested: scripts/deps.sh puppetdb")
	}
	database, err := url.Parse(pgtest.New(t).Database(t))
	if err != nil {
		t.Fatal(err)
	}
	through := pipe(t, filepath.Join(database.Query().Get("host"), ".s.PGSQL.5432"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(address)
	dir := t.TempDir()
	rights, err := os.ReadFile("/etc/puppetdb/conf.d/auth.conf")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"auth.conf":    string(rights),
		"config.ini":   fmt.Sprintf("[global]\nvardir = %s/var\n[puppetdb]\ndisable-update-checking = true\n", dir),
		"jetty.ini":    fmt.Sprintf("[jetty]\nhost = 127.0.0.1\nport = %s\n", port),
		"database.ini": fmt.Sprintf("[database]\nsubname = //%s%s\nusername = %s\npassword = none\n", through, database.Path, database.Query().Get("user")),
	} {
		file := filepath.Join(dir, "conf.d", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "var"), 0o755); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command("java", "-Xmx256m", "-Djava.io.tmpdir="+dir, "-cp", jar, "clojure.main", "-m", "puppetlabs.puppetdb.core", "services",
		"--config", filepath.Join(dir, "conf.d"), "--bootstrap-config", "/etc/puppetdb/bootstrap.cfg")
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			raw := said.Bytes()
			t.Logf("PuppetDB said: %s", raw[max(0, len(raw)-4000):])
		}
	})
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		res, err := http.Get("http://" + address + "/status/v1/simple")
		if err == nil {
			raw, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if string(raw) == "running" {
				return "http://" + address
			}
		}
		select {
		case <-ended:
			t.Fatal("PuppetDB has ended")
		default:
		}
		if time.Now().After(end) {
			t.Fatal("PuppetDB does not come up")
		}
	}
}

// pipe makes a socket of PostgreSQL's known to Java, which has none of that kind.
func pipe(t *testing.T, socket string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", socket)
			if err != nil {
				in.Close()
				continue
			}
			go func() { _, _ = io.Copy(out, in); out.Close() }()
			go func() { _, _ = io.Copy(in, out); in.Close() }()
		}
	}()
	return l.Addr().String()
}

// A real PuppetDB takes our command: what has ended is not among its nodes any
// more, and its exported resources with it.
func TestPuppetDB(t *testing.T) {
	if os.Getenv("DAYFLY_TEST_PUPPETSERVER") == "" {
		t.Skip("a PuppetDB takes half a minute to start: make test-puppetserver")
	}
	db := puppetdb(t)
	now := time.Now()
	active := func() string {
		t.Helper()
		res, err := http.Get(db + "/pdb/query/v4/nodes")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var nodes []struct{ Certname string }
		if err := json.NewDecoder(res.Body).Decode(&nodes); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, n := range nodes {
			names = append(names, n.Certname)
		}
		return strings.Join(names, ",")
	}
	until := func(want string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); active() != want; time.Sleep(200 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("its nodes are %q, not %q", active(), want)
			}
		}
	}
	// As the Puppet server sends a node's facts.
	for _, name := range []string{"ended", "lives"} {
		body := fmt.Sprintf(`{"certname":%q,"environment":"production","producer":"ca","producer_timestamp":%q,"values":{"kernel":"Linux"}}`, name, now.Add(-time.Minute).UTC().Format(time.RFC3339Nano))
		res, err := http.Post(db+"/pdb/cmd/v1?command=replace_facts&version=5&certname="+name, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatalf("PuppetDB takes no facts: %s %s", res.Status, raw)
		}
		if name == "ended" {
			until("ended")
		}
	}
	until("ended,lives")

	c := ca{dir: t.TempDir()}
	srv := httptest.NewServer(&c)
	t.Cleanup(srv.Close)
	ledger := Ledger(t.TempDir())
	for i, name := range []string{"ended", "lives"} {
		e := Entry{Token: strings.Repeat(string(rune('a'+i)), 64), Certname: name, Instance: "i-" + name, Signed: now.Add(-time.Hour)}
		if err := ledger.add(e); err != nil {
			t.Fatal(err)
		}
	}
	cl := Cleaner{Ledger: ledger, Cloud: machines{"i-lives": {State: "running"}, "i-ended": {State: "terminated"}}, CA: srv.URL, PuppetDB: db, Client: srv.Client(), Now: time.Now}
	if names, err := cl.Clean(t.Context()); err != nil || strings.Join(names, ",") != "ended" {
		t.Fatalf("cleaned %v, %v", names, err)
	}
	until("lives")
}
