package elb

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"time"

	api "github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
	"github.com/dayfly-infra/dayfly/internal/region/balancer"
	"github.com/dayfly-infra/dayfly/internal/region/state"
)

const (
	debounce  = 10 * time.Millisecond
	restFor   = 4                     // a pass rests this much longer than it took
	restEach  = 3 * time.Millisecond  // and no longer than this for each server: a step takes longer, too, when all boot at once
	eager     = 80 * time.Millisecond // between looks at health while something is on its way
	calm      = 500 * time.Millisecond
	deadEvery = time.Second
)

// Run keeps the balancers as the records say until the context ends.
func (s *Service) Run(ctx context.Context) error {
	changed, stop := s.c.DB.Watch()
	defer stop()
	defer s.work.Wait()
	ctx = s.internal(ctx)
	s.sweep(ctx)
	for ctx.Err() == nil {
		began := s.now()
		wait := s.pass(ctx)
		took := s.now().Sub(began)
		select {
		case <-ctx.Done():
			return nil
		case <-s.c.Clock.After(wait):
			continue
		case <-changed:
		case <-s.kick:
		}
		select {
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

// sweep ends balancers of VPCs in which nothing is left to balance.
func (s *Service) sweep(ctx context.Context) {
	list, err := s.c.Balancer.VPCs(ctx)
	if err != nil {
		s.c.Log.Error("list balancers", "err", err)
		return
	}
	for _, vpc := range list {
		s.applyMu.Lock()
		s.applied[vpc] = balancer.Config{VPC: vpc} // unknown: render decides
		s.applyMu.Unlock()
	}
}

// pass starts what each VPC and each unfinished load balancer needs.
func (s *Service) pass(ctx context.Context) time.Duration {
	vpcs := map[string]bool{}
	var unmade, unwanted []string
	wait := calm
	s.c.DB.View(func(tx *state.Tx) {
		used := s.balancersOf(tx)
		for arn, b := range s.balancers.All(tx) {
			switch {
			case b.Deleting:
				unwanted = append(unwanted, arn)
			case len(b.Interfaces) < len(b.Subnets):
				unmade = append(unmade, arn)
			default:
				vpcs[b.VPC] = true
			}
		}
		for _, g := range s.groups.All(tx) {
			for _, t := range g.Targets {
				if t.State == stDraining || t.State == stInitial && t.Off == "" && len(used[g.ARN]) > 0 {
					wait = eager
				}
			}
		}
	})
	s.applyMu.Lock()
	for vpc := range s.applied {
		vpcs[vpc] = true
	}
	s.applyMu.Unlock()
	for _, arn := range unmade {
		s.start(ctx, "make "+arn, func() error { _, err := s.ensureInterfaces(ctx, arn); return err })
	}
	for _, arn := range unwanted {
		s.start(ctx, "remove "+arn, func() error { return s.remove(ctx, arn) })
	}
	for vpc := range vpcs {
		s.start(ctx, "serve "+vpc, func() error {
			began := s.now()
			err := s.serve(ctx, vpc)
			if err == nil {
				err = s.glance(ctx, vpc)
			}
			// What changes meanwhile is served together: the more servers there
			// are, the more a change of one of them costs.
			if took := s.now().Sub(began); err == nil && took > 0 {
				select {
				case <-ctx.Done():
				case <-s.c.Clock.After(s.rest(vpc, took)):
				}
			}
			return err
		})
	}
	if now := s.now(); now.Sub(s.dead) >= deadEvery {
		s.dead = now
		s.start(ctx, "dead instances", func() error { return s.findDead(ctx) })
	}
	if err := s.drainUnused(); err != nil {
		s.c.Log.Error("drain", "err", err)
	}
	return wait
}

// glance looks at health, unless it was looked at just now: asking the balancer
// costs it and us more than a change of something else is worth, and the more
// servers there are, the longer an answer takes, and the longer the rest after it.
func (s *Service) glance(ctx context.Context, vpc string) error {
	began := s.now()
	s.applyMu.Lock()
	early := began.Before(s.askAgain[vpc])
	s.applyMu.Unlock()
	if early {
		return nil // the pass after wait asks
	}
	err := s.mirror(ctx, vpc)
	s.applyMu.Lock()
	s.askAgain[vpc] = began.Add(max(eager, rest(s.now().Sub(began), s.applied[vpc])))
	s.applyMu.Unlock()
	return err
}

// rest is the pause after a step for a VPC that took so long.
func (s *Service) rest(vpc string, took time.Duration) time.Duration {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	return rest(took, s.applied[vpc])
}

func rest(took time.Duration, c balancer.Config) time.Duration {
	servers := 0
	for _, p := range c.Pools {
		servers += len(p.Servers)
	}
	return min(restFor*took, time.Duration(servers)*restEach, calm)
}

// start runs a step beside the loop, once at a time for each key. After an
// error the key rests, so that what fails is not tried at every wake-up.
func (s *Service) start(ctx context.Context, key string, f func() error) {
	s.busyMu.Lock()
	defer s.busyMu.Unlock()
	if s.busy[key] || ctx.Err() != nil {
		return
	}
	s.busy[key] = true
	s.work.Go(func() {
		if err := f(); err != nil && ctx.Err() == nil {
			s.c.Log.Warn("load balancing step", "step", key, "err", err)
			select {
			case <-ctx.Done():
			case <-s.c.Clock.After(calm):
			}
		}
		s.busyMu.Lock()
		delete(s.busy, key)
		s.busyMu.Unlock()
	})
}

// serve gives a VPC's balancer its configuration when it changed.
func (s *Service) serve(ctx context.Context, vpc string) error {
	unlock, err := s.rounds.lock(ctx, vpc)
	if err != nil {
		return err
	}
	defer unlock()
	var c balancer.Config
	var fresh []string
	s.c.DB.View(func(tx *state.Tx) { c, fresh = s.render(tx, vpc) })
	s.applyMu.Lock()
	last, had := s.applied[vpc]
	s.applyMu.Unlock()
	switch {
	case len(c.Frontends) == 0 && had:
		if err := s.c.Balancer.Remove(ctx, vpc); err != nil {
			return fmt.Errorf("remove the balancer of %s: %w", vpc, err)
		}
		s.applyMu.Lock()
		delete(s.applied, vpc)
		s.applyMu.Unlock()
	case len(c.Frontends) > 0 && !(had && reflect.DeepEqual(last, c)):
		if err := s.c.Balancer.Apply(ctx, c); err != nil {
			return fmt.Errorf("configure the balancer of %s: %w", vpc, err)
		}
		s.applyMu.Lock()
		s.applied[vpc] = c
		s.applyMu.Unlock()
	}
	if len(fresh) == 0 {
		return nil
	}
	return s.c.DB.Update(func(tx *state.Tx) error {
		for _, arn := range fresh {
			if b, ok := s.balancers.Get(tx, arn); ok && !b.Active && !b.Deleting {
				b.Active = true
				s.balancers.Put(tx, arn, b)
			}
		}
		return nil
	})
}

// settle makes a load balancer's requests go the new way before the operation
// that said so is answered: who switches traffic and then deletes what served
// must not lose requests in between. What fails here the loop tries again.
func (s *Service) settle(ctx context.Context, balancer string) {
	vpc := ""
	s.c.DB.View(func(tx *state.Tx) {
		if b, ok := s.balancers.Get(tx, balancer); ok {
			vpc = b.VPC
		}
	})
	if vpc == "" {
		return
	}
	if err := s.serve(s.internal(ctx), vpc); err != nil {
		s.c.Log.Warn("a change is not in force yet", "load_balancer", balancer, "err", err)
	}
}

// render is all that a VPC's balancer does, in a fixed order; fresh are the
// load balancers that become active with it.
func (s *Service) render(tx *state.Tx, vpc string) (c balancer.Config, fresh []string) {
	c.VPC = vpc
	lbs := map[string]loadBalancer{}
	for arn, b := range s.balancers.All(tx) {
		if b.VPC != vpc || b.Deleting || len(b.Interfaces) == 0 || len(b.Interfaces) < len(b.Subnets) && !b.Active {
			continue
		}
		lbs[arn] = b
		if !b.Active {
			fresh = append(fresh, arn)
		}
	}
	rules := map[string][]rule{}
	for _, r := range s.rules.All(tx) {
		rules[r.Listener] = append(rules[r.Listener], r)
	}
	pools := map[string]targetGroup{}
	for arn, l := range s.listeners.All(tx) {
		b, ok := lbs[l.LB]
		if !ok {
			continue
		}
		f := balancer.Frontend{HTTP: l.Protocol == "HTTP", Default: s.action(tx, l.Actions, pools)}
		if n, err := strconv.Atoi(withDefaults(balancerDefaults(b.Type), b.Attributes)["idle_timeout.timeout_seconds"]); err == nil {
			f.Idle = time.Duration(n) * time.Second
		}
		list := rules[arn]
		slices.SortFunc(list, func(a, b rule) int { return int(a.Priority - b.Priority) })
		for _, r := range list {
			br := balancer.Rule{Action: s.action(tx, r.Actions, pools)}
			for _, cond := range r.Conditions {
				if cond.Field == "host-header" {
					br.Hosts = patterns(cond)
				} else {
					br.Paths = patterns(cond)
				}
			}
			f.Rules = append(f.Rules, br)
		}
		for i, n := range b.Interfaces {
			f.ID = fmt.Sprintf("%s-%s-%d", b.Name, tail(arn), i)
			f.Address = netip.AddrPortFrom(n.IP, uint16(l.Port))
			c.Frontends = append(c.Frontends, f)
		}
	}
	for _, g := range s.groups.All(tx) {
		if _, ok := pools[g.ARN]; ok {
			c.Pools = append(c.Pools, poolOf(g))
		}
	}
	return c, fresh
}

func (s *Service) action(tx *state.Tx, actions []*api.Action, pools map[string]targetGroup) balancer.Action {
	var out balancer.Action
	for _, a := range actions {
		if f := a.FixedResponseConfig; a.Type == "fixed-response" && f != nil {
			out.Status, _ = strconv.Atoi(f.StatusCode) // checked when it was set
			out.Body, out.Type = f.MessageBody, f.ContentType
			continue
		}
		list, _ := shares(a)
		for _, t := range list {
			g, ok := s.groups.Get(tx, t.TargetGroupArn)
			if !ok {
				continue
			}
			pools[g.ARN] = g
			w := 1
			if t.Weight != nil {
				w = int(*t.Weight)
			}
			out.Forward = append(out.Forward, balancer.Weighted{Pool: g.pool(), Weight: w})
		}
	}
	return out
}

func poolOf(g targetGroup) balancer.Pool {
	p := balancer.Pool{ID: g.pool(), HTTP: g.Protocol == "HTTP", Check: balancer.Check{
		Path: g.Check.Path, Status: g.Check.Matcher, Interval: time.Duration(g.Check.Interval) * time.Second,
		Timeout: time.Duration(g.Check.Timeout) * time.Second, Rise: int(g.Check.Healthy), Fall: int(g.Check.Unfit),
	}}
	if n, err := strconv.Atoi(g.Check.Port); err == nil {
		p.Check.Port = n
	}
	if n, err := strconv.Atoi(withDefaults(groupDefaults, g.Attributes)["deregistration_delay.timeout_seconds"]); err == nil {
		p.Drain = time.Duration(n) * time.Second
	}
	for _, t := range g.Targets {
		if t.Off != "" {
			continue
		}
		p.Servers = append(p.Servers, balancer.Server{ID: t.server(), Address: netip.AddrPortFrom(t.IP, uint16(t.Port)), Draining: t.State == stDraining})
	}
	slices.SortFunc(p.Servers, func(a, b balancer.Server) int { return a.Address.Compare(b.Address) })
	return p
}
