package ec2

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	hypersim "github.com/dayfly-infra/dayfly/internal/region/hypervisor/sim"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// The codes that clients decide by, each by the call that earns it.
func TestErrorCodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config, _ *hypersim.Config) { c.Quota = Quota{VCPUs: 8, Instances: 5, VPCs: 2, Addresses: 2} })
		x, s, ctx := w.site("10.0.0.0/16"), w.s, w.ctx
		other := must(s.CreateVpc(ctx, &ec2api.CreateVpcRequest{CidrBlock: "10.0.0.0/16"}))(t).Vpc.VpcId // the same range again
		foreign := must(s.CreateSecurityGroup(ctx, &ec2api.CreateSecurityGroupRequest{VpcId: other, GroupName: "web", Description: "x"}))(t).GroupId
		id := w.run(x.public, 1, func(in *ec2api.RunInstancesRequest) {
			in.SecurityGroupIds = []string{x.group}
			in.DisableApiTermination = new(true)
		})[0]
		w.await(running, id)
		const gone17 = "0123456789abcdef0"
		tcp := func(port int64, cidr string) []*ec2api.IpPermission {
			return []*ec2api.IpPermission{{IpProtocol: "tcp", FromPort: new(port), ToPort: new(port), IpRanges: []*ec2api.IpRange{{CidrIp: cidr}}}}
		}
		must(s.AuthorizeSecurityGroupIngress(ctx, &ec2api.AuthorizeSecurityGroupIngressRequest{GroupId: x.group, IpPermissions: tcp(80, "0.0.0.0/0")}))(t)
		launch := func(f func(*ec2api.RunInstancesRequest)) func() error {
			return func() error {
				in := &ec2api.RunInstancesRequest{ImageId: baseAMI, InstanceType: "t3.micro", SubnetId: x.public, MinCount: new(int64(1)), MaxCount: new(int64(1))}
				f(in)
				_, err := s.RunInstances(ctx, in)
				return err
			}
		}
		for _, c := range []struct {
			name, code string
			call       func() error
		}{
			{"VPC too large", "InvalidVpc.Range", func() error {
				_, err := s.CreateVpc(ctx, &ec2api.CreateVpcRequest{CidrBlock: "10.0.0.0/8"})
				return err
			}},
			{"VPC not a range", "InvalidParameterValue", func() error { _, err := s.CreateVpc(ctx, &ec2api.CreateVpcRequest{CidrBlock: "10.0.0.0"}); return err }},
			{"VPC too many", "VpcLimitExceeded", func() error {
				_, err := s.CreateVpc(ctx, &ec2api.CreateVpcRequest{CidrBlock: "198.18.0.0/16"})
				return err
			}},
			{"VPC unknown", "InvalidVpcID.NotFound", func() error { return s.DeleteVpc(ctx, &ec2api.DeleteVpcRequest{VpcId: "vpc-" + gone17}) }},
			{"VPC in use", "DependencyViolation", func() error { return s.DeleteVpc(ctx, &ec2api.DeleteVpcRequest{VpcId: x.vpc}) }},
			{"VPC attribute", "InvalidParameterCombination", func() error { return s.ModifyVpcAttribute(ctx, &ec2api.ModifyVpcAttributeRequest{VpcId: x.vpc}) }},
			{"tenancy", "UnsupportedOperation", func() error {
				_, err := s.CreateVpc(ctx, &ec2api.CreateVpcRequest{CidrBlock: "10.1.0.0/16", InstanceTenancy: "dedicated"})
				return err
			}},
			{"subnet overlaps", "InvalidSubnet.Conflict", func() error {
				_, err := s.CreateSubnet(ctx, &ec2api.CreateSubnetRequest{VpcId: x.vpc, CidrBlock: "10.0.0.128/25"})
				return err
			}},
			{"subnet outside", "InvalidSubnet.Range", func() error {
				_, err := s.CreateSubnet(ctx, &ec2api.CreateSubnetRequest{VpcId: x.vpc, CidrBlock: "10.1.0.0/24"})
				return err
			}},
			{"subnet zone", "InvalidParameterValue", func() error {
				_, err := s.CreateSubnet(ctx, &ec2api.CreateSubnetRequest{VpcId: x.vpc, CidrBlock: "10.0.9.0/24", AvailabilityZone: "local-1z"})
				return err
			}},
			{"subnet in use", "DependencyViolation", func() error { return s.DeleteSubnet(ctx, &ec2api.DeleteSubnetRequest{SubnetId: x.public}) }},
			{"subnet unknown", "InvalidSubnetID.NotFound", launch(func(in *ec2api.RunInstancesRequest) { in.SubnetId = "subnet-" + gone17 })},
			{"IGW twice", "Resource.AlreadyAssociated", func() error {
				return s.AttachInternetGateway(ctx, &ec2api.AttachInternetGatewayRequest{VpcId: other, InternetGatewayId: x.igw})
			}},
			{"IGW with mapped addresses", "DependencyViolation", func() error {
				return s.DetachInternetGateway(ctx, &ec2api.DetachInternetGatewayRequest{VpcId: x.vpc, InternetGatewayId: x.igw})
			}},
			{"IGW attached", "DependencyViolation", func() error {
				return s.DeleteInternetGateway(ctx, &ec2api.DeleteInternetGatewayRequest{InternetGatewayId: x.igw})
			}},
			{"IGW not attached there", "Gateway.NotAttached", func() error {
				return s.DetachInternetGateway(ctx, &ec2api.DetachInternetGatewayRequest{VpcId: other, InternetGatewayId: x.igw})
			}},
			{"address in use", "InvalidIPAddress.InUse", func() error { return s.ReleaseAddress(ctx, &ec2api.ReleaseAddressRequest{AllocationId: x.eip}) }},
			{"address unknown", "InvalidAllocationID.NotFound", func() error { return s.ReleaseAddress(ctx, &ec2api.ReleaseAddressRequest{AllocationId: "eipalloc-1"}) }},
			{"NAT without gateway", "InvalidAllocationID.NotFound", func() error {
				_, err := s.CreateNatGateway(ctx, &ec2api.CreateNatGatewayRequest{SubnetId: x.public, AllocationId: "eipalloc-1"})
				return err
			}},
			{"NAT unknown", "NatGatewayNotFound", func() error {
				_, err := s.DeleteNatGateway(ctx, &ec2api.DeleteNatGatewayRequest{NatGatewayId: "nat-1"})
				return err
			}},
			{"route there already", "RouteAlreadyExists", func() error {
				_, err := s.CreateRoute(ctx, &ec2api.CreateRouteRequest{RouteTableId: x.publicTable, DestinationCidrBlock: "0.0.0.0/0", NatGatewayId: x.nat})
				return err
			}},
			{"route not default", "UnsupportedOperation", func() error {
				_, err := s.CreateRoute(ctx, &ec2api.CreateRouteRequest{RouteTableId: x.publicTable, DestinationCidrBlock: "192.168.0.0/16", GatewayId: x.igw})
				return err
			}},
			{"route unknown", "InvalidRoute.NotFound", func() error {
				return s.DeleteRoute(ctx, &ec2api.DeleteRouteRequest{RouteTableId: x.publicTable, DestinationCidrBlock: "1.0.0.0/8"})
			}},
			{"route table in use", "DependencyViolation", func() error {
				return s.DeleteRouteTable(ctx, &ec2api.DeleteRouteTableRequest{RouteTableId: x.publicTable})
			}},
			{"route table unknown", "InvalidRouteTableID.NotFound", func() error { return s.DeleteRouteTable(ctx, &ec2api.DeleteRouteTableRequest{RouteTableId: "rtb-1"}) }},
			{"second table for a subnet", "Resource.AlreadyAssociated", func() error {
				_, err := s.AssociateRouteTable(ctx, &ec2api.AssociateRouteTableRequest{SubnetId: x.public, RouteTableId: x.privateTable})
				return err
			}},
			{"association unknown", "InvalidAssociationID.NotFound", func() error {
				return s.DisassociateRouteTable(ctx, &ec2api.DisassociateRouteTableRequest{AssociationId: "rtbassoc-1"})
			}},
			{"group name taken", "InvalidGroup.Duplicate", func() error {
				_, err := s.CreateSecurityGroup(ctx, &ec2api.CreateSecurityGroupRequest{VpcId: x.vpc, GroupName: "web", Description: "x"})
				return err
			}},
			{"group in use", "DependencyViolation", func() error {
				_, err := s.DeleteSecurityGroup(ctx, &ec2api.DeleteSecurityGroupRequest{GroupId: x.group})
				return err
			}},
			{"group malformed", "InvalidGroupId.Malformed", func() error {
				_, err := s.DeleteSecurityGroup(ctx, &ec2api.DeleteSecurityGroupRequest{GroupId: "web"})
				return err
			}},
			{"group unknown", "InvalidGroup.NotFound", func() error {
				_, err := s.DeleteSecurityGroup(ctx, &ec2api.DeleteSecurityGroupRequest{GroupId: "sg-" + gone17})
				return err
			}},
			{"group of another VPC", "InvalidParameter", launch(func(in *ec2api.RunInstancesRequest) { in.SecurityGroupIds = []string{foreign} })},
			{"rule there already", "InvalidPermission.Duplicate", func() error {
				_, err := s.AuthorizeSecurityGroupIngress(ctx, &ec2api.AuthorizeSecurityGroupIngressRequest{GroupId: x.group, IpPermissions: tcp(80, "0.0.0.0/0")})
				return err
			}},
			{"rule not there", "InvalidPermission.NotFound", func() error {
				_, err := s.RevokeSecurityGroupIngress(ctx, &ec2api.RevokeSecurityGroupIngressRequest{GroupId: x.group, IpPermissions: tcp(81, "0.0.0.0/0")})
				return err
			}},
			{"rule id not there", "InvalidSecurityGroupRuleId.NotFound", func() error {
				_, err := s.RevokeSecurityGroupIngress(ctx, &ec2api.RevokeSecurityGroupIngressRequest{GroupId: x.group, SecurityGroupRuleIds: []string{"sgr-1"}})
				return err
			}},
			{"image malformed", "InvalidAMIID.Malformed", launch(func(in *ec2api.RunInstancesRequest) { in.ImageId = "debian" })},
			{"image unknown", "InvalidAMIID.NotFound", launch(func(in *ec2api.RunInstancesRequest) { in.ImageId = "ami-" + gone17 })},
			{"type unknown", "InvalidParameterValue", launch(func(in *ec2api.RunInstancesRequest) { in.InstanceType = "t4g.micro" })},
			{"key pair", "InvalidKeyPair.NotFound", launch(func(in *ec2api.RunInstancesRequest) { in.KeyName = "mine" })},
			{"profile unknown", "InvalidParameterValue", launch(func(in *ec2api.RunInstancesRequest) {
				in.IamInstanceProfile = &ec2api.IamInstanceProfileSpecification{Name: "db"}
			})},
			{"counts", "InvalidParameterValue", launch(func(in *ec2api.RunInstancesRequest) { in.MinCount = new(int64(2)) })},
			{"no subnet", "VPCIdNotSpecified", launch(func(in *ec2api.RunInstancesRequest) { in.SubnetId = "" })},
			{"user data too long", "InvalidParameterValue", launch(func(in *ec2api.RunInstancesRequest) { in.UserData = strings.Repeat("AAAA", 6000) })},
			{"user data not base64", "InvalidUserData.Malformed", launch(func(in *ec2api.RunInstancesRequest) { in.UserData = "#!/bin/sh" })},
			{"address taken", "InvalidIPAddress.InUse", launch(func(in *ec2api.RunInstancesRequest) { in.PrivateIpAddress = "10.0.0.5" })},
			{"address reserved", "InvalidParameterValue", launch(func(in *ec2api.RunInstancesRequest) { in.PrivateIpAddress = "10.0.0.1" })},
			{"vCPUs", "VcpuLimitExceeded", launch(func(in *ec2api.RunInstancesRequest) { in.InstanceType = "m5.2xlarge" })},
			{"instances", "InstanceLimitExceeded", launch(func(in *ec2api.RunInstancesRequest) { in.MinCount, in.MaxCount = new(int64(5)), new(int64(5)) })},
			{"spot", "UnsupportedOperation", launch(func(in *ec2api.RunInstancesRequest) {
				in.InstanceMarketOptions = &ec2api.InstanceMarketOptionsRequest{MarketType: "spot"}
			})},
			{"aws tag", "InvalidParameterValue", launch(func(in *ec2api.RunInstancesRequest) {
				in.TagSpecifications = []*ec2api.TagSpecification{{ResourceType: "instance", Tags: []*ec2api.Tag{{Key: "aws:x", Value: "y"}}}}
			})},
			{"tag kind", "InvalidParameterValue", launch(func(in *ec2api.RunInstancesRequest) {
				in.TagSpecifications = []*ec2api.TagSpecification{{ResourceType: "vpc"}}
			})},
			{"dry run", "DryRunOperation", launch(func(in *ec2api.RunInstancesRequest) { in.DryRun = new(true) })},
			{"instance malformed", "InvalidInstanceID.Malformed", func() error {
				_, err := s.TerminateInstances(ctx, &ec2api.TerminateInstancesRequest{InstanceIds: []string{"i-xyz"}})
				return err
			}},
			{"protected", "OperationNotPermitted", func() error {
				_, err := s.TerminateInstances(ctx, &ec2api.TerminateInstancesRequest{InstanceIds: []string{id}})
				return err
			}},
			{"start of a stopping one", "InvalidInstanceID.NotFound", func() error {
				_, err := s.StartInstances(ctx, &ec2api.StartInstancesRequest{InstanceIds: []string{id, "i-" + gone17}})
				return err
			}},
			{"image without reboot", "UnsupportedOperation", func() error {
				_, err := s.CreateImage(ctx, &ec2api.CreateImageRequest{InstanceId: id, Name: "web", NoReboot: new(true)})
				return err
			}},
			{"image name", "InvalidAMIName.Malformed", func() error {
				_, err := s.CreateImage(ctx, &ec2api.CreateImageRequest{InstanceId: id, Name: "w"})
				return err
			}},
			{"image of others", "AuthFailure", func() error {
				_, err := s.DeregisterImage(ctx, &ec2api.DeregisterImageRequest{ImageId: baseAMI})
				return err
			}},
			{"snapshot unknown", "InvalidSnapshot.NotFound", func() error { return s.DeleteSnapshot(ctx, &ec2api.DeleteSnapshotRequest{SnapshotId: "snap-1"}) }},
			{"template unknown", "InvalidLaunchTemplateName.NotFoundException", launch(func(in *ec2api.RunInstancesRequest) {
				in.LaunchTemplate = &ec2api.LaunchTemplateSpecification{LaunchTemplateName: "none"}
			})},
			{"template id unknown", "InvalidLaunchTemplateId.NotFound", func() error {
				_, err := s.DeleteLaunchTemplate(ctx, &ec2api.DeleteLaunchTemplateRequest{LaunchTemplateId: "lt-1"})
				return err
			}},
			{"filter unknown", "InvalidParameterValue", func() error {
				_, err := s.DescribeVpcs(ctx, &ec2api.DescribeVpcsRequest{Filters: []*ec2api.Filter{{Name: "colour", Values: []string{"red"}}}})
				return err
			}},
			{"page too small", "InvalidParameterValue", func() error {
				_, err := s.DescribeVpcs(ctx, &ec2api.DescribeVpcsRequest{MaxResults: new(int64(1))})
				return err
			}},
			{"token broken", "InvalidNextToken", func() error { _, err := s.DescribeVpcs(ctx, &ec2api.DescribeVpcsRequest{NextToken: "x"}); return err }},
			{"tag of nothing", "InvalidID", func() error {
				return s.CreateTags(ctx, &ec2api.CreateTagsRequest{Resources: []string{"thing-1"}, Tags: []*ec2api.Tag{{Key: "a"}}})
			}},
			{"aws tag later", "InvalidParameterValue", func() error {
				return s.CreateTags(ctx, &ec2api.CreateTagsRequest{Resources: []string{x.vpc}, Tags: []*ec2api.Tag{{Key: "aws:a"}}})
			}},
			{"too many tags", "TagLimitExceeded", func() error {
				in := &ec2api.CreateTagsRequest{Resources: []string{x.vpc}}
				for i := range 51 {
					in.Tags = append(in.Tags, &ec2api.Tag{Key: strings.Repeat("k", i+1)})
				}
				return s.CreateTags(ctx, in)
			}},
			{"ACL that denies", "UnsupportedOperation", func() error {
				return s.CreateNetworkAclEntry(ctx, &ec2api.CreateNetworkAclEntryRequest{NetworkAclId: "acl-1", RuleNumber: new(int64(1)), Protocol: "-1", RuleAction: "deny", CidrBlock: "0.0.0.0/0"})
			}},
			{"DHCP of one's own", "UnsupportedOperation", func() error {
				_, err := s.CreateDhcpOptions(ctx, &ec2api.CreateDhcpOptionsRequest{DhcpConfigurations: []*ec2api.NewDhcpConfiguration{{Key: "domain-name-servers", Values: []string{"8.8.8.8"}}}})
				return err
			}},
			{"default group", "CannotDelete", func() error {
				v, _ := s.DescribeSecurityGroups(ctx, &ec2api.DescribeSecurityGroupsRequest{Filters: []*ec2api.Filter{{Name: "group-name", Values: []string{"default"}}}})
				_, err := s.DeleteSecurityGroup(ctx, &ec2api.DeleteSecurityGroupRequest{GroupId: v.SecurityGroups[0].GroupId})
				return err
			}},
		} {
			err := c.call()
			if code(err) != c.code {
				t.Errorf("%s: %v, want %s", c.name, err, c.code)
			}
			if e, isErr := err.(*wire.Error); isErr && (e.Code == "DryRunOperation") != (e.Status == http.StatusPreconditionFailed) {
				t.Errorf("%s: status %d", c.name, e.Status)
			}
		}
		if n := len(must(s.DescribeInstances(ctx, &ec2api.DescribeInstancesRequest{}))(t).Reservations); n != 1 {
			t.Errorf("%d reservations: a call that failed has left something", n)
		}
		ok(t, s.ModifyInstanceAttribute(ctx, &ec2api.ModifyInstanceAttributeRequest{InstanceId: id, DisableApiTermination: &ec2api.AttributeBooleanValue{Value: new(false)}}))
		w.terminate(id)
		must(s.DeleteSecurityGroup(ctx, &ec2api.DeleteSecurityGroupRequest{GroupId: foreign}))(t)
		ok(t, s.DeleteVpc(ctx, &ec2api.DeleteVpcRequest{VpcId: other}))
		w.raze(x)
		w.close()
	})
}

// A subnet gives its addresses, one launch takes what there is between its
// least and most, and the next gets none.
func TestSubnetRunsDry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		x := w.site("10.0.0.0/16")
		small := must(w.s.CreateSubnet(w.ctx, &ec2api.CreateSubnetRequest{VpcId: x.vpc, CidrBlock: "10.0.8.0/28"}))(t).Subnet.SubnetId
		ids := w.run(small, 1, func(in *ec2api.RunInstancesRequest) { in.MaxCount = new(int64(50)) })
		if len(ids) != 11 { // 16 less the five that AWS keeps
			t.Errorf("%d launched", len(ids))
		}
		_, err := w.s.RunInstances(w.ctx, &ec2api.RunInstancesRequest{ImageId: baseAMI, InstanceType: "t3.micro", SubnetId: small, MinCount: new(int64(1)), MaxCount: new(int64(1))})
		if code(err) != "InsufficientFreeAddressesInSubnet" {
			t.Errorf("%v", err)
		}
		seen := map[string]bool{}
		for _, id := range ids {
			seen[w.describe(id).PrivateIpAddress] = true
		}
		if len(seen) != 11 || seen["10.0.8.15"] || seen["10.0.8.3"] {
			t.Errorf("%v", seen)
		}
		w.await(running, ids...)
		w.terminate(ids...)
		ok(t, w.s.DeleteSubnet(w.ctx, &ec2api.DeleteSubnetRequest{SubnetId: small}))
		w.raze(x)
		w.close()
	})
}
