package control

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
	"github.com/dayfly-infra/dayfly/internal/token"
)

// FuzzAPI asks any operation anything, with the whole control plane behind it:
//
//	go test ./internal/control -run '^$' -fuzz FuzzAPI -fuzztime 1m -fuzzminimizetime 10x
//
// No answer is a defect, and every refusal is a problem document.
func FuzzAPI(f *testing.F) {
	st, err := sqlite.Open(f.Context(), ":memory:", clock.Real{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { st.Close() })
	w := &world{cloud: cloudtest.New(clock.Real{}), store: st, box: &fakeBox{body: "one"}, dir: f.TempDir(), fail: map[string]string{}, ran: map[string]int{}, log: io.Discard}
	w.cloud.Exec = w.exec
	w.cloud.AddImage("ami-base")
	if err := os.Mkdir(filepath.Join(w.dir, "tmp"), 0o700); err != nil {
		f.Fatal(err)
	}
	w.api = w.control(st)
	l := server.DefaultLimits
	l.Rate, l.Burst, l.Timeout = 1e6, 1e6, 5*time.Second
	s := server.New(server.Config{Backend: w.api, Store: st, Clock: clock.Real{}, Version: "test", Limits: l})
	_, secret, err := (&token.Tokens{Store: st, Clock: clock.Real{}}).Create(f.Context(), "root", "fuzz", access.Admin, time.Time{})
	if err != nil {
		f.Fatal(err)
	}
	var ops []*huma.Operation
	for _, item := range s.OpenAPI().Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Delete} {
			if op != nil && op.OperationID != "watch" {
				ops = append(ops, op)
			}
		}
	}
	slices.SortFunc(ops, func(a, b *huma.Operation) int { return strings.Compare(a.OperationID, b.OperationID) })
	files := "sha256:" + strings.Repeat("0", 64)
	for i, op := range ops {
		f.Add(uint8(i), "shop-dev", "", "application/json", "", []byte(`{"files":"`+files+`","purpose":"dev","name":"a/1/i-0","minutes":1,"command":"ls","why":"x","role":"viewer"}`))
		f.Add(uint8(i), "%00", "limit=2&cursor=YQ&object=x&to=y&dry_run=1", "", "once-upon-a-time", []byte("\x00"))
		if op.OperationID == "add-blueprint" {
			f.Add(uint8(i), "", "", "application/x-tar", "", bytes.Repeat([]byte("dayfly.yaml\x00"), 100))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, name, query, typ, key string, body []byte) {
		op := ops[int(which)%len(ops)]
		target := op.Path
		for _, p := range op.Parameters {
			if p.In == "path" {
				target = strings.ReplaceAll(target, "{"+p.Name+"}", url.PathEscape(name))
			}
		}
		u, err := url.Parse("http://dayfly" + target)
		if err != nil {
			t.Skip() // no client can send it
		}
		u.RawQuery = query
		req := httptest.NewRequestWithContext(t.Context(), op.Method, "/", bytes.NewReader(body))
		req.URL = u
		req.Header.Set("Authorization", "Bearer "+secret)
		req.Header.Set("Content-Type", typ)
		req.Header.Set("Idempotency-Key", key)
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, req)
		if rec.Code >= 500 && rec.Code != http.StatusServiceUnavailable {
			t.Fatalf("%s %s: %d %s", op.Method, u, rec.Code, rec.Body)
		}
		if rec.Code >= 400 {
			var p server.Problem
			if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || p.Status != rec.Code || p.Title == "" || p.Detail == "" || p.Kind == "" {
				t.Fatalf("%s %s: %d is no problem document: %s", op.Method, u, rec.Code, rec.Body)
			}
		}
	})
}
