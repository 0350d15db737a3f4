// Package expire ends what has outlived its lease: environments and
// foundations whose deadline has passed are marked for destruction; the loops
// that own them do the rest. It must not know how anything is destroyed.
package expire

import (
	"context"
	"errors"
	"log/slog"
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
	Store store.Store
	Clock clock.Clock
	Log   *slog.Logger
}

// Environments watches environments.
func Environments(s store.Store, c clock.Clock, l *slog.Logger) *Loop[environment.Environment] {
	return &Loop[environment.Environment]{
		Of: environment.Kind, Store: s, Clock: c, Log: l,
		Lease: func(e *environment.Environment) (time.Time, bool) {
			return e.Deadline, e.Destroy || e.Phase == environment.Gone
		},
		End: func(e *environment.Environment) { e.Destroy = true },
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

// longest is how long the loop sleeps at most, so that a clock that was set
// forward is noticed.
const longest = 5 * time.Minute

// Reconcile implements reconcile.Loop.
func (l *Loop[T]) Reconcile(ctx context.Context, name string) (time.Duration, error) {
	v, _, err := store.Get[T](ctx, l.Store, l.Of, name)
	if errors.Is(err, store.ErrNotFound) {
		return reconcile.Done, nil
	}
	if err != nil {
		return 0, err
	}
	deadline, ended := l.Lease(&v)
	if ended || deadline.IsZero() {
		return reconcile.Done, nil
	}
	if left := deadline.Sub(l.Clock.Now()); left > 0 {
		return min(left, longest), nil
	}
	l.Log.Info("lease over", "kind", l.Of, "name", name, "deadline", deadline)
	return reconcile.Done, reconcile.Update(ctx, l.Store, l.Of, name, func(v *T) error {
		if d, ended := l.Lease(v); !ended && !l.Clock.Now().Before(d) { // it may have been extended meanwhile
			l.End(v)
		}
		return nil
	})
}
