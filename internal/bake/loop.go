package bake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"github.com/dayfly-infra/dayfly/internal/attest"
	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Cloud is what a bake needs of the driver.
type Cloud interface {
	Parameter(ctx context.Context, name string) (string, error)
	PutObject(ctx context.Context, in cloud.Intent, key string, body io.ReadSeeker, size int64) error
	DeletePrefix(ctx context.Context, in cloud.Intent, prefix string) error
	CreateStack(ctx context.Context, in cloud.Intent, s cloud.StackInput) (string, error)
	DeleteStack(ctx context.Context, in cloud.Intent, name string) error
	Stack(ctx context.Context, name string) (cloud.Stack, error)
	StackEvents(ctx context.Context, name string) ([]cloud.StackEvent, error)
	RunInstances(ctx context.Context, in cloud.Intent, i cloud.InstanceInput) ([]string, error)
	TerminateInstances(ctx context.Context, in cloud.Intent, ids ...string) error
	StartInstance(ctx context.Context, in cloud.Intent, id string) error
	StopInstance(ctx context.Context, in cloud.Intent, id string) error
	Instance(ctx context.Context, id string) (cloud.Instance, error)
	Zones(ctx context.Context) ([]string, error)
	Instances(ctx context.Context, filter map[string]string) ([]cloud.Instance, error)
	CreateImage(ctx context.Context, in cloud.Intent, instance, name string, tags cloud.Tags) (string, error)
	DeleteImage(ctx context.Context, in cloud.Intent, id string) error
	Image(ctx context.Context, id string) (cloud.Image, error)
	Images(ctx context.Context) ([]cloud.Image, error)
	SendCommand(ctx context.Context, in cloud.Intent, c cloud.Command) (string, error)
	CommandResult(ctx context.Context, instance, id string) (cloud.CommandResult, error)
	CommandReady(ctx context.Context, instance string) (bool, error)
	PruneIntents(ctx context.Context, object string) error
	Object(ctx context.Context, key string, limit int64) ([]byte, error)
	Bucket() string
	Region() string
}

// Blueprints gives the blueprint that a packed digest stands for.
type Blueprints interface {
	Blueprint(ctx context.Context, files string) (*blueprint.Blueprint, fs.FS, error)
}

// Loop implements reconcile.Loop for bakes.
type Loop struct {
	Store      store.Store
	Cloud      Cloud
	Blueprints Blueprints
	Versions   Versions // only for blueprints with a version_url
	Clock      clock.Clock
	Log        *slog.Logger
	Agent      []byte // dayfly-agent, as it goes into images
	Probe      []byte // dayfly-probe, which looks at canaries and is in no image
	StackName  func(record string) string
	Lease      time.Duration // of a builder: after it the sweep may have it
	Owner      string        // who bakes, in statements about images
	Key        *attest.Key   // signs them; nil = there are none
	// Trusted are the keys of which one must have signed the statement about
	// an image that is launched; nil = any image is.
	Trusted attest.Trusted
}

// soon is when the loop looks again at something fast.
const soon = 50 * time.Millisecond

// Kind implements reconcile.Loop.
func (*Loop) Kind() string { return Kind }

// Reconcile implements reconcile.Loop: one look, one decision, one write.
func (l *Loop) Reconcile(ctx context.Context, name string) (time.Duration, error) {
	b, _, err := store.Get[Bake](ctx, l.Store, Kind, name)
	if errors.Is(err, store.ErrNotFound) || (err == nil && b.Step == Done) {
		return reconcile.Done, nil
	}
	if err != nil {
		return 0, err
	}
	if b.Step == Clean {
		return l.clean(ctx, b)
	}
	var f finding
	if !b.Cancel {
		f, err = l.look(ctx, b)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, store.ErrFenced) {
		return 0, err
	}
	now, to := l.Clock.Now(), b.Step
	if err := l.update(ctx, b.Name, func(c *Bake) {
		if c.Step != b.Step || c.Attempt != b.Attempt {
			to = ""
			return // something else was decided meanwhile
		}
		*c = decide(*c, f, err, now)
		to = c.Step
		if c.Error != "" && to != b.Step && b.Step != Kept {
			l.Log.WarnContext(ctx, "bake fails", "bake", c.Name, "step", c.FailedAt, "why", c.Error)
		}
	}); err != nil {
		return 0, err
	}
	switch {
	case to != b.Step:
		return soon, nil
	case err != nil:
		return 0, err
	case f.wait > 0:
		return f.wait, nil
	}
	return l.pace(b), nil
}

// look acts on the step that a bake is in, once, and says what it found.
// Every act has an intent: looking twice does nothing twice.
func (l *Loop) look(ctx context.Context, b Bake) (finding, error) {
	switch b.Step {
	case Inputs:
		return l.inputs(ctx, b)
	case Builder:
		return l.builder(ctx, b)
	case Online:
		return l.online(ctx, b, b.Instance)
	case Fetch:
		return l.fetch(ctx, b)
	case Install:
		return l.install(ctx, b)
	case Converge:
		return l.converge(ctx, b)
	case Seal:
		return l.seal(ctx, b)
	case Stop:
		return l.stop(ctx, b)
	case Snapshot:
		return l.snapshot(ctx, b)
	case Launch:
		return l.launch(ctx, b)
	case Verify:
		return l.verify(ctx, b)
	case Kept:
		return finding{wait: min(max(b.Until.Sub(l.Clock.Now()), soon), time.Minute)}, nil
	case Resume:
		return l.resume(ctx, b)
	}
	return finding{why: "there is no step " + string(b.Step)}, nil
}

func (b Bake) object() string { return Kind + "/" + b.Name }

// try names this try of this attempt.
func (b Bake) try() string {
	if b.Try == 0 {
		return fmt.Sprint(b.Attempt)
	}
	return fmt.Sprintf("%d.%d", b.Attempt, b.Try)
}

// intent names a call of this try for ever.
func (b Bake) intent(step string) cloud.Intent {
	return cloud.Intent{ID: fmt.Sprintf("%s/%s/%s", b.object(), b.try(), step), Object: b.object()}
}

func (l *Loop) tags(b Bake) cloud.Tags {
	return cloud.Tags{cloud.TagObject: b.object(), cloud.TagDeadline: b.Created.Add(l.Lease).UTC().Format(time.RFC3339)}
}

// pace is when to look again: often at first, seldom later.
func (l *Loop) pace(b Bake) time.Duration {
	return min(max(l.Clock.Now().Sub(b.Since)/15, soon), 5*time.Second)
}

func (l *Loop) update(ctx context.Context, name string, f func(*Bake)) error {
	return reconcile.Update(ctx, l.Store, Kind, name, func(b *Bake) error { f(b); return nil })
}
