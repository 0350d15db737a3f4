package control

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/token"
)

// as asks without a body, with a secret.
func (a *api) as(secret, method, path string) *httptest.ResponseRecorder {
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Second) // for the watch, which is endless
	defer cancel()
	req := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader("{}"))
	if method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json")
	}
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	rec := httptest.NewRecorder()
	a.s.ServeHTTP(rec, req)
	return rec
}

// Every operation of the document, with every role, with a token that has ended
// and with none: what the table in package access says is what happens. An
// operation without a role cannot be registered.
func TestEveryRole(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.serve()
		tokens := &token.Tokens{Store: w.store, Clock: clock.Real{}}
		secrets := map[access.Role]string{}
		for _, r := range access.Roles {
			_, secret, err := tokens.Create(t.Context(), "root", "the-"+string(r), r, time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			secrets[r] = secret
		}
		_, ended, err := tokens.Create(t.Context(), "root", "ended", access.Admin, time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		gone, revoked, err := tokens.Create(t.Context(), "root", "revoked", access.Admin, time.Time{})
		if err == nil {
			_, err = tokens.Revoke(t.Context(), gone.ID)
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		seen := map[string]bool{}
		try := func(id, method, path string) {
			seen[id] = true
			for _, r := range access.Roles {
				rec := a.as(secrets[r], method, path)
				if may := rec.Code != http.StatusForbidden; may != r.Allows(access.Needs[id]) || rec.Code == http.StatusUnauthorized {
					t.Errorf("%s, which needs %s, as %s: %d %s", id, access.Needs[id], r, rec.Code, rec.Body)
				}
			}
			for what, secret := range map[string]string{"no": "", "an ended": ended, "a revoked": revoked, "a strange": "dfl_x"} {
				if rec := a.as(secret, method, path); rec.Code != http.StatusUnauthorized && rec.Code != http.StatusTooManyRequests || strings.Contains(rec.Body.String(), "items") {
					t.Errorf("%s with %s token: %d %s", id, what, rec.Code, rec.Body)
				}
			}
		}
		a.each(func(path string, op *huma.Operation) {
			path = strings.ReplaceAll(path, "{file}", "junit.xml")
			for _, p := range op.Parameters {
				path = strings.ReplaceAll(path, "{"+p.Name+"}", "nothing")
			}
			if op.OperationID == "diff-images" {
				path += "?to=nothing"
			}
			try(op.OperationID, op.Method, path)
		})
		try("watch", http.MethodGet, "/v1/watch")
		try("get-openapi", http.MethodGet, "/openapi.json")
		try("get-metrics", http.MethodGet, "/metrics")
		for id := range access.Needs {
			if !seen[id] {
				t.Errorf("%s is in the table and no operation", id)
			}
		}
	})
}
