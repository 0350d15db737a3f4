package pipeline

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Claim is a suite's wish for instances, or what it has of them.
type Claim struct {
	Run, Suite, Team string
	Size             int
	Since            time.Time // it waits since then
	Held             bool      // it has them
	Launching        bool      // it has them, and they do not all serve yet
	AtOnce           int       // instances of its run at once, 0 = no limit of its own
	Shared           bool      // its run's suites share a load balancer
}

// Capacity is what all runs may have at once.
type Capacity struct {
	Instances int // 0 = no limit
	// Launching is how many instances may be on their way into service at once,
	// 0 = no limit. Where all instances share one machine, those that boot side
	// by side slow each other down until the first miss their deadlines.
	Launching int
}

// Listeners is how many suites' environments share a load balancer: AWS gives
// it 50 listeners, one is the foundation's own.
const Listeners = 48

// Overdue is how long a claim waits at most for reasons of fairness: from then
// on the claims go by age, and none overtakes an older one.
const Overdue = 30 * time.Minute

// Grant decides which waiting claims get their instances now, and why the
// others do not. It is pure.
//
// The team with the fewest instances is next, then its run with the fewest,
// then the claim that waits longest. A claim that does not fit lets smaller
// ones pass, until it is overdue: then nobody passes it, so that it gets its
// turn when enough of what others hold has come back. A claim that can never
// fit holds nobody up.
func Grant(claims []Claim, c Capacity, now time.Time) (granted []Claim, waits map[[2]string]string) {
	used, launching := 0, 0
	teams, runs, shared := map[string]int{}, map[string]int{}, map[string]int{}
	take := func(x Claim) {
		used += x.Size
		if x.Launching || !x.Held {
			launching += x.Size
		}
		teams[x.Team] += x.Size
		runs[x.Run] += x.Size
		if x.Shared {
			shared[x.Run]++
		}
	}
	var waiting []Claim
	for _, x := range claims {
		if x.Held {
			take(x)
		} else {
			waiting = append(waiting, x)
		}
	}
	waits = map[[2]string]string{}
	overdue := func(x Claim) bool { return now.Sub(x.Since) >= Overdue }
	order := func(a, b Claim) int {
		if oa, ob := overdue(a), overdue(b); oa != ob {
			if oa {
				return -1
			}
			return 1
		} else if !oa {
			if d := cmp.Or(cmp.Compare(teams[a.Team], teams[b.Team]), cmp.Compare(runs[a.Run], runs[b.Run])); d != 0 {
				return d
			}
		}
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Run, b.Run), cmp.Compare(a.Suite, b.Suite))
	}
	stop := "" // the overdue claim that nobody passes
	for len(waiting) > 0 {
		i := 0
		for j := range waiting {
			if order(waiting[j], waiting[i]) < 0 {
				i = j
			}
		}
		x := waiting[i]
		waiting = slices.Delete(waiting, i, i+1)
		why := ""
		switch {
		case c.Instances > 0 && x.Size > c.Instances:
			why = fmt.Sprintf("it asks for %d instances, and the server allows %d for all runs; an administrator can raise --test-instances", x.Size, c.Instances)
		case x.AtOnce > 0 && x.Size > x.AtOnce:
			why = fmt.Sprintf("it asks for %d instances, and runs.at_once is %d", x.Size, x.AtOnce)
		case x.AtOnce > 0 && runs[x.Run]+x.Size > x.AtOnce:
			why = fmt.Sprintf("its run has %d of the %d instances that runs.at_once allows, and it needs %d", runs[x.Run], x.AtOnce, x.Size)
		case x.Shared && shared[x.Run] >= Listeners:
			why = fmt.Sprintf("%d environments of its run are at the shared load balancer, which has no listener left", shared[x.Run])
		case stop != "":
			why = fmt.Sprintf("%s waits longer and is next", stop)
		case c.Instances > 0 && used+x.Size > c.Instances:
			why = fmt.Sprintf("runs have %d of %d instances, and it needs %d; its team has %d", used, c.Instances, x.Size, teams[x.Team])
			if overdue(x) {
				stop = x.Run + " " + x.Suite
			}
		case c.Launching > 0 && launching > 0 && launching+x.Size > c.Launching:
			// Whatever its size, a suite may be launched alone.
			why = fmt.Sprintf("%d instances of runs are being launched, and --test-launching allows %d at once", launching, c.Launching)
		}
		if why != "" {
			waits[[2]string{x.Run, x.Suite}] = why
			continue
		}
		take(x)
		granted = append(granted, x)
	}
	return granted, waits
}

// Claims are the run's own, waiting and held.
func (r Run) Claims() []Claim {
	if r.Phase == Done {
		return nil
	}
	var out []Claim
	for _, s := range r.Suites {
		c := Claim{Run: r.Name, Suite: s.Name, Team: cmp.Or(r.Team, r.Blueprint), Size: s.Size, Since: s.Queued, AtOnce: r.AtOnce, Shared: r.Foundation != ""}
		switch s.Phase {
		case Queued:
		case Launching, Running, Waiting, Retrying, Ending:
			c.Held, c.Launching = true, s.Phase == Launching
		default:
			continue
		}
		out = append(out, c)
	}
	return out
}
