// Package chronicle writes down what happened: a store over a store that makes
// events of the difference between a record and what is written in its place, in
// the same batch, so that an event is there if and only if what it tells of is.
// It also writes the id of the operation on the records that a request changes,
// and on those that follow from them. The functions that find differences are
// pure. It must not know who writes, or why.
package chronicle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/audit"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/operation"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Store is a store that writes events beside what it is told to write.
type Store struct {
	store.Store
	clock clock.Clock
	log   *slog.Logger
	told  func(event.Event)
	seq   atomic.Uint32
	self  string // tells writers apart

	mu   sync.Mutex
	last map[string]event.Event // by object and reason
}

// New makes a chronicle of all that is written through it.
// told hears of each event that was written; nil is nobody.
func New(s store.Store, c clock.Clock, log *slog.Logger, told func(event.Event)) *Store {
	return &Store{Store: s, clock: c, log: log, told: told, self: operation.New()[:6], last: map[string]event.Event{}}
}

// Apply implements store.Store.
func (s *Store) Apply(ctx context.Context, epoch int64, writes ...store.Write) error {
	out := append([]store.Write(nil), writes...)
	var found []event.Event
	for i, w := range out {
		k, ok := kinds[w.Kind]
		if !ok {
			continue
		}
		old, err := s.Store.Get(ctx, w.Kind, w.Name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if w.Version != store.Any && w.Version != old.Version {
			continue // the store says which of the two it is
		}
		body, es, err := k(w.Name, old.Body, w.Body, operation.Of(ctx), asked(ctx), s.clock.Now())
		if err != nil {
			return fmt.Errorf("record %s %s: %w", w.Kind, w.Name, err)
		}
		out[i].Body = body
		found = append(found, es...)
	}
	noted, ws := s.note(ctx, found)
	if err := s.Store.Apply(ctx, epoch, append(out, ws...)...); err != nil {
		return err
	}
	s.keep(ctx, noted)
	return nil
}

// Note writes events that no record tells of.
func (s *Store) Note(ctx context.Context, epoch int64, found ...event.Event) error {
	noted, ws := s.note(ctx, found)
	if len(ws) == 0 {
		return nil
	}
	if err := s.Store.Apply(ctx, epoch, ws...); err != nil {
		return err
	}
	s.keep(ctx, noted)
	return nil
}

// Prune removes the oldest events.
func (s *Store) Prune(ctx context.Context) error {
	return audit.Prune(ctx, s.Store, event.Kind, s.clock.Now().Add(-event.Longest), event.Most)
}

// asked is who asks, where a request does.
func asked(ctx context.Context) string { return access.Of(ctx).Name }

func key(e event.Event) string { return strings.Join([]string{e.Kind, e.Name, e.Reason}, "\x00") }

// note completes events, merges those that happened before, and gives what is to
// be written.
func (s *Store) note(ctx context.Context, found []event.Event) ([]event.Event, []store.Write) {
	if len(found) == 0 {
		return nil, nil
	}
	now := s.clock.Now().UTC()
	var order []string
	now2 := map[string]event.Event{}
	s.mu.Lock()
	for _, e := range found {
		e.At, e.Name = now, printable(e.Name)
		if e.Op == "" {
			e.Op = operation.Of(ctx)
		}
		if e.By == "" {
			e.By = asked(ctx)
		}
		k := key(e)
		before, ok := now2[k]
		if !ok {
			before, ok = s.last[k]
			order = append(order, k)
		}
		if ok {
			if merged, again := before.Again(e); again {
				now2[k] = merged
				continue
			}
		}
		e.ID = fmt.Sprintf("%s-%04x%s", audit.Name(now), s.seq.Add(1)&0xffff, s.self)
		now2[k] = e
	}
	s.mu.Unlock()
	var noted []event.Event
	var ws []store.Write
	for _, k := range order {
		e := now2[k]
		noted = append(noted, e)
		ws = append(ws, store.Put(event.Kind, e.ID, store.Any, e))
	}
	return noted, ws
}

func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return '_'
		}
		return r
	}, name)
}

// keep remembers what was written, so that the same is counted the next time.
func (s *Store) keep(ctx context.Context, noted []event.Event) {
	s.mu.Lock()
	if len(s.last) > 10_000 {
		clear(s.last)
	}
	for _, e := range noted {
		s.last[key(e)] = e
	}
	s.mu.Unlock()
	for _, e := range noted {
		if s.told != nil {
			s.told(e)
		}
		level := slog.LevelInfo
		switch e.Severity {
		case event.Warning:
			level = slog.LevelWarn
		case event.Error:
			level = slog.LevelError
		}
		if e.Count > 1 {
			level = slog.LevelDebug
		}
		as := []slog.Attr{slog.String("reason", e.Reason), slog.String("object", e.Object()), slog.String("message", e.Message)}
		if e.By != "" {
			as = append(as, slog.String("by", e.By))
		}
		if e.Op != "" && e.Op != operation.Of(ctx) {
			ctx = operation.With(ctx, e.Op)
		}
		s.log.LogAttrs(ctx, level, "event", as...)
	}
}

// differ finds what happened between two bodies of a record, and gives the body
// that is written.
type differ func(name string, old, body json.RawMessage, op, by string, now time.Time) (json.RawMessage, []event.Event, error)

// stamps say whether a writer's operation is put in the place of the one that a
// record has: what is made of a request belongs to the last one, what has a life
// of its own to the one that made it, or that asked about itself.
type stamp bool

const (
	follows stamp = true
	keeps   stamp = false
)

// of makes a differ of a function over two states; the first is nil where the
// record is new, the second where it is deleted.
func of[T any](kind string, st stamp, op func(*T) *string, f func(r *report, old, cur *T)) differ {
	return func(name string, old, body json.RawMessage, id, by string, now time.Time) (json.RawMessage, []event.Event, error) {
		var was, is *T
		if old != nil {
			was = new(T)
			if err := json.Unmarshal(old, was); err != nil {
				return nil, nil, err
			}
		}
		r := &report{kind: kind, name: name, now: now}
		if body != nil {
			is = new(T)
			if err := json.Unmarshal(body, is); err != nil {
				return nil, nil, err
			}
			have := op(is)
			if id != "" && *have != id && (*have == "" || st == follows || by != "") {
				*have = id
				raw, err := json.Marshal(is)
				if err != nil {
					return nil, nil, err
				}
				body = raw
			}
			r.op = *have
		}
		if was != nil && r.op == "" {
			r.op = *op(was)
		}
		if old == nil || body == nil || !bytes.Equal(old, body) {
			f(r, was, is)
		}
		return body, r.events, nil
	}
}

// report collects the events of one record.
type report struct {
	kind, name, op string
	now            time.Time
	events         []event.Event
}

func (r *report) add(s event.Severity, reason, format string, args ...any) *event.Event {
	e := event.New(r.kind, r.name, reason, s, format, args...)
	e.Op = r.op
	r.events = append(r.events, e)
	return &r.events[len(r.events)-1]
}

func (r *report) info(reason, format string, args ...any) { r.add(event.Info, reason, format, args...) }
func (r *report) warn(reason, format string, args ...any) {
	r.add(event.Warning, reason, format, args...)
}
func (r *report) fail(reason, format string, args ...any) {
	r.add(event.Error, reason, format, args...)
}
