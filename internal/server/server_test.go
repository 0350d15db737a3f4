package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/audit"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend counts deploys; what it is not asked in these tests is not there.
type backend struct {
	Backend
	mu      sync.Mutex
	deploys []string // who
	hold    chan struct{}
	fail    error
	crash   bool
}

func (b *backend) Deploy(ctx context.Context, d Deploy) (environment.Environment, error) {
	if b.hold != nil {
		select {
		case <-b.hold:
		case <-ctx.Done():
			return environment.Environment{}, ctx.Err()
		}
	}
	if b.crash {
		panic("a defect")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deploys = append(b.deploys, access.Of(ctx).Name)
	return environment.Environment{Name: d.Name, Want: len(b.deploys)}, b.fail
}

func (b *backend) count() int { b.mu.Lock(); defer b.mu.Unlock(); return len(b.deploys) }

func (b *backend) AddBlueprint(_ context.Context, tar io.Reader) (Blueprint, error) {
	n, err := io.Copy(io.Discard, tar)
	return Blueprint{Digest: fmt.Sprint(n)}, err
}

func (b *backend) Active() bool { return true }

func (b *backend) Status(context.Context) (Status, error) { return Status{Version: "test"}, nil }

// world is a server over TCP with real tokens.
type world struct {
	t       *testing.T
	s       *Server
	b       *backend
	store   *sqlite.Store
	url     string
	http    *http.Client
	secrets map[access.Role]string
}

func start(t *testing.T, limits Limits) *world {
	t.Helper()
	st, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{}
	s := New(Config{Backend: b, Store: st, Clock: clock.Real{}, Log: slog.New(slog.DiscardHandler), Version: "test", Limits: limits})
	hs := httptest.NewUnstartedServer(s)
	hs.Config.ReadTimeout = 2 * time.Second // as short as a stream must outlive
	hs.Start()
	w := &world{t: t, s: s, b: b, store: st, url: hs.URL, http: hs.Client(), secrets: map[access.Role]string{}}
	t.Cleanup(func() { s.Drain(); hs.Close(); st.Close() })
	for _, r := range access.Roles {
		_, secret, err := s.tokens.Create(t.Context(), "root", "the-"+string(r), r, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		w.secrets[r] = secret
	}
	return w
}

type reply struct {
	status int
	header http.Header
	body   []byte
}

func (r reply) problem(t *testing.T) Problem {
	t.Helper()
	var p Problem
	if err := json.Unmarshal(r.body, &p); err != nil || p.Status != r.status || p.Title == "" || p.Kind == "" || r.header.Get("Content-Type") != problemType {
		t.Fatalf("%d %s is no problem document: %s", r.status, r.header.Get("Content-Type"), r.body)
	}
	return p
}

func (w *world) ask(secret, method, path, body string, headers ...string) reply {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := w.http.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, raw}
}

const digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

func deployBody(name string) string {
	return fmt.Sprintf(`{"files":%q,"purpose":"dev","name":%q}`, digest, name)
}

// Every operation with every role: the table is what the server does.
func TestRoles(t *testing.T) {
	w := start(t, Limits{})
	known := w.s.OperationIDs()
	for id := range access.Needs {
		if !slices.Contains(known, id) {
			t.Errorf("%s is in the table and no operation", id)
		}
	}
	for _, c := range []struct {
		op, method, path, body string
	}{
		{"get-status", "GET", "/v1/status", ""}, {"list-bakes", "GET", "/v1/bakes", ""}, {"get-openapi", "GET", "/openapi.json", ""},
		{"deploy", "POST", "/v1/environments", deployBody("shop-dev")},
		{"list-audit", "GET", "/v1/audit", ""}, {"list-tokens", "GET", "/v1/tokens", ""}, {"revoke-token", "DELETE", "/v1/tokens/nothing", ""},
	} {
		for _, r := range access.Roles {
			got := w.ask(w.secrets[r], c.method, c.path, c.body)
			if may := got.status != http.StatusForbidden; may != r.Allows(access.Needs[c.op]) {
				t.Errorf("%s as %s: %d %s", c.op, r, got.status, got.body)
			} else if !may {
				got.problem(t)
			}
		}
		if got := w.ask("", c.method, c.path, c.body); got.status != http.StatusUnauthorized || got.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s without a token: %d", c.op, got.status)
		}
	}
	if n := w.b.count(); n != 3 {
		t.Errorf("%d deploys, those of deployer, operator and admin were wanted", n)
	}
	if w.b.deploys[0] != "the-deployer" {
		t.Errorf("the backend heard of %q", w.b.deploys[0])
	}
	// All of it is in the audit log, with what came of it.
	var p Page[audit.Entry]
	if err := json.Unmarshal(w.ask(w.secrets[access.Operator], "GET", "/v1/audit", "").body, &p); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, e := range p.Items {
		count[fmt.Sprintf("%s %s %d", e.Who, e.Operation, e.Status)]++
		if e.From != "127.0.0.1" || e.Request == "" {
			t.Errorf("%+v", e)
		}
	}
	for _, want := range []string{"the-viewer deploy 403", "the-deployer deploy 200", "the-viewer list-tokens 403", "the-admin revoke-token 404", "nobody known deploy 401"} {
		if count[want] != 1 {
			t.Errorf("the audit log has %d of %q: %v", count[want], want, count)
		}
	}
	if count["the-viewer list-bakes 200"] != 0 {
		t.Error("the audit log has what only looks")
	}
}

func TestTokensByAPI(t *testing.T) {
	w := start(t, Limits{})
	admin := w.secrets[access.Admin]
	body := `{"name":"ci","role":"viewer"}`
	made := w.ask(admin, "POST", "/v1/tokens", body, keyHeader, "once-upon-a-time")
	var m Minted
	if err := json.Unmarshal(made.body, &m); err != nil || made.status != 200 || access.TokenID(m.Secret) != m.ID || m.By != "the-admin" {
		t.Fatalf("%d %s", made.status, made.body)
	}
	if got := w.ask(admin, "POST", "/v1/tokens", body, keyHeader, "once-upon-a-time"); got.status != http.StatusConflict || bytes.Contains(got.body, []byte(m.Secret)) {
		t.Errorf("the repetition: %d %s", got.status, got.body)
	}
	rs, err := w.store.Changes(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		if bytes.Contains(r.Body, []byte(m.Secret)) {
			t.Errorf("%s %s holds the secret", r.Kind, r.Name)
		}
	}
	if list := w.ask(admin, "GET", "/v1/tokens", ""); bytes.Contains(list.body, []byte("hash")) || !bytes.Contains(list.body, []byte(m.ID)) {
		t.Errorf("%s", list.body)
	}
	if got := w.ask(m.Secret, "GET", "/v1/whoami", ""); got.status != 200 || !bytes.Contains(got.body, []byte(`"viewer"`)) {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := w.ask(admin, "DELETE", "/v1/tokens/"+m.ID, ""); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := w.ask(m.Secret, "GET", "/v1/whoami", ""); got.status != http.StatusUnauthorized {
		t.Errorf("a revoked token: %d", got.status)
	}
}

func TestRateLimits(t *testing.T) {
	l := DefaultLimits
	l.Rate, l.Burst = 1, 5
	w := start(t, l)
	viewer := w.secrets[access.Viewer]
	var last reply
	for range 6 {
		last = w.ask(viewer, "GET", "/v1/whoami", "")
	}
	if last.status != http.StatusTooManyRequests || last.header.Get("Retry-After") != "1" {
		t.Fatalf("%d, Retry-After %q", last.status, last.header.Get("Retry-After"))
	}
	last.problem(t)
	if got := w.ask(w.secrets[access.Admin], "GET", "/v1/whoami", ""); got.status != 200 {
		t.Errorf("another suffers: %d", got.status)
	}
	// Who says nothing guesses nothing: many pages of the console open before a sign-in.
	for range 30 {
		last = w.ask("", "GET", "/v1/whoami", "")
	}
	if last.status != http.StatusUnauthorized {
		t.Errorf("no token at all: %d", last.status)
	}
	// Guessing is slowed down, and does not lock out who knows.
	_, wrong, _ := access.Mint()
	for range 11 {
		last = w.ask(wrong, "GET", "/v1/whoami", "")
	}
	if last.status != http.StatusTooManyRequests || last.header.Get("Retry-After") == "" {
		t.Errorf("the eleventh guess: %d", last.status)
	}
	if got := w.ask(w.secrets[access.Admin], "GET", "/v1/whoami", ""); got.status != 200 {
		t.Errorf("a good token suffers from guesses: %d", got.status)
	}
}

func TestIdempotency(t *testing.T) {
	w := start(t, Limits{})
	me, other := w.secrets[access.Deployer], w.secrets[access.Operator]
	const key = "deploy-number-1"
	ask := func(secret, body string) reply {
		return w.ask(secret, "POST", "/v1/environments", body, keyHeader, key)
	}
	first := ask(me, deployBody("aa"))
	second := ask(me, deployBody("aa"))
	if first.status != 200 || second.status != 200 || !bytes.Equal(first.body, second.body) || second.header.Get("Idempotency-Replayed") != "true" || w.b.count() != 1 {
		t.Fatalf("%d deploys: %s, then %s", w.b.count(), first.body, second.body)
	}
	if got := ask(me, deployBody("bb")); got.status != http.StatusUnprocessableEntity || w.b.count() != 1 {
		t.Errorf("the key with another body: %d", got.status)
	}
	if got := ask(other, deployBody("bb")); got.status != 200 || w.b.count() != 2 {
		t.Errorf("another's key: %d", got.status)
	}
	if got := w.ask(me, "POST", "/v1/environments", deployBody("aa"), keyHeader, "short"); got.problem(t).Errors[0].Parameter != keyHeader {
		t.Errorf("a bad key: %s", got.body)
	}
	// What failed for reasons of ours may be tried again with the same key.
	w.b.fail = &fault.Error{Kind: fault.Unavailable, Message: "later"}
	const again = "deploy-number-2"
	if got := w.ask(me, "POST", "/v1/environments", deployBody("cc"), keyHeader, again); got.status != 503 {
		t.Fatalf("%d", got.status)
	}
	w.b.fail = nil
	if got := w.ask(me, "POST", "/v1/environments", deployBody("cc"), keyHeader, again); got.status != 200 {
		t.Errorf("tried again: %d %s", got.status, got.body)
	}
	// Two at the same time: one is carried out.
	before := w.b.count()
	w.b.hold = make(chan struct{})
	done := make(chan reply, 2)
	for range 2 {
		go func() {
			done <- w.ask(me, "POST", "/v1/environments", deployBody("dd"), keyHeader, "deploy-number-3")
		}()
	}
	if got := <-done; got.status != http.StatusConflict { // the other waits
		t.Errorf("the second of two: %d", got.status)
	}
	close(w.b.hold)
	if got := <-done; got.status != 200 || w.b.count() != before+1 {
		t.Errorf("the first of two: %d, %d deploys", got.status, w.b.count()-before)
	}
	w.b.hold = nil
	// A call that was cut off is not known to have happened.
	c := call{Digest: "x", Began: time.Now().Add(-2 * time.Minute)}
	var rec call
	rs, err := w.store.List(t.Context(), onceKind, "token:")
	if err != nil || len(rs) == 0 {
		t.Fatal(err)
	}
	if err := json.Unmarshal(rs[0].Body, &rec); err != nil {
		t.Fatal(err)
	}
	c.Digest = rec.Digest
	id := rs[0].Name[strings.Index(rs[0].Name, "/")+1:]
	if err := w.store.Apply(t.Context(), store.NoEpoch, store.Put(onceKind, rs[0].Name, store.Any, c)); err != nil {
		t.Fatal(err)
	}
	secret := me
	if !strings.HasPrefix(rs[0].Name, "token:"+access.TokenID(me)) {
		secret = other
	}
	bodyOf := map[bool]string{true: deployBody("aa"), false: deployBody("bb")}[secret == me]
	if got := w.ask(secret, "POST", "/v1/environments", bodyOf, keyHeader, id); got.status != http.StatusConflict || !strings.Contains(string(got.body), "not known") {
		t.Errorf("after a crash: %d %s", got.status, got.body)
	}
}

func TestBounds(t *testing.T) {
	l := DefaultLimits
	l.Each, l.Concurrent, l.Timeout, l.Body = 2, 3, 300*time.Millisecond, 200*time.Millisecond
	w := start(t, l)
	me := w.secrets[access.Deployer]
	if got := w.ask(me, "POST", "/v1/environments", `{"name":"`+strings.Repeat("x", maxBody)+`"}`); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a large body: %d", got.status)
	}
	if got := w.ask(me, "POST", "/v1/blueprints", strings.Repeat("x", maxBody*2), "Content-Type", "application/x-tar"); got.status != 200 {
		t.Errorf("a large blueprint: %d %s", got.status, got.body)
	}
	if got := w.ask(me, "GET", "/nothing", ""); got.status != 404 {
		t.Errorf("%d", got.status)
	} else {
		got.problem(t)
	}
	if got := w.ask(me, "PUT", "/v1/environments", "{}"); got.status != 405 {
		t.Errorf("%d", got.status)
	} else {
		got.problem(t)
	}
	// A body that does not come.
	host := strings.TrimPrefix(w.url, "http://")
	c, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /v1/environments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", me)
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "408") {
		t.Errorf("a slow body: %q, %v", line, err)
	}
	// A call that takes too long, and too many at the same time.
	w.b.hold = make(chan struct{})
	done := make(chan reply, 3)
	for range 3 {
		go func() { done <- w.ask(me, "POST", "/v1/environments", deployBody("aa")) }()
	}
	var got []int
	for range 3 {
		r := <-done
		r.problem(t)
		got = append(got, r.status)
	}
	if fmt.Sprint(got) != "[503 503 503]" || w.b.count() != 0 {
		t.Errorf("%v", got)
	}
	w.b.hold = nil
	// A defect is a problem document with the request's id, and the next goes on.
	w.b.crash = true
	bad := w.ask(me, "POST", "/v1/environments", deployBody("aa"), "X-Request-Id", "request-0001")
	if bad.status != 500 || !strings.Contains(bad.problem(t).Detail, "request-0001") || bad.header.Get("X-Request-Id") != "request-0001" {
		t.Errorf("%d %s", bad.status, bad.body)
	}
	w.b.crash = false
	if got := w.ask(me, "POST", "/v1/environments", deployBody("aa")); got.status != 200 {
		t.Errorf("after a defect: %d %s", got.status, got.body)
	}
}

func TestPages(t *testing.T) {
	w := start(t, Limits{})
	me := w.secrets[access.Viewer]
	var want []string
	for i := range 7 {
		im := image.Image{Name: fmt.Sprintf("im-%d", i)}
		want = append(want, im.Name)
		if err := w.store.Apply(t.Context(), store.NoEpoch, store.Put(image.Kind, im.Name, 0, im)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	next := ""
	for {
		var p Page[image.Image]
		r := w.ask(me, "GET", "/v1/images?limit=3&prefix=im-&cursor="+next, "")
		if err := json.Unmarshal(r.body, &p); err != nil || r.status != 200 || p.Revision == 0 {
			t.Fatalf("%d %s", r.status, r.body)
		}
		for _, im := range p.Items {
			got = append(got, im.Name)
		}
		if next = p.Next; next == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for path, where := range map[string]string{"limit=501": "limit", "limit=0": "limit", "limit=x": "limit", "cursor=%25": "cursor", "cursor=AA": "cursor", "prefx=x": "prefx"} {
		r := w.ask(me, "GET", "/v1/images?"+path, "")
		p := r.problem(t)
		if r.status != 422 || len(p.Errors) == 0 || p.Errors[0].Parameter != where || p.Errors[0].In != "query" {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	if r := w.ask(me, "GET", "/v1/images?name=nothing", ""); r.status != 404 || r.problem(t).Hint == "" {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestPointers(t *testing.T) {
	w := start(t, Limits{})
	me := w.secrets[access.Deployer]
	for body, want := range map[string]string{
		`{"files":"x","purpose":"dev"}`:                                "#/files",
		`{"files":"` + digest + `","purpose":"dev","size":5000}`:       "#/size",
		`{"files":"` + digest + `","purpose":"dev","size":"many"}`:     "#/size",
		`{"files":"` + digest + `","purpose":"dev","nonsense":"many"}`: "#/nonsense",
	} {
		r := w.ask(me, "POST", "/v1/environments", body)
		p := r.problem(t)
		if r.status != 422 || len(p.Errors) != 1 || p.Errors[0].Pointer != want || p.Errors[0].In != "body" {
			t.Errorf("%s: %d %s", body, r.status, r.body)
		}
	}
	if r := w.ask(me, "POST", "/v1/runs", `{"files":"`+digest+`","suites":["a",2]}`); r.problem(t).Errors[0].Pointer != "#/suites/1" {
		t.Errorf("%s", r.body)
	}
	for in, want := range map[string]string{"": "", "items[3].tags": "/items/3/tags", "a/b~c.d": "/a~1b~0c/d", "[2].x": "/2/x"} {
		if got := pointer(in); got != want {
			t.Errorf("%s is %s", in, got)
		}
	}
}

func TestHealth(t *testing.T) {
	w := start(t, Limits{})
	if got := w.ask("", "GET", "/healthz", ""); got.status != 200 {
		t.Errorf("%d", got.status)
	}
	if got := w.ask("", "GET", "/readyz", ""); got.status != 200 || string(got.body) != "active\n" {
		t.Errorf("%d %s", got.status, got.body)
	}
	w.s.Drain()
	if got := w.ask("", "GET", "/readyz", ""); got.status != 503 {
		t.Errorf("while it ends: %d", got.status)
	}
}

func TestUnixSocket(t *testing.T) {
	w := start(t, Limits{})
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{Handler: w.s, ConnContext: ConnContext}
	go h.Serve(l)
	defer h.Close()
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr}).Get("http://x/v1/whoami")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var who Who
	if err := json.NewDecoder(res.Body).Decode(&who); err != nil || who.Role != access.Admin || !strings.HasPrefix(who.Principal, "os:") || who.Name == "" || who.From != "local" {
		t.Errorf("%+v, %v", who, err)
	}
}
