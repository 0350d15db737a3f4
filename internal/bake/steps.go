package bake

import (
	"bytes"
	"context"
	"io/fs"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/identity"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/puppet"
	"github.com/dayfly-infra/dayfly/internal/seal"
	"github.com/dayfly-infra/dayfly/internal/shell"
)

func (l *Loop) inputs(ctx context.Context, b Bake) (finding, error) {
	bp, files, err := l.Blueprints.Blueprint(ctx, b.Files)
	if err != nil {
		return finding{}, err
	}
	if bp.Image.Puppet.Server != "" && b.Claim == "" {
		return l.ticket(ctx, b, bp.Image.Puppet)
	}
	if err := l.send(ctx, b, bp, files); err != nil {
		return finding{}, err
	}
	return finding{done: true}, l.makeBuilder(ctx, b, bp)
}

// send puts what the builder fetches into the bucket.
func (l *Loop) send(ctx context.Context, b Bake, bp *blueprint.Blueprint, files fs.FS) error {
	body, err := pack(bp, files, b.Name, b.Inputs, l.Agent)
	if err != nil {
		return err
	}
	if err := l.Cloud.PutObject(ctx, b.intent("probe"), b.probeKey(), bytes.NewReader(l.Probe), int64(len(l.Probe))); err != nil {
		return err
	}
	return l.Cloud.PutObject(ctx, b.intent("inputs"), b.inputsKey(), bytes.NewReader(body), int64(len(body)))
}

func (b Bake) probeKey() string { return b.Prefix + "dayfly-probe" }

func (b Bake) inputsKey() string { return b.Prefix + "inputs.tar" }

func (l *Loop) builder(ctx context.Context, b Bake) (finding, error) {
	if len(b.Full) > 0 {
		if f, made, err := l.elsewhere(ctx, b); err != nil || !made {
			return f, err
		}
	}
	st, err := l.Cloud.Stack(ctx, b.Stack)
	if err != nil {
		return finding{}, err
	}
	switch {
	case st.Status == "CREATE_COMPLETE":
		o := st.Outputs
		return finding{done: true, learn: func(b *Bake) {
			b.Instance, b.Subnet, b.Group, b.Profile = o["Builder"], o["Subnet"], o["Access"], o["Profile"]
		}}, nil
	case strings.HasSuffix(st.Status, "_IN_PROGRESS"):
		return finding{}, nil
	}
	why := st.Status + " " + st.Reason
	if evs, err := l.Cloud.StackEvents(ctx, st.ID); err == nil {
		for _, e := range evs {
			if strings.HasSuffix(e.Status, "_FAILED") && !strings.Contains(e.Reason, "cancelled") {
				why = e.Resource + " (" + e.Type + "): " + e.Reason
			}
		}
	}
	if strings.Contains(why, b.Base) && (strings.Contains(why, "InvalidAMIID") || strings.Contains(why, "does not exist")) {
		return failed("the base image %s went away after the bake had begun; bake again, with the one that image.base names now\n  %s", b.Base, why), nil
	}
	if cloud.NoCapacity(why) {
		return l.move(ctx, b, why)
	}
	return failed("the builder's stack could not be made: %s", why), nil
}

// online waits until Run Command reaches all these instances.
func (l *Loop) online(ctx context.Context, b Bake, ids ...string) (finding, error) {
	all := true
	for _, id := range ids {
		ready, err := l.Cloud.CommandReady(ctx, id)
		if err != nil {
			return finding{}, err
		}
		if ready {
			continue
		}
		all = false
		if f, err := l.alive(ctx, b, id); err != nil || f.why != "" {
			return f, err
		}
	}
	return finding{done: all}, nil
}

// alive finds that an instance that the bake needs has ended.
func (l *Loop) alive(ctx context.Context, b Bake, id string) (finding, error) {
	i, err := l.Cloud.Instance(ctx, id)
	if fault.KindOf(err) == fault.NotFound && l.Clock.Now().Sub(b.Since) < time.Minute {
		return finding{}, nil // eventual consistency: neither absent nor terminated
	}
	if err != nil || i.State == "pending" || i.State == "running" {
		return finding{}, err
	}
	f := failed("the instance %s is %s: %s", id, i.State, i.Reason)
	f.lost = i.State != "stopped" && i.State != "stopping"
	return f, nil
}

// said is what a command printed.
type said struct {
	code        int
	out, errout string
}

func (s said) all() string { return s.out + "\n" + s.errout }

// command sends a script once. While it runs, and when it did not end by
// itself, ok is false and the finding says all.
func (l *Loop) command(ctx context.Context, b Bake, instance, step, script string) (s said, ok bool, f finding, err error) {
	id, err := l.Cloud.SendCommand(ctx, b.intent("command/"+step), cloud.Command{Instance: instance, Script: script, Timeout: max(b.limit(), time.Minute), Comment: "bake " + b.Name + " " + step})
	if err != nil {
		return said{}, false, finding{}, err
	}
	r, err := l.Cloud.CommandResult(ctx, instance, id)
	switch {
	case err != nil:
		return said{}, false, finding{}, err
	case !r.Finished():
		f, err := l.alive(ctx, b, instance)
		return said{}, false, f, err
	case r.Status != "Success" && r.Status != "Failed":
		return said{}, false, failed("the command %s ended with %s: %s", step, r.Status, lines(r.Stderr, 4)), nil
	case r.ExitCode < 0:
		return said{}, false, failed("the command %s did not end by itself: %s", step, lines(r.Stderr, 4)), nil
	}
	return said{r.ExitCode, r.Stdout, r.Stderr}, true, finding{}, nil
}

func (l *Loop) fetch(ctx context.Context, b Bake) (finding, error) {
	s, ok, f, err := l.command(ctx, b, b.Instance, "fetch", fetchScript(l.Cloud.Bucket(), b.inputsKey(), l.Cloud.Region()))
	switch {
	case !ok:
		return f, err
	case s.code != 0:
		return failed("the builder could not fetch its files: %s", lines(s.all(), 6)), nil
	}
	return finding{done: true}, nil
}

func (l *Loop) install(ctx context.Context, b Bake) (finding, error) {
	s, ok, f, err := l.command(ctx, b, b.Instance, "install", puppet.Bootstrap())
	switch {
	case !ok:
		return f, err
	case s.code != 0:
		return failed("Puppet's agent could not be installed: %s", lines(s.all(), 6)), nil
	}
	return finding{done: true}, nil
}

func (l *Loop) converge(ctx context.Context, b Bake) (finding, error) {
	bp, _, err := l.Blueprints.Blueprint(ctx, b.Files)
	if err != nil {
		return finding{}, err
	}
	run, err := l.run(b, bp.Image.Puppet)
	if err != nil {
		return failed("%v", err), nil
	}
	s, ok, f, err := l.command(ctx, b, b.Instance, "puppet", run.Script())
	switch {
	case !ok:
		return f, err
	case s.code != 0:
		return failed("Puppet failed: %s\n%s", puppet.Explain(s.all()), shell.LastLines(s.all(), 12, 2000)), nil
	}
	return finding{done: true, learn: func(b *Bake) { b.Runs, b.Catalog = strings.Count(s.out, "puppet run "), puppet.CatalogVersion(s.out) }}, nil
}

// report is where Puppet's last report lies in the bucket.
func (b Bake) report() string { return "reports/" + b.Name + ".yaml" }

func (l *Loop) seal(ctx context.Context, b Bake) (finding, error) {
	s, ok, f, err := l.command(ctx, b, b.Instance, "seal", seal.Script())
	switch {
	case !ok:
		return f, err
	case s.code != 0:
		return failed("the machine could not be sealed: %s", lines(s.all(), 10)), nil
	}
	return finding{done: true, learn: func(b *Bake) { b.Identity = identity.Read(s.out) }}, nil
}

func (l *Loop) stop(ctx context.Context, b Bake) (finding, error) {
	if err := l.Cloud.StopInstance(ctx, b.intent("stop"), b.Instance); err != nil {
		return finding{}, err
	}
	i, err := l.Cloud.Instance(ctx, b.Instance)
	if err != nil {
		return finding{}, err
	}
	switch i.State {
	case "stopped":
		return finding{done: true}, nil
	case "stopping", "running":
		return finding{}, nil
	}
	return failed("the builder is %s instead of stopped: %s", i.State, i.Reason), nil
}

func (l *Loop) snapshot(ctx context.Context, b Bake) (finding, error) {
	if b.AMI == "" {
		tags := cloud.Tags{cloud.TagObject: image.Kind + "/" + b.Name, cloud.TagImage: b.Name}
		id, err := l.Cloud.CreateImage(ctx, b.intent("image"), b.Instance, l.StackName(b.Name)+"-"+b.try(), tags)
		if err != nil {
			return finding{}, err
		}
		return finding{wait: soon, learn: func(b *Bake) { b.AMI = id }}, nil // before waiting for it
	}
	im, err := l.Cloud.Image(ctx, b.AMI)
	if err != nil && !(fault.KindOf(err) == fault.NotFound && l.Clock.Now().Sub(b.Since) < time.Minute) {
		return finding{}, err
	}
	switch im.State {
	case "available":
		return finding{done: true}, nil
	case "pending", "":
		return finding{}, nil
	}
	return failed("the image is %s: %s", im.State, im.Reason), nil
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
