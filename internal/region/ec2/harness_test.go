package ec2

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/api/iamapi"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	hypersim "github.com/dayfly-infra/dayfly/internal/region/hypervisor/sim"
	netsim "github.com/dayfly-infra/dayfly/internal/region/network/sim"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const (
	baseAMI = "ami-0000000000000000a"
	account = "123456789012"
)

// fakeIAM knows one instance profile.
type fakeIAM struct{}

func (fakeIAM) GetInstanceProfile(_ context.Context, in *iamapi.GetInstanceProfileRequest) (*iamapi.GetInstanceProfileResponse, error) {
	if in.InstanceProfileName != "web" {
		return nil, wire.Errorf("NoSuchEntity", "Instance Profile %s cannot be found.", in.InstanceProfileName)
	}
	return &iamapi.GetInstanceProfileResponse{InstanceProfile: &iamapi.InstanceProfile{InstanceProfileName: "web", InstanceProfileId: "AIPAWEB", Arn: "arn:aws:iam::" + account + ":instance-profile/web"}}, nil
}

// world is a region's EC2 over simulated machines and networks, which outlive
// the service as real ones would.
type world struct {
	t     testing.TB
	s     *Service
	db    *state.DB
	path  string
	hyper *hypersim.Hypervisor
	net   *netsim.Network
	cfg   Config
	ctx   context.Context
	stop  func()
}

// slowSnapshots is a hypervisor whose snapshots take a second, so that what is
// seen meanwhile does not depend on who runs first.
type slowSnapshots struct{ hypervisor.Hypervisor }

func (h *slowSnapshots) Snapshot(ctx context.Context, instance, image string) (hypervisor.Image, error) {
	time.Sleep(time.Second)
	return h.Hypervisor.Snapshot(ctx, instance, image)
}

type option func(*Config, *hypersim.Config)

func newWorld(t testing.TB, opts ...option) *world {
	t.Helper()
	cfg := Config{Account: account, Region: "local-1", Zones: []string{"local-1a", "local-1b", "local-1c"}, Clock: clock.Real{}, Endpoint: "http://169.254.169.250",
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Bus: wire.NewBus(), Rand: rand.New(rand.NewSource(1))}
	cfg.Bus.Register(iamapi.Model, fakeIAM{})
	hc := hypersim.Config{Clock: clock.Real{}}
	for _, o := range opts {
		o(&cfg, &hc)
	}
	w := &world{t: t, hyper: hypersim.New(hc), net: netsim.New(netip.MustParsePrefix("198.18.0.0/16")), cfg: cfg, path: filepath.Join(t.TempDir(), "region.db")}
	w.ctx = wire.WithCaller(context.Background(), wire.Caller{Account: account, ARN: "arn:aws:iam::" + account + ":root"})
	if _, err := w.hyper.ImportImage(w.ctx, "debian", hypervisor.BootGuest, strings.NewReader("rootfs")); err != nil {
		t.Fatal(err)
	}
	w.start()
	return w
}

// start opens the database and runs the service, as a new process would.
func (w *world) start() {
	w.t.Helper()
	db, err := state.Open(w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.db = db
	cfg := w.cfg
	cfg.DB, cfg.Network = db, w.net
	if slow, ok := cfg.Hypervisor.(*slowSnapshots); ok {
		slow.Hypervisor = w.hyper
	} else {
		cfg.Hypervisor = w.hyper
	}
	s, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.s = s
	if err := s.RegisterBase(w.ctx, "debian-12", baseAMI, hypervisor.Image{ID: "debian", Arch: "amd64", Bytes: 1 << 20}); err != nil {
		w.t.Fatal(err)
	}
	if err := s.Adopt(w.ctx); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
		if err := db.Close(); err != nil {
			w.t.Error(err)
		}
	}
}

func (w *world) restart() { w.t.Helper(); w.stop(); w.start() }

// close ends everything, and sees that the books agree with the machines.
func (w *world) close() {
	w.stop()
	if err := w.hyper.Close(); err != nil {
		w.t.Error(err)
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// code is the AWS error code of an error, "" for none.
func code(err error) string {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e.Code
	}
	return "(" + err.Error() + ")"
}

// site is a VPC with a public subnet in the first zone and a private one in
// the second, which leads out through a NAT gateway.
type site struct{ vpc, igw, public, private, publicTable, privateTable, nat, eip, group string }

func (w *world) site(cidr string) site {
	w.t.Helper()
	t, s, ctx := w.t, w.s, w.ctx
	p := netip.MustParsePrefix(cidr).Addr().As4()
	sub := func(third byte) string {
		p[2] = third
		return netip.PrefixFrom(netip.AddrFrom4(p), 24).String()
	}
	var x site
	x.vpc = must(s.CreateVpc(ctx, &ec2api.CreateVpcRequest{CidrBlock: cidr}))(t).Vpc.VpcId
	ok(t, s.ModifyVpcAttribute(ctx, &ec2api.ModifyVpcAttributeRequest{VpcId: x.vpc, EnableDnsHostnames: &ec2api.AttributeBooleanValue{Value: new(true)}}))
	x.igw = must(s.CreateInternetGateway(ctx, &ec2api.CreateInternetGatewayRequest{}))(t).InternetGateway.InternetGatewayId
	ok(t, s.AttachInternetGateway(ctx, &ec2api.AttachInternetGatewayRequest{VpcId: x.vpc, InternetGatewayId: x.igw}))
	x.public = must(s.CreateSubnet(ctx, &ec2api.CreateSubnetRequest{VpcId: x.vpc, CidrBlock: sub(0), AvailabilityZone: "local-1a"}))(t).Subnet.SubnetId
	x.private = must(s.CreateSubnet(ctx, &ec2api.CreateSubnetRequest{VpcId: x.vpc, CidrBlock: sub(1), AvailabilityZone: "local-1b"}))(t).Subnet.SubnetId
	ok(t, s.ModifySubnetAttribute(ctx, &ec2api.ModifySubnetAttributeRequest{SubnetId: x.public, MapPublicIpOnLaunch: &ec2api.AttributeBooleanValue{Value: new(true)}}))
	x.publicTable = must(s.CreateRouteTable(ctx, &ec2api.CreateRouteTableRequest{VpcId: x.vpc}))(t).RouteTable.RouteTableId
	x.privateTable = must(s.CreateRouteTable(ctx, &ec2api.CreateRouteTableRequest{VpcId: x.vpc}))(t).RouteTable.RouteTableId
	must(s.AssociateRouteTable(ctx, &ec2api.AssociateRouteTableRequest{SubnetId: x.public, RouteTableId: x.publicTable}))(t)
	must(s.AssociateRouteTable(ctx, &ec2api.AssociateRouteTableRequest{SubnetId: x.private, RouteTableId: x.privateTable}))(t)
	must(s.CreateRoute(ctx, &ec2api.CreateRouteRequest{RouteTableId: x.publicTable, DestinationCidrBlock: "0.0.0.0/0", GatewayId: x.igw}))(t)
	x.eip = must(s.AllocateAddress(ctx, &ec2api.AllocateAddressRequest{Domain: "vpc"}))(t).AllocationId
	x.nat = must(s.CreateNatGateway(ctx, &ec2api.CreateNatGatewayRequest{SubnetId: x.public, AllocationId: x.eip}))(t).NatGateway.NatGatewayId
	must(s.CreateRoute(ctx, &ec2api.CreateRouteRequest{RouteTableId: x.privateTable, DestinationCidrBlock: "0.0.0.0/0", NatGatewayId: x.nat}))(t)
	x.group = must(s.CreateSecurityGroup(ctx, &ec2api.CreateSecurityGroupRequest{VpcId: x.vpc, GroupName: "web", Description: "web servers"}))(t).GroupId
	return x
}

// raze deletes a site again, in the only order that works.
func (w *world) raze(x site) {
	w.t.Helper()
	t, s, ctx := w.t, w.s, w.ctx
	must(s.DeleteSecurityGroup(ctx, &ec2api.DeleteSecurityGroupRequest{GroupId: x.group}))(t)
	must(s.DeleteNatGateway(ctx, &ec2api.DeleteNatGatewayRequest{NatGatewayId: x.nat}))(t)
	ok(t, s.ReleaseAddress(ctx, &ec2api.ReleaseAddressRequest{AllocationId: x.eip}))
	ok(t, s.DeleteSubnet(ctx, &ec2api.DeleteSubnetRequest{SubnetId: x.public}))
	ok(t, s.DeleteSubnet(ctx, &ec2api.DeleteSubnetRequest{SubnetId: x.private}))
	ok(t, s.DeleteRouteTable(ctx, &ec2api.DeleteRouteTableRequest{RouteTableId: x.publicTable}))
	ok(t, s.DeleteRouteTable(ctx, &ec2api.DeleteRouteTableRequest{RouteTableId: x.privateTable}))
	ok(t, s.DetachInternetGateway(ctx, &ec2api.DetachInternetGatewayRequest{VpcId: x.vpc, InternetGatewayId: x.igw}))
	ok(t, s.DeleteInternetGateway(ctx, &ec2api.DeleteInternetGatewayRequest{InternetGatewayId: x.igw}))
	ok(t, s.DeleteVpc(ctx, &ec2api.DeleteVpcRequest{VpcId: x.vpc}))
	if left := must(w.net.VPCs(ctx))(t); len(left) != 0 {
		t.Errorf("left in the network: %v", left)
	}
}

func (w *world) run(subnet string, n int64, change ...func(*ec2api.RunInstancesRequest)) []string {
	w.t.Helper()
	in := &ec2api.RunInstancesRequest{ImageId: baseAMI, InstanceType: "t3.micro", SubnetId: subnet, MinCount: new(n), MaxCount: new(n)}
	for _, f := range change {
		f(in)
	}
	r := must(w.s.RunInstances(w.ctx, in))(w.t)
	var ids []string
	for _, i := range r.Instances {
		ids = append(ids, i.InstanceId)
		if i.State.Name != pending {
			w.t.Errorf("%s answers as %s", i.InstanceId, i.State.Name)
		}
	}
	return ids
}

func (w *world) state(id string) string {
	i, _ := w.s.record(id)
	return i.State
}

// await waits until all instances are in a state.
func (w *world) await(want string, ids ...string) {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for _, id := range ids {
		for w.state(id) != want {
			if time.Now().After(deadline) {
				i, _ := w.s.record(id)
				w.t.Fatalf("%s is %s (%v), not %s", id, i.State, i.Reason, want)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			w.t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (w *world) terminate(ids ...string) {
	w.t.Helper()
	must(w.s.TerminateInstances(w.ctx, &ec2api.TerminateInstancesRequest{InstanceIds: ids}))(w.t)
	w.await(terminated, ids...)
}

func (w *world) describe(id string) *ec2api.Instance {
	w.t.Helper()
	out := must(w.s.DescribeInstances(w.ctx, &ec2api.DescribeInstancesRequest{InstanceIds: []string{id}}))(w.t)
	return out.Reservations[0].Instances[0]
}
