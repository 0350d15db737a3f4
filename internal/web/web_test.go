package web

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// api takes the token "good" and echoes who asks.
var api = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && r.URL.Path == "/v1/session" && r.Header.Get("Authorization") == "Bearer code" {
		_, _ = io.WriteString(w, `{"secret":"good"}`)
		return
	}
	if r.Header.Get("Authorization") != "Bearer good" {
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if _, err := io.ReadAll(r.Body); err != nil { // a request's body is never nil
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_, _ = io.WriteString(w, r.Method+" "+r.URL.Path)
})

func do(t *testing.T, method, path, body string, edit func(*http.Request)) *http.Response {
	t.Helper()
	h, err := New(api)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if edit != nil {
		edit(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestPagesNeedNothingFromElsewhere(t *testing.T) {
	for _, path := range []string{"/", "/environments/shop-dev", "/runs/shop-r1", "/sign-in"} {
		res := do(t, http.MethodGet, path, "", nil)
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusOK || !strings.Contains(string(body), "<div id=\"root\">") {
			t.Fatalf("%s: %s %.100s", path, res.Status, body)
		}
		p := res.Header.Get("Content-Security-Policy")
		if !strings.Contains(p, "default-src 'none'") || strings.Contains(p, "unsafe") || strings.Contains(p, "http") {
			t.Errorf("policy %q", p)
		}
		if regexp.MustCompile(`<script>|<style|style=|https?://`).Match(body) {
			t.Errorf("something inline or from elsewhere in %s", body)
		}
		for _, m := range regexp.MustCompile(`(?:src|href)="(/[^"]+)"`).FindAllStringSubmatch(string(body), -1) {
			asset := do(t, http.MethodGet, m[1], "", func(r *http.Request) { r.Header.Set("Accept-Encoding", "gzip") })
			if asset.StatusCode != http.StatusOK || (strings.HasPrefix(m[1], "/assets/") && !strings.Contains(asset.Header.Get("Cache-Control"), "immutable")) {
				t.Errorf("%s: %s %v", m[1], asset.Status, asset.Header)
			}
		}
	}
}

func TestSession(t *testing.T) {
	console := func(r *http.Request) { r.Header.Set(Header, "1") }
	if res := do(t, http.MethodPost, "/session", `{"token":"good"}`, nil); res.StatusCode != http.StatusForbidden {
		t.Errorf("a form of another site signs in: %s", res.Status)
	}
	res := do(t, http.MethodPost, "/session", `{"token":"guessed"}`, console)
	if res.StatusCode != http.StatusUnauthorized || len(res.Cookies()) > 0 || res.Header.Get("Retry-After") != "7" {
		t.Errorf("a wrong token: %s %v", res.Status, res.Cookies())
	}
	for _, bad := range []string{"", "{}", `{"token":"a b"}`, `{"token":"good","code":"code"}`, `{"token":"` + strings.Repeat("a", maxSignIn) + `"}`} {
		if res := do(t, http.MethodPost, "/session", bad, console); res.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("%.20q: %s", bad, res.Status)
		}
	}
	if res := do(t, http.MethodPost, "/session", `{"code":"guessed"}`, console); res.StatusCode != http.StatusUnauthorized || len(res.Cookies()) > 0 {
		t.Errorf("a wrong code: %s %v", res.Status, res.Cookies())
	}
	res = do(t, http.MethodPost, "/session", `{"code":"code"}`, console)
	if body, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK || len(res.Cookies()) != 1 || res.Cookies()[0].Value != "good" || strings.Contains(string(body), "good") {
		t.Errorf("a code: %s %v %s", res.Status, res.Cookies(), body)
	}
	res = do(t, http.MethodPost, "/session", `{"token":"good"}`, console)
	if res.StatusCode != http.StatusOK || len(res.Cookies()) != 1 {
		t.Fatalf("%s %v", res.Status, res.Cookies())
	}
	c := res.Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.MaxAge <= 0 {
		t.Errorf("cookie %+v", c)
	}
	with := func(header bool) func(*http.Request) {
		return func(r *http.Request) {
			r.AddCookie(c)
			if header {
				console(r)
			}
		}
	}
	for _, step := range []struct {
		method string
		header bool
		want   int
	}{{http.MethodGet, false, 200}, {http.MethodPost, false, 403}, {http.MethodDelete, false, 403}, {http.MethodPost, true, 200}} {
		if res := do(t, step.method, "/v1/environments", "", with(step.header)); res.StatusCode != step.want {
			t.Errorf("%s, header %v: %s", step.method, step.header, res.Status)
		}
	}
	if res := do(t, http.MethodGet, "/v1/environments", "", nil); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a session: %s", res.Status)
	}
	if res := do(t, http.MethodDelete, "/session", "", with(true)); res.StatusCode != http.StatusNoContent || res.Cookies()[0].MaxAge >= 0 {
		t.Errorf("signing out: %s %v", res.Status, res.Cookies())
	}
}
