package instance

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// fleet plays an Auto Scaling group: it launches what is desired, and never
// ends anybody by itself.
type fleet struct {
	now       time.Time
	serial    int
	view      View
	takes     time.Duration
	maxAge    time.Duration
	born      map[string]time.Time
	lifeOver  time.Duration // the oldest that was seen
	duds      int           // so many of the next launches fail when they serve
	zones     int
	downZones map[string]bool
}

func newFleet(size, surge int, maxAge, takes time.Duration) *fleet {
	f := &fleet{now: start, takes: takes, maxAge: maxAge, born: map[string]time.Time{}, zones: 3, downZones: map[string]bool{}}
	f.view = View{Desired: size, Min: size, Max: size + surge}
	f.pass(0)
	f.pass(takes)
	return f
}

func (f *fleet) pass(d time.Duration) {
	f.now = f.now.Add(d)
	live := 0
	f.view.Members = slices.DeleteFunc(f.view.Members, func(m Member) bool { return m.Lifecycle == "Terminating" })
	for k := range f.view.Members {
		m := &f.view.Members[k]
		if m.Lifecycle == "Pending:Wait" && !f.now.Before(m.Launched.Add(f.takes)) {
			m.Lifecycle, m.Healthy, m.InService = "InService", true, f.now
			if f.duds > 0 {
				f.duds--
				m.Healthy, m.Failing = false, f.now
			}
		}
		if m.Lifecycle == "InService" || m.Lifecycle == "Pending:Wait" {
			live++
		}
		f.lifeOver = max(f.lifeOver, f.now.Sub(m.Launched))
	}
	for ; live < f.view.Desired; live++ {
		f.serial++
		m := Member{Lifecycle: "Pending:Wait"}
		m.ID, m.Launched, m.Zone = fmt.Sprintf("i-%04d", f.serial), f.now, string(rune('a'+f.serial%f.zones))
		m.Due, m.Deadline = Born(m.ID, m.Launched, f.maxAge)
		f.view.Members = append(f.view.Members, m)
	}
}

func (f *fleet) serving() (n int) {
	for _, m := range f.view.Members {
		if m.Lifecycle == "InService" && m.Healthy {
			n++
		}
	}
	return n
}

// act carries a decision out and returns what broke a rule.
func (f *fleet) act(p Policy, d Decision) (broken string) {
	for _, a := range d.Actions {
		i := slices.IndexFunc(f.view.Members, func(m Member) bool { return m.ID == a.ID })
		switch a.Verb {
		case Mark:
			f.view.Members[i].Leave = &Leave{Cause: a.Cause, Since: f.now}
		case Desire:
			if a.N > f.view.Max || a.N < f.view.Min {
				return fmt.Sprintf("desired %d beyond %d-%d", a.N, f.view.Min, f.view.Max)
			}
			f.view.Desired = a.N
		case End, StandBy:
			m := &f.view.Members[i]
			if m.Healthy && f.serving()-1 < p.Size && f.view.Max > p.Size {
				return fmt.Sprintf("%s ends with %d of %d serving", a.ID, f.serving()-1, p.Size)
			}
			if m.Healthy && f.serving() < p.Size {
				return fmt.Sprintf("%s ends while %d of %d serve", a.ID, f.serving(), p.Size)
			}
			if a.Shrink {
				if f.view.Desired <= f.view.Min {
					return "below the minimum"
				}
				f.view.Desired--
			}
			m.Lifecycle, m.Healthy = "Terminating", false
			if a.Verb == StandBy {
				m.Lifecycle = "Standby"
			}
		case Terminate:
			f.view.Members[i].Lifecycle = "Terminating"
		}
	}
	return ""
}

func (f *fleet) random(t *rapid.T, want func(Member) bool) *Member {
	var all []int
	for k, m := range f.view.Members {
		if m.Lifecycle == "InService" && want(m) {
			all = append(all, k)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return &f.view.Members[rapid.SampledFrom(all).Draw(t, "member")]
}

// Whatever happens to a fleet, nothing that we end takes it below its size, it
// becomes whole again, and nothing leaves for ever.
func TestPlanKeepsTheFleet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 12).Draw(t, "size")
		surge := rapid.IntRange(0, 5).Draw(t, "surge")
		p := Policy{Size: size, Takes: 30 * time.Second, Grace: 10 * time.Second, Touched: true}
		f := newFleet(size, surge, 0, p.Takes)
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			switch rapid.SampledFrom([]string{"die", "fail", "recover", "touch", "keep", "ask", "dud", "calm"}).Draw(t, "event") {
			case "die":
				if m := f.random(t, func(Member) bool { return true }); m != nil {
					m.Lifecycle, m.Healthy = "Terminating", false
				}
			case "fail":
				if m := f.random(t, func(m Member) bool { return m.Healthy }); m != nil {
					m.Healthy, m.Failing = false, f.now
				}
			case "recover":
				if m := f.random(t, func(m Member) bool { return !m.Healthy }); m != nil {
					m.Healthy, m.Failing = true, time.Time{}
				}
			case "touch":
				if m := f.random(t, func(m Member) bool { return m.Touch == nil }); m != nil {
					m.Touch = &Touch{What: []string{"/etc/passwd"}, At: f.now}
				}
			case "keep":
				if m := f.random(t, func(m Member) bool { return m.Keep == nil }); m != nil {
					m.Keep = &Keep{Until: f.now.Add(time.Minute), By: "ann"}
				}
			case "ask":
				if m := f.random(t, func(m Member) bool { return m.Ask == nil }); m != nil {
					m.Ask = &Ask{By: "ann"}
				}
			case "dud":
				f.duds++
			}
			for range rapid.IntRange(0, 6).Draw(t, "rounds") {
				if broken := f.act(p, Plan(p, f.view, f.now)); broken != "" {
					t.Fatal(broken)
				}
				f.pass(5 * time.Second)
			}
		}
		f.duds = 0
		for range 200 {
			d := Plan(p, f.view, f.now)
			if broken := f.act(p, d); broken != "" {
				t.Fatal(broken)
			}
			if len(d.Waits) > 0 && d.Waits[0].Rule == "zone-failing" { // it comes back
				for k := range f.view.Members {
					f.view.Members[k].Healthy, f.view.Members[k].Failing = f.view.Members[k].Lifecycle == "InService", time.Time{}
				}
			}
			f.pass(5 * time.Second)
		}
		if f.serving() != size || f.view.Desired != size {
			t.Fatalf("at the end %d of %d serve, %d are desired: %s", f.serving(), size, f.view.Desired, f)
		}
		for _, m := range f.view.Members {
			willing := m.Touch != nil || m.Ask != nil || m.Keep != nil
			if m.Leave != nil || m.Lifecycle != "InService" || (willing && (size > 1 || surge > 0)) {
				t.Fatalf("at the end: %s", f)
			}
		}
	})
}

func (f *fleet) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "desired %d of %d-%d", f.view.Desired, f.view.Min, f.view.Max)
	for _, m := range f.view.Members {
		fmt.Fprintf(&b, "\n  %s %s healthy=%v leave=%v touch=%v ask=%v keep=%v", m.ID, m.Lifecycle, m.Healthy, m.Leave, m.Touch, m.Ask, m.Keep)
	}
	return b.String()
}

// A fleet that was born at once is replaced before any of it is too old, and
// never many at a time.
func TestPlanReplacesInTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 60).Draw(t, "size")
		takes := time.Duration(rapid.IntRange(5, 60).Draw(t, "takes")) * time.Second
		// The least time in which limit(size) at once can do all, and more.
		rounds := (size + limit(size) - 1) / limit(size)
		maxAge := time.Duration(rapid.IntRange(3, 20).Draw(t, "ages")) * time.Duration(rounds) * 2 * takes
		p := Policy{Size: size, Takes: 2 * takes, Grace: 10 * time.Second}
		f := newFleet(size, max(1, (size+4)/5), maxAge, takes)
		most := 0
		for f.now.Before(start.Add(5 * maxAge / 2)) {
			if broken := f.act(p, Plan(p, f.view, f.now)); broken != "" {
				t.Fatal(broken)
			}
			leaving := 0
			for _, m := range f.view.Members {
				if m.Leave != nil && m.Lifecycle == "InService" {
					leaving++
				}
			}
			most = max(most, leaving)
			f.pass(max(takes/5, time.Second))
		}
		if f.lifeOver > maxAge {
			t.Fatalf("one lived %s, %s is the most", f.lifeOver, maxAge)
		}
		if most > limit(size) {
			t.Fatalf("%d of %d were replaced at once", most, size)
		}
		if f.serial <= size {
			t.Fatal("nothing was replaced")
		}
	})
}

func member(id, zone string, healthy bool) Member {
	m := Member{Lifecycle: "InService", Healthy: healthy}
	m.ID, m.Zone, m.Launched, m.InService = id, zone, start, start
	if !healthy {
		m.Failing = start
	}
	return m
}

func TestPlanBrakes(t *testing.T) {
	now := start.Add(time.Hour)
	fleet := func(sick ...int) View {
		v := View{Desired: 12, Min: 12, Max: 15}
		for i := range 12 {
			v.Members = append(v.Members, member(fmt.Sprintf("i-%02d", i), string(rune('a'+i%3)), !slices.Contains(sick, i)))
		}
		return v
	}
	p := Policy{Size: 12, Takes: time.Minute, Grace: 10 * time.Second, Touched: true}
	show := func(d Decision) string {
		var s []string
		for _, a := range d.Actions {
			s = append(s, strings.TrimSpace(fmt.Sprintf("%s %s", a.Verb, a.ID)))
		}
		for _, w := range d.Waits {
			s = append(s, "wait "+w.Rule)
		}
		return strings.Join(s, ", ")
	}
	backing := fleet(0)
	backing.Members[0].Failures = 3
	backing.Members[0].Failing = now.Add(-time.Minute)
	full := fleet(0)
	full.Max = 12
	held := fleet()
	held.Members[4].Ask = &Ask{By: "ann"}
	hold := p
	hold.Hold = "a deploy is under way"
	for _, c := range []struct {
		name string
		p    Policy
		v    View
		want string
	}{
		{"whole", p, fleet(), ""},
		{"one fails", p, fleet(4), "mark i-04, desire"},
		{"two in two zones", p, fleet(4, 5), "mark i-04, mark i-05, desire"},
		{"many fail together", p, fleet(0, 1, 2, 3, 4, 5), "mark i-00, desire, wait instances-fail-together"},
		{"all fail", p, fleet(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), "mark i-00, desire, wait instances-fail-together"},
		{"a zone fails", p, fleet(0, 3, 6, 9), "wait zone-failing"},
		{"its ancestors failed too", p, backing, "wait replacement-backs-off"},
		{"no room for a replacement", p, full, "mark i-00, end i-00"},
		{"asked, and held", hold, held, "wait replacement-held"},
		{"asked", p, held, "mark i-04, desire"},
	} {
		if got := show(Plan(c.p, c.v, now)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestBornSpreads(t *testing.T) {
	var parts [7]int
	for i := range 7000 {
		due, deadline := Born(fmt.Sprintf("i-%017x", i), start, 100*time.Minute)
		if deadline != start.Add(100*time.Minute) {
			t.Fatal(deadline)
		}
		m := int(due.Sub(start).Minutes()) - 60
		if m < 0 || m >= 35 {
			t.Fatalf("due after %s", due.Sub(start))
		}
		parts[m/5]++
	}
	for _, n := range parts {
		if n < 850 || n > 1150 {
			t.Errorf("not spread evenly: %v", parts)
		}
	}
}
