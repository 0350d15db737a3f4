package ec2

import (
	"context"
	"net/netip"
	"slices"
	"strconv"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// CreateSubnet makes a subnet in one zone.
func (s *Service) CreateSubnet(ctx context.Context, in *ec2api.CreateSubnetRequest) (*ec2api.CreateSubnetResult, error) {
	if in.OutpostArn != "" || in.Ipv4IpamPoolId != "" || in.Ipv6IpamPoolId != "" || yes(in.Ipv6Native) {
		return nil, unsupported("outposts, address pools of one's own and IPv6-only subnets")
	}
	zone, err := s.zone(in.AvailabilityZone, in.AvailabilityZoneId)
	if err != nil {
		return nil, err
	}
	p, err := parseCIDR(in.CidrBlock, "InvalidSubnet.Range", "cidrBlock")
	if err != nil {
		return nil, err
	}
	tags, err := tagSpecs(ctx, in.TagSpecifications, "subnet")
	if err != nil {
		return nil, err
	}
	sn := subnet{ID: s.newID("subnet"), VPC: in.VpcId, Zone: zone, CIDR: p.String(), ACLAssoc: s.newID("aclassoc")}
	out := &ec2api.CreateSubnetResult{}
	err = s.update(func(tx *state.Tx) error {
		v, ok := s.vpcs.Get(tx, in.VpcId)
		if !ok {
			return noVPC(in.VpcId)
		}
		if !slices.ContainsFunc(v.CIDRs, func(b block) bool {
			o := netip.MustParsePrefix(b.CIDR)
			return o.Bits() <= p.Bits() && o.Contains(p.Addr())
		}) {
			return wire.Errorf("InvalidSubnet.Range", "The CIDR '%s' is invalid.", in.CidrBlock)
		}
		for _, o := range s.subnets.All(tx) {
			if o.VPC == v.ID && netip.MustParsePrefix(o.CIDR).Overlaps(p) {
				return wire.Errorf("InvalidSubnet.Conflict", "The CIDR '%s' conflicts with another subnet", in.CidrBlock)
			}
		}
		if in.Ipv6CidrBlock != "" {
			b, err := s.subnetV6(tx, v.ID, in.Ipv6CidrBlock)
			if err != nil {
				return err
			}
			sn.V6 = []block{b}
		}
		sn.ACL = v.ACL
		s.subnets.Put(tx, sn.ID, sn)
		s.putTags(tx, "subnet", sn.ID, tags["subnet"])
		out.Subnet = s.subnetView(tx)(sn)
		return dry(in.DryRun)
	})
	if err != nil {
		return nil, err
	}
	if err := s.pushSubnets(ctx, sn.VPC); err != nil {
		undo := s.update(func(tx *state.Tx) error {
			s.subnets.Delete(tx, sn.ID)
			s.tagsOf.Delete(tx, sn.ID)
			return nil
		})
		if undo != nil {
			s.log.Error("a subnet that the network refused stays in the database", "subnet", sn.ID, "error", undo)
		}
		return nil, err
	}
	return out, nil
}

// DeleteSubnet deletes a subnet in which no interface is.
func (s *Service) DeleteSubnet(ctx context.Context, in *ec2api.DeleteSubnetRequest) error {
	var sn subnet
	err := s.update(func(tx *state.Tx) error {
		var ok bool
		if sn, ok = s.subnets.Get(tx, in.SubnetId); !ok {
			return noSubnet(in.SubnetId)
		}
		if len(s.ix.inSubnet[sn.ID]) > 0 {
			return wire.Errorf("DependencyViolation", "The subnet '%s' has dependencies and cannot be deleted.", sn.ID)
		}
		s.subnets.Delete(tx, sn.ID)
		s.tagsOf.Delete(tx, sn.ID)
		return dry(in.DryRun)
	})
	if err != nil {
		return err
	}
	s.ix.mu.Lock()
	delete(s.ix.cursor, sn.ID)
	s.ix.mu.Unlock()
	_ = s.push(ctx, sn.VPC, "remove subnet "+sn.ID, func(ctx context.Context) error { // push logs and retries
		s.net1.mu.Lock()
		delete(s.net1.egress, sn.ID)
		s.net1.mu.Unlock()
		return s.net.RemoveSubnet(ctx, sn.VPC, sn.ID)
	})
	return nil
}

func subnetV6View(b block, state string) *ec2api.SubnetIpv6CidrBlockAssociation {
	return &ec2api.SubnetIpv6CidrBlockAssociation{AssociationId: b.Assoc, Ipv6CidrBlock: b.CIDR, Ipv6CidrBlockState: &ec2api.SubnetCidrBlockState{State: state}, IpSource: "amazon", Ipv6AddressAttribute: "public"}
}

func hostnameType(resource bool) string {
	if resource {
		return "resource-name"
	}
	return "ip-name"
}

func (s *Service) subnetView(tx *state.Tx) func(subnet) *ec2api.Subnet {
	return func(sn subnet) *ec2api.Subnet {
		o := &ec2api.Subnet{
			SubnetId: sn.ID, VpcId: sn.VPC, CidrBlock: sn.CIDR, AvailabilityZone: sn.Zone, AvailabilityZoneId: s.zoneID(sn.Zone),
			AvailableIpAddressCount: new(int64(s.ix.free(sn))), MapPublicIpOnLaunch: new(sn.MapPublic), AssignIpv6AddressOnCreation: new(sn.AssignV6),
			DefaultForAz: new(false), EnableDns64: new(sn.DNS64), Ipv6Native: new(false), MapCustomerOwnedIpOnLaunch: new(false),
			OwnerId: s.cfg.Account, State: "available", SubnetArn: s.arn("subnet", sn.ID), Tags: s.tagList(tx, sn.ID),
			PrivateDnsNameOptionsOnLaunch: &ec2api.PrivateDnsNameOptionsOnLaunch{HostnameType: hostnameType(sn.Resource), EnableResourceNameDnsARecord: new(sn.NameA), EnableResourceNameDnsAAAARecord: new(sn.NameAAAA)},
		}
		for _, b := range sn.V6 {
			o.Ipv6CidrBlockAssociationSet = append(o.Ipv6CidrBlockAssociationSet, subnetV6View(b, "associated"))
		}
		return o
	}
}

func (s *Service) arn(kind, id string) string {
	return "arn:aws:ec2:" + s.cfg.Region + ":" + s.cfg.Account + ":" + kind + "/" + id
}

var subnetFields = filter.Fields[*ec2api.Subnet]{
	Tags: func(v *ec2api.Subnet) []*ec2api.Tag { return v.Tags },
	By: map[string]func(*ec2api.Subnet) []string{
		"subnet-id":               func(v *ec2api.Subnet) []string { return filter.One(v.SubnetId) },
		"subnet-arn":              func(v *ec2api.Subnet) []string { return filter.One(v.SubnetArn) },
		"vpc-id":                  func(v *ec2api.Subnet) []string { return filter.One(v.VpcId) },
		"cidr":                    func(v *ec2api.Subnet) []string { return filter.One(v.CidrBlock) },
		"cidr-block":              func(v *ec2api.Subnet) []string { return filter.One(v.CidrBlock) },
		"cidrBlock":               func(v *ec2api.Subnet) []string { return filter.One(v.CidrBlock) },
		"availability-zone":       func(v *ec2api.Subnet) []string { return filter.One(v.AvailabilityZone) },
		"availabilityZone":        func(v *ec2api.Subnet) []string { return filter.One(v.AvailabilityZone) },
		"availability-zone-id":    func(v *ec2api.Subnet) []string { return filter.One(v.AvailabilityZoneId) },
		"state":                   func(v *ec2api.Subnet) []string { return filter.One(v.State) },
		"owner-id":                func(v *ec2api.Subnet) []string { return filter.One(v.OwnerId) },
		"default-for-az":          func(v *ec2api.Subnet) []string { return filter.Bool(v.DefaultForAz) },
		"map-public-ip-on-launch": func(v *ec2api.Subnet) []string { return filter.Bool(v.MapPublicIpOnLaunch) },
		"available-ip-address-count": func(v *ec2api.Subnet) []string {
			return []string{strconv.FormatInt(*v.AvailableIpAddressCount, 10)}
		},
		"ipv6-cidr-block-association.ipv6-cidr-block": func(v *ec2api.Subnet) (o []string) {
			for _, b := range v.Ipv6CidrBlockAssociationSet {
				o = append(o, b.Ipv6CidrBlock)
			}
			return o
		},
	},
}

// DescribeSubnets lists subnets.
func (s *Service) DescribeSubnets(ctx context.Context, in *ec2api.DescribeSubnetsRequest) (*ec2api.DescribeSubnetsResult, error) {
	out := &ec2api.DescribeSubnetsResult{}
	q := query[ec2api.Subnet]{ids: in.SubnetIds, filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: subnetFields,
		id: func(v *ec2api.Subnet) string { return v.SubnetId }, missing: noSubnet}
	var err error
	s.view(func(tx *state.Tx) { out.Subnets, out.NextToken, err = list(tx, q, s.subnets, s.subnetView(tx)) })
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ModifySubnetAttribute changes what launches in a subnet get.
func (s *Service) ModifySubnetAttribute(ctx context.Context, in *ec2api.ModifySubnetAttributeRequest) error {
	if in.EnableLniAtDeviceIndex != nil || in.CustomerOwnedIpv4Pool != "" || in.MapCustomerOwnedIpOnLaunch != nil || in.DisableLniAtDeviceIndex != nil {
		return unsupported("attributes of outposts")
	}
	return s.update(func(tx *state.Tx) error {
		sn, ok := s.subnets.Get(tx, in.SubnetId)
		if !ok {
			return noSubnet(in.SubnetId)
		}
		n := 0
		set := func(to *bool, x *ec2api.AttributeBooleanValue) {
			if x != nil {
				*to = yes(x.Value)
				n++
			}
		}
		set(&sn.MapPublic, in.MapPublicIpOnLaunch)
		set(&sn.AssignV6, in.AssignIpv6AddressOnCreation)
		set(&sn.DNS64, in.EnableDns64)
		set(&sn.NameA, in.EnableResourceNameDnsARecordOnLaunch)
		set(&sn.NameAAAA, in.EnableResourceNameDnsAAAARecordOnLaunch)
		switch in.PrivateDnsHostnameTypeOnLaunch {
		case "":
		case "ip-name", "resource-name":
			sn.Resource = in.PrivateDnsHostnameTypeOnLaunch == "resource-name"
			n++
		default:
			return wire.Errorf("InvalidParameterValue", "Value (%.64s) for parameter privateDnsHostnameTypeOnLaunch is invalid", in.PrivateDnsHostnameTypeOnLaunch)
		}
		if n != 1 {
			return wire.Errorf("InvalidParameterCombination", "Exactly one attribute must be given, not %d", n)
		}
		if sn.AssignV6 && len(sn.V6) == 0 {
			return wire.Errorf("InvalidParameterValue", "Invalid value 'true' for parameter assignIpv6AddressOnCreation. The subnet has no IPv6 CIDR block associated.")
		}
		s.subnets.Put(tx, sn.ID, sn)
		return nil
	})
}
