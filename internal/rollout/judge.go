package rollout

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/shell"
)

// checkTime is how long a team's check of a deploy may run.
const checkTime = 10 * time.Minute

// judge asks what can be known of the generation that traffic moves to: the load
// balancer's figures and the team's own check. It asks only while that decides
// something.
func (l *Environments) judge(ctx context.Context, e environment.Environment, o environment.Observed, listener string) (environment.Verdict, error) {
	s := e.Shift
	if s == nil || s.Back || s.From == 0 || s.Since.IsZero() && s.Was.IsZero() || e.Back != nil || e.Destroy || s.To != e.Want {
		l.forget(e.Name)
		return environment.Verdict{}, nil
	}
	g := generation(o, s.To)
	if g.Phase != environment.Serving {
		return environment.Verdict{}, nil
	}
	v, err := l.counts(ctx, e, o, listener, g)
	if err != nil || v.Bad != "" || e.Strategy.Check == "" || s.Checked || s.Since.IsZero() {
		return v, err
	}
	w, err := l.check(ctx, e, o, g)
	return environment.Verdict{Bad: w.Bad, Waiting: cmp.Or(w.Waiting, v.Waiting), Note: cmp.Or(w.Note, v.Note)}, err
}

// counted is what a load balancer had counted of an environment's generations.
type counted struct {
	number  int       // of the generation that traffic moves to
	since   time.Time // its traffic was set
	asked   time.Time
	figures []cloud.Figures
	err     error
}

// counts judges by the load balancer's figures. They are asked for a few times
// in each of their periods, however often the loop looks. What cannot be read is
// waited for: nothing goes on that nobody judges, and people can still go back.
func (l *Environments) counts(ctx context.Context, e environment.Environment, o environment.Observed, listener string, g environment.Generation) (environment.Verdict, error) {
	if !e.Strategy.Watches() || listener == "" || o.ListenerGone {
		return environment.Verdict{}, nil
	}
	old, since := generation(o, e.Shift.From), e.Shift.Since
	if since.IsZero() { // it grows, with the traffic of the step before
		since = e.Shift.Was
	}
	period := l.Cloud.FiguresPeriod()
	l.mu.Lock()
	c, known := l.counted[e.Name]
	l.mu.Unlock()
	if !known || c.number != g.Number || !c.since.Equal(since) || o.Now.Sub(c.asked) >= period/4 {
		from, _ := environment.Window(since, o.Now, period)
		c = counted{number: g.Number, since: since, asked: o.Now}
		if o.Now.Sub(from) >= time.Second { // else there can be none
			c.figures, c.err = l.Cloud.Figures(ctx, listener, slices.Concat(g.TargetGroups, old.TargetGroups), from, o.Now)
		}
		if c.err != nil && interrupted(c.err) {
			return environment.Verdict{}, c.err
		}
		l.mu.Lock()
		if l.counted == nil {
			l.counted = map[string]counted{}
		}
		l.counted[e.Name] = c
		l.mu.Unlock()
	}
	if c.err != nil {
		return environment.Verdict{Waiting: "the load balancer's figures cannot be read: " + c.err.Error()}, nil
	}
	of := func(g environment.Generation) (out []environment.Figures) {
		for _, f := range c.figures {
			if slices.Contains(g.TargetGroups, f.TargetGroup) {
				out = append(out, environment.Figures{At: f.At, Requests: f.Requests, Errors: f.Errors, Timed: f.Timed, Took: f.Took})
			}
		}
		return out
	}
	return e.Strategy.Judge(of(g), of(old), since, o.Now, period), nil
}

func (l *Environments) forget(name string) {
	l.mu.Lock()
	delete(l.counted, name)
	l.mu.Unlock()
}

// check runs the team's command on an instance of the new generation, once at
// each step.
func (l *Environments) check(ctx context.Context, e environment.Environment, o environment.Observed, g environment.Generation) (environment.Verdict, error) {
	waiting := environment.Verdict{Waiting: "its check runs"}
	same := func(f func(s *environment.Shift)) error {
		return l.update(ctx, e.Name, func(v *environment.Environment) {
			if v.Shift != nil && v.Shift.To == e.Shift.To && v.Shift.Step == e.Shift.Step && v.Shift.Since.Equal(e.Shift.Since) {
				f(v.Shift)
			}
		})
	}
	if e.Shift.Command == "" {
		instance, err := l.inService(ctx, g)
		if err != nil || instance == "" {
			return environment.Verdict{Waiting: "no instance is in service to run its check"}, err
		}
		script, err := l.checkScript(ctx, e, o, g)
		if err != nil {
			return environment.Verdict{}, err
		}
		object := environment.Kind + "/" + e.Name
		id, err := l.Cloud.SendCommand(ctx, cloud.Intent{ID: fmt.Sprintf("%s/check/%d/%d/%s/%d", object, g.Number, e.Shift.Step, instance, e.Shift.Since.UnixMilli()), Object: object},
			cloud.Command{Instance: instance, Script: script, Timeout: checkTime, Comment: "check of a deploy"})
		if permanent(err) {
			return environment.Verdict{Bad: "its check could not be sent: " + err.Error()}, nil
		}
		if err != nil {
			return waiting, err
		}
		return waiting, same(func(s *environment.Shift) { s.Instance, s.Command = instance, id })
	}
	r, err := l.Cloud.CommandResult(ctx, e.Shift.Instance, e.Shift.Command)
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return waiting, same(func(s *environment.Shift) { s.Command = "" })
	case err != nil:
		return waiting, err
	case !r.Finished():
		return waiting, nil
	case r.Status == "Success":
		return environment.Verdict{}, same(func(s *environment.Shift) { s.Checked, s.Note = true, "its check passed" })
	case r.Status != "Failed" && r.Status != "TimedOut" && l.Clock.Now().Sub(e.Shift.Since) < checkTime:
		// The instance went, or never took it: another one is asked.
		return waiting, same(func(s *environment.Shift) { s.Command = "" })
	}
	bad := fmt.Sprintf("its check %s ended with %s (exit code %d)", e.Strategy.Check, r.Status, r.ExitCode)
	if out := shell.LastLines(r.Stderr+"\n"+r.Stdout, 5, 1000); strings.TrimSpace(out) != "" {
		bad += ": " + out
	}
	return environment.Verdict{Bad: bad}, nil
}

// inService is one of a generation's instances.
func (l *Environments) inService(ctx context.Context, g environment.Generation) (string, error) {
	first := ""
	for _, name := range g.Groups {
		gr, err := l.Cloud.Group(ctx, name)
		if err != nil {
			return "", err
		}
		for _, m := range gr.Members {
			if m.Lifecycle == "InService" && m.Healthy && (first == "" || m.Instance < first) {
				first = m.Instance
			}
		}
	}
	return first, nil
}

// checkScript is the team's command with what it may know.
func (l *Environments) checkScript(ctx context.Context, e environment.Environment, o environment.Observed, g environment.Generation) (string, error) {
	_, files, err := l.Blueprints.Blueprint(ctx, g.Files)
	if err != nil {
		return "", err
	}
	body, err := fs.ReadFile(files, e.Strategy.Check)
	if err != nil {
		return "", &fault.Error{Kind: fault.Invalid, Op: "check the deploy", Object: e.Strategy.Check, Message: "it is not in the generation's blueprint", Err: err}
	}
	share := 100
	if i := e.Shift.Step; i < len(e.Strategy.Steps) {
		share = e.Strategy.Steps[i]
	}
	return shell.Command(map[string]string{
		"DAYFLY_ADDRESS": l.address(e, o, g), "DAYFLY_ENVIRONMENT": e.Name, "DAYFLY_GENERATION": fmt.Sprint(g.Number), "DAYFLY_SHARE": fmt.Sprint(share),
		"DAYFLY_IMAGE": g.Image, "DAYFLY_RELEASE": g.Release,
	}, body), nil
}
