package elb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	api "github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
	"github.com/dayfly-infra/dayfly/internal/region/balancer"
	"github.com/dayfly-infra/dayfly/internal/region/balancer/sim"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// fakeEC2 has one VPC with three subnets, instances i-0… and interfaces.
type fakeEC2 struct {
	mu     sync.Mutex
	states map[string]string
	cards  map[string]*ec2api.NetworkInterface
	next   int
	fail   bool // the next interface is made and its answer lost
}

func (f *fakeEC2) DescribeSubnets(_ context.Context, in *ec2api.DescribeSubnetsRequest) (*ec2api.DescribeSubnetsResult, error) {
	out := &ec2api.DescribeSubnetsResult{}
	for _, id := range in.SubnetIds {
		if !strings.HasPrefix(id, "subnet-") {
			return nil, wire.Errorf("InvalidSubnetID.NotFound", "no %s", id)
		}
		out.Subnets = append(out.Subnets, &ec2api.Subnet{SubnetId: id, VpcId: "vpc-1", AvailabilityZone: "local-1" + id[7:]})
	}
	return out, nil
}

func (f *fakeEC2) DescribeSecurityGroups(_ context.Context, in *ec2api.DescribeSecurityGroupsRequest) (*ec2api.DescribeSecurityGroupsResult, error) {
	out := &ec2api.DescribeSecurityGroupsResult{}
	for _, id := range in.GroupIds {
		out.SecurityGroups = append(out.SecurityGroups, &ec2api.SecurityGroup{GroupId: id, VpcId: "vpc-1"})
	}
	if len(in.GroupIds) == 0 {
		out.SecurityGroups = []*ec2api.SecurityGroup{{GroupId: "sg-default", VpcId: "vpc-1"}}
	}
	return out, nil
}

func (f *fakeEC2) DescribeVpcs(_ context.Context, in *ec2api.DescribeVpcsRequest) (*ec2api.DescribeVpcsResult, error) {
	if in.VpcIds[0] != "vpc-1" {
		return nil, wire.Errorf("InvalidVpcID.NotFound", "no %s", in.VpcIds[0])
	}
	return &ec2api.DescribeVpcsResult{}, nil
}

func (f *fakeEC2) DescribeInstances(_ context.Context, in *ec2api.DescribeInstancesRequest) (*ec2api.DescribeInstancesResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &ec2api.Reservation{}
	for id, st := range f.states {
		ok := len(in.InstanceIds) == 0 || slices.Contains(in.InstanceIds, id)
		for _, fl := range in.Filters {
			have := map[string]string{"instance-state-name": st, "instance-id": id}[fl.Name]
			ok = ok && slices.Contains(fl.Values, have)
		}
		if ok {
			r.Instances = append(r.Instances, &ec2api.Instance{InstanceId: id, VpcId: "vpc-1", PrivateIpAddress: "10.0.1." + id[2:], State: &ec2api.InstanceState{Name: st}})
		}
	}
	return &ec2api.DescribeInstancesResult{Reservations: []*ec2api.Reservation{r}}, nil
}

func (f *fakeEC2) DescribeNetworkInterfaces(_ context.Context, in *ec2api.DescribeNetworkInterfacesRequest) (*ec2api.DescribeNetworkInterfacesResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &ec2api.DescribeNetworkInterfacesResult{}
	for _, n := range f.cards {
		if slices.Contains(in.Filters[0].Values, n.Description) {
			out.NetworkInterfaces = append(out.NetworkInterfaces, n)
		}
	}
	return out, nil
}

func (f *fakeEC2) CreateManagedInterface(_ context.Context, subnet string, groups []string, description string, public bool) (ManagedInterface, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	m := ManagedInterface{ID: fmt.Sprintf("eni-%d", f.next), VPC: "vpc-1", IP: netip.AddrFrom4([4]byte{10, 0, 0, byte(f.next)})}
	n := &ec2api.NetworkInterface{NetworkInterfaceId: m.ID, SubnetId: subnet, Description: description, PrivateIpAddress: m.IP.String()}
	if public {
		m.Public = netip.AddrFrom4([4]byte{198, 18, 0, byte(f.next)})
		n.Association = &ec2api.NetworkInterfaceAssociation{PublicIp: m.Public.String()}
	}
	f.cards[m.ID] = n
	if f.fail {
		f.fail = false
		return ManagedInterface{}, errors.New("the answer was lost")
	}
	return m, nil
}

func (f *fakeEC2) SetManagedInterfaceGroups(context.Context, string, []string) error { return nil }

func (f *fakeEC2) DeleteManagedInterface(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.cards, id)
	return nil
}

func (f *fakeEC2) set(id, st string) { f.mu.Lock(); f.states[id] = st; f.mu.Unlock() }

// ahead is a clock that a test moves: the simulated checks' one.
type ahead struct {
	clock.Real
	by atomic.Int64
}

func (a *ahead) Now() time.Time { return time.Now().Add(time.Duration(a.by.Load())) }

type world struct {
	checks *ahead
	t      *testing.T
	ec2    *fakeEC2
	bal    *sim.Balancer
	s      *Service
	db     *state.DB
	path   string
	stop   func()
	mu     sync.Mutex
	sick   map[string]string // address of a server to its check's error
	busy   map[string]int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	checks := &ahead{}
	w := &world{t: t, checks: checks, ec2: &fakeEC2{states: map[string]string{}, cards: map[string]*ec2api.NetworkInterface{}}, bal: sim.New(checks), path: t.TempDir() + "/r.db", sick: map[string]string{}, busy: map[string]int{}}
	for i := range 9 {
		w.ec2.states[fmt.Sprintf("i-%d", i+1)] = "running"
	}
	w.bal.Check = func(_ string, _ balancer.Pool, s balancer.Server) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if e := w.sick[s.ID]; e != "" {
			return errors.New(e)
		}
		return nil
	}
	w.bal.Sessions = func(_ string, s balancer.Server) int { w.mu.Lock(); defer w.mu.Unlock(); return w.busy[s.ID] }
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) start() {
	w.t.Helper()
	db, err := state.Open(w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	bus := wire.NewBus()
	bus.Register(ec2api.Model, w.ec2)
	s, err := New(Config{Account: "123456789012", Region: "local-1", DB: db, Bus: bus, Balancer: w.bal, Interfaces: w.ec2})
	if err != nil {
		w.t.Fatal(err)
	}
	bus.Register(api.Model, s)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	w.s, w.db, w.stop = s, db, func() { cancel(); <-done; db.Close() }
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (w *world) balancer(scheme string) *api.LoadBalancer {
	w.t.Helper()
	out := must(w.s.CreateLoadBalancer(w.t.Context(), &api.CreateLoadBalancerInput{Name: "web", Scheme: scheme, Subnets: []string{"subnet-a", "subnet-b"}}))(w.t)
	return out.LoadBalancers[0]
}

func (w *world) group(name string) *api.TargetGroup {
	w.t.Helper()
	out := must(w.s.CreateTargetGroup(w.t.Context(), &api.CreateTargetGroupInput{Name: name, Protocol: "HTTP", Port: new(int64(8080)), VpcId: "vpc-1", HealthCheckIntervalSeconds: new(int64(5))}))(w.t)
	return out.TargetGroups[0]
}

func forward(arns ...string) []*api.Action {
	c := &api.ForwardActionConfig{}
	for i, a := range arns {
		c.TargetGroups = append(c.TargetGroups, &api.TargetGroupTuple{TargetGroupArn: a, Weight: new(int64(1 - min(i, 1)))})
	}
	return []*api.Action{{Type: "forward", ForwardConfig: c}}
}

func (w *world) listen(lb string, actions []*api.Action) *api.Listener {
	w.t.Helper()
	out := must(w.s.CreateListener(w.t.Context(), &api.CreateListenerInput{LoadBalancerArn: lb, Port: new(int64(80)), Protocol: "HTTP", DefaultActions: actions}))(w.t)
	return out.Listeners[0]
}

func (w *world) register(arn string, ids ...string) {
	w.t.Helper()
	var ts []*api.TargetDescription
	for _, id := range ids {
		ts = append(ts, &api.TargetDescription{Id: id})
	}
	must(w.s.RegisterTargets(w.t.Context(), &api.RegisterTargetsInput{TargetGroupArn: arn, Targets: ts}))(w.t)
}

// health is "id=state/reason …" of a group.
func (w *world) health(arn string) string {
	w.t.Helper()
	out := must(w.s.DescribeTargetHealth(w.t.Context(), &api.DescribeTargetHealthInput{TargetGroupArn: arn}))(w.t)
	var s []string
	for _, d := range out.TargetHealthDescriptions {
		s = append(s, strings.TrimSuffix(d.Target.Id+"="+d.TargetHealth.State+"/"+d.TargetHealth.Reason, "/"))
	}
	slices.Sort(s)
	return strings.Join(s, " ")
}

func (w *world) untilHealth(arn, want string) {
	w.t.Helper()
	got := ""
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got = w.health(arn); got == want {
			return
		}
	}
	w.t.Fatalf("health %q, never %q", got, want)
}

func TestTargetsLifeInAWSsWords(t *testing.T) {
	w := newWorld(t)
	lb, g := w.balancer(""), w.group("t")
	if !strings.HasPrefix(lb.LoadBalancerArn, "arn:aws:elasticloadbalancing:local-1:123456789012:loadbalancer/app/web/") || !strings.HasPrefix(lb.DNSName, "198.18.") {
		t.Errorf("load balancer %s at %s", lb.LoadBalancerArn, lb.DNSName)
	}
	w.register(g.TargetGroupArn, "i-1", "i-2")
	w.untilHealth(g.TargetGroupArn, "i-1=unused/Target.NotInUse i-2=unused/Target.NotInUse")
	w.mu.Lock()
	w.sick["i-2_8080"] = "HTTP 500"
	w.mu.Unlock()
	w.listen(lb.LoadBalancerArn, forward(g.TargetGroupArn))
	begun := time.Now()
	w.untilHealth(g.TargetGroupArn, "i-1=healthy i-2=initial/Elb.InitialHealthChecking")
	t.Logf("healthy after %v", time.Since(begun))
	w.checks.by.Add(int64(time.Minute))
	w.untilHealth(g.TargetGroupArn, "i-1=healthy i-2=unhealthy/Target.ResponseCodeMismatch")
	d := must(w.s.DescribeLoadBalancers(t.Context(), &api.DescribeLoadBalancersInput{Names: []string{"web"}}))(t)
	if d.LoadBalancers[0].State.Code != "active" {
		t.Errorf("state %s", d.LoadBalancers[0].State.Code)
	}
	w.mu.Lock()
	w.busy["i-1_8080"] = 1
	w.mu.Unlock()
	must(w.s.DeregisterTargets(t.Context(), &api.DeregisterTargetsInput{TargetGroupArn: g.TargetGroupArn, Targets: []*api.TargetDescription{{Id: "i-1"}}}))(t)
	w.untilHealth(g.TargetGroupArn, "i-1=draining/Target.DeregistrationInProgress i-2=unhealthy/Target.ResponseCodeMismatch")
	time.Sleep(150 * time.Millisecond)
	if got := w.health(g.TargetGroupArn); !strings.Contains(got, "i-1=draining") {
		t.Errorf("a target with a request under way was let go: %s", got)
	}
	w.mu.Lock()
	w.busy["i-1_8080"] = 0
	w.mu.Unlock()
	w.untilHealth(g.TargetGroupArn, "i-2=unhealthy/Target.ResponseCodeMismatch")
	w.ec2.set("i-2", "stopped")
	w.untilHealth(g.TargetGroupArn, "i-2=unused/Target.InvalidState")
	w.mu.Lock()
	delete(w.sick, "i-2_8080")
	w.mu.Unlock()
	w.ec2.set("i-2", "running")
	w.untilHealth(g.TargetGroupArn, "i-2=healthy")
	w.ec2.set("i-2", "terminated")
	w.untilHealth(g.TargetGroupArn, "")
}

func TestRestartAdoptsAndDeletionLeavesNothing(t *testing.T) {
	w := newWorld(t)
	lb, g := w.balancer("internal"), w.group("t")
	if !strings.HasPrefix(lb.DNSName, "10.0.0.") {
		t.Errorf("internal load balancer at %s", lb.DNSName)
	}
	l := w.listen(lb.LoadBalancerArn, forward(g.TargetGroupArn))
	w.register(g.TargetGroupArn, "i-1")
	w.untilHealth(g.TargetGroupArn, "i-1=healthy")
	w.stop()
	at := netip.MustParseAddrPort(lb.DNSName + ":80")
	if code, by := w.bal.Get("vpc-1", at, "", "/"); code != 200 || by != "i-1_8080" {
		t.Errorf("with the service stopped: %d by %q", code, by)
	}
	w.start()
	w.untilHealth(g.TargetGroupArn, "i-1=healthy")
	if _, err := w.s.DeleteTargetGroup(t.Context(), &api.DeleteTargetGroupInput{TargetGroupArn: g.TargetGroupArn}); wire.CodeOf(err) != "ResourceInUse" {
		t.Errorf("deleting a used target group: %v", err)
	}
	must(w.s.DeleteLoadBalancer(t.Context(), &api.DeleteLoadBalancerInput{LoadBalancerArn: lb.LoadBalancerArn}))(t)
	if len(w.ec2.cards) != 0 {
		t.Errorf("interfaces left: %v", w.ec2.cards)
	}
	if v, _ := w.bal.VPCs(t.Context()); len(v) != 0 {
		t.Errorf("balancers left: %v", v)
	}
	if _, err := w.s.DescribeListeners(t.Context(), &api.DescribeListenersInput{ListenerArns: []string{l.ListenerArn}}); wire.CodeOf(err) != "ListenerNotFound" {
		t.Errorf("the listener is left: %v", err)
	}
	must(w.s.DeleteTargetGroup(t.Context(), &api.DeleteTargetGroupInput{TargetGroupArn: g.TargetGroupArn}))(t)
}

func TestFailedCreationLeavesNoInterface(t *testing.T) {
	w := newWorld(t)
	w.ec2.fail = true
	if _, err := w.s.CreateLoadBalancer(t.Context(), &api.CreateLoadBalancerInput{Name: "web", Subnets: []string{"subnet-a", "subnet-b"}}); err == nil {
		t.Fatal("created without an interface's answer")
	}
	if len(w.ec2.cards) != 0 {
		t.Errorf("interfaces left: %v", w.ec2.cards)
	}
	w.balancer("")
}

func TestWeightsAndRulesReachTheBalancer(t *testing.T) {
	w := newWorld(t)
	lb, blue, green := w.balancer("internal"), w.group("blue"), w.group("green")
	l := w.listen(lb.LoadBalancerArn, forward(blue.TargetGroupArn, green.TargetGroupArn))
	w.register(blue.TargetGroupArn, "i-1")
	w.register(green.TargetGroupArn, "i-2")
	w.untilHealth(blue.TargetGroupArn, "i-1=healthy")
	w.untilHealth(green.TargetGroupArn, "i-2=healthy") // at weight 0, and checked
	at := netip.MustParseAddrPort(lb.DNSName + ":80")
	by := func(path string) string { _, s := w.bal.Get("vpc-1", at, "", path); return s }
	for range 10 {
		if s := by("/"); s != "i-1_8080" {
			t.Fatalf("served by %q at weight 0", s)
		}
	}
	rule := &api.CreateRuleInput{ListenerArn: l.ListenerArn, Priority: new(int64(5)), Conditions: []*api.RuleCondition{{Field: "path-pattern", Values: []string{"/new/*"}}}, Actions: forward(green.TargetGroupArn)}
	must(w.s.CreateRule(t.Context(), rule))(t)
	if _, err := w.s.CreateRule(t.Context(), rule); wire.CodeOf(err) != "PriorityInUse" {
		t.Errorf("same priority: %v", err)
	}
	must(w.s.ModifyListener(t.Context(), &api.ModifyListenerInput{ListenerArn: l.ListenerArn, DefaultActions: forward(green.TargetGroupArn, blue.TargetGroupArn)}))(t)
	for deadline := time.Now().Add(5 * time.Second); by("/") != "i-2_8080" || by("/new/x") != "i-2_8080"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the traffic did not move")
		}
	}
}

func TestErrorsAreAWSs(t *testing.T) {
	w := newWorld(t)
	lb, g := w.balancer(""), w.group("t")
	ctx := t.Context()
	listener := func(f func(*api.CreateListenerInput)) error {
		in := &api.CreateListenerInput{LoadBalancerArn: lb.LoadBalancerArn, Port: new(int64(81)), Protocol: "HTTP", DefaultActions: forward(g.TargetGroupArn)}
		f(in)
		_, err := w.s.CreateListener(ctx, in)
		return err
	}
	w.listen(lb.LoadBalancerArn, forward(g.TargetGroupArn))
	if again := w.balancer(""); again.LoadBalancerArn != lb.LoadBalancerArn {
		t.Error("the same creation made another load balancer")
	}
	errOf := func(_ any, err error) error { return err }
	for _, tt := range []struct {
		name, code string
		err        error
	}{
		{"other settings", "DuplicateLoadBalancerName", errOf(w.s.CreateLoadBalancer(ctx, &api.CreateLoadBalancerInput{Name: "web", Scheme: "internal", Subnets: []string{"subnet-a", "subnet-b"}}))},
		{"one subnet", "ValidationError", errOf(w.s.CreateLoadBalancer(ctx, &api.CreateLoadBalancerInput{Name: "x", Subnets: []string{"subnet-a"}}))},
		{"no subnet", "SubnetNotFound", errOf(w.s.CreateLoadBalancer(ctx, &api.CreateLoadBalancerInput{Name: "x", Subnets: []string{"nope"}}))},
		{"group again", "DuplicateTargetGroupName", errOf(w.s.CreateTargetGroup(ctx, &api.CreateTargetGroupInput{Name: "t", Protocol: "HTTP", Port: new(int64(1)), VpcId: "vpc-1"}))},
		{"interval", "ValidationError", errOf(w.s.CreateTargetGroup(ctx, &api.CreateTargetGroupInput{Name: "u", Protocol: "HTTP", Port: new(int64(1)), VpcId: "vpc-1", HealthCheckIntervalSeconds: new(int64(1))}))},
		{"vpc", "ValidationError", errOf(w.s.CreateTargetGroup(ctx, &api.CreateTargetGroupInput{Name: "u", Protocol: "HTTP", Port: new(int64(1)), VpcId: "vpc-2"}))},
		{"no such group", "TargetGroupNotFound", errOf(w.s.DescribeTargetHealth(ctx, &api.DescribeTargetHealthInput{TargetGroupArn: "x"}))},
		{"no such balancer", "LoadBalancerNotFound", errOf(w.s.DescribeLoadBalancers(ctx, &api.DescribeLoadBalancersInput{Names: []string{"x"}}))},
		{"unknown target", "InvalidTarget", errOf(w.s.RegisterTargets(ctx, &api.RegisterTargetsInput{TargetGroupArn: g.TargetGroupArn, Targets: []*api.TargetDescription{{Id: "i-77"}}}))},
		{"same port", "DuplicateListener", listener(func(in *api.CreateListenerInput) { in.Port = new(int64(80)) })},
		{"https", "NotImplemented", listener(func(in *api.CreateListenerInput) { in.Protocol = "HTTPS" })},
		{"redirect", "NotImplemented", listener(func(in *api.CreateListenerInput) { in.DefaultActions = []*api.Action{{Type: "redirect"}} })},
		{"weight", "ValidationError", listener(func(in *api.CreateListenerInput) {
			in.DefaultActions[0].ForwardConfig.TargetGroups[0].Weight = new(int64(1000))
		})},
		{"stickiness", "NotImplemented", errOf(w.s.ModifyTargetGroupAttributes(ctx, &api.ModifyTargetGroupAttributesInput{TargetGroupArn: g.TargetGroupArn, Attributes: []*api.TargetGroupAttribute{{Key: "stickiness.enabled", Value: "true"}}}))},
		{"unknown attribute", "InvalidConfigurationRequest", errOf(w.s.ModifyTargetGroupAttributes(ctx, &api.ModifyTargetGroupAttributesInput{TargetGroupArn: g.TargetGroupArn, Attributes: []*api.TargetGroupAttribute{{Key: "x", Value: "true"}}}))},
		{"aws tag", "ValidationError", errOf(w.s.AddTags(ctx, &api.AddTagsInput{ResourceArns: []string{g.TargetGroupArn}, Tags: []*api.Tag{{Key: "aws:x", Value: "y"}}}))},
	} {
		if wire.CodeOf(tt.err) != tt.code {
			t.Errorf("%s: %v, want %s", tt.name, tt.err, tt.code)
		}
	}
	must(w.s.ModifyLoadBalancerAttributes(ctx, &api.ModifyLoadBalancerAttributesInput{LoadBalancerArn: lb.LoadBalancerArn, Attributes: []*api.LoadBalancerAttribute{{Key: "deletion_protection.enabled", Value: "true"}}}))(t)
	if _, err := w.s.DeleteLoadBalancer(ctx, &api.DeleteLoadBalancerInput{LoadBalancerArn: lb.LoadBalancerArn}); wire.CodeOf(err) != "OperationNotPermitted" {
		t.Errorf("deleted though protected: %v", err)
	}
}

func TestQuietServiceWritesNothing(t *testing.T) {
	w := newWorld(t)
	lb, g := w.balancer(""), w.group("t")
	w.listen(lb.LoadBalancerArn, forward(g.TargetGroupArn))
	w.register(g.TargetGroupArn, "i-1")
	w.untilHealth(g.TargetGroupArn, "i-1=healthy")
	time.Sleep(100 * time.Millisecond)
	changed, stop := w.db.Watch()
	defer stop()
	select {
	case <-changed:
		t.Error("nothing changes, and something is written")
	case <-time.After(1200 * time.Millisecond):
	}
}

func FuzzMatcher(f *testing.F) {
	for _, s := range []string{"200", "200-299", "200,302", "", "200-", "-", "600", "0200", "200,,201"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if validMatcher(s) && strings.Trim(s, "0123456789,-") != "" {
			t.Errorf("%q was accepted", s)
		}
	})
}
