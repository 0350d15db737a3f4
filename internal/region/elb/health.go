package elb

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/balancer"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// mirror takes the balancer's health over into the target states; only real
// changes are written.
func (s *Service) mirror(ctx context.Context, vpc string) error {
	s.applyMu.Lock()
	c, ok := s.applied[vpc]
	s.applyMu.Unlock()
	if !ok || len(c.Frontends) == 0 {
		return nil
	}
	told := map[string]map[string]bool{} // servers that the balancer knows to be draining
	for _, p := range c.Pools {
		told[p.ID] = map[string]bool{}
		for _, sv := range p.Servers {
			if sv.Draining {
				told[p.ID][sv.ID] = true
			}
		}
	}
	list, err := s.c.Balancer.Health(ctx, vpc)
	if err != nil {
		// A balancer that does not answer may be dead. What is applied is then
		// unknown, and the next round applies it again, which starts one.
		s.applyMu.Lock()
		s.applied[vpc] = balancer.Config{VPC: vpc}
		s.applyMu.Unlock()
		return fmt.Errorf("health of %s: %w", vpc, err)
	}
	health := map[string]map[string]balancer.ServerHealth{}
	for _, h := range list {
		if health[h.Pool] == nil {
			health[h.Pool] = map[string]balancer.ServerHealth{}
		}
		health[h.Pool][h.Server] = h
	}
	now := s.now()
	return s.c.DB.Update(func(tx *state.Tx) error {
		for arn, g := range s.groups.All(tx) {
			if told[g.pool()] == nil {
				continue
			}
			if next, changed := reflectHealth(g.Targets, health[g.pool()], told[g.pool()], now); changed {
				g.Targets = next
				s.groups.Put(tx, arn, g)
			}
		}
		return nil
	})
}

// reflectHealth is the next state of targets. A draining target goes when its
// last request has ended, as on AWS, or when its time is over.
func reflectHealth(list []target, health map[string]balancer.ServerHealth, told map[string]bool, now time.Time) ([]target, bool) {
	var out []target
	changed := false
	for _, t := range list {
		h, known := health[t.server()]
		if t.State == stDraining {
			if !now.Before(t.Until) || told[t.server()] && (!known || h.Sessions == 0) {
				changed = true
				continue
			}
			out = append(out, t)
			continue
		}
		old := t
		if known && t.Off == "" {
			switch h.Health {
			case balancer.Healthy:
				t.State, t.Detail = stHealthy, ""
			case balancer.Unhealthy:
				t.State, t.Detail = stUnhealthy, h.Detail
			case balancer.Initial:
				t.State, t.Detail = stInitial, ""
			}
		}
		changed = changed || t != old
		out = append(out, t)
	}
	return out, changed
}

// drainUnused ends the draining of targets that no balancer serves any more.
func (s *Service) drainUnused() error {
	now := s.now()
	return s.c.DB.Update(func(tx *state.Tx) error {
		var used map[string][]string
		for arn, g := range s.groups.All(tx) {
			if !slices.ContainsFunc(g.Targets, func(t target) bool { return t.State == stDraining }) {
				continue
			}
			if used == nil {
				used = s.balancersOf(tx)
			}
			n := len(g.Targets)
			unused := len(used[arn]) == 0
			g.Targets = slices.DeleteFunc(slices.Clone(g.Targets), func(t target) bool {
				return t.State == stDraining && (unused || !now.Before(t.Until))
			})
			if len(g.Targets) < n {
				s.groups.Put(tx, arn, g)
			}
		}
		return nil
	})
}

// findDead asks EC2, with one call, for instances that do not run: those that
// ended are deregistered, as AWS does, those that are stopped are not used.
func (s *Service) findDead(ctx context.Context) error {
	var ids []string
	off := false
	s.c.DB.View(func(tx *state.Tx) {
		for _, g := range s.groups.All(tx) {
			for _, t := range g.Targets {
				off = off || t.Off != ""
				if g.Type == "instance" {
					ids = append(ids, t.ID)
				}
			}
		}
	})
	slices.Sort(ids)
	states := map[string]string{}
	for some := range slices.Chunk(slices.Compact(ids), 200) { // most values of one filter
		res, err := wire.Call[ec2api.DescribeInstancesResult](ctx, s.c.Bus, "ec2", "DescribeInstances", &ec2api.DescribeInstancesRequest{Filters: []*ec2api.Filter{
			{Name: "instance-id", Values: some},
			{Name: "instance-state-name", Values: []string{"shutting-down", "terminated", "stopping", "stopped"}}}})
		if err != nil {
			return fmt.Errorf("look for instances that ended: %w", err)
		}
		for _, r := range res.Reservations {
			for _, e := range r.Instances {
				if e.State != nil {
					states[e.InstanceId] = e.State.Name
				}
			}
		}
	}
	if len(states) == 0 && !off {
		return nil
	}
	return s.c.DB.Update(func(tx *state.Tx) error {
		for arn, g := range s.groups.All(tx) {
			if g.Type != "instance" {
				continue
			}
			var keep []target
			changed := false
			for _, t := range g.Targets {
				st := states[t.ID]
				if st == "shutting-down" || st == "terminated" {
					changed = true
					continue
				}
				if t.Off != st {
					t.Off, t.State, t.Detail, changed = st, stInitial, "", true
				}
				keep = append(keep, t)
			}
			if changed {
				g.Targets = keep
				s.groups.Put(tx, arn, g)
			}
		}
		return nil
	})
}
