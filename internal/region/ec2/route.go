package ec2

import (
	"context"
	"net/netip"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const anywhere, anywhere6 = "0.0.0.0/0", "::/0"

// egressOf is where a subnet's default route leads, by its route table.
func (s *Service) egressOf(tx *state.Tx, sn subnet) network.Egress {
	return s.egress(tx, sn, true)
}

func (s *Service) egress(tx *state.Tx, sn subnet, followNAT bool) network.Egress {
	id := sn.Table
	if id == "" {
		v, _ := s.vpcs.Get(tx, sn.VPC)
		id = v.MainTable
	}
	t, _ := s.routes.Get(tx, id)
	for _, r := range t.Routes {
		if r.Dest != anywhere {
			continue
		}
		if r.Gateway != "" {
			if g, ok := s.igws.Get(tx, r.Gateway); ok && g.VPC == sn.VPC {
				return network.EgressInternet
			}
		}
		if r.NAT != "" && followNAT {
			n, ok := s.nats.Get(tx, r.NAT)
			at, there := s.subnets.Get(tx, n.Subnet)
			// A NAT gateway has a way out only where its own subnet leads to
			// the internet gateway, not by another NAT gateway.
			if ok && there && n.State == "available" && s.egress(tx, at, false) == network.EgressInternet {
				return network.EgressNAT
			}
		}
	}
	return network.EgressNone
}

// routeTarget checks a route that is to be made.
type routeTarget struct {
	dest4, dest6, destList                              string
	gateway, nat, eigw                                  string
	instance, card, peering, transit, endpoint, carrier string
	local, core, odb                                    string
}

// check makes a route of what the request says. Only default routes are
// realised: a VPC's own addresses are reached without one, and there is
// nothing else to go to.
func (s *Service) checkRoute(tx *state.Tx, t routeTable, x routeTarget) (route, error) {
	dest, v6, err := x.dest()
	if err != nil {
		return route{}, err
	}
	for what, id := range map[string]string{"an instance": x.instance, "a network interface": x.card, "a peering connection": x.peering,
		"a transit gateway": x.transit, "a VPC endpoint": x.endpoint, "a carrier gateway": x.carrier, "a local gateway": x.local, "a core network": x.core, "an ODB network": x.odb} {
		if id != "" {
			return route{}, unsupported("a route to %s", what)
		}
	}
	r := route{Dest: dest, Gateway: x.gateway, NAT: x.nat, EgressOnly: x.eigw}
	n := 0
	for _, id := range []string{x.gateway, x.nat, x.eigw} {
		if id != "" {
			n++
		}
	}
	if n != 1 {
		return route{}, wire.Errorf("InvalidParameterCombination", "Exactly one target must be given for a route, not %d", n)
	}
	switch {
	case r.Gateway != "":
		g, ok := s.igws.Get(tx, r.Gateway)
		if !ok {
			return route{}, wire.Errorf("InvalidGatewayID.NotFound", "The gateway ID '%.64s' does not exist", r.Gateway)
		}
		if g.VPC != t.VPC {
			return route{}, wire.Errorf("InvalidParameterValue", "route table %s and network gateway %s belong to different networks", t.ID, g.ID)
		}
	case r.NAT != "":
		g, ok := s.nats.Get(tx, r.NAT)
		if !ok || g.State == "deleted" {
			return route{}, wire.Errorf("InvalidNatGatewayID.NotFound", "The natGateway ID '%.64s' does not exist", r.NAT)
		}
		if g.VPC != t.VPC {
			return route{}, wire.Errorf("InvalidParameterValue", "route table %s and network gateway %s belong to different networks", t.ID, g.ID)
		}
		if v6 {
			return route{}, unsupported("IPv6 through a NAT gateway")
		}
	default:
		g, ok := s.eigws.Get(tx, r.EgressOnly)
		if !ok {
			return route{}, noEIGW(r.EgressOnly)
		}
		if g.VPC != t.VPC {
			return route{}, wire.Errorf("InvalidParameterValue", "route table %s and network gateway %s belong to different networks", t.ID, g.ID)
		}
		if !v6 {
			return route{}, wire.Errorf("InvalidParameterValue", "An egress-only internet gateway takes IPv6 only")
		}
	}
	if dest != anywhere && dest != anywhere6 {
		return route{}, unsupported("a route to %s: only default routes (%s, %s) lead out of a VPC", dest, anywhere, anywhere6)
	}
	return r, nil
}

func (x routeTarget) dest() (dest string, v6 bool, err error) {
	if x.destList != "" {
		return "", false, unsupported("routes to prefix lists")
	}
	if (x.dest4 == "") == (x.dest6 == "") {
		return "", false, wire.Errorf("InvalidParameterCombination", "Exactly one destination must be given for a route")
	}
	p, err := netip.ParsePrefix(x.dest4 + x.dest6)
	if err != nil || p.Addr().Is4() != (x.dest4 != "") {
		return "", false, wire.Errorf("InvalidParameterValue", "Value (%.60s) for parameter destinationCidrBlock is invalid. This is not a valid CIDR block.", x.dest4+x.dest6)
	}
	return p.Masked().String(), x.dest6 != "", nil
}

// CreateRoute adds a route.
func (s *Service) CreateRoute(ctx context.Context, in *ec2api.CreateRouteRequest) (*ec2api.CreateRouteResult, error) {
	err := s.setRoute(ctx, in.RouteTableId, in.DryRun, false, routeTarget{
		dest4: in.DestinationCidrBlock, dest6: in.DestinationIpv6CidrBlock, destList: in.DestinationPrefixListId,
		gateway: in.GatewayId, nat: in.NatGatewayId, eigw: in.EgressOnlyInternetGatewayId,
		instance: in.InstanceId, card: in.NetworkInterfaceId, peering: in.VpcPeeringConnectionId, transit: in.TransitGatewayId,
		endpoint: in.VpcEndpointId, carrier: in.CarrierGatewayId, local: in.LocalGatewayId, core: in.CoreNetworkArn, odb: in.OdbNetworkArn})
	if err != nil {
		return nil, err
	}
	return &ec2api.CreateRouteResult{Return: new(true)}, nil
}

// ReplaceRoute gives a route another target.
func (s *Service) ReplaceRoute(ctx context.Context, in *ec2api.ReplaceRouteRequest) error {
	if yes(in.LocalTarget) {
		return unsupported("routes to the local target")
	}
	return s.setRoute(ctx, in.RouteTableId, in.DryRun, true, routeTarget{
		dest4: in.DestinationCidrBlock, dest6: in.DestinationIpv6CidrBlock, destList: in.DestinationPrefixListId,
		gateway: in.GatewayId, nat: in.NatGatewayId, eigw: in.EgressOnlyInternetGatewayId,
		instance: in.InstanceId, card: in.NetworkInterfaceId, peering: in.VpcPeeringConnectionId, transit: in.TransitGatewayId,
		endpoint: in.VpcEndpointId, carrier: in.CarrierGatewayId, local: in.LocalGatewayId, core: in.CoreNetworkArn, odb: in.OdbNetworkArn})
}

func (s *Service) setRoute(ctx context.Context, table string, dryRun *bool, replace bool, x routeTarget) error {
	var t routeTable
	err := s.update(func(tx *state.Tx) error {
		var ok bool
		if t, ok = s.routes.Get(tx, table); !ok {
			return noRouteTable(table)
		}
		r, err := s.checkRoute(tx, t, x)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(t.Routes, func(o route) bool { return o.Dest == r.Dest })
		t.Routes = slices.Clone(t.Routes)
		switch {
		case replace && i < 0:
			return wire.Errorf("InvalidRoute.NotFound", "There is no route defined for '%s' in the route table. Use CreateRoute instead.", r.Dest)
		case replace:
			t.Routes[i] = r
		case i >= 0:
			if t.Routes[i] != r {
				return wire.Errorf("RouteAlreadyExists", "The route identified by %s already exists.", r.Dest)
			}
		default:
			t.Routes = append(t.Routes, r)
		}
		s.routes.Put(tx, t.ID, t)
		return dry(dryRun)
	})
	if err != nil {
		return err
	}
	return s.pushSubnets(ctx, t.VPC)
}

// DeleteRoute removes a route.
func (s *Service) DeleteRoute(ctx context.Context, in *ec2api.DeleteRouteRequest) error {
	dest, _, err := routeTarget{dest4: in.DestinationCidrBlock, dest6: in.DestinationIpv6CidrBlock, destList: in.DestinationPrefixListId}.dest()
	if err != nil {
		return err
	}
	var t routeTable
	err = s.update(func(tx *state.Tx) error {
		var ok bool
		if t, ok = s.routes.Get(tx, in.RouteTableId); !ok {
			return noRouteTable(in.RouteTableId)
		}
		i := slices.IndexFunc(t.Routes, func(o route) bool { return o.Dest == dest })
		if i < 0 {
			v, _ := s.vpcs.Get(tx, t.VPC)
			if slices.ContainsFunc(append(slices.Clone(v.CIDRs), v.V6...), func(b block) bool { return b.CIDR == dest }) {
				return wire.Errorf("InvalidParameterValue", "cannot remove local route %s in route table %s", dest, t.ID)
			}
			return wire.Errorf("InvalidRoute.NotFound", "no route with destination-cidr-block %s in route table %s", dest, t.ID)
		}
		t.Routes = slices.Delete(slices.Clone(t.Routes), i, i+1)
		s.routes.Put(tx, t.ID, t)
		return dry(in.DryRun)
	})
	if err != nil {
		return err
	}
	return s.pushSubnets(ctx, t.VPC)
}
