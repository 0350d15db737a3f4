package main

import (
	"context"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

// every is how often the fleet is looked at.
const every = 500 * time.Millisecond

// watch looks at the fleet again and again, past the server: at what Auto
// Scaling and the balancer say.
func (w *world) watch(ctx context.Context) {
	w.stopped = make(chan struct{})
	w.watched.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-w.stopped:
				return
			case <-t.C:
			}
			look, cancel := context.WithTimeout(ctx, 3*time.Second)
			ids, _, err := w.healthy(look)
			cancel()
			w.mu.Lock()
			w.samples = append(w.samples, sample{At: time.Now(), Healthy: len(ids), Seen: err == nil})
			w.mu.Unlock()
		}
	})
}

func (w *world) unwatch() {
	if w.stopped != nil {
		close(w.stopped)
		w.watched.Wait()
		w.stopped = nil
	}
}

// healthy are the instances in service that their target groups hold for
// healthy, and how many are wanted; an instance counts once.
func (w *world) healthy(ctx context.Context) (ids []string, want int, err error) {
	gs, err := w.cloud.Groups(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, g := range gs {
		if e := g.Tags[cloud.TagEnvironment]; e != "" && e != name {
			continue
		}
		want += g.Desired
		good, err := w.targets(ctx, g)
		if fault.KindOf(err) == fault.NotFound {
			continue // it is being deleted
		}
		if err != nil {
			return nil, 0, err
		}
		for _, m := range g.Members {
			if m.Lifecycle == "InService" && m.Healthy && good[m.Instance] {
				ids = append(ids, m.Instance)
			}
		}
	}
	return ids, want, nil
}

func (w *world) targets(ctx context.Context, g cloud.Group) (map[string]bool, error) {
	good := map[string]bool{}
	for _, arn := range g.TargetGroups {
		ts, err := w.cloud.Targets(ctx, arn)
		if err != nil {
			return nil, err
		}
		for _, t := range ts {
			if t.State == "healthy" {
				good[t.Instance] = true
			}
		}
	}
	return good, nil
}

// whole waits until as many are healthy as are wanted.
func (w *world) whole(ctx context.Context, limit time.Duration) error {
	return until(ctx, limit, func() error {
		ids, want, err := w.healthy(ctx)
		if err == nil && (len(ids) < want || want == 0) {
			err = &short{len(ids), want}
		}
		return err
	})
}
