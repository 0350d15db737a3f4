package instance

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// zoned plays an Auto Scaling group that is balanced over three zones, and
// keeps a lost zone's share for later.
type zoned struct {
	fleet
	down string
}

func (z *zoned) pass(d time.Duration) {
	z.now = z.now.Add(d)
	z.view.Members = slices.DeleteFunc(z.view.Members, func(m Member) bool {
		return m.Lifecycle == "Terminating" || m.Zone == z.down
	})
	have := map[string]int{}
	for k := range z.view.Members {
		m := &z.view.Members[k]
		if m.Lifecycle == "Pending:Wait" && !z.now.Before(m.Launched.Add(z.takes)) {
			m.Lifecycle, m.Healthy, m.InService = "InService", true, z.now
		}
		have[m.Zone]++
	}
	for n := z.view.Desired - len(z.view.Members); n > 0; n-- {
		at := slices.MinFunc([]string{"a", "b", "c"}, func(x, y string) int { return have[x] - have[y] })
		have[at]++
		if at == z.down {
			continue
		}
		z.serial++
		m := Member{Lifecycle: "Pending:Wait"}
		m.ID, m.Launched, m.Zone = fmt.Sprintf("i-%04d", z.serial), z.now, at
		z.view.Members = append(z.view.Members, m)
	}
	z.view.Lost, z.view.Zones = nil, 3
	if z.down != "" {
		z.view.Lost = []string{z.down}
	}
}

// With a zone lost the others carry on: who is asked to go there is replaced,
// none of the rest is ended for it, and the zone comes back without a storm.
func TestPlanWithALostZone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(6, 69).Draw(t, "size")
		p := Policy{Size: size, Takes: 30 * time.Second, Grace: 10 * time.Second, Touched: true}
		z := &zoned{fleet: fleet{now: start, takes: 20 * time.Second, view: View{Desired: size, Min: size, Max: size + Surge(size)}}}
		z.pass(0)
		z.pass(z.takes)
		z.down = rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "zone")
		z.pass(0)
		rest := z.serving()
		n := rapid.IntRange(1, 5).Draw(t, "asked")
		for k := range min(n, len(z.view.Members)) {
			z.view.Members[k].Ask = &Ask{By: "ann"}
		}
		asked := func() (n int) {
			for _, m := range z.view.Members {
				if m.Ask != nil {
					n++
				}
			}
			return n
		}
		run := func(rounds int) {
			for range rounds {
				d := Plan(p, z.view, z.now)
				leaving := 0
				for _, a := range d.Actions {
					k := slices.IndexFunc(z.view.Members, func(m Member) bool { return m.ID == a.ID })
					switch a.Verb {
					case Mark:
						z.view.Members[k].Leave = &Leave{Cause: a.Cause, Since: z.now}
					case Desire:
						if a.N > z.view.Max || a.N < z.view.Min {
							t.Fatalf("desired %d beyond %d-%d", a.N, z.view.Min, z.view.Max)
						}
						z.view.Desired = a.N
					case End:
						z.view.Members[k].Lifecycle, z.view.Members[k].Healthy = "Terminating", false
						if a.Shrink {
							z.view.Desired--
						}
					}
				}
				if got := z.serving(); got < rest {
					t.Fatalf("%d serve while a zone is lost, and %d did when it went: %s", got, rest, z)
				}
				for _, m := range z.view.Members {
					if m.Leave != nil && m.Lifecycle == "InService" {
						leaving++
					}
				}
				if leaving > limit(size) {
					t.Fatalf("%d of %d are replaced at once", leaving, size)
				}
				z.pass(5 * time.Second)
			}
		}
		run(80)
		// A group with room for one more may wish it into the lost zone: then it
		// waits.
		if asked() > 0 && Surge(size) > 1 {
			t.Fatalf("%d that were asked to go are there still: %v %s", asked(), Plan(p, z.view, z.now).Waits, z)
		}
		z.down = ""
		before, left := z.serial, asked()
		z.pass(0)
		run(50)
		if z.serving() != size || z.view.Desired != size {
			t.Fatalf("the zone is back, %d of %d serve, %d are desired: %s", z.serving(), size, z.view.Desired, z)
		}
		// What was lost is launched once, with one or two that were on their way.
		if launched := z.serial - before; launched > size-rest+Surge(size)+left {
			t.Fatalf("%d launches for the %d that were lost", launched, size-rest)
		}
	})
}
