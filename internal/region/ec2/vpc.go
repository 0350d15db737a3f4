package ec2

import (
	"context"
	"net/netip"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/permission"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// parseCIDR reads an IPv4 range of EC2's sizes, in canonical form.
func parseCIDR(s, code, param string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, wire.Errorf("MissingParameter", "The request must contain the parameter %s", param)
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() {
		return p, wire.Errorf("InvalidParameterValue", "Value (%.60s) for parameter %s is invalid. This is not a valid CIDR block.", s, param)
	}
	if p.Bits() < 16 || p.Bits() > 28 {
		return p, wire.Errorf(code, "The CIDR '%s' is invalid.", s)
	}
	return p.Masked(), nil
}

// CreateVpc makes a VPC with what every VPC has: a main route table, a network
// ACL and a security group named default.
func (s *Service) CreateVpc(ctx context.Context, in *ec2api.CreateVpcRequest) (*ec2api.CreateVpcResult, error) {
	switch {
	case in.InstanceTenancy != "" && in.InstanceTenancy != "default":
		return nil, unsupported("instance tenancy %q", in.InstanceTenancy)
	case in.Ipv4IpamPoolId != "" || in.Ipv6IpamPoolId != "" || in.Ipv6Pool != "" || in.Ipv6CidrBlock != "":
		return nil, unsupported("address pools of one's own")
	case in.VpcEncryptionControl != nil:
		return nil, unsupported("VPC encryption controls")
	}
	p, err := parseCIDR(in.CidrBlock, "InvalidVpc.Range", "cidrBlock")
	if err != nil {
		return nil, err
	}
	tags, err := tagSpecs(ctx, in.TagSpecifications, "vpc")
	if err != nil {
		return nil, err
	}
	v := vpc{
		ID: s.newID("vpc"), CIDRs: []block{{s.newID("vpc-cidr-assoc"), p.String()}}, DNSSupport: true,
		MainTable: s.newID("rtb"), Group: s.newID("sg"), ACL: s.newID("acl"),
	}
	out := &ec2api.CreateVpcResult{}
	err = s.update(func(tx *state.Tx) error {
		if q := s.cfg.Quota.VPCs; q > 0 && s.vpcs.Len(tx) >= q {
			return wire.Errorf("VpcLimitExceeded", "The maximum number of VPCs has been reached.")
		}
		v.DHCP = s.defaultDHCP(tx)
		if yes(in.AmazonProvidedIpv6CidrBlock) {
			v.V6 = []block{{s.newID("vpc-cidr-assoc"), s.freeV6(tx)}}
		}
		s.vpcs.Put(tx, v.ID, v)
		s.routes.Put(tx, v.MainTable, routeTable{ID: v.MainTable, VPC: v.ID, MainAssoc: s.newID("rtbassoc")})
		s.acls.Put(tx, v.ACL, acl{ID: v.ACL, VPC: v.ID, Default: true, Entries: allowAll()})
		s.putGroup(tx, group{ID: v.Group, VPC: v.ID, Name: "default", Description: "default VPC security group", Rules: []permission.Rule{
			{ID: s.newID("sgr"), Protocol: "-1", From: -1, To: -1, Group: v.Group},
			s.openEgress(),
		}})
		s.putTags(tx, "vpc", v.ID, tags["vpc"])
		out.Vpc = s.vpcView(tx)(v)
		out.Vpc.State = "pending"
		return dry(in.DryRun)
	})
	if err != nil {
		return nil, err
	}
	if err := s.pushVPC(ctx, v.ID); err == nil {
		err = s.pushGroup(ctx, v.ID, v.Group)
		if err == nil {
			return out, nil
		}
		s.undoVPC(ctx, v)
		return nil, err
	} else {
		s.undoVPC(ctx, v)
		return nil, err
	}
}

func (s *Service) openEgress() permission.Rule {
	return permission.Rule{ID: s.newID("sgr"), Egress: true, Protocol: "-1", From: -1, To: -1, CIDR: "0.0.0.0/0"}
}

// undoVPC takes back a VPC that the network refused.
func (s *Service) undoVPC(ctx context.Context, v vpc) {
	s.forget("vpc " + v.ID)
	s.forget("group " + v.Group)
	if err := s.update(func(tx *state.Tx) error { s.dropVPC(tx, v); return nil }); err != nil {
		s.log.Error("a VPC that failed stays in the database", "vpc", v.ID, "error", err)
		return
	}
	s.removeVPC(ctx, v)
}

func (s *Service) dropVPC(tx *state.Tx, v vpc) {
	s.vpcs.Delete(tx, v.ID)
	s.routes.Delete(tx, v.MainTable)
	s.acls.Delete(tx, v.ACL)
	s.deleteGroup(tx, v.Group)
	for _, id := range []string{v.ID, v.MainTable, v.ACL} {
		s.tagsOf.Delete(tx, id)
	}
}

// removeVPC takes a VPC whose record is gone out of the network.
func (s *Service) removeVPC(ctx context.Context, v vpc) {
	_ = s.push(ctx, v.ID, "remove vpc "+v.ID, func(ctx context.Context) error { // push logs and retries
		if err := s.net.RemoveGroup(ctx, v.ID, v.Group); err != nil {
			return err
		}
		return s.net.RemoveVPC(ctx, v.ID)
	})
}

// DeleteVpc deletes an empty VPC.
func (s *Service) DeleteVpc(ctx context.Context, in *ec2api.DeleteVpcRequest) error {
	var v vpc
	err := s.update(func(tx *state.Tx) error {
		var ok bool
		if v, ok = s.vpcs.Get(tx, in.VpcId); !ok {
			return noVPC(in.VpcId)
		}
		if s.vpcInUse(tx, v) {
			return wire.Errorf("DependencyViolation", "The vpc '%s' has dependencies and cannot be deleted.", v.ID)
		}
		s.dropVPC(tx, v)
		return dry(in.DryRun)
	})
	if err != nil {
		return err
	}
	s.forget("vpc " + v.ID)
	s.forget("group " + v.Group)
	s.forget("subnets of " + v.ID)
	s.removeVPC(ctx, v)
	return nil
}

func (s *Service) vpcInUse(tx *state.Tx, v vpc) bool {
	for _, x := range s.subnets.All(tx) {
		if x.VPC == v.ID {
			return true
		}
	}
	for _, x := range s.igws.All(tx) {
		if x.VPC == v.ID {
			return true
		}
	}
	for _, x := range s.eigws.All(tx) {
		if x.VPC == v.ID {
			return true
		}
	}
	for _, x := range s.groups.All(tx) {
		if x.VPC == v.ID && x.ID != v.Group {
			return true
		}
	}
	for _, x := range s.routes.All(tx) {
		if x.VPC == v.ID && x.ID != v.MainTable {
			return true
		}
	}
	for _, x := range s.acls.All(tx) {
		if x.VPC == v.ID && !x.Default {
			return true
		}
	}
	return false
}

func (s *Service) vpcView(tx *state.Tx) func(vpc) *ec2api.Vpc {
	return func(v vpc) *ec2api.Vpc {
		o := &ec2api.Vpc{VpcId: v.ID, CidrBlock: v.CIDRs[0].CIDR, DhcpOptionsId: v.DHCP, InstanceTenancy: "default", IsDefault: new(false),
			OwnerId: s.cfg.Account, State: "available", Tags: s.tagList(tx, v.ID)}
		for _, b := range v.CIDRs {
			o.CidrBlockAssociationSet = append(o.CidrBlockAssociationSet, &ec2api.VpcCidrBlockAssociation{AssociationId: b.Assoc, CidrBlock: b.CIDR, CidrBlockState: &ec2api.VpcCidrBlockState{State: "associated"}})
		}
		for _, b := range v.V6 {
			o.Ipv6CidrBlockAssociationSet = append(o.Ipv6CidrBlockAssociationSet, s.vpcV6View(b, "associated"))
		}
		return o
	}
}

func (s *Service) vpcV6View(b block, state string) *ec2api.VpcIpv6CidrBlockAssociation {
	return &ec2api.VpcIpv6CidrBlockAssociation{AssociationId: b.Assoc, Ipv6CidrBlock: b.CIDR, Ipv6CidrBlockState: &ec2api.VpcCidrBlockState{State: state},
		Ipv6Pool: "Amazon", NetworkBorderGroup: s.cfg.Region, IpSource: "amazon", Ipv6AddressAttribute: "public"}
}

var vpcFields = filter.Fields[*ec2api.Vpc]{
	Tags: func(v *ec2api.Vpc) []*ec2api.Tag { return v.Tags },
	By: map[string]func(*ec2api.Vpc) []string{
		"vpc-id":          func(v *ec2api.Vpc) []string { return filter.One(v.VpcId) },
		"cidr":            func(v *ec2api.Vpc) []string { return filter.One(v.CidrBlock) },
		"cidr-block":      func(v *ec2api.Vpc) []string { return filter.One(v.CidrBlock) },
		"dhcp-options-id": func(v *ec2api.Vpc) []string { return filter.One(v.DhcpOptionsId) },
		"is-default":      func(v *ec2api.Vpc) []string { return filter.Bool(v.IsDefault) },
		"isDefault":       func(v *ec2api.Vpc) []string { return filter.Bool(v.IsDefault) },
		"owner-id":        func(v *ec2api.Vpc) []string { return filter.One(v.OwnerId) },
		"state":           func(v *ec2api.Vpc) []string { return filter.One(v.State) },
		"cidr-block-association.cidr-block": func(v *ec2api.Vpc) (o []string) {
			for _, b := range v.CidrBlockAssociationSet {
				o = append(o, b.CidrBlock)
			}
			return o
		},
		"cidr-block-association.association-id": func(v *ec2api.Vpc) (o []string) {
			for _, b := range v.CidrBlockAssociationSet {
				o = append(o, b.AssociationId)
			}
			return o
		},
		"cidr-block-association.state": func(*ec2api.Vpc) []string { return []string{"associated"} },
		"ipv6-cidr-block-association.ipv6-cidr-block": func(v *ec2api.Vpc) (o []string) {
			for _, b := range v.Ipv6CidrBlockAssociationSet {
				o = append(o, b.Ipv6CidrBlock)
			}
			return o
		},
		"ipv6-cidr-block-association.association-id": func(v *ec2api.Vpc) (o []string) {
			for _, b := range v.Ipv6CidrBlockAssociationSet {
				o = append(o, b.AssociationId)
			}
			return o
		},
	},
}

// DescribeVpcs lists VPCs.
func (s *Service) DescribeVpcs(ctx context.Context, in *ec2api.DescribeVpcsRequest) (*ec2api.DescribeVpcsResult, error) {
	out := &ec2api.DescribeVpcsResult{}
	q := query[ec2api.Vpc]{ids: in.VpcIds, filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: vpcFields,
		id: func(v *ec2api.Vpc) string { return v.VpcId }, missing: noVPC}
	var err error
	s.view(func(tx *state.Tx) {
		out.Vpcs, out.NextToken, err = list(tx, q, s.vpcs, s.vpcView(tx))
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ModifyVpcAttribute switches the DNS of a VPC.
func (s *Service) ModifyVpcAttribute(ctx context.Context, in *ec2api.ModifyVpcAttributeRequest) error {
	return s.update(func(tx *state.Tx) error {
		v, ok := s.vpcs.Get(tx, in.VpcId)
		if !ok {
			return noVPC(in.VpcId)
		}
		n := 0
		set := func(to *bool, x *ec2api.AttributeBooleanValue) {
			if x != nil {
				*to = yes(x.Value)
				n++
			}
		}
		set(&v.DNSSupport, in.EnableDnsSupport)
		set(&v.DNSHostnames, in.EnableDnsHostnames)
		set(&v.Metrics, in.EnableNetworkAddressUsageMetrics)
		if n != 1 {
			return wire.Errorf("InvalidParameterCombination", "Exactly one attribute must be given, not %d", n)
		}
		s.vpcs.Put(tx, v.ID, v)
		return nil
	})
}

// DescribeVpcAttribute tells one attribute of a VPC.
func (s *Service) DescribeVpcAttribute(ctx context.Context, in *ec2api.DescribeVpcAttributeRequest) (*ec2api.DescribeVpcAttributeResult, error) {
	var v vpc
	var ok bool
	s.view(func(tx *state.Tx) { v, ok = s.vpcs.Get(tx, in.VpcId) })
	if !ok {
		return nil, noVPC(in.VpcId)
	}
	if err := dry(in.DryRun); err != nil {
		return nil, err
	}
	out := &ec2api.DescribeVpcAttributeResult{VpcId: v.ID}
	switch in.Attribute {
	case "enableDnsSupport":
		out.EnableDnsSupport = &ec2api.AttributeBooleanValue{Value: new(v.DNSSupport)}
	case "enableDnsHostnames":
		out.EnableDnsHostnames = &ec2api.AttributeBooleanValue{Value: new(v.DNSHostnames)}
	case "enableNetworkAddressUsageMetrics":
		out.EnableNetworkAddressUsageMetrics = &ec2api.AttributeBooleanValue{Value: new(v.Metrics)}
	default:
		return nil, wire.Errorf("InvalidParameterValue", "Value (%.64s) for parameter attribute is invalid. Unknown attribute.", in.Attribute)
	}
	return out, nil
}
