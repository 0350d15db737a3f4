package control

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/trace"
)

type receivedSpan struct {
	TraceID, SpanID, ParentSpanID, Name string
	StartTimeUnixNano, EndTimeUnixNano  string
	Status                              struct{ Code int }
}

// receiver is a collector that takes OTLP as JSON.
func receiver(t *testing.T) (address string, spans func() []receivedSpan) {
	var mu sync.Mutex
	var got []receivedSpan
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		var in struct {
			ResourceSpans []struct {
				ScopeSpans []struct{ Spans []receivedSpan }
			}
		}
		if r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("X-Key") != "a b" {
			t.Errorf("%s %v", r.URL, r.Header)
		}
		if err := json.Unmarshal(raw, &in); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, rs := range in.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				got = append(got, ss.Spans...)
			}
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, func() []receivedSpan { mu.Lock(); defer mu.Unlock(); return slices.Clone(got) }
}

// A collector sees a deploy as one trace, connected, from the request to in
// service; a restart on the way makes no second one.
func TestTrace(t *testing.T) {
	address, spans := receiver(t)
	var told trace.Told
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start(w.store)
		body, err := json.Marshal(server.Deploy{Files: w.files, Purpose: "dev"})
		if err != nil {
			t.Fatal(err)
		}
		a := w.serve()
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/environments", bytes.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+a.secret)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
		rec := httptest.NewRecorder()
		a.s.ServeHTTP(rec, req)
		if rec.Code != 200 {
			t.Fatal(rec.Body)
		}
		w.wait("the bake is under way", func() bool { return w.env().Next != nil && w.env().Next.Release != "" })
		stop() // the server is restarted
		stop = w.start(w.store)
		defer func() { stop() }()
		w.serves(1)
		w.wait("all are noted", func() bool { return w.whole(1, 3) })
		for _, i := range w.instances(1) {
			raw, err := json.Marshal(handoff.Report{Instance: i.ID, OK: true, Started: i.Launched.Add(time.Second), Ended: i.Launched.Add(3 * time.Second),
				Phases: []handoff.Phase{{Name: "metadata", Seconds: .5}, {Name: "deploy", Seconds: 1}, {Name: "ready", Seconds: .5}}})
			if err != nil {
				t.Fatal(err)
			}
			w.cloud.Put(handoff.ReportKey("shop-dev", "1", i.ID), raw)
		}
		over := get[struct{ Op string }](w, "environment", "shop-dev")
		e := eventOf(w, "Serving")
		if e.Op != over.Op || e.Op != "4bf92f3577b34da6a3ce929d0e0e4736" {
			t.Fatalf("the deploy is part of %q", e.Op)
		}
		if told, err = w.api.told(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		w.destroy()
	})
	// Outside of virtual time, where there is a network.
	x, err := trace.FromEnvironment(func(k string) string {
		return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": address + "/", "OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20b"}[k]
	}, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Export(t.Context(), trace.Deploy(told)); err != nil {
		t.Fatal(err)
	}
	byID, children := map[string]receivedSpan{}, map[string][]string{}
	roots := 0
	for _, s := range spans() {
		if _, twice := byID[s.SpanID]; twice || s.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736" || len(s.SpanID) != 16 || s.StartTimeUnixNano > s.EndTimeUnixNano || s.Status.Code != 1 {
			t.Errorf("span %+v, twice: %v", s, twice)
		}
		byID[s.SpanID] = s
	}
	for _, s := range byID {
		name := s.Name
		if strings.HasPrefix(name, "instance ") {
			name = "instance"
		}
		parent, ok := byID[s.ParentSpanID]
		switch {
		case s.ParentSpanID == "00f067aa0ba902b7": // the caller's
			roots++
		case !ok:
			t.Errorf("%s has a parent that is not there", s.Name)
		default:
			p, _, _ := strings.Cut(parent.Name, " ")
			children[p] = append(children[p], name)
		}
	}
	if roots != 1 {
		t.Errorf("%d roots", roots)
	}
	for parent, want := range map[string][]string{
		"deploy": {"request deploy", "resolve release", "bake", "foundation", "stack", "instances", "attach", "switch"}, "bake": {"bake converge", "bake seal", "bake verify"},
		"instances": {"instance"}, "instance": {"boot", "hand-off", "readiness"}, "hand-off": {"metadata", "deploy", "ready"},
	} {
		for _, name := range want {
			if !slices.Contains(children[parent], name) {
				t.Errorf("%s has no span %q: %v", parent, name, children[parent])
			}
		}
	}
	if x, err := trace.FromEnvironment(func(string) string { return "" }, "test"); x != nil || err != nil {
		t.Error("without an endpoint there is an exporter", err)
	}
}

// eventOf is the first event with a reason.
func eventOf(w *world, reason string) event.Event {
	w.t.Helper()
	es, err := store.List[event.Event](w.t.Context(), w.store, event.Kind, "")
	if err != nil {
		w.t.Fatal(err)
	}
	i := slices.IndexFunc(es, func(e event.Event) bool { return e.Reason == reason })
	if i < 0 {
		w.t.Fatalf("there is no event %s", reason)
	}
	return es[i]
}
