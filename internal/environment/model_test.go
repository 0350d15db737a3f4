package environment

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model carries decisions out as the loops do, each step apart, in a cloud
// where things happen in any order.
type model struct {
	e       Environment
	gens    []Generation
	found   *Foundation
	weight  map[string]int // nil = the listener is gone
	verdict Verdict
	now     time.Time
	floor   bool // nothing failed by itself: what serves never falls below the size
	calm    bool // and nothing will
	log     []string
}

const full = 10

func (m *model) observed() Observed {
	o := Observed{Generations: append([]Generation{}, m.gens...), Attached: maps.Clone(m.weight), Verdict: m.verdict, Now: m.now}
	if m.found != nil {
		f := *m.found
		o.Foundation = &f
		o.ListenerGone = m.weight == nil && f.Phase == Serving
	}
	return o
}

func (m *model) gen(n int) *Generation { return &m.gens[n-1] }

func (m *model) String() string {
	return fmt.Sprintf("env %+v shift %+v back %+v next %+v\ngens %+v\nfound %+v weights %v verdict %+v\n%s", m.e, m.e.Shift, m.e.Back, m.e.Next, m.gens, m.found, m.weight, m.verdict, strings.Join(m.log[max(0, len(m.log)-40):], "\n"))
}

// step carries out one decision; changed tells whether anything can be seen of it.
func (m *model) step(t *rapid.T) (d Decision, changed bool) {
	o := m.observed()
	before := m.state()
	d = Plan(m.e, o)
	if again := Plan(m.e, o); !reflect.DeepEqual(again, d) {
		t.Fatalf("not pure: %v and %v", d, again)
	}
	if d.Action != Wait && d.Action != Rest {
		m.log = append(m.log, fmt.Sprintf("%s %+v", m.now.Format("04:05"), d))
	}
	killed := func() bool { return rapid.IntRange(0, 3).Draw(t, "killed before it is written down") == 0 }
	switch d.Action {
	case Generate:
		if d.Number != len(m.gens)+1 {
			t.Fatalf("generation %d after %d", d.Number, len(m.gens))
		}
		if m.found == nil {
			m.found, m.weight = &Foundation{Phase: Serving, Shared: m.e.Port != 0}, map[string]int{}
		}
		g := Generation{Number: d.Number, Phase: Pending, Size: full, Full: full, Deadline: m.now.Add(time.Hour)}
		if m.e.Serving != 0 {
			g.Size = m.e.Next.Strategy.First(full)
		}
		m.e.Strategy = m.e.Next.Strategy
		m.gens = append(m.gens, g)
		m.e.Next, m.e.Want = nil, d.Number
	case Begin:
		m.e.Shift = &Shift{From: m.e.Serving, To: d.Number}
	case Route:
		if m.weight != nil {
			for tg, w := range d.Weights {
				var n int
				fmt.Sscanf(tg, "tg%d", &n)
				if g := m.gen(n); w > m.weight[tg] && g.Phase != Serving {
					t.Fatalf("generation %d gets traffic and is %s\n%s", n, g.Phase, m)
				}
			}
			m.weight = maps.Clone(d.Weights)
		}
		if killed() {
			return d, true
		}
		if s := m.e.Shift; s != nil && s.To == d.Number {
			s.Since = m.now
		}
	case Step:
		m.e.Shift.Step++
		m.e.Shift.Since = time.Time{}
	case Resize:
		g := m.gen(d.Number)
		g.Size, g.Deadline = d.Size, m.now.Add(time.Hour)
		if g.Healthy > g.Size {
			g.Healthy = g.Size
		}
	case Switch:
		if m.weight != nil && m.weight[m.gen(d.Number).TargetGroups[0]] != 100 {
			t.Fatalf("generation %d serves without traffic\n%s", d.Number, m)
		}
		m.e.Serving, m.e.Phase, m.e.Shift.Soak = d.Number, Serving, m.now.Add(m.e.Strategy.Soak)
	case Stay:
		m.e.Back = nil
	case Settle:
		if s := m.e.Shift; m.now.Before(s.Soak) && s.From != 0 && m.gen(s.From).Phase == Serving {
			t.Fatalf("the soak is not over\n%s", m)
		}
		m.e.Shift = nil
	case Revert:
		if m.calm && m.verdict.Bad == "" {
			t.Fatalf("it goes back without a reason\n%s", m)
		}
		m.e.Back = &Back{Why: d.Reason}
	case Return:
		left := m.e.Want
		m.e.Want, m.e.Serving, m.e.Phase, m.e.Back = d.Number, d.Number, Serving, nil
		m.e.Shift = &Shift{From: left, To: d.Number, Back: true, Since: m.now, Soak: m.now.Add(drain)}
	case Supersede:
		if w, in := m.weight[m.gen(d.Number).TargetGroups[0]]; in || m.e.Serving == d.Number || m.weight != nil && m.e.Serving != 0 && m.weight[m.gen(m.e.Serving).TargetGroups[0]] != 100 {
			t.Fatalf("generation %d is superseded with %d %% of the traffic\n%s", d.Number, w, m)
		}
		m.gen(d.Number).Phase = Terminating
	case GiveUp:
		for _, tg := range m.gen(d.Number).TargetGroups {
			delete(m.weight, tg)
		}
		if m.e.Serving == d.Number {
			m.e.Serving = 0
		}
		m.e.Want, m.gen(d.Number).Phase, m.e.Shift, m.e.Back = m.e.Serving, Terminating, nil, nil
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
	m.check(t)
	return d, before != m.state()
}

func (m *model) state() string {
	return fmt.Sprintf("%+v %+v %+v %+v %+v %v", m.e, m.e.Shift, m.e.Back, m.gens, m.found, m.weight)
}

// check is what must hold at every moment.
func (m *model) check(t *rapid.T) {
	sum, with := 0, 0
	for tg, w := range m.weight {
		sum += w
		if w > 0 {
			with++
		}
		if w > 0 && m.e.Serving != 0 && !m.e.Destroy {
			var n int
			fmt.Sscanf(tg, "tg%d", &n)
			if p := m.gen(n).Phase; p == Terminating || p == Gone {
				t.Fatalf("generation %d has %d %% of the traffic and is %s\n%s", n, w, p, m)
			}
		}
	}
	if with > 2 || sum != 0 && sum != 100 {
		t.Fatalf("the weights are %v\n%s", m.weight, m)
	}
	live, capacity := 0, 0
	for _, g := range m.gens {
		if g.Phase == Serving {
			live++
			capacity += g.Healthy
		}
	}
	if live > 2 {
		t.Fatalf("%d generations serve\n%s", live, m)
	}
	if m.floor && m.e.Serving != 0 && !m.e.Destroy && capacity < full {
		t.Fatalf("%d of %d instances\n%s", capacity, full, m)
	}
	s := m.e.Shift
	if s == nil || s.Back || s.From == 0 || m.e.Destroy || m.e.Back != nil {
		return
	}
	// What served before stays whole, and in the listener, until the soak is over.
	old := m.gen(s.From)
	if old.Phase == Terminating || old.Phase == Gone {
		t.Fatalf("generation %d ends before the soak is over\n%s", s.From, m)
	}
	if m.e.Strategy.Replace == BlueGreen && old.Size != old.Whole() {
		t.Fatalf("generation %d shrank\n%s", s.From, m)
	}
}

// world lets a generation or the foundation go on by itself.
func (m *model) world(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second)
	for i := range m.gens {
		g := &m.gens[i]
		switch g.Phase {
		case Pending:
			g.Phase = m.outcome(t, Launching, Launching, Failed)
			if g.Phase == Launching {
				g.TargetGroups = []string{fmt.Sprintf("tg%d", g.Number)}
			}
		case Launching:
			if _, attached := m.weight[g.TargetGroups[0]]; attached {
				if g.Phase = m.outcome(t, Serving, Serving, Launching, Failed); g.Phase == Serving {
					g.Healthy = g.Size
				}
			}
		case Serving:
			if g.Healthy < g.Size {
				g.Healthy++
			}
		case Terminating:
			if len(g.TargetGroups) > 0 {
				if _, attached := m.weight[g.TargetGroups[0]]; attached {
					continue // a group in a listener cannot be deleted
				}
			}
			g.Phase, g.Healthy = Gone, 0
		}
	}
	if m.found != nil && m.found.Destroy {
		m.found.Phase, m.weight = Gone, nil
	}
}

// outcome is one of those; on a calm day the first.
func (m *model) outcome(t *rapid.T, of ...Phase) Phase {
	if m.calm {
		return of[0]
	}
	return rapid.SampledFrom(of).Draw(t, "outcome")
}

var strategies = []Strategy{
	{Replace: Recreate},
	{Replace: BlueGreen, Steps: []int{1, 10, 50, 100}, Pause: 20 * time.Second, Soak: 2 * time.Minute},
	{Replace: BlueGreen, Steps: []int{100}},
	{Replace: Rolling, Steps: []int{20, 45, 75, 100}, Pause: 20 * time.Second, Soak: time.Minute},
	{Replace: Rolling, Steps: []int{100}, Soak: time.Minute},
}

func TestPlanModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{e: Environment{Port: rapid.SampledFrom([]int{0, 8001}).Draw(t, "port")}, now: time.Unix(0, 0).UTC(), floor: true}
		deploy := func() {
			if m.e.Next == nil && (m.e.Want == m.e.Serving) && !m.e.Destroy {
				m.e.Next = &Change{Image: "i", Release: "r", Strategy: rapid.SampledFrom(strategies).Draw(t, "strategy")}
			}
		}
		m.calm = rapid.Bool().Draw(t, "a calm day")
		events := []string{"step", "step", "step", "step", "step", "step", "world", "world", "world", "deploy", "verdict", "back", "lose", "die", "meddle", "destroy"}
		if m.calm {
			events = events[:12]
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.SampledFrom(events).Draw(t, "what") {
			case "step":
				m.step(t)
			case "world":
				m.world(t)
			case "deploy":
				deploy()
			case "verdict":
				m.verdict = rapid.SampledFrom([]Verdict{{}, {}, {}, {}, {}, {Waiting: "its check runs"}, {Bad: "errors"}}).Draw(t, "verdict")
			case "back":
				if s := m.e.Shift; rapid.IntRange(0, 5).Draw(t, "really") == 0 && m.e.Back == nil && (s != nil && !s.Back && s.From != 0 || s == nil && m.e.Want != m.e.Serving) && m.e.Next == nil {
					m.e.Back = &Back{By: "me"}
				}
			case "lose": // a serving generation's stack is deleted by somebody
				n := rapid.IntRange(1, max(1, len(m.gens))).Draw(t, "which")
				if n <= len(m.gens) && m.gen(n).Phase == Serving && rapid.IntRange(0, 9).Draw(t, "really") == 0 {
					m.gen(n).Phase, m.gen(n).Healthy, m.floor = Failed, 0, false
				}
			case "die": // instances do
				n := rapid.IntRange(1, max(1, len(m.gens))).Draw(t, "which")
				if n <= len(m.gens) && m.gen(n).Phase == Serving && rapid.IntRange(0, 9).Draw(t, "really") == 0 {
					m.gen(n).Healthy, m.floor = rapid.IntRange(0, m.gen(n).Healthy).Draw(t, "left"), false
				}
			case "meddle":
				if len(m.weight) > 0 && rapid.IntRange(0, 4).Draw(t, "really") == 0 && !m.e.Destroy {
					clear(m.weight)
				}
			case "destroy":
				if rapid.IntRange(0, 19).Draw(t, "really") == 0 {
					m.e.Destroy = true
				}
			}
		}
		m.verdict = Verdict{Bad: rapid.SampledFrom([]string{"", "errors"}).Draw(t, "in the end")}
		settle := func() Decision {
			quiet := 0
			for range 1500 {
				d, changed := m.step(t)
				m.world(t)
				if changed || d.Action != Rest && d.Action != Wait {
					quiet = 0
					if !changed && !slices.Contains([]Action{Generate, Switch, Route}, d.Action) {
						t.Fatalf("%+v changes nothing: %s", d, m)
					}
					continue
				}
				if quiet++; quiet > 60 {
					return d
				}
			}
			t.Fatalf("it never comes to rest: %s", m)
			return Decision{}
		}
		settle()
		if !m.e.Destroy {
			if m.e.Want != m.e.Serving || m.e.Shift != nil || m.e.Back != nil {
				t.Fatalf("at rest, and %d is wanted while %d serves: %s", m.e.Want, m.e.Serving, m)
			}
			for _, g := range m.gens {
				if (g.Phase == Serving) != (g.Number == m.e.Serving) || g.Phase != Serving && g.Phase != Gone || g.Phase == Serving && g.Size != full {
					t.Fatalf("at rest: %s", m)
				}
			}
		}
		m.e.Destroy = true
		settle()
		if m.e.Phase != Gone {
			t.Fatalf("not gone: %s", m)
		}
		for _, g := range m.gens {
			if g.Phase != Gone {
				t.Fatalf("generation %d is left: %s", g.Number, m)
			}
		}
		if m.found != nil && !m.found.Shared && m.found.Phase != Gone {
			t.Fatalf("the foundation is left: %s", m)
		}
	})
}
