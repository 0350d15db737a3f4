// Package heal keeps what serves young and whole: a loop over generations that
// notes down the life of each instance, and replaces those that fail, are too
// old, were touched, or that somebody wants replaced or kept for a look. What
// died by itself is the group's to replace. It decides with instance.Plan and
// must not know how generations are made or traffic is moved.
package heal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/report"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Cloud is what the loop needs of the driver.
type Cloud interface {
	Group(ctx context.Context, name string) (cloud.Group, error)
	Instances(ctx context.Context, filter map[string]string) ([]cloud.Instance, error)
	Activities(ctx context.Context, group string) ([]cloud.Activity, error)
	Targets(ctx context.Context, targetGroup string) ([]cloud.Target, error)
	SetDesired(ctx context.Context, in cloud.Intent, group string, n int) error
	EndMember(ctx context.Context, in cloud.Intent, group, id string, shrink bool) error
	StandBy(ctx context.Context, in cloud.Intent, group, id string, shrink bool) error
	ForeignCommands(ctx context.Context, since time.Time) ([]cloud.ForeignCommand, error)
	ListObjects(ctx context.Context, prefix string) ([]string, error)
	Object(ctx context.Context, key string, limit int64) ([]byte, error)
	PruneIntents(ctx context.Context, object string) error
}

// Loop implements reconcile.Loop for generations.
type Loop struct {
	Store store.Store
	Cloud Cloud
	Clock clock.Clock
	Log   *slog.Logger

	mu      sync.Mutex
	foreign map[string]instance.Touch // instances that were sent a command that is not ours
	asked   time.Time                 // up to when that was read
	next    time.Time                 // when to read it again
	looked  map[string]time.Time      // at generations that are launched: only to ask less
}

const (
	calm  = 10 * time.Second // between two looks at what serves well
	busy  = time.Second      // while something is under way
	grace = 15 * time.Second // an instance may fail so long
	// takes is taken for a replacement until some were seen.
	takes = 2 * time.Minute
	// remember is how long an instance that is gone can be asked about.
	remember = 24 * time.Hour
)

// Kind implements reconcile.Loop.
func (*Loop) Kind() string { return environment.GenerationKind }

// Follows implements reconcile.Follower: people ask for things in the records
// of instances.
func (*Loop) Follows(k store.Key) []string {
	if k.Kind == instance.Kind {
		return []string{path.Dir(k.Name)}
	}
	return nil
}

// known is the records of a generation's instances, with their versions.
type known struct {
	list     []instance.Instance
	versions map[string]int64
	before   map[string]string // bodies, to write only what changed
}

// Reconcile implements reconcile.Loop.
func (l *Loop) Reconcile(ctx context.Context, name string) (time.Duration, error) {
	g, _, err := store.Get[environment.Generation](ctx, l.Store, environment.GenerationKind, name)
	if errors.Is(err, store.ErrNotFound) {
		return reconcile.Done, nil
	}
	if err != nil {
		return 0, err
	}
	switch {
	case g.Phase == environment.Pending:
		return reconcile.Done, nil
	case g.Phase == environment.Launching && len(g.Groups) == 0:
		return reconcile.Done, nil // the record changes when they are known
	case g.Phase == environment.Launching:
		// Its record changes all the time now, and the lists are long.
		if wait := l.early(name); wait > 0 {
			return wait, nil
		}
	}
	k, err := l.read(ctx, name)
	if err != nil {
		return 0, err
	}
	if g.Phase != environment.Launching && g.Phase != environment.Serving {
		return l.over(ctx, g, k)
	}
	e, _, err := store.Get[environment.Environment](ctx, l.Store, environment.Kind, g.Environment)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, err
	}
	if _, err := l.forget(ctx, &k); err != nil {
		return 0, err
	}
	again := calm
	if g.Phase != environment.Serving {
		again = busy
	}
	for _, group := range g.Groups {
		moving, err := l.fleet(ctx, e, g, group, &k)
		if err != nil {
			return 0, err
		}
		if moving {
			again = busy
		}
	}
	return again, nil
}

// early says how long a look at a generation that is launched can wait.
func (l *Loop) early(name string) time.Duration {
	now := l.Clock.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := l.looked[name].Add(busy).Sub(now); wait > 0 {
		return wait
	}
	if l.looked == nil || len(l.looked) > 1000 {
		l.looked = map[string]time.Time{}
	}
	l.looked[name] = now
	return 0
}

func (l *Loop) read(ctx context.Context, generation string) (known, error) {
	k := known{versions: map[string]int64{}, before: map[string]string{}}
	rs, err := l.Store.List(ctx, instance.Kind, generation+"/")
	if err != nil {
		return k, err
	}
	for _, r := range rs {
		var i instance.Instance
		if err := json.Unmarshal(r.Body, &i); err != nil {
			return k, fmt.Errorf("record %s %s: %w", r.Kind, r.Name, err)
		}
		k.list = append(k.list, i)
		k.versions[i.ID], k.before[i.ID] = r.Version, string(r.Body)
	}
	slices.SortStableFunc(k.list, func(a, b instance.Instance) int { return a.Launched.Compare(b.Launched) })
	return k, nil
}

// write stores the records that changed, all at once.
func (l *Loop) write(ctx context.Context, k *known, more ...store.Write) error {
	for _, i := range k.list {
		w := store.Put(instance.Kind, i.Name(), k.versions[i.ID], i)
		if string(w.Body) != k.before[i.ID] {
			more = append(more, w)
		}
	}
	if len(more) == 0 {
		return nil
	}
	tallies, err := l.tally(ctx, k)
	if err != nil {
		return err
	}
	more = append(more, tallies...)
	if err := l.Store.Apply(ctx, reconcile.Epoch(ctx), more...); err != nil {
		return err
	}
	for _, w := range more {
		if w.Kind == instance.Kind {
			id := path.Base(w.Name)
			k.versions[id]++
			k.before[id] = string(w.Body)
		}
	}
	return nil
}

// tally adds those that ended since the records were read to what is kept of
// their days, in the same batch.
func (l *Loop) tally(ctx context.Context, k *known) ([]store.Write, error) {
	var ended []instance.Instance
	for _, i := range k.list {
		if i.State != instance.Gone {
			continue
		}
		var before instance.Instance
		if b := k.before[i.ID]; b != "" {
			if err := json.Unmarshal([]byte(b), &before); err != nil {
				return nil, fmt.Errorf("record %s %s: %w", instance.Kind, i.Name(), err)
			}
		}
		if before.State != instance.Gone {
			ended = append(ended, i)
		}
	}
	var ws []store.Write
	for _, t := range report.Lives(ended, l.Clock.Now()) {
		sum, version, err := store.Get[report.Tally](ctx, l.Store, report.TallyKind, t.Name())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		sum.Day, sum.Environment, sum.Generation = t.Day, t.Environment, t.Generation
		sum.Add(t)
		ws = append(ws, store.Put(report.TallyKind, t.Name(), version, sum))
	}
	return ws, nil
}

// fleet looks at one group, notes down what it sees, and does what the plan says.
func (l *Loop) fleet(ctx context.Context, e environment.Environment, g environment.Generation, group string, k *known) (moving bool, err error) {
	name := path.Join(environment.GenerationName(g.Environment, g.Number), group)
	f, version, err := store.Get[instance.Fleet](ctx, l.Store, instance.FleetKind, name)
	if errors.Is(err, store.ErrNotFound) {
		f, err = instance.Fleet{Name: name, Environment: g.Environment, Generation: g.Number, Group: group}, nil
	}
	before := store.Put(instance.FleetKind, name, version, f)
	if err != nil {
		return false, err
	}
	v, err := l.look(ctx, e, g, group, &f, k)
	if fault.KindOf(err) == fault.NotFound {
		return false, nil // the loop of generations says so
	}
	if err != nil {
		return false, err
	}
	var d instance.Decision
	if g.Phase == environment.Serving && !e.Destroy {
		d = instance.Plan(l.policy(ctx, e, g, f), v, l.Clock.Now())
	}
	l.block(&f, d)
	f.Replacing = 0
	for i := range k.list {
		in := &k.list[i]
		for _, a := range d.Actions {
			if a.Verb == instance.Mark && a.ID == in.ID {
				in.Leave = &instance.Leave{Cause: a.Cause, Why: a.Reason, Since: l.Clock.Now()}
				in.State = instance.Leaving
				in.Step(l.Clock.Now(), "is being replaced: "+a.Reason)
			}
		}
		if in.Group == group && in.Leave != nil && in.State != instance.Gone {
			f.Replacing++
		}
	}
	// What was decided is durable before it is done.
	var ws []store.Write
	if after := store.Put(instance.FleetKind, name, version, f); version == 0 || string(after.Body) != string(before.Body) {
		ws = append(ws, after)
	}
	if err := l.write(ctx, k, ws...); err != nil {
		return false, err
	}
	if err := l.act(ctx, g, f, d); err != nil {
		return false, err
	}
	return f.Replacing > 0 || f.Serving < f.Size || len(d.Actions) > 0, nil
}

func (l *Loop) policy(ctx context.Context, e environment.Environment, g environment.Generation, f instance.Fleet) instance.Policy {
	p := instance.Policy{Size: f.Size, Takes: f.Takes + f.Takes/2, Grace: grace, Touched: e.Touched != environment.Report}
	if f.Takes == 0 {
		p.Takes = takes
	}
	switch {
	case e.Next != nil || e.Want != e.Serving || e.Serving != g.Number:
		p.Hold = "a deploy is under way"
	default:
		im, _, err := store.Get[image.Image](ctx, l.Store, image.Kind, g.Image)
		if err == nil && im.State == image.Quarantined {
			p.Hold = "its image " + g.Image + " is quarantined, and no other would be launched; deploy another image"
		}
	}
	return p
}

func (l *Loop) block(f *instance.Fleet, d instance.Decision) {
	if len(d.Waits) == 0 {
		f.Blocker = nil
		return
	}
	w := d.Waits[0]
	if w.On == "" {
		w.On = "fleet/" + f.Name
	}
	f.Blocker = blocker.Carry(f.Blocker, blocker.Blocker{Rule: w.Rule, On: w.On, Message: w.Message, Since: l.Clock.Now(), Action: w.Action})
}

// act carries a plan out. Each call's intent is named by what it is about; the
// capacity may be wished for again, so those are counted.
func (l *Loop) act(ctx context.Context, g environment.Generation, f instance.Fleet, d instance.Decision) error {
	object := environment.GenerationKind + "/" + environment.GenerationName(g.Environment, g.Number)
	for _, a := range d.Actions {
		own := instance.Kind + "/" + instance.Name(g.Environment, g.Number, a.ID)
		var err error
		switch a.Verb {
		case instance.Desire:
			err = l.Cloud.SetDesired(ctx, cloud.Intent{ID: fmt.Sprintf("%s/desired/%d-%d", object, f.Moves, a.N), Object: object}, f.Group, a.N)
			if err == nil {
				err = reconcile.Update(ctx, l.Store, instance.FleetKind, f.Name, func(v *instance.Fleet) error { v.Moves = f.Moves + 1; return nil })
			}
		case instance.End:
			err = l.Cloud.EndMember(ctx, cloud.Intent{ID: fmt.Sprintf("%s/end/%t", own, a.Shrink), Object: own}, f.Group, a.ID, a.Shrink)
		case instance.StandBy:
			err = l.Cloud.StandBy(ctx, cloud.Intent{ID: fmt.Sprintf("%s/stand-by/%t", own, a.Shrink), Object: own}, f.Group, a.ID, a.Shrink)
		case instance.Terminate:
			// By the group: it does not look after those that stand by.
			err = l.Cloud.EndMember(ctx, cloud.Intent{ID: own + "/terminate", Object: own}, f.Group, a.ID, false)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// over ends the records of a generation that ends, and forgets them later.
func (l *Loop) over(ctx context.Context, g environment.Generation, k known) (time.Duration, error) {
	var ws []store.Write
	if g.Phase == environment.Gone {
		now := l.Clock.Now()
		for n := range k.list {
			i := &k.list[n]
			if i.State == instance.Gone {
				continue
			}
			i.State, i.Ended, i.Cause = instance.Gone, now, instance.Ended
			i.Why = "its generation ended"
			if g.Error != "" {
				i.Why += ": " + firstLine(g.Error)
			}
			i.Step(now, "ended with its generation")
		}
		fs, err := l.Store.List(ctx, instance.FleetKind, environment.GenerationName(g.Environment, g.Number)+"/")
		if err != nil {
			return 0, err
		}
		for _, f := range fs {
			ws = append(ws, store.Delete(f.Kind, f.Name, f.Version))
		}
	}
	if err := l.write(ctx, &k, ws...); err != nil {
		return 0, err
	}
	return l.forget(ctx, &k)
}

// forget removes the records of instances that are gone for long enough, and the
// intents of those that we ended; again is when the next one is due.
func (l *Loop) forget(ctx context.Context, k *known) (again time.Duration, err error) {
	now := l.Clock.Now()
	var ws []store.Write
	left := k.list[:0:0]
	for _, i := range k.list {
		if i.State == instance.Gone {
			if at := i.Ended.Add(remember); now.Before(at) {
				again = sooner(again, at.Sub(now))
			} else {
				if err := l.Cloud.PruneIntents(ctx, instance.Kind+"/"+i.Name()); err != nil {
					return 0, err
				}
				ws = append(ws, store.Delete(instance.Kind, i.Name(), k.versions[i.ID]))
				continue
			}
		}
		left = append(left, i)
	}
	k.list = left
	if len(ws) == 0 {
		return again, nil
	}
	return again, l.Store.Apply(ctx, reconcile.Epoch(ctx), ws...)
}

func sooner(a, b time.Duration) time.Duration {
	if a == reconcile.Done || b < a {
		return b
	}
	return a
}

func firstLine(s string) string { s, _, _ = strings.Cut(s, "\n"); return s }

// conditionPrefix is where instances of a generation say what is wrong with them.
func conditionPrefix(g environment.Generation) string {
	return path.Dir(handoff.ConditionKey(g.Environment, strconv.Itoa(g.Number), "i")) + "/"
}
