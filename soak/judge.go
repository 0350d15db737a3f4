package main

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/soak/load"
)

// result is build/soak.json.
type result struct {
	Requests       int     `json:"requests"`
	FailedPlanned  int     `json:"failed_planned"`
	FailedOnKill   int     `json:"failed_on_kill"`
	Launches       int     `json:"launches"`
	LaunchFailures int     `json:"launch_failures"`
	FloorBroken    int     `json:"floor_broken"`
	Minutes        float64 `json:"minutes"`
}

// report is all that there is to tell.
type report struct {
	result
	world  *world
	Bound  float64 // of the share of launches that fail: 95 % sure that it is below
	Met    int     // requests that a bad release answered badly
	Unseen int     // looks at the fleet without an answer
	Lowest int     // healthy at once
	Bad    []load.Failure
	Lost   []instance.Instance
}

// slack is how long after a kill a request may have been on its way to the
// instance: until the balancer sees that the connection is cut.
const slack = 250 * time.Millisecond

// why a request failed.
type cause int

const (
	ofPlan cause = iota
	ofKill
	ofRelease
)

// blame says what a failed request is counted as. Only one that was under way
// when something was killed may be cut off by it, and only an answer of the
// bad release itself is its own.
func blame(f load.Failure, kills []kill, met []span) cause {
	for _, m := range met {
		if strings.HasPrefix(f.Problem, "500 ") && f.Ended.After(m.from) && f.Meant.Before(m.to) {
			return ofRelease
		}
	}
	for _, k := range kills {
		if f.Meant.Before(k.To.Add(slack)) && f.Ended.After(k.From) {
			return ofKill
		}
	}
	return ofPlan
}

// judge counts.
func (w *world) judge() *report {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &report{world: w, Lowest: math.MaxInt}
	r.Requests = w.asked.Requests
	r.Minutes = math.Round(w.lasted.Minutes()*100) / 100
	for _, f := range w.asked.Failures {
		switch blame(f, w.kills, w.met) {
		case ofKill:
			r.FailedOnKill++
		case ofRelease:
			r.Met++
		default:
			r.FailedPlanned++
			r.Bad = append(r.Bad, f)
		}
	}
	for _, i := range w.lives {
		// Those that still boot when all is over say nothing yet.
		if w.faults[i.Generation] || i.State == instance.Launching {
			continue
		}
		r.Launches++
		if i.Cause == instance.NeverReady && !w.killed[i.ID] {
			r.LaunchFailures++
			r.Lost = append(r.Lost, i)
		}
	}
	r.Bound = bound(r.LaunchFailures, r.Launches)
	for _, s := range w.samples {
		if !s.Seen {
			r.Unseen++
			continue
		}
		r.Lowest = min(r.Lowest, s.Healthy)
		if s.Healthy < w.Instances {
			r.FloorBroken++
		}
	}
	w.wholeAgain()
	return r
}

// wholeAgain finds for each kill when the fleet was as strong as before it.
func (w *world) wholeAgain() {
	for n := range w.kills {
		k := &w.kills[n]
		before := 0
		for _, s := range w.samples {
			if !s.Seen {
				continue
			}
			if !s.At.After(k.From) {
				before = s.Healthy
			} else if s.At.After(k.To.Add(every)) && s.Healthy >= before {
				k.Whole = s.At.Sub(k.From)
				break
			}
		}
	}
}

// bound is the share below which the true one lies with 95 % certainty, after
// failed of n were seen to fail (Clopper and Pearson's, one-sided).
func bound(failed, n int) float64 {
	if n == 0 || failed >= n {
		return 1
	}
	low, high := float64(failed)/float64(n), 1.0
	for range 60 {
		p := (low + high) / 2
		if atMost(failed, n, p) > 0.05 {
			low = p
		} else {
			high = p
		}
	}
	return high
}

// atMost is the chance of k failures or fewer in n tries.
func atMost(k, n int, p float64) float64 {
	sum := 0.0
	for i := range k + 1 {
		sum += math.Exp(choose(n, i) + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
	}
	return sum
}

func choose(n, k int) float64 {
	l := func(x int) float64 { v, _ := math.Lgamma(float64(x) + 1); return v }
	return l(n) - l(k) - l(n-k)
}

// verdict is what must hold.
func (r *report) verdict() error {
	var errs []error
	if r.FailedPlanned > 0 {
		errs = append(errs, fmt.Errorf("%d requests failed that nothing was killed under", r.FailedPlanned))
	}
	if r.FloorBroken > 0 {
		errs = append(errs, fmt.Errorf("fewer than %d were healthy at %d looks, %d at the least", r.world.Instances, r.FloorBroken, r.Lowest))
	}
	if r.LaunchFailures > 0 {
		errs = append(errs, fmt.Errorf("%d of %d launches never served", r.LaunchFailures, r.Launches))
	}
	for _, f := range r.world.figures {
		if f.Name == "going back, from the click to all traffic" && f.Seconds[0] >= 2 {
			errs = append(errs, fmt.Errorf("going back took %.1f s", f.Seconds[0]))
		}
	}
	if r.Requests == 0 {
		errs = append(errs, errors.New("nobody asked anything"))
	}
	return errors.Join(errs...)
}
