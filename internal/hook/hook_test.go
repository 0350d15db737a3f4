package hook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	secret = []byte("It's a Secret to Everybody")
	now    = time.Unix(1_900_000_000, 0)
)

const sha = "6113728f27ae82c7b1a177c8d03f9e96e0adf246"

func headers(kv ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(kv); i += 2 {
		h.Set(kv[i], kv[i+1])
	}
	return h
}

func mac(body string) string {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(m.Sum(nil))
}

// The signature of GitHub's own documentation.
func TestGitHubsExample(t *testing.T) {
	if !signed(secret, "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17", []byte("Hello, World!")) {
		t.Error("it is not taken")
	}
}

func TestRead(t *testing.T) {
	push := `{"ref":"refs/heads/main","after":"` + sha + `","deleted":false,"repository":{"full_name":"acme/shop"}}`
	lab := `{"ref":"refs/heads/main","after":"` + sha + `","project":{"path_with_namespace":"acme/web/shop"}}`
	stamp := strconv.FormatInt(now.Unix(), 10)
	old := strconv.FormatInt(now.Add(-Skew-time.Second).Unix(), 10)
	own := `{"repo":"acme/shop","ref":"refs/heads/main","commit":"` + sha + `"}`
	const id = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
	hub := func(event, body string) http.Header {
		return headers("X-Hub-Signature-256", mac(body), "X-GitHub-Event", event, "X-GitHub-Delivery", id)
	}
	gl := func(token, event string) http.Header {
		return headers("X-Gitlab-Token", token, "X-Gitlab-Event", event, "X-Gitlab-Event-UUID", id)
	}
	df := func(stamp, id, body string) http.Header {
		return headers("X-Dayfly-Timestamp", stamp, "X-Dayfly-Delivery", id, "X-Dayfly-Signature", Sign(secret, stamp, id, []byte(body)))
	}
	for _, c := range []struct {
		name   string
		kind   Kind
		h      http.Header
		body   string
		status int // 0: taken
		push   bool
		repo   string
	}{
		{"github", GitHub, hub("push", push), push, 0, true, "acme/shop"},
		{"github ping", GitHub, hub("ping", "{}"), "{}", 0, false, ""},
		{"github, branch deleted", GitHub, hub("push", `{"ref":"refs/heads/x","deleted":true}`), `{"ref":"refs/heads/x","deleted":true}`, 0, false, ""},
		{"github, other body", GitHub, hub("push", push), push + " ", 401, false, ""},
		{"github, no signature", GitHub, headers("X-GitHub-Event", "push", "X-GitHub-Delivery", id), push, 401, false, ""},
		{"github, old signature alone", GitHub, headers("X-Hub-Signature", mac(push)), push, 401, false, ""},
		{"github, half a signature", GitHub, headers("X-Hub-Signature-256", mac(push)[:40]), push, 401, false, ""},
		{"github, no delivery", GitHub, headers("X-Hub-Signature-256", mac(push), "X-GitHub-Event", "push"), push, 400, false, ""},
		{"github, form encoded", GitHub, hub("push", "payload=x"), "payload=x", 400, false, ""},
		{"github, a path as a repository", GitHub, hub("push", `{"repository":{"full_name":"a/../../x"}}`), `{"repository":{"full_name":"a/../../x"}}`, 400, false, ""},
		{"gitlab", GitLab, gl(string(secret), "Push Hook"), lab, 0, true, "acme/web/shop"},
		{"gitlab, tag", GitLab, gl(string(secret), "Tag Push Hook"), lab, 0, false, ""},
		{"gitlab, branch deleted", GitLab, gl(string(secret), "Push Hook"), strings.Replace(lab, sha, strings.Repeat("0", 40), 1), 0, false, "acme/web/shop"},
		{"gitlab, other token", GitLab, gl(string(secret)+"x", "Push Hook"), lab, 401, false, ""},
		{"gitlab, no token", GitLab, gl("", "Push Hook"), lab, 401, false, ""},
		{"hmac", HMAC, df(stamp, "build-0001", own), own, 0, true, "acme/shop"},
		{"hmac, empty", HMAC, df(stamp, "build-0001", ""), "", 0, true, ""},
		{"hmac, too old", HMAC, df(old, "build-0001", own), own, 401, false, ""},
		{"hmac, another time", HMAC, func() http.Header { h := df(old, "build-0001", own); h.Set("X-Dayfly-Timestamp", stamp); return h }(), own, 401, false, ""},
		{"hmac, another delivery", HMAC, func() http.Header {
			h := df(stamp, "build-0001", own)
			h.Set("X-Dayfly-Delivery", "build-0002")
			return h
		}(), own, 401, false, ""},
		{"hmac, no time", HMAC, df("soon", "build-0001", own), own, 400, false, ""},
		{"hmac, a commit that is none", HMAC, df(stamp, "build-0001", `{"commit":"HEAD"}`), `{"commit":"HEAD"}`, 400, false, ""},
		{"too large", GitHub, hub("push", push), strings.Repeat("x", MaxBody+1), 413, false, ""},
	} {
		e, err := Read(c.kind, secret, c.h, []byte(c.body), now)
		status := 0
		if r, ok := errors.AsType[*Error](err); ok {
			status = r.Status
		}
		if status != c.status || e.Push != c.push || e.Repo != c.repo {
			t.Errorf("%s: %+v, %v", c.name, e, err)
		}
		if c.push && c.repo != "" && (e.Branch() != "main" || e.Commit != sha) {
			t.Errorf("%s: %+v", c.name, e)
		}
	}
	if _, err := Read(GitHub, []byte("short"), hub("push", push), []byte(push), now); err == nil {
		t.Error("a secret that can be guessed was taken")
	}
}

// Whatever is sent: without the secret nothing is taken, and with it nothing
// panics, and what is taken has its form.
func FuzzRead(f *testing.F) {
	f.Add("github", "sha256=00", "push", "72d3162e-cc78", []byte(`{"ref":"refs/heads/main"}`), true)
	f.Add("gitlab", "x", "Push Hook", "72d3162e-cc78", []byte(`{"project":{"path_with_namespace":"a/b"}}`), true)
	f.Add("hmac", "1900000000", "", "72d3162e-cc78", []byte(`{"commit":1}`), true)
	f.Add("hmac", "1900000000", "", "72d3162e-cc78", []byte(`{`), false)
	f.Fuzz(func(t *testing.T, kind, signature, event, id string, body []byte, good bool) {
		h := http.Header{
			"X-Hub-Signature-256": {signature}, "X-Github-Event": {event}, "X-Github-Delivery": {id}, "X-Gitlab-Token": {signature}, "X-Gitlab-Event": {event}, "X-Gitlab-Event-Uuid": {id},
			"X-Dayfly-Timestamp": {signature}, "X-Dayfly-Delivery": {id}, "X-Dayfly-Signature": {signature},
		}
		if good {
			h.Set("X-Hub-Signature-256", mac(string(body)))
			h.Set("X-Gitlab-Token", string(secret))
			h.Set("X-Dayfly-Signature", Sign(secret, signature, id, body))
		}
		e, err := Read(Kind(kind), secret, h, body, now)
		if err != nil {
			if e != (Event{}) {
				t.Errorf("a refused delivery says %+v", e)
			}
			return
		}
		if !good {
			t.Errorf("taken without a signature: %q %q", kind, signature)
		}
		if e.Delivery == "" || strings.Contains(e.Repo+e.Ref+e.Commit, "..") || strings.ContainsAny(e.Repo+e.Ref+e.Commit, " \n\x00") {
			t.Errorf("%+v", e)
		}
	})
}
