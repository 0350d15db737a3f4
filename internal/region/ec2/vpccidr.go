package ec2

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// freeV6 finds a /56 of the documentation prefix that no VPC has. The ranges
// are there so that templates which ask for one work; no packet ever has an
// address of it.
func (s *Service) freeV6(tx *state.Tx) string {
	used := map[string]bool{}
	for _, v := range s.vpcs.All(tx) {
		for _, b := range v.V6 {
			used[b.CIDR] = true
		}
	}
	for i := 1; ; i++ {
		a := netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i >> 16), byte(i >> 8), byte(i)})
		if c := fmt.Sprintf("%s/56", a); !used[c] {
			return c
		}
	}
}

// AssociateVpcCidrBlock gives a VPC a further IPv4 range or an IPv6 one.
func (s *Service) AssociateVpcCidrBlock(ctx context.Context, in *ec2api.AssociateVpcCidrBlockRequest) (*ec2api.AssociateVpcCidrBlockResult, error) {
	switch {
	case in.Ipv4IpamPoolId != "" || in.Ipv6IpamPoolId != "" || in.Ipv6Pool != "" || in.Ipv6CidrBlock != "":
		return nil, unsupported("address pools of one's own")
	case yes(in.AmazonProvidedIpv6CidrBlock) == (in.CidrBlock != ""):
		return nil, wire.Errorf("InvalidParameterCombination", "Either amazonProvidedIpv6CidrBlock or cidrBlock must be given")
	}
	out := &ec2api.AssociateVpcCidrBlockResult{VpcId: in.VpcId}
	b := block{Assoc: s.newID("vpc-cidr-assoc")}
	v4 := in.CidrBlock != ""
	err := s.update(func(tx *state.Tx) error {
		v, ok := s.vpcs.Get(tx, in.VpcId)
		if !ok {
			return noVPC(in.VpcId)
		}
		if !v4 {
			if len(v.V6) > 0 {
				return wire.Errorf("CidrLimitExceeded", "This network '%s' has met its maximum number of allowed CIDRs: 1", v.ID)
			}
			b.CIDR = s.freeV6(tx)
			v.V6 = []block{b}
			out.Ipv6CidrBlockAssociation = s.vpcV6View(b, "associating")
			s.vpcs.Put(tx, v.ID, v)
			return nil
		}
		p, err := parseCIDR(in.CidrBlock, "InvalidVpc.Range", "cidrBlock")
		if err != nil {
			return err
		}
		if len(v.CIDRs) >= 5 {
			return wire.Errorf("CidrLimitExceeded", "This network '%s' has met its maximum number of allowed CIDRs: 5", v.ID)
		}
		for _, o := range v.CIDRs {
			if netip.MustParsePrefix(o.CIDR).Overlaps(p) {
				return wire.Errorf("InvalidVpc.Range", "The CIDR '%s' conflicts with %s of the VPC.", p, o.CIDR)
			}
		}
		b.CIDR = p.String()
		v.CIDRs = append(slices.Clone(v.CIDRs), b)
		out.CidrBlockAssociation = &ec2api.VpcCidrBlockAssociation{AssociationId: b.Assoc, CidrBlock: b.CIDR, CidrBlockState: &ec2api.VpcCidrBlockState{State: "associating"}}
		s.vpcs.Put(tx, v.ID, v)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !v4 {
		return out, nil
	}
	if err := s.pushVPC(ctx, in.VpcId); err != nil {
		s.forget("vpc " + in.VpcId)
		undo := s.update(func(tx *state.Tx) error {
			if v, ok := s.vpcs.Get(tx, in.VpcId); ok {
				v.CIDRs = without(v.CIDRs, b.Assoc)
				s.vpcs.Put(tx, v.ID, v)
			}
			return nil
		})
		if undo != nil {
			s.log.Error("a range that the network refused stays in the database", "vpc", in.VpcId, "error", undo)
		}
		return nil, err
	}
	return out, nil
}

func without(bs []block, assoc string) []block {
	return slices.DeleteFunc(slices.Clone(bs), func(b block) bool { return b.Assoc == assoc })
}

// DisassociateVpcCidrBlock takes a range away in which no subnet is.
func (s *Service) DisassociateVpcCidrBlock(ctx context.Context, in *ec2api.DisassociateVpcCidrBlockRequest) (*ec2api.DisassociateVpcCidrBlockResult, error) {
	out := &ec2api.DisassociateVpcCidrBlockResult{}
	v4 := false
	err := s.update(func(tx *state.Tx) error {
		for _, v := range s.vpcs.All(tx) {
			for i, b := range v.CIDRs {
				if b.Assoc != in.AssociationId {
					continue
				}
				if i == 0 {
					return wire.Errorf("OperationNotPermitted", "The vpc CIDR block with association ID %s may not be disassociated. It is the primary IPv4 CIDR block of the VPC", b.Assoc)
				}
				for _, sn := range s.subnets.All(tx) {
					if sn.VPC == v.ID && netip.MustParsePrefix(b.CIDR).Overlaps(netip.MustParsePrefix(sn.CIDR)) {
						return wire.Errorf("InvalidCidrBlock.InUse", "The vpc currently has a subnet within CIDR block %s", b.CIDR)
					}
				}
				v.CIDRs, v4 = without(v.CIDRs, b.Assoc), true
				out.VpcId = v.ID
				out.CidrBlockAssociation = &ec2api.VpcCidrBlockAssociation{AssociationId: b.Assoc, CidrBlock: b.CIDR, CidrBlockState: &ec2api.VpcCidrBlockState{State: "disassociating"}}
				s.vpcs.Put(tx, v.ID, v)
				return nil
			}
			for _, b := range v.V6 {
				if b.Assoc != in.AssociationId {
					continue
				}
				for _, sn := range s.subnets.All(tx) {
					if sn.VPC == v.ID && len(sn.V6) > 0 {
						return wire.Errorf("InvalidCidrBlock.InUse", "The vpc currently has a subnet within CIDR block %s", b.CIDR)
					}
				}
				v.V6 = without(v.V6, b.Assoc)
				out.VpcId = v.ID
				out.Ipv6CidrBlockAssociation = s.vpcV6View(b, "disassociating")
				s.vpcs.Put(tx, v.ID, v)
				return nil
			}
		}
		return wire.Errorf("InvalidVpcCidrBlockAssociationID.NotFound", "The vpc CIDR block association ID '%.64s' does not exist", in.AssociationId)
	})
	if err != nil {
		return nil, err
	}
	if v4 {
		if err := s.pushVPC(ctx, out.VpcId); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// AssociateSubnetCidrBlock gives a subnet an IPv6 range of its VPC's.
func (s *Service) AssociateSubnetCidrBlock(ctx context.Context, in *ec2api.AssociateSubnetCidrBlockRequest) (*ec2api.AssociateSubnetCidrBlockResult, error) {
	if in.Ipv6IpamPoolId != "" || in.Ipv6NetmaskLength != nil {
		return nil, unsupported("address pools of one's own")
	}
	out := &ec2api.AssociateSubnetCidrBlockResult{SubnetId: in.SubnetId}
	return out, s.update(func(tx *state.Tx) error {
		sn, ok := s.subnets.Get(tx, in.SubnetId)
		if !ok {
			return noSubnet(in.SubnetId)
		}
		if len(sn.V6) > 0 {
			return wire.Errorf("CidrLimitExceeded", "The subnet '%s' has met its maximum number of allowed IPv6 CIDRs: 1", sn.ID)
		}
		b, err := s.subnetV6(tx, sn.VPC, in.Ipv6CidrBlock)
		if err != nil {
			return err
		}
		sn.V6 = []block{b}
		s.subnets.Put(tx, sn.ID, sn)
		out.Ipv6CidrBlockAssociation = subnetV6View(b, "associating")
		return nil
	})
}

// subnetV6 checks a subnet's IPv6 range against its VPC's and its neighbours'.
func (s *Service) subnetV6(tx *state.Tx, vpcID, cidr string) (block, error) {
	p, err := netip.ParsePrefix(cidr)
	if err != nil || !p.Addr().Is6() {
		return block{}, wire.Errorf("InvalidParameterValue", "Value (%.60s) for parameter ipv6CidrBlock is invalid. This is not a valid IPv6 CIDR block.", cidr)
	}
	p = p.Masked()
	v, _ := s.vpcs.Get(tx, vpcID)
	inside := slices.ContainsFunc(v.V6, func(b block) bool {
		o := netip.MustParsePrefix(b.CIDR)
		return o.Bits() <= p.Bits() && o.Contains(p.Addr())
	})
	if p.Bits() != 64 || !inside {
		return block{}, wire.Errorf("InvalidSubnet.Range", "The CIDR '%s' is invalid.", cidr)
	}
	for _, o := range s.subnets.All(tx) {
		if o.VPC == vpcID && slices.ContainsFunc(o.V6, func(b block) bool { return b.CIDR == p.String() }) {
			return block{}, wire.Errorf("InvalidSubnet.Conflict", "The CIDR '%s' conflicts with another subnet", p)
		}
	}
	return block{s.newID("subnet-cidr-assoc"), p.String()}, nil
}

// DisassociateSubnetCidrBlock takes a subnet's IPv6 range away.
func (s *Service) DisassociateSubnetCidrBlock(ctx context.Context, in *ec2api.DisassociateSubnetCidrBlockRequest) (*ec2api.DisassociateSubnetCidrBlockResult, error) {
	out := &ec2api.DisassociateSubnetCidrBlockResult{}
	return out, s.update(func(tx *state.Tx) error {
		for _, sn := range s.subnets.All(tx) {
			for _, b := range sn.V6 {
				if b.Assoc == in.AssociationId {
					sn.V6 = without(sn.V6, b.Assoc)
					s.subnets.Put(tx, sn.ID, sn)
					out.SubnetId, out.Ipv6CidrBlockAssociation = sn.ID, subnetV6View(b, "disassociating")
					return nil
				}
			}
		}
		return wire.Errorf("InvalidSubnetCidrBlockAssociationID.NotFound", "The subnet CIDR block association ID '%.64s' does not exist", in.AssociationId)
	})
}
