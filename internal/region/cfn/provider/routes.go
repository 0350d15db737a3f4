package provider

import (
	"context"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
)

var routeTable = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.DescribeRouteTablesResult](ctx, r, "ec2", "DescribeRouteTables", &ec2api.DescribeRouteTablesRequest{Filters: r.ours()})
		if err != nil {
			return "", err
		}
		var ids []string
		for _, v := range out.RouteTables {
			ids = append(ids, v.RouteTableId)
		}
		return r.pick(ids), nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.CreateRouteTableResult](ctx, r, "ec2", "CreateRouteTable", &ec2api.CreateRouteTableRequest{
			VpcId: text(r.Properties, "VpcId"), ClientToken: r.Token(), TagSpecifications: r.specification("route-table"),
		})
		if err != nil {
			return "", err
		}
		return out.RouteTable.RouteTableId, nil
	},
	Update: retag, Mutable: []string{"Tags"},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, "ec2", "DeleteRouteTable", &ec2api.DeleteRouteTableRequest{RouteTableId: r.ID}))
	},
	Attributes: idAttribute("RouteTableId"),
}

func describeRouteTable(ctx context.Context, r *Request, id string) (*ec2api.RouteTable, error) {
	out, err := call[ec2api.DescribeRouteTablesResult](ctx, r, "ec2", "DescribeRouteTables", &ec2api.DescribeRouteTablesRequest{RouteTableIds: []string{id}})
	if err != nil {
		return nil, err
	}
	return first(out.RouteTables, "InvalidRouteTableID", id)
}

func destination(p map[string]any) string {
	if d := text(p, "DestinationCidrBlock"); d != "" {
		return d
	}
	return text(p, "DestinationIpv6CidrBlock")
}

var routeTargets = []string{"EgressOnlyInternetGatewayId", "GatewayId", "InstanceId", "NatGatewayId", "NetworkInterfaceId"}

// A route is rtb-…|destination, as on AWS.
var route = &Provider{
	After: afterGateway,
	Find: func(ctx context.Context, r *Request) (string, error) {
		t, err := describeRouteTable(ctx, r, text(r.Properties, "RouteTableId"))
		if err != nil {
			return "", err
		}
		for _, x := range t.Routes {
			// A route of somebody else's to the same destination has another target.
			target := x.GatewayId + x.NatGatewayId + x.EgressOnlyInternetGatewayId + x.InstanceId + x.NetworkInterfaceId
			d := destination(r.Properties)
			if (x.DestinationCidrBlock == d || x.DestinationIpv6CidrBlock == d) && slices.ContainsFunc(routeTargets, func(k string) bool {
				v := text(r.Properties, k)
				return v != "" && strings.Contains(target, v)
			}) {
				return t.RouteTableId + "|" + d, nil
			}
		}
		return "", nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		in := &ec2api.CreateRouteRequest{}
		if err := fill(in, r.Properties); err != nil {
			return "", err
		}
		return in.RouteTableId + "|" + destination(r.Properties), do(ctx, r, "ec2", "CreateRoute", in)
	},
	Update: func(ctx context.Context, r *Request) error {
		in := &ec2api.ReplaceRouteRequest{}
		if err := fill(in, r.Properties); err != nil {
			return err
		}
		return do(ctx, r, "ec2", "ReplaceRoute", in)
	},
	Mutable: routeTargets,
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, "ec2", "DeleteRoute", &ec2api.DeleteRouteRequest{
			RouteTableId: text(r.Properties, "RouteTableId"), DestinationCidrBlock: text(r.Properties, "DestinationCidrBlock"),
			DestinationIpv6CidrBlock: text(r.Properties, "DestinationIpv6CidrBlock"),
		}))
	},
	Attributes: func(_ context.Context, r *Request) (map[string]any, error) {
		return map[string]any{"CidrBlock": destination(r.Properties)}, nil
	},
}

var routeTableAssociation = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		t, err := describeRouteTable(ctx, r, text(r.Properties, "RouteTableId"))
		if err != nil {
			return "", err
		}
		for _, a := range t.Associations {
			if a.SubnetId == text(r.Properties, "SubnetId") {
				return a.RouteTableAssociationId, nil
			}
		}
		return "", nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.AssociateRouteTableResult](ctx, r, "ec2", "AssociateRouteTable", &ec2api.AssociateRouteTableRequest{
			RouteTableId: text(r.Properties, "RouteTableId"), SubnetId: text(r.Properties, "SubnetId"),
		})
		if err != nil {
			return "", err
		}
		return out.AssociationId, nil
	},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, "ec2", "DisassociateRouteTable", &ec2api.DisassociateRouteTableRequest{AssociationId: r.ID}))
	},
	Attributes: idAttribute("Id"),
}
