package control

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/token"
)

// api is the whole server over the world's cloud, asked with an admin's token.
type api struct {
	t      *testing.T
	s      *server.Server
	secret string
	doc    *huma.OpenAPI
}

func (w *world) serve() *api {
	w.t.Helper()
	l := server.DefaultLimits
	l.Rate, l.Burst, l.Timeout = 1e6, 1e6, 20*time.Second
	s := server.New(server.Config{Metrics: w.api.metrics.Handler(), Answered: w.api.metrics.Request, Backend: w.api, Store: w.store, Clock: clock.Real{}, Version: "test", Limits: l})
	_, secret, err := (&token.Tokens{Store: w.store, Clock: clock.Real{}}).Create(w.t.Context(), "root", "test", access.Admin, time.Time{})
	if err != nil {
		w.t.Fatal(err)
	}
	return &api{w.t, s, secret, s.OpenAPI()}
}

func (a *api) ask(method, target, typ string, body []byte) *httptest.ResponseRecorder {
	a.t.Helper()
	req := httptest.NewRequestWithContext(a.t.Context(), method, target, bytes.NewReader(body))
	req.Header.Set("Authorization", "Bearer "+a.secret)
	if typ != "" {
		req.Header.Set("Content-Type", typ)
	}
	rec := httptest.NewRecorder()
	began := time.Now()
	a.s.ServeHTTP(rec, req)
	if d := time.Since(began); d > 30*time.Second {
		a.t.Errorf("%s %s took %s", method, target, d)
	}
	return rec
}

// each calls f for every operation of the document, but for the endless one.
func (a *api) each(f func(path string, op *huma.Operation)) {
	var all []*huma.Operation
	for _, item := range a.doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Delete, item.Put, item.Patch} {
			if op != nil && op.OperationID != "watch" {
				all = append(all, op)
			}
		}
	}
	if len(all) < 20 {
		a.t.Fatalf("the document has %d operations: this is not the server's", len(all))
	}
	slices.SortFunc(all, func(x, y *huma.Operation) int {
		return cmp.Or(cmp.Compare(slices.Index(order, x.Method), slices.Index(order, y.Method)), cmp.Compare(x.OperationID, y.OperationID))
	})
	for _, op := range all {
		f(op.Path, op)
	}
}

// agrees compares an answer with the document: its status is one of the
// operation's, its body is of the schema.
func (a *api) agrees(op *huma.Operation, rec *httptest.ResponseRecorder, what string) {
	a.t.Helper()
	res := op.Responses[fmt.Sprint(rec.Code)]
	if res == nil && rec.Code >= 400 {
		res = op.Responses["default"]
	}
	if res == nil {
		a.t.Errorf("%s: the document does not know the status %d", what, rec.Code)
		return
	}
	typ, _, _ := strings.Cut(rec.Header().Get("Content-Type"), ";")
	media := res.Content[typ]
	if media == nil {
		if len(res.Content) > 0 || rec.Body.Len() > 0 {
			a.t.Errorf("%s: the document does not know %q for %d", what, typ, rec.Code)
		}
		return
	}
	if !strings.Contains(typ, "json") {
		return
	}
	var v any
	if err := json.Unmarshal(rec.Body.Bytes(), &v); err != nil {
		a.t.Errorf("%s: %v: %s", what, err, rec.Body)
		return
	}
	var result huma.ValidateResult
	huma.Validate(a.doc.Components.Schemas, media.Schema, huma.NewPathBuffer([]byte{}, 0), huma.ModeReadFromServer, v, &result)
	for _, err := range result.Errors {
		a.t.Errorf("%s: the answer is not what the document says: %v\n%s", what, err, rec.Body)
	}
}

// order is that of methods: what ends things comes last.
var order = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// The document agrees with the server: requests that are made from it alone,
// with values that are there and values that are not, are answered as it says,
// and each operation goes well at least once.
func TestDocument(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		broken := w.broken(w.pack(mended), "install", "") // keeps a builder
		w.api.cfg.Chaos = true
		w.files = w.pack(strings.Replace(description, "dev: { size: 3, lease: 24h }", "dev: { size: 3, lease: 4h, lease_max: 8h }", 1))
		stop := w.start(w.store)
		defer stop()
		a := w.serve()
		b, err := w.api.Bake(t.Context(), server.StartBake{Files: w.pack(strings.Replace(description, "/srv/shop", "/srv/spare", 1))})
		if err != nil {
			t.Fatal(err)
		}
		spare := w.baked(b.Name).Image
		w.mustDeploy()
		w.serves(1)
		w.wait("all are noted", func() bool { return w.whole(1, 3) })
		if err := w.deploy("short"); err != nil {
			t.Fatal(err)
		}
		w.wait("the other one serves", func() bool {
			return get[environment.Environment](w, environment.Kind, "shop-short").Phase == environment.Serving
		})
		run := w.ended(w.run("api"))
		gated := w.pipeline(piped("", "\n  - { stage: x, suites: [{ name: api, run: suites/api.sh, size: 1 }] }\n  - { stage: go, gate: { by: test } }\n"))
		w.blocked(gated, "gate")
		manual := w.pipeline(piped("", "\n  - { stage: x, suites: [{ name: one, manual: look, size: 1 }, { name: two, manual: look, size: 1 }] }\n"))
		w.until(manual, "one", pipeline.Waiting)
		w.until(manual, "two", pipeline.Waiting)
		im := get[image.Image](w, image.Kind, w.env().Image)
		im.Attestation = "reports/statement"
		if err := w.store.Apply(t.Context(), store.NoEpoch, store.Put(image.Kind, im.Name, store.Any, im)); err != nil {
			t.Fatal(err)
		}
		for key, body := range map[string]string{im.Report: "status: changed", im.SBOM: "{}", im.Inventory: "{}", "reports/statement": "{}"} {
			w.cloud.Put(key, []byte(body))
		}
		revoked, _, err := (&token.Tokens{Store: w.store, Clock: clock.Real{}}).Create(t.Context(), "root", "old", access.Viewer, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		// One that ran something else before.
		kept := environment.Environment{Name: "shop-kept", Blueprint: "shop", Purpose: "dev", Files: w.files, Image: im.Name, Want: 7, Serving: 7, Phase: environment.Serving, Deadline: time.Now().Add(time.Hour),
			Good: []environment.Version{{Generation: 6, Image: "shop-before", Release: w.env().Release, Files: w.files, Size: 1}}}
		before, bad := image.Image{Name: "shop-before", Blueprint: "shop", State: image.Verified}, image.Image{Name: "shop-bad", Blueprint: "shop", State: image.Verified}
		if err := w.store.Apply(t.Context(), store.NoEpoch, store.Put(environment.Kind, kept.Name, 0, kept), store.Put(image.Kind, before.Name, 0, before), store.Put(image.Kind, bad.Name, 0, bad)); err != nil {
			t.Fatal(err)
		}
		value := map[string][]string{"roll-back/name": {"nothing", kept.Name, kept.Name}, "name": {"nothing", "shop-dev", run.Name, im.Name}, "suite": {"api"}, "file": {"junit.xml"}, "object": {"", "shop-dev"}, "limit": {"1"}, "to": {im.Name}, "set-trigger/name": {"nightly"}, "delete-trigger/name": {"nothing", "nightly"}, "stage": {"go"}, "path": {"junit.xml"},
			"decide-gate/name": {gated}, "judge-suite/name": {manual}, "judge-suite/suite": {"one"}, "attach/name": {manual}, "attach/suite": {"two"}, "get-artifact/name": {"nothing", run.Name},
			"deploy-again/name": {"nothing", "shop-short"}, "get-instance-logs/name": {"i-nothing", w.instances(1)[0].ID},
			"exec-bake/name": {broken.Name}, "cancel-bake/name": {broken.Name}, "quarantine-image/name": {im.Name}, "revoke-image/name": {"nothing", bad.Name}, "freeze/name": {"nothing", kept.Name}, "unfreeze/name": {"nothing", kept.Name}, "delete-image/name": {"nothing", spare}, "revoke-token/name": {"nothing", revoked.ID}}
		// Those that serve when they are asked for: a deploy comes before.
		ids := sync.OnceValue(func() (ids []string) {
			w.wait("the environment is at rest", func() bool {
				e := w.env()
				return e.Next == nil && e.Serving == e.Want && w.whole(e.Serving, 3)
			})
			for _, i := range w.instances(w.env().Serving) {
				if i.State == instance.Serving {
					ids = append(ids, i.ID)
				}
			}
			return ids
		})
		field := func(op, name string, i int) any {
			switch op + "/" + name {
			case "create-token/name":
				return fmt.Sprintf("t%d", i)
			case "create-token/role", "create-link/role":
				return "viewer"
			case "keep-instance/name", "release-instance/name":
				return ids()[0]
			case "replace-instance/name":
				return ids()[1]
			case "judge-suite/passed", "decide-gate/passed":
				return true
			case "quarantine-image/quarantined":
				return i%2 == 0
			}
			return map[string]any{"files": w.files, "purpose": "dev", "minutes": 300, "command": "ls", "channel": "stable", "why": "to see"}[name]
		}
		done := map[string]bool{}
		a.each(func(path string, op *huma.Operation) {
			if op.Security == nil || len(op.Security[0]["token"]) != 1 || access.Needs[op.OperationID] != access.Role(op.Security[0]["token"][0]) {
				t.Errorf("%s: its role is not in the document", op.OperationID)
			}
			if op.Summary == "" {
				t.Errorf("%s has no summary", op.OperationID)
			}
			for i := range 4 {
				target, query := path, url.Values{}
				for _, p := range op.Parameters {
					vs := value[op.OperationID+"/"+p.Name]
					if vs == nil {
						vs = value[p.Name]
					}
					if len(vs) == 0 {
						continue
					}
					v := vs[i%len(vs)]
					switch p.In {
					case "path":
						target = strings.ReplaceAll(target, "{"+p.Name+"}", url.PathEscape(v))
					case "query":
						if i > 0 && p.Name != "name" {
							query.Set(p.Name, v)
						}
					}
				}
				if strings.Contains(target, "{") {
					t.Fatalf("%s: no value for a parameter of %s", op.OperationID, target)
				}
				typ, body := a.body(op, func(name string) any { return field(op.OperationID, name, i) })
				if op.OperationID == "add-blueprint" {
					body = packed(t, description)
				}
				switch op.OperationID {
				case "attach":
					body = []byte("a picture")
				case "harm":
					body = []byte(`{"act":{"kind":"freeze-api"}}`)
				case "set-trigger":
					body = fmt.Appendf(nil, `{"files":%q,"seconds":86400}`, w.files)
				}
				if len(query) > 0 {
					target += "?" + query.Encode()
				}
				asks := *a
				if op.OperationID == "sign-in" && i == 0 {
					asks.secret = a.code()
				}
				rec := asks.ask(op.Method, target, typ, body)
				if rec.Code >= 500 {
					t.Errorf("%s %s: %d %s", op.Method, target, rec.Code, rec.Body)
				}
				done[op.OperationID] = done[op.OperationID] || rec.Code < 300
				a.agrees(op, rec, op.Method+" "+target)
			}
		})
		for id, well := range done {
			if !well {
				t.Errorf("%s never went well: the requests prove little", id)
			}
		}
	})
}

// code is that of a new link to sign in.
func (a *api) code() string {
	var l server.Link
	rec := a.ask(http.MethodPost, "/v1/links", "application/json", []byte(`{"role":"viewer"}`))
	if err := json.Unmarshal(rec.Body.Bytes(), &l); err != nil || l.Code == "" {
		a.t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	return l.Code
}

// body makes a body from an operation's schema.
func (a *api) body(op *huma.Operation, field func(name string) any) (string, []byte) {
	if op.RequestBody == nil {
		return "", nil
	}
	for typ, media := range op.RequestBody.Content {
		if typ != "application/json" {
			return typ, nil
		}
		in := map[string]any{}
		for _, name := range a.schema(media.Schema).Required {
			if v := field(name); v != nil {
				in[name] = v
			}
		}
		raw, err := json.Marshal(in)
		if err != nil {
			a.t.Fatal(err)
		}
		return typ, raw
	}
	return "", nil
}

// schema follows a reference.
func (a *api) schema(s *huma.Schema) *huma.Schema {
	if s.Ref != "" {
		return a.doc.Components.Schemas.SchemaFromRef(s.Ref)
	}
	return s
}

// nasty are values that nobody expects.
var nasty = []string{
	"", " ", "x", "0", "-1", "1e309", "99999999999999999999999", "null", "true", "[]", "{}", "%00", "\x00", "\xff\xfe", "é", "💥", "../../etc/passwd", "a/b/c", "a b",
	"'; DROP TABLE record; --", "%", "_", "*", "$(id)", "{{.}}", strings.Repeat("a", 5000), strings.Repeat("[", 3000), `{"a":`, `"`, `{"files":null}`, `{"files":{}}`,
	"sha256:" + strings.Repeat("0", 64), "sha256:" + strings.Repeat("f", 65), "\u202e", "..", ".", "//", "shop-dev", "a\r\nSet-Cookie: x",
}

// Bad input of every kind to every operation: never a 500, never a hang, and
// always a problem document.
func TestBadInput(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start(w.store)
		defer stop()
		a := w.serve()
		seed := uint64(time.Now().UnixNano()) // virtual: the same each time
		r := rand.New(rand.NewPCG(seed, 1))
		pick := func() string { return nasty[r.IntN(len(nasty))] }
		fuzzed := func(schema *huma.Schema) []byte {
			in := map[string]any{}
			for name := range a.schema(schema).Properties {
				switch r.IntN(6) {
				case 0:
				case 1:
					in[name] = r.IntN(1<<40) - 1<<39
				case 2:
					in[name] = []any{pick(), nil, 3.5, map[string]any{pick(): pick()}}
				case 3:
					in[name] = nil
				case 4:
					in[name] = map[string]any{"files": w.files, "purpose": "dev", "name": "shop-dev", "role": "viewer", "size": 2}[name]
				default:
					in[name] = pick()
				}
			}
			raw, err := json.Marshal(in)
			if err != nil {
				t.Fatal(err)
			}
			return raw
		}
		counts := map[int]int{}
		a.each(func(path string, op *huma.Operation) {
			for range 120 {
				target, query := path, url.Values{}
				for _, p := range op.Parameters {
					switch p.In {
					case "path":
						v := pick()
						if v == "" || v == "." || v == ".." {
							v = "x"
						}
						target = strings.ReplaceAll(target, "{"+p.Name+"}", url.PathEscape(v))
					case "query":
						if r.IntN(2) == 0 {
							query.Set(p.Name, pick())
						}
					}
				}
				if r.IntN(10) == 0 {
					query.Set(pick(), pick())
				}
				if len(query) > 0 {
					target += "?" + query.Encode()
				}
				var typ string
				var body []byte
				if op.RequestBody != nil {
					for ct, media := range op.RequestBody.Content {
						typ, body = ct, []byte(pick())
						if ct == "application/json" && r.IntN(4) > 0 {
							body = fuzzed(media.Schema)
						}
					}
					if r.IntN(10) == 0 {
						typ = []string{"", "text/plain", "application/cbor", "nonsense;;", "application/json; charset=latin1"}[r.IntN(5)]
					}
				}
				rec := a.ask(op.Method, target, typ, body)
				counts[rec.Code/100]++
				if rec.Code >= 500 && rec.Code != http.StatusServiceUnavailable {
					t.Fatalf("%s %q with %s %.200q: %d %s", op.Method, target, typ, body, rec.Code, rec.Body)
				}
				if rec.Code >= 400 {
					var p server.Problem
					if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || p.Status != rec.Code || p.Detail == "" || rec.Header().Get("Content-Type") != "application/problem+json" {
						t.Fatalf("%s %q: %d %s is no problem document: %s", op.Method, target, rec.Code, rec.Header().Get("Content-Type"), rec.Body)
					}
				}
			}
		})
		if counts[4] < 1000 || counts[2] == 0 {
			t.Errorf("answers by class: %v; the input proves little", counts)
		}
	})
}
