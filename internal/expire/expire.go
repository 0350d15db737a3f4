// Package expire ends what has outlived its lease: environments and
// foundations whose deadline has passed are marked for destruction; the loops
// that own them do the rest. It must not know how anything is destroyed.
package expire

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Loop watches the deadlines of one kind.
type Loop[T any] struct {
	Of    string // kind
	Lease func(*T) (deadline time.Time, ended bool)
	End   func(*T)
	Renew func(v *T, now time.Time)      // of what stands until somebody ends it; nil = nothing does
	Warn  func(v *T, left time.Duration) // says that the end is near, or is not any more; nil = nobody is warned
	Store store.Store
	Clock clock.Clock
	Log   *slog.Logger

	mu   sync.Mutex
	over map[string]look // deadlines that were seen to have passed, once
}

// Environments watches environments.
func Environments(s store.Store, c clock.Clock, l *slog.Logger) *Loop[environment.Environment] {
	return &Loop[environment.Environment]{
		Of: environment.Kind, Store: s, Clock: c, Log: l,
		Lease: func(e *environment.Environment) (time.Time, bool) {
			return e.Deadline, e.Destroy || e.Phase == environment.Gone
		},
		End: func(e *environment.Environment) { e.Destroy = true },
		Renew: func(e *environment.Environment, now time.Time) {
			if e.Standing && !e.Destroy && e.Deadline.Sub(now) < standing/2 {
				e.Deadline, e.Notice = now.Add(standing), ""
			}
		},
		Warn: func(e *environment.Environment, left time.Duration) {
			e.Notice = ""
			// A life that is short from the beginning is no news until its end is near.
			for _, w := range []time.Duration{15 * time.Minute, time.Hour} {
				if left <= w && e.Deadline.Sub(e.Created) > 2*w {
					e.Notice = "it ends at " + e.Deadline.UTC().Format("2006-01-02 15:04 MST") + ", in less than " + w.String() + "; dayfly env extend " + e.Name + " gives it longer"
					return
				}
			}
		},
	}
}

// Foundations watches the shared ones; an environment's own foundation lives as
// long as the environment, whose lease may be extended.
func Foundations(s store.Store, c clock.Clock, l *slog.Logger) *Loop[environment.Foundation] {
	return &Loop[environment.Foundation]{
		Of: environment.FoundationKind, Store: s, Clock: c, Log: l,
		Lease: func(f *environment.Foundation) (time.Time, bool) {
			return f.Deadline, f.Destroy || !f.Shared || f.Phase == environment.Gone
		},
		End: func(f *environment.Foundation) { f.Destroy = true },
	}
}

// Kind implements reconcile.Loop.
func (l *Loop[T]) Kind() string { return l.Of }

// standing is the lease of what has no end: it is renewed when half of it is over.
const standing = 24 * time.Hour

// again is how long after a deadline was seen to have passed it is looked at
// again: what ends everything for good is not decided on one look at a clock.
const again = 3 * time.Second

// longest is how long the loop sleeps at most, so that a clock that was set
// forward is noticed.
const longest = 5 * time.Minute

// Reconcile implements reconcile.Loop.
func (l *Loop[T]) Reconcile(ctx context.Context, name string) (time.Duration, error) {
	v, _, err := store.Get[T](ctx, l.Store, l.Of, name)
	if errors.Is(err, store.ErrNotFound) {
		l.first(name, time.Time{})
		return reconcile.Done, nil
	}
	if err != nil {
		return 0, err
	}
	if l.Renew != nil {
		if err := reconcile.Update(ctx, l.Store, l.Of, name, func(v *T) error { l.Renew(v, l.Clock.Now()); return nil }); err != nil {
			return 0, err
		}
		if v, _, err = store.Get[T](ctx, l.Store, l.Of, name); err != nil {
			return 0, err
		}
	}
	deadline, ended := l.Lease(&v)
	if ended || deadline.IsZero() {
		l.first(name, time.Time{})
		return reconcile.Done, nil
	}
	if left := deadline.Sub(l.Clock.Now()); left > 0 {
		l.first(name, time.Time{})
		return min(left, longest), l.warn(ctx, name, left)
	}
	if l.first(name, deadline) {
		return again, nil
	}
	l.Log.InfoContext(ctx, "lease over", "kind", l.Of, "name", name, "deadline", deadline)
	return reconcile.Done, reconcile.Update(ctx, l.Store, l.Of, name, func(v *T) error {
		if d, ended := l.Lease(v); !ended && !l.Clock.Now().Before(d) { // it may have been extended meanwhile
			l.End(v)
		}
		return nil
	})
}

// warn writes down that the end is near.
func (l *Loop[T]) warn(ctx context.Context, name string, left time.Duration) error {
	if l.Warn == nil {
		return nil
	}
	return reconcile.Update(ctx, l.Store, l.Of, name, func(v *T) error { l.Warn(v, left); return nil })
}

// look is when a deadline was first seen to have passed.
type look struct {
	deadline, at time.Time
}

// first tells whether it is too early to believe that a deadline has passed; a
// zero deadline forgets what was seen.
func (l *Loop[T]) first(name string, deadline time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if deadline.IsZero() {
		delete(l.over, name)
		return false
	}
	now := l.Clock.Now()
	seen, ok := l.over[name]
	if !ok || !seen.deadline.Equal(deadline) || now.Before(seen.at) {
		if l.over == nil {
			l.over = map[string]look{}
		}
		l.over[name] = look{deadline, now}
		return true
	}
	return now.Sub(seen.at) < again
}
