package pipeline

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Those that boot side by side slow each other down: they go in turns, and
// what is larger than a turn goes alone.
func TestGrantLaunching(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	var claims []Claim
	for i := range 5 {
		claims = append(claims, Claim{Run: "r1", Suite: fmt.Sprintf("s%d", i), Team: "a", Size: 45, Since: now})
	}
	granted := func() int {
		got, waits := Grant(claims, Capacity{Launching: 90}, now)
		for _, why := range waits {
			if !strings.Contains(why, "--test-launching allows 90") {
				t.Errorf("waits: %s", why)
			}
		}
		return len(got)
	}
	if n := granted(); n != 2 {
		t.Errorf("%d begin together", n)
	}
	claims[0].Held, claims[0].Launching = true, true
	if n := granted(); n != 1 {
		t.Errorf("%d begin beside one that is launched", n)
	}
	claims[0].Launching = false // it serves
	if n := granted(); n != 2 {
		t.Errorf("%d begin beside one that serves", n)
	}
	claims = []Claim{{Run: "r1", Suite: "big", Size: 500, Since: now}}
	if n := granted(); n != 1 {
		t.Error("a large one never begins")
	}
	r := Run{Name: "r1", Suites: []Suite{{Name: "a", Phase: Launching}, {Name: "b", Phase: Running}}}
	if cs := r.Claims(); !cs[0].Launching || cs[1].Launching || !cs[1].Held {
		t.Errorf("%+v", cs)
	}
}

func TestGrant(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	wait := func(run, suite, team string, size int, since time.Duration) Claim {
		return Claim{Run: run, Suite: suite, Team: team, Size: size, Since: now.Add(-since)}
	}
	held := func(run, suite, team string, size int) Claim {
		return Claim{Run: run, Suite: suite, Team: team, Size: size, Held: true}
	}
	limited := func(c Claim, n int) Claim { c.AtOnce = n; return c }
	shared := []Claim{}
	for i := range Listeners + 1 {
		c := wait("r1", fmt.Sprintf("s%02d", i), "a", 1, time.Minute)
		c.Shared = true
		shared = append(shared, c)
	}
	for _, c := range []struct {
		name   string
		claims []Claim
		quota  int
		want   string
		why    string // of the first that waits
	}{
		{"no quota", []Claim{wait("r1", "x", "a", 500, 0)}, 0, "r1/x", ""},
		{"the team with less is first", []Claim{held("r1", "w", "a", 10), wait("r1", "x", "a", 5, time.Minute), wait("r2", "y", "b", 5, 0)}, 15, "r2/y", "runs have 15 of 15"},
		{"then the run with less", []Claim{held("r1", "w", "a", 10), wait("r1", "x", "a", 5, time.Minute), wait("r2", "y", "a", 5, 0)}, 15, "r2/y", "its team has 15"},
		{"then who waits longest", []Claim{wait("r2", "y", "a", 5, time.Second), wait("r1", "x", "a", 5, 0)}, 5, "r2/y", ""},
		{"teams take turns", []Claim{wait("r1", "x", "a", 4, 9), wait("r1", "y", "a", 4, 9), wait("r2", "z", "b", 4, 0)}, 8, "r1/x r2/z", ""},
		{"a small one passes", []Claim{held("r1", "w", "a", 10), wait("r2", "x", "b", 45, 0), wait("r1", "y", "a", 5, 0)}, 50, "r1/y", "needs 45"},
		{"not when it is overdue", []Claim{held("r1", "w", "a", 10), wait("r2", "x", "b", 45, Overdue), wait("r1", "y", "a", 5, 0)}, 50, "", ""},
		{"what never fits holds nobody up", []Claim{wait("r2", "x", "b", 60, Overdue), wait("r1", "y", "a", 5, 0)}, 50, "r1/y", "--test-instances"},
		{"the run's own limit", []Claim{limited(held("r1", "w", "a", 3), 4), limited(wait("r1", "x", "a", 3, 0), 4)}, 0, "", "runs.at_once"},
		{"listeners", shared, 0, strings.TrimSpace(strings.Repeat("* ", Listeners)), "no listener left"},
	} {
		granted, waits := Grant(c.claims, Capacity{Instances: c.quota}, now)
		var got []string
		for _, g := range granted {
			got = append(got, g.Run+"/"+g.Suite)
		}
		want := c.want
		if strings.HasPrefix(want, "*") {
			if len(got) != Listeners {
				t.Errorf("%s: %d granted", c.name, len(got))
			}
		} else if strings.Join(got, " ") != want {
			t.Errorf("%s: granted %v, want %s", c.name, got, want)
		}
		said := ""
		for _, w := range waits {
			said += w + "\n"
		}
		if !strings.Contains(said, c.why) {
			t.Errorf("%s: it says %q, want %q", c.name, said, c.why)
		}
	}
}

// However claims come and go, the quota is never exceeded, whoever waits knows
// why, and whoever can fit gets its turn.
func TestGrantFairly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		quota := rapid.IntRange(5, 60).Draw(t, "quota")
		now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
		type one struct {
			Claim
			until time.Time
		}
		var all []one
		serial := 0
		const longest = 20 * time.Minute
		arrive := rapid.IntRange(1, 60).Draw(t, "steps that bring claims")
		for step := 0; step < 3000; step++ {
			if step < arrive {
				for range rapid.IntRange(0, 3).Draw(t, "new") {
					serial++
					all = append(all, one{Claim: Claim{
						Run: fmt.Sprintf("r%d", rapid.IntRange(1, 6).Draw(t, "run")), Suite: fmt.Sprintf("s%04d", serial),
						Team: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "team"),
						Size: rapid.IntRange(1, quota).Draw(t, "size"), Since: now,
					}})
				}
			}
			live := all[:0]
			for _, o := range all {
				if !o.Held || o.until.After(now) {
					live = append(live, o)
				}
			}
			all = live
			if len(all) == 0 && step >= arrive {
				return
			}
			var claims []Claim
			used := 0
			for _, o := range all {
				claims = append(claims, o.Claim)
				if o.Held {
					used += o.Size
				}
			}
			granted, waits := Grant(claims, Capacity{Instances: quota}, now)
			waiting := len(claims)
			for _, c := range claims {
				if c.Held {
					waiting--
				}
			}
			if len(granted)+len(waits) != waiting {
				t.Fatalf("%d granted and %d told why, of %d", len(granted), len(waits), waiting)
			}
			for _, g := range granted {
				used += g.Size
				for i := range all {
					if all[i].Suite == g.Suite {
						all[i].Held = true
						all[i].until = now.Add(time.Duration(rapid.IntRange(1, int(longest/time.Minute)).Draw(t, "minutes")) * time.Minute)
					}
				}
			}
			if used > quota {
				t.Fatalf("%d of %d", used, quota)
			}
			// Nobody younger passes a claim that is overdue, so that all
			// that it waits for is what others have, which ends.
			for _, c := range claims {
				if _, waits := waits[[2]string{c.Run, c.Suite}]; !waits || now.Sub(c.Since) < Overdue {
					continue
				}
				for _, g := range granted {
					if g.Since.After(c.Since) {
						t.Fatalf("%+v passes %+v, which is overdue", g, c)
					}
				}
			}
			if used == 0 && waiting > 0 {
				t.Fatalf("%d claims wait and nobody has anything", waiting)
			}
			now = now.Add(time.Minute)
		}
		t.Fatalf("%d claims are there after two days", len(all))
	})
}
