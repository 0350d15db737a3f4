package environment

import (
	"cmp"
	"fmt"
	"maps"
	"time"
)

// Action is the next thing to do for an environment.
type Action string

const (
	Wait          Action = "wait"        // a blocker says for what
	Generate      Action = "generate"    // make the generation that Next describes
	Route         Action = "route"       // set the listener's weights
	Begin         Action = "begin"       // the wanted generation is ready: begin to move traffic
	Step          Action = "step"        // this share was judged good: on to the next
	Resize        Action = "resize"      // let a generation grow or shrink to Size
	Switch        Action = "switch"      // the wanted generation has all traffic: it serves, the soak begins
	Settle        Action = "settle"      // the soak is over: there is no way back by a switch
	Revert        Action = "revert"      // the new generation is no good: decide to go back
	Return        Action = "return"      // all traffic is back
	Stay          Action = "stay"        // there is nothing left to go back to
	Supersede     Action = "supersede"   // the traffic has moved: end the old generations
	GiveUp        Action = "give-up"     // the wanted generation failed: end it, keep what serves
	Retire        Action = "retire"      // end the generations, the environment shall go
	EndTraffic    Action = "end-traffic" // no generation may be in the listener any more
	EndFoundation Action = "end-foundation"
	Finish        Action = "finish" // everything is gone
	Rest          Action = "rest"
)

// Decision is an action with its reason.
type Decision struct {
	Action  Action
	Number  int            // generation that it is about
	Reason  string         // for logs and for people
	Weights map[string]int // of Route: by target group's ARN
	Size    int            // of Resize
	Until   time.Time      // of Wait: when it is over at the latest, or by itself
	Rule    string         // of Wait: the blocker's; "" = the generation's launch
}

// Observed is what a plan needs to know beside the environment itself.
type Observed struct {
	Generations  []Generation   // all of the environment, oldest first
	Foundation   *Foundation    // its own or a shared one; nil = none (yet)
	Attached     map[string]int // weight by target group's ARN in the listener, nil = not read or none
	ListenerGone bool           // the listener is not there any more
	Verdict      Verdict        // on the generation that traffic moves to
	Now          time.Time
}

// drain is how long a generation that was left in a hurry may end its requests.
const drain = 30 * time.Second

// Plan decides the next step of an environment whose Next has nothing left to
// be resolved (Ready says so). It is pure: the same input gives the same
// decision, whatever was interrupted before.
func Plan(e Environment, o Observed) Decision {
	if e.Destroy {
		return planDestroy(e, o)
	}
	p := planner{e: e, o: o, listens: o.Attached != nil || o.ListenerGone}
	for i, g := range o.Generations {
		switch g.Number {
		case e.Want:
			p.want = &o.Generations[i]
		case e.Serving:
			p.serves = &o.Generations[i]
		}
		if e.Shift != nil && g.Number == e.Shift.From && g.Phase == Serving {
			p.from = &o.Generations[i]
		}
	}
	if e.Next != nil && e.Shift == nil {
		return p.generate()
	}
	if p.want == nil {
		return p.nothing()
	}
	// A foundation without a listener is fine: its instances take work from
	// elsewhere.
	if o.ListenerGone && (p.want.Phase == Pending || p.want.Phase == Launching || p.want.Phase == Serving) {
		return Decision{Action: Wait, Number: p.want.Number, Rule: "listener-gone", Reason: "its listener is not there any more; somebody deleted it"}
	}
	if e.Back != nil && e.Shift == nil && e.Serving != e.Want && p.serves != nil && p.serves.Phase == Serving && p.want.Phase == Serving {
		return Decision{Action: GiveUp, Number: p.want.Number, Reason: e.Back.Why} // it has no traffic yet
	}
	if e.Back != nil && (p.want.Phase == Serving || p.want.Phase == Failed) && (p.from == nil || e.Shift.Back || e.Shift.To != e.Want) {
		return Decision{Action: Stay, Number: p.want.Number, Reason: "what served before is not there any more"}
	}
	if e.Shift != nil && e.Shift.To == e.Want {
		return p.shift()
	}
	switch p.want.Phase {
	case Failed:
		return Decision{Action: GiveUp, Number: p.want.Number, Reason: p.want.Error}
	case Pending, Launching:
		return p.launching()
	case Serving:
		if e.Serving != p.want.Number {
			return Decision{Action: Begin, Number: p.want.Number, Reason: fmt.Sprintf("%d of %d healthy", p.want.Healthy, p.want.Size)}
		}
		return p.steady()
	}
	return Decision{Action: Rest, Number: p.want.Number, Reason: string(p.want.Phase)}
}

type planner struct {
	e       Environment
	o       Observed
	listens bool
	want    *Generation
	serves  *Generation // what serves, where it is not the wanted one
	from    *Generation // where traffic comes from, while it could go back there
}

// generate makes the next generation when what was before the present one ends:
// two may serve, not three.
func (p *planner) generate() Decision {
	var d Decision
	switch w := p.want; {
	case p.o.ListenerGone:
	case w == nil:
		d = p.nothing()
	case w.Phase == Serving && p.e.Serving == w.Number:
		d = p.steady()
	}
	if d.Action == Route || d.Action == Supersede {
		return d
	}
	if p.e.Next.Image != "" && p.e.Next.Release != "" {
		return Decision{Action: Generate, Number: next(p.e, p.o), Reason: "image and release are known"}
	}
	return Decision{Action: Wait, Reason: "image or release is not known yet"}
}

// nothing is wanted: what is left of a switch whose end somebody destroyed ends
// as well.
func (p *planner) nothing() Decision {
	for _, g := range p.o.Generations {
		if g.Phase == Gone || g.Phase == Terminating {
			continue
		}
		if len(p.o.Attached) > 0 {
			return Decision{Action: Route, Number: g.Number, Weights: map[string]int{}, Reason: "nothing serves"}
		}
		return Decision{Action: Supersede, Number: g.Number, Reason: "nothing wants it"}
	}
	return Decision{Action: Rest, Reason: "nothing was deployed yet"}
}

// launching: the wanted generation is made. Its targets are checked only when a
// listener has them.
func (p *planner) launching() Decision {
	if p.e.Back != nil {
		return Decision{Action: GiveUp, Number: p.want.Number, Reason: p.e.Back.Why}
	}
	if p.listens && len(p.want.TargetGroups) > 0 {
		weights := maps.Clone(p.o.Attached)
		if weights == nil {
			weights = map[string]int{}
		}
		if p.serves != nil && p.serves.Phase == Serving {
			weights = shares(p.serves, 100, nil)
		}
		for _, tg := range p.want.TargetGroups {
			weights[tg] = 0
		}
		if !maps.Equal(weights, p.o.Attached) {
			return Decision{Action: Route, Number: p.want.Number, Weights: weights, Reason: "its targets are checked only when a listener has them"}
		}
	}
	return Decision{Action: Wait, Number: p.want.Number, Reason: fmt.Sprintf("%d of %d healthy", p.want.Healthy, p.want.Size)}
}

// steady: the wanted generation serves, and nothing is on its way.
func (p *planner) steady() Decision {
	w := p.want
	if weights := shares(w, 100, nil); p.listens && !maps.Equal(weights, p.o.Attached) {
		return Decision{Action: Route, Number: w.Number, Weights: weights, Reason: fmt.Sprintf("generation %d has all the traffic", w.Number)}
	}
	if w.Size != w.Whole() {
		return Decision{Action: Resize, Number: w.Number, Size: w.Whole(), Reason: "it has all the traffic"}
	}
	for _, g := range p.o.Generations {
		if g.Number != w.Number && g.Phase != Gone && g.Phase != Terminating {
			return Decision{Action: Supersede, Number: g.Number, Reason: fmt.Sprintf("generation %d serves", w.Number)}
		}
	}
	return Decision{Action: Rest, Number: w.Number, Reason: string(w.Phase)}
}

// shift moves traffic from one generation to the next, or back.
func (p *planner) shift() Decision {
	s, w := p.e.Shift, p.want
	if w.Phase != Serving && p.from == nil {
		if w.Phase == Failed {
			return Decision{Action: GiveUp, Number: w.Number, Reason: w.Error}
		}
		return Decision{Action: Rest, Number: w.Number, Reason: string(w.Phase)}
	}
	if p.e.Back != nil && p.from != nil && !s.Back {
		return p.back()
	}
	steps := p.e.Strategy.steps()
	share := 100
	if p.from != nil && !s.Back {
		share = steps[min(s.Step, len(steps)-1)]
	}
	bad := p.o.Verdict.Bad
	switch {
	case w.Phase == Failed:
		bad = cmp.Or(w.Error, "it failed")
	case p.from != nil && !s.Since.IsZero() && w.Healthy*2 < w.Size && w.Healthy < p.from.Healthy:
		bad = fmt.Sprintf("only %d of its %d instances are healthy any more", w.Healthy, w.Size)
	case p.e.Strategy.Replace == Rolling && p.growing() && s.Since.IsZero() && w.Size >= part(w.Whole(), share) && p.o.Now.After(w.Deadline):
		// Before it was let grow for this step, its deadline is that of the one before.
		bad = fmt.Sprintf("only %d of %d instances were healthy when its time was over", w.Healthy, w.Size)
	}
	if bad != "" && p.from != nil && !s.Back {
		if p.e.Strategy.Manual && w.Phase != Failed {
			return Decision{Action: Wait, Number: w.Number, Rule: "analysis-failed", Reason: bad}
		}
		return Decision{Action: Revert, Number: w.Number, Reason: bad}
	}
	if p.e.Strategy.Replace == Rolling && !s.Back {
		if d, ok := p.grow(share); ok {
			return d
		}
	}
	if weights := shares(w, share, p.from); p.listens && !maps.Equal(weights, p.o.Attached) || s.Since.IsZero() {
		return Decision{Action: Route, Number: w.Number, Weights: weights, Reason: fmt.Sprintf("%d %% of the traffic", share)}
	}
	if share < 100 && p.listens {
		return p.judge(share)
	}
	if p.e.Serving != w.Number || s.Soak.IsZero() {
		return Decision{Action: Switch, Number: w.Number, Reason: "it has all the traffic"}
	}
	if p.from != nil && p.o.Now.Before(s.Soak) {
		reason := fmt.Sprintf("generation %d serves and soaks; generation %d is kept to go back to", w.Number, p.from.Number)
		if s.Back {
			reason = fmt.Sprintf("generation %d serves again; generation %d ends its requests", w.Number, p.from.Number)
		}
		if n := p.o.Verdict.Note; n != "" {
			reason += "; " + n
		}
		return Decision{Action: Wait, Number: w.Number, Rule: "soak", Until: s.Soak, Reason: reason}
	}
	if p.from != nil && !s.Back && p.o.Verdict.Waiting != "" {
		return Decision{Action: Wait, Number: w.Number, Rule: "analysis", Reason: fmt.Sprintf("generation %d has soaked; %s", w.Number, p.o.Verdict.Waiting)}
	}
	return Decision{Action: Settle, Number: w.Number, Reason: "its soak is over"}
}

func (p *planner) growing() bool { return p.want.Healthy < p.want.Size }

// grow lets the new generation have the instances for its share before it has
// the traffic, after the old one shrank by those that the step before took over.
func (p *planner) grow(share int) (Decision, bool) {
	w, s := p.want, p.e.Shift
	steps := p.e.Strategy.steps()
	// What launches nothing any more could not grow again to go back to.
	if i := min(s.Step, len(steps)-1); p.from != nil && i > 0 && p.from.Suspended == "" {
		carries := min(p.from.Whole()*steps[i-1]/100, w.Healthy) // some may have died since
		if left := max(1, p.from.Whole()-carries); left < p.from.Size {
			return Decision{Action: Resize, Number: p.from.Number, Size: left, Reason: fmt.Sprintf("generation %d carries %d %% of the traffic", w.Number, steps[i-1])}, true
		}
	}
	n := part(w.Whole(), share)
	if f := p.from; f != nil && w.Size < n && f.Healthy > f.Size && p.o.Now.Before(f.Deadline) {
		return Decision{Action: Wait, Number: f.Number, Rule: "generation-shrinking", Until: f.Deadline, Reason: fmt.Sprintf("generation %d shrinks from %d to %d before the next ones are launched", f.Number, f.Healthy, f.Size)}, true
	}
	if w.Size < n {
		return Decision{Action: Resize, Number: w.Number, Size: n, Reason: fmt.Sprintf("it shall carry %d %% of the traffic", share)}, true
	}
	if p.growing() && s.Since.IsZero() && p.from != nil {
		return Decision{Action: Wait, Number: w.Number, Rule: "generation-growing", Until: w.Deadline, Reason: fmt.Sprintf("%d of %d healthy", w.Healthy, w.Size)}, true
	}
	return Decision{}, false
}

// judge waits until a step has lasted and nothing speaks against the next.
func (p *planner) judge(share int) Decision {
	s := p.e.Shift
	over := s.Since.Add(p.e.Strategy.Pause)
	reason := fmt.Sprintf("generation %d has %d %% of the traffic", p.want.Number, share)
	if s.Note != "" {
		reason += "; " + s.Note
	}
	if n := p.o.Verdict.Note; n != "" {
		reason += "; " + n
	}
	if p.o.Now.Before(over) {
		return Decision{Action: Wait, Number: p.want.Number, Rule: "traffic-step", Until: over, Reason: reason}
	}
	if p.o.Verdict.Waiting != "" {
		return Decision{Action: Wait, Number: p.want.Number, Rule: "analysis", Reason: reason + "; " + p.o.Verdict.Waiting}
	}
	if p.e.Strategy.Replace == Rolling && p.growing() { // what it carries is taken from the old one
		return Decision{Action: Wait, Number: p.want.Number, Rule: "generation-growing", Reason: fmt.Sprintf("%s; %d of %d healthy", reason, p.want.Healthy, p.want.Size)}
	}
	return Decision{Action: Step, Number: p.want.Number, Reason: reason}
}

// back gives the traffic to where it came from: at once where that is whole,
// and else as fast as it grows.
func (p *planner) back() Decision {
	f := p.from
	if f.Size < f.Whole() {
		return Decision{Action: Resize, Number: f.Number, Size: f.Whole(), Reason: "all traffic shall be its own again"}
	}
	share := 100
	if p.e.Strategy.Replace == Rolling && p.want.Phase == Serving {
		share = min(100, f.Healthy*100/f.Whole())
		share = max(share, p.o.Attached[first(f)]) // never away from it
	}
	if weights := shares(f, share, p.want); p.listens && !maps.Equal(weights, p.o.Attached) {
		return Decision{Action: Route, Number: f.Number, Weights: weights, Reason: fmt.Sprintf("back to it: %d %% of the traffic", share)}
	}
	if share < 100 && p.listens {
		reason := fmt.Sprintf("%d of %d healthy, to go back to", f.Healthy, f.Whole())
		if f.Suspended != "" {
			reason += "; no more are launched: " + f.Suspended
		}
		return Decision{Action: Wait, Number: f.Number, Rule: "generation-growing", Reason: reason}
	}
	return Decision{Action: Return, Number: f.Number, Reason: p.e.Back.Why}
}

func first(g *Generation) string {
	if len(g.TargetGroups) == 0 {
		return ""
	}
	return g.TargetGroups[0]
}

// shares are the weights when g has a share of the traffic and the rest is
// other's, which stays in the listener even without: its targets are checked
// only there, and going back to it must take no time.
func shares(g *Generation, share int, other *Generation) map[string]int {
	out := map[string]int{}
	if other != nil {
		for _, tg := range other.TargetGroups {
			out[tg] = 100 - share
		}
	}
	for _, tg := range g.TargetGroups {
		out[tg] = share
	}
	return out
}

// next is the number of a new generation: no number is used twice, since the
// names of records, stacks and intents come from it. Want alone does not tell,
// it falls back where a generation is given up.
func next(e Environment, o Observed) int {
	n := e.Want
	for _, g := range o.Generations {
		n = max(n, g.Number)
	}
	return n + 1
}

func planDestroy(e Environment, o Observed) Decision {
	live := 0
	for _, g := range o.Generations {
		if g.Phase != Gone {
			live++
		}
	}
	if live > 0 && len(o.Attached) > 0 && !o.ListenerGone {
		return Decision{Action: EndTraffic, Reason: "target groups in a listener cannot be deleted"}
	}
	for _, g := range o.Generations {
		if g.Phase != Gone && g.Phase != Terminating {
			return Decision{Action: Retire, Number: g.Number, Reason: "the environment ends"}
		}
	}
	if live > 0 {
		return Decision{Action: Wait, Rule: "deleting", Reason: fmt.Sprintf("%d generations are being deleted", live)}
	}
	if o.Foundation != nil && !o.Foundation.Shared && o.Foundation.Phase != Gone {
		if !o.Foundation.Destroy {
			return Decision{Action: EndFoundation, Reason: "no generation stands on it any more"}
		}
		return Decision{Action: Wait, Rule: "deleting", Reason: "the foundation is being deleted"}
	}
	if e.Phase != Gone {
		return Decision{Action: Finish, Reason: "everything is deleted"}
	}
	return Decision{Action: Rest, Reason: "gone"}
}
