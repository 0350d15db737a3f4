package advance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// look reads what the run's next step depends on.
func (l *Loop) look(ctx context.Context, r pipeline.Run, m *memory) (pipeline.Observed, error) {
	o := pipeline.Observed{Now: l.Clock.Now(), Environments: map[string]pipeline.Environment{}, Outcomes: map[string]pipeline.Outcome{}}
	for _, s := range r.Suites {
		if s.Environment == "" || s.Phase == pipeline.Done {
			continue
		}
		if s.Phase == pipeline.Running && !r.Cancel {
			out, over, err := l.collect(ctx, s, m)
			if err != nil {
				return o, fmt.Errorf("suite %s: %w", s.Name, err)
			}
			if over {
				o.Outcomes[s.Name] = out
			}
		}
		e, _, err := store.Get[environment.Environment](ctx, l.Store, environment.Kind, s.Environment)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return o, err
		}
		o.Environments[s.Name] = seen(e)
	}
	if r.Founded {
		f, _, err := store.Get[environment.Foundation](ctx, l.Store, environment.FoundationKind, r.Foundation)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return o, err
		}
		o.Foundation = err == nil && f.Phase != environment.Gone
	}
	if r.Image != "" {
		i, _, err := store.Get[image.Image](ctx, l.Store, image.Kind, r.Image)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return o, err
		}
		if !i.Revoked.IsZero() {
			o.Revoked = i.Why
		}
	}
	for _, s := range r.Stages {
		if s.Phase != pipeline.Running || s.Over() {
			continue
		}
		switch {
		case s.Deploy != nil && !s.Deploy.Asked.IsZero():
			e, _, err := store.Get[environment.Environment](ctx, l.Store, environment.Kind, s.Deploy.Environment)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return o, err
			}
			t := pipeline.Landed(r, e)
			o.Target = &t
		case s.Gate != nil && s.Gate.Command != nil:
			a, err := l.asked(ctx, r, s, m)
			if err != nil {
				return o, fmt.Errorf("gate %s: %w", s.Name, err)
			}
			o.Command = a
		case s.Gate != nil && s.Gate.Metric != nil:
			l.measure(ctx, s.Name, *s.Gate.Metric, m)
			o.Measured, o.NotMeasured = m.measure, m.why
		}
	}
	return o, nil
}

// seen is an environment as a run sees it.
func seen(e environment.Environment) pipeline.Environment {
	v := pipeline.Environment{
		There: e.Phase != environment.Gone, Destroy: e.Destroy, Serving: e.Phase == environment.Serving && e.Serving != 0,
		Address: e.Address, Image: e.Image, Release: e.Release, Deadline: e.Deadline, Notice: e.Notice,
		Waits: "its environment is " + string(e.Phase),
	}
	if e.Phase == environment.Failed || (e.Error != "" && e.Next == nil && e.Serving == 0) {
		v.Failed = e.Error
		if v.Failed == "" {
			v.Failed = "it failed"
		}
	}
	if e.Blocker != nil {
		v.Waits = e.Blocker.Message
	}
	return v
}

// pollMost is how seldom a command that takes long is asked for.
const pollMost = 5 * time.Second

func pollEvery(s pipeline.Suite, now time.Time) time.Duration {
	return min(max(now.Sub(s.Started)/20, tick), pollMost)
}

// collect looks whether a suite's command has ended, often at first and
// seldom later.
func (l *Loop) collect(ctx context.Context, s pipeline.Suite, m *memory) (out pipeline.Outcome, over bool, err error) {
	now := l.Clock.Now()
	if now.Sub(m.polled[s.CommandID]) < pollEvery(s, now) {
		return out, false, nil
	}
	m.polled[s.CommandID] = now
	c, err := l.Cloud.CommandResult(ctx, s.Instance, s.CommandID)
	if err != nil || !c.Finished() {
		return out, false, err
	}
	out.Exit = c.ExitCode
	out.JUnit, err = l.Cloud.Object(ctx, s.Results+"junit.xml", 8<<20)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return out, false, err
	}
	if out.JUnit == nil {
		tail := strings.TrimSpace(c.Stderr + "\n" + c.Stdout)
		out.Error = fmt.Sprintf("its command ended with %s (exit code %d) and left no results: %s", c.Status, c.ExitCode, tail[max(0, len(tail)-2000):])
	}
	delete(m.polled, s.CommandID)
	return out, true, nil
}

// measureEvery is how often a gate's number is asked for.
const measureEvery = 10 * time.Second

func (l *Loop) measure(ctx context.Context, stage string, g pipeline.Metric, m *memory) {
	now := l.Clock.Now()
	if m.stage == stage && now.Sub(m.gate) < measureEvery {
		return
	}
	m.stage, m.gate, m.measure, m.why = stage, now, nil, ""
	v, err := l.Metrics.Measure(ctx, g)
	if err != nil {
		m.why = err.Error()
		return
	}
	m.measure = &v
}
