package pipeline

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/environment"
)

// gate decides an open gate, where it can be decided.
func (p *step) gate(s *Stage) {
	g := *s.Gate
	s.Gate = &g
	late := !g.Until.IsZero() && !p.o.Now.Before(g.Until)
	switch {
	case g.Verdict != nil:
		s.Result, s.Why = Passed, "approved by "+g.Verdict.By
		if !g.Verdict.Passed {
			s.Result, s.Why = Failed, "rejected by "+g.Verdict.By
		}
		if g.Verdict.Override {
			s.Why += ", an administrator"
		}
		if g.Verdict.Comment != "" {
			s.Why += ": " + g.Verdict.Comment
		}
	case g.Results != nil:
		s.Result, s.Why = Passed, "the results keep to its limits"
		if why := g.Results.broken(*p.r); why != "" {
			s.Result, s.Why = Failed, why
		}
	case g.Command != nil:
		p.command(s, &g)
	case g.Metric != nil && p.o.Measured != nil:
		v := *p.o.Measured
		g.Measured = strconv.FormatFloat(v, 'g', -1, 64)
		if g.Metric.holds(v) {
			s.Result, s.Why = Passed, "it measured "+g.Measured
		} else if late {
			s.Result, s.Why = Failed, fmt.Sprintf("it measured %s for %s, and must be %s", g.Measured, g.Timeout, g.Metric.limits())
		}
	case late && g.Metric != nil:
		s.Result, s.Why = Failed, fmt.Sprintf("there was no number within %s: %s", g.Timeout, p.o.NotMeasured)
	case g.Metric != nil:
		if p.o.NotMeasured != "" {
			g.Measured = p.o.NotMeasured
		}
	case late:
		s.Result, s.Why = Failed, fmt.Sprintf("nobody decided within %s", g.Timeout)
	}
}

func (m Metric) holds(v float64) bool {
	return (m.Above == nil || v > *m.Above) && (m.Below == nil || v < *m.Below)
}

func (m Metric) limits() string {
	var out []string
	if m.Above != nil {
		out = append(out, "above "+strconv.FormatFloat(*m.Above, 'g', -1, 64))
	}
	if m.Below != nil {
		out = append(out, "below "+strconv.FormatFloat(*m.Below, 'g', -1, 64))
	}
	return strings.Join(out, " and ")
}

// broken says which limit the results so far do not keep to.
func (l Limits) broken(r Run) string {
	passed, failed, flaky, skipped := 0, 0, 0, 0
	for _, s := range r.Suites {
		if s.Phase == Skipped {
			continue
		}
		passed, failed, skipped = passed+s.Passed, failed+s.Failed, skipped+s.Skipped
		if s.Error != "" && s.Failed == 0 {
			failed++ // a suite that could not be run is no pass
		}
		if s.Flaky {
			flaky++
		}
	}
	switch {
	case passed < l.MinPassed:
		return fmt.Sprintf("%d test cases passed, and at least %d must", passed, l.MinPassed)
	case l.MaxFailed >= 0 && failed > l.MaxFailed:
		return fmt.Sprintf("%d failed, and at most %d may", failed, l.MaxFailed)
	case l.MaxFlaky >= 0 && flaky > l.MaxFlaky:
		return fmt.Sprintf("%d suites are flaky, and at most %d may be", flaky, l.MaxFlaky)
	case l.MaxSkipped >= 0 && skipped > l.MaxSkipped:
		return fmt.Sprintf("%d test cases were skipped, and at most %d may be", skipped, l.MaxSkipped)
	}
	return ""
}

// waits is the sentence of an open gate, and what a person can do.
func (g Gate) waits(run, stage string) (message, action string) {
	if c := g.Command; c != nil {
		message = fmt.Sprintf("the gate %s waits for its command %s", stage, c.Run)
		if c.Waits != "" {
			return message + ": " + c.Waits, ""
		}
		return message + fmt.Sprintf(", which runs on %s of %s", c.Instance, c.Environment), ""
	}
	if g.Metric != nil {
		message = fmt.Sprintf("the gate %s waits until %s is %s", stage, g.Metric.URL, g.Metric.limits())
		if g.Measured != "" {
			message += "; the last look gave " + g.Measured
		}
		return message, ""
	}
	return fmt.Sprintf("the gate %s waits for %s to approve", stage, strings.Join(g.By, " or ")),
		fmt.Sprintf("dayfly run approve %s %s --comment WHY, or dayfly run reject", run, stage)
}

// Names tells whether a gate names this person, or a group that they are in.
func (g Gate) Names(person string, groups []string) bool {
	return slices.ContainsFunc(g.By, func(by string) bool { return by == person || slices.Contains(groups, by) })
}

// deploy takes a deploy stage further. Only what this run has tested goes: each
// suite that passed must have run the very image and release.
func (p *step) deploy(s *Stage) {
	d := *s.Deploy
	s.Deploy = &d
	if d.Asked.IsZero() {
		if why := p.r.untested(); why != "" {
			s.Result, s.Why = Failed, "refused: "+why
			return
		}
		if t := p.o.Target; t != nil && t.Refused != "" {
			s.Result, s.Why = Failed, "refused: "+t.Refused
			return
		}
		p.act(Ship, "", s.Name)
		return
	}
	switch t := p.o.Target; {
	case t == nil:
	case t.Refused != "":
		s.Result, s.Why = Failed, t.Refused
	case t.Landed:
		s.Result, s.Why = Passed, fmt.Sprintf("%s serves %s from %s", d.Environment, p.r.Release, p.r.Image)
	}
}

// untested says why what the run would deploy was not tested by it.
func (r Run) untested() string {
	passed := 0
	for _, s := range r.Suites {
		if s.Result != Passed {
			continue
		}
		if s.Image != r.Image || s.Release != r.Release {
			return fmt.Sprintf("the suite %s ran image %q and release %q, and the run has %q and %q", s.Name, s.Image, s.Release, r.Image, r.Release)
		}
		passed++
	}
	if passed == 0 || r.Image == "" || r.Release == "" {
		return "no suite of this run has passed"
	}
	return ""
}

// Landed tells how far the deploy is that a run asked for of e.
func Landed(r Run, e environment.Environment) Target {
	by := Kind + "/" + r.Name
	switch {
	case e.Name == "" || e.Destroy || e.Phase == environment.Gone:
		return Target{Refused: "the environment is being destroyed, or is gone"}
	case e.Next != nil && e.Next.By != by:
		return Target{Refused: "another deploy took its place, asked by " + e.Next.By}
	case e.Next != nil || (e.Want != e.Serving && e.Error == "") || e.Shift != nil || e.Back != nil:
		// Also while it soaks: until then it may go back by itself.
		if e.Blocker != nil {
			return Target{Waits: e.Blocker.Message}
		}
		return Target{Waits: "it is " + string(e.Phase)}
	case e.Error != "":
		return Target{Refused: e.Error}
	case (e.Image != r.Image || e.Release != r.Release) && e.LastBack != nil:
		return Target{Refused: "it went back to what served before: " + e.LastBack.Why}
	case e.Image != r.Image || e.Release != r.Release:
		return Target{Refused: fmt.Sprintf("%s serves image %s and release %s by now", e.Name, e.Image, e.Release)}
	}
	return Target{Landed: true}
}

// Fail notes that a suite's command could not be sent.
func (r *Run) Fail(suite, environment, why string, now time.Time) {
	if s := r.Suite(suite); s != nil && s.Phase == Launching && s.Environment == environment {
		p := step{r: r, o: Observed{Now: now}}
		p.fail(s, why)
	}
}

// Adopt gives a run of an earlier version, whose suites were all side by side,
// the stage that they are in.
func (r Run) Adopt() Run {
	if len(r.Stages) > 0 || len(r.Suites) == 0 {
		return r
	}
	r.Suites = slices.Clone(r.Suites)
	r.Stages = []Stage{{Name: "check", Required: true, Phase: Pending, Started: r.Created}}
	if r.Phase == Pending {
		for i := range r.Suites {
			r.Suites[i].Stage = "check"
		}
		return r
	}
	r.Stages[0].Phase, r.Founded = Running, r.Foundation != ""
	for i := range r.Suites {
		s := &r.Suites[i]
		s.Stage, s.Try, s.Port = "check", 1, FirstPort+i
		switch {
		case !s.Ended.IsZero():
			s.Phase, s.Result, s.Image, s.Release = Ending, s.cases(), r.Image, r.Release
		case s.CommandID == "":
			s.Phase = Launching
		}
	}
	return r
}
