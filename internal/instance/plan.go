package instance

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Policy bounds what is done to a fleet.
type Policy struct {
	Size    int           // instances that shall serve
	Takes   time.Duration // a replacement, from its launch to its service
	Grace   time.Duration // an instance may fail so long before it is replaced
	Touched bool          // touched instances are replaced; otherwise only reported
	Hold    string        // nothing voluntary is done now, and why
}

// Member is an instance as its group and its target group see it.
type Member struct {
	Instance
	Lifecycle string // Auto Scaling's word: Pending:Wait, InService, Standby, Terminating, ...
	Healthy   bool   // in service, and its target group says so too
}

// View is a fleet at one moment.
type View struct {
	Desired, Min, Max int
	Members           []Member
	// Lost are the zones where launches are refused and nothing runs any more,
	// Zones is how many the fleet is spread over; 0 = not known.
	Lost  []string
	Zones int
}

// Verb is what an action does.
type Verb string

const (
	Mark      Verb = "mark"      // decide that it is replaced: Cause and Reason go to its record
	Desire    Verb = "desire"    // set the group's desired capacity to N
	End       Verb = "end"       // end it; Shrink says whether the group shrinks by it
	StandBy   Verb = "stand-by"  // take it out of service, with the group shrinking by it
	Terminate Verb = "terminate" // end one that is out of service
)

// Action is one thing to do, with its reason.
type Action struct {
	Verb   Verb
	ID     string
	N      int
	Cause  Cause
	Shrink bool
	Reason string
}

// Wait is why something that should be done is not.
type Wait struct{ Rule, On, Message, Action string }

// Decision is what to do now, and what has to wait.
type Decision struct {
	Actions []Action
	Waits   []Wait
}

// together is how many instances that fail at once are no accident any more.
func together(size int) int { return max(3, (size+4)/5) }

// limit is how many are replaced at once.
func limit(size int) int { return max(1, (size+9)/10) }

// backoff is how long a replacement waits whose ancestors failed one after
// another, too.
func backoff(failures int) time.Duration {
	if failures <= 0 {
		return 0
	}
	return min(30*time.Second<<min(failures-1, 10), 15*time.Minute)
}

// Plan decides what a fleet needs now. Those that leave go when their
// replacements serve, so that the fleet never falls below its size by our doing;
// those that are dead are the group's to replace. It is pure.
func Plan(p Policy, v View, now time.Time) Decision {
	pl := planner{p: p, v: v, now: now}
	for _, m := range v.Members {
		if m.Lifecycle == "InService" {
			pl.running++
		}
		switch {
		case m.Lifecycle == "Standby":
			if m.Keep == nil || !now.Before(m.Keep.Until) {
				pl.do(Action{Verb: Terminate, ID: m.ID, Cause: Released, Reason: "it was kept until now"})
			}
		case m.Lifecycle != "InService":
			if len(m.Lifecycle) >= 7 && m.Lifecycle[:7] == "Pending" {
				pl.coming++
			}
		case m.Leave != nil:
			pl.leaving = append(pl.leaving, m)
		case m.Healthy:
			pl.serving++
			pl.staying = append(pl.staying, m)
		default:
			pl.failing = append(pl.failing, m)
		}
	}
	pl.room = min(limit(p.Size), max(v.Max-p.Size, 0)) // of replacements at once
	if pl.room == 0 && v.Max > 0 {
		pl.tight = true
		pl.room = 1
	}
	pl.lost()
	pl.replaceFailing()
	pl.replaceWilling()
	pl.size()
	pl.end()
	return pl.out
}

type planner struct {
	p   Policy
	v   View
	now time.Time
	out Decision

	leaving, failing, staying []Member
	serving, coming, running  int // healthy and staying; not in service yet; in service
	room                      int
	floor                     int // so many serve at the least: the size, without what a lost zone had
	fresh                     []Member
	tight                     bool // the group's maximum leaves no room for a replacement beside what is there
}

func (p *planner) do(a Action) { p.out.Actions = append(p.out.Actions, a) }

func (p *planner) wait(rule, on, message, action string) {
	p.out.Waits = append(p.out.Waits, Wait{rule, on, message, action})
}

// lost lowers what is waited for by what a lost zone had: the others carry on,
// and those that replace come up there.
func (p *planner) lost() {
	p.floor = p.p.Size
	if len(p.v.Lost) == 0 || p.v.Zones <= len(p.v.Lost) {
		return
	}
	share := (p.p.Size + p.v.Zones - 1) / p.v.Zones
	p.floor = max(1, p.p.Size-share*len(p.v.Lost))
	p.room = 1 // one after the other, so that it is plain who serves in whose place
	p.wait("zone-lost", "zone/"+p.v.Lost[0], fmt.Sprintf("%s has no room and nothing runs there: %d of %d serve until it is back; the other zones carry on", strings.Join(p.v.Lost, ", "), p.serving, p.p.Size), "")
}

// mark decides that a member leaves, if there is room for one more. Those that
// fail do not wait for those that serve.
func (p *planner) mark(m Member, cause Cause, reason string) bool {
	n := 0
	for _, l := range p.leaving {
		if m.Healthy || !l.Healthy {
			n++
		}
	}
	if n >= p.room {
		return false
	}
	m.Leave = &Leave{Cause: cause, Why: reason, Since: p.now}
	p.leaving = append(p.leaving, m)
	p.do(Action{Verb: Mark, ID: m.ID, Cause: cause, Reason: reason})
	return true
}

// replaceFailing replaces those that fail: one by one when many fail together,
// since then the cause is hardly in them; none in a zone that fails as a whole.
func (p *planner) replaceFailing() {
	if len(p.failing) == 0 {
		return
	}
	zones := map[string]int{}
	all := map[string]int{}
	for _, m := range p.failing {
		zones[m.Zone]++
		all[m.Zone]++
	}
	for _, m := range p.staying {
		all[m.Zone]++
	}
	if len(zones) == 1 && len(all) > 1 {
		zone := p.failing[0].Zone
		if n := zones[zone]; n == all[zone] && n >= 3 {
			p.wait("zone-failing", "zone/"+zone, fmt.Sprintf("all %d instances in %s fail together and none elsewhere: the zone is left alone", n, zone), "")
			return
		}
	}
	if n := len(p.failing); n >= together(p.p.Size) {
		p.wait("instances-fail-together", "", fmt.Sprintf("%d of %d instances fail together: they are replaced one at a time, each when the one before serves", n, p.p.Size), "look at what they have in common: the image, the release, or what they depend on")
		p.room = min(p.room, 1)
	}
	slices.SortStableFunc(p.failing, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Failures, b.Failures), a.Failing.Compare(b.Failing))
	})
	for _, m := range p.failing {
		since := m.Failing
		if since.IsZero() {
			since = p.now
		}
		if p.now.Before(since.Add(p.p.Grace)) {
			continue
		}
		if at := since.Add(p.p.Grace + backoff(m.Failures)); p.now.Before(at) {
			p.wait("replacement-backs-off", "instance/"+m.Name(), fmt.Sprintf("%s fails as %d before it did; its replacement waits until %s", m.ID, m.Failures, at.UTC().Format("15:04:05")), "")
			continue
		}
		reason := m.Trouble
		if reason == "" {
			reason = "it fails its health check"
		}
		if !p.mark(m, Unhealthy, reason) {
			return
		}
	}
}

// replaceWilling replaces those that serve well and shall go all the same.
func (p *planner) replaceWilling() {
	var wants []Action
	byID := map[string]Member{}
	var old []Instance
	for _, m := range p.staying {
		byID[m.ID] = m
		switch {
		case m.Keep != nil:
			wants = append(wants, Action{ID: m.ID, Cause: Asked, Reason: because("it is kept for a look, asked by "+m.Keep.By, m.Keep.Why)})
		case m.Ask != nil:
			wants = append(wants, Action{ID: m.ID, Cause: Asked, Reason: because("asked by "+m.Ask.By, m.Ask.Why)})
		case m.Touch != nil && p.p.Touched:
			wants = append(wants, Action{ID: m.ID, Cause: Touched, Reason: touched(*m.Touch)})
		default:
			old = append(old, m.Instance)
		}
	}
	for _, i := range aged(old, p.room, p.p.Takes, p.now) {
		wants = append(wants, Action{ID: i.ID, Cause: Aged, Reason: "it is " + p.now.Sub(i.Launched).Round(time.Second).String() + " old"})
	}
	if len(wants) == 0 {
		return
	}
	if p.p.Hold != "" {
		p.wait("replacement-held", "", fmt.Sprintf("%d instances shall be replaced; %s", len(wants), p.p.Hold), "")
		return
	}
	if len(p.failing) > 0 || p.serving < p.floor-len(p.leaving) {
		p.wait("fleet-not-whole", "", fmt.Sprintf("%d instances shall be replaced when all serve again", len(wants)), "")
		return
	}
	if p.tight && p.p.Size == 1 {
		p.wait("no-room", "", "the only instance shall be replaced, and the group's maximum leaves no room for another beside it", "let the template's MaxSize be the parameter MaxSize")
		return
	}
	for _, w := range wants {
		m := byID[w.ID]
		if !p.mark(m, w.Cause, w.Reason) {
			return
		}
		p.serving--
	}
}

func touched(t Touch) string {
	s := "it was touched"
	if t.By != "" {
		s += " by " + t.By
	}
	if len(t.What) > 0 {
		s += ": " + t.What[0]
		if n := len(t.What) - 1; n > 0 {
			s += fmt.Sprintf(" and %d more", n)
		}
	}
	return s
}

// size sets the capacity for what stays and what comes for those that leave.
func (p *planner) size() {
	want := p.p.Size + len(p.leaving)
	if len(p.leaving) > 0 {
		// The lost zones may be given the first ones in the group's mind, which
		// are then not launched.
		want += len(p.v.Lost)
	}
	if p.tight {
		want = p.p.Size
	}
	want = max(min(want, p.v.Max), p.v.Min)
	switch {
	case p.v.Desired < want:
		p.do(Action{Verb: Desire, N: want, Reason: fmt.Sprintf("%d instances are being replaced", len(p.leaving))})
	case p.v.Desired > want && p.serving > p.p.Size && p.coming == 0:
		// One that left ended by itself, and the group has replaced it too.
		over := min(p.v.Desired-want, p.serving-p.p.Size)
		slices.SortStableFunc(p.staying, func(a, b Member) int { return a.Launched.Compare(b.Launched) })
		for _, m := range p.staying {
			if over == 0 {
				return
			}
			if m.Keep == nil {
				p.do(Action{Verb: End, ID: m.ID, Cause: Aged, Shrink: true, Reason: "it is one more than are wanted"})
				p.serving--
				over--
			}
		}
	}
}

// end ends those that leave and are not needed any more.
func (p *planner) end() {
	healthy, running := p.serving, p.running
	if p.floor < p.p.Size {
		p.fresh = slices.Clone(p.staying)
	}
	for _, m := range p.leaving {
		if m.Healthy {
			healthy++
		}
	}
	desired := p.v.Desired
	for _, m := range p.leaving {
		verb := End
		if m.Keep != nil {
			verb = StandBy
		}
		// One that fails may serve all the same, whatever its health check
		// says: as many as shall serve go on running.
		goes := running > p.floor
		if m.Healthy {
			goes = healthy > p.floor
		}
		if p.floor < p.p.Size {
			goes = goes && p.replaced(m)
		}
		switch {
		case goes:
			running--
			if m.Healthy {
				healthy--
			}
			shrink := desired > p.p.Size && desired > p.v.Min
			if shrink {
				desired--
			}
			p.do(Action{Verb: verb, ID: m.ID, Cause: m.Leave.Cause, Shrink: shrink, Reason: m.Leave.Why})
		case p.tight && (m.Healthy && healthy >= p.p.Size || !m.Healthy && running >= p.floor):
			// There is no room for both: it goes first, one at a time, when
			// what came for the one before runs.
			p.do(Action{Verb: verb, ID: m.ID, Cause: m.Leave.Cause, Reason: m.Leave.Why})
			return
		}
	}
}

// because is a sentence with the reason that a person gave, if any.
func because(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}

// replaced tells whether one that was launched since then serves in a member's
// place: with a lost zone the number that serves does not tell.
func (p *planner) replaced(m Member) bool {
	i := slices.IndexFunc(p.fresh, func(f Member) bool { return f.Launched.After(m.Leave.Since) || f.Launched.Equal(m.Leave.Since) })
	if i < 0 {
		return false
	}
	p.fresh = slices.Delete(p.fresh, i, i+1)
	return true
}
