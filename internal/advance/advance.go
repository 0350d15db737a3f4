// Package advance takes test runs through their steps: one image, one release,
// one shared foundation, an environment for each suite, the suite's command on
// an instance of it by Run Command, its JUnit results, and the end of it all.
// It must not know how environments are made: it writes their records.
package advance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/shell"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Cloud is what a run needs of the driver.
type Cloud interface {
	Group(ctx context.Context, name string) (cloud.Group, error)
	SendCommand(ctx context.Context, in cloud.Intent, c cloud.Command) (string, error)
	CommandResult(ctx context.Context, instance, id string) (cloud.CommandResult, error)
	Object(ctx context.Context, key string, limit int64) ([]byte, error)
	PruneIntents(ctx context.Context, object string) error
	Bucket() string
}

// Blueprints gives a packed blueprint, and sees to it that instances can read
// the pack at an S3 address.
type Blueprints interface {
	Blueprint(ctx context.Context, files string) (*blueprint.Blueprint, error)
	Publish(ctx context.Context, object, files string) (s3 string, err error)
}

// Images and Releases are what rollout uses as well.
type Images interface {
	Baked(ctx context.Context, bake string) (image string, waiting string, err error)
}

// Releases resolves the most recent release, once.
type Releases interface {
	Resolve(ctx context.Context, object string, b *blueprint.Blueprint) (release string, err error)
}

// Loop implements reconcile.Loop for runs.
type Loop struct {
	Store      store.Store
	Cloud      Cloud
	Blueprints Blueprints
	Images     Images
	Releases   Releases
	Clock      clock.Clock
	Log        *slog.Logger
	StackName  func(record string) string
}

// firstPort is the listener port of a run's first suite on the shared balancer.
const firstPort = 8001

// soon is when the loop goes on after a step.
const soon = 20 * time.Millisecond

// Kind implements reconcile.Loop.
func (*Loop) Kind() string { return pipeline.Kind }

// Follows implements reconcile.Follower: a run looks again when one of its
// environments changes.
func (*Loop) Follows(k store.Key) []string {
	if k.Kind != environment.Kind {
		return nil
	}
	if run := pipeline.RunOf(k.Name); run != "" {
		return []string{run}
	}
	return nil
}

// Reconcile implements reconcile.Loop.
func (l *Loop) Reconcile(ctx context.Context, name string) (time.Duration, error) {
	r, _, err := store.Get[pipeline.Run](ctx, l.Store, pipeline.Kind, name)
	if errors.Is(err, store.ErrNotFound) || (err == nil && r.Phase == pipeline.Done) {
		return reconcile.Done, nil
	}
	if err != nil {
		return 0, err
	}
	if r.Release == "" || r.Image == "" {
		if r.Cancel || r.Error != "" {
			return reconcile.Done, l.finish(ctx, r)
		}
		return l.resolve(ctx, r)
	}
	if r.Phase == pipeline.Pending {
		if r.Cancel { // nothing was made yet
			return reconcile.Done, l.finish(ctx, r)
		}
		return soon, l.begin(ctx, r)
	}
	if r.Open() > 0 {
		return l.suites(ctx, r)
	}
	return l.end(ctx, r)
}

// resolve decides release and image, once each.
func (l *Loop) resolve(ctx context.Context, r pipeline.Run) (time.Duration, error) {
	b, err := l.Blueprints.Blueprint(ctx, r.Files)
	if err != nil {
		return 0, err
	}
	set := func(f func(*pipeline.Run)) error { return l.update(ctx, r.Name, f) }
	if r.Release == "" {
		rel, err := l.Releases.Resolve(ctx, pipeline.Kind+"/"+r.Name, b)
		if interrupted(err) {
			return 0, err
		}
		if fault.KindOf(err) == fault.Unavailable && l.Clock.Now().Sub(r.Created) < 10*time.Minute {
			return 2 * time.Second, set(func(r *pipeline.Run) { l.block(r, "release-not-resolved", "box/"+b.Release.Box, err.Error()) })
		}
		if err != nil {
			return soon, set(func(r *pipeline.Run) { r.Error = err.Error() })
		}
		return soon, set(func(r *pipeline.Run) { r.Release = rel })
	}
	im, waiting, err := l.Images.Baked(ctx, r.Bake)
	switch {
	case interrupted(err):
		return 0, err
	case err != nil:
		return soon, set(func(r *pipeline.Run) { r.Error = err.Error() })
	case im == "":
		return 500 * time.Millisecond, set(func(r *pipeline.Run) { l.block(r, "image-baking", "bake/"+r.Bake, waiting) })
	}
	return soon, set(func(r *pipeline.Run) { r.Image, r.Blocker = im, nil })
}

// interrupted tells whether an error says only that this loop is being stopped,
// or that another writer was faster.
func interrupted(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, store.ErrFenced) || errors.Is(err, store.ErrConflict)
}

// begin writes the shared foundation and an environment for each suite, all in
// one batch with the run itself.
func (l *Loop) begin(ctx context.Context, r pipeline.Run) error {
	b, err := l.Blueprints.Blueprint(ctx, r.Files)
	if err != nil {
		return err
	}
	cur, version, err := store.Get[pipeline.Run](ctx, l.Store, pipeline.Kind, r.Name)
	if err != nil || cur.Phase != pipeline.Pending {
		return err
	}
	now := l.Clock.Now()
	var ws []store.Write
	if b.Foundation != "" {
		cur.Foundation = r.Name
		ws = append(ws, store.Put(environment.FoundationKind, r.Name, 0, environment.Foundation{
			Name: r.Name, Blueprint: r.Blueprint, Files: r.Files, Stack: l.StackName(r.Name + "-foundation"), Shared: true,
			Created: now, Deadline: r.Deadline, Parameter: map[string]string{b.Parameters.Environment: r.Name}, Phase: environment.Pending,
		}))
	}
	for i := range cur.Suites {
		s := &cur.Suites[i]
		s.Environment, s.Phase, s.Started = r.Name+"-"+s.Name, pipeline.Running, now
		s.Results = "results/" + r.Name + "/" + s.Name + "/"
		e := environment.Environment{
			Name: s.Environment, Blueprint: r.Blueprint, Purpose: "suite", Files: r.Files, Run: r.Name, Suite: s.Name,
			Size: s.Size, Foundation: cur.Foundation, Parameters: s.Parameters, Created: now, Deadline: r.Deadline, Phase: environment.Pending,
			Next: &environment.Change{Files: r.Files, Image: r.Image, Release: r.Release, Size: s.Size, By: "run/" + r.Name, Asked: now},
		}
		if cur.Foundation != "" {
			e.Port = firstPort + i
		}
		ws = append(ws, store.Put(environment.Kind, e.Name, 0, e))
	}
	cur.Phase, cur.Blocker = pipeline.Running, nil
	ws = append(ws, store.Put(pipeline.Kind, r.Name, version, cur))
	return l.Store.Apply(ctx, reconcile.Epoch(ctx), ws...)
}

// suites takes every suite without a result one step further.
func (l *Loop) suites(ctx context.Context, r pipeline.Run) (time.Duration, error) {
	var waits []string
	for _, s := range r.Suites {
		if !s.Ended.IsZero() {
			continue
		}
		wait, err := l.suite(ctx, r, s)
		if err != nil {
			return 0, fmt.Errorf("suite %s: %w", s.Name, err)
		}
		if wait != "" {
			waits = append(waits, s.Name+": "+wait)
		}
	}
	if len(waits) == 0 {
		return soon, nil
	}
	return 200 * time.Millisecond, l.update(ctx, r.Name, func(r *pipeline.Run) {
		l.block(r, "suites-running", "run/"+r.Name, fmt.Sprintf("%d of %d suites have no result yet; %s", r.Open(), len(r.Suites), strings.Join(waits, "; ")))
	})
}

func (l *Loop) suite(ctx context.Context, r pipeline.Run, s pipeline.Suite) (wait string, err error) {
	e, _, err := store.Get[environment.Environment](ctx, l.Store, environment.Kind, s.Environment)
	if err != nil {
		return "", err
	}
	set := func(f func(*pipeline.Suite)) error { return l.updateSuite(ctx, r.Name, s.Name, f) }
	over := func(why string) error {
		return l.result(ctx, r, s, func(s *pipeline.Suite) { s.Error = why })
	}
	switch {
	case r.Cancel:
		return "", over("the run was canceled")
	case s.CommandID != "":
		return l.collect(ctx, r, s)
	case e.Phase == environment.Failed || (e.Error != "" && e.Next == nil && e.Serving == 0):
		return "", over("its environment could not be made: " + e.Error)
	case e.Phase == environment.Gone || e.Destroy:
		return "", over("its environment was destroyed before the suite ran")
	case e.Phase != environment.Serving:
		if e.Blocker != nil {
			return e.Blocker.Message, nil
		}
		return "its environment is " + string(e.Phase), nil
	}
	g, _, err := store.Get[environment.Generation](ctx, l.Store, environment.GenerationKind, environment.GenerationName(e.Name, e.Serving))
	if err != nil {
		return "", err
	}
	instance, there := "", false
	for _, name := range g.Groups {
		gr, err := l.Cloud.Group(ctx, name)
		if err != nil {
			return "", err
		}
		for _, m := range gr.Members {
			if m.Lifecycle != "InService" || !m.Healthy {
				continue
			}
			there = there || m.Instance == s.Instance
			if instance == "" || m.Instance < instance {
				instance = m.Instance
			}
		}
	}
	switch {
	case there:
		instance = s.Instance
	case instance == "":
		return "no instance in service yet", nil
	default:
		// The first choice, or one after another that ended before it was
		// known to have the command.
		if err := set(func(s *pipeline.Suite) { s.Instance, s.Launched, s.Lost = instance, g.Launched, g.Lost }); err != nil {
			return "", err
		}
	}
	object := pipeline.Kind + "/" + r.Name
	pack, err := l.Blueprints.Publish(ctx, object, r.Files)
	if err != nil {
		return "", err
	}
	script := suiteScript(l.Cloud.Bucket(), pack, r, s, e)
	id, err := l.Cloud.SendCommand(ctx, cloud.Intent{ID: object + "/suite/" + s.Name + "/" + instance, Object: object}, cloud.Command{
		Instance: instance, Script: script, Timeout: s.Timeout + time.Minute, Comment: "suite " + s.Name,
	})
	if err != nil {
		if permanent := fault.KindOf(err); permanent == fault.Invalid || permanent == fault.Denied {
			return "", over("its command could not be sent: " + err.Error())
		}
		return "", err
	}
	return "its command is running", set(func(s *pipeline.Suite) { s.CommandID = id })
}

// suiteScript runs the agent's suite command with what the suite may know.
func suiteScript(bucket, pack string, r pipeline.Run, s pipeline.Suite, e environment.Environment) string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\nset -eu\n")
	for _, kv := range [][2]string{
		{"DAYFLY_ADDRESS", e.Address}, {"DAYFLY_ENVIRONMENT", e.Name}, {"DAYFLY_RUN", r.Name}, {"DAYFLY_SUITE", s.Name},
		{"DAYFLY_IMAGE", r.Image}, {"DAYFLY_RELEASE", r.Release}, {"DAYFLY_SIZE", fmt.Sprint(s.Size)},
	} {
		fmt.Fprintf(&b, "export %s=%s\n", kv[0], shell.Quote(kv[1]))
	}
	fmt.Fprintf(&b, "exec /usr/lib/dayfly/dayfly-agent suite --files %s --run %s --results %s --timeout %s\n",
		shell.Quote(pack), shell.Quote(s.Command), shell.Quote("s3://"+bucket+"/"+strings.TrimSuffix(s.Results, "/")), s.Timeout)
	return b.String()
}

func (l *Loop) collect(ctx context.Context, r pipeline.Run, s pipeline.Suite) (wait string, err error) {
	c, err := l.Cloud.CommandResult(ctx, s.Instance, s.CommandID)
	if err != nil {
		return "", err
	}
	if !c.Finished() {
		return "its command is running", nil
	}
	raw, err := l.Cloud.Object(ctx, s.Results+"junit.xml", 8<<20)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return "", err
	}
	return "", l.result(ctx, r, s, func(s *pipeline.Suite) {
		if raw == nil {
			tail := strings.TrimSpace(c.Stderr + "\n" + c.Stdout)
			s.Error = fmt.Sprintf("its command ended with %s (exit code %d) and left no results: %s", c.Status, c.ExitCode, tail[max(0, len(tail)-2000):])
			return
		}
		if err := s.ReadJUnit(raw); err != nil {
			s.Error = err.Error()
		}
		if c.ExitCode != 0 && s.Failed == 0 && s.Error == "" {
			s.Error = fmt.Sprintf("its command ended with exit code %d though no test case failed", c.ExitCode)
		}
	})
}

// result writes a suite's result and ends its environment.
func (l *Loop) result(ctx context.Context, r pipeline.Run, s pipeline.Suite, f func(*pipeline.Suite)) error {
	err := l.updateSuite(ctx, r.Name, s.Name, func(s *pipeline.Suite) {
		f(s)
		s.Ended, s.Phase = l.Clock.Now(), pipeline.Ending
	})
	if err != nil {
		return err
	}
	return l.destroy(ctx, s.Environment)
}

func (l *Loop) destroy(ctx context.Context, env string) error {
	err := reconcile.Update(ctx, l.Store, environment.Kind, env, func(e *environment.Environment) error { e.Destroy = true; return nil })
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// end waits until nothing is left of the environments, then of the foundation.
func (l *Loop) end(ctx context.Context, r pipeline.Run) (time.Duration, error) {
	left := 0
	for _, s := range r.Suites {
		e, _, err := store.Get[environment.Environment](ctx, l.Store, environment.Kind, s.Environment)
		if errors.Is(err, store.ErrNotFound) || (err == nil && e.Phase == environment.Gone) {
			continue
		}
		if err != nil {
			return 0, err
		}
		left++
		if !e.Destroy { // the process died between the result and this
			if err := l.destroy(ctx, s.Environment); err != nil {
				return 0, err
			}
		}
	}
	if left > 0 {
		return 200 * time.Millisecond, l.update(ctx, r.Name, func(r *pipeline.Run) {
			r.Phase = pipeline.Ending
			l.block(r, "environments-ending", "run/"+r.Name, fmt.Sprintf("%d environments are being terminated", left))
		})
	}
	if r.Foundation != "" {
		f, _, err := store.Get[environment.Foundation](ctx, l.Store, environment.FoundationKind, r.Foundation)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return 0, err
		}
		if err == nil && f.Phase != environment.Gone {
			return 200 * time.Millisecond, reconcile.Update(ctx, l.Store, environment.FoundationKind, r.Foundation, func(f *environment.Foundation) error { f.Destroy = true; return nil })
		}
	}
	if err := l.Cloud.PruneIntents(ctx, pipeline.Kind+"/"+r.Name); err != nil {
		return 0, err
	}
	return reconcile.Done, l.finish(ctx, r)
}

func (l *Loop) finish(ctx context.Context, r pipeline.Run) error {
	return l.update(ctx, r.Name, func(r *pipeline.Run) {
		r.Phase, r.Ended, r.Blocker = pipeline.Done, l.Clock.Now(), nil
		r.Passed = r.Error == "" && !r.Cancel
		for i := range r.Suites {
			r.Suites[i].Phase = pipeline.Done
			r.Passed = r.Passed && r.Suites[i].OK()
		}
	})
}

func (l *Loop) block(r *pipeline.Run, rule, on, message string) {
	r.Blocker = blocker.Carry(r.Blocker, blocker.Blocker{Rule: rule, On: on, Message: message, Since: l.Clock.Now()})
}

func (l *Loop) update(ctx context.Context, name string, f func(*pipeline.Run)) error {
	return reconcile.Update(ctx, l.Store, pipeline.Kind, name, func(r *pipeline.Run) error { f(r); return nil })
}

func (l *Loop) updateSuite(ctx context.Context, run, suite string, f func(*pipeline.Suite)) error {
	return l.update(ctx, run, func(r *pipeline.Run) {
		for i := range r.Suites {
			if r.Suites[i].Name == suite {
				f(&r.Suites[i])
			}
		}
	})
}
