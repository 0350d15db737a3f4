package rollout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/currency"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/operation"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Environments is the loop that moves environments between generations.
type Environments struct {
	Config

	mu      sync.Mutex
	counted map[string]counted // by environment
}

// slack is what a fleet may take beside the hand-off: launching, health checks.
const slack = 5 * time.Minute

// Kind implements reconcile.Loop.
func (*Environments) Kind() string { return environment.Kind }

// Follows implements reconcile.Follower: an environment looks again when one of
// its generations, or a foundation of its name, changes.
func (*Environments) Follows(k store.Key) []string {
	switch k.Kind {
	case environment.GenerationKind:
		if env, _, ok := strings.Cut(k.Name, "/"); ok {
			return []string{env}
		}
	case environment.FoundationKind:
		return []string{k.Name}
	}
	return nil
}

// Reconcile implements reconcile.Loop.
func (l *Environments) Reconcile(ctx context.Context, name string) (time.Duration, error) {
	e, _, err := store.Get[environment.Environment](ctx, l.Store, environment.Kind, name)
	if errors.Is(err, store.ErrNotFound) || (err == nil && e.Phase == environment.Gone && e.Next == nil) {
		return reconcile.Done, nil
	}
	if err != nil {
		return 0, err
	}
	if e.Next != nil && !e.Destroy && (e.Next.Image == "" || e.Next.Release == "") {
		again, err := l.resolve(ctx, e)
		if e.Shift == nil || err != nil {
			return again, err
		}
		// What moves traffic goes on meanwhile.
		if e, _, err = store.Get[environment.Environment](ctx, l.Store, environment.Kind, name); err != nil {
			return 0, err
		}
	}
	o, listener, err := l.look(ctx, e)
	if err != nil {
		return 0, err
	}
	if o.Verdict, err = l.judge(ctx, e, o, listener); err != nil {
		return 0, err
	}
	d := environment.Plan(e, o)
	l.Log.DebugContext(ctx, "environment", "environment", name, "action", d.Action, "generation", d.Number, "reason", d.Reason)
	return l.act(ctx, e, o, listener, d)
}

// resolve fills in what a deploy needs: the release first, since "the most
// recent" shall be that of the moment when the deploy was asked for.
func (l *Environments) resolve(ctx context.Context, e environment.Environment) (time.Duration, error) {
	b, _, err := l.Blueprints.Blueprint(ctx, e.Next.Files)
	if err != nil {
		return 0, err
	}
	if e.Next.Release == "" {
		rel, err := l.Releases.Resolve(ctx, environment.Kind+"/"+e.Name, b)
		if err != nil {
			return l.stuckOrFailed(ctx, e, "release-not-resolved", "box/"+b.Release.Box, err)
		}
		return soon, l.update(ctx, e.Name, func(e *environment.Environment) {
			if e.Next != nil && e.Next.Release == "" {
				e.Next.Release = rel
			}
		})
	}
	im, waiting, err := l.Images.Baked(ctx, e.Next.Bake)
	if err != nil {
		return l.stuckOrFailed(ctx, e, "image-not-baked", "bake/"+e.Next.Bake, err)
	}
	if im == "" {
		return 500 * time.Millisecond, l.update(ctx, e.Name, func(e *environment.Environment) {
			l.block(e, "image-baking", "bake/"+e.Next.Bake, waiting, "")
		})
	}
	return soon, l.update(ctx, e.Name, func(e *environment.Environment) {
		if e.Next != nil {
			e.Next.Image, e.Blocker = im, nil
		}
	})
}

// stuckOrFailed waits with a blocker while trying again can help, for ten
// minutes at most, and gives the deploy up otherwise.
func (l *Environments) stuckOrFailed(ctx context.Context, e environment.Environment, rule, on string, err error) (time.Duration, error) {
	if interrupted(err) {
		return 0, err
	}
	if fault.KindOf(err) == fault.Unavailable && l.Clock.Now().Sub(e.Next.Asked) < l.Patience {
		return 2 * time.Second, l.update(ctx, e.Name, func(e *environment.Environment) {
			if e.Next != nil {
				l.block(e, rule, on, err.Error(), fault.HintOf(err))
				e.Blocker.Until = e.Next.Asked.Add(l.Patience)
			}
		})
	}
	l.Log.WarnContext(ctx, "deploy failed", "environment", e.Name, "error", err)
	return reconcile.Done, l.update(ctx, e.Name, func(e *environment.Environment) {
		e.Next, e.Blocker, e.Error = nil, nil, err.Error()
		if e.Serving == 0 {
			e.Phase = environment.Failed
		}
	})
}

// look reads all that a plan needs. listener is the ARN to act on.
func (l *Environments) look(ctx context.Context, e environment.Environment) (o environment.Observed, listener string, err error) {
	o.Now = l.Clock.Now()
	o.Generations, err = store.List[environment.Generation](ctx, l.Store, environment.GenerationKind, e.Name+"/")
	if err != nil || e.Foundation == "" {
		return o, "", err
	}
	f, _, err := store.Get[environment.Foundation](ctx, l.Store, environment.FoundationKind, e.Foundation)
	if errors.Is(err, store.ErrNotFound) {
		return o, "", nil
	}
	if err != nil {
		return o, "", err
	}
	o.Foundation = &f
	listener = e.Listener
	if e.Port == 0 {
		listener = f.Listener
	}
	if listener == "" {
		return o, "", nil
	}
	ws, err := l.Cloud.ListenerWeights(ctx, listener)
	if fault.KindOf(err) == fault.NotFound {
		o.ListenerGone = true
		return o, listener, nil
	}
	if err != nil {
		return o, "", err
	}
	o.Attached = map[string]int{}
	for _, w := range ws {
		o.Attached[w.TargetGroup] = w.Weight
	}
	return o, listener, nil
}

func (l *Environments) act(ctx context.Context, e environment.Environment, o environment.Observed, listener string, d environment.Decision) (time.Duration, error) {
	object := environment.Kind + "/" + e.Name
	switch d.Action {
	case environment.Generate:
		return l.generate(ctx, e, o, d)
	case environment.Wait:
		return l.pause(o, d), l.update(ctx, e.Name, func(e *environment.Environment) { l.wait(e, o, d) })
	case environment.Begin, environment.Step, environment.Resize, environment.Route, environment.Switch, environment.Settle, environment.Revert, environment.Return, environment.Stay:
		return l.move(ctx, e, o, listener, d)
	case environment.Supersede:
		return soon, l.end(ctx, e.Name, d.Number, e.Switched)
	case environment.Retire:
		return soon, l.end(ctx, e.Name, d.Number, time.Time{})
	case environment.GiveUp:
		ws, changed := map[string]int{}, false
		failed := generation(o, d.Number)
		for tg, w := range o.Attached {
			if slices.Contains(failed.TargetGroups, tg) {
				changed = true
				continue
			}
			ws[tg] = w
		}
		if changed {
			if err := l.traffic(ctx, e, listener, ws); err != nil {
				return 0, err
			}
			if err := l.moved(ctx, e); err != nil {
				return 0, err
			}
		}
		return soon, l.giveUp(ctx, e.Name, o, d)
	case environment.EndTraffic:
		if e.Port != 0 && listener != "" {
			return soon, l.Cloud.DeleteListener(ctx, cloud.Intent{ID: object + "/delete-listener/" + mark(listener), Object: object}, listener)
		}
		if err := l.traffic(ctx, e, listener, nil); err != nil {
			return 0, err
		}
		return soon, l.moved(ctx, e)
	case environment.EndFoundation:
		return soon, reconcile.Update(ctx, l.Store, environment.FoundationKind, e.Foundation, func(f *environment.Foundation) error { f.Destroy = true; return nil })
	case environment.Finish:
		return l.finish(ctx, e, o, listener, object)
	}
	if e.Phase == environment.Serving {
		return 30 * time.Second, nil
	}
	return reconcile.Done, nil
}

// traffic sets a listener's weights. The intent's id holds what is to be set
// and how often traffic was set before: whoever changes the listener behind our
// back makes the same wish come again, and that is another call.
func (l *Environments) traffic(ctx context.Context, e environment.Environment, listener string, weights map[string]int) error {
	ws := []cloud.Weight{}
	for _, tg := range slices.Sorted(maps.Keys(weights)) {
		ws = append(ws, cloud.Weight{TargetGroup: tg, Weight: weights[tg]})
	}
	object := environment.Kind + "/" + e.Name
	return l.Cloud.SetListener(ctx, cloud.Intent{ID: fmt.Sprintf("%s/traffic/%d/%s", object, e.Moves, mark(listener, ws)), Object: object}, listener, ws)
}

// moved counts a change of traffic that was made from e.
func (l *Environments) moved(ctx context.Context, e environment.Environment) error {
	return l.update(ctx, e.Name, func(v *environment.Environment) { v.Moves = e.Moves + 1 })
}

// frozen is the freeze that a deploy waits for which was asked for before, nil
// where there is none. Going back waits for nobody, and a suite's environment is
// nobody's to freeze.
func (l *Environments) frozen(ctx context.Context, e environment.Environment) (*currency.Freeze, error) {
	if e.Run != "" || e.Next.Back != nil {
		return nil, nil
	}
	for _, name := range []string{currency.All, e.Name} {
		f, _, err := store.Get[currency.Freeze](ctx, l.Store, currency.FreezeKind, name)
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return nil, err
		case !f.Over(l.Clock.Now()):
			return &f, nil
		}
	}
	return nil, nil
}

func (l *Environments) generate(ctx context.Context, e environment.Environment, o environment.Observed, d environment.Decision) (time.Duration, error) {
	if f, err := l.frozen(ctx, e); f != nil || err != nil {
		return 2 * time.Second, errors.Join(err, l.update(ctx, e.Name, func(e *environment.Environment) {
			if f != nil {
				l.block(e, "frozen", "freeze/"+f.Name, f.Sentence(), "dayfly unfreeze "+f.Name+", or dayfly rollback "+e.Name+" to call the deploy off")
				e.Blocker.Until = f.Until
			}
		}))
	}
	b, _, err := l.Blueprints.Blueprint(ctx, e.Next.Files)
	if err != nil {
		return 0, err
	}
	now := l.Clock.Now()
	object := environment.Kind + "/" + e.Name
	if e.Foundation != "" {
		ready, err := l.foundation(ctx, e, o, b)
		if err != nil || !ready {
			return 100 * time.Millisecond, err
		}
		if e.Port != 0 && e.Listener == "" {
			arn, err := l.Cloud.EnsureListener(ctx, cloud.Intent{ID: object + "/create-listener/" + mark(e.Created.UnixNano()), Object: object}, o.Foundation.Balancer, e.Port, cloud.Tags{cloud.TagObject: object})
			if err != nil {
				return 0, err
			}
			return soon, l.update(ctx, e.Name, func(e *environment.Environment) { e.Listener = arn })
		}
	}
	ps := map[string]string{}
	for k, v := range e.Parameters {
		ps[k] = v
	}
	if o.Foundation != nil {
		for k, v := range o.Foundation.Outputs {
			ps[k] = v
		}
	}
	ps[b.Parameters.Operation] = operation.Of(ctx) // of its birth: what is in a stack never changes
	name := environment.GenerationName(e.Name, d.Number)
	g := environment.Generation{
		Environment: e.Name, Number: d.Number, Stack: StackName(l.Cloud.Owner(), fmt.Sprintf("%s-g%d", e.Name, d.Number)),
		Image: e.Next.Image, Release: e.Next.Release, Files: e.Next.Files, Size: e.Next.Size, Full: e.Next.Size, Parameters: ps,
		Phase: environment.Pending, Created: now, Deadline: now.Add(b.Handoff.Deadline + slack), Expires: e.Deadline,
	}
	cur, version, err := store.Get[environment.Environment](ctx, l.Store, environment.Kind, e.Name)
	if err != nil {
		return 0, err
	}
	if cur.Next == nil || cur.Want >= d.Number || cur.Destroy {
		return soon, nil // it was decided otherwise meanwhile
	}
	if cur.Serving != 0 {
		g.Size = cur.Next.Strategy.First(g.Full)
	}
	if cur.Next.Why == "" && cur.Next.Back == nil {
		g.Asked = cur.Next.Asked
	}
	cur.Strategy, cur.Shift = cur.Next.Strategy, nil
	if cur.LastBack = cur.Next.Back; cur.LastBack != nil {
		cur.LastBack.To = d.Number
	}
	cur.Next, cur.Want, cur.Size, cur.Phase, cur.Error, cur.Blocker = nil, d.Number, g.Full, environment.Launching, "", nil
	// Both records or none: a generation that no environment wants would
	// never end.
	return soon, l.Store.Apply(ctx, reconcile.Epoch(ctx),
		store.Put(environment.Kind, e.Name, version, cur),
		store.Put(environment.GenerationKind, name, 0, g))
}

// foundation makes the environment's own foundation, or waits for the one that
// it stands on.
func (l *Environments) foundation(ctx context.Context, e environment.Environment, o environment.Observed, b *blueprint.Blueprint) (ready bool, err error) {
	f := o.Foundation
	switch {
	case f == nil:
		ps := map[string]string{b.Parameters.Environment: e.Name}
		for k, v := range e.Parameters {
			ps[k] = v
		}
		return false, l.Store.Apply(ctx, reconcile.Epoch(ctx), store.Put(environment.FoundationKind, e.Foundation, 0, environment.Foundation{
			Name: e.Foundation, Blueprint: e.Blueprint, Files: e.Next.Files, Stack: StackName(l.Cloud.Owner(), e.Foundation+"-foundation"),
			Created: l.Clock.Now(), Deadline: e.Deadline, Parameter: ps, Phase: environment.Pending,
		}))
	case f.Phase == environment.Serving:
		return true, nil
	case f.Phase == environment.Failed || f.Phase == environment.Gone || f.Phase == environment.Terminating:
		_, err := l.stuckOrFailed(ctx, e, "foundation-failed", "foundation/"+f.Name, &fault.Error{Kind: fault.Failed, Op: "make the foundation", Object: f.Name, Message: "it is " + string(f.Phase) + ": " + f.Error, Hint: "dayfly env destroy " + e.Name + " removes what is there; then deploy again"})
		return false, err
	}
	return false, l.update(ctx, e.Name, func(e *environment.Environment) {
		l.block(e, "foundation-in-progress", "foundation/"+f.Name, "its foundation is being made", "")
	})
}

func (l *Environments) finish(ctx context.Context, e environment.Environment, o environment.Observed, listener, object string) (time.Duration, error) {
	if e.Port != 0 && listener != "" && !o.ListenerGone {
		return soon, l.Cloud.DeleteListener(ctx, cloud.Intent{ID: object + "/delete-listener/" + mark(listener), Object: object}, listener)
	}
	if err := l.Cloud.PruneIntents(ctx, object); err != nil {
		return 0, err
	}
	return reconcile.Done, l.update(ctx, e.Name, func(e *environment.Environment) {
		e.Phase, e.Next, e.Blocker, e.Serving, e.Address = environment.Gone, nil, nil, 0, ""
	})
}

// end starts a generation's end.
// end has a generation terminated; left is since when it has no traffic.
func (l *Environments) end(ctx context.Context, env string, n int, left time.Time) error {
	return reconcile.Update(ctx, l.Store, environment.GenerationKind, environment.GenerationName(env, n), func(g *environment.Generation) error {
		if g.Phase == environment.Serving {
			g.Left = left
		}
		if g.Phase != environment.Gone {
			g.Phase, g.Blocker = environment.Terminating, nil
		}
		return nil
	})
}

// giveUp ends a generation that failed and falls back to the one that serves,
// both or none: an environment that wants a generation which is being ended
// would wait for ever.
func (l *Environments) giveUp(ctx context.Context, name string, o environment.Observed, d environment.Decision) error {
	e, version, err := store.Get[environment.Environment](ctx, l.Store, environment.Kind, name)
	if err != nil {
		return err
	}
	gname := environment.GenerationName(name, d.Number)
	g, gversion, err := store.Get[environment.Generation](ctx, l.Store, environment.GenerationKind, gname)
	if err != nil || e.Want != d.Number || g.Phase != environment.Failed && (e.Back == nil || e.Serving == d.Number) {
		return err // it was decided otherwise meanwhile
	}
	if e.Serving == d.Number { // it served, and was taken away
		e.Serving, e.Address = 0, ""
	}
	e.Error, e.Blocker, e.Want, e.Phase = d.Reason, nil, e.Serving, environment.Serving
	if e.Back != nil {
		e.Error = "called off" + by(e.Back)
	}
	switch now := l.Clock.Now(); {
	case e.Serving == 0 || !g.BlamesImage(e.Image, e.Release, e.Back.Person()):
	case e.Back == nil && g.Lost == 0 && g.Launched < g.Size: // the cloud did not give what was asked for
		e.Postpone(g.Image, e.Error, now)
	default:
		e.Refuse(g.Image, e.Error, now)
	}
	e.Shift, e.Back = nil, nil
	if e.Serving == 0 {
		e.Phase = environment.Failed
	} else if serves := generation(o, e.Serving); serves.Number != 0 {
		e.Size = serves.Whole() // what comes next is not made in the size that nobody got
	}
	g.Phase, g.Blocker = environment.Terminating, nil
	return l.Store.Apply(ctx, reconcile.Epoch(ctx),
		store.Put(environment.Kind, name, version, e), store.Put(environment.GenerationKind, gname, gversion, g))
}

// wait says why the environment waits.
func (l *Environments) wait(e *environment.Environment, o environment.Observed, d environment.Decision) {
	if e.Destroy {
		e.Phase = environment.Terminating
	}
	on, action := fmt.Sprintf("generation/%s/%d", e.Name, d.Number), ""
	switch d.Rule {
	case "":
		if g := generation(o, d.Number); g.Blocker != nil {
			b := *g.Blocker
			e.Blocker = &b
			return
		}
		d.Rule = "generation-launching"
	case "listener-gone":
		on, action = "listener/"+e.Name, "dayfly env destroy "+e.Name+", then deploy again"
	case "deleting":
		on = "environment/" + e.Name
	case "analysis", "generation-growing":
		if e.Shift != nil && e.Back == nil {
			action = "dayfly rollback " + e.Name + " goes back"
		}
	case "analysis-failed":
		action = "dayfly rollback " + e.Name + " goes back"
	case "soak", "traffic-step":
		if e.Shift != nil && !e.Shift.Back {
			action = "dayfly rollback " + e.Name + " goes back at once"
		}
	}
	l.block(e, d.Rule, on, d.Reason, action)
	e.Blocker.Until = d.Until
}

func (l *Environments) address(e environment.Environment, o environment.Observed, g environment.Generation) string {
	if g.Address != "" {
		return g.Address
	}
	if o.Foundation == nil {
		return ""
	}
	a := o.Foundation.Outputs["Address"]
	if e.Port != 0 && a != "" {
		return fmt.Sprintf("%s:%d", a, e.Port)
	}
	return a
}

func generation(o environment.Observed, n int) environment.Generation {
	for _, g := range o.Generations {
		if g.Number == n {
			return g
		}
	}
	return environment.Generation{}
}

func (l *Environments) block(e *environment.Environment, rule, on, message, action string) {
	e.Blocker = blocker.Carry(e.Blocker, blocker.Blocker{Rule: rule, On: on, Message: message, Since: l.Clock.Now(), Action: action})
}

func (l *Environments) update(ctx context.Context, name string, f func(*environment.Environment)) error {
	return reconcile.Update(ctx, l.Store, environment.Kind, name, func(v *environment.Environment) error { f(v); return nil })
}
