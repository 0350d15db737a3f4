package autoscaling

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/state"
)

// apply writes a group's decisions down. Nothing is done yet: what the records
// now say is done by the effects.
func (s *Service) apply(tx *state.Tx, g group, acts []action, now time.Time) {
	before, answered := g, false
	for _, a := range acts {
		answered = answered || a.Verb == wantMore || a.Verb == wantEnd && !a.Replace
		switch a.Verb {
		case wantMore:
			s.intend(&g, a, now)
		case wantCalm:
			g.Surplus = 0
		case wantClear:
			g.DetachTargets = without(g.DetachTargets, a.ID)
		case wantVoid:
			s.groups.Delete(tx, g.Name)
			return
		default:
			in, ok := s.instances.Get(tx, a.ID)
			if !ok || in.Group != g.Name {
				continue
			}
			s.move(tx, &g, in, a, now)
		}
	}
	if answered {
		g.Note = "" // the activities that follow from the request have it
	}
	if !same(before, g) {
		s.groups.Put(tx, g.Name, g)
	}
}

func same(a, b group) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && slices.Equal(x, y)
}

func (s *Service) intend(g *group, a action, now time.Time) {
	l := launch{Token: s.ids.UUID(), Place: a.Place, Count: a.Count, At: now, Cause: a.Cause, Protect: g.ProtectNew}
	for _, t := range g.Tags {
		if t.Propagate {
			l.Tags = append(l.Tags, t)
		}
	}
	g.Launches = append(slices.Clone(g.Launches), l)
	if a.Replace {
		g.Replace -= min(g.Replace, a.Count)
	}
	if a.Surplus {
		g.Surplus += a.Count
	}
}

// move applies an action to one instance and writes it.
func (s *Service) move(tx *state.Tx, g *group, in instance, a action, now time.Time) {
	switch a.Verb {
	case wantWait:
		s.beginWaits(tx, g, &in, now)
	case wantDrop:
		in.Waits = slices.DeleteFunc(slices.Clone(in.Waits), func(w wait) bool { return slices.Contains(a.Tokens, w.Token) })
	case wantEnter:
		in.State, in.Waits, in.Done, in.Entered = inService, nil, nil, now
		if g.suspended("AddToLoadBalancer") {
			for _, tg := range g.TargetGroups {
				in.Skip = with(in.Skip, tg.ARN)
			}
		}
		s.endActivity(tx, in.Activity, "Successful", "", now)
		in.Activity = ""
		g.Scaled = now
		g.Failures, g.NotUntil = 0, time.Time{}
		if _, ok := g.Blocked[in.Zone]; ok {
			g.Blocked = maps.Clone(g.Blocked)
			delete(g.Blocked, in.Zone)
		}
	case wantSick:
		in.Health, in.Sick = unhealthy, a.Message
	case wantFail:
		s.failLaunch(tx, g, &in, a, now)
	case wantEnd:
		if a.Replace {
			g.Replace++
		}
		s.takeOut(tx, g, &in, a.Cause, now)
		in.Gone = a.Gone
	case wantKill:
		if a.Cause != "" && !strings.HasPrefix(in.State, terminating) {
			s.endActivity(tx, in.Activity, "Cancelled", "", now)
			in.Activity = s.begin(tx, g, in.ID, "Terminating EC2 instance: "+in.ID, a.Cause, place{in.Zone, in.Subnet}, "InProgress", now)
		}
		s.progress(tx, in.Activity, "InProgress", 50)
		in.State, in.Waits = terminatingProceed, nil
		in.Gone = in.Gone || a.Gone
	case wantStand:
		in.State, in.Registered, in.Drained = standby, nil, nil
		s.endActivity(tx, in.Activity, "Successful", "", now)
		in.Activity = ""
	case wantFree, wantGone:
		s.endActivity(tx, in.Activity, "Successful", "", now)
		g.Scaled = now
		s.instances.Delete(tx, in.ID)
		return
	}
	s.instances.Put(tx, in.ID, in)
}

// failLaunch ends a launch that did not reach service and backs off.
func (s *Service) failLaunch(tx *state.Tx, g *group, in *instance, a action, now time.Time) {
	s.endActivity(tx, in.Activity, a.Status, a.Message, now)
	in.Activity = s.begin(tx, g, in.ID, "Terminating EC2 instance: "+in.ID, a.Cause, place{in.Zone, in.Subnet}, "InProgress", now)
	in.State, in.Waits, in.Done, in.NoHooks = terminating, nil, nil, true
	in.Health, in.Gone = unhealthy, a.Gone
	backOff(g, now)
}

// takeOut begins the termination of an instance.
func (s *Service) takeOut(tx *state.Tx, g *group, in *instance, cause string, now time.Time) {
	s.endActivity(tx, in.Activity, "Cancelled", "", now)
	status := "InProgress"
	if len(in.Registered) > 0 {
		status = "WaitingForELBConnectionDraining"
	}
	in.Activity = s.begin(tx, g, in.ID, "Terminating EC2 instance: "+in.ID, cause, place{in.Zone, in.Subnet}, status, now)
	in.State, in.Waits, in.Done, in.NoHooks = terminating, nil, nil, false
}

// beginWaits puts an instance into Pending:Wait or Terminating:Wait.
func (s *Service) beginWaits(tx *state.Tx, g *group, in *instance, now time.Time) {
	transition, st := launchingHook, pendingWait
	if in.State != pending {
		transition, st = terminatingHook, terminatingWait
	}
	in.State, in.Waits = st, nil
	for _, h := range g.hooksFor(transition) {
		if slices.Contains(in.Done, h.Name) {
			continue
		}
		in.Waits = append(in.Waits, wait{Hook: h.Name, Token: s.ids.UUID(), Default: h.Default, Beat: h.Heartbeat,
			Until: now.Add(h.Heartbeat), Last: now.Add(globalTimeout(h.Heartbeat))})
	}
	s.progress(tx, in.Activity, "MidLifecycleAction", 60)
}

// globalTimeout is how long an instance may wait however often the heartbeat
// is renewed: a hundred times, at most two days.
func globalTimeout(beat time.Duration) time.Duration { return min(100*beat, 48*time.Hour) }

const (
	firstBackOff = time.Second
	mostBackOff  = 5 * time.Minute
	zoneCooldown = 10 * time.Second
)

// backOff holds launches back after a failure. Failures of one attempt, such
// as forty instances of a bad image, count once.
func backOff(g *group, now time.Time) {
	if now.Before(g.NotUntil) {
		return
	}
	d := mostBackOff
	if g.Failures < 10 {
		d = min(mostBackOff, firstBackOff<<g.Failures)
	}
	g.Failures++
	g.NotUntil = now.Add(d)
}
