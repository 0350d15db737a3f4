package server

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/audit"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// A link of one replica signs in at another, once; who guesses is slowed down,
// and all of it is in the audit log, which never holds the code.
func TestSignIn(t *testing.T) {
	w := start(t, Limits{})
	other := New(Config{Backend: w.b, Store: w.store, Clock: clock.Real{}, Log: slog.New(slog.DiscardHandler), Version: "test"})
	ask := func(s *Server, method, path, secret, from, body string) (int, string) {
		r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		r.RemoteAddr = from + ":1"
		r.Header.Set("Authorization", "Bearer "+secret)
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, r)
		return rec.Code, rec.Body.String()
	}
	link := func(role string) Link {
		t.Helper()
		var l Link
		code, body := ask(w.s, http.MethodPost, "/v1/links", w.secrets[access.Deployer], "192.0.2.1", `{"role":"`+role+`"}`)
		if err := json.Unmarshal([]byte(body), &l); err != nil || code != http.StatusOK || l.Code == "" {
			t.Fatalf("%d %s", code, body)
		}
		return l
	}
	if code, body := ask(w.s, http.MethodPost, "/v1/links", w.secrets[access.Deployer], "192.0.2.1", `{"role":"admin"}`); code != http.StatusForbidden || !strings.Contains(body, "--role deployer") {
		t.Errorf("a deployer makes an admin: %d %s", code, body)
	}
	l := link("viewer")
	if code, _ := ask(other, http.MethodGet, "/v1/whoami", l.Code, "192.0.2.2", ""); code != http.StatusUnauthorized {
		t.Errorf("a code asks the API: %d", code)
	}
	if code, body := ask(other, http.MethodPost, "/v1/session", w.secrets[access.Admin], "192.0.2.2", ""); code != http.StatusUnprocessableEntity {
		t.Errorf("a token signs in: %d %s", code, body)
	}
	code, body := ask(other, http.MethodPost, "/v1/session", l.Code, "192.0.2.2", "")
	var m Minted
	if err := json.Unmarshal([]byte(body), &m); err != nil || code != http.StatusOK || m.Role != access.Viewer || m.Name != "the-deployer" || !m.Session {
		t.Fatalf("%d %s", code, body)
	}
	if code, body := ask(w.s, http.MethodGet, "/v1/whoami", m.Secret, "192.0.2.2", ""); code != http.StatusOK || !strings.Contains(body, m.ID) {
		t.Errorf("%d %s", code, body)
	}
	for _, s := range []*Server{w.s, other} {
		if code, body := ask(s, http.MethodPost, "/v1/session", l.Code, "192.0.2.2", ""); code != http.StatusUnauthorized || !strings.Contains(body, "dayfly console") {
			t.Errorf("used twice: %d %s", code, body)
		}
	}
	// Who guesses waits; a good link from elsewhere does not.
	for n := 0; ; n++ {
		_, guess, _ := access.MintCode()
		code, _ := ask(w.s, http.MethodPost, "/v1/session", guess, "192.0.2.3", "")
		if code == http.StatusTooManyRequests {
			break
		}
		if code != http.StatusUnauthorized || n > 50 {
			t.Fatalf("guess %d: %d", n, code)
		}
	}
	if code, body := ask(w.s, http.MethodPost, "/v1/session", link("viewer").Code, "192.0.2.4", ""); code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}
	if code, body := ask(w.s, http.MethodDelete, "/v1/session", m.Secret, "192.0.2.2", ""); code != http.StatusNoContent {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := ask(other, http.MethodGet, "/v1/whoami", m.Secret, "192.0.2.2", ""); code != http.StatusUnauthorized {
		t.Errorf("a session after its end: %d", code)
	}
	// Signing out of a token that somebody keeps leaves it.
	if code, _ := ask(w.s, http.MethodDelete, "/v1/session", w.secrets[access.Viewer], "192.0.2.2", ""); code != http.StatusNoContent {
		t.Error(code)
	}
	if code, _ := ask(w.s, http.MethodGet, "/v1/whoami", w.secrets[access.Viewer], "192.0.2.2", ""); code != http.StatusOK {
		t.Error(code)
	}
	es, err := store.List[audit.Entry](t.Context(), w.store, audit.Kind, "")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, e := range es {
		seen[e.Operation+" "+e.Principal+" "+http.StatusText(e.Status)]++
		if raw, _ := json.Marshal(e); strings.Contains(string(raw), l.Code[17:]) || strings.Contains(string(raw), m.Secret[17:]) {
			t.Errorf("a secret is in the audit log: %s", raw)
		}
	}
	if seen["sign-in link:"+l.ID+" OK"] != 1 || seen["sign-in none Unauthorized"] < 3 || seen["sign-out token:"+m.ID+" No Content"] != 1 {
		t.Errorf("audited: %v", seen)
	}
}
