// Package remote asks a real server over TLS as its users do: with the command
// line, with tokens of every role, over the server's end, its restart as another
// version on an older database, and its refusals. Its region is simulated, so it
// needs no root; -short leaves it out.
package remote

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite" // to make the database older
)

type world struct {
	t       *testing.T
	dir     string
	version string // whose binary is run
	address string
	env     []string
}

func TestRemote(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	w := setup(t)
	t.Run("addresses that are refused", w.refused)
	w.start()
	w.tokens()
	t.Run("who may do what", w.roles)
	t.Run("an upgrade on a database of an older version", w.upgrade)
	t.Run("a database of a newer version", w.newer)
	t.Run("a token that is revoked", w.revoked)
	t.Run("what it all was, in the audit log", w.audit)
}

func setup(t *testing.T) *world {
	dir, err := os.MkdirTemp("/tmp", "dayfly-remote-") // sockets want short paths
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, version: "v1", address: free(t)}
	for _, v := range []string{"v1", "v2"} {
		build := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-X main.version="+v, "-o", dir+"/"+v+"/", "../../cmd/dayfly", "../../cmd/dayfly-agent", "../../cmd/dayfly-probe")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	w.env = append(os.Environ(), "DAYFLY_REGION_DIR="+dir+"/region", "DAYFLY_STATE="+dir+"/server", "HOME="+dir)
	t.Cleanup(func() {
		w.try(w.local(), "server", "stop")
		w.try(w.local(), "region", "stop", "--force")
		if t.Failed() {
			for _, f := range []string{"region/region.log", "server/server.log"} {
				raw, _ := os.ReadFile(filepath.Join(dir, f))
				t.Logf("the end of %s:\n%s", f, raw[max(0, len(raw)-3000):])
			}
		}
		os.RemoveAll(dir)
	})
	w.certificate()
	w.must(w.local(), "region", "start", "--simulate", "--listen", free(t))
	var aws map[string]string
	w.json(&aws, w.local(), "region", "env")
	for k, v := range aws {
		w.env = append(w.env, k+"="+v)
	}
	w.must(w.local(), "init", dir+"/shop")
	return w
}

func free(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (w *world) file(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name string, body []byte, mode os.FileMode) {
	w.t.Helper()
	if err := os.WriteFile(w.file(name), body, mode); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) certificate() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "dayfly"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		w.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	w.write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	w.write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
}

// local is the environment of who sits at the server's machine, remote that of
// who has a token only.
func (w *world) local() []string { return w.env }

func (w *world) remote(role string) []string {
	return append(slices.Clone(w.env), "DAYFLY_STATE=/nowhere", "DAYFLY_SERVER=https://"+w.address, "DAYFLY_TOKEN_FILE="+w.file(role), "SSL_CERT_FILE="+w.file("cert.pem"))
}

func (w *world) command(env []string, args ...string) *exec.Cmd {
	c := exec.Command(w.file(w.version+"/dayfly"), args...)
	c.Env, c.Dir = env, w.dir
	return c
}

func (w *world) try(env []string, args ...string) (string, error) {
	out, err := w.command(env, args...).CombinedOutput()
	return string(out), err
}

func (w *world) must(env []string, args ...string) string {
	w.t.Helper()
	out, err := w.try(env, args...)
	if err != nil {
		w.t.Fatalf("dayfly %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

func (w *world) json(v any, env []string, args ...string) {
	w.t.Helper()
	out, err := w.command(env, append([]string{"-o", "json"}, args...)...).Output()
	if err == nil {
		err = json.Unmarshal(out, v)
	}
	if err != nil {
		w.t.Fatalf("dayfly %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// refuses checks a command that must fail with an exit code and words.
func (w *world) refuses(t *testing.T, env []string, code int, words string, args ...string) {
	t.Helper()
	c := w.command(env, args...)
	out, _ := c.CombinedOutput()
	if got := c.ProcessState.ExitCode(); got != code {
		t.Errorf("dayfly %s: exit code %d: %s", strings.Join(args, " "), got, out)
	}
	for _, word := range strings.Split(words, "|") {
		if !strings.Contains(string(out), word) {
			t.Errorf("dayfly %s does not say %q: %s", strings.Join(args, " "), word, out)
		}
	}
}

func (w *world) start() {
	w.t.Helper()
	w.must(w.local(), "server", "start", "--listen", w.address, "--tls-cert", w.file("cert.pem"), "--tls-key", w.file("key.pem"))
}

func (w *world) kill() {
	w.t.Helper()
	raw, err := os.ReadFile(w.file("server/server.pid"))
	if err != nil {
		w.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	for syscall.Kill(pid, 0) == nil {
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *world) refused(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "[::]:0", ":0", "localhost:0", "192.0.2.1:0"} {
		w.refuses(t, w.local(), 1, "tokens would go over the network in plain|--tls-cert", "server", "start", "--listen", address)
	}
	w.refuses(t, w.local(), 1, "HOST:PORT", "server", "start", "--listen", "8080")
	w.refuses(t, w.local(), 1, "needs its key", "server", "start", "--listen", "127.0.0.1:0", "--tls-cert", w.file("cert.pem"))
	w.refuses(t, w.local(), 1, "the certificate cannot be used", "server", "start", "--listen", "127.0.0.1:0", "--tls-cert", w.file("cert.pem"), "--tls-key", w.file("cert.pem"))
	w.refuses(t, w.local(), 4, "nobody answers there", "server", "status")
}

var roles = []string{"viewer", "deployer", "operator", "admin"}

func (w *world) tokens() {
	for _, r := range roles {
		out, err := w.command(w.local(), "token", "create", "--role", r, "--name", "the-"+r).Output()
		if err != nil {
			w.t.Fatalf("%v: %s", err, out)
		}
		w.write(r, out, 0o600)
	}
	// No secret lies in the server's folder: neither in the database nor in its log.
	for _, r := range roles {
		secret, _ := os.ReadFile(w.file(r))
		secret = bytes.TrimSpace(secret)
		if len(secret) < 40 {
			w.t.Fatalf("the token of %s is %q", r, secret)
		}
		for _, f := range []string{"dayfly.db", "dayfly.db-wal", "server.log"} {
			raw, err := os.ReadFile(w.file("server/" + f))
			if err != nil {
				w.t.Fatal(err)
			}
			if bytes.Contains(raw, secret) || bytes.Contains(raw, secret[len(secret)-43:]) {
				w.t.Errorf("%s has the secret of %s", f, r)
			}
		}
	}
}

func (w *world) roles(t *testing.T) {
	w.must(w.remote("viewer"), "env", "list")
	w.refuses(t, w.remote("viewer"), 1, "needs the role deployer|the-viewer has viewer", "deploy", "shop", "dev")
	w.refuses(t, w.remote("deployer"), 1, "needs the role operator", "audit")
	w.refuses(t, w.remote("operator"), 1, "needs the role admin", "token", "list")
	if out := w.must(w.remote("admin"), "token", "list"); !strings.Contains(out, "the-viewer") {
		t.Error(out)
	}
	w.must(w.remote("deployer"), "deploy", "--size", "3", "shop", "dev")
	w.refuses(t, w.remote("nobody"), 1, "there is no token|dayfly token create", "env", "list")
	w.write("open", []byte("dfl_x"), 0o644)
	w.refuses(t, w.remote("open"), 1, "others can read it|chmod 600", "env", "list")
	w.write("strange", []byte("dfl_0123456789ab_"+strings.Repeat("x", 43)), 0o600)
	w.refuses(t, w.remote("strange"), 1, "not known, has ended or was revoked", "env", "list")
	untrusting := append(w.remote("viewer"), "SSL_CERT_FILE=/dev/null", "SSL_CERT_DIR=/nowhere")
	w.refuses(t, untrusting, 1, "its certificate is not trusted", "env", "list")
	w.refuses(t, append(w.remote("viewer"), "DAYFLY_SERVER=http://192.0.2.1:1"), 2, "plain http would show the token", "env", "list")
	w.refuses(t, w.remote("viewer"), 3, "nothing has this name|did you mean|environment/shop-dev", "why", "shop-dve")
	if out := w.must(w.remote("viewer"), "why", "shop-dev"); !strings.Contains(out, "environment/shop-dev (serving): it waits for nothing") {
		t.Error(out)
	}
}

type instance struct{ ID, State string }

func (w *world) serving() (ids []string) {
	w.t.Helper()
	var is []instance
	w.json(&is, w.remote("viewer"), "instance", "list", "shop-dev")
	for _, i := range is {
		if i.State == "serving" {
			ids = append(ids, i.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// downgrade makes the database that of the first schema, with what is in it.
func (w *world) downgrade() {
	db, err := sql.Open("sqlite", w.file("server/dayfly.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	for _, s := range []string{`DROP TABLE blob`, `ALTER TABLE ledger DROP COLUMN forgotten`, `DELETE FROM schema_version WHERE version_id > 1`} {
		if _, err := db.Exec(s); err != nil {
			w.t.Fatalf("%s: %v", s, err)
		}
	}
}

func (w *world) schema(statement string) (version int) {
	w.t.Helper()
	db, err := sql.Open("sqlite", w.file("server/dayfly.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	if statement != "" {
		if _, err := db.Exec(statement); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := db.QueryRow(`SELECT max(version_id) FROM schema_version`).Scan(&version); err != nil {
		w.t.Fatal(err)
	}
	return version
}

// upgrade replaces the server by another version while an environment serves and
// somebody watches: killed, started on a database of the first schema. What runs
// goes on, the same instances; the watch goes on; the next deploy works.
func (w *world) upgrade(t *testing.T) {
	var before []string
	for began := time.Now(); len(before) != 3; time.Sleep(100 * time.Millisecond) {
		if before = w.serving(); time.Since(began) > 30*time.Second {
			t.Fatalf("%d instances are noted as serving", len(before))
		}
	}
	var lines lockedBuffer
	watch := w.command(w.remote("viewer"), "watch", "-o", "json", "--kinds", "environment")
	watch.Stdout, watch.Stderr = &lines, &lines
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watch.Process.Kill(); _ = watch.Wait() }()
	time.Sleep(500 * time.Millisecond)
	newest := w.schema("")
	w.kill()
	w.downgrade()
	if v := w.schema(""); v != 1 || newest < 3 {
		t.Fatalf("the schema was %d and is %d", newest, v)
	}
	w.version = "v2"
	w.start()
	if v := w.schema(""); v != newest {
		t.Errorf("the schema is %d, not %d", v, newest)
	}
	var s struct{ Version string }
	w.json(&s, w.remote("viewer"), "server", "status")
	if s.Version != "v2" {
		t.Errorf("the server is %q", s.Version)
	}
	w.must(w.remote("operator"), "sweep", "--dry-run")
	if after := w.serving(); !slices.Equal(before, after) {
		t.Errorf("%v served, now %v", before, after)
	}
	var e struct {
		Environment struct {
			Phase   string
			Serving int
		}
	}
	w.json(&e, w.remote("viewer"), "env", "show", "shop-dev")
	if e.Environment.Phase != "serving" || e.Environment.Serving != 1 {
		t.Errorf("%+v", e)
	}
	w.must(w.remote("deployer"), "deploy", "--size", "3", "shop", "dev")
	for began := time.Now(); !strings.Contains(lines.String(), `"name":"shop-dev"`); time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("the watch did not go on: %s", lines.String())
		}
	}
}

// newer: an older server does not start on it, and changes nothing.
func (w *world) newer(t *testing.T) {
	w.must(w.local(), "server", "stop")
	w.schema(`INSERT INTO schema_version (version_id, is_applied) VALUES (99999, 1)`)
	before, err := os.ReadFile(w.file("server/dayfly.db"))
	if err != nil {
		t.Fatal(err)
	}
	w.refuses(t, w.local(), 1, "newer Dayfly", "server", "start")
	if after, err := os.ReadFile(w.file("server/dayfly.db")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the database was changed: %v", err)
	}
	w.schema(`DELETE FROM schema_version WHERE version_id = 99999`)
	w.start()
	if n := len(w.serving()); n == 0 {
		t.Error("nothing serves")
	}
}

func (w *world) revoked(t *testing.T) {
	var all []struct{ ID, Name string }
	w.json(&all, w.remote("admin"), "token", "list")
	for _, k := range all {
		if k.Name == "the-viewer" {
			w.must(w.remote("admin"), "token", "revoke", k.ID)
		}
	}
	w.refuses(t, w.remote("viewer"), 1, "revoked", "env", "list")
}

func (w *world) audit(t *testing.T) {
	w.must(w.remote("deployer"), "env", "destroy", "shop-dev")
	var es []struct {
		Who, Role, From, Operation, Object, Request, Error string
		Status                                             int
	}
	w.json(&es, w.remote("operator"), "audit", "--limit", "0")
	find := func(who, operation, object string, status int) bool {
		for _, e := range es {
			if e.Who == who && e.Operation == operation && e.Status == status && strings.Contains(e.Object, object) && e.Request != "" {
				return e.From == "127.0.0.1"
			}
		}
		return false
	}
	for _, want := range []struct {
		who, operation, object string
		status                 int
	}{
		{"the-viewer", "add-blueprint", "", 403}, {"the-deployer", "deploy", "purpose=dev", 200}, {"the-deployer", "list-audit", "", 403}, // before the server was killed
		{"the-operator", "sweep", "dry_run=true", 200}, {"the-admin", "revoke-token", "/v1/tokens/", 200}, {"the-deployer", "destroy-environment", "shop-dev", 200},
	} {
		if !find(want.who, want.operation, want.object, want.status) {
			t.Errorf("the audit log lacks %+v", want)
		}
	}
	for _, e := range es {
		if e.Status == 0 {
			t.Errorf("cut off: %+v", e)
		}
	}
	if t.Failed() {
		for _, e := range es {
			t.Logf("%+v", e)
		}
	}
}

// lockedBuffer is written by a command and read by the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }
