package ec2

import (
	"context"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// CreateRouteTable makes a route table with nothing but the local routes.
func (s *Service) CreateRouteTable(ctx context.Context, in *ec2api.CreateRouteTableRequest) (*ec2api.CreateRouteTableResult, error) {
	tags, err := tagSpecs(ctx, in.TagSpecifications, "route-table")
	if err != nil {
		return nil, err
	}
	out := &ec2api.CreateRouteTableResult{ClientToken: in.ClientToken}
	hash := hashOf(in)
	return out, s.update(func(tx *state.Tx) error {
		ids, err := s.once(tx, "route-table", in.ClientToken, hash)
		if err != nil {
			return err
		}
		if ids != nil {
			if t, ok := s.routes.Get(tx, ids[0]); ok {
				out.RouteTable = s.tableView(tx)(t)
				return nil
			}
		}
		if _, ok := s.vpcs.Get(tx, in.VpcId); !ok {
			return noVPC(in.VpcId)
		}
		t := routeTable{ID: s.newID("rtb"), VPC: in.VpcId}
		s.routes.Put(tx, t.ID, t)
		s.putTags(tx, "route-table", t.ID, tags["route-table"])
		s.remember(tx, "route-table", in.ClientToken, hash, t.ID)
		out.RouteTable = s.tableView(tx)(t)
		return dry(in.DryRun)
	})
}

// DeleteRouteTable deletes a route table that no subnet uses.
func (s *Service) DeleteRouteTable(ctx context.Context, in *ec2api.DeleteRouteTableRequest) error {
	return s.update(func(tx *state.Tx) error {
		t, ok := s.routes.Get(tx, in.RouteTableId)
		if !ok {
			return noRouteTable(in.RouteTableId)
		}
		used := t.MainAssoc != ""
		for _, sn := range s.subnets.All(tx) {
			used = used || sn.Table == t.ID
		}
		if used {
			return wire.Errorf("DependencyViolation", "The routeTable '%s' has dependencies and cannot be deleted.", t.ID)
		}
		s.routes.Delete(tx, t.ID)
		s.tagsOf.Delete(tx, t.ID)
		return dry(in.DryRun)
	})
}

// AssociateRouteTable gives a subnet a route table of its own.
func (s *Service) AssociateRouteTable(ctx context.Context, in *ec2api.AssociateRouteTableRequest) (*ec2api.AssociateRouteTableResult, error) {
	if in.GatewayId != "" || in.PublicIpv4Pool != "" {
		return nil, unsupported("route tables of gateways")
	}
	out := &ec2api.AssociateRouteTableResult{AssociationState: &ec2api.RouteTableAssociationState{State: "associated"}}
	var sn subnet
	err := s.update(func(tx *state.Tx) error {
		t, ok := s.routes.Get(tx, in.RouteTableId)
		if !ok {
			return noRouteTable(in.RouteTableId)
		}
		if sn, ok = s.subnets.Get(tx, in.SubnetId); !ok {
			return noSubnet(in.SubnetId)
		}
		if sn.VPC != t.VPC {
			return wire.Errorf("InvalidParameterValue", "Route table %s and subnet %s belong to different networks", t.ID, sn.ID)
		}
		switch sn.Table {
		case t.ID: // as it is
		case "":
			sn.Table, sn.TableAssoc = t.ID, s.newID("rtbassoc")
			s.subnets.Put(tx, sn.ID, sn)
		default:
			return wire.Errorf("Resource.AlreadyAssociated", "the specified association for route table %s conflicts with an existing association", t.ID)
		}
		out.AssociationId = sn.TableAssoc
		return dry(in.DryRun)
	})
	if err != nil {
		return nil, err
	}
	if err := s.pushSubnets(ctx, sn.VPC); err != nil {
		return nil, err
	}
	return out, nil
}

// DisassociateRouteTable brings a subnet back to the main route table.
func (s *Service) DisassociateRouteTable(ctx context.Context, in *ec2api.DisassociateRouteTableRequest) error {
	var vpcID string
	err := s.update(func(tx *state.Tx) error {
		for _, sn := range s.subnets.All(tx) {
			if sn.TableAssoc == in.AssociationId && in.AssociationId != "" {
				sn.Table, sn.TableAssoc = "", ""
				s.subnets.Put(tx, sn.ID, sn)
				vpcID = sn.VPC
				return dry(in.DryRun)
			}
		}
		for _, t := range s.routes.All(tx) {
			if t.MainAssoc == in.AssociationId && t.MainAssoc != "" {
				return wire.Errorf("InvalidParameterValue", "cannot disassociate the main route table association %s", t.MainAssoc)
			}
		}
		return noAssociation(in.AssociationId)
	})
	if err != nil {
		return err
	}
	return s.pushSubnets(ctx, vpcID)
}

// ReplaceRouteTableAssociation gives a subnet another route table, or a VPC
// another main one.
func (s *Service) ReplaceRouteTableAssociation(ctx context.Context, in *ec2api.ReplaceRouteTableAssociationRequest) (*ec2api.ReplaceRouteTableAssociationResult, error) {
	out := &ec2api.ReplaceRouteTableAssociationResult{NewAssociationId: s.newID("rtbassoc"), AssociationState: &ec2api.RouteTableAssociationState{State: "associated"}}
	var t routeTable
	err := s.update(func(tx *state.Tx) error {
		var ok bool
		if t, ok = s.routes.Get(tx, in.RouteTableId); !ok {
			return noRouteTable(in.RouteTableId)
		}
		if in.AssociationId == "" {
			return noAssociation(in.AssociationId)
		}
		for _, sn := range s.subnets.All(tx) {
			if sn.TableAssoc != in.AssociationId {
				continue
			}
			if sn.VPC != t.VPC {
				return wire.Errorf("InvalidParameterValue", "Route table %s and subnet %s belong to different networks", t.ID, sn.ID)
			}
			sn.Table, sn.TableAssoc = t.ID, out.NewAssociationId
			s.subnets.Put(tx, sn.ID, sn)
			return dry(in.DryRun)
		}
		for _, old := range s.routes.All(tx) {
			if old.MainAssoc != in.AssociationId {
				continue
			}
			if old.VPC != t.VPC {
				return wire.Errorf("InvalidParameterValue", "Route tables %s and %s belong to different networks", t.ID, old.ID)
			}
			old.MainAssoc = ""
			s.routes.Put(tx, old.ID, old)
			t, _ = s.routes.Get(tx, t.ID) // it may be the same one
			t.MainAssoc = out.NewAssociationId
			s.routes.Put(tx, t.ID, t)
			v, _ := s.vpcs.Get(tx, t.VPC)
			v.MainTable = t.ID
			s.vpcs.Put(tx, v.ID, v)
			return dry(in.DryRun)
		}
		return noAssociation(in.AssociationId)
	})
	if err != nil {
		return nil, err
	}
	if err := s.pushSubnets(ctx, t.VPC); err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Service) tableView(tx *state.Tx) func(routeTable) *ec2api.RouteTable {
	by := map[string][]subnet{} // explicit associations
	for _, sn := range s.subnets.All(tx) {
		if sn.Table != "" {
			by[sn.Table] = append(by[sn.Table], sn)
		}
	}
	return func(t routeTable) *ec2api.RouteTable {
		o := &ec2api.RouteTable{RouteTableId: t.ID, VpcId: t.VPC, OwnerId: s.cfg.Account, Tags: s.tagList(tx, t.ID)}
		v, _ := s.vpcs.Get(tx, t.VPC)
		for _, b := range v.CIDRs {
			o.Routes = append(o.Routes, &ec2api.Route{DestinationCidrBlock: b.CIDR, GatewayId: "local", Origin: "CreateRouteTable", State: "active"})
		}
		for _, b := range v.V6 {
			o.Routes = append(o.Routes, &ec2api.Route{DestinationIpv6CidrBlock: b.CIDR, GatewayId: "local", Origin: "CreateRouteTable", State: "active"})
		}
		for _, r := range t.Routes {
			x := &ec2api.Route{GatewayId: r.Gateway, NatGatewayId: r.NAT, EgressOnlyInternetGatewayId: r.EgressOnly, Origin: "CreateRoute", State: "blackhole"}
			if r.Dest == anywhere6 {
				x.DestinationIpv6CidrBlock = r.Dest
			} else {
				x.DestinationCidrBlock = r.Dest
			}
			g, isIGW := s.igws.Get(tx, r.Gateway)
			_, isEIGW := s.eigws.Get(tx, r.EgressOnly)
			n, isNAT := s.nats.Get(tx, r.NAT)
			if isIGW && g.VPC == t.VPC || isEIGW || isNAT && n.State == "available" {
				x.State = "active"
			}
			o.Routes = append(o.Routes, x)
		}
		ok := &ec2api.RouteTableAssociationState{State: "associated"}
		if t.MainAssoc != "" {
			o.Associations = append(o.Associations, &ec2api.RouteTableAssociation{Main: new(true), RouteTableAssociationId: t.MainAssoc, RouteTableId: t.ID, AssociationState: ok})
		}
		for _, sn := range by[t.ID] {
			o.Associations = append(o.Associations, &ec2api.RouteTableAssociation{Main: new(false), RouteTableAssociationId: sn.TableAssoc, RouteTableId: t.ID, SubnetId: sn.ID, AssociationState: ok})
		}
		return o
	}
}

func ofAssociations(f func(*ec2api.RouteTableAssociation) []string) func(*ec2api.RouteTable) []string {
	return func(v *ec2api.RouteTable) (o []string) {
		for _, a := range v.Associations {
			o = append(o, f(a)...)
		}
		return o
	}
}

func ofRoutes(f func(*ec2api.Route) []string) func(*ec2api.RouteTable) []string {
	return func(v *ec2api.RouteTable) (o []string) {
		for _, a := range v.Routes {
			o = append(o, f(a)...)
		}
		return o
	}
}

var tableFields = filter.Fields[*ec2api.RouteTable]{
	Tags: func(v *ec2api.RouteTable) []*ec2api.Tag { return v.Tags },
	By: map[string]func(*ec2api.RouteTable) []string{
		"route-table-id":             func(v *ec2api.RouteTable) []string { return filter.One(v.RouteTableId) },
		"vpc-id":                     func(v *ec2api.RouteTable) []string { return filter.One(v.VpcId) },
		"owner-id":                   func(v *ec2api.RouteTable) []string { return filter.One(v.OwnerId) },
		"association.main":           ofAssociations(func(a *ec2api.RouteTableAssociation) []string { return filter.Bool(a.Main) }),
		"association.subnet-id":      ofAssociations(func(a *ec2api.RouteTableAssociation) []string { return filter.One(a.SubnetId) }),
		"association.route-table-id": ofAssociations(func(a *ec2api.RouteTableAssociation) []string { return filter.One(a.RouteTableId) }),
		"association.route-table-association-id": ofAssociations(func(a *ec2api.RouteTableAssociation) []string {
			return filter.One(a.RouteTableAssociationId)
		}),
		"route.destination-cidr-block":      ofRoutes(func(r *ec2api.Route) []string { return filter.One(r.DestinationCidrBlock) }),
		"route.destination-ipv6-cidr-block": ofRoutes(func(r *ec2api.Route) []string { return filter.One(r.DestinationIpv6CidrBlock) }),
		"route.gateway-id":                  ofRoutes(func(r *ec2api.Route) []string { return filter.One(r.GatewayId) }),
		"route.nat-gateway-id":              ofRoutes(func(r *ec2api.Route) []string { return filter.One(r.NatGatewayId) }),
		"route.egress-only-internet-gateway-id": ofRoutes(func(r *ec2api.Route) []string {
			return filter.One(r.EgressOnlyInternetGatewayId)
		}),
		"route.state":  ofRoutes(func(r *ec2api.Route) []string { return filter.One(r.State) }),
		"route.origin": ofRoutes(func(r *ec2api.Route) []string { return filter.One(r.Origin) }),
	},
}

// DescribeRouteTables lists route tables.
func (s *Service) DescribeRouteTables(ctx context.Context, in *ec2api.DescribeRouteTablesRequest) (*ec2api.DescribeRouteTablesResult, error) {
	out := &ec2api.DescribeRouteTablesResult{}
	q := query[ec2api.RouteTable]{ids: in.RouteTableIds, filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: tableFields,
		id: func(v *ec2api.RouteTable) string { return v.RouteTableId }, missing: noRouteTable}
	var err error
	s.view(func(tx *state.Tx) { out.RouteTables, out.NextToken, err = list(tx, q, s.routes, s.tableView(tx)) })
	if err != nil {
		return nil, err
	}
	return out, nil
}
