package ec2

import (
	"context"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// keepDeleted is how long what was deleted or terminated can still be seen.
const keepDeleted = time.Hour

// CreateNatGateway makes a NAT gateway, which is usable at once.
//
// The network lets a VPC's traffic leave by one address of its own, so the
// gateway's elastic address is kept for it but is not what the far side sees.
func (s *Service) CreateNatGateway(ctx context.Context, in *ec2api.CreateNatGatewayRequest) (*ec2api.CreateNatGatewayResult, error) {
	switch {
	case in.ConnectivityType == "private":
		return nil, unsupported("private NAT gateways")
	case in.AvailabilityMode == "regional" || len(in.AvailabilityZoneAddresses) > 0:
		return nil, unsupported("regional NAT gateways")
	case len(in.SecondaryAllocationIds) > 0 || len(in.SecondaryPrivateIpAddresses) > 0 || in.SecondaryPrivateIpAddressCount != nil || in.PrivateIpAddress != "":
		return nil, unsupported("NAT gateways with addresses of one's choice")
	case in.AllocationId == "":
		return nil, wire.Errorf("MissingParameter", "The request must include the AllocationId parameter. Add the required parameter and retry the request.")
	}
	tags, err := tagSpecs(ctx, in.TagSpecifications, "natgateway")
	if err != nil {
		return nil, err
	}
	out := &ec2api.CreateNatGatewayResult{ClientToken: in.ClientToken}
	hash := hashOf(in)
	var n nat
	err = s.update(func(tx *state.Tx) error {
		ids, err := s.once(tx, "natgateway", in.ClientToken, hash)
		if err != nil {
			return err
		}
		if ids != nil {
			if old, ok := s.nats.Get(tx, ids[0]); ok {
				n = old
				out.NatGateway = s.natView(tx)(n)
				return nil
			}
		}
		sn, ok := s.subnets.Get(tx, in.SubnetId)
		if !ok {
			return noSubnet(in.SubnetId)
		}
		a, ok := s.eips.Get(tx, in.AllocationId)
		if !ok {
			return noAllocation(in.AllocationId)
		}
		if a.Assoc != "" {
			return wire.Errorf("Resource.AlreadyAssociated", "Elastic IP address [%s] is already associated", a.ID)
		}
		if _, ok := s.igwOf(tx, sn.VPC); !ok {
			return wire.Errorf("Gateway.NotAttached", "Network %s has no Internet gateway attached", sn.VPC)
		}
		ip, ok := s.ix.take(sn)
		if !ok {
			return noAddresses(sn)
		}
		n = nat{ID: s.newID("nat"), VPC: sn.VPC, Subnet: sn.ID, Card: s.newID("eni"), Allocation: a.ID, State: "available", Private: ip, Public: a.IP, Created: s.now()}
		a.Assoc, a.Card = s.newID("eipassoc"), n.Card
		s.eips.Put(tx, a.ID, a)
		s.putCard(tx, card{ID: n.Card, VPC: sn.VPC, Subnet: sn.ID, Zone: sn.Zone, Kind: cardNAT, IP: ip, Public: a.IP, Allocation: a.ID,
			Description: "Interface for NAT Gateway " + n.ID, Created: n.Created})
		s.nats.Put(tx, n.ID, n)
		s.putTags(tx, "natgateway", n.ID, tags["natgateway"])
		s.remember(tx, "natgateway", in.ClientToken, hash, n.ID)
		out.NatGateway = s.natView(tx)(n)
		out.NatGateway.State = "pending"
		return dry(in.DryRun)
	})
	if err != nil {
		return nil, err
	}
	if err := s.pushSubnets(ctx, n.VPC); err != nil {
		return nil, err
	}
	return out, nil
}

func noAddresses(sn subnet) error {
	return wire.Errorf("InsufficientFreeAddressesInSubnet", "There are not enough free addresses in subnet '%s' to satisfy the requested number of instances.", sn.ID)
}

// DeleteNatGateway deletes a NAT gateway; routes to it become black holes and
// its address is free again.
func (s *Service) DeleteNatGateway(ctx context.Context, in *ec2api.DeleteNatGatewayRequest) (*ec2api.DeleteNatGatewayResult, error) {
	var n nat
	err := s.update(func(tx *state.Tx) error {
		var ok bool
		if n, ok = s.nats.Get(tx, in.NatGatewayId); !ok {
			return noNAT(in.NatGatewayId)
		}
		if n.State == "deleted" {
			return nil
		}
		n.State, n.Deleted = "deleted", s.now()
		s.nats.Put(tx, n.ID, n)
		s.freeCard(tx, n.Card)
		return dry(in.DryRun)
	})
	if err != nil {
		return nil, err
	}
	if err := s.pushSubnets(ctx, n.VPC); err != nil {
		return nil, err
	}
	return &ec2api.DeleteNatGatewayResult{NatGatewayId: n.ID}, nil
}

func (s *Service) natView(tx *state.Tx) func(nat) *ec2api.NatGateway {
	return func(n nat) *ec2api.NatGateway {
		o := &ec2api.NatGateway{NatGatewayId: n.ID, VpcId: n.VPC, SubnetId: n.Subnet, State: n.State, CreateTime: new(n.Created), ConnectivityType: "public", AvailabilityMode: "zonal", Tags: s.tagList(tx, n.ID)}
		status := "succeeded"
		if n.State == "deleted" {
			o.DeleteTime = new(n.Deleted)
		}
		a, _ := s.eips.Get(tx, n.Allocation)
		x := &ec2api.NatGatewayAddress{AllocationId: n.Allocation, NetworkInterfaceId: n.Card, PrivateIp: n.Private.String(), PublicIp: n.Public.String(), IsPrimary: new(true), Status: status}
		if a.Card == n.Card {
			x.AssociationId = a.Assoc
		}
		o.NatGatewayAddresses = []*ec2api.NatGatewayAddress{x}
		return o
	}
}

var natFields = filter.Fields[*ec2api.NatGateway]{
	Tags: func(v *ec2api.NatGateway) []*ec2api.Tag { return v.Tags },
	By: map[string]func(*ec2api.NatGateway) []string{
		"nat-gateway-id": func(v *ec2api.NatGateway) []string { return filter.One(v.NatGatewayId) },
		"vpc-id":         func(v *ec2api.NatGateway) []string { return filter.One(v.VpcId) },
		"subnet-id":      func(v *ec2api.NatGateway) []string { return filter.One(v.SubnetId) },
		"state":          func(v *ec2api.NatGateway) []string { return filter.One(v.State) },
	},
}

// DescribeNatGateways lists NAT gateways.
func (s *Service) DescribeNatGateways(ctx context.Context, in *ec2api.DescribeNatGatewaysRequest) (*ec2api.DescribeNatGatewaysResult, error) {
	out := &ec2api.DescribeNatGatewaysResult{}
	q := query[ec2api.NatGateway]{ids: in.NatGatewayIds, filters: in.Filter, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: natFields,
		id: func(v *ec2api.NatGateway) string { return v.NatGatewayId }, missing: noNAT}
	var err error
	s.view(func(tx *state.Tx) { out.NatGateways, out.NextToken, err = list(tx, q, s.nats, s.natView(tx)) })
	if err != nil {
		return nil, err
	}
	return out, nil
}
