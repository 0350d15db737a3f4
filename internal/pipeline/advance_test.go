package pipeline

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dayfly-infra/dayfly/internal/environment"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

const junitPass = `<testsuite><testcase name="a"/></testsuite>`
const junitFail = `<testsuite><testcase name="a"/><testcase name="b"><failure message="no"/></testcase></testsuite>`

// a run of two stages with suites, a gate and a deploy.
func full() Run {
	suite := func(name, stage string) Suite {
		return Suite{Name: name, Stage: stage, Command: "suites/x.sh", Size: 2, Phase: Pending}
	}
	stage := func(name string) Stage { return Stage{Name: name, Required: true, Phase: Pending} }
	gate, deploy := stage("approve"), stage("ship")
	gate.Gate = &Gate{By: []string{"ops"}, Timeout: time.Hour}
	deploy.Deploy = &DeployStage{Purpose: "production"}
	second := suite("load", "slow")
	second.Retries = 1
	looks := suite("looks", "slow")
	looks.Command, looks.Manual = "", &Manual{Steps: []string{"look"}, Lease: time.Hour}
	return Run{
		Name: "shop-r1", Blueprint: "shop", Image: "im", Release: "rel", Foundation: "shop-r1", Phase: Pending,
		Stages: []Stage{stage("quick"), stage("slow"), gate, deploy},
		Suites: []Suite{suite("api", "quick"), suite("web", "quick"), second, looks},
	}
}

func verbs(as []Action) string {
	var out []string
	for _, a := range as {
		out = append(out, strings.TrimSpace(string(a.Verb)+" "+a.Suite+a.Stage))
	}
	return strings.Join(out, ", ")
}

// What opened a gate opens no other one.
func TestGatesInARow(t *testing.T) {
	command := Gate{Command: &Command{Run: "gates/a.sh", Environment: "shop-test", Instance: "i-1", CommandID: "c-1", Try: 1, Sent: noon}, Timeout: time.Hour, Until: noon.Add(time.Hour)}
	metric := Gate{Metric: &Metric{URL: "http://m", Below: new(0.5)}, Timeout: time.Hour, Until: noon.Add(time.Hour)}
	next := map[string]Gate{"command": {Command: &Command{Run: "gates/b.sh"}, Timeout: time.Hour}, "metric": {Metric: &Metric{URL: "http://n", Below: new(0.5)}, Timeout: time.Hour}}
	for name, c := range map[string]struct {
		first Gate
		o     Observed
	}{
		"command": {command, Observed{Now: noon, Command: &Asked{Ended: true, Output: "well"}}},
		"metric":  {metric, Observed{Now: noon, Measured: new(0.1)}},
	} {
		for then, g := range next {
			r, do := Advance(Run{Name: "r", Phase: Running, Image: "im", Release: "rel", Stages: []Stage{
				{Name: "one", Required: true, Phase: Running, Gate: &c.first}, {Name: "two", Required: true, Phase: Pending, Gate: &g},
			}}, c.o)
			if r.Stages[0].Result != Passed || r.Stages[1].Phase != Running || r.Stages[1].Result != "" || r.Stages[1].Gate.Measured != "" || len(do) > 0 {
				t.Errorf("%s, then %s: %+v, %s", name, then, r.Stages, verbs(do))
			}
		}
	}
	// Nor does why a deploy that need not land was refused refuse the next one.
	d := Stage{Name: "one", Phase: Running, Deploy: &DeployStage{Environment: "shop-a", Asked: noon}}
	r, do := Advance(Run{Name: "r", Phase: Running, Image: "im", Release: "rel", Suites: []Suite{{Name: "s", Phase: Done, Result: Passed, Ended: noon, Image: "im", Release: "rel"}},
		Stages: []Stage{d, {Name: "two", Required: true, Phase: Pending, Deploy: &DeployStage{Purpose: "b"}}}}, Observed{Now: noon, Target: &Target{Refused: "no room"}})
	if r.Stages[0].Result != Failed || r.Stages[1].Result != "" || verbs(do) != "deploy two" {
		t.Errorf("%+v, %s", r.Stages, verbs(do))
	}
}

// A run that tests a revoked image ends, whatever it waits for; one that has all
// its results keeps them.
func TestRevoked(t *testing.T) {
	for phase, c := range map[Phase]struct {
		do     string
		result Result
		then   Phase
	}{
		Pending: {"", NotReached, Skipped}, Queued: {"", NotReached, Skipped}, Launching: {"destroy xone", Canceled, Ending}, Running: {"destroy xone", Canceled, Ending}, Waiting: {"destroy xone", Canceled, Ending},
	} {
		x := Suite{Name: "x", Stage: "one", Command: "suites/x.sh", Size: 1, Timeout: time.Minute, Phase: Pending}
		x.Phase, x.Environment, x.Try, x.Retries = phase, "shop-r1-x", 1, 3
		if phase == Waiting {
			x.Command, x.Manual = "", &Manual{Lease: time.Hour}
		}
		o := Observed{Now: noon, Revoked: "CVE-2026-1 (ann)"}
		if c.do != "" {
			o.Environments = map[string]Environment{"x": {There: true, Serving: true, Image: "im", Release: "rel"}}
		}
		r, do := Advance(Run{Name: "shop-r1", Phase: Running, Image: "im", Release: "rel", Stages: []Stage{{Name: "one", Required: true, Phase: Pending}, {Name: "approve", Required: true, Phase: Pending, Gate: &Gate{By: []string{"ann"}, Timeout: time.Hour}}}, Suites: []Suite{x}}, o)
		if r.Error != "its image im was revoked: CVE-2026-1 (ann)" || r.Suites[0].Result != c.result || r.Suites[0].Phase != c.then || r.Suites[0].Error != r.Error || !r.Stages[1].Over() || r.Stages[1].Why != r.Error {
			t.Errorf("%s: %+v", phase, r)
		}
		if got := verbs(do); got != c.do && !(c.do == "" && got == "prove") {
			t.Errorf("%s: %s", phase, got)
		}
		if b := r.Blocker; b == nil || b.Rule != "image-revoked" || b.On != "image/im" || b.Action == "" || !strings.Contains(b.Message, r.Error) {
			t.Errorf("%s: %+v", phase, b)
		}
	}
	one := Stage{Name: "one", Required: true, Phase: Pending}
	one.Phase, one.Result = Done, Passed
	done := Suite{Name: "x", Stage: "one", Command: "suites/x.sh", Size: 1, Timeout: time.Minute, Phase: Pending}
	done.Phase, done.Result, done.Ended, done.Image, done.Release = Done, Passed, noon, "im", "rel"
	r, _ := Advance(Run{Name: "shop-r1", Phase: Ending, Image: "im", Release: "rel", Stages: []Stage{one}, Suites: []Suite{done}}, Observed{Now: noon, Revoked: "late", Clean: &Clean{}})
	if !r.Passed || r.Error != "" || r.Phase != Done {
		t.Errorf("what it found out before is lost: %+v", r)
	}
	r, _ = Advance(Run{Name: "shop-r1", Phase: Running, Cancel: true, CancelWhy: "mine", Image: "im", Release: "rel", Stages: []Stage{{Name: "one", Required: true, Phase: Pending}}, Suites: []Suite{{Name: "x", Stage: "one", Command: "suites/x.sh", Size: 1, Timeout: time.Minute, Phase: Pending}}}, Observed{Now: noon, Revoked: "late"})
	if r.Error != "" || !strings.Contains(r.Stages[0].Why, "mine") {
		t.Errorf("%+v", r)
	}
}

func TestAdvance(t *testing.T) {
	up := Environment{There: true, Serving: true, Image: "im", Release: "rel", Address: "http://x"}
	at := func(f func(r *Run)) Run { // everything before the gate has passed
		r := full()
		r.Phase, r.Founded = Running, true
		for i := range r.Suites {
			r.Suites[i].Phase, r.Suites[i].Result, r.Suites[i].Ended = Done, Passed, noon
			r.Suites[i].Image, r.Suites[i].Release, r.Suites[i].Passed, r.Suites[i].Try = "im", "rel", 2, 1
		}
		for i := range 2 {
			r.Stages[i].Phase, r.Stages[i].Result = Done, Passed
		}
		r.Stages[2].Phase, r.Stages[2].Gate.Until = Running, noon.Add(time.Hour)
		f(&r)
		return r
	}
	slow := func(f func(r *Run)) Run { // the second stage's suites are up
		r := full()
		r.Phase, r.Founded = Running, true
		r.Stages[0].Phase, r.Stages[0].Result = Done, Passed
		r.Stages[1].Phase = Running
		for i := range r.Suites {
			s := &r.Suites[i]
			s.Try, s.Environment = 1, "shop-r1-"+s.Name
			if i < 2 {
				s.Phase, s.Result, s.Ended = Done, Passed, noon
				continue
			}
			s.Phase, s.Image, s.Release = Running, "im", "rel"
			if s.Manual != nil {
				s.Phase, s.Manual.Until = Waiting, noon.Add(time.Hour)
			}
		}
		f(&r)
		return r
	}
	open := func(r Run, f func(g *Gate)) Run { g := *r.Stages[2].Gate; f(&g); r.Stages[2].Gate = &g; return r }
	both := map[string]Environment{"load": up, "looks": up}
	metric := func(g *Gate) { g.By, g.Metric = nil, &Metric{URL: "http://m", Below: new(0.5)} }
	for _, c := range []struct {
		name  string
		r     Run
		o     Observed
		do    string
		check func(r Run) bool
	}{
		{"the first stage queues", full(), Observed{}, "", func(r Run) bool {
			return r.Suites[0].Phase == Queued && r.Suites[2].Phase == Pending && r.Stages[0].Phase == Running && r.Blocker.Rule == "suites-running"
		}},
		{"what is granted launches", full(), Observed{Granted: map[string]bool{"web": true}}, "launch webquick", func(r Run) bool {
			return r.Suites[1].Phase == Launching && r.Suites[1].Environment == "shop-r1-web" && r.Suites[1].Port == FirstPort
		}},
		{"a command that passed", slow(func(*Run) {}), Observed{Environments: both, Outcomes: map[string]Outcome{"load": {JUnit: []byte(junitPass)}}}, "destroy loadslow", func(r Run) bool {
			return r.Suites[2].OK() && !r.Suites[2].Flaky && r.Stages[1].Result == "" && r.Blocker.Rule == "manual-suites"
		}},
		{"a first try that failed", slow(func(*Run) {}), Observed{Environments: both, Outcomes: map[string]Outcome{"load": {JUnit: []byte(junitFail)}}}, "destroy loadslow", func(r Run) bool {
			return r.Suites[2].Phase == Retrying && len(r.Suites[2].Tries) == 1 && r.Suites[2].Tries[0].Failures[0].Case == "b" && r.Suites[2].Failed == 0
		}},
		{"its environment is gone", slow(func(r *Run) { r.Suites[2].Phase = Retrying }), Observed{Environments: map[string]Environment{"looks": up}}, "", func(r Run) bool { return r.Suites[2].Phase == Queued && r.Suites[2].Try == 2 }},
		{"a second try that passed", slow(func(r *Run) { r.Suites[2].Try = 2 }), Observed{Environments: both, Outcomes: map[string]Outcome{"load": {JUnit: []byte(junitPass)}}}, "destroy loadslow", func(r Run) bool { return r.Suites[2].Flaky && r.Suites[2].OK() }},
		{"a second try that failed", slow(func(r *Run) { r.Suites[2].Try = 2 }), Observed{Environments: both, Outcomes: map[string]Outcome{"load": {JUnit: []byte(junitFail)}}}, "destroy loadslow", func(r Run) bool {
			return r.Suites[2].Result == Failed && r.Stages[1].Result == ""
		}},
		{"the tester says no", slow(func(r *Run) {
			r.Suites[2].Phase, r.Suites[2].Result = Done, Passed
			r.Suites[3].Manual.Verdict = &Verdict{By: "eve", Comment: "ugly"}
		}), Observed{Environments: both}, "destroy looksslow", func(r Run) bool {
			return r.Suites[3].Result == Failed && r.Stages[1].Result == Failed && r.Stages[2].Result == NotReached && r.Stages[3].Why == "the stage slow failed"
		}},
		{"the tester's lease is over", slow(func(r *Run) { r.Suites[2].Phase, r.Suites[2].Result = Done, Passed }), Observed{Now: noon.Add(2 * time.Hour)}, "prove", func(r Run) bool {
			return r.Suites[3].Result == Failed && strings.Contains(r.Suites[3].Error, "its lease ended")
		}},
		{"the gate waits", at(func(*Run) {}), Observed{}, "", func(r Run) bool {
			return r.Blocker.Rule == "gate" && strings.Contains(r.Blocker.Action, "dayfly run approve shop-r1 approve")
		}},
		{"and the foundation goes meanwhile", at(func(*Run) {}), Observed{Foundation: true}, "end-foundation", func(r Run) bool { return r.Phase == Running }},
		{"approved", at(func(r *Run) { *r = open(*r, func(g *Gate) { g.Verdict = &Verdict{Passed: true, By: "ann"} }) }), Observed{}, "deploy ship", func(r Run) bool { return r.Stages[2].Why == "approved by ann" }},
		{"rejected", at(func(r *Run) { *r = open(*r, func(g *Gate) { g.Verdict = &Verdict{By: "ann", Comment: "late"} }) }), Observed{}, "prove", func(r Run) bool {
			return r.Stages[2].Result == Failed && r.Stages[3].Result == NotReached
		}},
		{"nobody decides", at(func(*Run) {}), Observed{Now: noon.Add(2 * time.Hour)}, "prove", func(r Run) bool { return r.Stages[2].Result == Failed }},
		{"results within limits", at(func(r *Run) {
			*r = open(*r, func(g *Gate) { g.By, g.Results = nil, &Limits{MinPassed: 8, MaxFlaky: -1, MaxSkipped: -1} })
		}), Observed{}, "deploy ship", func(r Run) bool { return r.Stages[2].Result == Passed }},
		{"results out of limits", at(func(r *Run) { *r = open(*r, func(g *Gate) { g.By, g.Results = nil, &Limits{MinPassed: 9} }) }), Observed{}, "prove", func(r Run) bool {
			return strings.Contains(r.Stages[2].Why, "at least 9 must")
		}},
		{"a metric holds", at(func(r *Run) { *r = open(*r, metric) }), Observed{Measured: new(0.1)}, "deploy ship", func(r Run) bool { return r.Stages[2].Result == Passed }},
		{"a metric does not", at(func(r *Run) { *r = open(*r, metric) }), Observed{Measured: new(0.5)}, "", func(r Run) bool { return r.Stages[2].Result == "" && r.Stages[2].Gate.Measured == "0.5" }},
		{"a metric never does", at(func(r *Run) { *r = open(*r, metric) }), Observed{Measured: new(0.7), Now: noon.Add(time.Hour)}, "prove", func(r Run) bool { return r.Stages[2].Result == Failed }},
		{"something else was tested", at(func(r *Run) {
			r.Suites[0].Image = "other"
			*r = open(*r, func(g *Gate) { g.Verdict = &Verdict{Passed: true, By: "ann"} })
		}), Observed{}, "prove", func(r Run) bool {
			return r.Stages[3].Result == Failed && strings.Contains(r.Stages[3].Why, `refused: the suite api ran image "other"`)
		}},
		{"another release was tested", at(func(r *Run) {
			r.Suites[1].Release = "other"
			*r = open(*r, func(g *Gate) { g.Verdict = &Verdict{Passed: true, By: "ann"} })
		}), Observed{}, "prove", func(r Run) bool { return r.Stages[3].Result == Failed }},
		{"the deploy landed", at(func(r *Run) {
			r.Stages[2].Result, r.Stages[2].Phase, r.Stages[3].Phase = Passed, Done, Running
			r.Stages[3].Deploy = &DeployStage{Environment: "shop-production", Asked: noon}
		}), Observed{Target: &Target{Landed: true}}, "prove", func(r Run) bool { return r.Stages[3].Result == Passed }},
		{"the deploy failed", at(func(r *Run) {
			r.Stages[2].Result, r.Stages[2].Phase, r.Stages[3].Phase = Passed, Done, Running
			r.Stages[3].Deploy = &DeployStage{Environment: "shop-production", Asked: noon}
		}), Observed{Target: &Target{Refused: "no room"}}, "prove", func(r Run) bool { return r.Stages[3].Why == "no room" }},
		{"all is proven", at(func(r *Run) {
			for i := range r.Stages {
				r.Stages[i].Result, r.Stages[i].Phase = Passed, Done
			}
		}), Observed{Clean: &Clean{Seen: 7}}, "", func(r Run) bool { return r.Phase == Done && r.Passed && r.Clean.Seen == 7 }},
		{"a stage that may fail", at(func(r *Run) {
			r.Stages[1].Required, r.Stages[1].Result, r.Suites[2].Result = false, Failed, Failed
			*r = open(*r, func(g *Gate) { g.Verdict = &Verdict{Passed: true, By: "ann"} })
		}), Observed{}, "deploy ship", func(r Run) bool { return r.Stages[2].Result == Passed }},
		{"canceled at the gate", at(func(r *Run) { r.Cancel, r.CancelWhy = true, "superseded by shop-r2" }), Observed{}, "prove", func(r Run) bool {
			return r.Stages[2].Result == Canceled && strings.Contains(r.Stages[3].Why, "superseded by shop-r2")
		}},
		{"canceled with environments", slow(func(r *Run) { r.Cancel = true }), Observed{Environments: both, Foundation: true}, "destroy loadslow, destroy looksslow", func(r Run) bool {
			return r.Suites[2].Result == Canceled && r.Phase == Ending
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.o.Now.IsZero() {
				c.o.Now = noon
			}
			before := fmt.Sprintf("%+v", c.r)
			got, do := Advance(c.r, c.o)
			if verbs(do) != c.do || !c.check(got) {
				t.Errorf("it does %q, want %q\nstages %+v\nsuites %+v\nblocker %+v", verbs(do), c.do, got.Stages, got.Suites, got.Blocker)
			}
			if fmt.Sprintf("%+v", c.r) != before {
				t.Error("it changes its input")
			}
			if again, do2 := Advance(c.r, c.o); !reflect.DeepEqual(again, got) || !reflect.DeepEqual(do, do2) {
				t.Error("not pure")
			}
		})
	}
}

// model carries out what a run wants, in any order and as slowly as it likes.
type model struct {
	r          Run
	now        time.Time
	envs       map[string]*Environment // by the environment's name
	foundation bool
	shipped    bool
}

func (m *model) step(t *rapid.T) {
	o := Observed{Now: m.now, Environments: map[string]Environment{}, Outcomes: map[string]Outcome{}, Granted: map[string]bool{}, Foundation: m.foundation}
	for _, s := range m.r.Suites {
		if e := m.envs[s.Environment]; e != nil {
			o.Environments[s.Name] = *e
		}
		if s.Phase == Running && rapid.Bool().Draw(t, "the command ends") {
			o.Outcomes[s.Name] = rapid.SampledFrom([]Outcome{{JUnit: []byte(junitPass)}, {JUnit: []byte(junitFail)}, {Error: "no results"}, {JUnit: []byte(junitPass), Exit: 1}}).Draw(t, "outcome")
		}
		o.Granted[s.Name] = rapid.Bool().Draw(t, "granted")
	}
	if m.shipped {
		o.Target = &Target{Landed: rapid.Bool().Draw(t, "landed")}
	}
	if m.r.Phase == Ending && rapid.Bool().Draw(t, "proven") {
		o.Clean = &Clean{}
	}
	next, do := Advance(m.r, o)
	if rapid.IntRange(0, 9).Draw(t, "killed before it is written down") == 0 {
		return
	}
	for i, s := range next.Suites {
		before := m.r.Suites[i]
		if before.Result != "" && before.Result != s.Result {
			t.Fatalf("%s was %s and is %s", s.Name, before.Result, s.Result)
		}
		if s.Phase == Launching && before.Phase == Queued {
			at := slices.IndexFunc(next.Stages, func(st Stage) bool { return st.Name == s.Stage })
			for _, st := range next.Stages[:at] {
				if st.Result != Passed {
					t.Fatalf("%s of %s launches while %s is %q", s.Name, s.Stage, st.Name, st.Result)
				}
			}
		}
	}
	m.r = next
	ports := map[int]string{}
	for _, s := range m.r.Suites {
		if s.Port != 0 && ports[s.Port] != "" {
			t.Fatalf("%s and %s have the port %d", s.Name, ports[s.Port], s.Port)
		}
		ports[s.Port] = s.Name
	}
	for _, a := range do {
		s := m.r.Suite(a.Suite)
		switch a.Verb {
		case Launch:
			if m.envs[s.Environment] != nil {
				t.Fatalf("%s is launched twice", s.Environment)
			}
			m.foundation = true
			m.envs[s.Environment] = &Environment{There: true, Deadline: m.now.Add(time.Hour)}
		case Send:
			s.Phase, s.CommandID = Running, "c"
		case Destroy:
			m.envs[s.Environment].Destroy = true
		case EndFoundation:
			for name, e := range m.envs {
				if e.There {
					t.Fatalf("the foundation ends under %s", name)
				}
			}
			m.foundation = false
		case Ship:
			if m.r.untested() != "" {
				t.Fatalf("it deploys: %s", m.r.untested())
			}
			st := m.r.Stage(a.Stage)
			st.Deploy.Environment, st.Deploy.Asked = "shop-production", m.now
			m.shipped = true
		case Prove:
			for name, e := range m.envs {
				if e.There {
					t.Fatalf("%s is there when it is to be proven that nothing is", name)
				}
			}
		}
	}
}

// world lets something happen that no run decides.
func (m *model) world(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(1, 600).Draw(t, "seconds")) * time.Second)
	for _, name := range sorted(m.envs) {
		e := m.envs[name]
		switch {
		case !e.There:
		case e.Destroy:
			e.There = rapid.Bool().Draw(t, "still there")
		case !e.Serving && e.Failed == "":
			switch rapid.IntRange(0, 5).Draw(t, "launch") {
			case 0:
				e.Failed = "no room"
			case 1, 2, 3:
				e.Serving, e.Image, e.Release = true, "im", "rel"
			}
		case !m.now.Before(e.Deadline):
			e.Destroy = true
		case rapid.IntRange(0, 30).Draw(t, "somebody destroys it") == 0:
			e.Destroy = true
		}
	}
	if s := m.r.Suite("looks"); s.Phase == Waiting && s.Manual.Verdict == nil && rapid.IntRange(0, 3).Draw(t, "the tester decides") == 0 {
		s.Manual.Verdict = &Verdict{Passed: rapid.Bool().Draw(t, "passes"), By: "eve"}
	}
	if s := m.r.Stage("approve"); s.Phase == Running && rapid.IntRange(0, 3).Draw(t, "somebody approves") == 0 {
		g := *s.Gate
		g.Verdict = &Verdict{Passed: rapid.IntRange(0, 3).Draw(t, "how") > 0, By: "ann"}
		s.Gate = &g
	}
}

func sorted(m map[string]*Environment) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Whatever happens a run ends, leaves nothing, says why each stage went as it
// did; and a cancel works from every state.
func TestRunEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{r: full(), now: noon, envs: map[string]*Environment{}}
		cancel := rapid.IntRange(0, 60).Draw(t, "canceled at step")
		for n := 0; m.r.Phase != Done; n++ {
			if n == cancel && rapid.Bool().Draw(t, "canceled") {
				m.r.Cancel = true
			}
			if n > 600 {
				t.Fatalf("it never ends: %+v", m.r)
			}
			m.world(t)
			m.step(t)
			if m.r.Phase != Done && m.r.Phase != Pending && m.r.Blocker == nil {
				t.Fatalf("it waits and says not for what: %+v", m.r)
			}
		}
		for name, e := range m.envs {
			if e.There {
				t.Errorf("%s is left", name)
			}
		}
		if m.foundation {
			t.Error("the foundation is left")
		}
		stopped := false
		for _, s := range m.r.Stages {
			switch {
			case !s.Over():
				t.Errorf("the stage %s has no result", s.Name)
			case s.Result != Passed && s.Why == "":
				t.Errorf("the stage %s is %s and says not why", s.Name, s.Result)
			case stopped && s.Result == Passed:
				t.Errorf("the stage %s passed after one that did not", s.Name)
			}
			stopped = stopped || s.Result != Passed
		}
		for _, s := range m.r.Suites {
			if s.Result == "" {
				t.Errorf("the suite %s has no result", s.Name)
			}
		}
		if m.r.Passed == stopped || (m.r.Cancel && m.r.Passed) {
			t.Errorf("passed is %v: %+v", m.r.Passed, m.r.Stages)
		}
	})
}

func TestLanded(t *testing.T) {
	r := Run{Name: "shop-r1", Image: "im", Release: "rel"}
	good := environment.Environment{Name: "shop-production", Phase: environment.Serving, Want: 2, Serving: 2, Image: "im", Release: "rel"}
	for _, c := range []struct {
		name            string
		f               func(e *environment.Environment)
		landed          bool
		refused, waitsA string
	}{
		{"it serves", func(*environment.Environment) {}, true, "", ""},
		{"it is asked for", func(e *environment.Environment) { e.Next = &environment.Change{By: "run/shop-r1"} }, false, "", "serving"},
		{"it launches", func(e *environment.Environment) { e.Want, e.Phase = 3, environment.Launching }, false, "", "launching"},
		{"it soaks", func(e *environment.Environment) { e.Shift = &environment.Shift{} }, false, "", "serving"},
		{"it goes back", func(e *environment.Environment) { e.Back = &environment.Back{} }, false, "", "serving"},
		{"it went back", func(e *environment.Environment) { e.Image, e.LastBack = "old", &environment.Back{Why: "5 % errors"} }, false, "5 % errors", ""},
		{"it failed beside the old one", func(e *environment.Environment) { e.Error = "no room" }, false, "no room", ""},
		{"another deploy came", func(e *environment.Environment) { e.Next = &environment.Change{By: "eve"} }, false, "asked by eve", ""},
		{"another deploy was done", func(e *environment.Environment) { e.Release = "other" }, false, "release other", ""},
		{"it is destroyed", func(e *environment.Environment) { e.Destroy = true }, false, "being destroyed", ""},
		{"it is not there", func(e *environment.Environment) { *e = environment.Environment{} }, false, "gone", ""},
	} {
		e := good
		c.f(&e)
		if got := Landed(r, e); got.Landed != c.landed || !strings.Contains(got.Refused, c.refused) || (c.refused == "") != (got.Refused == "") || !strings.Contains(got.Waits, c.waitsA) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
