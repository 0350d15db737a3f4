// Package notify tells others what happened to runs: places that a blueprint
// names, and the forge of a commit. What cannot be told is tried again, later
// and later. It must not know addresses or tokens: the sender has them.
package notify

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Sender tells. An unavailable receiver is worth another try, and any other
// error is not. Errors have no secret in them.
type Sender interface {
	Notify(ctx context.Context, n pipeline.Notice, r pipeline.Run) error
	SetStatus(ctx context.Context, r pipeline.Run) error
}

// Loop implements reconcile.Loop for notices.
type Loop struct {
	Store  store.Store
	Sender Sender
	Clock  clock.Clock
	Log    *slog.Logger
}

const (
	// tries is how often something is tried, over some ten hours.
	tries   = 20
	first   = time.Second
	longest = time.Hour
	// kept is for how long it is known that something could not be told.
	kept = 7 * 24 * time.Hour
)

// Kind implements reconcile.Loop.
func (*Loop) Kind() string { return pipeline.NoticeKind }

// Follows implements reconcile.Follower: a commit's status follows its run.
func (*Loop) Follows(k store.Key) []string {
	if k.Kind == pipeline.Kind {
		return []string{pipeline.StatusName(k.Name)}
	}
	return nil
}

// Reconcile implements reconcile.Loop.
func (l *Loop) Reconcile(ctx context.Context, name string) (time.Duration, error) {
	n, version, err := store.Get[pipeline.Notice](ctx, l.Store, pipeline.NoticeKind, name)
	if errors.Is(err, store.ErrNotFound) {
		return reconcile.Done, nil
	}
	if err != nil {
		return 0, err
	}
	now := l.Clock.Now()
	if n.Done {
		if left := n.Again.Add(kept).Sub(now); left > 0 {
			return min(left, time.Hour), nil
		}
		return reconcile.Done, l.forget(ctx, name, version)
	}
	if wait := n.Again.Sub(now); wait > 0 {
		return wait, nil
	}
	r, _, err := store.Get[pipeline.Run](ctx, l.Store, pipeline.Kind, n.Run)
	if errors.Is(err, store.ErrNotFound) {
		return reconcile.Done, l.forget(ctx, name, version)
	}
	if err != nil {
		return 0, err
	}
	state := ""
	if n.To == "" {
		github, gitlab, _ := r.State()
		if state = github + " " + gitlab; state == n.Sent {
			if r.Phase == pipeline.Done {
				return reconcile.Done, l.forget(ctx, name, version)
			}
			return reconcile.Done, nil // until the run changes
		}
		err = l.Sender.SetStatus(ctx, r)
	} else {
		err = l.Sender.Notify(ctx, n, r)
	}
	if err != nil && ctx.Err() != nil {
		return 0, err
	}
	n.Tries++
	switch {
	case err == nil && n.To != "":
		return reconcile.Done, l.forget(ctx, name, version)
	case err == nil:
		n.Sent, n.Tries, n.Error, n.Again = state, 0, "", time.Time{}
	default:
		n.Error, n.Again = line(err), now.Add(min(first<<min(n.Tries-1, 12), longest))
		if fault.KindOf(err) != fault.Unavailable || n.Tries >= tries {
			n.Done = true
			l.Log.WarnContext(ctx, "a notice was given up", "notice", name, "tries", n.Tries, "error", n.Error)
		}
	}
	if err := l.Store.Apply(ctx, reconcile.Epoch(ctx), store.Put(pipeline.NoticeKind, name, version, n)); err != nil {
		return 0, err
	}
	return 10 * time.Millisecond, nil
}

func (l *Loop) forget(ctx context.Context, name string, version int64) error {
	return l.Store.Apply(ctx, reconcile.Epoch(ctx), store.Delete(pipeline.NoticeKind, name, version))
}

func line(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	return s[:min(len(s), 500)]
}
