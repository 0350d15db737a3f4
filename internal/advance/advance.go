// Package advance takes runs through their steps: one image, one release, one
// shared foundation, stages in order, an environment for each suite, the
// suite's command on an instance of it by Run Command, its JUnit results, gates
// and deploys, and the end of it all. What follows from a look is decided by
// the noun pipeline. It must not know how environments are made: it writes
// their records.
package advance

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Cloud is what a run needs of the driver.
type Cloud interface {
	Group(ctx context.Context, name string) (cloud.Group, error)
	SendCommand(ctx context.Context, in cloud.Intent, c cloud.Command) (string, error)
	CommandResult(ctx context.Context, instance, id string) (cloud.CommandResult, error)
	Object(ctx context.Context, key string, limit int64) ([]byte, error)
	PruneIntents(ctx context.Context, object string) error
	Bucket() string
}

// Blueprints gives a packed blueprint, and sees to it that instances can read
// the pack at an S3 address.
type Blueprints interface {
	Blueprint(ctx context.Context, files string) (*blueprint.Blueprint, error)
	Publish(ctx context.Context, object, files string) (s3 string, err error)
	File(ctx context.Context, files, path string) ([]byte, error)
}

// Images and Releases are what rollout uses as well.
type Images interface {
	Baked(ctx context.Context, bake string) (image string, waiting string, err error)
}

// Releases resolves the most recent release, once.
type Releases interface {
	Resolve(ctx context.Context, object string, b *blueprint.Blueprint) (release string, err error)
}

// Deployer prepares the deploy of what a run has tested: the environment's name
// and the writes, which belong into one batch with the run's own. A conflict is
// worth another try.
type Deployer interface {
	Ship(ctx context.Context, r pipeline.Run, purpose string) (environment string, ws []store.Write, err error)
}

// Metrics reads the number of a gate.
type Metrics interface {
	Measure(ctx context.Context, m pipeline.Metric) (float64, error)
}

// Prover looks at the whole cloud for what is of a run.
type Prover interface {
	Prove(ctx context.Context, run string) (pipeline.Clean, error)
}

// Loop implements reconcile.Loop for runs.
type Loop struct {
	Store      store.Store
	Cloud      Cloud
	Blueprints Blueprints
	Images     Images
	Releases   Releases
	Deployer   Deployer
	Metrics    Metrics
	Prover     Prover
	Capacity   pipeline.Capacity
	Clock      clock.Clock
	Log        *slog.Logger
	StackName  func(record string) string

	ledger ledger
	mu     sync.Mutex
	memory map[string]*memory // by run
}

// memory is what need not survive a restart: when something was looked at.
type memory struct {
	image   string               // guarded by the loop
	look    time.Time            // the last look at the run
	polled  map[string]time.Time // by suite's command
	gate    time.Time            // the last measurement
	stage   string               // the gate that it was for
	measure *float64
	why     string    // there is none
	asked   time.Time // the last look at a gate's command
}

func (l *Loop) remember(run, image string) *memory {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.memory == nil {
		l.memory = map[string]*memory{}
	}
	m := l.memory[run]
	if m == nil {
		m = &memory{polled: map[string]time.Time{}}
		l.memory[run] = m
	}
	m.image = image
	return m
}

func (l *Loop) forget(run string) {
	l.mu.Lock()
	delete(l.memory, run)
	l.mu.Unlock()
	l.ledger.drop(run)
}

const (
	// soon is when the loop goes on after a step.
	soon = 20 * time.Millisecond
	// tick is how often a run is looked at while it waits for others.
	tick = 200 * time.Millisecond
	// breath is what a look may cost per suite: changes of many environments
	// are seen together, so that the work per suite stays the same however
	// many there are.
	breath = 2 * time.Millisecond
)

// Kind implements reconcile.Loop.
func (*Loop) Kind() string { return pipeline.Kind }

// Follows implements reconcile.Follower: a run looks again when one of its
// environments changes, or its image.
func (l *Loop) Follows(k store.Key) []string {
	if k.Kind == image.Kind {
		l.mu.Lock()
		defer l.mu.Unlock()
		var runs []string
		for name, m := range l.memory {
			if m.image == k.Name {
				runs = append(runs, name)
			}
		}
		return runs
	}
	if k.Kind != environment.Kind {
		return nil
	}
	if run := pipeline.RunOf(k.Name); run != "" {
		return []string{run}
	}
	return nil
}

// Reconcile implements reconcile.Loop.
func (l *Loop) Reconcile(ctx context.Context, name string) (time.Duration, error) {
	r, version, err := store.Get[pipeline.Run](ctx, l.Store, pipeline.Kind, name)
	if errors.Is(err, store.ErrNotFound) || (err == nil && r.Phase == pipeline.Done) {
		l.forget(name)
		return reconcile.Done, nil
	}
	if err != nil {
		return 0, err
	}
	if r.Release == "" || r.Image == "" {
		if !r.Cancel && r.Error == "" {
			return l.resolve(ctx, r)
		}
	}
	m := l.remember(name, r.Image)
	now := l.Clock.Now()
	if rest := time.Duration(len(r.Suites))*breath - now.Sub(m.look); rest > 0 && rest <= time.Duration(len(r.Suites))*breath && !r.Cancel {
		return rest, nil
	}
	m.look = now
	return l.step(ctx, r.Adopt(), version, m)
}

// resolve decides release and image, once each.
func (l *Loop) resolve(ctx context.Context, r pipeline.Run) (time.Duration, error) {
	b, err := l.Blueprints.Blueprint(ctx, r.Files)
	if err != nil {
		return 0, err
	}
	set := func(f func(*pipeline.Run)) error { return l.update(ctx, r.Name, f) }
	if r.Release == "" {
		rel, err := l.Releases.Resolve(ctx, pipeline.Kind+"/"+r.Name, b)
		if interrupted(err) {
			return 0, err
		}
		if fault.KindOf(err) == fault.Unavailable && l.Clock.Now().Sub(r.Created) < 10*time.Minute {
			return 2 * time.Second, set(func(r *pipeline.Run) { l.block(r, "release-not-resolved", "box/"+b.Release.Box, err.Error()) })
		}
		if err != nil {
			return soon, set(func(r *pipeline.Run) { r.Error = err.Error() })
		}
		return soon, set(func(r *pipeline.Run) { r.Release = rel })
	}
	im, waiting, err := l.Images.Baked(ctx, r.Bake)
	switch {
	case interrupted(err):
		return 0, err
	case err != nil:
		return soon, set(func(r *pipeline.Run) { r.Error = err.Error() })
	case im == "":
		return 500 * time.Millisecond, set(func(r *pipeline.Run) { l.block(r, "image-baking", "bake/"+r.Bake, waiting) })
	}
	return soon, set(func(r *pipeline.Run) {
		r.Image, r.Blocker = im, nil
		if b.Foundation != "" {
			r.Foundation = r.Name
		}
	})
}

// interrupted tells whether an error says only that this loop is being stopped,
// or that another writer was faster.
func interrupted(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, store.ErrFenced) || errors.Is(err, store.ErrConflict)
}

func (l *Loop) block(r *pipeline.Run, rule, on, message string) {
	r.Blocker = blocker.Carry(r.Blocker, blocker.Blocker{Rule: rule, On: on, Message: message, Since: l.Clock.Now()})
}

func (l *Loop) update(ctx context.Context, name string, f func(*pipeline.Run)) error {
	return reconcile.Update(ctx, l.Store, pipeline.Kind, name, func(r *pipeline.Run) error { f(r); return nil })
}
