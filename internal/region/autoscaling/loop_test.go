package autoscaling

import (
	"strings"
	"testing"
	"time"

	api "github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

func TestGroupLaunchesWithOneCallAZoneAndReplaces(t *testing.T) {
	w := newWorld(t)
	begun := time.Now()
	w.create(func(in *api.CreateAutoScalingGroupType) { in.DesiredCapacity = new(int64(45)) })
	w.until("45 in service", func() bool { return w.states()[inService] == 45 })
	t.Logf("45 in service after %v", time.Since(begun))
	if n := len(w.ec2.runs); n != 3 {
		t.Errorf("%d RunInstances calls, want one a zone", n)
	}
	tags := map[string]string{}
	for _, tg := range w.ec2.runs[0].TagSpecifications[0].Tags {
		tags[tg.Key] = tg.Value
	}
	if tags[groupTag] != "g" || tags["aws:ec2launchtemplate:version"] != "3" || w.ec2.runs[0].LaunchTemplate.Version != "3" {
		t.Errorf("tags %v, version %s", tags, w.ec2.runs[0].LaunchTemplate.Version)
	}
	victim := w.ec2.stateOf("running")[7]
	w.ec2.set(victim, "terminated")
	w.until("the dead one is replaced", func() bool { return len(w.ec2.stateOf("running")) == 45 && w.states()[inService] == 45 })
	acts, err := w.s.DescribeScalingActivities(t.Context(), &api.DescribeScalingActivitiesType{AutoScalingGroupName: "g"})
	if err != nil {
		t.Fatal(err)
	}
	if c := acts.Activities[0].Cause; !strings.Contains(c, "an instance was launched in response to an unhealthy instance needing to be replaced") {
		t.Errorf("newest cause: %s", c)
	}
	if err := w.s.DeleteAutoScalingGroup(t.Context(), &api.DeleteAutoScalingGroupType{AutoScalingGroupName: "g"}); wire.CodeOf(err) != "ResourceInUse" {
		t.Errorf("deleting a full group: %v", err)
	}
	kills := len(w.ec2.kills)
	if err := w.s.DeleteAutoScalingGroup(t.Context(), &api.DeleteAutoScalingGroupType{AutoScalingGroupName: "g", ForceDelete: new(true)}); err != nil {
		t.Fatal(err)
	}
	w.until("the group is gone", func() bool { _, err := w.s.group("g"); return err != nil })
	if n := len(w.ec2.kills) - kills; n != 1 {
		t.Errorf("%d TerminateInstances calls for one group", n)
	}
	if left := w.ec2.stateOf("running"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLaunchThatLostItsAnswerIsFoundAfterRestart(t *testing.T) {
	w := newWorld(t)
	w.ec2.delay = 300 * time.Millisecond
	w.create(nil)
	w.until("intents are stored", func() bool { g, _ := w.s.group("g"); return len(g.Launches) == 3 })
	time.Sleep(50 * time.Millisecond)
	w.stop() // RunInstances ends after this; its answer is dropped with the context
	g := group{}
	w.ec2.delay = 0
	w.start()
	w.until("three in service", func() bool { return w.states()[inService] == 3 })
	if g, _ = w.s.group("g"); len(g.Launches) != 0 {
		t.Errorf("intents left: %v", g.Launches)
	}
	if n := len(w.ec2.stateOf("running")); n != 3 {
		t.Errorf("%d instances run for 3 desired: the client token was not the same", n)
	}
}

func TestHooksHoldAndComplete(t *testing.T) {
	w := newWorld(t)
	w.create(func(in *api.CreateAutoScalingGroupType) {
		in.DesiredCapacity = new(int64(2))
		in.LifecycleHookSpecificationList = []*api.LifecycleHookSpecification{
			{LifecycleHookName: "up", LifecycleTransition: launchingHook, HeartbeatTimeout: new(int64(60))},
			{LifecycleHookName: "down", LifecycleTransition: terminatingHook, HeartbeatTimeout: new(int64(60))}}
	})
	w.until("both wait", func() bool { return w.states()[pendingWait] == 2 })
	ids := w.ec2.stateOf("running")
	done := func(hook, id, result string) error {
		_, err := w.s.CompleteLifecycleAction(t.Context(), &api.CompleteLifecycleActionType{AutoScalingGroupName: "g", LifecycleHookName: hook, InstanceId: id, LifecycleActionResult: result})
		return err
	}
	if err := done("up", ids[0], resultContinue); err != nil {
		t.Fatal(err)
	}
	w.until("one serves", func() bool { return w.states()[inService] == 1 })
	if err := done("up", ids[0], resultContinue); err == nil || !strings.Contains(err.Error(), "No active Lifecycle Action found with instance ID "+ids[0]) {
		t.Errorf("completed twice: %v", err)
	}
	if err := done("up", ids[1], resultAbandon); err != nil {
		t.Fatal(err)
	}
	w.until("the abandoned one is terminated", func() bool { return len(w.ec2.stateOf("terminated")) == 1 })
	if err := w.s.SetDesiredCapacity(t.Context(), &api.SetDesiredCapacityType{AutoScalingGroupName: "g", DesiredCapacity: new(int64(0))}); err != nil {
		t.Fatal(err)
	}
	w.until("it waits to terminate", func() bool { return w.states()[terminatingWait] >= 1 })
	if err := done("down", ids[0], resultContinue); err != nil {
		t.Fatal(err)
	}
	w.until("it is gone", func() bool { return !strings.Contains(strings.Join(w.ec2.stateOf("running"), " "), ids[0]) })
}

func TestTargetsAreRegisteredAndDrained(t *testing.T) {
	const tg = "arn:aws:elasticloadbalancing:local-1:123456789012:targetgroup/t/0123456789abcdef"
	w := newWorld(t)
	w.create(func(in *api.CreateAutoScalingGroupType) { in.TargetGroupARNs = []string{tg} })
	w.until("all are registered", func() bool { w.elb.mu.Lock(); defer w.elb.mu.Unlock(); return len(w.elb.state) == 3 })
	if err := w.s.SetDesiredCapacity(t.Context(), &api.SetDesiredCapacityType{AutoScalingGroupName: "g", DesiredCapacity: new(int64(0))}); err != nil {
		t.Fatal(err)
	}
	w.until("they drain", func() bool { return w.states()[terminating] == 3 })
	time.Sleep(200 * time.Millisecond)
	if n := len(w.ec2.stateOf("running")); n != 3 {
		t.Fatalf("%d run while draining, want 3", n)
	}
	w.elb.put("", w.ec2.stateOf("running")...)
	w.until("they go", func() bool { return len(w.ec2.stateOf("running")) == 0 && len(w.states()) == 0 })
}

func TestCapacityErrorsGoToOtherZones(t *testing.T) {
	for _, tt := range []struct {
		distribution string
		want         int
	}{{balancedBestEffort, 6}, {balancedOnly, 4}} {
		t.Run(tt.distribution, func(t *testing.T) {
			w := newWorld(t)
			w.ec2.noRoom["c"] = true
			w.create(func(in *api.CreateAutoScalingGroupType) {
				in.DesiredCapacity = new(int64(6))
				in.AvailabilityZoneDistribution = &api.AvailabilityZoneDistribution{CapacityDistributionStrategy: tt.distribution}
			})
			w.until("what can run runs", func() bool { return w.states()[inService] == tt.want })
			time.Sleep(150 * time.Millisecond)
			if n := w.states()[inService]; n != tt.want {
				t.Errorf("%d in service, want %d", n, tt.want)
			}
			acts, _ := w.s.DescribeScalingActivities(t.Context(), &api.DescribeScalingActivitiesType{AutoScalingGroupName: "g"})
			failed := 0
			for _, a := range acts.Activities {
				if a.StatusCode == "Failed" && strings.Contains(a.StatusMessage, "Launching EC2 instance failed.") {
					failed++
				}
			}
			if failed != 1 {
				t.Errorf("%d failed activities, want 1", failed)
			}
		})
	}
}

func TestStandbyDetachAndErrors(t *testing.T) {
	w := newWorld(t)
	w.create(func(in *api.CreateAutoScalingGroupType) { in.MinSize = new(int64(1)) })
	w.until("three serve", func() bool { return w.states()[inService] == 3 })
	ids := w.ec2.stateOf("running")
	if _, err := w.s.EnterStandby(t.Context(), &api.EnterStandbyQuery{AutoScalingGroupName: "g", InstanceIds: ids[:1], ShouldDecrementDesiredCapacity: new(true)}); err != nil {
		t.Fatal(err)
	}
	w.until("standby", func() bool { return w.states()[standby] == 1 })
	if _, err := w.s.ExitStandby(t.Context(), &api.ExitStandbyQuery{AutoScalingGroupName: "g", InstanceIds: ids[:1]}); err != nil {
		t.Fatal(err)
	}
	w.until("back", func() bool { return w.states()[inService] == 3 })
	if _, err := w.s.DetachInstances(t.Context(), &api.DetachInstancesQuery{AutoScalingGroupName: "g", InstanceIds: ids[1:2], ShouldDecrementDesiredCapacity: new(true)}); err != nil {
		t.Fatal(err)
	}
	w.until("detached", func() bool { return len(w.states()) == 1 && w.states()[inService] == 2 })
	if n := len(w.ec2.stateOf("running")); n != 3 {
		t.Errorf("%d run, want 3: a detached instance goes on", n)
	}
	for _, tt := range []struct {
		name, want string
		err        error
	}{
		{"above max", "New SetDesiredCapacity value 61 is above max value 60 for the AutoScalingGroup.", w.s.SetDesiredCapacity(t.Context(), &api.SetDesiredCapacityType{AutoScalingGroupName: "g", DesiredCapacity: new(int64(61))})},
		{"below min", "is below min value 1", w.s.SetDesiredCapacity(t.Context(), &api.SetDesiredCapacityType{AutoScalingGroupName: "g", DesiredCapacity: new(int64(0))})},
		{"bounds", "Max bound, 0, must be greater than or equal to min bound, 1", w.s.UpdateAutoScalingGroup(t.Context(), &api.UpdateAutoScalingGroupType{AutoScalingGroupName: "g", MaxSize: new(int64(0))})},
		{"lifetime", "MaxInstanceLifetime", w.s.UpdateAutoScalingGroup(t.Context(), &api.UpdateAutoScalingGroupType{AutoScalingGroupName: "g", MaxInstanceLifetime: new(int64(3600))})},
		{"no group", "name not found", w.s.SetDesiredCapacity(t.Context(), &api.SetDesiredCapacityType{AutoScalingGroupName: "x", DesiredCapacity: new(int64(0))})},
		{"process", "Invalid process type", w.s.SuspendProcesses(t.Context(), &api.ScalingProcessQuery{AutoScalingGroupName: "g", ScalingProcesses: []string{"Nap"}})},
		{"aws tag", "aws: prefixed", w.s.CreateOrUpdateTags(t.Context(), &api.CreateOrUpdateTagsType{Tags: []*api.Tag{{Key: "aws:x", ResourceId: "g"}}})},
	} {
		if wire.CodeOf(tt.err) != "ValidationError" || !strings.Contains(tt.err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, tt.err, tt.want)
		}
	}
}

// TestQuietGroupWritesNothing: a loop that answered its own writes would spin.
func TestQuietGroupWritesNothing(t *testing.T) {
	w := newWorld(t)
	w.create(nil)
	w.until("three serve", func() bool { return w.states()[inService] == 3 })
	time.Sleep(100 * time.Millisecond)
	changed, stop := w.db.Watch()
	defer stop()
	select {
	case <-changed:
		t.Error("a settled group still writes")
	case <-time.After(1300 * time.Millisecond):
	}
}

func BenchmarkPlanHundredGroups(b *testing.B) {
	g := testGroup(45, "a", "b", "c")
	var ins []instance
	for i := range 45 {
		ins = append(ins, member(string(rune('A'+i)), []string{"a", "b", "c"}[i%3], inService))
	}
	for b.Loop() {
		for range 100 {
			plan(g, ins, observed{}, t0)
		}
	}
}
