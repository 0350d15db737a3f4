package advance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/shell"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// step is one look, one decision, and what follows from it.
func (l *Loop) step(ctx context.Context, r pipeline.Run, version int64, m *memory) (time.Duration, error) {
	o, err := l.look(ctx, r, m)
	if err != nil {
		return 0, err
	}
	next, do, changed, err := l.decide(ctx, r, version, o)
	if err != nil {
		return 0, err
	}
	if next.Phase == pipeline.Done {
		l.forget(r.Name)
		if next.Commanded() {
			return reconcile.Done, nil // they go with its record
		}
		return reconcile.Done, l.Cloud.PruneIntents(ctx, pipeline.Kind+"/"+r.Name)
	}
	errs := []error{}
	sent := map[string]func(*pipeline.Run){}
	for _, a := range do {
		s := next.Suite(a.Suite)
		switch a.Verb {
		case pipeline.Send:
			set, err := l.send(ctx, next, *s)
			if set != nil {
				sent[a.Suite] = set
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("suite %s: %w", a.Suite, err))
			}
		case pipeline.Ask:
			set, err := l.ask(ctx, next, a.Stage)
			if set != nil {
				sent["gate "+a.Stage] = set
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("gate %s: %w", a.Stage, err))
			}
		case pipeline.Destroy:
			errs = append(errs, l.destroy(ctx, s.Environment))
		case pipeline.EndFoundation:
			errs = append(errs, reconcile.Update(ctx, l.Store, environment.FoundationKind, next.Foundation, func(f *environment.Foundation) error { f.Destroy = true; return nil }))
		}
	}
	if len(sent) > 0 {
		errs = append(errs, l.update(ctx, r.Name, func(r *pipeline.Run) {
			for _, name := range slices.Sorted(maps.Keys(sent)) {
				sent[name](r)
			}
		}))
	}
	again := l.rest(next, o.Now, m)
	if changed || len(sent) > 0 {
		again = soon
	}
	return again, errors.Join(errs...)
}

// rest is when to look again where nothing wakes the run. Its environments do,
// and whoever changes its record.
func (l *Loop) rest(r pipeline.Run, now time.Time, m *memory) time.Duration {
	d := 5 * time.Second
	for _, s := range r.Suites {
		switch s.Phase {
		case pipeline.Running:
			d = min(d, max(pollEvery(s, now)-now.Sub(m.polled[s.CommandID]), soon))
		case pipeline.Queued:
			d = min(d, 500*time.Millisecond)
		case pipeline.Launching, pipeline.Retrying, pipeline.Ending:
			d = min(d, time.Second)
		}
	}
	if r.Phase == pipeline.Ending {
		d = min(d, tick)
	}
	for _, s := range r.Stages {
		if s.Gate != nil && s.Gate.Command != nil && s.Phase == pipeline.Running {
			d = min(d, max(askEvery(*s.Gate.Command, now)-now.Sub(m.asked), soon))
		}
		if s.Gate != nil && s.Phase == pipeline.Running && !s.Gate.Until.IsZero() {
			d = min(d, max(s.Gate.Until.Sub(now), soon))
		}
	}
	return d
}

// decide writes the run as it is next, with the environments that it launches
// and the deploy that it asks for, all in one batch.
func (l *Loop) decide(ctx context.Context, r pipeline.Run, version int64, o pipeline.Observed) (next pipeline.Run, do []pipeline.Action, changed bool, err error) {
	queued := slices.ContainsFunc(r.Suites, func(s pipeline.Suite) bool { return s.Phase == pipeline.Queued })
	if queued && !r.Cancel {
		// From the decision to the write, so that two runs do not get the same
		// instances.
		l.ledger.mu.Lock()
		defer l.ledger.mu.Unlock()
		if err := l.ledger.begin(ctx, l.Store); err != nil {
			return r, nil, false, err
		}
		l.ledger.grant(r, l.Capacity, o.Now, &o)
		defer func() { l.ledger.set(next) }()
	} else {
		defer func() { l.ledger.note(next) }()
	}
	next, do = pipeline.Advance(r, o)
	if has(do, pipeline.Prove) {
		clean, err := l.Prover.Prove(ctx, r.Name)
		if err != nil {
			return r, nil, false, fmt.Errorf("prove that nothing is left: %w", err)
		}
		// What is being deleted may show for a while.
		if next.Blocker != nil && (clean.Left == 0 || o.Now.Sub(next.Blocker.Since) > lingering) {
			o.Clean = &clean
			next, do = pipeline.Advance(r, o)
		}
	}
	var ws []store.Write
	for _, a := range do {
		var more []store.Write
		switch a.Verb {
		case pipeline.Launch:
			more, err = l.launch(ctx, next, *next.Suite(a.Suite), ws)
		case pipeline.Ship:
			more, err = l.ship(ctx, &next, a.Stage)
		}
		if err != nil {
			return r, nil, false, err
		}
		ws = append(ws, more...)
	}
	for name, n := range pipeline.Notices(r, next) {
		ws = append(ws, store.Put(pipeline.NoticeKind, name, store.Any, n))
	}
	w := store.Put(pipeline.Kind, r.Name, version, next)
	before := store.Put(pipeline.Kind, r.Name, version, r)
	if changed = string(w.Body) != string(before.Body); !changed && len(ws) == 0 {
		return next, do, false, nil
	}
	if err := l.Store.Apply(ctx, reconcile.Epoch(ctx), append(ws, w)...); err != nil {
		return r, nil, false, err
	}
	return next, do, changed, nil
}

// lingering is how long the cloud may still show what is being deleted.
const lingering = 3 * time.Minute

func has(do []pipeline.Action, v pipeline.Verb) bool {
	return slices.ContainsFunc(do, func(a pipeline.Action) bool { return a.Verb == v })
}

// suiteLease is how long an automated suite's environment may live beside the
// time of its command.
const suiteLease = 24 * time.Hour

// launch makes the records of a suite's environment and, for the first one, of
// the foundation.
func (l *Loop) launch(ctx context.Context, r pipeline.Run, s pipeline.Suite, batch []store.Write) ([]store.Write, error) {
	b, err := l.Blueprints.Blueprint(ctx, r.Files)
	if err != nil {
		return nil, err
	}
	now := l.Clock.Now()
	e := environment.Environment{
		Name: s.Environment, Blueprint: r.Blueprint, Purpose: "suite", Files: r.Files, Run: r.Name, Suite: s.Name,
		Size: s.Size, Foundation: r.Foundation, Port: s.Port, Parameters: s.Parameters, Created: now, Deadline: now.Add(s.Timeout + suiteLease), Phase: environment.Pending,
		Next: &environment.Change{Files: r.Files, Image: r.Image, Release: r.Release, Size: s.Size, By: pipeline.Kind + "/" + r.Name, Asked: now},
	}
	last := e.Deadline
	if s.Manual != nil {
		e.Deadline, e.LeaseMax = now.Add(s.Manual.Lease), s.Manual.LeaseMax
		last = now.Add(s.Manual.LeaseMax)
	}
	ws := []store.Write{store.Put(environment.Kind, e.Name, 0, e)}
	if r.Foundation == "" || slices.ContainsFunc(batch, func(w store.Write) bool { return w.Kind == environment.FoundationKind }) {
		return ws, nil
	}
	last = last.Add(suiteLease)
	f, version, err := store.Get[environment.Foundation](ctx, l.Store, environment.FoundationKind, r.Foundation)
	switch {
	case errors.Is(err, store.ErrNotFound):
		f = environment.Foundation{
			Name: r.Foundation, Blueprint: r.Blueprint, Files: r.Files, Stack: l.StackName(r.Name + "-foundation"), Shared: true,
			Created: now, Deadline: last, Parameter: map[string]string{b.Parameters.Environment: r.Name}, Phase: environment.Pending,
		}
	case err != nil:
		return nil, err
	case f.Deadline.Before(last): // it lives as long as what stands on it
		f.Deadline = last
	default:
		return ws, nil
	}
	return append(ws, store.Put(environment.FoundationKind, f.Name, version, f)), nil
}

// shipPatience is how long a deploy stage waits for another deploy of its
// environment.
const shipPatience = time.Hour

// ship asks for the deploy of a stage.
func (l *Loop) ship(ctx context.Context, r *pipeline.Run, stage string) ([]store.Write, error) {
	s := r.Stage(stage)
	env, ws, err := l.Deployer.Ship(ctx, *r, s.Deploy.Purpose)
	switch kind := fault.KindOf(err); {
	case err == nil:
		d := *s.Deploy
		d.Environment, d.Asked = env, l.Clock.Now()
		s.Deploy = &d
		return ws, nil
	case interrupted(err):
		return nil, err
	case (kind == fault.Conflict || kind == fault.Unavailable) && l.Clock.Now().Sub(s.Started) < shipPatience:
		r.Blocker.Message = "the stage " + stage + " waits to deploy " + s.Deploy.Purpose + ": " + err.Error()
		return nil, nil
	}
	s.Phase, s.Result, s.Why, s.Ended = pipeline.Done, pipeline.Failed, "refused: "+err.Error(), l.Clock.Now()
	return nil, nil
}

func (l *Loop) destroy(ctx context.Context, env string) error {
	err := reconcile.Update(ctx, l.Store, environment.Kind, env, func(e *environment.Environment) error { e.Destroy = true; return nil })
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// serving is an instance of a generation that is in service, and whether one is.
func (l *Loop) serving(ctx context.Context, g environment.Generation, one string) (instance string, there bool, err error) {
	for _, name := range g.Groups {
		gr, err := l.Cloud.Group(ctx, name)
		if err != nil {
			return "", false, err
		}
		for _, m := range gr.Members {
			if m.Lifecycle != "InService" || !m.Healthy {
				continue
			}
			there = there || m.Instance == one
			if instance == "" || m.Instance < instance {
				instance = m.Instance
			}
		}
	}
	return instance, there, nil
}

// send sends a suite's command to an instance of its environment that serves.
func (l *Loop) send(ctx context.Context, r pipeline.Run, s pipeline.Suite) (set func(*pipeline.Run), err error) {
	e, _, err := store.Get[environment.Environment](ctx, l.Store, environment.Kind, s.Environment)
	if err != nil {
		return nil, err
	}
	g, _, err := store.Get[environment.Generation](ctx, l.Store, environment.GenerationKind, environment.GenerationName(e.Name, e.Serving))
	if err != nil {
		return nil, err
	}
	instance, there, err := l.serving(ctx, g, s.Instance)
	if err != nil {
		return nil, err
	}
	with := func(f func(*pipeline.Suite)) func(*pipeline.Run) {
		return func(r *pipeline.Run) {
			if v := r.Suite(s.Name); v != nil && v.Phase == pipeline.Launching && v.Environment == s.Environment {
				f(v)
			}
		}
	}
	switch {
	case there:
		instance = s.Instance
	case instance == "":
		return with(func(s *pipeline.Suite) { s.Waits = "no instance is in service yet" }), nil
	default:
		// The first choice, or one after another that ended before it was
		// known to have the command. It is durable before the command is sent.
		return with(func(s *pipeline.Suite) { s.Instance, s.Launched, s.Lost = instance, g.Launched, g.Lost }), nil
	}
	object := pipeline.Kind + "/" + r.Name
	pack, err := l.Blueprints.Publish(ctx, object, r.Files)
	if err != nil {
		return nil, err
	}
	script := suiteScript(l.Cloud.Bucket(), pack, r, s, e)
	id, err := l.Cloud.SendCommand(ctx, cloud.Intent{ID: object + "/suite/" + strings.TrimPrefix(e.Name, r.Name+"-") + "/" + instance, Object: object}, cloud.Command{
		Instance: instance, Script: script, Timeout: s.Timeout + time.Minute, Comment: "suite " + s.Name,
	})
	if kind := fault.KindOf(err); err != nil && (kind == fault.Invalid || kind == fault.Denied) {
		why, now := "its command could not be sent: "+err.Error(), l.Clock.Now()
		return func(r *pipeline.Run) { r.Fail(s.Name, s.Environment, why, now) }, nil
	}
	if err != nil {
		return nil, err
	}
	return with(func(s *pipeline.Suite) { s.Phase, s.CommandID, s.Waits = pipeline.Running, id, "" }), nil
}

// suiteScript runs the agent's suite command with what the suite may know. It
// has the names of secrets and no secret.
func suiteScript(bucket, pack string, r pipeline.Run, s pipeline.Suite, e environment.Environment) string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\nset -eu\n")
	for _, kv := range [][2]string{
		{"DAYFLY_ADDRESS", e.Address}, {"DAYFLY_ENVIRONMENT", e.Name}, {"DAYFLY_RUN", r.Name}, {"DAYFLY_STAGE", s.Stage}, {"DAYFLY_SUITE", cmp.Or(s.Suite, s.Name)},
		{"DAYFLY_IMAGE", r.Image}, {"DAYFLY_RELEASE", r.Release}, {"DAYFLY_SIZE", fmt.Sprint(s.Size)},
		{"DAYFLY_SHARD", fmt.Sprint(max(s.Shard, 1))}, {"DAYFLY_SHARDS", fmt.Sprint(max(s.Shards, 1))}, {"DAYFLY_TRY", fmt.Sprint(max(s.Try, 1))},
	} {
		fmt.Fprintf(&b, "export %s=%s\n", kv[0], shell.Quote(kv[1]))
	}
	fmt.Fprintf(&b, "exec /usr/lib/dayfly/dayfly-agent suite --files %s --run %s --results %s --timeout %s",
		shell.Quote(pack), shell.Quote(s.Command), shell.Quote("s3://"+bucket+"/"+strings.TrimSuffix(s.Results, "/")), s.Timeout)
	for _, name := range slices.Sorted(maps.Keys(s.Credentials)) {
		fmt.Fprintf(&b, " --credential %s", shell.Quote(name+"="+s.Credentials[name]))
	}
	b.WriteString("\n")
	return b.String()
}
