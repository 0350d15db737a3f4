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
	"github.com/dayfly-infra/dayfly/internal/fault"
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
	Strays(ctx context.Context) ([]cloud.Stray, error)
	Objects(ctx context.Context, prefix string) ([]cloud.Object, error)
	DeleteStack(ctx context.Context, in cloud.Intent, name string) error
	DeleteGroup(ctx context.Context, in cloud.Intent, name string) error
	DeleteImage(ctx context.Context, in cloud.Intent, id string) error
	TerminateInstances(ctx context.Context, in cloud.Intent, ids ...string) error
	DeleteStray(ctx context.Context, in cloud.Intent, kind, id string) error
	DeletePrefix(ctx context.Context, in cloud.Intent, prefix string) error
	PruneIntents(ctx context.Context, object string) error
	Owner() string
	Region() string
	Identity(ctx context.Context) (account, arn string, err error)
}

// Source is somewhere else where things of ours may be left, such as a
// certificate authority. Its list is complete and only of our own things.
type Source interface {
	Things(ctx context.Context) ([]Thing, error)
	Remove(ctx context.Context, in cloud.Intent, t Thing) error
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
	// Kept says of everything else why it stays; only a dry sweep tells.
	Kept []Kept `json:"kept,omitempty"`
}

// Kept is a thing of ours that stays.
type Kept struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	Why  string `json:"why"`
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
	// Sources are places outside of the cloud.
	Sources []Source
}

// Thing is what a sweep knows of one thing of ours.
type Thing struct {
	Kind, ID string
	Tags     map[string]string
}

// Judge says whether a thing is an orphan, and why, or why not. It is pure. A
// record that is missing proves nothing: it may be the records that were lost.
func Judge(t Thing, live map[string]bool, now time.Time) (why string, orphan bool) {
	object := t.Tags[cloud.TagObject]
	wanted, known := live[object]
	known = known && object != ""
	end := t.Tags[cloud.TagDeadline]
	d, err := time.Parse(time.RFC3339, end)
	passed := err == nil && !now.Before(d)
	switch {
	case known && wanted:
		return "its record " + object + " wants it", false
	case known:
		return "its record " + object + " has ended", true
	case !passed && end == "":
		return "no record is known, and it has no deadline", false
	case !passed && err != nil:
		return "no record is known, and its deadline cannot be read", false
	case !passed:
		return "no record is known, and its deadline is " + end, false
	case object == "":
		return "it names no record, and its deadline has passed", true
	}
	return "its record " + object + " is not there, and its deadline has passed", true
}

// objectOf is the record that an object of the bucket belongs to, "" for what
// people keep: releases, results, reports. The bucket is ours alone, its name
// has the owner's id.
func objectOf(key string) string {
	p := strings.Split(key, "/")
	switch {
	case len(p) >= 3 && p[0] == "bake":
		return "bake/" + p[1]
	case len(p) >= 4 && p[0] == "handoff":
		return "generation/" + p[1] + "/" + p[2]
	}
	return ""
}

// How long what belongs to a record may last at most after it was written, so
// that an object, which has no tags, has a deadline too: a builder lives for
// hours and is kept for a day; an environment's lease is a year at most.
const (
	bakeLease    = 48 * time.Hour
	handoffLease = 366 * 24 * time.Hour
)

// objects are those of the bucket that belong to records. Where something in
// the cloud still names the record, or S3 tells no time, there is no deadline.
func objects(all []cloud.Object, named map[string]bool) (out []Thing) {
	for _, o := range all {
		object := objectOf(o.Key)
		if object == "" {
			continue
		}
		tags := map[string]string{cloud.TagObject: object}
		if !named[object] && !o.Modified.IsZero() {
			lease := handoffLease
			if strings.HasPrefix(o.Key, "bake/") {
				lease = bakeLease
			}
			tags[cloud.TagDeadline] = o.Modified.Add(lease).UTC().Format(time.RFC3339)
		}
		out = append(out, Thing{"object", o.Key, tags})
	}
	return out
}

// Sweep looks at everything once. With dry it removes nothing and remembers
// nothing.
func (s *Sweeper) Sweep(ctx context.Context, dry bool) (Report, error) {
	if err := s.home(ctx); err != nil {
		return Report{}, err
	}
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
			if dry {
				rep.Kept = append(rep.Kept, Kept{t.Kind, t.ID, why})
			}
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

// Of lists what is there of some objects (kind/name), and how much of ours was
// looked at. It removes nothing.
func (s *Sweeper) Of(ctx context.Context, object func(string) bool) (found []Thing, seen int, err error) {
	things, err := s.things(ctx)
	for _, t := range things {
		if object(t.Tags[cloud.TagObject]) {
			found = append(found, t)
		}
	}
	return found, len(things), err
}

// things lists everything of ours; one list that fails fails the sweep, since
// only a complete read proves anything.
func (s *Sweeper) things(ctx context.Context) ([]Thing, error) {
	var out []Thing
	// What is of a stack or a group that is there goes with it.
	stacked, grouped := map[string]bool{"": false}, map[string]bool{"": false}
	stacks, err := s.Cloud.Stacks(ctx)
	if err != nil {
		return nil, fmt.Errorf("list stacks: %w", err)
	}
	for _, v := range stacks {
		stacked[v.Name] = true
		if !strings.HasPrefix(v.Status, "DELETE_") || v.Status == "DELETE_FAILED" {
			out = append(out, Thing{"stack", v.Name, v.Tags})
		}
	}
	groups, err := s.Cloud.Groups(ctx)
	if err != nil {
		return nil, fmt.Errorf("list groups: %w", err)
	}
	for _, v := range groups {
		grouped[v.Name] = true
		if !v.Deleting && !stacked[v.Tags[stackTag]] {
			out = append(out, Thing{"group", v.Name, v.Tags})
		}
	}
	images, err := s.Cloud.Images(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	imaged := map[string]bool{}
	for _, v := range images {
		out = append(out, Thing{"image", v.ID, v.Tags})
		for _, id := range v.Snapshots {
			imaged[id] = true
		}
	}
	instances, err := s.Cloud.Instances(ctx, map[string]string{"tag:" + cloud.TagOwner: s.Cloud.Owner(), "instance-state-name": "pending,running,stopping,stopped"})
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	for _, v := range instances {
		if !grouped[v.Tags["aws:autoscaling:groupName"]] && !stacked[v.Tags[stackTag]] {
			out = append(out, Thing{"instance", v.ID, v.Tags})
		}
	}
	strays, err := s.Cloud.Strays(ctx)
	if err != nil {
		return nil, fmt.Errorf("list what stacks make: %w", err)
	}
	for _, v := range strays {
		if !stacked[v.Tags[stackTag]] && !imaged[v.ID] {
			out = append(out, Thing{v.Kind, v.ID, v.Tags})
		}
	}
	keys, err := s.Cloud.Objects(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("list objects: %w", err)
	}
	named := map[string]bool{}
	for _, t := range out {
		named[t.Tags[cloud.TagObject]] = true
	}
	out = append(out, objects(keys, named)...)
	for _, src := range s.Sources {
		more, err := src.Things(ctx)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

func (s *Sweeper) remove(ctx context.Context, t Thing, now time.Time) error {
	// Each sweep is an attempt of its own: a removal that failed is tried again.
	in := cloud.Intent{ID: fmt.Sprintf("%s/%s/%s/%d", sweepObject, t.Kind, t.ID, now.UnixNano()), Object: sweepObject}
	switch t.Kind {
	case "stack":
		return s.Cloud.DeleteStack(ctx, in, t.ID)
	case "group":
		return s.Cloud.DeleteGroup(ctx, in, t.ID)
	case "image":
		return s.Cloud.DeleteImage(ctx, in, t.ID)
	case "instance":
		return s.Cloud.TerminateInstances(ctx, in, t.ID)
	case "object":
		return s.Cloud.DeletePrefix(ctx, in, t.ID)
	case cloud.Snapshot, cloud.LaunchTemplate, cloud.SecurityGroup, cloud.LoadBalancer, cloud.Listener, cloud.TargetGroup:
		return s.Cloud.DeleteStray(ctx, in, t.Kind, t.ID)
	}
	for _, src := range s.Sources {
		if err := src.Remove(ctx, in, t); !errors.Is(err, ErrNotMine) {
			return err
		}
	}
	return fmt.Errorf("a %s cannot be removed", t.Kind)
}

// ErrNotMine is a Source's answer to a thing of another one.
var ErrNotMine = errors.New("another source has it")

const stackTag = "aws:cloudformation:stack-name"

// homeName is the record, of the kind Kind, of where this installation works.
const homeName = "home"

// Home is where an installation was first started; it sweeps nowhere else.
type Home struct {
	Account string `json:"account"`
	Region  string `json:"region"`
}

// Settle remembers account and region at the first start.
func (s *Sweeper) Settle(ctx context.Context) error {
	_, _, err := store.Get[Home](ctx, s.Store, Kind, homeName)
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	account, _, err := s.Cloud.Identity(ctx)
	if err != nil {
		return err
	}
	err = s.Store.Apply(ctx, reconcile.Epoch(ctx), store.Put(Kind, homeName, 0, Home{account, s.Cloud.Region()}))
	if errors.Is(err, store.ErrConflict) { // another replica was faster
		err = nil
	}
	return err
}

// home refuses to sweep where the records are not of: there everything would
// look like an orphan.
func (s *Sweeper) home(ctx context.Context) error {
	if err := s.Settle(ctx); err != nil {
		return err
	}
	h, _, err := store.Get[Home](ctx, s.Store, Kind, homeName)
	if err != nil {
		return err
	}
	account, _, err := s.Cloud.Identity(ctx)
	if err != nil {
		return err
	}
	if now := (Home{account, s.Cloud.Region()}); now != h {
		return &fault.Error{
			Kind: fault.Denied, Op: "sweep", Object: "account " + now.Account + " in " + now.Region,
			Message: "the records are of account " + h.Account + " in " + h.Region + ", so nothing here can be proven to be an orphan",
			Hint:    "start the server with the credentials and the region that it was made with",
		}
	}
	return nil
}
