package ec2

import (
	"context"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// CreateInternetGateway makes a gateway that is attached to no VPC yet.
func (s *Service) CreateInternetGateway(ctx context.Context, in *ec2api.CreateInternetGatewayRequest) (*ec2api.CreateInternetGatewayResult, error) {
	tags, err := tagSpecs(ctx, in.TagSpecifications, "internet-gateway")
	if err != nil {
		return nil, err
	}
	g := gateway{ID: s.newID("igw")}
	out := &ec2api.CreateInternetGatewayResult{}
	return out, s.update(func(tx *state.Tx) error {
		s.igws.Put(tx, g.ID, g)
		s.putTags(tx, "internet-gateway", g.ID, tags["internet-gateway"])
		out.InternetGateway = s.igwView(tx)(g)
		return dry(in.DryRun)
	})
}

// DeleteInternetGateway deletes a gateway that is attached to nothing.
func (s *Service) DeleteInternetGateway(ctx context.Context, in *ec2api.DeleteInternetGatewayRequest) error {
	return s.update(func(tx *state.Tx) error {
		g, ok := s.igws.Get(tx, in.InternetGatewayId)
		if !ok {
			return noIGW(in.InternetGatewayId)
		}
		if g.VPC != "" {
			return wire.Errorf("DependencyViolation", "The internetGateway '%s' has dependencies and cannot be deleted.", g.ID)
		}
		s.igws.Delete(tx, g.ID)
		s.tagsOf.Delete(tx, g.ID)
		return dry(in.DryRun)
	})
}

// AttachInternetGateway opens a VPC to the internet.
func (s *Service) AttachInternetGateway(ctx context.Context, in *ec2api.AttachInternetGatewayRequest) error {
	err := s.update(func(tx *state.Tx) error {
		g, ok := s.igws.Get(tx, in.InternetGatewayId)
		if !ok {
			return noIGW(in.InternetGatewayId)
		}
		if _, ok := s.vpcs.Get(tx, in.VpcId); !ok {
			return noVPC(in.VpcId)
		}
		if g.VPC != "" {
			return wire.Errorf("Resource.AlreadyAssociated", "resource %s is already attached to network %s", g.ID, g.VPC)
		}
		if o, ok := s.igwOf(tx, in.VpcId); ok {
			return wire.Errorf("InvalidParameterValue", "Network %s already has an internet gateway attached: %s", in.VpcId, o.ID)
		}
		g.VPC = in.VpcId
		s.igws.Put(tx, g.ID, g)
		return dry(in.DryRun)
	})
	if err != nil {
		return err
	}
	return s.pushSubnets(ctx, in.VpcId)
}

func (s *Service) igwOf(tx *state.Tx, vpc string) (gateway, bool) {
	for _, g := range s.igws.All(tx) {
		if g.VPC == vpc {
			return g, true
		}
	}
	return gateway{}, false
}

// DetachInternetGateway closes a VPC, once no public address is left in it.
func (s *Service) DetachInternetGateway(ctx context.Context, in *ec2api.DetachInternetGatewayRequest) error {
	err := s.update(func(tx *state.Tx) error {
		g, ok := s.igws.Get(tx, in.InternetGatewayId)
		if !ok {
			return noIGW(in.InternetGatewayId)
		}
		if _, ok := s.vpcs.Get(tx, in.VpcId); !ok {
			return noVPC(in.VpcId)
		}
		if g.VPC != in.VpcId {
			return wire.Errorf("Gateway.NotAttached", "resource %s is not attached to network %s", g.ID, in.VpcId)
		}
		for sid, sn := range s.subnets.All(tx) {
			if sn.VPC != in.VpcId {
				continue
			}
			for id := range s.ix.inSubnet[sid] {
				if c, _ := s.cards.Get(tx, id); c.Public.IsValid() {
					return wire.Errorf("DependencyViolation", "Network %s has some mapped public address(es). Please unmap those public address(es) before detaching the gateway.", in.VpcId)
				}
			}
		}
		g.VPC = ""
		s.igws.Put(tx, g.ID, g)
		return dry(in.DryRun)
	})
	if err != nil {
		return err
	}
	return s.pushSubnets(ctx, in.VpcId)
}

func (s *Service) igwView(tx *state.Tx) func(gateway) *ec2api.InternetGateway {
	return func(g gateway) *ec2api.InternetGateway {
		o := &ec2api.InternetGateway{InternetGatewayId: g.ID, OwnerId: s.cfg.Account, Tags: s.tagList(tx, g.ID)}
		if g.VPC != "" {
			o.Attachments = []*ec2api.InternetGatewayAttachment{{State: "available", VpcId: g.VPC}}
		}
		return o
	}
}

var igwFields = filter.Fields[*ec2api.InternetGateway]{
	Tags: func(v *ec2api.InternetGateway) []*ec2api.Tag { return v.Tags },
	By: map[string]func(*ec2api.InternetGateway) []string{
		"internet-gateway-id": func(v *ec2api.InternetGateway) []string { return filter.One(v.InternetGatewayId) },
		"owner-id":            func(v *ec2api.InternetGateway) []string { return filter.One(v.OwnerId) },
		"attachment.vpc-id": func(v *ec2api.InternetGateway) (o []string) {
			for _, a := range v.Attachments {
				o = append(o, a.VpcId)
			}
			return o
		},
		"attachment.state": func(v *ec2api.InternetGateway) (o []string) {
			for _, a := range v.Attachments {
				o = append(o, a.State)
			}
			return o
		},
	},
}

// DescribeInternetGateways lists internet gateways.
func (s *Service) DescribeInternetGateways(ctx context.Context, in *ec2api.DescribeInternetGatewaysRequest) (*ec2api.DescribeInternetGatewaysResult, error) {
	out := &ec2api.DescribeInternetGatewaysResult{}
	q := query[ec2api.InternetGateway]{ids: in.InternetGatewayIds, filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: igwFields,
		id: func(v *ec2api.InternetGateway) string { return v.InternetGatewayId }, missing: noIGW}
	var err error
	s.view(func(tx *state.Tx) { out.InternetGateways, out.NextToken, err = list(tx, q, s.igws, s.igwView(tx)) })
	if err != nil {
		return nil, err
	}
	return out, nil
}

// CreateEgressOnlyInternetGateway makes the IPv6 way out that templates ask
// for; as no packet is IPv6, none ever takes it.
func (s *Service) CreateEgressOnlyInternetGateway(ctx context.Context, in *ec2api.CreateEgressOnlyInternetGatewayRequest) (*ec2api.CreateEgressOnlyInternetGatewayResult, error) {
	const kind = "egress-only-internet-gateway"
	tags, err := tagSpecs(ctx, in.TagSpecifications, kind)
	if err != nil {
		return nil, err
	}
	out := &ec2api.CreateEgressOnlyInternetGatewayResult{ClientToken: in.ClientToken}
	hash := hashOf(in)
	return out, s.update(func(tx *state.Tx) error {
		ids, err := s.once(tx, kind, in.ClientToken, hash)
		if err != nil {
			return err
		}
		if ids != nil {
			if g, ok := s.eigws.Get(tx, ids[0]); ok {
				out.EgressOnlyInternetGateway = s.eigwView(tx)(g)
				return nil
			}
		}
		if _, ok := s.vpcs.Get(tx, in.VpcId); !ok {
			return noVPC(in.VpcId)
		}
		g := gateway{ID: s.newID("eigw"), VPC: in.VpcId}
		s.eigws.Put(tx, g.ID, g)
		s.putTags(tx, kind, g.ID, tags[kind])
		s.remember(tx, kind, in.ClientToken, hash, g.ID)
		out.EgressOnlyInternetGateway = s.eigwView(tx)(g)
		return dry(in.DryRun)
	})
}

// DeleteEgressOnlyInternetGateway deletes one; routes to it become black holes.
func (s *Service) DeleteEgressOnlyInternetGateway(ctx context.Context, in *ec2api.DeleteEgressOnlyInternetGatewayRequest) (*ec2api.DeleteEgressOnlyInternetGatewayResult, error) {
	err := s.update(func(tx *state.Tx) error {
		if _, ok := s.eigws.Get(tx, in.EgressOnlyInternetGatewayId); !ok {
			return noEIGW(in.EgressOnlyInternetGatewayId)
		}
		s.eigws.Delete(tx, in.EgressOnlyInternetGatewayId)
		s.tagsOf.Delete(tx, in.EgressOnlyInternetGatewayId)
		return dry(in.DryRun)
	})
	if err != nil {
		return nil, err
	}
	return &ec2api.DeleteEgressOnlyInternetGatewayResult{ReturnCode: new(true)}, nil
}

func (s *Service) eigwView(tx *state.Tx) func(gateway) *ec2api.EgressOnlyInternetGateway {
	return func(g gateway) *ec2api.EgressOnlyInternetGateway {
		return &ec2api.EgressOnlyInternetGateway{EgressOnlyInternetGatewayId: g.ID, Tags: s.tagList(tx, g.ID),
			Attachments: []*ec2api.InternetGatewayAttachment{{State: "attached", VpcId: g.VPC}}}
	}
}

var eigwFields = filter.Fields[*ec2api.EgressOnlyInternetGateway]{
	Tags: func(v *ec2api.EgressOnlyInternetGateway) []*ec2api.Tag { return v.Tags },
	By:   map[string]func(*ec2api.EgressOnlyInternetGateway) []string{},
}

// DescribeEgressOnlyInternetGateways lists egress-only internet gateways.
func (s *Service) DescribeEgressOnlyInternetGateways(ctx context.Context, in *ec2api.DescribeEgressOnlyInternetGatewaysRequest) (*ec2api.DescribeEgressOnlyInternetGatewaysResult, error) {
	out := &ec2api.DescribeEgressOnlyInternetGatewaysResult{}
	q := query[ec2api.EgressOnlyInternetGateway]{ids: in.EgressOnlyInternetGatewayIds, filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: eigwFields,
		id: func(v *ec2api.EgressOnlyInternetGateway) string { return v.EgressOnlyInternetGatewayId }, missing: noEIGW}
	var err error
	s.view(func(tx *state.Tx) {
		out.EgressOnlyInternetGateways, out.NextToken, err = list(tx, q, s.eigws, s.eigwView(tx))
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
