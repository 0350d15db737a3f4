package environment

import (
	"fmt"
	"testing"
	"time"
)

func TestPlan(t *testing.T) {
	gen := func(n int, p Phase) Generation {
		return Generation{Number: n, Phase: p, Size: 3, TargetGroups: []string{fmt.Sprintf("tg%d", n)}}
	}
	weights := func(kv ...any) map[string]int {
		m := map[string]int{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i].(string)] = kv[i+1].(int)
		}
		return m
	}
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	healthy := func(gs ...Generation) []Generation {
		for i := range gs {
			gs[i].Healthy = gs[i].Size
		}
		return gs
	}
	blue := func(step int, since time.Time) Environment {
		return Environment{Want: 2, Serving: 1, Strategy: Strategy{Replace: BlueGreen, Steps: []int{10, 100}, Pause: time.Minute, Soak: time.Hour}, Shift: &Shift{From: 1, To: 2, Step: step, Since: since}}
	}
	soaking := func(until time.Time) Environment {
		e := blue(1, at(0))
		e.Serving, e.Shift.Soak = 2, until
		return e
	}
	asked := func(e Environment) Environment { e.Back = &Back{By: "me", Why: "it is slow"}; return e }
	own := &Foundation{Phase: Serving}
	for _, c := range []struct {
		name string
		e    Environment
		o    Observed
		want Action
		n    int
	}{
		{"nothing yet", Environment{}, Observed{}, Rest, 0},
		{"image unknown", Environment{Next: &Change{Release: "r"}}, Observed{}, Wait, 0},
		{"release unknown", Environment{Next: &Change{Image: "i"}}, Observed{}, Wait, 0},
		{"first", Environment{Next: &Change{Image: "i", Release: "r"}}, Observed{}, Generate, 1},
		{"after a failed first one", Environment{Next: &Change{Image: "i", Release: "r"}}, Observed{Generations: []Generation{gen(1, Gone)}}, Generate, 2},
		{"after a failed second one", Environment{Next: &Change{Image: "i", Release: "r"}, Want: 1, Serving: 1}, Observed{Generations: []Generation{gen(1, Serving), gen(2, Gone)}}, Generate, 3},
		{"in another life", Environment{Next: &Change{Image: "i", Release: "r"}, Want: 7}, Observed{}, Generate, 8},
		{"launching, without listener", Environment{Want: 1}, Observed{Generations: []Generation{gen(1, Launching)}}, Wait, 1},
		{"launching, not attached", Environment{Want: 1}, Observed{Generations: []Generation{gen(1, Launching)}, Attached: weights()}, Route, 1},
		{"launching, attached", Environment{Want: 1}, Observed{Generations: []Generation{gen(1, Launching)}, Attached: weights("tg1", 0)}, Wait, 1},
		{"ready", Environment{Want: 1}, Observed{Generations: []Generation{gen(1, Serving)}, Attached: weights("tg1", 0)}, Begin, 1},
		{"ready beside another", Environment{Want: 2, Serving: 1}, Observed{Generations: []Generation{gen(1, Serving), gen(2, Serving)}, Attached: weights("tg1", 100, "tg2", 0)}, Begin, 2},
		{"traffic begins to move", Environment{Want: 2, Serving: 1, Shift: &Shift{From: 1, To: 2}}, Observed{Generations: []Generation{gen(1, Serving), gen(2, Serving)}, Attached: weights("tg1", 100, "tg2", 0)}, Route, 2},
		{"half of the traffic", Environment{Want: 2, Serving: 2}, Observed{Generations: []Generation{gen(1, Serving), gen(2, Serving)}, Attached: weights("tg1", 100, "tg2", 100)}, Route, 2},
		{"traffic moved, not written down", Environment{Want: 2, Serving: 1, Shift: &Shift{From: 1, To: 2, Since: at(0)}}, Observed{Generations: []Generation{gen(1, Serving), gen(2, Serving)}, Attached: weights("tg1", 0, "tg2", 100)}, Switch, 2},
		{"nothing to soak", Environment{Want: 2, Serving: 2, Shift: &Shift{From: 1, To: 2, Since: at(0), Soak: at(0)}}, Observed{Now: at(0), Generations: []Generation{gen(1, Serving), gen(2, Serving)}, Attached: weights("tg1", 0, "tg2", 100)}, Settle, 2},
		{"out of the listener before it ends", Environment{Want: 2, Serving: 2}, Observed{Generations: []Generation{gen(1, Serving), gen(2, Serving)}, Attached: weights("tg1", 0, "tg2", 100)}, Route, 2},
		{"it steps", blue(0, at(0)), Observed{Now: at(60), Generations: healthy(gen(1, Serving), gen(2, Serving)), Attached: weights("tg1", 90, "tg2", 10)}, Step, 2},
		{"not before its pause is over", blue(0, at(0)), Observed{Now: at(59), Generations: healthy(gen(1, Serving), gen(2, Serving)), Attached: weights("tg1", 90, "tg2", 10)}, Wait, 2},
		{"not before it was judged", blue(0, at(0)), Observed{Now: at(99), Verdict: Verdict{Waiting: "its check runs"}, Generations: healthy(gen(1, Serving), gen(2, Serving)), Attached: weights("tg1", 90, "tg2", 10)}, Wait, 2},
		{"judged bad", blue(0, at(0)), Observed{Now: at(1), Verdict: Verdict{Bad: "errors"}, Generations: healthy(gen(1, Serving), gen(2, Serving)), Attached: weights("tg1", 90, "tg2", 10)}, Revert, 2},
		{"bad in the soak", soaking(at(600)), Observed{Now: at(1), Verdict: Verdict{Bad: "errors"}, Generations: healthy(gen(1, Serving), gen(2, Serving)), Attached: weights("tg1", 0, "tg2", 100)}, Revert, 2},
		{"its instances die in the soak", soaking(at(600)), Observed{Now: at(1), Generations: []Generation{healthy(gen(1, Serving))[0], gen(2, Serving)}, Attached: weights("tg1", 0, "tg2", 100)}, Revert, 2},
		{"lost in the soak", soaking(at(600)), Observed{Now: at(1), Generations: healthy(gen(1, Serving), gen(2, Failed)), Attached: weights("tg1", 0, "tg2", 100)}, Revert, 2},
		{"it soaks", soaking(at(600)), Observed{Now: at(1), Generations: healthy(gen(1, Serving), gen(2, Serving)), Attached: weights("tg1", 0, "tg2", 100)}, Wait, 2},
		{"a deploy waits for the soak", func() Environment { e := soaking(at(600)); e.Next = &Change{Image: "i", Release: "r"}; return e }(), Observed{Now: at(1), Generations: healthy(gen(1, Serving), gen(2, Serving)), Attached: weights("tg1", 0, "tg2", 100)}, Wait, 2},
		{"back: the traffic", asked(soaking(at(600))), Observed{Now: at(1), Generations: healthy(gen(1, Serving), gen(2, Serving)), Attached: weights("tg1", 0, "tg2", 100)}, Route, 1},
		{"back: written down", asked(soaking(at(600))), Observed{Now: at(1), Generations: healthy(gen(1, Serving), gen(2, Serving)), Attached: weights("tg1", 100, "tg2", 0)}, Return, 1},
		{"back while it is launched", asked(Environment{Want: 2, Serving: 1}), Observed{Generations: []Generation{gen(1, Serving), gen(2, Launching)}, Attached: weights("tg1", 100, "tg2", 0)}, GiveUp, 2},
		{"people decide", func() Environment { e := blue(0, at(0)); e.Strategy.Manual = true; return e }(), Observed{Now: at(1), Verdict: Verdict{Bad: "errors"}, Generations: healthy(gen(1, Serving), gen(2, Serving)), Attached: weights("tg1", 90, "tg2", 10)}, Wait, 2},
		{"moved", Environment{Want: 2, Serving: 2}, Observed{Generations: []Generation{gen(1, Serving), gen(2, Serving)}, Attached: weights("tg2", 100)}, Supersede, 1},
		{"the old one goes", Environment{Want: 2, Serving: 2}, Observed{Generations: []Generation{gen(1, Terminating), gen(2, Serving)}, Attached: weights("tg2", 100)}, Rest, 2},
		{"failed beside another", Environment{Want: 2, Serving: 1}, Observed{Generations: []Generation{gen(1, Serving), gen(2, Failed)}, Attached: weights("tg1", 100, "tg2", 0)}, GiveUp, 2},
		{"listener gone", Environment{Want: 1}, Observed{Generations: []Generation{gen(1, Serving)}, ListenerGone: true}, Wait, 1},
		{"destroy: traffic first", Environment{Destroy: true, Want: 1, Serving: 1}, Observed{Generations: []Generation{gen(1, Serving)}, Attached: weights("tg1", 100), Foundation: own}, EndTraffic, 0},
		{"destroy: generations", Environment{Destroy: true, Next: &Change{Image: "i", Release: "r"}}, Observed{Generations: []Generation{gen(1, Terminating), gen(2, Launching)}, Attached: weights(), Foundation: own}, Retire, 2},
		{"destroy: wait for them", Environment{Destroy: true}, Observed{Generations: []Generation{gen(1, Terminating)}, Attached: weights(), Foundation: own}, Wait, 0},
		{"destroy: foundation", Environment{Destroy: true}, Observed{Generations: []Generation{gen(1, Gone)}, Attached: weights(), Foundation: own}, EndFoundation, 0},
		{"destroy: failed foundation", Environment{Destroy: true}, Observed{Foundation: &Foundation{Phase: Failed}}, EndFoundation, 0},
		{"destroy: foundation goes", Environment{Destroy: true}, Observed{Foundation: &Foundation{Phase: Terminating, Destroy: true}}, Wait, 0},
		{"destroy: shared foundation stays", Environment{Destroy: true}, Observed{Foundation: &Foundation{Phase: Serving, Shared: true}}, Finish, 0},
		{"destroy: nothing was there", Environment{Destroy: true}, Observed{}, Finish, 0},
		{"gone", Environment{Destroy: true, Phase: Gone}, Observed{Foundation: &Foundation{Phase: Gone, Destroy: true}}, Rest, 0},
	} {
		if d := Plan(c.e, c.o); d.Action != c.want || d.Number != c.n || d.Reason == "" && c.want != GiveUp {
			t.Errorf("%s: %+v, want %s %d", c.name, d, c.want, c.n)
		}
	}
}
