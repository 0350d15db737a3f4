// Package report makes the figures of a period out of records: how often
// launches fail, how long environments were up, deploys, the time from a push to
// tested, hours and cost, what was saved against the process that was there
// before. A figure that nothing tells of is left out, and a note says why. It is
// pure and must not know where records come from.
package report

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/dayfly-infra/dayfly/internal/currency"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
)

// Input is all that a report is made of.
type Input struct {
	Now, From, To time.Time // of Period
	Config        Config
	Environments  []environment.Environment
	Generations   []environment.Generation
	Instances     []instance.Instance
	Tallies       []Tally
	Runs          []pipeline.Run
	Events        []event.Event // of environments, instances and orphans; all that are kept from From on, or more
	Oldest        time.Time     // event that is kept
	Bakes         []Bake
	Images        []currency.Status
	Swept         time.Time // the last sweep; zero: none since the server began
	Orphans       int       // that it left
}

// Bake is the end of an image's making.
type Bake struct {
	Ended  time.Time
	Failed bool
}

// Report is the figures of a period.
type Report struct {
	From time.Time `json:"from" doc:"midnight, UTC"`
	To   time.Time `json:"to" doc:"midnight, UTC, or now; not part of the period"`
	Made time.Time `json:"made"`

	Launches Launches `json:"launches"`
	Deploys  Deploys  `json:"deploys"`
	Push     Took     `json:"push_to_tested" doc:"from the forge's hook to the last result, of runs that passed"`
	Start    Took     `json:"start_to_tested" doc:"the same of runs that a person or a schedule started"`
	Tests    Tests    `json:"tests"`
	Bakes    Bakes    `json:"bakes"`
	Orphans  Orphans  `json:"orphans"`
	Images   Images   `json:"images"`

	Hours    float64  `json:"instance_hours"`
	Currency string   `json:"currency,omitempty"`
	Cost     *float64 `json:"cost,omitempty" doc:"hours times the price list; absent without prices"`
	Unpriced []string `json:"unpriced,omitempty" doc:"instance types that had hours and have no price: they are in no cost"`

	Environments []Row `json:"environments"`
	Teams        []Row `json:"teams"`

	Saved *Saved `json:"saved,omitempty" doc:"against the operator's baseline; absent without one"`

	Notes []string `json:"notes" doc:"what is not known, and why"`
}

// Launches are instances that were launched in the period.
type Launches struct {
	Launched  int      `json:"launched"`
	InService int      `json:"in_service"`
	Failed    int      `json:"failed" doc:"ended by themselves, or were given up, before they came into service"`
	Rate      *float64 `json:"rate,omitempty" doc:"failed of those that came into service or failed, 0 to 1"`
	Bound     *float64 `json:"bound,omitempty" doc:"upper bound of the rate with 95 % certainty"`
}

// Took is how long something took.
type Took struct {
	Count  int      `json:"count"`
	Median *float64 `json:"median_seconds,omitempty"`
	P90    *float64 `json:"p90_seconds,omitempty"`
}

// Deploys are generations that were begun, but for those of test runs.
type Deploys struct {
	Begun     int  `json:"begun"`
	Ready     int  `json:"ready"`
	Failed    int  `json:"failed"`
	Rollbacks int  `json:"rollbacks"`
	Took      Took `json:"took" doc:"from the record until all instances were healthy"`
}

// Tests are runs that were started, and their suites.
type Tests struct {
	Runs         int `json:"runs"`
	Passed       int `json:"passed"`
	Failed       int `json:"failed"`
	Canceled     int `json:"canceled"`
	Suites       int `json:"suites"`
	SuitesPassed int `json:"suites_passed"`
	SuitesFailed int `json:"suites_failed"`
	Flaky        int `json:"flaky" doc:"suites that passed, and not at the first try"`
}

// Bakes are images that were made.
type Bakes struct {
	Made   int `json:"made"`
	Failed int `json:"failed"`
}

// Orphans are what belonged to nothing.
type Orphans struct {
	Removed int       `json:"removed" doc:"in the period"`
	Left    int       `json:"left" doc:"by the last sweep"`
	Swept   time.Time `json:"swept,omitzero" doc:"the last sweep since the server began"`
}

// Images are how current environments are now.
type Images struct {
	Environments int `json:"environments" doc:"that follow a channel, or run a revoked image"`
	Current      int `json:"current"`
	Late         int `json:"late"`
}

// Row is the share of an environment, of the test runs of a blueprint, or of a
// team.
type Row struct {
	Name     string   `json:"name"`
	Team     string   `json:"team,omitempty"`
	Tests    bool     `json:"tests,omitempty" doc:"the environments of a blueprint's test runs, all together"`
	Launched int      `json:"launched"`
	Failed   int      `json:"failed"`
	Deploys  int      `json:"deploys"`
	Hours    float64  `json:"instance_hours"`
	Cost     *float64 `json:"cost,omitempty"`
	Uptime   *Uptime  `json:"uptime,omitempty"`
}

// Saved is what the former process would have taken more. Each deploy that became
// ready, and each run whose suites all have results, counts.
type Saved struct {
	Source  string  `json:"source" doc:"of the baseline, as the operator says"`
	Seconds float64 `json:"seconds"`
	Clicks  int     `json:"clicks" doc:"one click is taken off for each that no hook or schedule started"`
	Deploys int     `json:"deploys" doc:"that were compared"`
	Tests   int     `json:"tests" doc:"that were compared"`
	Share   float64 `json:"share" doc:"of the former time that is saved, below 0 where it takes longer now"`
}

// Period makes whole days of what is asked for: those of gone instances are
// counted by the day.
func Period(from, to, now time.Time) (time.Time, time.Time, error) {
	bad := func(format string, args ...any) (time.Time, time.Time, error) {
		return from, to, &fault.Error{Kind: fault.Invalid, Op: "make a report", Message: fmt.Sprintf(format, args...), Hint: "from=2026-03-01T00:00:00Z&to=2026-04-01T00:00:00Z is March"}
	}
	if to.IsZero() || to.After(now) {
		to = now
	}
	if from.IsZero() {
		from = to.Add(-7 * day)
	}
	if !from.Before(to) {
		return bad("the period ends before it begins")
	}
	from = midnight(from)
	if m := midnight(to); m.Before(to) {
		if to = m.Add(day); to.After(now) {
			to = now
		}
	}
	if to.Sub(from) > KeepDays*day {
		return bad("the period is longer than %d days", KeepDays)
	}
	return from.UTC(), to.UTC(), nil
}

// Make makes the report. The same input gives the same report.
func Make(in Input) Report {
	r := Report{From: in.From, To: in.To, Made: in.Now, Currency: in.Config.Currency, Environments: []Row{}, Teams: []Row{}, Notes: []string{}}
	b := books(in, &r)
	b.tallies()
	b.deploys()
	b.runs()
	b.saved()
	for _, k := range in.Bakes {
		if b.within(k.Ended) && k.Failed {
			r.Bakes.Failed++
		} else if b.within(k.Ended) {
			r.Bakes.Made++
		}
	}
	r.Orphans = Orphans{Left: in.Orphans, Swept: in.Swept}
	for _, e := range in.Events {
		switch {
		case !b.within(e.At):
		case e.Reason == "OrphanRemoved":
			r.Orphans.Removed += max(e.Count, 1)
		case e.Reason == "WentBack" && e.Kind == environment.Kind && !b.isTest(e.Name):
			r.Deploys.Rollbacks += max(e.Count, 1)
		}
	}
	for _, s := range in.Images {
		if s.State == currency.None {
			continue
		}
		r.Images.Environments++
		if s.State == currency.Current {
			r.Images.Current++
		}
		if s.Late {
			r.Images.Late++
		}
	}
	from := in.From
	if in.Oldest.After(from) {
		from = in.Oldest
	}
	if !in.Oldest.IsZero() && from.Before(in.To) {
		for name, u := range uptime(in, from, in.To) {
			b.row(name).Uptime = u
		}
	}
	b.finish()
	b.notes()
	return r
}

// took is the median and the 90th percentile (nearest rank).
func took(seconds []float64) Took {
	t := Took{Count: len(seconds)}
	if t.Count == 0 {
		return t
	}
	s := slices.Sorted(slices.Values(seconds))
	rank := func(p float64) *float64 { return &s[max(int(math.Ceil(p*float64(len(s))))-1, 0)] }
	t.Median, t.P90 = rank(0.5), rank(0.9)
	return t
}

// bound is the upper bound of a rate with 95 % certainty: the rule of three
// where nothing failed, else Wilson's.
func bound(failed, of int) float64 {
	n := float64(of)
	if failed == 0 {
		return min(1, 3/n)
	}
	const z = 1.96
	p := float64(failed) / n
	return min(1, (p+z*z/(2*n)+z*math.Sqrt(p*(1-p)/n+z*z/(4*n*n)))/(1+z*z/n))
}
