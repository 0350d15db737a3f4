package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
)

// FirstPort is the listener port of the first suite on the shared balancer.
const FirstPort = 8001

// Verb is something that a run wants done in the world.
type Verb string

const (
	Launch        Verb = "launch"         // make the suite's environment, and the foundation at need
	Ask           Verb = "ask"            // an instance, by the gate's command
	Send          Verb = "send"           // the suite's command to one of its instances
	Destroy       Verb = "destroy"        // the suite's environment
	Ship          Verb = "deploy"         // what was tested to the stage's environment
	EndFoundation Verb = "end-foundation" //
	Prove         Verb = "prove"          // that nothing of the run is left
)

// Action is a verb and what it is about.
type Action struct {
	Verb  Verb
	Suite string
	Stage string
}

// Environment is what is seen of a suite's environment.
type Environment struct {
	There    bool // it has a record, and is not gone
	Destroy  bool // it is being ended
	Serving  bool
	Failed   string // why it will never serve
	Waits    string // for what, as a sentence
	Address  string
	Image    string
	Release  string
	Deadline time.Time
	Notice   string
}

// Outcome is how a suite's command ended.
type Outcome struct {
	JUnit []byte // nil = it left none
	Error string // why there are no results, or why they do not count
	Exit  int
}

// Target is what is seen of the environment that a deploy stage deploys.
type Target struct {
	Landed  bool   // it serves the run's image and release, with nothing under way
	Refused string // the deploy will not be made, or was given up
	Waits   string
}

// Observed is what the next step of a run depends on beside its record.
type Observed struct {
	Now          time.Time
	Environments map[string]Environment // by suite; a missing one is gone
	Outcomes     map[string]Outcome     // by suite, of commands that ended
	Granted      map[string]bool        // suites that may launch
	Queue        map[string]string      // why the others may not
	Foundation   bool                   // its record says that it is not gone
	Target       *Target                // of the stage that deploys
	Measured     *float64               // of the gate that is open
	NotMeasured  string                 // why not
	Command      *Asked                 // of the gate that is open
	Revoked      string                 // why the run's image was revoked; "" = it was not
	Clean        *Clean
}

// Advance is the next step of a run that has its image and release: the record
// as it is then, and what is to be done. It is pure: the same input gives the
// same step, whatever was interrupted before.
func Advance(r Run, o Observed) (Run, []Action) {
	if r.Phase == Done {
		return r, nil
	}
	r.Stages, r.Suites = slices.Clone(r.Stages), slices.Clone(r.Suites)
	p := &step{r: &r, o: o}
	if r.Phase == Pending {
		r.Phase = Running
	}
	if o.Revoked != "" && !r.Cancel && r.Error == "" && !p.over() {
		// What is found out about it from now on proves nothing.
		r.Error = fmt.Sprintf("its image %s was revoked: %s", r.Image, o.Revoked)
	}
	if r.Cancel || r.Error != "" {
		p.abort()
	}
	for i := range r.Suites {
		p.suite(&r.Suites[i])
	}
	p.stages()
	p.end()
	r.Blocker = p.blocker()
	return r, p.do
}

type step struct {
	r  *Run
	o  Observed
	do []Action
}

func (p *step) act(v Verb, suite, stage string) {
	p.do = append(p.do, Action{Verb: v, Suite: suite, Stage: stage})
}

// abort gives every suite and stage that has no result one.
func (p *step) abort() {
	why := p.r.Error
	if p.r.Cancel {
		why = "the run was canceled"
		if p.r.CancelWhy != "" {
			why += ": " + p.r.CancelWhy
		}
	}
	for i := range p.r.Suites {
		s := &p.r.Suites[i]
		switch {
		case !s.Ended.IsZero() || s.Phase == Skipped:
		case s.Phase == Pending || s.Phase == Queued:
			s.Phase, s.Result, s.Waits, s.Error = Skipped, NotReached, "", why
		default:
			p.result(s, Canceled, why)
		}
	}
	for i := range p.r.Stages {
		s := &p.r.Stages[i]
		if s.Over() {
			continue
		}
		if s.Phase == Pending {
			s.Phase, s.Result, s.Why = Skipped, NotReached, why
			continue
		}
		s.Phase, s.Result, s.Why, s.Ended = Done, Canceled, why, p.o.Now
		if s.Deploy != nil && !s.Deploy.Asked.IsZero() {
			s.Why += "; the deploy of " + s.Deploy.Environment + " goes on by itself"
		}
	}
}

// result notes how a suite ended for good.
func (p *step) result(s *Suite, res Result, why string) {
	s.Result, s.Ended, s.Phase, s.Waits = res, p.o.Now, Ending, ""
	if why != "" {
		s.Error = why
	}
	s.Flaky = res == Passed && s.Try > 1
}

// fail is a result, or the end of a try that is followed by another.
func (p *step) fail(s *Suite, why string) {
	if s.Try > s.Retries {
		p.result(s, Failed, why)
		return
	}
	s.Tries = append(slices.Clone(s.Tries), Try{Environment: s.Environment, Error: why, Failed: s.Failed, Failures: s.Failures, Results: s.Results, Started: s.Started, Ended: p.o.Now})
	s.Phase, s.Waits, s.Error = Retrying, "its environment ends before the next try", ""
	s.Passed, s.Failed, s.Skipped, s.Failures = 0, 0, 0, nil
	s.Instance, s.CommandID, s.Address = "", "", ""
}

func (p *step) suite(s *Suite) {
	e := p.o.Environments[s.Name]
	switch s.Phase {
	case Queued:
		if p.o.Granted[s.Name] {
			p.launch(s)
			return
		}
		s.Waits = p.o.Queue[s.Name]
	case Launching:
		s.Waits = e.Waits
		switch {
		case e.Failed != "":
			p.fail(s, "its environment could not be made: "+e.Failed)
		case !e.There || e.Destroy:
			p.fail(s, "its environment was destroyed before the suite ran")
		case !e.Serving:
		case s.Manual != nil:
			s.Phase, s.Address, s.Image, s.Release = Waiting, e.Address, e.Image, e.Release
			p.manual(s, e)
		default:
			s.Address, s.Image, s.Release = e.Address, e.Image, e.Release
			p.act(Send, s.Name, s.Stage)
		}
	case Running:
		if out, ok := p.o.Outcomes[s.Name]; ok {
			p.outcome(s, out)
		}
	case Waiting:
		p.manual(s, e)
	}
	switch s.Phase { // also what has just become so
	case Retrying:
		switch {
		case !e.There:
			s.Phase, s.Try, s.Queued, s.Waits = Queued, s.Try+1, p.o.Now, ""
			s.Environment, s.Port, s.Started = "", 0, time.Time{}
		case !e.Destroy:
			p.act(Destroy, s.Name, s.Stage)
		}
	case Ending:
		switch {
		case !e.There:
			s.Phase, s.Port = Done, 0
		case !e.Destroy:
			p.act(Destroy, s.Name, s.Stage)
		}
	}
}

func (p *step) launch(s *Suite) {
	s.Phase, s.Waits, s.Started = Launching, "", p.o.Now
	s.Try = max(s.Try, 1)
	name := s.Name
	if s.Try > 1 {
		name = fmt.Sprintf("%s-t%d", s.Name, s.Try)
	}
	s.Environment = p.r.Name + "-" + name
	s.Results = ResultsOf(p.r.Name) + name + "/"
	if p.r.Foundation != "" {
		s.Port = p.port()
	}
	if s.Manual != nil {
		m := *s.Manual
		m.Until = p.o.Now.Add(m.Lease)
		s.Manual = &m
	}
	p.r.Founded = p.r.Foundation != ""
	p.act(Launch, s.Name, s.Stage)
}

// port is the lowest that no environment of the run has.
func (p *step) port() int {
	for port := FirstPort; ; port++ {
		if !slices.ContainsFunc(p.r.Suites, func(s Suite) bool { return s.Port == port }) {
			return port
		}
	}
}

// manual looks at a suite that a person does.
func (p *step) manual(s *Suite, e Environment) {
	m := *s.Manual
	s.Manual = &m
	if !e.Deadline.IsZero() {
		m.Until, m.Notice = e.Deadline, e.Notice
	}
	v := m.Verdict
	switch {
	case v != nil && v.Passed:
		s.Passed = 1
		p.result(s, Passed, "")
	case v != nil:
		s.Failed, s.Failures = 1, []Failure{{Case: s.Name, Message: v.Comment}}
		p.result(s, Failed, "")
	case (!e.There || e.Destroy) && !m.Until.IsZero() && !p.o.Now.Before(m.Until):
		p.result(s, Failed, "its lease ended at "+m.Until.UTC().Format(time.RFC3339)+" and nobody had decided")
	case !e.There || e.Destroy:
		p.result(s, Failed, "its environment was destroyed before anybody decided")
	default:
		s.Waits = "a person does it at " + s.Address
		if m.Notice != "" {
			s.Waits += "; " + m.Notice
		}
	}
}

// outcome reads what a command left.
func (p *step) outcome(s *Suite, out Outcome) {
	s.Waits = ""
	why := out.Error
	if out.JUnit != nil {
		if err := s.ReadJUnit(out.JUnit); err != nil && why == "" {
			why = err.Error()
		}
	}
	if out.Exit != 0 && s.Failed == 0 && why == "" {
		why = fmt.Sprintf("its command ended with exit code %d though no test case failed", out.Exit)
	}
	s.Error = why
	if s.cases() == Passed {
		p.result(s, Passed, "")
		return
	}
	p.fail(s, why)
}

// stages takes the first stage that is not over further, and those after it
// while they need no time.
func (p *step) stages() {
	for i := range p.r.Stages {
		s := &p.r.Stages[i]
		if s.Over() {
			if s.Result == Failed && s.Required {
				p.skip(i+1, fmt.Sprintf("the stage %s failed", s.Name))
				return
			}
			continue
		}
		if s.Phase == Pending {
			s.Phase, s.Started = Running, p.o.Now
			// What was seen is of the stage before, which has just ended: its
			// command or its number says nothing about this one.
			p.o.Target, p.o.Measured, p.o.NotMeasured, p.o.Command = nil, nil, "", nil
			p.open(s)
		}
		p.stage(s)
		if !s.Over() {
			return
		}
		s.Phase, s.Ended = Done, p.o.Now
		if s.Result == Failed && s.Required {
			p.skip(i+1, fmt.Sprintf("the stage %s failed", s.Name))
			return
		}
	}
}

func (p *step) open(s *Stage) {
	switch {
	case s.Gate != nil:
		g := *s.Gate
		g.Until = p.o.Now.Add(g.Timeout)
		s.Gate = &g
	case s.Deploy == nil:
		for i := range p.r.Suites {
			if u := &p.r.Suites[i]; u.Stage == s.Name && u.Phase == Pending {
				u.Phase, u.Queued, u.Try = Queued, p.o.Now, 1
				p.suite(u)
			}
		}
	}
}

func (p *step) skip(from int, why string) {
	for i := from; i < len(p.r.Stages); i++ {
		s := &p.r.Stages[i]
		if s.Over() {
			continue
		}
		s.Phase, s.Result, s.Why = Skipped, NotReached, why
		for j := range p.r.Suites {
			if u := &p.r.Suites[j]; u.Stage == s.Name && u.Result == "" {
				u.Phase, u.Result, u.Error = Skipped, NotReached, why
			}
		}
	}
}

func (p *step) stage(s *Stage) {
	switch {
	case s.Gate != nil:
		p.gate(s)
	case s.Deploy != nil:
		p.deploy(s)
	default:
		bad := []string{}
		for _, u := range p.r.Suites {
			if u.Stage != s.Name {
				continue
			}
			if u.Result == "" {
				return
			}
			if u.Result != Passed {
				bad = append(bad, u.Name)
			}
		}
		s.Result = Passed
		if len(bad) > 0 {
			s.Result, s.Why = Failed, "failed: "+list(bad)
		}
	}
}

// list names the first few.
func list(names []string) string {
	if len(names) > 5 {
		return strings.Join(names[:5], ", ") + fmt.Sprintf(" and %d more", len(names)-5)
	}
	return strings.Join(names, ", ")
}

// over tells whether each stage has its result.
func (p *step) over() bool {
	return !slices.ContainsFunc(p.r.Stages, func(s Stage) bool { return !s.Over() })
}

// end is for what was launched: it goes as soon as no suite needs it.
func (p *step) end() {
	over := p.over()
	idle := true // no suite has an environment, or will have one
	for _, s := range p.r.Suites {
		idle = idle && (s.Phase == Done || s.Phase == Skipped)
	}
	if !idle {
		if over && p.r.Open() == 0 {
			p.r.Phase = Ending
		}
		return
	}
	if p.o.Foundation {
		p.act(EndFoundation, "", "")
		if over {
			p.r.Phase = Ending
		}
		return
	}
	if !over {
		return
	}
	p.r.Phase = Ending
	if p.o.Clean == nil {
		p.act(Prove, "", "")
		return
	}
	p.finish(p.o.Clean)
}

func (p *step) finish(c *Clean) {
	r := p.r
	r.Phase, r.Ended, r.Clean = Done, p.o.Now, c
	r.Passed = r.Error == "" && !r.Cancel
	for _, s := range r.Stages {
		r.Passed = r.Passed && (s.Result == Passed || !s.Required)
	}
}

// blocker says what the run waits for, for people first.
func (p *step) blocker() *blocker.Blocker {
	r := p.r
	if r.Phase == Done {
		return nil
	}
	on := Kind + "/" + r.Name
	next := blocker.Blocker{On: on, Since: p.o.Now}
	for _, s := range r.Stages {
		if s.Phase != Running || s.Over() {
			continue
		}
		switch {
		case s.Gate != nil:
			next.Rule, next.Until = "gate", s.Gate.Until
			next.Message, next.Action = s.Gate.waits(r.Name, s.Name)
		case s.Deploy != nil:
			next.Rule, next.On = "deploying", "environment/"+s.Deploy.Environment
			next.Message = "the stage " + s.Name + " deploys " + s.Deploy.Purpose
			if p.o.Target != nil && p.o.Target.Waits != "" {
				next.Message += ": " + p.o.Target.Waits
			}
		default:
			p.suitesBlock(s.Name, &next)
		}
		return blocker.Carry(r.Blocker, next)
	}
	n := 0
	for _, s := range r.Suites {
		if s.Phase == Ending {
			n++
		}
	}
	next.Rule, next.Message = "environments-ending", fmt.Sprintf("%d environments are being terminated", n)
	if n == 0 {
		next.Rule, next.Message = "foundation-ending", "its shared foundation is being deleted"
		if !p.o.Foundation {
			next.Rule, next.Message = "proving-clean", "a look at the whole cloud shows whether anything of it is left"
		}
	}
	if p.o.Revoked != "" && r.Error != "" {
		next.Rule, next.On, next.Message = "image-revoked", "image/"+r.Image, r.Error+"; "+next.Message
		next.Action = "mend the blueprint, which makes another image, or dayfly images rm " + r.Image + " to have it made again; then start a new run"
	}
	return blocker.Carry(r.Blocker, next)
}

// suitesBlock tells of the suites of the stage that is open. The sentence is
// bounded, however many suites there are.
func (p *step) suitesBlock(stage string, b *blocker.Blocker) {
	var waits, people []string
	open, all, queued := 0, 0, 0
	for _, s := range p.r.Suites {
		if s.Stage != stage {
			continue
		}
		all++
		if s.Result != "" {
			continue
		}
		open++
		switch {
		case s.Phase == Waiting:
			people = append(people, s.Name)
			if b.Until.IsZero() || s.Manual.Until.Before(b.Until) {
				b.Until = s.Manual.Until
			}
		case s.Phase == Queued:
			queued++
		}
		if s.Waits != "" && len(waits) < 3 {
			waits = append(waits, s.Name+": "+s.Waits)
		}
	}
	b.Rule = "suites-running"
	if len(people) > 0 && len(people)+queued == open {
		b.Rule = "manual-suites"
		b.Action = fmt.Sprintf("dayfly run pass %s %s, or dayfly run fail", p.r.Name, people[0])
	} else {
		b.Until = time.Time{}
	}
	b.Message = fmt.Sprintf("%d of %d suites have no result yet", open, all)
	if len(waits) > 0 {
		b.Message += "; " + strings.Join(waits, "; ")
	}
	if more := open - len(waits); more > 0 && len(waits) == 3 {
		b.Message += fmt.Sprintf("; and %d more", more)
	}
}
