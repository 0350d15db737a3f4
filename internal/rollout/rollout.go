// Package rollout takes environments from one generation to the next: loops
// for foundations, generations and environments that meet in the store's
// records. It decides with environment.Plan and must not know how images are
// made, releases found or tests run.
package rollout

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Cloud is what the loops need of the driver.
type Cloud interface {
	CreateStack(ctx context.Context, in cloud.Intent, s cloud.StackInput) (string, error)
	DeleteStack(ctx context.Context, in cloud.Intent, name string) error
	Stack(ctx context.Context, name string) (cloud.Stack, error)
	StackEvents(ctx context.Context, name string) ([]cloud.StackEvent, error)
	StackResources(ctx context.Context, name string) ([]cloud.StackResource, error)
	Group(ctx context.Context, name string) (cloud.Group, error)
	Activities(ctx context.Context, group string) ([]cloud.Activity, error)
	DeleteGroup(ctx context.Context, in cloud.Intent, name string) error
	Instances(ctx context.Context, filter map[string]string) ([]cloud.Instance, error)
	SetMinimum(ctx context.Context, in cloud.Intent, group string, n int) error
	SuspendLaunches(ctx context.Context, in cloud.Intent, group string) error
	ResumeLaunches(ctx context.Context, in cloud.Intent, group string) error
	SendCommand(ctx context.Context, in cloud.Intent, c cloud.Command) (string, error)
	CommandResult(ctx context.Context, instance, id string) (cloud.CommandResult, error)
	Targets(ctx context.Context, targetGroup string) ([]cloud.Target, error)
	DrainDelay(ctx context.Context, targetGroup string) (time.Duration, error)
	SetListener(ctx context.Context, in cloud.Intent, listener string, weights []cloud.Weight) error
	ListenerWeights(ctx context.Context, listener string) ([]cloud.Weight, error)
	Figures(ctx context.Context, listener string, targetGroups []string, from, to time.Time) ([]cloud.Figures, error)
	FiguresPeriod() time.Duration
	EnsureListener(ctx context.Context, in cloud.Intent, loadBalancer string, port int, tags cloud.Tags) (string, error)
	DeleteListener(ctx context.Context, in cloud.Intent, listener string) error
	ListObjects(ctx context.Context, prefix string) ([]string, error)
	Object(ctx context.Context, key string, limit int64) ([]byte, error)
	DeletePrefix(ctx context.Context, in cloud.Intent, prefix string) error
	PruneIntents(ctx context.Context, object string) error
	Bucket() string
	Owner() string
}

// Blueprints gives the blueprint that a packed digest stands for.
type Blueprints interface {
	Blueprint(ctx context.Context, files string) (*blueprint.Blueprint, fs.FS, error)
}

// Templates tells which parameters a template declares.
type Templates interface {
	Parameters(file string, template []byte) ([]string, error)
}

// Images is how a rollout learns of the image that a bake makes.
type Images interface {
	// Baked returns the image record's name when the bake is done; waiting is
	// a sentence while it is not, err why it never will be.
	Baked(ctx context.Context, bake string) (image string, waiting string, err error)
	// AMI returns the machine image of an image record, an error when it may
	// not be launched (quarantined, gone).
	AMI(ctx context.Context, image string) (string, error)
}

// Releases resolves the most recent release, once.
type Releases interface {
	Resolve(ctx context.Context, object string, b *blueprint.Blueprint) (release string, err error)
}

// Config is what the loops share.
type Config struct {
	Store      store.Store
	Cloud      Cloud
	Blueprints Blueprints
	Templates  Templates
	Images     Images
	Releases   Releases
	Clock      clock.Clock
	Log        *slog.Logger
	Patience   time.Duration // how long a deploy waits for what is unavailable, such as the box
}

// poll is how long to wait before the next look at something that has been
// under way since start: often at first, seldom later, so that a fast cloud is
// not made slow and a slow one is not asked to death.
func (c Config) poll(start time.Time) time.Duration {
	return min(max(c.Clock.Now().Sub(start)/15, 100*time.Millisecond), 5*time.Second)
}

// soon is when a loop goes on after a step that changed no record of its own.
const soon = 20 * time.Millisecond

// interrupted tells whether an error says only that this loop is being stopped,
// or that another writer was faster: nothing can be concluded from it.
func interrupted(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, store.ErrFenced) || errors.Is(err, store.ErrConflict)
}

// mark is a short name for what an intent is about, so that the same wish is
// the same intent and another wish another one.
func mark(what ...any) string {
	sum := sha256.Sum256(fmt.Append(nil, what...))
	return hex.EncodeToString(sum[:8])
}

// StackName is the deterministic name of a stack that belongs to a record.
func StackName(owner, record string) string {
	b := []byte("dayfly-" + owner + "-" + record)
	for i, c := range b {
		if c == '/' || c == '_' || c == '.' {
			b[i] = '-'
		}
	}
	return string(b)
}
