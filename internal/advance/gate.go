package advance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/shell"
	"github.com/dayfly-infra/dayfly/internal/store"
)

func askEvery(c pipeline.Command, now time.Time) time.Duration {
	if c.Sent.IsZero() {
		return time.Second
	}
	return min(max(now.Sub(c.Sent)/20, tick), pollMost)
}

// asked looks how a gate's command goes, or where it may run.
func (l *Loop) asked(ctx context.Context, r pipeline.Run, s pipeline.Stage, m *memory) (*pipeline.Asked, error) {
	c, now := *s.Gate.Command, l.Clock.Now()
	if c.CommandID != "" && now.Sub(m.asked) < askEvery(c, now) {
		return nil, nil
	}
	m.asked = now
	a := &pipeline.Asked{}
	if c.CommandID != "" {
		res, err := l.Cloud.CommandResult(ctx, c.Instance, c.CommandID)
		if err != nil && fault.KindOf(err) != fault.NotFound {
			return nil, err
		}
		a.Exit, a.TimedOut = res.ExitCode, res.Status == "TimedOut"
		a.Output = tail(strings.TrimSpace(strings.TrimSpace(res.Stdout)+"\n"+strings.TrimSpace(res.Stderr)), pipeline.MaxOutput)
		// What did not run to its end has no exit code: the instance went, or
		// never took it. A delivery that timed out looks like a command that did.
		a.Ended = res.Status == "Success" || (res.Status == "Failed" && res.ExitCode > 0) || (a.TimedOut && now.Sub(c.Sent) >= s.Gate.Timeout)
		if a.Ended {
			return a, nil
		}
		a.Lost = res.Finished() || err != nil
	}
	d := r.Deployed(s.Name)
	if d == nil || d.Result != pipeline.Passed {
		a.Refused = "no stage before it has deployed what the run tested"
		return a, nil
	}
	e, _, err := store.Get[environment.Environment](ctx, l.Store, environment.Kind, d.Deploy.Environment)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	t := pipeline.Landed(r, e)
	if !t.Landed {
		// A command that runs goes on to its end, unless its instance goes.
		a.Refused, a.Waits = t.Refused, t.Waits
		if e.Serving == 0 || e.Destroy || e.Name == "" {
			a.Lost = a.Lost || c.CommandID != ""
			return a, nil
		}
	}
	g, _, err := store.Get[environment.Generation](ctx, l.Store, environment.GenerationKind, environment.GenerationName(e.Name, e.Serving))
	if err != nil {
		return nil, err
	}
	instance, there, err := l.serving(ctx, g, c.Instance)
	if err != nil {
		return nil, err
	}
	a.Lost = (a.Lost || !there) && c.Instance != ""
	if a.Instance = instance; !t.Landed {
		a.Instance = ""
	} else if instance == "" {
		a.Waits = "no instance of " + e.Name + " is in service"
	}
	return a, nil
}

// tail is the end of a text, whole letters alone.
func tail(s string, n int) string {
	if len(s) > n {
		s = s[len(s)-n:]
	}
	return strings.ToValidUTF8(s, "?")
}

// ask sends a gate's command to the instance that is noted.
func (l *Loop) ask(ctx context.Context, r pipeline.Run, stage string) (set func(*pipeline.Run), err error) {
	s := r.Stage(stage)
	c := *s.Gate.Command
	with := func(f func(*pipeline.Command)) func(*pipeline.Run) {
		return func(r *pipeline.Run) {
			s := r.Stage(stage)
			if s == nil || s.Over() || s.Gate == nil || s.Gate.Command == nil || s.Gate.Command.Try != c.Try || s.Gate.Command.CommandID != "" {
				return
			}
			g, v := *s.Gate, *s.Gate.Command
			f(&v)
			g.Command = &v
			s.Gate = &g
		}
	}
	e, _, err := store.Get[environment.Environment](ctx, l.Store, environment.Kind, c.Environment)
	if err != nil {
		return nil, err
	}
	body, err := l.Blueprints.File(ctx, r.Files, c.Run)
	if err != nil {
		return nil, err
	}
	object := pipeline.Kind + "/" + r.Name
	id, err := l.Cloud.SendCommand(ctx, cloud.Intent{ID: fmt.Sprintf("%s/gate/%s/%d/%s", object, stage, c.Try, c.Instance), Object: object}, cloud.Command{
		Instance: c.Instance, Script: gateScript(r, stage, e, body), Timeout: s.Gate.Timeout, Comment: "gate " + stage,
	})
	if interrupted(err) {
		return nil, err
	}
	if err != nil { // it is tried until the gate's time is over
		return with(func(c *pipeline.Command) { c.Waits = "it could not be sent: " + err.Error() }), err
	}
	now := l.Clock.Now()
	return with(func(c *pipeline.Command) { c.CommandID, c.Sent, c.Waits = id, now, "" }), nil
}

// gateScript is the team's command with what it may know.
func gateScript(r pipeline.Run, stage string, e environment.Environment, body []byte) string {
	return shell.Command(map[string]string{
		"DAYFLY_ADDRESS": e.Address, "DAYFLY_ENVIRONMENT": e.Name, "DAYFLY_RUN": r.Name, "DAYFLY_STAGE": stage,
		"DAYFLY_IMAGE": r.Image, "DAYFLY_RELEASE": r.Release,
	}, body)
}
