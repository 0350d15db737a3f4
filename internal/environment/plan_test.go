package environment

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"
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
		{"launching, not attached", Environment{Want: 1}, Observed{Generations: []Generation{gen(1, Launching)}, Attached: weights()}, Attach, 1},
		{"launching, attached", Environment{Want: 1}, Observed{Generations: []Generation{gen(1, Launching)}, Attached: weights("tg1", 0)}, Wait, 1},
		{"ready", Environment{Want: 1}, Observed{Generations: []Generation{gen(1, Serving)}, Attached: weights("tg1", 0)}, Switch, 1},
		{"ready beside another", Environment{Want: 2, Serving: 1}, Observed{Generations: []Generation{gen(1, Serving), gen(2, Serving)}, Attached: weights("tg1", 100, "tg2", 0)}, Switch, 2},
		{"half of the traffic", Environment{Want: 2, Serving: 2}, Observed{Generations: []Generation{gen(1, Serving), gen(2, Serving)}, Attached: weights("tg1", 100, "tg2", 100)}, Switch, 2},
		{"traffic moved, not written down", Environment{Want: 2, Serving: 1}, Observed{Generations: []Generation{gen(1, Serving), gen(2, Serving)}, Attached: weights("tg2", 100)}, Switch, 2},
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

// model carries decisions out as the loops do, each step apart.
type model struct {
	e      Environment
	gens   []Generation
	found  *Foundation
	weight map[string]int // nil = the listener is gone
}

func (m *model) observed() Observed {
	o := Observed{Generations: append([]Generation{}, m.gens...), Attached: maps.Clone(m.weight)}
	if m.found != nil {
		f := *m.found
		o.Foundation = &f
		o.ListenerGone = m.weight == nil && f.Phase == Serving
	}
	return o
}

func (m *model) gen(n int) *Generation { return &m.gens[n-1] }

// step carries out one decision; changed tells whether anything can be seen of it.
func (m *model) step(t *rapid.T) (d Decision, changed bool) {
	o := m.observed()
	before := fmt.Sprintf("%+v %+v %+v %v", m.e, m.gens, m.found, m.weight)
	d = Plan(m.e, o)
	if again := Plan(m.e, o); again != d {
		t.Fatalf("not pure: %v and %v", d, again)
	}
	switch d.Action {
	case Generate:
		if d.Number != len(m.gens)+1 {
			t.Fatalf("generation %d after %d", d.Number, len(m.gens))
		}
		if m.found == nil {
			m.found, m.weight = &Foundation{Phase: Serving, Shared: m.e.Port != 0}, map[string]int{}
		}
		m.gens = append(m.gens, Generation{Number: d.Number, Phase: Pending, Size: 1})
		m.e.Next, m.e.Want = nil, d.Number
	case Attach:
		for _, tg := range m.gen(d.Number).TargetGroups {
			m.weight[tg] += 0
		}
	case Switch:
		g := m.gen(d.Number)
		if g.Phase != Serving {
			t.Fatalf("generation %d gets traffic and is %s", d.Number, g.Phase)
		}
		if m.weight != nil {
			clear(m.weight)
			for _, tg := range g.TargetGroups {
				m.weight[tg] = 100
			}
		}
		if rapid.Bool().Draw(t, "killed before it is written down") {
			return d, true
		}
		m.e.Serving, m.e.Phase = d.Number, Serving
	case Supersede:
		if w := m.weight[m.gen(d.Number).TargetGroups[0]]; w != 0 || m.e.Serving == d.Number || m.weight[m.gen(m.e.Serving).TargetGroups[0]] != 100 {
			t.Fatalf("generation %d is superseded, with the weights %v", d.Number, m.weight)
		}
		m.gen(d.Number).Phase = Terminating
	case GiveUp:
		for _, tg := range m.gen(d.Number).TargetGroups {
			delete(m.weight, tg)
		}
		if m.e.Serving == d.Number {
			m.e.Serving = 0
		}
		m.e.Want, m.gen(d.Number).Phase = m.e.Serving, Terminating
	case Retire:
		if !m.e.Destroy {
			t.Fatal("retired without being asked")
		}
		m.gen(d.Number).Phase = Terminating
	case EndTraffic:
		if m.e.Port != 0 {
			m.weight = nil
		} else {
			clear(m.weight)
		}
	case EndFoundation:
		m.found.Destroy = true
	case Finish:
		m.e.Phase = Gone
	}
	return d, before != fmt.Sprintf("%+v %+v %+v %v", m.e, m.gens, m.found, m.weight)
}

// world lets a generation or the foundation go on by itself.
func (m *model) world(t *rapid.T) {
	for i := range m.gens {
		g := &m.gens[i]
		switch g.Phase {
		case Pending:
			g.Phase = rapid.SampledFrom([]Phase{Launching, Launching, Failed}).Draw(t, "outcome")
			if g.Phase == Launching {
				g.TargetGroups = []string{fmt.Sprintf("tg%d", g.Number)}
			}
		case Launching:
			if _, attached := m.weight[g.TargetGroups[0]]; attached {
				g.Phase = rapid.SampledFrom([]Phase{Launching, Serving, Serving, Failed}).Draw(t, "outcome")
			}
		case Terminating:
			if len(g.TargetGroups) > 0 {
				if _, attached := m.weight[g.TargetGroups[0]]; attached {
					continue // a group in a listener cannot be deleted
				}
			}
			g.Phase = Gone
		}
	}
	if m.found != nil && m.found.Destroy {
		m.found.Phase, m.weight = Gone, nil
	}
}

func TestPlanModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{e: Environment{Port: rapid.SampledFrom([]int{0, 8001}).Draw(t, "port")}}
		deploy := func() {
			if m.e.Next == nil && (m.e.Want == m.e.Serving) && !m.e.Destroy {
				m.e.Next = &Change{Image: "i", Release: "r"}
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"step", "step", "step", "world", "world", "deploy", "lose", "meddle", "destroy"}).Draw(t, "what") {
			case "step":
				m.step(t)
			case "world":
				m.world(t)
			case "deploy":
				deploy()
			case "lose": // a serving generation's stack is deleted by somebody
				if n := m.e.Serving; n > 0 && rapid.IntRange(0, 4).Draw(t, "really") == 0 && m.gen(n).Phase == Serving && m.e.Want == n {
					m.gen(n).Phase = Failed
				}
			case "meddle":
				if len(m.weight) > 0 && rapid.Bool().Draw(t, "really") && !m.e.Destroy {
					clear(m.weight)
				}
			case "destroy":
				if rapid.IntRange(0, 9).Draw(t, "really") == 0 {
					m.e.Destroy = true
				}
			}
		}
		settle := func() Decision {
			quiet := 0
			for range 500 {
				d, changed := m.step(t)
				m.world(t)
				if changed || d.Action != Rest && d.Action != Wait {
					quiet = 0
					if !changed && !strings.Contains("generate switch", string(d.Action)) {
						t.Fatalf("%+v changes nothing: %+v", d, m)
					}
					continue
				}
				if quiet++; quiet > 60 {
					return d
				}
			}
			t.Fatalf("it never comes to rest: %+v", m)
			return Decision{}
		}
		settle()
		if !m.e.Destroy {
			if m.e.Want != m.e.Serving {
				t.Fatalf("at rest, and %d is wanted while %d serves: %+v", m.e.Want, m.e.Serving, m)
			}
			for _, g := range m.gens {
				if (g.Phase == Serving) != (g.Number == m.e.Serving) || g.Phase != Serving && g.Phase != Gone {
					t.Fatalf("at rest: %+v", m)
				}
			}
		}
		m.e.Destroy = true
		settle()
		if m.e.Phase != Gone {
			t.Fatalf("not gone: %+v", m)
		}
		for _, g := range m.gens {
			if g.Phase != Gone {
				t.Fatalf("generation %d is left: %+v", g.Number, m)
			}
		}
		if m.found != nil && !m.found.Shared && m.found.Phase != Gone {
			t.Fatalf("the foundation is left: %+v", m)
		}
	})
}
