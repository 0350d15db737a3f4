package report

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/currency"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
)

// monday is the midnight that the period begins with.
var monday = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

func at(hours float64) time.Time { return monday.Add(time.Duration(hours * float64(time.Hour))) }

func machine(env, id string, launched, inService, ended float64, cause instance.Cause) instance.Instance {
	i := instance.Instance{ID: id, Environment: env, Generation: 1, Type: "m7g.large", Launched: at(launched), State: instance.Serving}
	if inService != 0 {
		i.InService = at(inService)
	}
	if ended != 0 {
		i.Ended, i.State, i.Cause = at(ended), instance.Gone, cause
	}
	return i
}

func TestLives(t *testing.T) {
	got := Lives([]instance.Instance{
		machine("dev", "i-1", 22, 22.5, 50, instance.Ended), // over two midnights
		machine("dev", "i-2", 22, 0, 23, instance.NeverReady),
		machine("dev", "i-3", 30, 0, 31, instance.Ended), // its generation ended first: nobody knows
		machine("dev", "i-4", 23, 23.5, 0, ""),           // lives
	}, at(25))
	want := []Tally{
		{Day: "2026-03-02", Environment: "dev", Generation: 1, Launched: 3, InService: 2, Failed: 1, Seconds: map[string]float64{"m7g.large": (2 + 1 + 1) * 3600}},
		{Day: "2026-03-03", Environment: "dev", Generation: 1, Launched: 1, Seconds: map[string]float64{"m7g.large": (24 + 1 + 1) * 3600}},
		{Day: "2026-03-04", Environment: "dev", Generation: 1, Seconds: map[string]float64{"m7g.large": 2 * 3600}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

// Nothing is lost, or counted twice, by any order of tidying.
func TestTidy(t *testing.T) {
	tally := func(d, env string, gen int, s float64) Tally {
		return Tally{Day: d, Environment: env, Generation: gen, Launched: 1, Seconds: map[string]float64{"a": s}}
	}
	records := map[string]Tally{}
	for _, x := range []Tally{
		tally("2024-01-01", "dev", 1, 1),
		tally("2026-03-02", "dev", 1, 2), tally("2026-03-02", "dev", 0, 4), tally("2026-03-02", "dev", 2, 8),
		tally("2026-03-02", "shop-r7-unit", 1, 16), tally("2026-03-02", "shop-r7-load", 1, 32), tally("2026-03-02", "shop-r8-load", 1, 64),
		tally("2026-03-08", "dev", 1, 128), // not over for long
	} {
		records[x.Name()] = x
	}
	now := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	for range 2 {
		var list []Tally
		for _, x := range records {
			list = append(list, x)
		}
		remove, put := Tidy(list, now)
		for _, name := range remove {
			delete(records, name)
		}
		for _, x := range put {
			records[x.Name()] = x
		}
		want := map[string]float64{"2026-03-02/dev": 14, "2026-03-02/shop-r7": 48, "2026-03-02/shop-r8": 64, "2026-03-08/dev/1": 128}
		if len(records) != len(want) {
			t.Fatalf("%+v", records)
		}
		for name, s := range want {
			if records[name].Seconds["a"] != s {
				t.Errorf("%s: %+v, want %v", name, records[name], s)
			}
		}
	}
	if n := records["2026-03-02/dev"].Launched; n != 3 {
		t.Errorf("%d launched", n)
	}
}

func TestBound(t *testing.T) {
	for _, c := range []struct {
		failed, of int
		want       float64
	}{{0, 1, 1}, {0, 3, 1}, {0, 300, 0.01}, {0, 2250, 3.0 / 2250}, {1, 1, 1}, {5, 100, 0.11175}, {50, 100, 0.59617}} {
		if got := bound(c.failed, c.of); math.Abs(got-c.want) > 1e-4 {
			t.Errorf("%d of %d: %v, want %v", c.failed, c.of, got, c.want)
		}
	}
}

func TestPeriod(t *testing.T) {
	now := at(60) // Wednesday noon
	for _, c := range []struct {
		from, to         time.Time
		wantFrom, wantTo time.Time
		bad              bool
	}{
		{wantFrom: at(-5 * 24), wantTo: now},
		{from: at(5), wantFrom: monday, wantTo: now},
		{from: at(5), to: at(24), wantFrom: monday, wantTo: at(24)},
		{from: at(5), to: at(25), wantFrom: monday, wantTo: at(48)},
		{from: at(5), to: at(900), wantFrom: monday, wantTo: now},
		{from: at(5), to: at(5), bad: true},
		{from: at(61), bad: true},
		{from: at(-401 * 24), bad: true},
	} {
		from, to, err := Period(c.from, c.to, now)
		if c.bad != (err != nil) || err == nil && (!from.Equal(c.wantFrom) || !to.Equal(c.wantTo)) {
			t.Errorf("%s to %s: %s to %s, %v", c.from, c.to, from, to, err)
		}
	}
}

func happened(hours float64, kind, name, reason string) event.Event {
	return event.Event{ID: fmt.Sprint(hours), At: at(hours), Kind: kind, Name: name, Reason: reason, Count: 1}
}

func TestUptime(t *testing.T) {
	env := func(h float64, reason string) event.Event { return happened(h, environment.Kind, "dev", reason) }
	ins := func(h float64, id, reason string) event.Event {
		return happened(h, instance.Kind, "dev/1/"+id, reason)
	}
	twice := ins(4, "i-1", "InstanceFailing")
	twice.Count, twice.Last = 2, at(8)
	serving := environment.Environment{Name: "dev", Serving: 1, Phase: environment.Serving}
	for _, c := range []struct {
		name        string
		env         environment.Environment
		events      []event.Event
		instances   []instance.Instance
		up, watched float64 // hours; the period is a day
	}{
		{name: "up from its beginning", events: []event.Event{ins(1, "i-1", "InstanceLaunched"), ins(2, "i-1", "InstanceInService"), env(4, "Serving")}, up: 20, watched: 20},
		{name: "until it was destroyed", events: []event.Event{ins(2, "i-1", "InstanceInService"), env(4, "Serving"), env(10, "DestroyRequested"), ins(11, "i-1", "InstanceGone"), env(12, "Gone")}, up: 6, watched: 6},
		{name: "failing for an hour", events: []event.Event{ins(2, "i-1", "InstanceInService"), env(4, "Serving"), ins(10, "i-1", "InstanceFailing"), ins(11, "i-1", "InstanceHealthy")}, up: 19, watched: 20},
		{name: "one of two is enough", events: []event.Event{ins(2, "i-1", "InstanceInService"), ins(2, "i-2", "InstanceInService"), env(4, "Serving"), ins(10, "i-1", "InstanceDied")}, up: 20, watched: 20},
		{name: "both die, one after the other", events: []event.Event{ins(2, "i-1", "InstanceInService"), ins(2, "i-2", "InstanceInService"), env(4, "Serving"), ins(10, "i-1", "InstanceDied"), ins(12, "i-2", "InstanceDied"), ins(13, "i-3", "InstanceInService")}, up: 19, watched: 20},
		{name: "was there before, and its end is told", events: []event.Event{ins(6, "i-1", "InstanceDied"), ins(7, "i-2", "InstanceInService")}, up: 23, watched: 24},
		{name: "was there before, by its record", instances: []instance.Instance{machine("dev", "i-1", -50, -49, 0, "")}, up: 24, watched: 24},
		{name: "nothing serves", events: []event.Event{env(4, "Serving")}, up: 0, watched: 20},
		{name: "counted twice", events: []event.Event{ins(1, "i-1", "InstanceInService"), env(2, "Serving"), twice, ins(6, "i-1", "InstanceHealthy"), ins(9, "i-1", "InstanceHealthy")}, up: 2 + 2 + 15, watched: 22},
		{name: "never served", env: environment.Environment{Name: "dev", Phase: environment.Launching}, events: []event.Event{ins(1, "i-1", "InstanceInService")}},
		{name: "a test run's", env: environment.Environment{Name: "dev", Run: "shop-r1", Serving: 1}, events: []event.Event{ins(1, "i-1", "InstanceInService"), env(2, "Serving")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.env.Name == "" {
				c.env = serving
			}
			for range 5 { // maps have no order
				got := uptime(Input{Environments: []environment.Environment{c.env}, Events: c.events, Instances: c.instances}, monday, at(24))["dev"]
				if got == nil {
					got = &Uptime{}
				}
				if got.Up != c.up*3600 || got.Watched != c.watched*3600 {
					t.Fatalf("up %v h of %v h, want %v of %v", got.Up/3600, got.Watched/3600, c.up, c.watched)
				}
			}
		})
	}
}

func suites(ended float64, flaky bool, results ...pipeline.Result) []pipeline.Suite {
	var out []pipeline.Suite
	for _, r := range results {
		out = append(out, pipeline.Suite{Result: r, Ended: at(ended), Flaky: flaky})
	}
	return out
}

// week is a world in which everything is counted once, inside of the period and
// outside of it.
func week() Input {
	run := func(name string, created, ended float64, passed bool, cause string, ss []pipeline.Suite) pipeline.Run {
		r := pipeline.Run{Name: name, Blueprint: "shop", Team: "sales", Phase: pipeline.Done, Passed: passed, Created: at(created), Ended: at(ended), Suites: ss}
		if cause != "" {
			r.Cause = &pipeline.Cause{Kind: cause}
		}
		return r
	}
	gen := func(env string, created, ready float64) environment.Generation {
		g := environment.Generation{Environment: env, Number: 1, Created: at(created)}
		if ready != 0 {
			g.Ready = at(ready)
		} else {
			g.Error = "it failed"
		}
		return g
	}
	canceled := run("shop-r5", 8, 9, false, "", suites(9, false, pipeline.Canceled))
	canceled.Cancel = true
	return Input{
		Now: at(36), From: monday, To: at(36), Oldest: at(-700),
		Environments: []environment.Environment{{Name: "dev", Blueprint: "shop", Serving: 1}, {Name: "shop-r1-unit", Blueprint: "shop", Run: "shop-r1"}, {Name: "wiki", Blueprint: "wiki"}},
		Generations:  []environment.Generation{gen("dev", 1, 2), gen("dev", 3, 6), gen("dev", 4, 0), gen("dev", -9, -8), gen("shop-r1-unit", 1, 2)},
		Instances: []instance.Instance{
			machine("dev", "i-1", 12, 12.5, 0, ""),
			machine("dev", "i-2", 30, 31, 35, instance.Died), // it is in a tally
		},
		Tallies: []Tally{
			{Day: "2026-03-01", Environment: "dev", Generation: 1, Launched: 7, InService: 7, Seconds: map[string]float64{"m7g.large": 9999}},
			{Day: "2026-03-02", Environment: "shop-r1-unit", Generation: 1, Launched: 3, InService: 2, Failed: 1, Seconds: map[string]float64{"m7g.large": 3600, "odd.type": 7200}},
			{Day: "2026-03-02", Environment: "shop-r1", Launched: 1, InService: 1, Seconds: map[string]float64{"m7g.large": 3600}},
			{Day: "2026-03-03", Environment: "dev", Generation: 1, Launched: 1, InService: 1, Seconds: map[string]float64{"m7g.large": 5 * 3600}},
		},
		Runs: []pipeline.Run{
			run("shop-r1", 1, 5, true, "github", suites(2, false, pipeline.Passed)),
			run("shop-r2", 2, 9, true, "gitlab", suites(5, true, pipeline.Passed, pipeline.Passed)),
			run("shop-r3", 3, 9, false, "github", suites(5, false, pipeline.Failed)),
			run("shop-r4", 4, 9, true, "schedule", suites(4.5, false, pipeline.Passed)),
			canceled,
			run("shop-r6", -2, 9, true, "github", suites(3, false, pipeline.Passed)),
		},
		Events: []event.Event{
			happened(5, "orphan", "volume/x", "OrphanRemoved"), happened(-5, "orphan", "volume/y", "OrphanRemoved"),
			happened(6, environment.Kind, "dev", "WentBack"), happened(7, environment.Kind, "shop-r1-unit", "WentBack"),
		},
		Bakes:  []Bake{{Ended: at(3)}, {Ended: at(4), Failed: true}, {Ended: at(-4)}},
		Images: []currency.Status{{State: currency.Current}, {State: currency.Waiting, Late: true}, {State: currency.None}},
		Swept:  at(35), Orphans: 2,
	}
}

func TestMake(t *testing.T) {
	r := Make(week())
	hours := 24.0 + 1 + 2 + 1 + 5 // i-1 lives from 12 to 36
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"launched", r.Launches.Launched, 6},
		{"in service", r.Launches.InService, 5},
		{"failed", r.Launches.Failed, 1},
		{"rate", *r.Launches.Rate, 1.0 / 6},
		{"hours", r.Hours, hours},
		{"cost", r.Cost == nil && r.Saved == nil, true},
		{"begun", r.Deploys.Begun, 3}, {"ready", r.Deploys.Ready, 2}, {"failed", r.Deploys.Failed, 1}, {"rollbacks", r.Deploys.Rollbacks, 1},
		{"median", *r.Deploys.Took.Median, 3600.0}, {"p90", *r.Deploys.Took.P90, 3 * 3600.0},
		{"pushes", r.Push.Count, 2}, {"push", *r.Push.Median, 3600.0}, {"p90 of push", *r.Push.P90, 3 * 3600.0},
		{"other starts", r.Start.Count, 1}, {"start", *r.Start.Median, 1800.0},
		{"tests", r.Tests, Tests{Runs: 5, Passed: 3, Failed: 1, Canceled: 1, Suites: 5, SuitesPassed: 4, SuitesFailed: 1, Flaky: 2}},
		{"bakes", r.Bakes, Bakes{Made: 1, Failed: 1}},
		{"orphans", r.Orphans, Orphans{Removed: 1, Left: 2, Swept: at(35)}},
		{"images", r.Images, Images{Environments: 2, Current: 1, Late: 1}},
		{"teams", len(r.Teams), 1},
		{"rows", len(r.Environments), 2},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, c.got, c.want)
		}
	}
	if x := r.Environments[0]; x.Name != "dev" || x.Team != "sales" || x.Hours != 29 || x.Launched != 2 || x.Deploys != 3 {
		t.Errorf("%+v", x)
	}
	if x := r.Environments[1]; x.Name != "shop: test runs" || !x.Tests || x.Hours != 4 || x.Failed != 1 {
		t.Errorf("%+v", x)
	}
	if n := strings.Join(r.Notes, "\n"); len(r.Notes) != 2 || !strings.Contains(n, "Without a price list") || !strings.Contains(n, "Without a baseline") {
		t.Errorf("%q", r.Notes)
	}
}

func TestCostAndSaved(t *testing.T) {
	in := week()
	in.Config = Config{Currency: "EUR", Prices: map[string]float64{"m7g.large": 0.1}, Baseline: &Baseline{Source: "x", Deploy: &Former{Time: 6 * time.Hour, Clicks: 40}, Test: &Former{Time: 2 * time.Hour, Clicks: 3}}}
	r := Make(in)
	if got := *r.Cost; math.Abs(got-3.1) > 1e-9 {
		t.Errorf("cost %v", got)
	}
	if !reflect.DeepEqual(r.Unpriced, []string{"odd.type"}) || !strings.Contains(r.Notes[0], "without that of odd.type") {
		t.Errorf("%v %q", r.Unpriced, r.Notes)
	}
	// Deploys took 1 and 3 hours in the place of 6; runs 1, 3, 2 and 0.5 in the place of 2.
	want := Saved{Source: "x", Seconds: (5 + 3 + 1 - 1 + 0 + 1.5) * 3600, Clicks: 2*39 + 4*3, Deploys: 2, Tests: 4, Share: 9.5 / 20}
	if r.Saved == nil || *r.Saved != want {
		t.Errorf("%+v, want %+v", r.Saved, want)
	}
}

func TestNothingIsKnown(t *testing.T) {
	r := Make(Input{Now: at(36), From: monday, To: at(36)})
	if r.Launches.Rate != nil || r.Push.Median != nil || r.Cost != nil || r.Saved != nil || len(r.Notes) != 4 {
		t.Errorf("%+v", r)
	}
	in := week()
	in.Tallies, in.Instances, in.Oldest = nil, nil, at(20)
	in.Generations[0].Created = at(-100)
	n := strings.Join(Make(in).Notes, "\n")
	for _, want := range []string{"Hours and launches are not known", "Events are kept from 2026-03-02 20:00 UTC on"} {
		if !strings.Contains(n, want) {
			t.Errorf("%q is not in %q", want, n)
		}
	}
}

func TestManyEnvironments(t *testing.T) {
	in := Input{Now: at(36), From: monday, To: at(36)}
	for i := range 300 {
		in.Tallies = append(in.Tallies, Tally{Day: "2026-03-02", Environment: fmt.Sprintf("e%d", i), Seconds: map[string]float64{"a": 3600}})
	}
	r := Make(in)
	if n := len(r.Environments); n != mostRows+1 || r.Environments[n-1].Hours != 100 || r.Environments[n-1].Name != "100 others" {
		t.Errorf("%d rows, the last: %+v", n, r.Environments[n-1])
	}
}

func TestParse(t *testing.T) {
	c, err := Parse("r.yaml", []byte("currency: EUR\nprices:\n  m7g.large: 0.0952\nbaseline:\n  source: Time sheets of March\n  deploy: { time: 6h30m, clicks: 120 }\n"))
	if err != nil || c.Prices["m7g.large"] != 0.0952 || c.Baseline.Deploy.Time != 390*time.Minute || c.Baseline.Deploy.Clicks != 120 || c.Baseline.Test != nil {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := Parse("r.json", []byte(`{"currency": "USD", "prices": {"a1": 1}}`)); err != nil || c.Prices["a1"] != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := Parse("r.yaml", nil); err != nil {
		t.Error(err)
	}
	for _, c := range []struct{ text, at, message string }{
		{"currency: EUR\nprise:\n  a: 1\n", "r.yaml:2:1", "unknown field"},
		{"currency: EUR\nprices:\n  a: cheap\n", "r.yaml:3:6", "string"},
		{"prices:\n  a: 1\n", "r.yaml:2", "currency"},
		{"currency: Euro\nprices:\n  a: 1\n", "r.yaml:1:11", "currency"},
		{"currency: EUR\nprices:\n  a: 1\n  m7g.large: -1\n", "r.yaml:4:14", "price of an hour"},
		{"currency: EUR\nprices:\n  a: .nan\n", "r.yaml:3:6", "price of an hour"},
		{"currency: EUR\nprices:\n  \"a b\": 1\n", "r.yaml:3:", "no instance type"},
		{"baseline:\n  deploy: { time: 1h }\n", "r.yaml:", "needs its source"},
		{"baseline:\n  source: x\n", "r.yaml:2", "says nothing"},
		{"baseline:\n  source: x\n  deploy: { clicks: 3 }\n", "r.yaml:3", "time is more than 0"},
		{"baseline:\n  source: x\n  deploy:\n    time: 1h\n    clicks: -1\n", "r.yaml:5:13", "clicks"},
		{"a: 1\n---\nb: 2\n", "r.yaml", ""},
		{strings.Repeat(" ", MaxConfig+1), "r.yaml", "larger"},
	} {
		_, err := Parse("r.yaml", []byte(c.text))
		if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), c.at) || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%.60q: %v, want %s and %s", c.text, err, c.at, c.message)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("currency: EUR\nprices:\n  a: 1\nbaseline:\n  source: x\n  test: { time: 1h, clicks: 1 }\n")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Parse("f", []byte(s))
		if err == nil {
			in := week()
			in.Config = c
			Make(in)
		}
	})
}
