// Package trigger starts runs by time. It must not know how a run is made.
package trigger

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Starter starts the trigger's run in one batch with the writes.
type Starter interface {
	Start(ctx context.Context, t pipeline.Trigger, c pipeline.Cause, with func(run string) []store.Write) (run string, err error)
}

// Loop implements reconcile.Loop for triggers.
type Loop struct {
	Store   store.Store
	Starter Starter
	Clock   clock.Clock
	Log     *slog.Logger
}

// Kind implements reconcile.Loop.
func (*Loop) Kind() string { return pipeline.TriggerKind }

// longest is how long a wait goes without a look at the clock.
const longest = 5 * time.Minute

// Reconcile implements reconcile.Loop.
func (l *Loop) Reconcile(ctx context.Context, name string) (time.Duration, error) {
	t, version, err := store.Get[pipeline.Trigger](ctx, l.Store, pipeline.TriggerKind, name)
	if errors.Is(err, store.ErrNotFound) {
		return reconcile.Done, nil
	}
	if err != nil {
		return 0, err
	}
	now := l.Clock.Now()
	due, err := t.Due(now)
	if err != nil || due.IsZero() {
		return reconcile.Done, nil // it was checked when it was made
	}
	put := func(t pipeline.Trigger) store.Write { return store.Put(pipeline.TriggerKind, name, version, t) }
	if t.Next.IsZero() {
		t.Next = due
		return due.Sub(now), l.Store.Apply(ctx, reconcile.Epoch(ctx), put(t))
	}
	if wait := t.Next.Sub(now); wait > 0 {
		return min(wait, longest), nil
	}
	at := t.Next
	t.Next = due
	cause := pipeline.Cause{Kind: "schedule", Trigger: name, Delivery: at.UTC().Format(time.RFC3339)}
	_, err = l.Starter.Start(ctx, t, cause, func(run string) []store.Write {
		t.Last = &pipeline.Fired{At: now, Run: run}
		return []store.Write{put(t)}
	})
	if err == nil || ctx.Err() != nil || fault.KindOf(err) == fault.Unavailable || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrFenced) {
		return min(due.Sub(now), longest), err
	}
	l.Log.WarnContext(ctx, "a scheduled run could not be started", "trigger", name, "error", err)
	t.Last = &pipeline.Fired{At: now, Error: err.Error()}
	return min(due.Sub(now), longest), l.Store.Apply(ctx, reconcile.Epoch(ctx), put(t))
}
