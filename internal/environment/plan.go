package environment

import "fmt"

// Action is the next thing to do for an environment.
type Action string

const (
	Wait          Action = "wait"        // a blocker says for what
	Generate      Action = "generate"    // make the generation that Next describes
	Attach        Action = "attach"      // give the wanted generation traffic of weight 0, so that its targets are checked
	Switch        Action = "switch"      // all traffic to the wanted generation
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
	Action Action
	Number int    // generation that it is about
	Reason string // for logs and for people
}

// Observed is what a plan needs to know beside the environment itself.
type Observed struct {
	Generations  []Generation   // all of the environment, oldest first
	Foundation   *Foundation    // its own or a shared one; nil = none (yet)
	Attached     map[string]int // weight by target group's ARN in the listener, nil = not read or none
	ListenerGone bool           // the listener is not there any more
}

// Plan decides the next step of an environment whose Next has nothing left to
// be resolved (Ready says so). It is pure: the same input gives the same
// decision, whatever was interrupted before.
func Plan(e Environment, o Observed) Decision {
	if e.Destroy {
		return planDestroy(e, o)
	}
	if e.Next != nil {
		if e.Next.Image != "" && e.Next.Release != "" {
			return Decision{Action: Generate, Number: next(e, o), Reason: "image and release are known"}
		}
		return Decision{Action: Wait, Reason: "image or release is not known yet"}
	}
	var want *Generation
	var old []Generation
	for i, g := range o.Generations {
		if g.Number == e.Want {
			want = &o.Generations[i]
		} else if g.Phase != Gone {
			old = append(old, g)
		}
	}
	if want == nil {
		return Decision{Action: Rest, Reason: "nothing was deployed yet"}
	}
	// A foundation without a listener is fine: its instances take work from
	// elsewhere.
	listens := o.Attached != nil || o.ListenerGone
	if o.ListenerGone && (want.Phase == Pending || want.Phase == Launching || want.Phase == Serving) {
		return Decision{Action: Wait, Number: want.Number, Reason: "its listener is not there any more; somebody deleted it"}
	}
	switch want.Phase {
	case Failed:
		return Decision{Action: GiveUp, Number: want.Number, Reason: want.Error}
	case Pending, Launching:
		if listens && len(want.TargetGroups) > 0 && !attached(want, o, -1) {
			return Decision{Action: Attach, Number: want.Number, Reason: "its targets are checked only when a listener has them"}
		}
		return Decision{Action: Wait, Number: want.Number, Reason: fmt.Sprintf("%d of %d healthy", want.Healthy, want.Size)}
	case Serving:
		if listens && !attached(want, o, 100) {
			return Decision{Action: Switch, Number: want.Number, Reason: fmt.Sprintf("%d of %d healthy", want.Healthy, want.Size)}
		}
		if e.Serving != want.Number {
			return Decision{Action: Switch, Number: want.Number, Reason: "the traffic is there"}
		}
		for _, g := range old {
			if g.Phase != Terminating {
				return Decision{Action: Supersede, Number: g.Number, Reason: fmt.Sprintf("generation %d serves", want.Number)}
			}
		}
	}
	return Decision{Action: Rest, Number: want.Number, Reason: string(want.Phase)}
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

// attached tells whether the listener has the generation's first target group;
// with weight ≥ 0 also whether it has all the traffic.
func attached(g *Generation, o Observed, weight int) bool {
	for _, tg := range g.TargetGroups {
		w, ok := o.Attached[tg]
		if !ok || (weight >= 0 && w != weight) {
			return false
		}
	}
	if weight < 0 {
		return true
	}
	for tg := range o.Attached {
		mine := false
		for _, t := range g.TargetGroups {
			mine = mine || t == tg
		}
		if !mine {
			return false
		}
	}
	return true
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
		return Decision{Action: Wait, Reason: fmt.Sprintf("%d generations are being deleted", live)}
	}
	if o.Foundation != nil && !o.Foundation.Shared && o.Foundation.Phase != Gone {
		if !o.Foundation.Destroy {
			return Decision{Action: EndFoundation, Reason: "no generation stands on it any more"}
		}
		return Decision{Action: Wait, Reason: "the foundation is being deleted"}
	}
	if e.Phase != Gone {
		return Decision{Action: Finish, Reason: "everything is deleted"}
	}
	return Decision{Action: Rest, Reason: "gone"}
}
