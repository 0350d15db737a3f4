package autoscaling

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// observed is what the rest of the region says of a group's instances.
type observed struct {
	// EC2 has a key for every instance that was asked for; "" = unknown to EC2.
	EC2 map[string]machine
	// Targets has a key for every target group that was asked for, with the
	// state of each instance in it; an absent instance is not registered.
	Targets map[string]map[string]string
}

// machine is an instance as EC2 describes it.
type machine struct{ State, Reason string }

func (m machine) ended() bool {
	return m.State == "" || m.State == "shutting-down" || m.State == "terminated"
}

func (m machine) down() bool { return m.ended() || m.State == "stopping" || m.State == "stopped" }

// gone says that nothing of the instance is left in EC2.
func (m machine) gone() bool { return m.State == "" || m.State == "terminated" }

// verb is what an action does.
type verb string

const (
	wantWait  verb = "wait"    // Pending or Terminating → its :Wait, with the group's hooks
	wantDrop  verb = "drop"    // some hooks have timed out with CONTINUE
	wantEnter verb = "enter"   // → InService
	wantSick  verb = "sick"    // mark Unhealthy
	wantFail  verb = "fail"    // the launch has failed: → Terminating, its activity ends
	wantEnd   verb = "end"     // take out of service: → Terminating
	wantKill  verb = "kill"    // → Terminating:Proceed
	wantStand verb = "standby" // EnteringStandby → Standby
	wantFree  verb = "detach"  // Detaching → out of the group
	wantGone  verb = "gone"    // terminated: out of the group
	wantMore  verb = "launch"  // store an intent to launch
	wantCalm  verb = "calm"    // no surplus any more
	wantVoid  verb = "void"    // remove the group
	wantClear verb = "clear"   // the detached target groups hold nobody any more
)

// action is one decision; which fields matter depends on the verb.
type action struct {
	Verb    verb
	ID      string // of the instance
	Cause   string // for the activity
	Message string // why it failed
	Tokens  []string
	Place   place
	Count   int
	Replace bool // the launch replaces unhealthy instances
	Surplus bool // the launch balances zones
	Gone    bool // EC2 has ended the instance already
	Status  string
}

// plan decides what a group does now. It looks at nothing else and changes nothing.
func plan(g group, ins []instance, o observed, now time.Time) []action {
	p := planner{g: g, ins: slices.Clone(ins), o: o, now: now}
	for i := range p.ins {
		p.step(&p.ins[i])
	}
	if g.Deleting {
		p.empty()
	} else {
		p.capacity()
	}
	p.detached()
	return p.out
}

type planner struct {
	g   group
	ins []instance
	o   observed
	now time.Time
	out []action
}

func (p *planner) do(a action) { p.out = append(p.out, a) }

// step moves one instance along its lifecycle.
func (p *planner) step(in *instance) {
	m, known := p.o.EC2[in.ID]
	down := known && m.down()
	if p.g.Deleting && in.State != terminatingProceed {
		in.State = terminatingProceed
		p.do(action{Verb: wantKill, ID: in.ID, Gone: known && m.ended(),
			Cause: fmt.Sprintf("%s  At %s an instance was taken out of service in response to a difference between desired and actual capacity, shrinking the capacity from %d to 0.", p.g.Note, stamp(p.now), len(p.ins))})
		return
	}
	switch in.State {
	case pending, pendingWait, pendingProceed:
		p.stepLaunch(in, m, known, down)
	case inService:
		p.stepService(in, m, down)
	case terminating, enteringStandby, detaching:
		if !in.Gone && !(known && m.ended()) && !p.drained(in) {
			return
		}
		switch {
		case in.State == enteringStandby:
			in.State = standby
			p.do(action{Verb: wantStand, ID: in.ID})
		case in.State == detaching:
			p.do(action{Verb: wantFree, ID: in.ID})
		case len(p.g.hooksFor(terminatingHook)) > 0 && !in.NoHooks:
			in.State = terminatingWait
			p.do(action{Verb: wantWait, ID: in.ID})
		default:
			in.State = terminatingProceed
			p.do(action{Verb: wantKill, ID: in.ID})
		}
	case terminatingWait:
		over, abandoned := overdue(in.Waits, p.now)
		switch {
		case len(over) == len(in.Waits) || abandoned != nil:
			in.State = terminatingProceed
			p.do(action{Verb: wantKill, ID: in.ID})
		case len(over) > 0:
			p.do(action{Verb: wantDrop, ID: in.ID, Tokens: over})
		}
	case terminatingProceed:
		if known && m.gone() && len(in.toDrain()) == 0 {
			p.do(action{Verb: wantGone, ID: in.ID})
		}
	}
}

func (p *planner) stepLaunch(in *instance, m machine, known, down bool) {
	if down {
		why := m.Reason
		if why == "" {
			why = "the instance is " + m.State
		}
		if m.State == "" {
			why = "the instance is unknown to EC2"
		}
		p.fail(in, m.ended(), "Instance became unhealthy while waiting for instance to be in InService state. Termination Reason: "+why, "Failed")
		return
	}
	switch in.State {
	case pending:
		if !known || m.State != "running" {
			return
		}
		for _, h := range p.g.hooksFor(launchingHook) {
			if !in.NoHooks && !slices.Contains(in.Done, h.Name) {
				in.State = pendingWait
				p.do(action{Verb: wantWait, ID: in.ID})
				return
			}
		}
	case pendingWait:
		over, abandoned := overdue(in.Waits, p.now)
		if abandoned != nil {
			p.fail(in, false, abandonedMessage(abandoned.Token, "Heartbeat Timeout"), "Cancelled")
			return
		}
		if len(over) < len(in.Waits) {
			if len(over) > 0 {
				p.do(action{Verb: wantDrop, ID: in.ID, Tokens: over})
			}
			return
		}
	}
	in.State = inService
	p.do(action{Verb: wantEnter, ID: in.ID})
}

func (p *planner) fail(in *instance, gone bool, message, status string) {
	in.State = terminating
	in.Gone = gone
	p.do(action{Verb: wantFail, ID: in.ID, Message: message, Status: status, Gone: gone,
		Cause: fmt.Sprintf("At %s an instance was taken out of service because its launch failed.", stamp(p.now))})
}

func abandonedMessage(token, why string) string {
	return "Instance failed to complete user's Lifecycle Action: Lifecycle Action with token " + token + " was abandoned: " + why
}

func (p *planner) stepService(in *instance, m machine, down bool) {
	if in.Health == healthy && !p.g.suspended("HealthCheck") {
		switch {
		case down:
			in.Health = unhealthy
			in.Sick = "an EC2 health check indicating it has been terminated or stopped"
		case strings.Contains(p.g.HealthCheckType, "ELB") && !p.now.Before(in.Entered.Add(p.g.Grace)) && p.elbUnhealthy(in):
			in.Health = unhealthy
			in.Sick = "an ELB system health check failure"
		}
		if in.Health == unhealthy {
			p.do(action{Verb: wantSick, ID: in.ID, Message: in.Sick})
		}
	}
	if in.Health == unhealthy && !p.g.suspended("ReplaceUnhealthy") && !p.g.suspended("Terminate") {
		in.State = terminating
		p.g.Replace++
		p.do(action{Verb: wantEnd, ID: in.ID, Gone: down && m.ended(), Replace: true,
			Cause: fmt.Sprintf("At %s an instance was taken out of service in response to %s.", stamp(p.now), in.Sick)})
	}
}

func (p *planner) elbUnhealthy(in *instance) bool {
	for _, tg := range p.g.TargetGroups {
		if p.o.Targets[tg.ARN][in.ID] == "unhealthy" && slices.Contains(in.Registered, tg.ARN) {
			return true
		}
	}
	return false
}

// drained says whether every target group has let the instance go.
func (p *planner) drained(in *instance) bool {
	if len(in.toDrain()) > 0 {
		return false
	}
	for _, arn := range in.Registered {
		tg, asked := p.o.Targets[arn]
		if st := tg[in.ID]; !asked || st != "" && st != "unused" {
			return false
		}
	}
	return true
}

// detached tells when target groups that were detached hold nobody any more.
func (p *planner) detached() {
	for _, arn := range p.g.DetachTargets {
		held := false
		for i := range p.ins {
			held = held || slices.Contains(p.ins[i].Registered, arn)
		}
		if !held {
			p.do(action{Verb: wantClear, ID: arn})
		}
	}
}

// empty finishes the deletion of a group once nothing of it is left.
func (p *planner) empty() {
	left := len(p.ins) + len(p.g.Launches)
	for _, a := range p.out {
		if a.Verb == wantGone || a.Verb == wantFree {
			left--
		}
	}
	if left == 0 {
		p.do(action{Verb: wantVoid})
	}
}

// overdue returns the tokens whose time is over, and the first that abandons.
func overdue(ws []wait, now time.Time) (tokens []string, abandoned *wait) {
	for i, w := range ws {
		if now.Before(w.Until) && now.Before(w.Last) {
			continue
		}
		tokens = append(tokens, w.Token)
		if w.Default != resultContinue && abandoned == nil {
			abandoned = &ws[i]
		}
	}
	return tokens, abandoned
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// due is when plan should look again though nothing has changed.
func due(g group, ins []instance, now time.Time) time.Time {
	next := now.Add(time.Hour)
	at := func(t time.Time) {
		if t.After(now) && t.Before(next) {
			next = t
		}
	}
	at(g.NotUntil)
	for _, t := range g.Blocked {
		at(t)
	}
	for i := range ins {
		in := &ins[i]
		for _, w := range in.Waits {
			at(w.Until)
			at(w.Last)
		}
		if in.State == inService {
			at(in.Entered.Add(g.Grace))
			if g.MaxLifetime > 0 {
				at(in.Launched.Add(g.MaxLifetime))
			}
		}
	}
	return next
}
