package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/puppet"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/release"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Generations is the loop that launches and ends generations.
type Generations struct {
	Config

	mu     sync.Mutex
	looked map[string]time.Time // at everything, by generation: only to ask less
	runs   map[string]string    // image by generation: whom its revocation concerns
}

// Kind implements reconcile.Loop.
func (*Generations) Kind() string { return environment.GenerationKind }

// Follows implements reconcile.Follower: what serves is looked at by the loop
// that heals, which notes down in its fleets' records how many do.
func (l *Generations) Follows(k store.Key) []string {
	switch k.Kind {
	case instance.FleetKind:
		return []string{path.Dir(k.Name)}
	case image.Kind:
		return l.runners(k.Name)
	}
	return nil
}

// Reconcile implements reconcile.Loop.
func (l *Generations) Reconcile(ctx context.Context, name string) (time.Duration, error) {
	g, _, err := store.Get[environment.Generation](ctx, l.Store, environment.GenerationKind, name)
	if errors.Is(err, store.ErrNotFound) {
		return reconcile.Done, nil
	}
	if err != nil {
		return 0, err
	}
	object := environment.GenerationKind + "/" + name
	switch g.Phase {
	case environment.Gone, environment.Failed:
		l.forget(name)
		return reconcile.Done, nil
	case environment.Terminating:
		return l.terminate(ctx, name, g, object)
	case environment.Pending, environment.Launching, environment.Serving:
		if err := l.launches(ctx, name, g, object); err != nil {
			return 0, err
		}
	}
	if g.Phase == environment.Serving {
		if wait, err := l.noted(ctx, name, g); wait > 0 || err != nil {
			return wait, err
		}
	}
	st, err := l.Cloud.Stack(ctx, g.Stack)
	if fault.KindOf(err) == fault.NotFound {
		if g.Phase != environment.Pending {
			return reconcile.Done, l.fail(ctx, name, "its stack "+g.Stack+" is not there any more; somebody deleted it")
		}
		again, err := l.create(ctx, name, g, object)
		if !interrupted(err) && l.Clock.Now().After(g.Deadline) {
			why := "its stack " + g.Stack + " could not be made in time"
			if err != nil {
				why += ": " + err.Error()
			}
			return reconcile.Done, l.fail(ctx, name, why)
		}
		return again, err
	}
	if err != nil {
		return 0, err
	}
	switch {
	case g.Phase == environment.Serving && st.Status != "DELETE_COMPLETE":
		// What serves is not ended because of what became of its stack's
		// status; only its instances count.
		return l.observe(ctx, name, g)
	case st.Status == "CREATE_COMPLETE" && len(g.Groups) == 0:
		return l.poll(g.Created), l.discover(ctx, name, st)
	case st.Status == "CREATE_COMPLETE":
		return l.observe(ctx, name, g)
	case inProgress(st.Status) && l.Clock.Now().After(g.Deadline):
		return reconcile.Done, l.fail(ctx, name, "its stack "+g.Stack+" was still "+st.Status+" when its time was over")
	case st.Status == "CREATE_IN_PROGRESS":
		return l.poll(g.Created), l.launching(ctx, name, func(g *environment.Generation) {
			l.block(g, "stack-in-progress", "stack/"+g.Stack, "the fleet's stack is being made")
		})
	case inProgress(st.Status) && st.Status != "DELETE_IN_PROGRESS":
		return l.poll(g.Created), nil // rolling back: the end says why
	}
	return reconcile.Done, l.fail(ctx, name, stackFailure(ctx, l.Cloud, st))
}

func (l *Generations) create(ctx context.Context, name string, g environment.Generation, object string) (time.Duration, error) {
	b, files, err := l.Blueprints.Blueprint(ctx, g.Files)
	if err != nil {
		return 0, err
	}
	body, err := fs.ReadFile(files, b.Fleet)
	if err != nil {
		return 0, err
	}
	declared, err := l.Templates.Parameters(b.Fleet, body)
	if err != nil {
		return reconcile.Done, l.fail(ctx, name, err.Error())
	}
	ami, err := l.Images.AMI(ctx, g.Image)
	if permanent(err) {
		return reconcile.Done, l.fail(ctx, name, err.Error())
	}
	if err != nil {
		return 0, err
	}
	rel, _, err := store.Get[release.Release](ctx, l.Store, release.Kind, g.Release)
	if err != nil {
		return 0, err
	}
	ps := maps.Clone(g.Parameters)
	if ps == nil {
		ps = map[string]string{}
	}
	n := b.Parameters
	for k, v := range map[string]string{
		n.Image: ami, n.ReleaseURL: rel.URL, n.ReleaseMirror: rel.Mirror, n.ReleaseDigest: rel.Digest,
		n.Size: strconv.Itoa(g.Size), n.MaxSize: strconv.Itoa(g.Whole() + instance.Surge(g.Whole())), n.Environment: g.Environment,
		n.Generation: strconv.Itoa(g.Number), n.Bucket: l.Cloud.Bucket(),
	} {
		ps[k] = v
	}
	in := cloud.StackInput{Name: g.Stack, Template: string(body), Parameters: only(declared, ps), Tags: cloud.Tags{
		cloud.TagObject: object, cloud.TagEnvironment: g.Environment, cloud.TagGeneration: strconv.Itoa(g.Number),
		cloud.TagImage: g.Image, cloud.TagRelease: rel.Digest, cloud.TagDeadline: g.Expires.UTC().Format(time.RFC3339),
	}}
	if p := b.Image.Puppet; b.Image.Boot == "puppet" {
		// The stack's tags reach the instances: the company's CA asks for this one.
		in.Tags[puppet.ClaimTag] = puppet.NodeClaim{Role: p.Role, Environment: p.Environment}.String()
	}
	_, err = l.Cloud.CreateStack(ctx, cloud.Intent{ID: object + "/create-stack/1", Object: object}, in)
	if permanent(err) {
		return reconcile.Done, l.fail(ctx, name, err.Error())
	}
	return 100 * time.Millisecond, err
}

// discover remembers what the stack made: groups and target groups.
func (l *Generations) discover(ctx context.Context, name string, st cloud.Stack) error {
	rs, err := l.Cloud.StackResources(ctx, st.Name)
	if err != nil {
		return err
	}
	var groups, targets []string
	for _, r := range rs {
		switch r.Type {
		case "AWS::AutoScaling::AutoScalingGroup":
			groups = append(groups, r.Physical)
		case "AWS::ElasticLoadBalancingV2::TargetGroup":
			targets = append(targets, r.Physical)
		}
	}
	if len(groups) == 0 {
		return l.fail(ctx, name, "its template makes no Auto Scaling group")
	}
	// With several fleets the template says which one the listener gets.
	if tg := st.Outputs["TargetGroup"]; tg != "" {
		targets = []string{tg}
	} else if len(targets) > 1 {
		targets = targets[:1]
	}
	return l.launching(ctx, name, func(g *environment.Generation) {
		g.Groups, g.TargetGroups, g.Address = groups, targets, st.Outputs["Address"]
		l.block(g, "instances-launching", "group/"+groups[0], "its instances are being launched")
	})
}

// seen is what one look at a generation's fleets finds.
type seen struct {
	healthy, launched, lost int
	waiting                 string // an instance that is not there yet, and why
	capacity                bool   // because the cloud has no room for it
	minimum                 int    // below which its group does not go
}

func (l *Generations) observe(ctx context.Context, name string, g environment.Generation) (time.Duration, error) {
	now := l.Clock.Now()
	wait, known, err := l.early(ctx, name, g, now)
	if wait > 0 || err != nil {
		return wait, err
	}
	s, err := l.look(ctx, g, known)
	if err != nil {
		return 0, err
	}
	if g.Phase == environment.Serving {
		again := 10 * time.Second
		if s.healthy != g.Size {
			again = time.Second
		}
		if err := l.lower(ctx, name, g, s); err != nil {
			return 0, err
		}
		return again, l.update(ctx, name, func(g *environment.Generation) {
			if g.Phase != environment.Serving {
				return
			}
			if g.Healthy, g.Launched = s.healthy, max(g.Launched, s.launched); g.Healthy >= g.Size {
				g.Blocker = nil
				return
			}
			l.block(g, "instances-not-healthy", "group/"+g.Groups[0], fmt.Sprintf("it serves with %d of %d instances%s", s.healthy, g.Size, s.waiting))
		})
	}
	if s.healthy >= g.Size {
		return reconcile.Done, l.launching(ctx, name, func(g *environment.Generation) {
			g.Phase, g.Healthy, g.Launched, g.Lost, g.Ready, g.Blocker = environment.Serving, s.healthy, s.launched, s.lost, now, nil
		})
	}
	why := ""
	switch {
	case s.lost >= max(3, g.Size/5):
		why = fmt.Sprintf("%d instances were launched and never became healthy", s.lost)
	case now.After(g.Deadline):
		why = fmt.Sprintf("only %d of %d instances were healthy when its time was over", s.healthy, g.Size)
	}
	if why == "" {
		return l.poll(g.Created), l.launching(ctx, name, func(g *environment.Generation) {
			g.Healthy, g.Launched, g.Lost = s.healthy, s.launched, s.lost
			rule, action := "instances-not-healthy", ""
			if s.capacity {
				// The group goes on trying, in other zones first; at the deadline
				// what it got is given back.
				rule, action = "no-capacity", "name more zones or other instance types, or deploy a smaller size; if it has not come by then, what was launched is given back"
			}
			l.block(g, rule, "group/"+g.Groups[0], fmt.Sprintf("%d of %d instances are healthy%s", s.healthy, g.Size, s.waiting))
			g.Blocker.Action = action
			g.Blocker.Until = g.Deadline
		})
	}
	r, fired := l.handoffs(ctx, g)
	if r != "" {
		why += "; " + r
	} else if s.waiting != "" {
		why += s.waiting
	}
	_ = l.update(ctx, name, func(g *environment.Generation) {
		g.Healthy, g.Launched, g.Lost, g.Fired = s.healthy, s.launched, s.lost, fired || s.healthy > 0
	})
	return reconcile.Done, l.fail(ctx, name, why)
}

// lower lets the groups of a generation that shall shrink do so: heal ends what
// is one too many.
func (l *Generations) lower(ctx context.Context, name string, g environment.Generation, s seen) error {
	if len(g.Groups) != 1 || s.minimum <= g.Size {
		return nil
	}
	object := environment.GenerationKind + "/" + name
	return l.Cloud.SetMinimum(ctx, cloud.Intent{ID: fmt.Sprintf("%s/minimum/%d-%d", object, s.minimum, g.Size), Object: object}, g.Groups[0], g.Size)
}

// fullEvery is how often, at most, everything is read of a generation that
// cannot be complete yet: its instances are long lists.
const fullEvery = time.Second

// early looks at the target group alone, between two looks at everything: as
// long as too few targets are healthy nothing else decides. What it found is for
// the look at everything.
func (l *Generations) early(ctx context.Context, name string, g environment.Generation, now time.Time) (wait time.Duration, known map[string][]cloud.Target, err error) {
	l.mu.Lock()
	last := l.looked[name]
	l.mu.Unlock()
	if g.Phase == environment.Launching && len(g.TargetGroups) == 1 && now.Sub(last) < fullEvery && now.Before(g.Deadline) {
		ts, err := l.Cloud.Targets(ctx, g.TargetGroups[0])
		if err != nil {
			return 0, nil, err
		}
		known = map[string][]cloud.Target{g.TargetGroups[0]: ts}
		healthy := 0
		for _, t := range ts {
			if t.State == "healthy" {
				healthy++
			}
		}
		if healthy < g.Size {
			return l.poll(g.Created), nil, nil
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.looked == nil || len(l.looked) > 1000 {
		l.looked = map[string]time.Time{}
	}
	l.looked[name] = now
	return 0, known, nil
}

// ownEvery is how often a generation that is whole by its fleets' records is
// looked at all the same: its stack may have been deleted.
const ownEvery = time.Minute

// noted takes what the fleets' records say. While they say that all is well,
// nothing is asked a second time; wait is until the next look.
func (l *Generations) noted(ctx context.Context, name string, g environment.Generation) (wait time.Duration, err error) {
	l.mu.Lock()
	wait = l.looked[name].Add(ownEvery).Sub(l.Clock.Now())
	l.mu.Unlock()
	if wait <= 0 {
		return 0, nil
	}
	fleets, err := store.List[instance.Fleet](ctx, l.Store, instance.FleetKind, name+"/")
	if err != nil {
		return 0, err
	}
	serving := 0
	for _, f := range fleets {
		if slices.Contains(g.Groups, f.Group) {
			serving += f.Serving
		}
	}
	if serving != g.Size {
		return 0, nil // what is missing, and why, takes a look; what is too much shall go
	}
	return wait, l.update(ctx, name, func(g *environment.Generation) {
		if g.Phase == environment.Serving {
			g.Healthy, g.Launched, g.Blocker = serving, max(g.Launched, serving), nil
		}
	})
}

// look asks for everything of a generation but the targets that are known.
func (l *Generations) look(ctx context.Context, g environment.Generation, known map[string][]cloud.Target) (seen, error) {
	var s seen
	healthy := map[string]bool{}
	for _, tg := range g.TargetGroups {
		ts, there := known[tg]
		if !there {
			var err error
			if ts, err = l.Cloud.Targets(ctx, tg); err != nil {
				return s, err
			}
		}
		for _, t := range ts {
			healthy[t.Instance] = t.State == "healthy"
			if t.State == "unhealthy" && s.waiting == "" {
				s.waiting = fmt.Sprintf("; %s fails its health check (%s)", t.Instance, t.Reason)
			}
		}
	}
	ok := map[string]bool{}
	for _, name := range g.Groups {
		// Instances before the group: those that are launched between the two
		// reads are members without being listed, never the other way round,
		// which would look like a loss.
		is, err := l.Cloud.Instances(ctx, map[string]string{"tag:aws:autoscaling:groupName": name})
		if err != nil {
			return s, err
		}
		gr, err := l.Cloud.Group(ctx, name)
		if fault.KindOf(err) == fault.NotFound {
			s.waiting = "; its group " + name + " is not there"
			continue
		}
		if err != nil {
			return s, err
		}
		s.minimum += gr.Min
		for _, m := range gr.Members {
			h, target := healthy[m.Instance]
			good := m.Lifecycle == "InService" && m.Healthy
			if good && (h || (!target && len(g.TargetGroups) == 0)) {
				s.healthy++
			}
			ok[m.Instance] = good || strings.HasPrefix(m.Lifecycle, "Pending")
		}
		for _, i := range is {
			s.launched++
			if g.Ready.IsZero() && !ok[i.ID] && i.State != "pending" {
				s.lost++
				if i.Reason != "" && s.waiting == "" {
					s.waiting = fmt.Sprintf("; %s ended: %s", i.ID, i.Reason)
				}
			}
		}
		if len(gr.Members) < gr.Desired {
			as, err := l.Cloud.Activities(ctx, name)
			if err != nil {
				return s, err
			}
			if len(as) > 0 && as[0].Message != "" && (as[0].Status == "Failed" || len(is) == 0) {
				s.waiting = "; " + as[0].Message
				s.capacity = cloud.NoCapacity(as[0].Message)
			}
		}
	}
	return s, nil
}

// handoffs are what instances reported: the first hand-off that failed, and
// whether one of those before it, or it, had fired its deploy script.
func (l *Generations) handoffs(ctx context.Context, g environment.Generation) (failure string, fired bool) {
	keys, err := l.Cloud.ListObjects(ctx, handoffPrefix(g))
	if err != nil {
		return "", false
	}
	for _, k := range keys {
		if path.Dir(k)+"/" != handoffPrefix(g) {
			continue // what instances said later
		}
		raw, err := l.Cloud.Object(ctx, k, 64<<10)
		if err != nil {
			continue
		}
		var r handoff.Report
		if json.Unmarshal(raw, &r) != nil {
			continue
		}
		if fired = fired || r.Fired(); r.OK {
			continue
		}
		if r.Instance == "" {
			r.Instance = strings.TrimSuffix(path.Base(k), ".json")
		}
		why := "the hand-off on " + r.Instance + " failed: " + r.Reason
		if out := strings.TrimSpace(r.Output); out != "" {
			lines := strings.Split(out, "\n")
			why += "; its last lines:\n  " + strings.Join(lines[max(0, len(lines)-5):], "\n  ")
		}
		return why, fired
	}
	return "", fired
}

func handoffPrefix(g environment.Generation) string {
	return path.Dir(handoff.ReportKey(g.Environment, strconv.Itoa(g.Number), "i")) + "/"
}

// drain waits until the requests that were on their way to a generation when its
// traffic left have ended, as long as its target groups say. An environment that
// is destroyed waits for nobody.
func (l *Generations) drain(ctx context.Context, name string, g environment.Generation) (time.Duration, error) {
	if g.Left.IsZero() {
		return 0, nil
	}
	e, _, err := store.Get[environment.Environment](ctx, l.Store, environment.Kind, g.Environment)
	if errors.Is(err, store.ErrNotFound) || err == nil && e.Destroy {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var delay time.Duration
	for _, tg := range g.TargetGroups {
		d, err := l.Cloud.DrainDelay(ctx, tg)
		if err != nil && fault.KindOf(err) != fault.NotFound {
			return 0, err
		}
		delay = max(delay, d)
	}
	end := g.Left.Add(delay)
	wait := end.Sub(l.Clock.Now())
	if wait <= 0 {
		return 0, nil
	}
	return wait, l.update(ctx, name, func(g *environment.Generation) {
		l.block(g, "generation-draining", "generation/"+name, "requests that were on their way when its traffic left may end until "+end.UTC().Format("15:04:05")+" UTC, as its target group says")
	})
}

func (l *Generations) terminate(ctx context.Context, name string, g environment.Generation, object string) (time.Duration, error) {
	if wait, err := l.drain(ctx, name, g); wait > 0 || err != nil {
		return min(wait, time.Second), err
	}
	// CloudFormation waits for ever for instances that are protected from
	// scale-in, so the groups go first, with force. A stack that was cut off
	// before its groups were noted down says itself what they are.
	groups := g.Groups
	if len(groups) == 0 {
		rs, err := l.Cloud.StackResources(ctx, g.Stack)
		if err != nil && fault.KindOf(err) != fault.NotFound {
			return 0, err
		}
		for _, r := range rs {
			if r.Type == "AWS::AutoScaling::AutoScalingGroup" && r.Physical != "" && r.Status != "DELETE_COMPLETE" {
				groups = append(groups, r.Physical)
			}
		}
	}
	for _, gr := range groups {
		if err := l.Cloud.DeleteGroup(ctx, cloud.Intent{ID: object + "/delete-group/" + mark(gr), Object: object}, gr); err != nil && fault.KindOf(err) != fault.NotFound {
			return 0, err
		}
	}
	gone, why, again, err := l.deleteStack(ctx, object, g.Stack, g.Blocker)
	if err != nil || !gone {
		return again, errors.Join(err, l.update(ctx, name, func(g *environment.Generation) { g.Blocker = why }))
	}
	if err := l.Cloud.DeletePrefix(ctx, cloud.Intent{ID: object + "/delete-reports/1", Object: object}, handoffPrefix(g)); err != nil {
		return 0, err
	}
	if err := l.Cloud.PruneIntents(ctx, object); err != nil {
		return 0, err
	}
	return reconcile.Done, l.update(ctx, name, func(g *environment.Generation) { g.Phase, g.Blocker, g.Healthy = environment.Gone, nil, 0 })
}

func (l *Generations) block(g *environment.Generation, rule, on, message string) {
	g.Blocker = blocker.Carry(g.Blocker, blocker.Blocker{Rule: rule, On: on, Message: message, Since: l.Clock.Now()})
}

func (l *Generations) fail(ctx context.Context, name, why string) error {
	l.Log.WarnContext(ctx, "generation failed", "generation", name, "why", why)
	return l.update(ctx, name, func(g *environment.Generation) {
		if g.Phase != environment.Terminating && g.Phase != environment.Gone { // it was decided otherwise meanwhile
			g.Phase, g.Error, g.Blocker = environment.Failed, why, nil
		}
	})
}

// launching changes a generation unless its end was decided meanwhile.
func (l *Generations) launching(ctx context.Context, name string, f func(*environment.Generation)) error {
	return l.update(ctx, name, func(g *environment.Generation) {
		if g.Phase == environment.Pending || g.Phase == environment.Launching {
			g.Phase = environment.Launching
			f(g)
		}
	})
}

func (l *Generations) update(ctx context.Context, name string, f func(*environment.Generation)) error {
	return reconcile.Update(ctx, l.Store, environment.GenerationKind, name, func(v *environment.Generation) error { f(v); return nil })
}
