package autoscaling

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const (
	debounce     = 30 * time.Millisecond
	restFor      = 4 // a pass rests this much longer than it took: while many boot, each change of each wakes it
	tick         = time.Second
	deadEvery    = 250 * time.Millisecond // how often, at most, EC2 is asked for instances that ended
	fullEvery    = time.Minute            // and for all of them
	healthEvery  = 250 * time.Millisecond // how often, at most, target health is read
	drainEvery   = 50 * time.Millisecond  // the same while something drains
	forgetEvery  = time.Minute
	filterValues = 200 // most values of one EC2 filter
)

// eyes is the loop's memory of its looks at EC2 and the load balancers.
type eyes struct {
	dead, full, forget time.Time
	seen               map[string]machine
	targets            map[string]map[string]string
	targetsAt          map[string]time.Time
}

// snapshot is the records at one moment.
type snapshot struct {
	groups    []group
	instances map[string][]instance // by group
}

func (s *Service) snapshot(tx *state.Tx) snapshot {
	out := snapshot{instances: map[string][]instance{}}
	for _, g := range s.groups.All(tx) {
		out.groups = append(out.groups, g)
	}
	for _, in := range s.instances.All(tx) {
		out.instances[in.Group] = append(out.instances[in.Group], in)
	}
	return out
}

// Run keeps the groups as they should be until the context ends. It is woken
// by every change in the region's database, and by a tick.
func (s *Service) Run(ctx context.Context) error {
	changed, stop := s.c.DB.Watch()
	defer stop()
	defer s.work.Wait()
	ctx = s.internal(ctx)
	for ctx.Err() == nil {
		began := s.now()
		wait, err := s.pass(ctx)
		took := s.now().Sub(began)
		if err != nil && ctx.Err() == nil {
			s.c.Log.Error("auto scaling pass", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-s.kick:
		case <-s.c.Clock.After(wait):
			continue
		}
		select { // what comes together is looked at together
		case <-ctx.Done():
			return nil
		case <-s.c.Clock.After(max(debounce, restFor*took)):
		}
		select {
		case <-changed:
		default:
		}
	}
	return nil
}

func (s *Service) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// pass looks, decides and acts once; it returns when to look again at the latest.
func (s *Service) pass(ctx context.Context) (time.Duration, error) {
	var snap snapshot
	s.c.DB.View(func(tx *state.Tx) { snap = s.snapshot(tx) })
	wait := tick
	o, soon, err := s.look(ctx, snap)
	if soon > 0 {
		wait = min(wait, soon)
	}
	if err != nil { // blind: no decision, but what was decided is still done
		s.effects(ctx, snap, o)
		return wait, err
	}
	now := s.now()
	err = s.c.DB.Update(func(tx *state.Tx) error {
		fresh := s.snapshot(tx)
		for _, g := range fresh.groups {
			if acts := plan(g, fresh.instances[g.Name], o, now); len(acts) > 0 {
				s.apply(tx, g, acts, now)
			}
		}
		if now.Sub(s.eyes.forget) > forgetEvery {
			s.eyes.forget = now
			s.forget(tx, now)
		}
		return nil
	})
	if err != nil {
		return wait, err
	}
	s.c.DB.View(func(tx *state.Tx) { snap = s.snapshot(tx) })
	s.effects(ctx, snap, o)
	for _, g := range snap.groups {
		wait = min(wait, max(due(g, snap.instances[g.Name], now).Sub(now), time.Millisecond))
	}
	return wait, nil
}

// look asks EC2 about the instances that are on their way and for those that
// ended, and the load balancers about targets that matter now.
func (s *Service) look(ctx context.Context, snap snapshot) (observed, time.Duration, error) {
	now, e := s.now(), &s.eyes
	if e.seen == nil {
		e.seen, e.targets, e.targetsAt = map[string]machine{}, map[string]map[string]string{}, map[string]time.Time{}
	}
	o := observed{EC2: map[string]machine{}, Targets: map[string]map[string]string{}}
	var moving, all []string
	serving := map[string]bool{}
	for _, list := range snap.instances {
		for i := range list {
			in := &list[i]
			all = append(all, in.ID)
			if settled(in.State) {
				serving[in.ID] = true
			} else {
				moving = append(moving, in.ID)
			}
		}
	}
	soon := time.Duration(0)
	switch {
	case len(all) == 0:
	case now.Sub(e.full) >= fullEvery:
		moving, e.full = all, now
	case now.Sub(e.dead) >= deadEvery:
		e.dead = now
		for ids := range slices.Chunk(slices.Sorted(maps.Keys(serving)), filterValues) {
			dead, err := s.describe(ctx, &ec2api.Filter{Name: "instance-id", Values: ids},
				&ec2api.Filter{Name: "instance-state-name", Values: []string{"shutting-down", "terminated", "stopping", "stopped"}})
			if err != nil {
				return o, 0, err
			}
			maps.Copy(o.EC2, dead)
		}
	default:
		soon = deadEvery - now.Sub(e.dead)
	}
	slices.Sort(moving)
	for ids := range slices.Chunk(moving, filterValues) {
		found, err := s.describe(ctx, &ec2api.Filter{Name: "instance-id", Values: ids})
		if err != nil {
			e.full = time.Time{}
			return o, 0, err
		}
		for _, id := range ids {
			o.EC2[id] = found[id]
		}
	}
	drainSoon := s.lookAtTargets(ctx, snap, o)
	if drainSoon > 0 && (soon == 0 || drainSoon < soon) {
		soon = drainSoon
	}
	return o, soon, nil
}

// describe reads all pages of DescribeInstances.
func (s *Service) describe(ctx context.Context, filters ...*ec2api.Filter) (map[string]machine, error) {
	out := map[string]machine{}
	req := &ec2api.DescribeInstancesRequest{Filters: filters, MaxResults: new(int64(1000))}
	for {
		res, err := wire.Call[ec2api.DescribeInstancesResult](ctx, s.c.Bus, "ec2", "DescribeInstances", req)
		if err != nil {
			return nil, err
		}
		for _, r := range res.Reservations {
			for _, in := range r.Instances {
				m := machine{}
				if in.State != nil {
					m.State = in.State.Name
				}
				if in.StateReason != nil {
					m.Reason = in.StateReason.Message
				}
				out[in.InstanceId] = m
			}
		}
		if res.NextToken == "" {
			return out, nil
		}
		req.NextToken = res.NextToken
	}
}

// lookAtTargets reads the health of target groups from which instances drain
// and of those whose health decides over instances.
func (s *Service) lookAtTargets(ctx context.Context, snap snapshot, o observed) time.Duration {
	now, e := s.now(), &s.eyes
	every := map[string]time.Duration{}
	for i := range snap.groups {
		g := &snap.groups[i]
		if g.HealthCheckType != "EC2" {
			for _, tg := range g.TargetGroups {
				every[tg.ARN] = healthEvery
			}
		}
		for _, in := range snap.instances[g.Name] {
			if leaving(in.State) && len(in.toDrain()) == 0 {
				for _, arn := range in.Registered {
					every[arn] = drainEvery
				}
			}
		}
	}
	maps.DeleteFunc(e.targetsAt, func(arn string, _ time.Time) bool { return every[arn] == 0 })
	maps.DeleteFunc(e.targets, func(arn string, _ map[string]string) bool { return every[arn] == 0 })
	soon := time.Duration(0)
	for arn, d := range every {
		if d == drainEvery && (soon == 0 || soon > drainEvery) {
			soon = drainEvery
		}
		// An old look may decide over health, never over draining: there a
		// target that was not yet registered looks like one that has gone.
		if age := now.Sub(e.targetsAt[arn]); age < d {
			if d == healthEvery {
				o.Targets[arn] = e.targets[arn]
			}
			continue
		}
		res, err := wire.Call[elbv2api.DescribeTargetHealthOutput](ctx, s.c.Bus, "elbv2", "DescribeTargetHealth", &elbv2api.DescribeTargetHealthInput{TargetGroupArn: arn})
		m := map[string]string{}
		switch {
		case wire.CodeOf(err) == "TargetGroupNotFound": // nothing is registered there any more
		case err != nil:
			s.c.Log.Warn("read target health", "targetGroup", arn, "err", err)
			continue
		default:
			for _, d := range res.TargetHealthDescriptions {
				st := d.TargetHealth.State
				if old := m[d.Target.Id]; old == "" || old == "healthy" || old == "unused" { // the worst of several ports
					m[d.Target.Id] = st
				}
			}
		}
		e.targets[arn], e.targetsAt[arn] = m, now
		o.Targets[arn] = m
	}
	return soon
}
