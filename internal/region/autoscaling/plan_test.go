package autoscaling

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var t0 = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func testGroup(desired int64, zones ...string) group {
	g := group{Name: "g", Min: 0, Max: 100, Desired: desired, HealthCheckType: "EC2", Policies: []string{"Default"}, Distribution: balancedBestEffort, Template: template{ID: "lt-1", Version: "2"}}
	for _, z := range zones {
		g.Zones = append(g.Zones, place{z, "subnet-" + z})
	}
	return g
}

func member(id, zone, st string) instance {
	return instance{ID: id, Group: "g", Zone: zone, State: st, Health: healthy, Launched: t0.Add(-time.Hour), Entered: t0.Add(-time.Hour), Template: template{ID: "lt-1", Version: "2"}}
}

// brief is a plan in short, for tables.
func brief(acts []action) string {
	var out []string
	for _, a := range acts {
		switch a.Verb {
		case wantMore:
			out = append(out, fmt.Sprintf("launch %s×%d", a.Place.Zone, a.Count))
		default:
			out = append(out, strings.TrimSpace(string(a.Verb)+" "+a.ID))
		}
	}
	return strings.Join(out, ", ")
}

func TestPlan(t *testing.T) {
	run, stop := machine{State: "running"}, machine{State: "stopped"}
	waiting := func(st, def string, until time.Time) instance {
		i := member("i-1", "a", st)
		i.Waits = []wait{{Hook: "h", Token: "t", Default: def, Until: until, Last: until.Add(time.Hour)}}
		return i
	}
	change := func(i instance, f func(*instance)) instance { f(&i); return i }
	hooked := func(g group, tr string) group { g.Hooks = []hook{{Name: "h", Transition: tr}}; return g }
	alter := func(g group, f func(*group)) group { f(&g); return g }
	tests := []struct {
		name string
		g    group
		ins  []instance
		o    observed
		want string
	}{
		{"spread over zones", testGroup(7, "a", "b", "c"), nil, observed{}, "launch a×3, launch b×2, launch c×2"},
		{"intents count", alter(testGroup(4, "a", "b"), func(g *group) { g.Launches = []launch{{Place: place{"a", ""}, Count: 2}} }), nil, observed{}, "launch b×2"},
		{"launch suspended", alter(testGroup(4, "a"), func(g *group) { g.Suspended = map[string]string{"Launch": "x"} }), nil, observed{}, ""},
		{"backing off", alter(testGroup(4, "a"), func(g *group) { g.NotUntil = t0.Add(time.Second) }), nil, observed{}, ""},
		{"best effort goes elsewhere", alter(testGroup(4, "a", "b"), func(g *group) { g.Blocked = map[string]time.Time{"a": t0.Add(time.Second)} }), nil, observed{}, "launch b×4"},
		{"balanced-only keeps the share", alter(testGroup(45, "a", "b", "c"), func(g *group) {
			g.Distribution, g.Blocked = balancedOnly, map[string]time.Time{"c": t0.Add(time.Second)}
		}), nil, observed{}, "launch a×15, launch b×15"},
		{"pending waits for EC2", testGroup(1, "a"), []instance{member("i-1", "a", pending)}, observed{EC2: map[string]machine{"i-1": {State: "pending"}}}, ""},
		{"not observed is not dead", testGroup(1, "a"), []instance{member("i-1", "a", inService)}, observed{}, ""},
		{"into service", testGroup(1, "a"), []instance{member("i-1", "a", pending)}, observed{EC2: map[string]machine{"i-1": run}}, "enter i-1"},
		{"launch hook", hooked(testGroup(1, "a"), launchingHook), []instance{member("i-1", "a", pending)}, observed{EC2: map[string]machine{"i-1": run}}, "wait i-1"},
		{"hook done ahead", hooked(testGroup(1, "a"), launchingHook), []instance{change(member("i-1", "a", pending), func(i *instance) { i.Done = []string{"h"} })}, observed{EC2: map[string]machine{"i-1": run}}, "enter i-1"},
		{"waiting", testGroup(1, "a"), []instance{waiting(pendingWait, resultAbandon, t0.Add(1))}, observed{}, ""},
		{"timeout abandons", testGroup(1, "a"), []instance{waiting(pendingWait, resultAbandon, t0)}, observed{}, "fail i-1, launch a×1"},
		{"timeout continues", testGroup(1, "a"), []instance{waiting(pendingWait, resultContinue, t0)}, observed{}, "enter i-1"},
		{"died while booting", testGroup(1, "a"), []instance{member("i-1", "a", pending)}, observed{EC2: map[string]machine{"i-1": {State: "terminated", Reason: "x"}}}, "fail i-1, launch a×1"},
		{"dead is replaced", testGroup(1, "a"), []instance{member("i-1", "a", inService)}, observed{EC2: map[string]machine{"i-1": stop}}, "sick i-1, end i-1, launch a×1"},
		{"unknown to EC2 is replaced", testGroup(1, "a"), []instance{member("i-1", "a", inService)}, observed{EC2: map[string]machine{"i-1": {}}}, "sick i-1, end i-1, launch a×1"},
		{"health check suspended", alter(testGroup(1, "a"), func(g *group) { g.Suspended = map[string]string{"HealthCheck": "x"} }), []instance{member("i-1", "a", inService)}, observed{EC2: map[string]machine{"i-1": stop}}, ""},
		{"replacement suspended", alter(testGroup(1, "a"), func(g *group) { g.Suspended = map[string]string{"ReplaceUnhealthy": "x"} }), []instance{member("i-1", "a", inService)}, observed{EC2: map[string]machine{"i-1": stop}}, "sick i-1"},
		{"ELB health after grace", alter(testGroup(1, "a"), func(g *group) { g.HealthCheckType, g.TargetGroups = "ELB", []source{{ARN: "tg"}} }),
			[]instance{change(member("i-1", "a", inService), func(i *instance) { i.Registered = []string{"tg"} })}, observed{Targets: map[string]map[string]string{"tg": {"i-1": "unhealthy"}}}, "sick i-1, end i-1, launch a×1"},
		{"ELB health in grace", alter(testGroup(1, "a"), func(g *group) {
			g.HealthCheckType, g.TargetGroups, g.Grace = "ELB", []source{{ARN: "tg"}}, 2*time.Hour
		}),
			[]instance{change(member("i-1", "a", inService), func(i *instance) { i.Registered = []string{"tg"} })}, observed{Targets: map[string]map[string]string{"tg": {"i-1": "unhealthy"}}}, ""},
		{"standby is left alone", testGroup(0, "a"), []instance{member("i-1", "a", standby)}, observed{EC2: map[string]machine{"i-1": stop}}, ""},
		{"scale in takes the fullest zone", testGroup(2, "a", "b"), []instance{member("i-1", "a", inService), member("i-2", "b", inService), member("i-3", "b", inService)}, observed{}, "end i-2"},
		{"protected stays", testGroup(0, "a"), []instance{change(member("i-1", "a", inService), func(i *instance) { i.Protected = true })}, observed{}, ""},
		{"draining holds", testGroup(0, "a"), []instance{change(member("i-1", "a", terminating), func(i *instance) { i.Registered, i.Drained = []string{"tg"}, []string{"tg"} })},
			observed{Targets: map[string]map[string]string{"tg": {"i-1": "draining"}}}, ""},
		{"not told to drain holds", testGroup(0, "a"), []instance{change(member("i-1", "a", terminating), func(i *instance) { i.Registered = []string{"tg"} })},
			observed{Targets: map[string]map[string]string{"tg": {}}}, ""},
		{"drained goes", testGroup(0, "a"), []instance{change(member("i-1", "a", terminating), func(i *instance) { i.Registered, i.Drained = []string{"tg"}, []string{"tg"} })},
			observed{Targets: map[string]map[string]string{"tg": {}}}, "kill i-1"},
		{"terminate hook", hooked(testGroup(0, "a"), terminatingHook), []instance{member("i-1", "a", terminating)}, observed{}, "wait i-1"},
		{"terminate hook over", testGroup(0, "a"), []instance{waiting(terminatingWait, resultAbandon, t0)}, observed{}, "kill i-1"},
		{"gone", testGroup(0, "a"), []instance{member("i-1", "a", terminatingProceed)}, observed{EC2: map[string]machine{"i-1": {State: "terminated"}}}, "gone i-1"},
		{"shutting down is not gone", testGroup(0, "a"), []instance{member("i-1", "a", terminatingProceed)}, observed{EC2: map[string]machine{"i-1": {State: "shutting-down"}}}, ""},
		{"detached", testGroup(0, "a"), []instance{member("i-1", "a", detaching)}, observed{}, "detach i-1"},
		{"old age", alter(testGroup(1, "a"), func(g *group) { g.MaxLifetime = time.Hour }), []instance{member("i-1", "a", inService)}, observed{}, "end i-1"},
		{"rebalance launches first", testGroup(4, "a", "b"), []instance{member("i-1", "a", inService), member("i-2", "a", inService), member("i-3", "a", inService), member("i-4", "a", inService)}, observed{}, "launch b×2"},
		{"rebalance suspended", alter(testGroup(2, "a", "b"), func(g *group) { g.Suspended = map[string]string{"AZRebalance": "x"} }), []instance{member("i-1", "a", inService), member("i-2", "a", inService)}, observed{}, ""},
		{"surplus stays while new ones boot", alter(testGroup(1, "a", "b"), func(g *group) { g.Surplus = 1 }), []instance{member("i-1", "a", inService), member("i-2", "b", pending)}, observed{}, ""},
		{"force delete", alter(testGroup(0, "a"), func(g *group) { g.Deleting = true }), []instance{member("i-1", "a", pendingWait), member("i-2", "a", standby)}, observed{}, "kill i-1, kill i-2"},
		{"deleted", alter(testGroup(0, "a"), func(g *group) { g.Deleting = true }), nil, observed{}, "void"},
		{"intent keeps a deleted group", alter(testGroup(0, "a"), func(g *group) { g.Deleting, g.Launches = true, []launch{{Count: 1}} }), nil, observed{}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := brief(plan(tt.g, tt.ins, tt.o, t0)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestTerminationPolicies(t *testing.T) {
	old, young := member("i-old", "a", inService), member("i-young", "a", inService)
	old.Launched, young.Launched = t0.Add(-3*time.Hour), t0.Add(-time.Minute)
	young.Template.Version = "1"
	for policy, want := range map[string]string{"OldestInstance": "i-old", "NewestInstance": "i-young", "OldestLaunchTemplate": "i-young", "Default": "i-young"} {
		g := testGroup(1, "a")
		g.Policies = []string{policy}
		if acts := plan(g, []instance{old, young}, observed{}, t0); len(acts) != 1 || acts[0].ID != want {
			t.Errorf("%s takes %s, want %s", policy, brief(acts), want)
		}
	}
}

// TestPlanKeepsItsPromises plays plans of random groups: never more launched
// than is missing, never a protected instance out, never two orders for one
// instance's end, and launches as even as they can be.
func TestPlanKeepsItsPromises(t *testing.T) {
	states := []string{pending, pendingWait, inService, terminating, terminatingProceed, standby}
	rapid.Check(t, func(t *rapid.T) {
		zones := []string{"a", "b", "c"}[:rapid.IntRange(1, 3).Draw(t, "zones")]
		g := testGroup(rapid.Int64Range(0, 30).Draw(t, "desired"), zones...)
		if rapid.Bool().Draw(t, "strict") {
			g.Distribution = balancedOnly
		}
		if rapid.Bool().Draw(t, "blocked") {
			g.Blocked = map[string]time.Time{zones[0]: t0.Add(time.Minute)}
		}
		var ins []instance
		o := observed{EC2: map[string]machine{}}
		for i := range rapid.IntRange(0, 30).Draw(t, "instances") {
			m := member(fmt.Sprintf("i-%02d", i), rapid.SampledFrom(zones).Draw(t, "zone"), rapid.SampledFrom(states).Draw(t, "state"))
			m.Protected = rapid.Bool().Draw(t, "protected")
			if m.State == pendingWait {
				m.Waits = []wait{{Token: "t", Until: t0.Add(time.Hour), Last: t0.Add(time.Hour)}}
			}
			o.EC2[m.ID] = machine{State: rapid.SampledFrom([]string{"running", "terminated"}).Draw(t, "ec2")}
			ins = append(ins, m)
		}
		before := slices.Clone(ins)
		acts := plan(g, ins, o, t0)
		if !slices.EqualFunc(before, ins, func(a, b instance) bool { return a.ID == b.ID && a.State == b.State && a.Health == b.Health }) {
			t.Fatal("plan changed its input")
		}
		have := map[string]int{}
		total, launched := 0, 0
		ended := map[string]bool{}
		for _, a := range acts {
			if a.Verb == wantEnd || a.Verb == wantFail {
				if ended[a.ID] {
					t.Fatalf("%s ends twice", a.ID)
				}
				ended[a.ID] = true
			}
		}
		for _, m := range ins {
			if counts(m.State) && !ended[m.ID] {
				have[m.Zone]++
				total++
			}
			if ended[m.ID] && m.Protected && o.EC2[m.ID].State == "running" {
				t.Fatalf("%s was protected", m.ID)
			}
		}
		surplus := false
		for _, a := range acts {
			if a.Verb == wantMore {
				launched += a.Count
				have[a.Place.Zone] += a.Count
				surplus = surplus || a.Surplus
				if t0.Before(g.Blocked[a.Place.Zone]) {
					t.Fatalf("launched into %s, which has no capacity", a.Place.Zone)
				}
			}
		}
		if !surplus && launched > 0 && total+launched > int(g.Desired) {
			t.Fatalf("%d + %d launched for %d desired", total, launched, g.Desired)
		}
		if !surplus && launched > 0 && len(g.Blocked) == 0 && total+launched != int(g.Desired) {
			t.Fatalf("%d + %d launched for %d desired", total, launched, g.Desired)
		}
	})
}

func TestBackOffCountsOneAttemptOnce(t *testing.T) {
	g := testGroup(45, "a")
	for range 45 {
		backOff(&g, t0)
	}
	if g.Failures != 1 || !g.NotUntil.Equal(t0.Add(firstBackOff)) {
		t.Fatalf("%d failures, not until %v", g.Failures, g.NotUntil)
	}
	for range 40 {
		backOff(&g, g.NotUntil)
	}
	last := g.NotUntil
	if backOff(&g, last); g.NotUntil.Sub(last) != mostBackOff {
		t.Fatalf("backs off %v, want %v", g.NotUntil.Sub(last), mostBackOff)
	}
}
