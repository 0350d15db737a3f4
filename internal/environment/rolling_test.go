package environment

import (
	"testing"
	"time"
)

// roll is a rolling deploy of ten that has carried 20 % for a while.
func roll(f func(e *Environment, old, fresh *Generation)) (Environment, Observed) {
	now := time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	e := Environment{Want: 2, Serving: 1, Strategy: Strategy{Replace: Rolling, Steps: []int{20, 50, 100}, Pause: time.Hour}, Shift: &Shift{From: 1, To: 2, Since: now.Add(-2 * time.Hour)}}
	old := Generation{Number: 1, Phase: Serving, Size: 10, Full: 10, Healthy: 10, TargetGroups: []string{"tg1"}, Deadline: now.Add(-24 * time.Hour)}
	fresh := Generation{Number: 2, Phase: Serving, Size: 2, Full: 10, Healthy: 2, TargetGroups: []string{"tg2"}, Deadline: now.Add(-time.Hour)}
	f(&e, &old, &fresh)
	return e, Observed{Attached: map[string]int{"tg1": 80, "tg2": 20}, Generations: []Generation{old, fresh}, Now: now}
}

func TestRollingAndLosses(t *testing.T) {
	next := func(e *Environment) { *e.Shift = Shift{From: 1, To: 2, Step: 1, Was: e.Shift.Since} }
	for _, c := range []struct {
		name   string
		f      func(e *Environment, old, fresh *Generation)
		action Action
		number int
		size   int
		rule   string
	}{
		{"whole", func(e *Environment, old, fresh *Generation) {}, Step, 2, 0, ""},
		{"one of the new ones is gone: the old ones are not ended for it", func(e *Environment, old, fresh *Generation) { fresh.Healthy = 1 }, Wait, 2, 0, "generation-growing"},
		{"the next step", func(e *Environment, old, fresh *Generation) { next(e) }, Resize, 1, 8, ""},
		{"and one is gone", func(e *Environment, old, fresh *Generation) { next(e); fresh.Healthy = 1 }, Resize, 1, 9, ""},
		{"and one is gone while the old one shrinks", func(e *Environment, old, fresh *Generation) {
			next(e)
			old.Size, old.Healthy, old.Deadline, fresh.Healthy = 8, 9, old.Deadline.Add(25*time.Hour), 1
		}, Wait, 1, 0, "generation-shrinking"},
		{"it had its time to grow", func(e *Environment, old, fresh *Generation) {
			next(e)
			old.Size, old.Healthy, fresh.Size, fresh.Healthy = 8, 8, 5, 4
		}, Revert, 2, 0, ""},
		{"the old one could not grow again", func(e *Environment, old, fresh *Generation) { next(e); old.Suspended = "its image was revoked" }, Resize, 2, 5, ""},
	} {
		e, o := roll(c.f)
		if d := Plan(e, o); d.Action != c.action || d.Number != c.number || d.Size != c.size || d.Rule != c.rule {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
}
