package autoscaling

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	api "github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// fakeEC2 runs instances in a map.
type fakeEC2 struct {
	mu      sync.Mutex
	byToken map[string][]*ec2api.Instance
	all     []*ec2api.Instance
	runs    []*ec2api.RunInstancesRequest
	kills   [][]string
	noRoom  map[string]bool // zones
	boot    string          // state of new instances
	delay   time.Duration
}

func newFakeEC2() *fakeEC2 {
	return &fakeEC2{byToken: map[string][]*ec2api.Instance{}, noRoom: map[string]bool{}, boot: "running"}
}

func (f *fakeEC2) RunInstances(_ context.Context, in *ec2api.RunInstancesRequest) (*ec2api.Reservation, error) {
	time.Sleep(f.delay)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.runs = append(f.runs, in)
	zone := in.SubnetId[len("subnet-"):]
	if f.noRoom[zone] {
		return nil, wire.Errorf("InsufficientInstanceCapacity", "no room in %s.", zone)
	}
	if _, ok := f.byToken[in.ClientToken]; !ok {
		for range *in.MaxCount {
			i := &ec2api.Instance{InstanceId: fmt.Sprintf("i-%017x", len(f.all)+1), InstanceType: "t3.micro", ImageId: "ami-1", State: &ec2api.InstanceState{Name: f.boot},
				Placement: &ec2api.Placement{AvailabilityZone: zone}, SubnetId: in.SubnetId, Tags: in.TagSpecifications[0].Tags}
			f.all = append(f.all, i)
			f.byToken[in.ClientToken] = append(f.byToken[in.ClientToken], i)
		}
	}
	return &ec2api.Reservation{Instances: f.byToken[in.ClientToken]}, nil
}

func (f *fakeEC2) DescribeInstances(_ context.Context, in *ec2api.DescribeInstancesRequest) (*ec2api.DescribeInstancesResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &ec2api.Reservation{}
	for _, i := range f.all {
		ok := len(in.InstanceIds) == 0 || slices.Contains(in.InstanceIds, i.InstanceId)
		for _, fl := range in.Filters {
			switch fl.Name {
			case "instance-id":
				ok = ok && slices.Contains(fl.Values, i.InstanceId)
			case "instance-state-name":
				ok = ok && slices.Contains(fl.Values, i.State.Name)
			}
		}
		if ok {
			c := *i
			r.Instances = append(r.Instances, &c)
		}
	}
	return &ec2api.DescribeInstancesResult{Reservations: []*ec2api.Reservation{r}}, nil
}

func (f *fakeEC2) TerminateInstances(_ context.Context, in *ec2api.TerminateInstancesRequest) (*ec2api.TerminateInstancesResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kills = append(f.kills, in.InstanceIds)
	for _, i := range f.all {
		if slices.Contains(in.InstanceIds, i.InstanceId) {
			i.State = &ec2api.InstanceState{Name: "terminated"}
		}
	}
	return &ec2api.TerminateInstancesResult{}, nil
}

func (f *fakeEC2) DescribeSubnets(_ context.Context, in *ec2api.DescribeSubnetsRequest) (*ec2api.DescribeSubnetsResult, error) {
	out := &ec2api.DescribeSubnetsResult{}
	for _, id := range in.SubnetIds {
		out.Subnets = append(out.Subnets, &ec2api.Subnet{SubnetId: id, VpcId: "vpc-1", AvailabilityZone: id[len("subnet-"):]})
	}
	return out, nil
}

func (f *fakeEC2) DescribeLaunchTemplateVersions(_ context.Context, in *ec2api.DescribeLaunchTemplateVersionsRequest) (*ec2api.DescribeLaunchTemplateVersionsResult, error) {
	if in.LaunchTemplateId != "lt-1" {
		return nil, wire.Errorf("InvalidLaunchTemplateId.NotFound", "The specified launch template, with template ID %s, does not exist.", in.LaunchTemplateId)
	}
	return &ec2api.DescribeLaunchTemplateVersionsResult{LaunchTemplateVersions: []*ec2api.LaunchTemplateVersion{{
		LaunchTemplateId: "lt-1", LaunchTemplateName: "lt", VersionNumber: new(int64(3)), LaunchTemplateData: &ec2api.ResponseLaunchTemplateData{ImageId: "ami-1"}}}}, nil
}

func (f *fakeEC2) stateOf(st string) (ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.all {
		if i.State.Name == st {
			ids = append(ids, i.InstanceId)
		}
	}
	return ids
}

func (f *fakeEC2) set(id, st string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.all {
		if i.InstanceId == id {
			i.State = &ec2api.InstanceState{Name: st}
		}
	}
}

// fakeELB keeps one target group's targets; drained ones stay for a while.
type fakeELB struct {
	mu    sync.Mutex
	state map[string]string
	calls int
}

func (f *fakeELB) RegisterTargets(_ context.Context, in *elbv2api.RegisterTargetsInput) (*elbv2api.RegisterTargetsOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	for _, t := range in.Targets {
		f.state[t.Id] = "healthy"
	}
	return &elbv2api.RegisterTargetsOutput{}, nil
}

func (f *fakeELB) DeregisterTargets(_ context.Context, in *elbv2api.DeregisterTargetsInput) (*elbv2api.DeregisterTargetsOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range in.Targets {
		f.state[t.Id] = "draining"
	}
	return &elbv2api.DeregisterTargetsOutput{}, nil
}

func (f *fakeELB) DescribeTargetGroups(context.Context, *elbv2api.DescribeTargetGroupsInput) (*elbv2api.DescribeTargetGroupsOutput, error) {
	return &elbv2api.DescribeTargetGroupsOutput{}, nil
}

func (f *fakeELB) DescribeTargetHealth(context.Context, *elbv2api.DescribeTargetHealthInput) (*elbv2api.DescribeTargetHealthOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &elbv2api.DescribeTargetHealthOutput{}
	for id, st := range f.state {
		out.TargetHealthDescriptions = append(out.TargetHealthDescriptions, &elbv2api.TargetHealthDescription{Target: &elbv2api.TargetDescription{Id: id}, TargetHealth: &elbv2api.TargetHealth{State: st}})
	}
	return out, nil
}

func (f *fakeELB) put(st string, ids ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		if st == "" {
			delete(f.state, id)
		} else {
			f.state[id] = st
		}
	}
}

type world struct {
	t    *testing.T
	ec2  *fakeEC2
	elb  *fakeELB
	s    *Service
	path string
	db   *state.DB
	stop func()
}

// start opens (or opens again) the region's database and runs the loop.
func (w *world) start() {
	w.t.Helper()
	db, err := state.Open(w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	bus := wire.NewBus()
	bus.Register(ec2api.Model, w.ec2)
	bus.Register(elbv2api.Model, w.elb)
	s, err := New(Config{Account: "123456789012", Region: "local-1", Zones: []string{"a", "b", "c"}, DB: db, Bus: bus})
	if err != nil {
		w.t.Fatal(err)
	}
	bus.Register(api.Model, s)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	w.s, w.db = s, db
	w.stop = func() { cancel(); <-done; db.Close() }
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, ec2: newFakeEC2(), elb: &fakeELB{state: map[string]string{}}, path: t.TempDir() + "/r.db"}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) create(f func(*api.CreateAutoScalingGroupType)) {
	w.t.Helper()
	in := &api.CreateAutoScalingGroupType{AutoScalingGroupName: "g", MinSize: new(int64(0)), MaxSize: new(int64(60)), DesiredCapacity: new(int64(3)),
		LaunchTemplate: &api.LaunchTemplateSpecification{LaunchTemplateId: "lt-1", Version: "$Latest"}, VPCZoneIdentifier: "subnet-a,subnet-b,subnet-c"}
	if f != nil {
		f(in)
	}
	if err := w.s.CreateAutoScalingGroup(w.t.Context(), in); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) states() map[string]int {
	out := map[string]int{}
	r, err := w.s.DescribeAutoScalingGroups(w.t.Context(), &api.AutoScalingGroupNamesType{AutoScalingGroupNames: []string{"g"}})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, g := range r.AutoScalingGroups {
		for _, i := range g.Instances {
			out[i.LifecycleState]++
		}
	}
	return out
}

func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if f() {
			return
		}
	}
	w.t.Fatalf("never: %s (states %v)", what, w.states())
}
