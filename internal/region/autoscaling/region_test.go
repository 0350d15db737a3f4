package autoscaling_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
	"github.com/dayfly-infra/dayfly/internal/region/autoscaling"
	balsim "github.com/dayfly-infra/dayfly/internal/region/balancer/sim"
	"github.com/dayfly-infra/dayfly/internal/region/ec2"
	"github.com/dayfly-infra/dayfly/internal/region/elb"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	hypsim "github.com/dayfly-infra/dayfly/internal/region/hypervisor/sim"
	netsim "github.com/dayfly-infra/dayfly/internal/region/network/sim"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// cards gives the load balancers EC2's managed interfaces.
type cards struct{ *ec2.Service }

func (c cards) CreateManagedInterface(ctx context.Context, subnet string, groups []string, description string, public bool) (elb.ManagedInterface, error) {
	m, err := c.Service.CreateManagedInterface(ctx, subnet, groups, description, public)
	return elb.ManagedInterface(m), err
}

func call[Out any](t *testing.T, b *wire.Bus, svc, op string, in any) *Out {
	t.Helper()
	ctx := wire.WithCaller(t.Context(), wire.Caller{Account: "123456789012", ARN: "arn:aws:iam::123456789012:root"})
	out, err := wire.Call[Out](ctx, b, svc, op, in)
	if err != nil {
		t.Fatalf("%s:%s: %v", svc, op, err)
	}
	return out
}

// TestRealServices runs a group of 45 behind a load balancer with the real EC2
// and load balancing services over simulated ground, kills one instance, and
// takes everything down again.
func TestRealServices(t *testing.T) {
	const account, region = "123456789012", "local-1"
	zones := []string{"local-1a", "local-1b", "local-1c"}
	db, err := state.Open(t.TempDir() + "/r.db")
	if err != nil {
		t.Fatal(err)
	}
	hyp := hypsim.New(hypsim.Config{})
	bus := wire.NewBus()
	e, err := ec2.New(ec2.Config{Account: account, Region: region, Zones: zones, Hypervisor: hyp, Network: netsim.New(netip.MustParsePrefix("198.18.0.0/16")), DB: db, Bus: bus})
	if err != nil {
		t.Fatal(err)
	}
	bus.Register(ec2api.Model, e)
	bal := balsim.New(nil)
	l, err := elb.New(elb.Config{Account: account, Region: region, Zones: zones, DB: db, Bus: bus, Balancer: bal, Interfaces: cards{e}})
	if err != nil {
		t.Fatal(err)
	}
	bus.Register(elbv2api.Model, l)
	a, err := autoscaling.New(autoscaling.Config{Account: account, Region: region, Zones: zones, DB: db, Bus: bus})
	if err != nil {
		t.Fatal(err)
	}
	bus.Register(autoscalingapi.Model, a)
	if err := e.Adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 3)
	for _, run := range []func(context.Context) error{e.Run, l.Run, a.Run} {
		go func() { done <- run(ctx) }()
	}
	defer func() {
		cancel()
		for range 3 {
			if err := <-done; err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
		hyp.Close()
		db.Close()
	}()
	img, err := hyp.ImportImage(t.Context(), "ami-0123456789abcdef0", hypervisor.BootGuest, strings.NewReader("rootfs"))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.RegisterBase(t.Context(), "base", img.ID, img); err != nil {
		t.Fatal(err)
	}

	vpc := call[ec2api.CreateVpcResult](t, bus, "ec2", "CreateVpc", &ec2api.CreateVpcRequest{CidrBlock: "10.0.0.0/16"}).Vpc.VpcId
	gw := call[ec2api.CreateInternetGatewayResult](t, bus, "ec2", "CreateInternetGateway", &ec2api.CreateInternetGatewayRequest{}).InternetGateway.InternetGatewayId
	call[struct{}](t, bus, "ec2", "AttachInternetGateway", &ec2api.AttachInternetGatewayRequest{VpcId: vpc, InternetGatewayId: gw})
	var subnets []string
	for i, z := range zones {
		subnets = append(subnets, call[ec2api.CreateSubnetResult](t, bus, "ec2", "CreateSubnet", &ec2api.CreateSubnetRequest{VpcId: vpc, CidrBlock: fmt.Sprintf("10.0.%d.0/24", i), AvailabilityZone: z}).Subnet.SubnetId)
	}
	lt := call[ec2api.CreateLaunchTemplateResult](t, bus, "ec2", "CreateLaunchTemplate", &ec2api.CreateLaunchTemplateRequest{LaunchTemplateName: "web",
		LaunchTemplateData: &ec2api.RequestLaunchTemplateData{ImageId: img.ID, InstanceType: "t3.micro"}}).LaunchTemplate.LaunchTemplateId
	lb := call[elbv2api.CreateLoadBalancerOutput](t, bus, "elbv2", "CreateLoadBalancer", &elbv2api.CreateLoadBalancerInput{Name: "web", Subnets: subnets}).LoadBalancers[0]
	tg := call[elbv2api.CreateTargetGroupOutput](t, bus, "elbv2", "CreateTargetGroup", &elbv2api.CreateTargetGroupInput{Name: "web", Protocol: "HTTP", Port: new(int64(80)), VpcId: vpc}).TargetGroups[0].TargetGroupArn
	call[elbv2api.CreateListenerOutput](t, bus, "elbv2", "CreateListener", &elbv2api.CreateListenerInput{LoadBalancerArn: lb.LoadBalancerArn, Port: new(int64(80)), Protocol: "HTTP",
		DefaultActions: []*elbv2api.Action{{Type: "forward", TargetGroupArn: tg}}})

	begun := time.Now()
	call[struct{}](t, bus, "autoscaling", "CreateAutoScalingGroup", &autoscalingapi.CreateAutoScalingGroupType{AutoScalingGroupName: "g", MinSize: new(int64(0)), MaxSize: new(int64(60)), DesiredCapacity: new(int64(45)),
		LaunchTemplate: &autoscalingapi.LaunchTemplateSpecification{LaunchTemplateId: lt, Version: "1"}, VPCZoneIdentifier: strings.Join(subnets, ","), TargetGroupARNs: []string{tg}})
	healthy := func() (ids []string) {
		for _, d := range call[elbv2api.DescribeTargetHealthOutput](t, bus, "elbv2", "DescribeTargetHealth", &elbv2api.DescribeTargetHealthInput{TargetGroupArn: tg}).TargetHealthDescriptions {
			if d.TargetHealth.State == "healthy" {
				ids = append(ids, d.Target.Id)
			}
		}
		return ids
	}
	groups := func() []*autoscalingapi.AutoScalingGroup {
		return call[autoscalingapi.AutoScalingGroupsType](t, bus, "autoscaling", "DescribeAutoScalingGroups", &autoscalingapi.AutoScalingGroupNamesType{}).AutoScalingGroups
	}
	until := func(what string, f func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	until("45 healthy targets", func() bool { return len(healthy()) == 45 })
	t.Logf("45 healthy after %v", time.Since(begun))
	perZone := map[string]int{}
	for _, i := range groups()[0].Instances {
		perZone[i.AvailabilityZone]++
	}
	for _, z := range zones {
		if perZone[z] != 15 {
			t.Errorf("zones %v, want 15 each", perZone)
		}
	}
	victim := healthy()[11]
	if err := hyp.Kill(victim, "exited 1"); err != nil {
		t.Fatal(err)
	}
	until("the dead one is replaced", func() bool {
		ids := strings.Join(healthy(), " ")
		return !strings.Contains(ids, victim) && len(strings.Fields(ids)) == 45
	})
	call[struct{}](t, bus, "autoscaling", "DeleteAutoScalingGroup", &autoscalingapi.DeleteAutoScalingGroupType{AutoScalingGroupName: "g", ForceDelete: new(true)})
	until("the group is gone", func() bool { return len(groups()) == 0 })
	call[elbv2api.DeleteLoadBalancerOutput](t, bus, "elbv2", "DeleteLoadBalancer", &elbv2api.DeleteLoadBalancerInput{LoadBalancerArn: lb.LoadBalancerArn})
	call[elbv2api.DeleteTargetGroupOutput](t, bus, "elbv2", "DeleteTargetGroup", &elbv2api.DeleteTargetGroupInput{TargetGroupArn: tg})
	if v, err := bal.VPCs(t.Context()); err != nil || len(v) != 0 {
		t.Errorf("balancers left: %v, %v", v, err)
	}
	if list, err := hyp.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("instances left: %d, %v", len(list), err)
	}
	if n := call[ec2api.DescribeNetworkInterfacesResult](t, bus, "ec2", "DescribeNetworkInterfaces", &ec2api.DescribeNetworkInterfacesRequest{}).NetworkInterfaces; len(n) != 0 {
		t.Errorf("interfaces left: %d", len(n))
	}
}
