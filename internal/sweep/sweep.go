// Package sweep finds what is ours in the cloud and belongs to nothing (law 9):
// it has our owner tag, its record has ended or, where no record is known, its
// deadline has passed, and two sweeps have seen it, the first at least a minute
// ago. It must not know how the things came to be.
package sweep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Cloud is what a sweep needs of the driver; every list is complete and only of
// our own things.
type Cloud interface {
	Stacks(ctx context.Context) ([]cloud.Stack, error)
	Groups(ctx context.Context) ([]cloud.Group, error)
	Images(ctx context.Context) ([]cloud.Image, error)
	Instances(ctx context.Context, filter map[string]string) ([]cloud.Instance, error)
	DeleteStack(ctx context.Context, in cloud.Intent, name string) error
	DeleteGroup(ctx context.Context, in cloud.Intent, name string) error
	DeleteImage(ctx context.Context, in cloud.Intent, id string) error
	TerminateInstances(ctx context.Context, in cloud.Intent, ids ...string) error
	PruneIntents(ctx context.Context, object string) error
	Owner() string
}

// Kind of the record that remembers what the last sweep saw; there is one.
const Kind = "sweep"

// sweepObject is the record that removals are for.
const sweepObject = Kind + "/last"

// Patience is how long ago the first of two sightings must be.
const Patience = time.Minute

// Report is what a sweep found.
type Report struct {
	Seen    int       `json:"seen"` // things of ours that were looked at
	Orphans []Orphan  `json:"orphans"`
	At      time.Time `json:"at"`
}

// Orphan is a thing of ours that belongs to nothing.
type Orphan struct {
	Kind    string    `json:"kind"`
	ID      string    `json:"id"`
	Why     string    `json:"why"`
	Since   time.Time `json:"since"` // first sighting
	Removed bool      `json:"removed"`
}

// Live tells of objects (kind/name) that have a record whether it still wants
// what it made (true) or has ended (false). Of an object that is not in it
// nobody knows anything.
type Live func(ctx context.Context) (map[string]bool, error)

// Sweeper sweeps.
type Sweeper struct {
	Store store.Store
	Cloud Cloud
	Live  Live
	Clock clock.Clock
}

// Thing is what a sweep knows of one thing of ours.
type Thing struct {
	Kind, ID string
	Tags     map[string]string
}

// Judge says whether a thing is an orphan, and why. It is pure. A record that
// is missing proves nothing: it may be the records that were lost.
func Judge(t Thing, live map[string]bool, now time.Time) (why string, orphan bool) {
	object := t.Tags[cloud.TagObject]
	wanted, known := live[object]
	d, err := time.Parse(time.RFC3339, t.Tags[cloud.TagDeadline])
	passed := err == nil && !now.Before(d)
	switch {
	case object != "" && known && wanted:
		return "", false
	case object != "" && known:
		return "its record " + object + " has ended", true
	case !passed:
		return "", false
	case object == "":
		return "it names no record, and its deadline has passed", true
	}
	return "its record " + object + " is not there, and its deadline has passed", true
}

// Sweep looks at everything once. With dry it removes nothing and remembers
// nothing.
func (s *Sweeper) Sweep(ctx context.Context, dry bool) (Report, error) {
	// Things before records: every thing on this list had its record before it
	// was made (law 3), so a record that is missing afterwards is really gone.
	things, err := s.things(ctx)
	if err != nil {
		return Report{}, err
	}
	live, err := s.Live(ctx)
	if err != nil {
		return Report{}, err
	}
	last, version, err := store.Get[Report](ctx, s.Store, Kind, "last")
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Report{}, err
	}
	now := s.Clock.Now()
	rep := Report{Seen: len(things), Orphans: []Orphan{}, At: now}
	for _, t := range things {
		why, orphan := Judge(t, live, now)
		if !orphan {
			continue
		}
		o := Orphan{Kind: t.Kind, ID: t.ID, Why: why, Since: now}
		if i := slices.IndexFunc(last.Orphans, func(l Orphan) bool { return l.Kind == o.Kind && l.ID == o.ID }); i >= 0 {
			o.Since = last.Orphans[i].Since
		}
		if !dry && now.Sub(o.Since) >= Patience {
			if err := s.remove(ctx, t, now); err != nil {
				o.Why += "; removing it failed: " + err.Error()
			} else {
				o.Removed = true
			}
		}
		rep.Orphans = append(rep.Orphans, o)
	}
	if dry {
		return rep, nil
	}
	if err := s.Store.Apply(ctx, reconcile.Epoch(ctx), store.Put(Kind, "last", version, rep)); err != nil {
		return rep, err
	}
	return rep, s.Cloud.PruneIntents(ctx, sweepObject)
}

// things lists everything of ours; one list that fails fails the sweep, since
// only a complete read proves anything.
func (s *Sweeper) things(ctx context.Context) ([]Thing, error) {
	var out []Thing
	stacks, err := s.Cloud.Stacks(ctx)
	if err != nil {
		return nil, fmt.Errorf("list stacks: %w", err)
	}
	for _, v := range stacks {
		if !strings.HasPrefix(v.Status, "DELETE_") || v.Status == "DELETE_FAILED" {
			out = append(out, Thing{"stack", v.Name, v.Tags})
		}
	}
	groups, err := s.Cloud.Groups(ctx)
	if err != nil {
		return nil, fmt.Errorf("list groups: %w", err)
	}
	for _, v := range groups {
		if !v.Deleting && v.Tags["aws:cloudformation:stack-name"] == "" { // a stack's group goes with the stack
			out = append(out, Thing{"group", v.Name, v.Tags})
		}
	}
	images, err := s.Cloud.Images(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	for _, v := range images {
		out = append(out, Thing{"image", v.ID, v.Tags})
	}
	instances, err := s.Cloud.Instances(ctx, map[string]string{"tag:" + cloud.TagOwner: s.Cloud.Owner(), "instance-state-name": "pending,running,stopping,stopped"})
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	for _, v := range instances {
		if v.Tags["aws:autoscaling:groupName"] == "" && v.Tags["aws:cloudformation:stack-name"] == "" {
			out = append(out, Thing{"instance", v.ID, v.Tags})
		}
	}
	return out, nil
}

func (s *Sweeper) remove(ctx context.Context, t Thing, now time.Time) error {
	// Each sweep is an attempt of its own: a removal that failed is tried again.
	in := cloud.Intent{ID: fmt.Sprintf("sweep/%s/%s/%d", t.Kind, t.ID, now.UnixNano()), Object: sweepObject}
	switch t.Kind {
	case "stack":
		return s.Cloud.DeleteStack(ctx, in, t.ID)
	case "group":
		return s.Cloud.DeleteGroup(ctx, in, t.ID)
	case "image":
		return s.Cloud.DeleteImage(ctx, in, t.ID)
	case "instance":
		return s.Cloud.TerminateInstances(ctx, in, t.ID)
	}
	return fmt.Errorf("a %s cannot be removed", t.Kind)
}
