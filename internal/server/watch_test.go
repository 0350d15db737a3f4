package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/store"
)

type received struct {
	id    int64
	event string
	data  string
}

// stream is an open watch.
type stream struct {
	t      *testing.T
	res    *http.Response
	lines  *bufio.Reader
	cancel context.CancelFunc
}

func (w *world) watch(query, last string) *stream {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", w.url+"/v1/watch?"+query, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.secrets[access.Viewer])
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	res, err := w.http.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	return &stream{w.t, res, bufio.NewReader(res.Body), cancel}
}

func (s *stream) close() { s.cancel(); s.res.Body.Close() }

// next reads an event; ok is false at the end of the stream.
func (s *stream) next() (e received, ok bool) {
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return e, false
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			e.id, _ = strconv.ParseInt(value, 10, 64)
		case "event":
			e.event = value
		case "data":
			e.data = value
		case "":
			if e.data != "" {
				return e, true
			}
		}
	}
}

func (s *stream) change() (Change, received) {
	s.t.Helper()
	for {
		e, ok := s.next()
		if !ok {
			s.t.Fatal("the stream ended")
		}
		if e.event != "change" {
			continue
		}
		var c Change
		if err := json.Unmarshal([]byte(e.data), &c); err != nil || c.Revision != e.id {
			s.t.Fatalf("%+v: %v", e, err)
		}
		return c, e
	}
}

func (w *world) put(kind, name string, v any) {
	w.t.Helper()
	if err := w.store.Apply(w.t.Context(), store.NoEpoch, store.Put(kind, name, store.Any, v)); err != nil {
		w.t.Fatal(err)
	}
}

func TestWatch(t *testing.T) {
	w := start(t, Limits{})
	w.put(image.Kind, "before", image.Image{Name: "before"})
	s := w.watch("kinds=image,environment&heartbeat=1", "")
	defer s.close()
	if s.res.StatusCode != 200 || s.res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", s.res.StatusCode, s.res.Header)
	}
	first, _ := s.next()
	if first.event != "heartbeat" || first.id == 0 {
		t.Fatalf("%+v", first)
	}
	w.put("token", "hidden", map[string]string{"hash": "x"})
	w.put(environment.GenerationKind, "not/asked", environment.Generation{})
	w.put(image.Kind, "one", image.Image{Name: "one"})
	if c, _ := s.change(); c.Kind != image.Kind || c.Name != "one" || !strings.Contains(string(c.Record), `"one"`) {
		t.Errorf("%+v", c)
	}
	if err := w.store.Apply(t.Context(), store.NoEpoch, store.Delete(image.Kind, "one", store.Any)); err != nil {
		t.Fatal(err)
	}
	if c, _ := s.change(); !c.Deleted || c.Name != "one" || c.Record != nil {
		t.Errorf("%+v", c)
	}
	// It outlives the server's limits for requests, and says that it lives.
	began := time.Now()
	for time.Since(began) < 2500*time.Millisecond {
		if e, ok := s.next(); !ok || e.event != "heartbeat" {
			t.Fatalf("%+v, %v after %s", e, ok, time.Since(began))
		}
	}
	w.put(environment.Kind, "late", environment.Environment{Name: "late"})
	if c, _ := s.change(); c.Name != "late" {
		t.Errorf("%+v", c)
	}
	// All that is there first, for who begins with nothing.
	all := w.watch("since=0&kinds=image,environment", "")
	defer all.close()
	for _, want := range []string{"before", "one", "late"} { // the deletion of one is known still
		if c, _ := all.change(); c.Name != want {
			t.Errorf("%s is %+v", want, c)
		}
	}
	// The end is not an error of anybody's: who comes again goes on.
	w.s.Drain()
	if _, ok := s.next(); ok {
		t.Error("the stream goes on while the server ends")
	}
}

func TestWatchRefuses(t *testing.T) {
	l := DefaultLimits
	l.EachStream = 2
	w := start(t, l)
	for _, q := range []string{"kinds=token", "kinds=image,audit", "since=x", "since=-2", "heartbeat=0"} {
		if r := w.ask(w.secrets[access.Viewer], "GET", "/v1/watch?"+q, ""); r.status != 422 {
			t.Errorf("%s: %d", q, r.status)
		} else {
			r.problem(t)
		}
	}
	if r := w.ask(w.secrets[access.Viewer], "GET", "/v1/watch", "", "Last-Event-ID", "99999999999999999999"); r.status == 200 {
		t.Errorf("a number that is none: %d %s", r.status, r.body)
	}
	a, b := w.watch("", ""), w.watch("", "")
	defer a.close()
	defer b.close()
	a.next()
	b.next()
	if r := w.ask(w.secrets[access.Viewer], "GET", "/v1/watch", ""); r.status != 429 || r.header.Get("Retry-After") == "" {
		t.Errorf("a third watch: %d", r.status)
	}
	a.close()
	b.close()
	// A revision of another database; and ended watches do not count for long.
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		far := w.watch("since=1000000", "")
		e, _ := far.next()
		far.close()
		if far.res.StatusCode == 200 {
			if e.event != "reset" {
				t.Errorf("%+v", e)
			}
			return
		}
		if time.Since(began) > 5*time.Second {
			t.Fatal("an ended watch still counts")
		}
	}
}

// A client that is cut off at any event, again and again, has the same picture
// in the end as the store.
func TestWatchReconnect(t *testing.T) {
	w := start(t, Limits{})
	const names, writes = 5, 150
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := rand.New(rand.NewPCG(1, 2))
		for i := range writes {
			name := fmt.Sprint("im-", r.IntN(names))
			write := store.Put(image.Kind, name, store.Any, image.Image{Name: name, Why: fmt.Sprint(i)})
			if r.IntN(5) == 0 {
				write = store.Delete(image.Kind, name, store.Any)
			}
			if err := w.store.Apply(t.Context(), store.NoEpoch, write); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Duration(r.IntN(4)) * time.Millisecond)
		}
		w.put(image.Kind, "last", image.Image{Name: "last"})
	}()
	picture := map[string]string{}
	last := "0"
	r := rand.New(rand.NewPCG(3, 4))
	connections := 0
	for picture["last"] == "" {
		s := w.watch("kinds=image", last)
		connections++
		if s.res.StatusCode != 200 {
			s.close()
			time.Sleep(5 * time.Millisecond) // the one before still counts
			continue
		}
		s.next()
		for range r.IntN(6) {
			c, e := s.change()
			last = fmt.Sprint(e.id)
			if c.Deleted {
				delete(picture, c.Name)
			} else {
				picture[c.Name] = string(c.Record)
			}
			if c.Name == "last" {
				break
			}
		}
		s.close()
	}
	<-done
	rs, err := w.store.List(t.Context(), image.Kind, "")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, rec := range rs {
		want[rec.Name] = string(rec.Body)
	}
	if fmt.Sprint(picture) != fmt.Sprint(want) {
		t.Errorf("after %d connections the picture is\n%v\nwant\n%v", connections, picture, want)
	}
	if connections < 5 {
		t.Errorf("%d connections prove little", connections)
	}
}

// A reader that does not read holds up nobody, and sees the last states.
func TestWatchSlowReader(t *testing.T) {
	w := start(t, Limits{})
	s := w.watch("kinds=image&since=0", "")
	defer s.close()
	const writes = 3000
	began := time.Now()
	for i := range writes {
		w.put(image.Kind, fmt.Sprint("im-", i%3), image.Image{Name: "x", Why: strings.Repeat("y", 1000) + fmt.Sprint(i)})
	}
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("the writer was held up: %s", d)
	}
	seen := 0
	for {
		c, _ := s.change()
		seen++
		if strings.Contains(string(c.Record), fmt.Sprint("y", writes-1)) {
			break
		}
	}
	if seen >= writes {
		t.Errorf("%d events for %d writes: nothing was coalesced", seen, writes)
	}
}
