package ec2

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	hypersim "github.com/dayfly-infra/dayfly/internal/region/hypervisor/sim"
	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// A restart finds what runs, what died, what is new, and what was half done.
func TestRestartAdopts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Int64
		w := newWorld(t, func(_ *Config, h *hypersim.Config) {
			h.Fault = func(hypervisor.Instance) hypersim.Fault { return hypersim.Fault{Slow: time.Duration(slow.Load())} }
		})
		x := w.site("10.0.0.0/16")
		ids := w.run(x.public, 4, func(in *ec2api.RunInstancesRequest) { in.InstanceInitiatedShutdownBehavior = "terminate" })
		keeps := w.run(x.public, 1)[0]
		w.await(running, append(ids, keeps)...)
		free := must(w.s.AllocateAddress(w.ctx, &ec2api.AllocateAddressRequest{}))(t)
		before := w.describe(ids[0])

		slow.Store(int64(time.Minute))
		half := w.run(x.private, 3)  // the region dies while these boot
		time.Sleep(time.Millisecond) // they are under way
		w.stop()
		ok(t, w.hyper.Kill(ids[1], "exited 0"))
		ok(t, w.hyper.Kill(keeps, "exited 0"))
		ok(t, w.hyper.Destroy(w.ctx, ids[2]))
		slow.Store(0)
		ok(t, w.hyper.Create(w.ctx, hypervisor.Instance{ID: "i-0000000000000dead", Image: "debian"}))
		ok(t, w.net.EnsureVPC(w.ctx, network.VPC{ID: "vpc-0000000000000dead", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}))
		w.start()
		w.await(running, half...)
		w.await(terminated, ids[1], ids[2])
		w.await(stopped, keeps)
		after := w.describe(ids[0])
		if after.State.Name != running || after.PublicIpAddress != before.PublicIpAddress || !after.LaunchTime.Equal(*before.LaunchTime) {
			t.Errorf("what ran is %+v", after.State)
		}
		if r := w.describe(ids[2]).StateReason; r.Code != "Server.InternalError" {
			t.Errorf("%+v", r)
		}
		var have []string
		for _, st := range must(w.hyper.List(w.ctx))(t) {
			have = append(have, st.ID)
		}
		want := append([]string{ids[0], ids[3], keeps}, half...)
		slices.Sort(want)
		if !slices.Equal(have, want) {
			t.Errorf("the hypervisor has %v, want %v", have, want)
		}
		if vs := must(w.net.VPCs(w.ctx))(t); len(vs) != 1 {
			t.Errorf("networks %v", vs)
		}
		// Addresses that nobody carries are not given to somebody else.
		if again := must(w.s.AllocateAddress(w.ctx, &ec2api.AllocateAddressRequest{}))(t); again.PublicIp == free.PublicIp {
			t.Errorf("%s was given twice", free.PublicIp)
		} else {
			ok(t, w.s.ReleaseAddress(w.ctx, &ec2api.ReleaseAddressRequest{AllocationId: again.AllocationId}))
		}
		ok(t, w.s.ReleaseAddress(w.ctx, &ec2api.ReleaseAddressRequest{PublicIp: free.PublicIp}))
		w.terminate(append([]string{ids[0], ids[3], keeps}, half...)...)
		w.raze(x)
		w.close()
	})
}

// Launches that fail are terminated with the reason, and leave nothing.
func TestLaunchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken sync.Map
		w := newWorld(t, func(_ *Config, h *hypersim.Config) {
			h.Fault = func(in hypervisor.Instance) (f hypersim.Fault) {
				if _, bad := broken.Load(in.Hostname); bad {
					f.Create = errors.New("no memory")
				}
				return f
			}
		})
		var bad atomic.Pointer[string]
		w.net.Fail = func(op, object string) error {
			if b := bad.Load(); op == "Attach" && b != nil && (*b == "" || *b == object) {
				return errors.New("no bridge")
			}
			return nil
		}
		x := w.site("10.0.0.0/16")
		broken.Store("ip-10-0-0-6", true)
		ids := w.run(x.public, 3)
		w.await(running, ids[0], ids[2])
		w.await(terminated, ids[1])
		if r := w.describe(ids[1]).StateReason; r.Code != "Server.InternalError" {
			t.Errorf("%+v", r)
		}
		// The network fails: what it cannot carry is not launched.
		bad.Store(new(""))
		failed := w.run(x.public, 2)
		w.await(terminated, failed...)
		bad.Store(nil)
		w.terminate(ids[0], ids[2])
		w.raze(x)
		w.close()
	})
}

// What the groups and routes say is what the network does.
func TestNetworkFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s, ctx := w.s, w.ctx
		x := w.site("10.0.0.0/16")
		front := w.run(x.public, 1, func(in *ec2api.RunInstancesRequest) { in.SecurityGroupIds = []string{x.group} })[0]
		back := w.run(x.private, 1)[0]
		w.await(running, front, back)
		f, b := w.describe(front), w.describe(back)
		fi, bi := f.NetworkInterfaces[0].NetworkInterfaceId, b.NetworkInterfaces[0].NetworkInterfaceId
		host, err := netip.ParseAddr("203.0.113.7")
		ok(t, err)
		check := func(what string, want bool, src, dst string, port int) {
			t.Helper()
			if got := w.net.Allowed(src, dst, "tcp", port); got != want {
				t.Errorf("%s: %v", what, got)
			}
		}
		check("the internet reaches the front", false, host.String(), fi, 80)
		perm := []*ec2api.IpPermission{{IpProtocol: "tcp", FromPort: new(int64(80)), ToPort: new(int64(80)), IpRanges: []*ec2api.IpRange{{CidrIp: "0.0.0.0/0"}}}}
		rules := must(s.AuthorizeSecurityGroupIngress(ctx, &ec2api.AuthorizeSecurityGroupIngressRequest{GroupId: x.group, IpPermissions: perm,
			TagSpecifications: []*ec2api.TagSpecification{{ResourceType: "security-group-rule", Tags: []*ec2api.Tag{{Key: "for", Value: "web"}}}}}))(t).SecurityGroupRules
		check("the internet reaches the front at 80", true, host.String(), fi, 80)
		check("the internet reaches the front at 81", false, host.String(), fi, 81)
		check("the front reaches the back", false, fi, bi, 22)
		must(s.AuthorizeSecurityGroupIngress(ctx, &ec2api.AuthorizeSecurityGroupIngressRequest{GroupId: b.SecurityGroups[0].GroupId,
			IpPermissions: []*ec2api.IpPermission{{IpProtocol: "-1", UserIdGroupPairs: []*ec2api.UserIdGroupPair{{GroupId: x.group}}}}}))(t)
		check("the front reaches the back by its group", true, fi, bi, 22)
		check("the back leaves by NAT", true, bi, host.String(), 443)
		must(s.DeleteNatGateway(ctx, &ec2api.DeleteNatGatewayRequest{NatGatewayId: x.nat}))(t)
		check("the back leaves by a deleted NAT", false, bi, host.String(), 443)
		ok(t, s.DeleteRoute(ctx, &ec2api.DeleteRouteRequest{RouteTableId: x.publicTable, DestinationCidrBlock: "0.0.0.0/0"}))
		check("the internet without a route", false, host.String(), fi, 80)
		must(s.CreateRoute(ctx, &ec2api.CreateRouteRequest{RouteTableId: x.publicTable, DestinationCidrBlock: "0.0.0.0/0", GatewayId: x.igw}))(t)
		check("the route is back", true, host.String(), fi, 80)
		if got := must(s.DescribeSecurityGroupRules(ctx, &ec2api.DescribeSecurityGroupRulesRequest{Filters: []*ec2api.Filter{{Name: "tag:for", Values: []string{"web"}}}}))(t).SecurityGroupRules; len(got) != 1 {
			t.Errorf("%d rules with the tag", len(got))
		}
		must(s.RevokeSecurityGroupIngress(ctx, &ec2api.RevokeSecurityGroupIngressRequest{GroupId: x.group, SecurityGroupRuleIds: []string{rules[0].SecurityGroupRuleId}}))(t)
		check("a revoked rule", false, host.String(), fi, 80)
		// Another group on a running machine.
		must(s.AuthorizeSecurityGroupIngress(ctx, &ec2api.AuthorizeSecurityGroupIngressRequest{GroupId: x.group, IpPermissions: perm}))(t)
		ok(t, s.ModifyInstanceAttribute(ctx, &ec2api.ModifyInstanceAttributeRequest{InstanceId: front, Groups: []string{b.SecurityGroups[0].GroupId}}))
		check("a group taken away", false, host.String(), fi, 80)

		// A load balancer's interface: an address, a use of group and subnet.
		m := must(s.CreateManagedInterface(ctx, x.public, []string{x.group}, "ELB app/web", true))(t)
		if twice := must(s.CreateManagedInterface(ctx, x.public, []string{x.group}, "ELB app/web", true))(t); twice != m {
			t.Errorf("%+v, then %+v", m, twice)
		}
		check("the internet reaches the balancer", true, host.String(), m.ID, 80)
		v := must(s.DescribeNetworkInterfaces(ctx, &ec2api.DescribeNetworkInterfacesRequest{Filters: []*ec2api.Filter{{Name: "requester-managed", Values: []string{"true"}}, {Name: "description", Values: []string{"ELB*"}}}}))(t).NetworkInterfaces
		if len(v) != 1 || v[0].Association.PublicIp != m.Public.String() {
			t.Errorf("%+v", v)
		}
		w.terminate(front, back)
		if _, err := s.DeleteSecurityGroup(ctx, &ec2api.DeleteSecurityGroupRequest{GroupId: x.group}); code(err) != "DependencyViolation" {
			t.Errorf("%v", err)
		}
		ok(t, s.SetManagedInterfaceGroups(ctx, m.ID, []string{b.SecurityGroups[0].GroupId}))
		ok(t, s.DeleteManagedInterface(ctx, m.ID))
		ok(t, s.DeleteManagedInterface(ctx, m.ID))
		must(s.RevokeSecurityGroupIngress(ctx, &ec2api.RevokeSecurityGroupIngressRequest{GroupId: b.SecurityGroups[0].GroupId,
			IpPermissions: []*ec2api.IpPermission{{IpProtocol: "-1", UserIdGroupPairs: []*ec2api.UserIdGroupPair{{GroupId: x.group}}}}}))(t)
		w.raze(x)
		w.close()
	})
}

// The IPv6 half, ACLs and DHCP options of public templates.
func TestTemplateParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s, ctx := w.s, w.ctx
		v := must(s.CreateVpc(ctx, &ec2api.CreateVpcRequest{CidrBlock: "10.0.0.0/16"}))(t).Vpc.VpcId
		v6 := must(s.AssociateVpcCidrBlock(ctx, &ec2api.AssociateVpcCidrBlockRequest{VpcId: v, AmazonProvidedIpv6CidrBlock: new(true)}))(t).Ipv6CidrBlockAssociation
		p := netip.MustParsePrefix(v6.Ipv6CidrBlock)
		if p.Bits() != 56 || !netip.MustParsePrefix("2001:db8::/32").Contains(p.Addr()) {
			t.Errorf("%s", p)
		}
		sn := must(s.CreateSubnet(ctx, &ec2api.CreateSubnetRequest{VpcId: v, CidrBlock: "10.0.0.0/20", Ipv6CidrBlock: netip.PrefixFrom(p.Addr(), 64).String()}))(t).Subnet
		e := must(s.CreateEgressOnlyInternetGateway(ctx, &ec2api.CreateEgressOnlyInternetGatewayRequest{VpcId: v}))(t).EgressOnlyInternetGateway.EgressOnlyInternetGatewayId
		rt := must(s.CreateRouteTable(ctx, &ec2api.CreateRouteTableRequest{VpcId: v}))(t).RouteTable.RouteTableId
		must(s.CreateRoute(ctx, &ec2api.CreateRouteRequest{RouteTableId: rt, DestinationIpv6CidrBlock: "::/0", EgressOnlyInternetGatewayId: e}))(t)
		a := must(s.CreateNetworkAcl(ctx, &ec2api.CreateNetworkAclRequest{VpcId: v}))(t).NetworkAcl.NetworkAclId
		ok(t, s.CreateNetworkAclEntry(ctx, &ec2api.CreateNetworkAclEntryRequest{NetworkAclId: a, RuleNumber: new(int64(99)), Protocol: "-1", RuleAction: "allow", Egress: new(true), CidrBlock: "0.0.0.0/0"}))
		ok(t, s.CreateNetworkAclEntry(ctx, &ec2api.CreateNetworkAclEntryRequest{NetworkAclId: a, RuleNumber: new(int64(98)), Protocol: "-1", RuleAction: "allow", Egress: new(true), Ipv6CidrBlock: "::/0"}))
		acls := must(s.DescribeNetworkAcls(ctx, &ec2api.DescribeNetworkAclsRequest{Filters: []*ec2api.Filter{{Name: "association.subnet-id", Values: []string{sn.SubnetId}}}}))(t).NetworkAcls
		if len(acls) != 1 || !*acls[0].IsDefault {
			t.Fatalf("%+v", acls)
		}
		must(s.ReplaceNetworkAclAssociation(ctx, &ec2api.ReplaceNetworkAclAssociationRequest{AssociationId: acls[0].Associations[0].NetworkAclAssociationId, NetworkAclId: a}))(t)
		if err := s.DeleteNetworkAcl(ctx, &ec2api.DeleteNetworkAclRequest{NetworkAclId: a}); code(err) != "DependencyViolation" {
			t.Errorf("%v", err)
		}
		d := must(s.CreateDhcpOptions(ctx, &ec2api.CreateDhcpOptionsRequest{DhcpConfigurations: []*ec2api.NewDhcpConfiguration{{Key: "domain-name", Values: []string{"local-1.compute.internal"}}, {Key: "domain-name-servers", Values: []string{"AmazonProvidedDNS"}}}}))(t).DhcpOptions.DhcpOptionsId
		ok(t, s.AssociateDhcpOptions(ctx, &ec2api.AssociateDhcpOptionsRequest{VpcId: v, DhcpOptionsId: d}))
		if err := s.DeleteDhcpOptions(ctx, &ec2api.DeleteDhcpOptionsRequest{DhcpOptionsId: d}); code(err) != "DependencyViolation" {
			t.Errorf("%v", err)
		}
		if _, err := s.DisassociateVpcCidrBlock(ctx, &ec2api.DisassociateVpcCidrBlockRequest{AssociationId: v6.AssociationId}); code(err) != "InvalidCidrBlock.InUse" {
			t.Errorf("%v", err)
		}
		w.restart()
		s = w.s
		ok(t, s.DeleteSubnet(ctx, &ec2api.DeleteSubnetRequest{SubnetId: sn.SubnetId}))
		ok(t, s.DeleteNetworkAcl(ctx, &ec2api.DeleteNetworkAclRequest{NetworkAclId: a}))
		ok(t, s.DeleteRouteTable(ctx, &ec2api.DeleteRouteTableRequest{RouteTableId: rt}))
		must(s.DeleteEgressOnlyInternetGateway(ctx, &ec2api.DeleteEgressOnlyInternetGatewayRequest{EgressOnlyInternetGatewayId: e}))(t)
		must(s.DisassociateVpcCidrBlock(ctx, &ec2api.DisassociateVpcCidrBlockRequest{AssociationId: v6.AssociationId}))(t)
		ok(t, s.DeleteVpc(ctx, &ec2api.DeleteVpcRequest{VpcId: v}))
		ok(t, s.DeleteDhcpOptions(ctx, &ec2api.DeleteDhcpOptionsRequest{DhcpOptionsId: d}))
		w.close()
	})
}

// Elastic addresses move, and take the place of addresses of the day.
func TestElasticAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s, ctx := w.s, w.ctx
		x := w.site("10.0.0.0/16")
		ids := w.run(x.public, 2)
		w.await(running, ids...)
		e := must(s.AllocateAddress(ctx, &ec2api.AllocateAddressRequest{}))(t)
		a := must(s.AssociateAddress(ctx, &ec2api.AssociateAddressRequest{AllocationId: e.AllocationId, InstanceId: ids[0]}))(t).AssociationId
		if got := w.describe(ids[0]).PublicIpAddress; got != e.PublicIp {
			t.Errorf("%s", got)
		}
		if _, err := s.AssociateAddress(ctx, &ec2api.AssociateAddressRequest{AllocationId: e.AllocationId, InstanceId: ids[1], AllowReassociation: new(false)}); code(err) != "Resource.AlreadyAssociated" {
			t.Errorf("%v", err)
		}
		b := must(s.AssociateAddress(ctx, &ec2api.AssociateAddressRequest{AllocationId: e.AllocationId, InstanceId: ids[1]}))(t).AssociationId
		if w.describe(ids[0]).PublicIpAddress != "" || w.describe(ids[1]).PublicIpAddress != e.PublicIp || a == b {
			t.Error("the address has not moved")
		}
		must(s.StopInstances(ctx, &ec2api.StopInstancesRequest{InstanceIds: ids[1:]}))(t)
		w.await(stopped, ids[1])
		if w.describe(ids[1]).PublicIpAddress != e.PublicIp {
			t.Error("an elastic address was lost in a stop")
		}
		ok(t, s.DisassociateAddress(ctx, &ec2api.DisassociateAddressRequest{AssociationId: b}))
		must(s.AssociateAddress(ctx, &ec2api.AssociateAddressRequest{PublicIp: e.PublicIp, InstanceId: ids[0]}))(t)
		w.terminate(ids...)
		ok(t, s.ReleaseAddress(ctx, &ec2api.ReleaseAddressRequest{AllocationId: e.AllocationId})) // free with its instance
		w.raze(x)
		w.close()
	})
}

// Tags on everything, aws: tags by services only.
func TestTags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s, ctx := w.s, w.ctx
		x := w.site("10.0.0.0/16")
		all := []string{x.vpc, x.igw, x.public, x.publicTable, x.nat, x.eip, x.group}
		ok(t, s.CreateTags(ctx, &ec2api.CreateTagsRequest{Resources: all, Tags: []*ec2api.Tag{{Key: "owner", Value: "me"}, {Key: "n", Value: "1"}}}))
		service := wire.WithCaller(ctx, wire.Caller{Account: account, Service: "cloudformation"})
		ok(t, s.CreateTags(service, &ec2api.CreateTagsRequest{Resources: all[:1], Tags: []*ec2api.Tag{{Key: "aws:cloudformation:stack-name", Value: "shop"}}}))
		got := must(s.DescribeTags(ctx, &ec2api.DescribeTagsRequest{Filters: []*ec2api.Filter{{Name: "tag:owner", Values: []string{"me"}}}}))(t).Tags
		if len(got) != len(all) {
			t.Errorf("%d tags", len(got))
		}
		if err := s.DeleteTags(ctx, &ec2api.DeleteTagsRequest{Resources: all[:1], Tags: []*ec2api.Tag{{Key: "aws:cloudformation:stack-name"}}}); code(err) != "InvalidParameterValue" {
			t.Errorf("%v", err)
		}
		ok(t, s.DeleteTags(ctx, &ec2api.DeleteTagsRequest{Resources: all, Tags: []*ec2api.Tag{{Key: "owner", Value: "you"}, {Key: "n"}}}))
		got = must(s.DescribeTags(ctx, &ec2api.DescribeTagsRequest{}))(t).Tags
		if len(got) != len(all)+1 {
			t.Errorf("%d tags are left", len(got))
		}
		if v := must(s.DescribeVpcs(ctx, &ec2api.DescribeVpcsRequest{Filters: []*ec2api.Filter{{Name: "tag-key", Values: []string{"aws:cloudformation:*"}}}}))(t).Vpcs; len(v) != 1 {
			t.Errorf("%d VPCs by an aws: tag", len(v))
		}
		w.raze(x)
		if got := must(s.DescribeTags(ctx, &ec2api.DescribeTagsRequest{Filters: []*ec2api.Filter{{Name: "resource-type", Values: []string{"vpc", "subnet", "security-group", "elastic-ip"}}}}))(t).Tags; len(got) != 0 {
			t.Errorf("tags of what is gone: %v", got)
		}
		w.close()
	})
}
