package cfn_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/cloudformationapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
	"github.com/dayfly-infra/dayfly/internal/region/api/iamapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/ssmapi"
	"github.com/dayfly-infra/dayfly/internal/region/autoscaling"
	balsim "github.com/dayfly-infra/dayfly/internal/region/balancer/sim"
	"github.com/dayfly-infra/dayfly/internal/region/cfn"
	"github.com/dayfly-infra/dayfly/internal/region/ec2"
	"github.com/dayfly-infra/dayfly/internal/region/elb"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	hypsim "github.com/dayfly-infra/dayfly/internal/region/hypervisor/sim"
	"github.com/dayfly-infra/dayfly/internal/region/iam"
	netsim "github.com/dayfly-infra/dayfly/internal/region/network/sim"
	"github.com/dayfly-infra/dayfly/internal/region/ssm"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const (
	account = "123456789012"
	ami     = "ami-0123456789abcdef0"
)

// cards gives the load balancers EC2's managed interfaces.
type cards struct{ *ec2.Service }

func (c cards) CreateManagedInterface(ctx context.Context, subnet string, groups []string, description string, public bool) (elb.ManagedInterface, error) {
	m, err := c.Service.CreateManagedInterface(ctx, subnet, groups, description, public)
	return elb.ManagedInterface(m), err
}

// region is all services over simulated ground.
type region struct {
	t   *testing.T
	bus *wire.Bus
	cf  *cfn.Service
	ctx context.Context
}

func newRegion(t *testing.T) *region {
	t.Helper()
	zones := []string{"local-1a", "local-1b", "local-1c"}
	db, err := state.Open(filepath.Join(t.TempDir(), "r.db"))
	if err != nil {
		t.Fatal(err)
	}
	hyp := hypsim.New(hypsim.Config{})
	bus := wire.NewBus()
	e := must(ec2.New(ec2.Config{Account: account, Region: "local-1", Zones: zones, Hypervisor: hyp, Network: netsim.New(netip.MustParsePrefix("198.18.0.0/16")), DB: db, Bus: bus}))
	bus.Register(ec2api.Model, e)
	l := must(elb.New(elb.Config{Account: account, Region: "local-1", Zones: zones, DB: db, Bus: bus, Balancer: balsim.New(nil), Interfaces: cards{e}}))
	bus.Register(elbv2api.Model, l)
	a := must(autoscaling.New(autoscaling.Config{Account: account, Region: "local-1", Zones: zones, DB: db, Bus: bus}))
	bus.Register(autoscalingapi.Model, a)
	i := must(iam.New(iam.Config{Account: account, Region: "local-1", AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: "secret"}, db, clock.Real{}))
	bus.Register(iamapi.Model, i)
	p := must(ssm.New(ssm.Config{Account: account, Region: "local-1", DB: db, Bus: bus}))
	bus.Register(ssmapi.Model, p)
	c := must(cfn.New(cfn.Config{Account: account, Region: "local-1", Zones: zones, DB: db, Bus: bus}))
	bus.Register(cloudformationapi.Model, c)
	r := &region{t: t, bus: bus, cf: c, ctx: wire.WithCaller(t.Context(), wire.Caller{Account: account, ARN: "arn:aws:iam::" + account + ":root"})}
	if err := e.Adopt(r.ctx); err != nil {
		t.Fatal(err)
	}
	img, err := hyp.ImportImage(t.Context(), ami, hypervisor.BootGuest, strings.NewReader("rootfs"))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.RegisterBase(t.Context(), "base", img.ID, img); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	runs := []func(context.Context) error{e.Run, l.Run, a.Run, c.Run}
	done := make(chan error, len(runs))
	for _, run := range runs {
		go func() { done <- run(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		for range runs {
			if err := <-done; err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
		hyp.Close()
		db.Close()
	})
	return r
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (r *region) describe(name string) *cloudformationapi.Stack {
	r.t.Helper()
	out, err := r.cf.DescribeStacks(r.ctx, &cloudformationapi.DescribeStacksInput{StackName: name})
	if err != nil {
		r.t.Fatal(err)
	}
	return out.Stacks[0]
}

// until waits for a stack's status, and prints the events when it does not come.
func (r *region) until(name string, want ...string) *cloudformationapi.Stack {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		st := r.describe(name)
		if slices.Contains(want, st.StackStatus) {
			return st
		}
		if !strings.HasSuffix(st.StackStatus, "IN_PROGRESS") || time.Now().After(deadline) {
			r.t.Fatalf("%s is %s (%s), want %v\n%s", name, st.StackStatus, st.StackStatusReason, want, r.history(name))
		}
	}
}

func (r *region) history(name string) string {
	out, err := r.cf.DescribeStackEvents(r.ctx, &cloudformationapi.DescribeStackEventsInput{StackName: name})
	if err != nil {
		r.t.Fatal(err)
	}
	var b strings.Builder
	slices.Reverse(out.StackEvents)
	for _, e := range out.StackEvents {
		b.WriteString(strings.Join([]string{e.Timestamp.Format("05.000"), e.LogicalResourceId, e.ResourceStatus, e.ResourceStatusReason, "\n"}, " "))
	}
	return b.String()
}

func (r *region) create(name, body string, parameters map[string]string) string {
	r.t.Helper()
	in := &cloudformationapi.CreateStackInput{StackName: name, TemplateBody: body, Capabilities: []string{"CAPABILITY_IAM"}, Tags: []*cloudformationapi.Tag{{Key: "team", Value: "shop"}}}
	for k, v := range parameters {
		in.Parameters = append(in.Parameters, &cloudformationapi.Parameter{ParameterKey: k, ParameterValue: v})
	}
	out, err := r.cf.CreateStack(r.ctx, in)
	if err != nil {
		r.t.Fatal(err)
	}
	return out.StackId
}

func (r *region) delete(name string) {
	r.t.Helper()
	id := r.describe(name).StackId
	if err := r.cf.DeleteStack(r.ctx, &cloudformationapi.DeleteStackInput{StackName: name}); err != nil {
		r.t.Fatal(err)
	}
	r.until(id, "DELETE_COMPLETE")
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func call[Out any](r *region, svc, op string, in any) *Out {
	r.t.Helper()
	out, err := wire.Call[Out](r.ctx, r.bus, svc, op, in)
	if err != nil {
		r.t.Fatalf("%s:%s: %v", svc, op, err)
	}
	return out
}

// empty sees that nothing is left of any stack.
func (r *region) empty() {
	r.t.Helper()
	for what, n := range map[string]int{
		"VPCs":             len(call[ec2api.DescribeVpcsResult](r, "ec2", "DescribeVpcs", &ec2api.DescribeVpcsRequest{Filters: []*ec2api.Filter{{Name: "is-default", Values: []string{"false"}}}}).Vpcs),
		"gateways":         len(call[ec2api.DescribeInternetGatewaysResult](r, "ec2", "DescribeInternetGateways", &ec2api.DescribeInternetGatewaysRequest{Filters: []*ec2api.Filter{{Name: "tag-key", Values: []string{"aws:cloudformation:stack-id"}}}}).InternetGateways),
		"addresses":        len(call[ec2api.DescribeAddressesResult](r, "ec2", "DescribeAddresses", &ec2api.DescribeAddressesRequest{}).Addresses),
		"launch templates": len(call[ec2api.DescribeLaunchTemplatesResult](r, "ec2", "DescribeLaunchTemplates", &ec2api.DescribeLaunchTemplatesRequest{}).LaunchTemplates),
		"groups":           len(call[autoscalingapi.AutoScalingGroupsType](r, "autoscaling", "DescribeAutoScalingGroups", &autoscalingapi.AutoScalingGroupNamesType{}).AutoScalingGroups),
		"balancers":        len(call[elbv2api.DescribeLoadBalancersOutput](r, "elbv2", "DescribeLoadBalancers", &elbv2api.DescribeLoadBalancersInput{}).LoadBalancers),
		"target groups":    len(call[elbv2api.DescribeTargetGroupsOutput](r, "elbv2", "DescribeTargetGroups", &elbv2api.DescribeTargetGroupsInput{}).TargetGroups),
		"roles":            len(call[iamapi.ListRolesResponse](r, "iam", "ListRoles", &iamapi.ListRolesRequest{}).Roles),
		"profiles":         len(call[iamapi.ListInstanceProfilesResponse](r, "iam", "ListInstanceProfiles", &iamapi.ListInstanceProfilesRequest{}).InstanceProfiles),
		"policies":         len(call[iamapi.ListPoliciesResponse](r, "iam", "ListPolicies", &iamapi.ListPoliciesRequest{Scope: "Local"}).Policies),
	} {
		if n > 0 {
			r.t.Errorf("%d %s are left", n, what)
		}
	}
}

func TestWholeEnvironment(t *testing.T) {
	r := newRegion(t)
	begun := time.Now()
	id := r.create("shop", read(t, "testdata/full.yaml"), map[string]string{"ImageId": ami, "Size": "45"})
	st := r.until("shop", "CREATE_COMPLETE")
	t.Logf("complete after %v", time.Since(begun))
	if len(st.Outputs) != 4 {
		t.Errorf("outputs %v", st.Outputs)
	}
	g := call[autoscalingapi.AutoScalingGroupsType](r, "autoscaling", "DescribeAutoScalingGroups", &autoscalingapi.AutoScalingGroupNamesType{}).AutoScalingGroups[0]
	tags := map[string]string{}
	for _, x := range g.Tags {
		if x.PropagateAtLaunch == nil || !*x.PropagateAtLaunch {
			t.Errorf("tag %s is not propagated", x.Key)
		}
		tags[x.Key] = x.Value
	}
	for k, want := range map[string]string{"team": "shop", "Name": "web", "aws:cloudformation:stack-id": id, "aws:cloudformation:logical-id": "Fleet"} {
		if tags[k] != want {
			t.Errorf("tag %s = %q, want %q", k, tags[k], want)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); len(g.Instances) < 45 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		g = call[autoscalingapi.AutoScalingGroupsType](r, "autoscaling", "DescribeAutoScalingGroups", &autoscalingapi.AutoScalingGroupNamesType{}).AutoScalingGroups[0]
	}
	if len(g.Instances) != 45 {
		t.Errorf("%d instances", len(g.Instances))
	}
	begun = time.Now()
	r.delete("shop")
	t.Logf("deleted after %v", time.Since(begun))
	r.empty()
}

func TestNetwork(t *testing.T) {
	r := newRegion(t)
	r.create("net", read(t, "testdata/network.yaml"), map[string]string{"ClassB": "7"})
	r.until("net", "CREATE_COMPLETE")
	r.delete("net")
	r.empty()
}

// TestPublicTemplates deploys templates that are not part of the repository.
func TestPublicTemplates(t *testing.T) {
	dir := os.Getenv("DAYFLY_TEMPLATES")
	if dir == "" {
		t.Skip("DAYFLY_TEMPLATES names no folder of templates")
	}
	r := newRegion(t)
	for _, name := range []string{"vpc-2azs", "VPC_With_Managed_NAT_And_Private_Subnet"} {
		stack := strings.ReplaceAll(name, "_", "-")
		begun := time.Now()
		r.create(stack, read(t, filepath.Join(dir, name+".yaml")), nil)
		st := r.until(stack, "CREATE_COMPLETE")
		t.Logf("%s: %d outputs, complete after %v", name, len(st.Outputs), time.Since(begun))
		r.delete(stack)
		r.empty()
	}
	_, err := r.cf.CreateStack(r.ctx, &cloudformationapi.CreateStackInput{StackName: "rolling", TemplateBody: read(t, filepath.Join(dir, "AutoScalingRollingUpdates.yaml")),
		Capabilities: []string{"CAPABILITY_IAM"}, Parameters: []*cloudformationapi.Parameter{{ParameterKey: "KeyName", ParameterValue: "k"}}})
	t.Log(err)
	if err == nil {
		t.Error("a template with a classic load balancer was taken")
	}
}
