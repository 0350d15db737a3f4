package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
	"github.com/dayfly-infra/dayfly/internal/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a store, and a server that may be started again at the same address.
type world struct {
	t      *testing.T
	store  *sqlite.Store
	tokens *token.Tokens
	at     string
	hs     *httptest.Server
	api    *server.Server
	secret string
	id     string
}

func start(t *testing.T) *world {
	st, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: st, tokens: &token.Tokens{Store: st, Clock: clock.Real{}}, at: "127.0.0.1:0"}
	tok, secret, err := w.tokens.Create(t.Context(), "root", "test", access.Viewer, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	w.id, w.secret = tok.ID, secret
	w.up()
	t.Cleanup(func() { w.down(); st.Close() })
	return w
}

func (w *world) up() {
	l, err := net.Listen("tcp", w.at)
	if err != nil {
		w.t.Fatal(err)
	}
	w.at = l.Addr().String()
	w.api = server.New(server.Config{Backend: struct{ server.Backend }{}, Store: w.store, Clock: clock.Real{}, Version: "test"})
	w.hs = httptest.NewUnstartedServer(w.api)
	w.hs.Listener.Close()
	w.hs.Listener = l
	w.hs.Start()
}

func (w *world) down() {
	w.api.Drain()
	w.hs.CloseClientConnections()
	w.hs.Close()
}

func (w *world) client() *Client {
	c, err := NewRemote("http://"+w.at, w.secret)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.http.CloseIdleConnections)
	return c
}

func (w *world) put(n int) {
	im := image.Image{Name: fmt.Sprintf("im-%03d", n)}
	if err := w.store.Apply(w.t.Context(), store.NoEpoch, store.Put(image.Kind, im.Name, store.Any, im)); err != nil {
		w.t.Error(err)
	}
}

// A watch over broken connections and restarts of the server has everything,
// once and in order.
func TestWatch(t *testing.T) {
	w := start(t)
	const n = 120
	c := w.client()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	go func() {
		for i := range n {
			w.put(i)
			time.Sleep(5 * time.Millisecond)
			if i%20 == 10 {
				w.hs.CloseClientConnections()
			}
			if i%50 == 30 {
				w.down()
				w.put(1000 + i) // meanwhile
				w.up()
			}
		}
	}()
	var got []string
	last := int64(0)
	enough := errors.New("enough")
	err := c.Watch(ctx, []string{image.Kind}, 0, func(e Event) error {
		if e.Type == "change" {
			var im image.Image
			if err := json.Unmarshal(e.Record, &im); err != nil || e.Revision <= last || e.Kind != image.Kind || im.Name != e.Name {
				t.Errorf("%+v after %d: %v", e, last, err)
			}
			last = e.Revision
			got = append(got, e.Name)
		}
		if len(got) == n+2 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatalf("%v, with %d of %d changes", err, len(got), n+2)
	}
	seen := map[string]bool{}
	for _, name := range got {
		seen[name] = true
	}
	if len(seen) != n+2 {
		t.Errorf("%d names of %d", len(seen), n+2)
	}
}

func TestWatchEnds(t *testing.T) {
	w := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	// A token that is revoked: at the next connection.
	done := make(chan error, 1)
	heard := make(chan struct{}, 100)
	c := w.client()
	go func() {
		done <- c.Watch(ctx, nil, Now, func(Event) error { heard <- struct{}{}; return nil })
	}()
	<-heard
	if _, err := w.tokens.Revoke(ctx, w.id); err != nil {
		t.Fatal(err)
	}
	w.hs.CloseClientConnections()
	if err := <-done; fault.KindOf(err) != fault.Denied {
		t.Errorf("with a revoked token: %v", err)
	}
	// Nobody is there to begin with.
	none, err := NewRemote("http://127.0.0.1:1", w.secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := none.Watch(ctx, nil, Now, func(Event) error { return nil }); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("without a server: %v", err)
	}
	// What is no stream.
	for _, answer := range []string{"event: change\ndata: nonsense\n\n", "data: " + string(make([]byte, maxEvent+1)) + "\n\n"} {
		bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }))
		c, err := NewRemote(bad.URL, w.secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Watch(ctx, nil, Now, func(Event) error { return nil }); err == nil || ctx.Err() != nil {
			t.Errorf("%.30q: %v", answer, err)
		}
		c.http.CloseIdleConnections()
		bad.Close()
	}
}

// The token goes to no other address, and never over a network in plain.
func TestRemote(t *testing.T) {
	for address, ok := range map[string]bool{
		"https://dayfly.example:8443": true, "http://127.0.0.1:8080": true, "http://[::1]:8080": true, "http://localhost:8080": true, "https://dayfly.example/": true,
		"http://dayfly.example:8080": false, "http://10.0.0.1": false, "dayfly.example:8443": false, "ftp://127.0.0.1": false, "https://user@dayfly.example": false, "https://dayfly.example/x": false, "": false,
	} {
		if _, err := NewRemote(address, "x"); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
	told := false
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { told = told || r.Header.Get("Authorization") != "" }))
	defer other.Close()
	first := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusFound))
	defer first.Close()
	c, err := NewRemote(first.URL, "secret")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), "/v1/status", nil, nil); err == nil || told {
		t.Errorf("a redirection: %v; it was told the token: %v", err, told)
	}
	c.http.CloseIdleConnections()
}
