package control

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/audit"
	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/hook"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

const hookSecret = "a secret of some length"

func putSecret(t *testing.T, dir, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secrets", name), []byte(text+"\n"), mode); err != nil {
		t.Fatal(err)
	}
}

const onePass = "\n  - { stage: x, suites: [{ name: api, run: suites/api.sh, size: 1 }] }\n"

func pushed(id, repo, branch string) (http.Header, []byte) {
	body := fmt.Appendf(nil, `{"ref":"refs/heads/%s","after":"6113728f27ae82c7b1a177c8d03f9e96e0adf246","repository":{"full_name":%q}}`, branch, repo)
	m := hmac.New(sha256.New, []byte(hookSecret))
	m.Write(body)
	return http.Header{"X-Hub-Signature-256": {"sha256=" + hex.EncodeToString(m.Sum(nil))}, "X-Github-Event": {"push"}, "X-Github-Delivery": {id}}, body
}

// A push starts one run, however often it is delivered, and from several at once.
func TestHook(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		putSecret(t, w.dir, "hook", hookSecret, 0o600)
		files := w.pack(piped("", onePass))
		if _, err := w.api.SetTrigger(t.Context(), "main", server.SetTrigger{Files: files, Hook: "github", Secret: "hook", Repo: "acme/shop", Branch: "main"}); err != nil {
			t.Fatal(err)
		}
		ask := func(trigger string, h http.Header, body []byte) (server.Hooked, int) {
			d, err := w.api.Hook(t.Context(), trigger, h, body, func() error { return nil })
			if e, ok := errors.AsType[*hook.Error](err); ok {
				return d, e.Status
			} else if err != nil {
				t.Fatal(err)
			}
			return d, 200
		}
		h, body := pushed("delivery-0001", "acme/shop", "main")
		if _, status := ask("other", h, body); status != 401 {
			t.Errorf("an unknown trigger: %d", status)
		}
		if _, status := ask("main", h, append(body, ' ')); status != 401 {
			t.Errorf("a changed body: %d", status)
		}
		for _, c := range [][2]string{{"acme/other", "main"}, {"acme/shop", "topic"}} {
			h, body := pushed("delivery-0002", c[0], c[1])
			if d, status := ask("main", h, body); status != 200 || d.Run != "" || d.Why == "" {
				t.Errorf("%v: %+v %d", c, d, status)
			}
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		started, replays := []string{}, 0
		for range 5 {
			wg.Go(func() {
				d, status := ask("main", h, body)
				mu.Lock()
				defer mu.Unlock()
				if d.Run != "" {
					started = append(started, d.Run)
				}
				if status == 409 {
					replays++
				}
			})
		}
		wg.Wait()
		if len(started) != 1 || replays != 4 {
			t.Fatalf("started %v, %d replays", started, replays)
		}
		r := w.ended(started[0])
		if !r.Passed || r.Cause.Commit == "" || r.Cause.Repo != "acme/shop" || r.By != "trigger/main" {
			t.Errorf("%+v %+v", r, r.Cause)
		}
		all, err := store.List[pipeline.Run](t.Context(), w.store, pipeline.Kind, "")
		if err != nil || len(all) != 1 {
			t.Errorf("%d runs, %v", len(all), err)
		}
		raw, err := w.store.List(t.Context(), pipeline.TriggerKind, "")
		if err != nil || strings.Contains(string(raw[0].Body), hookSecret) {
			t.Error("the secret is in the record")
		}
		w.nothingLeft()
	})
}

func TestSchedule(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start(w.store)
		if _, err := w.api.SetTrigger(t.Context(), "nightly", server.SetTrigger{Files: w.pack(piped("", onePass)), Cron: "20 * * * *"}); err != nil {
			t.Fatal(err)
		}
		runs := func() []pipeline.Run {
			rs, err := store.List[pipeline.Run](t.Context(), w.store, pipeline.Kind, "")
			if err != nil {
				t.Fatal(err)
			}
			return rs
		}
		w.wait("the first run", func() bool { return len(runs()) == 1 })
		r := w.ended(runs()[0].Name)
		if at := r.Created.UTC(); !r.Passed || at.Minute() != 20 || r.Cause.Kind != "schedule" {
			t.Errorf("%+v", r)
		}
		stop()
		time.Sleep(3*time.Hour + 30*time.Minute) // what was missed is one run
		defer w.start(w.store)()
		w.wait("the second run", func() bool { return len(runs()) == 2 })
		w.ended(runs()[1].Name)
		time.Sleep(10 * time.Minute)
		if n := len(runs()); n != 2 {
			t.Errorf("%d runs", n)
		}
		for what, s := range map[string]server.SetTrigger{
			"never goes off": {}, "5 fields": {Cron: "0 3"}, "more often": {Seconds: 5}, "needs a secret": {Hook: "github"}, "cannot be read": {Hook: "github", Secret: "none"},
			"never comes": {Cron: "0 0 31 2 *"},
		} {
			s.Files = w.pack(piped("", onePass))
			_, err := w.api.SetTrigger(t.Context(), "bad", s)
			denied(t, what, err, fault.Invalid, map[string]string{"never goes off": "never go off", "more often": "more often"}[what])
			if err == nil {
				t.Errorf("%s was taken", what)
			}
		}
		w.nothingLeft()
	})
}

// Gates and ends are told, through failures of the receiver, once each; a
// commit's status is that of the run, and no secret is in any record.
func TestTold(t *testing.T) {
	var mu sync.Mutex
	type got struct {
		path, auth, body string
		header           http.Header
	}
	var all []got
	fail := 0
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if fail > 0 {
			fail--
			rw.WriteHeader(503)
			return
		}
		raw, _ := io.ReadAll(r.Body)
		all = append(all, got{r.Method + " " + r.URL.EscapedPath(), r.Header.Get("Authorization") + r.Header.Get("Private-Token"), string(raw), r.Header})
		rw.WriteHeader(201)
	}))
	defer s.Close()
	dir := t.TempDir()
	putSecret(t, dir, "chat", s.URL+"/services/T0/B0/tiger", 0o600)
	putSecret(t, dir, "forge", "ghp_tiger", 0o600)
	putSecret(t, dir, "open", "x", 0o644)
	c := &Control{cfg: Config{Dir: dir, OutboundAddresses: []string{strings.TrimPrefix(s.URL, "http://")}}, clock: clock.Real{}}
	run := pipeline.Run{Name: "shop-r1", Phase: pipeline.Running, Blocker: &blocker.Blocker{Message: "waits for ann"}, Cause: &pipeline.Cause{Trigger: "main", Repo: "acme/shop", Commit: "abc123"},
		Status: &pipeline.Status{Forge: "github", API: s.URL, Token: "forge"}}
	n := pipeline.Notice{To: "chat", Format: "slack", Event: "gate", Text: "shop-r1 waits"}

	fail = 1
	err := c.Notify(t.Context(), n, run)
	if fault.KindOf(err) != fault.Unavailable || strings.Contains(err.Error(), "tiger") {
		t.Errorf("%v", err)
	}
	for _, f := range []func() error{
		func() error { return c.Notify(t.Context(), n, run) },
		func() error { n.Format = "json"; return c.Notify(t.Context(), n, run) },
		func() error { return c.SetStatus(t.Context(), run) },
		func() error {
			run.Phase, run.Passed, run.Status.Forge, run.Cause.Repo = pipeline.Done, true, "gitlab", "acme/web/shop"
			return c.SetStatus(t.Context(), run)
		},
	} {
		if err := f(); err != nil {
			t.Error(err)
		}
	}
	if len(all) != 4 {
		t.Fatalf("%d requests", len(all))
	}
	body := func(i int) map[string]any {
		var v map[string]any
		if err := json.Unmarshal([]byte(all[i].body), &v); err != nil {
			t.Error(err)
		}
		return v
	}
	if v := body(0); all[0].path != "POST /services/T0/B0/tiger" || len(v) != 1 || v["text"] != "shop-r1 waits" {
		t.Errorf("slack: %+v", all[0])
	}
	if v := body(1); v["event"] != "gate" || v["run"].(map[string]any)["name"] != "shop-r1" {
		t.Errorf("json: %+v", v)
	}
	if v := body(2); all[2].path != "POST /repos/acme/shop/statuses/abc123" || all[2].auth != "Bearer ghp_tiger" || v["state"] != "pending" || v["context"] != "dayfly/main" || v["description"] != "waits for ann" ||
		all[2].header.Get("Accept") != "application/vnd.github+json" {
		t.Errorf("github: %+v", all[2])
	}
	if v := body(3); all[3].path != "POST /projects/acme%2Fweb%2Fshop/statuses/abc123" || all[3].auth != "ghp_tiger" || v["state"] != "success" || v["name"] != "dayfly/main" {
		t.Errorf("gitlab: %+v", all[3])
	}
	s.Close()
	if err := c.Notify(t.Context(), n, run); fault.KindOf(err) != fault.Unavailable || strings.Contains(err.Error(), "tiger") || strings.Contains(err.Error(), "services") {
		t.Errorf("the error has the address: %v", err)
	}
	for _, bad := range []string{"open", "none", "../chat", ".chat"} {
		if _, err := c.secret(bad); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// What a forge sends over HTTP, and what the audit log says of it.
func TestHookOverHTTP(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		putSecret(t, w.dir, "hook", hookSecret, 0o600)
		if _, err := w.api.SetTrigger(t.Context(), "main", server.SetTrigger{Files: w.pack(piped("", onePass)), Hook: "github", Secret: "hook", Repo: "acme/shop", Branch: "main"}); err != nil {
			t.Fatal(err)
		}
		a := w.serve()
		send := func(trigger, from string, h http.Header, body []byte) *httptest.ResponseRecorder {
			req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/hooks/"+trigger, bytes.NewReader(body))
			req.RemoteAddr = from + ":1234"
			req.Header = h.Clone()
			rec := httptest.NewRecorder()
			a.s.ServeHTTP(rec, req)
			return rec
		}
		h, body := pushed("delivery-0001", "acme/shop", "main")
		topic, topicBody := pushed("delivery-0002", "acme/shop", "topic")
		unsigned := h.Clone()
		unsigned.Del("X-Hub-Signature-256")
		for _, c := range []struct {
			what, trigger string
			h             http.Header
			body          []byte
			status        int
			audited       string // problem in the log
		}{
			{"no signature", "main", unsigned, body, 401, "not its own"},
			{"another body", "main", h, append(bytes.Clone(body), ' '), 401, "not its own"},
			{"an unknown hook", "other", h, body, 401, "not its own"},
			{"a body that is too big", "main", h, make([]byte, hook.MaxBody+1), 413, "-"},
			{"another branch", "main", topic, topicBody, 200, "for the branch main"},
			{"a push", "main", h, body, 202, ""},
			{"the same again", "main", h, body, 409, "was taken before"},
		} {
			before := len(hooks(w))
			rec := send(c.trigger, "192.0.2.1", c.h, c.body)
			if rec.Code != c.status {
				t.Errorf("%s: %d %s", c.what, rec.Code, rec.Body)
			}
			all := hooks(w)
			if c.audited == "-" {
				if len(all) != before {
					t.Errorf("%s: %+v", c.what, all[len(all)-1])
				}
				continue
			}
			if len(all) != before+1 {
				t.Fatalf("%s: %d entries, before it %d", c.what, len(all), before)
			}
			e := all[before]
			if e.Status != c.status || e.From != "192.0.2.1" || !strings.HasPrefix(e.Object, "/hooks/"+c.trigger) || !strings.Contains(e.Error, c.audited) || (c.status == 202) != strings.Contains(e.Object, " run=shop-") {
				t.Errorf("%s: %+v", c.what, e)
			}
			time.Sleep(time.Second)
		}
		raw, err := w.store.List(t.Context(), audit.Kind, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range raw {
			if strings.Contains(string(r.Body), hookSecret) || strings.Contains(string(r.Body), h.Get("X-Hub-Signature-256")) {
				t.Errorf("a secret is in %s", r.Body)
			}
		}
		// Who guesses is held up, and does not fill the log; others are not held up.
		before, last := len(hooks(w)), 0
		for range 50 {
			last = send("main", "192.0.2.66", unsigned, body).Code
		}
		if n := len(hooks(w)) - before; last != 429 || n > 10 {
			t.Errorf("the last of 50 got %d, and %d are in the log", last, n)
		}
		if rec := send("main", "192.0.2.1", topic, topicBody); rec.Code != 200 {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
		run, _, _ := strings.Cut(strings.SplitN(rejoin(hooks(w)), " run=", 2)[1], "\n")
		w.ended(run)
	})
}

// A hook that cannot be noted starts nothing.
func TestHookThatCannotBeNoted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		putSecret(t, w.dir, "hook", hookSecret, 0o600)
		if _, err := w.api.SetTrigger(t.Context(), "main", server.SetTrigger{Files: w.pack(piped("", onePass)), Hook: "github", Secret: "hook"}); err != nil {
			t.Fatal(err)
		}
		h, body := pushed("delivery-0001", "acme/shop", "main")
		if d, err := w.api.Hook(t.Context(), "main", h, body, func() error { return errors.New("no room") }); err == nil || d.Run != "" {
			t.Errorf("%+v %v", d, err)
		}
		if all, err := store.List[pipeline.Run](t.Context(), w.store, pipeline.Kind, ""); err != nil || len(all) != 0 {
			t.Errorf("%d runs, %v", len(all), err)
		}
	})
}

func hooks(w *world) (out []audit.Entry) {
	all, err := store.List[audit.Entry](w.t.Context(), w.store, audit.Kind, "")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range all {
		if e.Operation == "hook" {
			out = append(out, e)
		}
	}
	return out
}

func rejoin(all []audit.Entry) (out string) {
	for _, e := range all {
		out += e.Object + "\n"
	}
	return out
}
