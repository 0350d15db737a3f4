package chronicle

import (
	"fmt"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/currency"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
)

// kinds are the records whose changes are events.
var kinds = map[string]differ{
	environment.Kind:           of(environment.Kind, follows, func(e *environment.Environment) *string { return &e.Op }, environments),
	environment.GenerationKind: of(environment.GenerationKind, follows, func(g *environment.Generation) *string { return &g.Op }, generations),
	environment.FoundationKind: of(environment.FoundationKind, follows, func(f *environment.Foundation) *string { return &f.Op }, foundations),
	instance.Kind:              of(instance.Kind, keeps, func(i *instance.Instance) *string { return &i.Op }, instances),
	instance.FleetKind:         of(instance.FleetKind, keeps, func(f *instance.Fleet) *string { return &f.Op }, fleets),
	bake.Kind:                  of(bake.Kind, keeps, func(b *bake.Bake) *string { return &b.Op }, bakes),
	image.Kind:                 of(image.Kind, keeps, func(i *image.Image) *string { return &i.Op }, images),
	currency.FreezeKind:        of(currency.FreezeKind, follows, func(f *currency.Freeze) *string { return &f.Op }, freezes),
	image.ChannelKind:          of(image.ChannelKind, follows, func(c *image.Channel) *string { return &c.Op }, channels),
	pipeline.Kind:              of(pipeline.Kind, keeps, func(r *pipeline.Run) *string { return &r.Op }, runs),
}

// routine are the rules of waits that every deploy, bake and run goes through:
// they are no news.
var routine = map[string]bool{
	"image-baking": true, "stack-in-progress": true, "foundation-in-progress": true, "generation-launching": true, "instances-launching": true,
	"suites-running": true, "deleting": true, "foundation-in-use": true,
}

// blocked tells of a wait that begins, changes its rule, or ends.
func (r *report) blocked(old, cur *blocker.Blocker, served, serves bool) {
	news := func(b *blocker.Blocker, serving bool) bool {
		return b != nil && !routine[b.Rule] && (b.Rule != "instances-not-healthy" || serving)
	}
	switch {
	case news(cur, serves) && (old == nil || old.Rule != cur.Rule || old.On != cur.On):
		text := cur.Message + " (" + cur.Rule + ", on " + cur.On + ")"
		if cur.Action != "" {
			text += ": " + cur.Action
		}
		r.warn("Blocked", "%s", text)
	case news(old, served) && cur == nil:
		r.info("Unblocked", "it waits no more for %s, which took %s", old.On, since(old.Since, r.now))
	}
}

func since(from, to time.Time) time.Duration { return to.Sub(from).Round(time.Second) }

// line is the first line of a text: an event is a sentence.
func line(s string) string { s, _, _ = strings.Cut(s, "\n"); return s }

func environments(r *report, old, cur *environment.Environment) {
	if cur == nil {
		return
	}
	if old == nil {
		old = &environment.Environment{}
	}
	if n := cur.Next; n != nil && (old.Next == nil || !old.Next.Asked.Equal(n.Asked)) {
		r.add(event.Info, "DeployRequested", "a deploy of %d instances is asked for%s", n.Size, because(n.Why)).By = n.By
	}
	if n, o := cur.Next, old.Next; n != nil {
		if o == nil {
			o = &environment.Change{}
		}
		if n.Release != "" && o.Release == "" {
			r.info("ReleaseResolved", "the deploy takes the release %s", n.Release)
		}
		if n.Image != "" && o.Image == "" {
			r.info("ImageResolved", "the deploy takes the image %s", n.Image)
		}
	}
	if cur.Want > old.Want {
		r.info("GenerationRequested", "generation %d is launched with %d instances", cur.Want, cur.Size)
	}
	if cur.Moves > old.Moves {
		r.info("TrafficMoved", "the load balancer's weights were set")
	}
	switch {
	case cur.Serving != old.Serving && cur.Serving != 0 && old.Serving != 0:
		r.info("Switched", "generation %d serves in the place of %d: image %s, release %s", cur.Serving, old.Serving, cur.Image, cur.Release)
	case cur.Serving != old.Serving && cur.Serving != 0:
		r.info("Serving", "generation %d serves: image %s, release %s", cur.Serving, cur.Image, cur.Release)
	case cur.Serving != old.Serving && cur.Phase != environment.Gone:
		r.warn("StoppedServing", "generation %d serves no more, and no other does", old.Serving)
	}
	if b := cur.LastBack; b != nil && (old.LastBack == nil || !old.LastBack.At.Equal(b.At)) {
		to := "one like those that were good"
		if b.To != 0 {
			to = fmt.Sprintf("generation %d", b.To)
		}
		r.add(event.Warning, "WentBack", "it went back from generation %d to %s%s", b.From, to, because(b.Why)).By = b.By
	}
	if cur.Error != "" && cur.Error != old.Error {
		r.fail("DeployFailed", "%s", line(cur.Error))
	}
	r.lease(cur.Deadline, old.Deadline, old.Name != "" && old.Phase != environment.Gone && !cur.Destroy, cur.Notice, old.Notice)
	if cur.Destroy && !old.Destroy {
		if !cur.Deadline.IsZero() && !r.now.Before(cur.Deadline) {
			r.warn("LeaseEnded", "its lease ended at %s; everything of it is terminated", cur.Deadline.UTC().Format(time.RFC3339))
		} else {
			r.info("DestroyRequested", "it and everything of it shall be terminated")
		}
	}
	if cur.Phase == environment.Gone && old.Phase != environment.Gone && old.Name != "" {
		r.info("Gone", "everything of it is deleted")
	}
	r.blocked(old.Blocker, cur.Blocker, old.Phase == environment.Serving, cur.Phase == environment.Serving)
}

// lease tells of leases that are extended, and of those that end soon.
func (r *report) lease(cur, old time.Time, lives bool, notice, before string) {
	if lives && !old.IsZero() && cur.After(old) {
		r.info("LeaseExtended", "it may live until %s", cur.UTC().Format(time.RFC3339))
	}
	if notice != "" && notice != before {
		r.warn("LeaseWarning", "%s", notice)
	}
}

func generations(r *report, old, cur *environment.Generation) {
	if cur == nil {
		return
	}
	if old == nil {
		old = &environment.Generation{}
		r.info("GenerationCreated", "its stack %s is made with %d instances from image %s and release %s", cur.Stack, cur.Size, cur.Image, cur.Release)
	}
	if len(cur.Groups) > 0 && len(old.Groups) == 0 {
		r.info("StackCreated", "its stack is there after %s; instances are launched", since(cur.Created, r.now))
	}
	if cur.Phase == environment.Serving {
		switch {
		case old.Phase != environment.Serving:
			r.info("GenerationReady", "%d of %d instances are healthy after %s", cur.Healthy, cur.Size, since(cur.Created, r.now))
		case cur.Healthy < cur.Size && old.Healthy >= old.Size:
			r.warn("CapacityLost", "it serves with %d of %d instances", cur.Healthy, cur.Size)
		case cur.Healthy >= cur.Size && old.Healthy < old.Size:
			r.info("CapacityRestored", "it serves with %d of %d instances again", cur.Healthy, cur.Size)
		}
	}
	if cur.Phase != old.Phase {
		switch cur.Phase {
		case environment.Failed:
			r.fail("GenerationFailed", "%s", line(cur.Error))
		case environment.Terminating:
			r.info("GenerationEnding", "its instances and its stack are terminated")
		case environment.Gone:
			r.info("GenerationGone", "everything of it is deleted")
		}
	}
	if cur.Phase != environment.Serving || cur.Healthy >= cur.Size { // a loss is told already
		r.blocked(old.Blocker, cur.Blocker, old.Phase == environment.Serving, cur.Phase == environment.Serving)
	}
}

func foundations(r *report, old, cur *environment.Foundation) {
	if cur == nil {
		return
	}
	if old == nil {
		old = &environment.Foundation{}
		r.info("FoundationCreated", "its stack %s is made", cur.Stack)
	}
	if cur.Phase != old.Phase {
		switch cur.Phase {
		case environment.Serving:
			r.info("FoundationReady", "its stack is there after %s", since(cur.Created, r.now))
		case environment.Failed:
			r.fail("FoundationFailed", "%s", line(cur.Error))
		case environment.Terminating:
			r.info("FoundationEnding", "its stack is deleted")
		case environment.Gone:
			r.info("FoundationGone", "its stack is deleted")
		}
	}
	if cur.Destroy && !old.Destroy && cur.Shared && !cur.Deadline.IsZero() && !r.now.Before(cur.Deadline) {
		r.warn("LeaseEnded", "its lease ended at %s", cur.Deadline.UTC().Format(time.RFC3339))
	}
	r.blocked(old.Blocker, cur.Blocker, true, true)
}

func instances(r *report, old, cur *instance.Instance) {
	if cur == nil {
		return
	}
	if old == nil {
		old = &instance.Instance{}
		text := fmt.Sprintf("launched in %s", cur.Zone)
		if cur.Parent != "" {
			text += ", in the place of " + cur.Parent
		}
		r.info("InstanceLaunched", "%s", text)
	}
	if !cur.InService.IsZero() && old.InService.IsZero() {
		r.info("InstanceInService", "in service %s after its launch", since(cur.Launched, cur.InService))
	}
	switch {
	case !cur.Failing.IsZero() && old.Failing.IsZero():
		r.warn("InstanceFailing", "%s", line(cur.Trouble))
	case cur.Failing.IsZero() && !old.Failing.IsZero() && cur.State != instance.Gone:
		r.info("InstanceHealthy", "it is healthy again after %s", since(old.Failing, r.now))
	}
	if cur.Touch != nil && old.Touch == nil {
		r.warn("InstanceTouched", "it is not what its image made any more: %s", strings.Join(cur.Touch.What, ", "))
	}
	if cur.Ask != nil && old.Ask == nil {
		r.add(event.Info, "ReplacementRequested", "it shall be replaced%s", because(cur.Ask.Why)).By = cur.Ask.By
	}
	if cur.Keep != nil && (old.Keep == nil || !cur.Keep.Until.Equal(old.Keep.Until)) && cur.Keep.Until.After(r.now) {
		r.add(event.Info, "KeepRequested", "it shall be kept out of service until %s%s", cur.Keep.Until.UTC().Format(time.RFC3339), because(cur.Keep.Why)).By = cur.Keep.By
	}
	if cur.Leave != nil && old.Leave == nil {
		add := r.info
		if cur.Leave.Cause == instance.Unhealthy || cur.Leave.Cause == instance.Touched {
			add = r.warn
		}
		add("InstanceReplacing", "another one takes its place (%s): %s", cur.Leave.Cause, line(cur.Leave.Why))
	}
	if cur.State == old.State {
		return
	}
	switch cur.State {
	case instance.Kept:
		r.info("InstanceKept", "it is out of service for a look")
	case instance.Gone:
		switch cur.Cause {
		case instance.NeverReady:
			r.fail("InstanceFailedToStart", "%s", line(cur.Why))
		case instance.Died:
			r.warn("InstanceDied", "%s", line(cur.Why))
		default:
			r.info("InstanceGone", "%s (%s)", line(cur.Why), cur.Cause)
		}
	}
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + line(why)
}

// fleets have brakes: what holds replacements back.
func fleets(r *report, old, cur *instance.Fleet) {
	if cur == nil {
		return
	}
	if old == nil {
		old = &instance.Fleet{}
	}
	r.blocked(old.Blocker, cur.Blocker, true, true)
}

func bakes(r *report, old, cur *bake.Bake) {
	if cur == nil {
		return
	}
	if old == nil || old.Attempt != cur.Attempt {
		if old == nil {
			old = &bake.Bake{}
		}
		r.add(event.Info, "BakeStarted", "an image of %s is made from %s", cur.Blueprint, cur.Base).By = cur.By
	} else if cur.Step != old.Step && cur.Step != bake.Done {
		r.info("BakeStep", "%s took %s; %s follows", old.Step, since(old.Since, r.now), cur.Step)
	}
	if cur.Try > old.Try {
		r.info("BakeResumed", "it goes on with %s, try %d", cur.To, cur.Try+1)
	}
	if cur.Cancel && !old.Cancel {
		r.info("BakeCanceled", "it shall be ended")
	}
	if cur.Error != "" && cur.Error != old.Error {
		r.fail("BakeFailed", "%s failed: %s", cur.FailedAt, line(cur.Error))
	}
	if cur.Step == bake.Kept && old.Step != bake.Kept {
		r.info("BuilderKept", "its builder is kept for a look until %s", cur.Until.UTC().Format(time.RFC3339))
	}
	if cur.Step == bake.Done && old.Step != bake.Done && cur.Error == "" {
		r.info("BakeFinished", "the image %s is made, in %s", cur.Image, since(cur.Created, r.now))
	}
	r.blocked(old.Blocker, cur.Blocker, true, true)
}

func images(r *report, old, cur *image.Image) {
	switch {
	case cur == nil && old != nil:
		r.info("ImageDeleted", "the image and its snapshots are deleted")
	case cur == nil:
	case old == nil:
		r.info("ImageCreated", "%s is sealed, and %d checks on two fresh instances passed", cur.AMI, len(cur.Checks))
	case !cur.Revoked.IsZero() && old.Revoked.IsZero():
		r.fail("ImageRevoked", "nothing is launched from it any more, and what runs from it is replaced: %s", line(cur.Why))
	case cur.State == old.State:
	case cur.State == image.Quarantined:
		r.fail("ImageQuarantined", "it is not launched any more: %s", line(cur.Why))
	case old.State == image.Quarantined:
		r.info("ImageReleased", "its quarantine is over, it is %s%s", cur.State, because(cur.Why))
	case cur.State == image.Verified:
		r.info("ImageVerified", "it is promoted")
	case cur.State == image.Retired:
		r.info("ImageRetired", "it is not launched any more")
	}
}

func freezes(r *report, old, cur *currency.Freeze) {
	switch {
	case cur == nil:
		r.info("Thawed", "its freeze is over")
	case old == nil || old.Why != cur.Why || !old.Until.Equal(cur.Until):
		r.warn("Frozen", "%s", line(cur.Sentence()))
	}
}

func channels(r *report, old, cur *image.Channel) {
	switch {
	case cur == nil:
	case old == nil:
		r.info("ChannelMoved", "it points to %s", cur.Image)
	case cur.Image != old.Image:
		r.info("ChannelMoved", "it points to %s, no more to %s", cur.Image, old.Image)
	}
}

func runs(r *report, old, cur *pipeline.Run) {
	if cur == nil {
		return
	}
	if old == nil {
		old = &pipeline.Run{}
		r.add(event.Info, "RunStarted", "%d suites of %s are run", len(cur.Suites), cur.Blueprint).By = cur.By
	}
	before := map[string]pipeline.Suite{}
	for _, s := range old.Suites {
		before[s.Name] = s
	}
	for _, s := range cur.Suites {
		o := before[s.Name]
		if s.CommandID != "" && o.CommandID == "" {
			r.info("SuiteStarted", "%s runs on %s", s.Name, s.Instance)
		}
		if s.Ended.IsZero() || !o.Ended.IsZero() {
			continue
		}
		switch {
		case s.OK():
			r.info("SuitePassed", "%s passed: %d cases, in %s", s.Name, s.Passed, since(s.Started, s.Ended))
		case s.Error != "":
			r.fail("SuiteFailed", "%s: %s", s.Name, line(s.Error))
		default:
			r.fail("SuiteFailed", "%s: %d of %d cases failed", s.Name, s.Failed, s.Failed+s.Passed)
		}
	}
	if cur.Cancel && !old.Cancel {
		r.info("RunCanceled", "it shall be ended")
	}
	if cur.Phase == pipeline.Done && old.Phase != pipeline.Done {
		switch {
		case cur.Passed:
			r.info("RunPassed", "every suite passed, in %s", since(cur.Created, r.now))
		case cur.Error != "":
			r.fail("RunFailed", "%s", line(cur.Error))
		default:
			r.fail("RunFailed", "not every suite passed")
		}
	}
	r.blocked(old.Blocker, cur.Blocker, true, true)
}
