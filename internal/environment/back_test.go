package environment

import "testing"

// A deploy that is called off when its generation is ready, and before any
// traffic moves, ends there.
func TestCalledOffBeforeTheTraffic(t *testing.T) {
	e := Environment{Want: 2, Serving: 1, Back: &Back{Why: "not now"}}
	o := Observed{Attached: map[string]int{"tg1": 100, "tg2": 0}, Generations: []Generation{
		{Number: 1, Phase: Serving, Size: 3, Full: 3, Healthy: 3, TargetGroups: []string{"tg1"}},
		{Number: 2, Phase: Serving, Size: 3, Full: 3, Healthy: 3, TargetGroups: []string{"tg2"}},
	}}
	if d := Plan(e, o); d.Action != GiveUp || d.Number != 2 {
		t.Errorf("%+v", d)
	}
	o.Generations[0].Phase = Failed // there is nothing to stay with
	if d := Plan(e, o); d.Action != Stay {
		t.Errorf("%+v", d)
	}
}
