package bake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/puppet"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/seal"
	"github.com/dayfly-infra/dayfly/internal/shell"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/verify"
)

// Cloud is what a bake needs of the driver.
type Cloud interface {
	Parameter(ctx context.Context, name string) (string, error)
	PutObject(ctx context.Context, in cloud.Intent, key string, body io.ReadSeeker, size int64) error
	DeletePrefix(ctx context.Context, in cloud.Intent, prefix string) error
	CreateStack(ctx context.Context, in cloud.Intent, s cloud.StackInput) (string, error)
	DeleteStack(ctx context.Context, in cloud.Intent, name string) error
	Stack(ctx context.Context, name string) (cloud.Stack, error)
	StackEvents(ctx context.Context, name string) ([]cloud.StackEvent, error)
	RunInstances(ctx context.Context, in cloud.Intent, i cloud.InstanceInput) ([]string, error)
	TerminateInstances(ctx context.Context, in cloud.Intent, ids ...string) error
	StopInstance(ctx context.Context, in cloud.Intent, id string) error
	Instance(ctx context.Context, id string) (cloud.Instance, error)
	Instances(ctx context.Context, filter map[string]string) ([]cloud.Instance, error)
	CreateImage(ctx context.Context, in cloud.Intent, instance, name string, tags cloud.Tags) (string, error)
	DeleteImage(ctx context.Context, in cloud.Intent, id string) error
	Image(ctx context.Context, id string) (cloud.Image, error)
	Images(ctx context.Context) ([]cloud.Image, error)
	SendCommand(ctx context.Context, in cloud.Intent, c cloud.Command) (string, error)
	CommandResult(ctx context.Context, instance, id string) (cloud.CommandResult, error)
	CommandReady(ctx context.Context, instance string) (bool, error)
	PruneIntents(ctx context.Context, object string) error
	Bucket() string
	Region() string
}

// Blueprints gives the blueprint that a packed digest stands for.
type Blueprints interface {
	Blueprint(ctx context.Context, files string) (*blueprint.Blueprint, fs.FS, error)
}

// Loop implements reconcile.Loop for bakes.
type Loop struct {
	Store      store.Store
	Cloud      Cloud
	Blueprints Blueprints
	Clock      clock.Clock
	Log        *slog.Logger
	Agent      []byte // dayfly-agent, as it goes into images
	StackName  func(record string) string
	Lease      time.Duration // of a builder: after it the sweep may have it
}

// soon is when the loop looks again at something fast.
const soon = 50 * time.Millisecond

// Kind implements reconcile.Loop.
func (*Loop) Kind() string { return Kind }

// Reconcile implements reconcile.Loop.
func (l *Loop) Reconcile(ctx context.Context, name string) (time.Duration, error) {
	b, _, err := store.Get[Bake](ctx, l.Store, Kind, name)
	if errors.Is(err, store.ErrNotFound) || (err == nil && b.Step == Done) {
		return reconcile.Done, nil
	}
	if err != nil {
		return 0, err
	}
	if b.Step == Clean {
		return l.step(ctx, b)
	}
	if b.Cancel {
		return soon, l.fail(ctx, b, "the bake was canceled")
	}
	limit := l.limit(ctx, b)
	late := limit > 0 && l.Clock.Now().Sub(b.Since) > limit
	again, err := l.step(ctx, b)
	switch {
	case err != nil && permanent(err):
		return soon, l.fail(ctx, b, err.Error())
	case !late || errors.Is(err, context.Canceled) || errors.Is(err, store.ErrFenced):
		return again, err
	}
	// The step came first: after a long stop of this process what is waited
	// for may be there. fail does nothing when the bake went on.
	why := fmt.Sprintf("it took longer than %s: %s", limit, b.Sentence)
	if err != nil {
		why += "; " + err.Error()
	}
	return soon, l.fail(ctx, b, why)
}

func (l *Loop) limit(ctx context.Context, b Bake) time.Duration {
	if b.Step != Converge {
		return limits[b.Step]
	}
	bp, _, err := l.Blueprints.Blueprint(ctx, b.Files)
	if err != nil {
		return time.Hour
	}
	return bp.Image.Puppet.Deadline
}

// permanent tells whether repeating cannot help.
func permanent(err error) bool {
	switch fault.KindOf(err) {
	case fault.Invalid, fault.Denied, fault.Failed, fault.NotFound, fault.Conflict:
		return !errors.Is(err, store.ErrFenced) && !errors.Is(err, store.ErrConflict)
	}
	return false
}

func (b Bake) object() string { return Kind + "/" + b.Name }

// intent names a call of this attempt for ever.
func (b Bake) intent(step string) cloud.Intent {
	return cloud.Intent{ID: fmt.Sprintf("%s/%d/%s", b.object(), b.Attempt, step), Object: b.object()}
}

func (b Bake) prefix() string { return fmt.Sprintf("bake/%s/%d/", b.Name, b.Attempt) }

func (l *Loop) tags(b Bake) cloud.Tags {
	return cloud.Tags{cloud.TagObject: b.object(), cloud.TagDeadline: b.Created.Add(l.Lease).UTC().Format(time.RFC3339)}
}

func (l *Loop) step(ctx context.Context, b Bake) (time.Duration, error) {
	switch b.Step {
	case Inputs:
		return l.inputs(ctx, b)
	case Builder:
		return l.builder(ctx, b)
	case Online:
		return l.online(ctx, b, b.Instance, Fetch, "the builder is fetching its files")
	case Fetch:
		return l.fetch(ctx, b)
	case Install:
		return l.command(ctx, b, b.Instance, "install", puppet.Bootstrap(), func(r cloud.CommandResult, out string) error {
			if r.ExitCode != 0 {
				return l.fail(ctx, b, "Puppet's agent could not be installed: "+lines(out, 6))
			}
			return l.next(ctx, b, Converge, "Puppet runs for the first time", nil)
		})
	case Converge:
		return l.converge(ctx, b)
	case Seal:
		return l.command(ctx, b, b.Instance, "seal", seal.Script(), func(r cloud.CommandResult, out string) error {
			if r.ExitCode != 0 {
				return l.fail(ctx, b, "the machine could not be sealed: "+lines(out, 10))
			}
			return l.next(ctx, b, Stop, "the builder is being stopped", nil)
		})
	case Stop:
		return l.stop(ctx, b)
	case Snapshot:
		return l.snapshot(ctx, b)
	case Launch:
		return l.launch(ctx, b)
	case Verify:
		return l.verify(ctx, b)
	case Clean:
		return l.clean(ctx, b)
	}
	return reconcile.Done, nil
}

func (l *Loop) inputs(ctx context.Context, b Bake) (time.Duration, error) {
	bp, files, err := l.Blueprints.Blueprint(ctx, b.Files)
	if err != nil {
		return 0, err
	}
	body, err := pack(bp, files, b.Name, b.Inputs, l.Agent)
	if err != nil {
		return 0, err
	}
	if err := l.Cloud.PutObject(ctx, b.intent("inputs"), b.prefix()+"inputs.tar", bytes.NewReader(body), int64(len(body))); err != nil {
		return 0, err
	}
	_, err = l.Cloud.CreateStack(ctx, b.intent("builder"), cloud.StackInput{
		Name: b.Stack, Template: builderTemplate, Tags: l.tags(b),
		Parameters: map[string]string{"ImageId": b.Base, "InstanceType": bp.Image.Type, "Bucket": l.Cloud.Bucket(), "Prefix": b.prefix()},
	})
	if err != nil {
		return 0, err
	}
	return soon, l.next(ctx, b, Builder, "the builder's stack is being made", nil)
}

func (l *Loop) builder(ctx context.Context, b Bake) (time.Duration, error) {
	st, err := l.Cloud.Stack(ctx, b.Stack)
	if err != nil {
		return 0, err
	}
	switch {
	case st.Status == "CREATE_COMPLETE":
		o := st.Outputs
		return soon, l.next(ctx, b, Online, "the builder boots", func(b *Bake) {
			b.Instance, b.Subnet, b.Group, b.Profile = o["Builder"], o["Subnet"], o["Access"], o["Profile"]
		})
	case strings.HasSuffix(st.Status, "_IN_PROGRESS"):
		return l.pace(b), nil
	}
	why := st.Status + " " + st.Reason
	if evs, err := l.Cloud.StackEvents(ctx, st.ID); err == nil {
		for _, e := range evs {
			if strings.HasSuffix(e.Status, "_FAILED") && !strings.Contains(e.Reason, "cancelled") {
				why = e.Resource + " (" + e.Type + "): " + e.Reason
			}
		}
	}
	return soon, l.fail(ctx, b, "the builder's stack could not be made: "+why)
}

// online waits until Run Command reaches an instance.
func (l *Loop) online(ctx context.Context, b Bake, id string, to Step, sentence string) (time.Duration, error) {
	ready, err := l.Cloud.CommandReady(ctx, id)
	if err != nil {
		return 0, err
	}
	if ready {
		return soon, l.next(ctx, b, to, sentence, nil)
	}
	return l.pace(b), l.alive(ctx, b, id)
}

// alive fails the bake when an instance that it needs has ended.
func (l *Loop) alive(ctx context.Context, b Bake, id string) error {
	i, err := l.Cloud.Instance(ctx, id)
	if fault.KindOf(err) == fault.NotFound && l.Clock.Now().Sub(b.Since) < time.Minute {
		return nil // eventual consistency: neither absent nor terminated
	}
	if err != nil {
		return err
	}
	switch i.State {
	case "pending", "running":
		return nil
	}
	return l.fail(ctx, b, fmt.Sprintf("the instance %s is %s: %s", id, i.State, i.Reason))
}

func (l *Loop) fetch(ctx context.Context, b Bake) (time.Duration, error) {
	script := fetchScript(l.Cloud.Bucket(), b.prefix()+"inputs.tar", l.Cloud.Region())
	return l.command(ctx, b, b.Instance, "fetch", script, func(r cloud.CommandResult, out string) error {
		if r.ExitCode != 0 {
			return l.fail(ctx, b, "the builder could not fetch its files: "+lines(out, 6))
		}
		id := ""
		for line := range strings.Lines(r.Stdout) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), "machine-id "); ok {
				id = v
			}
		}
		return l.next(ctx, b, Install, "Puppet's agent is being installed", func(b *Bake) { b.MachineID = id })
	})
}

func (l *Loop) converge(ctx context.Context, b Bake) (time.Duration, error) {
	bp, _, err := l.Blueprints.Blueprint(ctx, b.Files)
	if err != nil {
		return 0, err
	}
	run := puppet.Run{
		Blueprint: b.Blueprint, Role: bp.Image.Puppet.Role, Environment: bp.Image.Puppet.Environment,
		MaxRuns: bp.Image.Puppet.MaxRuns, Deadline: bp.Image.Puppet.Deadline, Report: "s3://" + l.Cloud.Bucket() + "/" + b.report(),
	}
	return l.command(ctx, b, b.Instance, "puppet", run.Apply(), func(r cloud.CommandResult, out string) error {
		if r.ExitCode != 0 {
			return l.fail(ctx, b, "Puppet failed: "+puppet.Explain(out)+"\n"+shell.LastLines(out, 12, 2000))
		}
		return l.next(ctx, b, Seal, "the machine is being sealed", func(b *Bake) { b.Runs = strings.Count(out, "puppet run ") })
	})
}

// report is where Puppet's last report lies in the bucket.
func (b Bake) report() string { return "reports/" + b.Name + ".yaml" }

// command sends a script once and hands its result to done when it has ended.
func (l *Loop) command(ctx context.Context, b Bake, instance, step, script string, done func(r cloud.CommandResult, out string) error) (time.Duration, error) {
	id, err := l.Cloud.SendCommand(ctx, b.intent("command/"+step), cloud.Command{Instance: instance, Script: script, Timeout: max(l.limit(ctx, b), time.Minute), Comment: "bake " + b.Name + " " + step})
	if err != nil {
		return 0, err
	}
	r, err := l.Cloud.CommandResult(ctx, instance, id)
	if err != nil {
		return 0, err
	}
	if !r.Finished() {
		return l.pace(b), l.alive(ctx, b, instance)
	}
	switch r.Status {
	case "Success", "Failed":
	default:
		return soon, l.fail(ctx, b, fmt.Sprintf("the command %s ended with %s: %s", step, r.Status, lines(r.Stderr, 4)))
	}
	if r.ExitCode < 0 {
		return soon, l.fail(ctx, b, fmt.Sprintf("the command %s did not end by itself: %s", step, lines(r.Stderr, 4)))
	}
	return soon, done(r, r.Stdout+"\n"+r.Stderr)
}

func (l *Loop) stop(ctx context.Context, b Bake) (time.Duration, error) {
	if err := l.Cloud.StopInstance(ctx, b.intent("stop"), b.Instance); err != nil {
		return 0, err
	}
	i, err := l.Cloud.Instance(ctx, b.Instance)
	if err != nil {
		return 0, err
	}
	switch i.State {
	case "stopped":
		return soon, l.next(ctx, b, Snapshot, "the image is being made from the builder's disk", nil)
	case "stopping", "running":
		return l.pace(b), nil
	}
	return soon, l.fail(ctx, b, "the builder is "+i.State+" instead of stopped: "+i.Reason)
}

func (l *Loop) snapshot(ctx context.Context, b Bake) (time.Duration, error) {
	if b.AMI == "" {
		tags := cloud.Tags{cloud.TagObject: image.Kind + "/" + b.Name, cloud.TagImage: b.Name}
		id, err := l.Cloud.CreateImage(ctx, b.intent("image"), b.Instance, fmt.Sprintf("%s-%d", l.StackName(b.Name), b.Attempt), tags)
		if err != nil {
			return 0, err
		}
		return soon, l.update(ctx, b.Name, func(b *Bake) { b.AMI = id }) // before waiting for it
	}
	im, err := l.Cloud.Image(ctx, b.AMI)
	if err != nil && !(fault.KindOf(err) == fault.NotFound && l.Clock.Now().Sub(b.Since) < time.Minute) {
		return 0, err
	}
	switch im.State {
	case "available":
		return soon, l.next(ctx, b, Launch, "a fresh instance boots from the image", nil)
	case "pending", "":
		return l.pace(b), nil
	}
	return soon, l.fail(ctx, b, "the image is "+im.State+": "+im.Reason)
}

func (l *Loop) launch(ctx context.Context, b Bake) (time.Duration, error) {
	if b.Canary == "" {
		ids, err := l.Cloud.RunInstances(ctx, b.intent("canary"), cloud.InstanceInput{
			Image: b.AMI, Type: "t3.small", Subnet: b.Subnet, Groups: []string{b.Group}, Profile: b.Profile, Count: 1, Tags: l.tags(b),
		})
		if err != nil {
			return 0, err
		}
		return soon, l.update(ctx, b.Name, func(b *Bake) { b.Canary = ids[0] })
	}
	return l.online(ctx, b, b.Canary, Verify, "the checks run on a fresh instance")
}

func (l *Loop) verify(ctx context.Context, b Bake) (time.Duration, error) {
	bp, _, err := l.Blueprints.Blueprint(ctx, b.Files)
	if err != nil {
		return 0, err
	}
	if err := verify.Supported(bp.Image.Verify); err != nil {
		return 0, err
	}
	p := verify.Plan{
		Inputs: "s3://" + l.Cloud.Bucket() + "/" + b.prefix() + "inputs.tar", Others: []string{b.MachineID}, Each: 2 * time.Minute,
		// No check can know it beforehand: the AMI is named after the checks were packed.
		Nonce: fmt.Sprintf("%x", sha256.Sum256([]byte(b.AMI+b.Canary+b.Inputs)))[:16],
	}
	for _, v := range bp.Image.Verify {
		p.Checks = append(p.Checks, path.Clean(v))
	}
	return l.command(ctx, b, b.Canary, "verify", p.Script(), func(r cloud.CommandResult, out string) error {
		if r.ExitCode != 0 {
			return l.fail(ctx, b, "the checks could not be run: "+lines(out, 6))
		}
		results := p.Read(r.Stdout)
		if why := verify.Failed(results); why != "" {
			if err := l.update(ctx, b.Name, func(b *Bake) { b.Checks = results }); err != nil {
				return err
			}
			return l.fail(ctx, b, "checks failed on a fresh instance: "+why)
		}
		return l.next(ctx, b, Clean, "the builder is going away", func(b *Bake) { b.Checks = results })
	})
}

// pace is when to look again: often at first, seldom later.
func (l *Loop) pace(b Bake) time.Duration {
	return min(max(l.Clock.Now().Sub(b.Since)/15, soon), 5*time.Second)
}

// next writes the step that follows; f changes the record with it.
func (l *Loop) next(ctx context.Context, b Bake, to Step, sentence string, f func(*Bake)) error {
	now := l.Clock.Now()
	return l.update(ctx, b.Name, func(c *Bake) {
		if c.Step != b.Step {
			return // another step was decided meanwhile
		}
		c.Steps = append(c.Steps, Timing{Step: c.Step, Seconds: now.Sub(c.Since).Seconds()})
		c.Step, c.Since, c.Sentence = to, now, sentence
		c.Blocker = &blocker.Blocker{Rule: "baking", On: c.object(), Message: sentence, Since: now}
		if limit := l.limit(ctx, *c); limit > 0 {
			c.Blocker.Until = now.Add(limit)
		}
		if f != nil {
			f(c)
		}
	})
}

func (l *Loop) fail(ctx context.Context, b Bake, why string) error {
	l.Log.Warn("bake fails", "bake", b.Name, "step", b.Step, "why", why)
	return l.next(ctx, b, Clean, "the bake failed; what it made is going away", func(b *Bake) {
		b.Error, b.FailedAt = why, b.Steps[len(b.Steps)-1].Step
	})
}

func (l *Loop) update(ctx context.Context, name string, f func(*Bake)) error {
	return reconcile.Update(ctx, l.Store, Kind, name, func(b *Bake) error { f(b); return nil })
}

// lines is the end of an output: its last n lines that say something.
func lines(out string, n int) string {
	var ls []string
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); line != "" {
			ls = append(ls, line)
		}
	}
	return strings.Join(ls[max(0, len(ls)-n):], "\n  ")
}
