package provider

import (
	"context"
	"fmt"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
)

var internetGateway = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.DescribeInternetGatewaysResult](ctx, r, "ec2", "DescribeInternetGateways", &ec2api.DescribeInternetGatewaysRequest{Filters: r.ours()})
		if err != nil {
			return "", err
		}
		var ids []string
		for _, v := range out.InternetGateways {
			ids = append(ids, v.InternetGatewayId)
		}
		return r.pick(ids), nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.CreateInternetGatewayResult](ctx, r, "ec2", "CreateInternetGateway", &ec2api.CreateInternetGatewayRequest{TagSpecifications: r.specification("internet-gateway")})
		if err != nil {
			return "", err
		}
		return out.InternetGateway.InternetGatewayId, nil
	},
	Update: retag, Mutable: []string{"Tags"},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, "ec2", "DeleteInternetGateway", &ec2api.DeleteInternetGatewayRequest{InternetGatewayId: r.ID}))
	},
	Attributes: idAttribute("InternetGatewayId"),
}

var egressGateway = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.DescribeEgressOnlyInternetGatewaysResult](ctx, r, "ec2", "DescribeEgressOnlyInternetGateways", &ec2api.DescribeEgressOnlyInternetGatewaysRequest{Filters: r.ours()})
		if err != nil {
			return "", err
		}
		var ids []string
		for _, v := range out.EgressOnlyInternetGateways {
			ids = append(ids, v.EgressOnlyInternetGatewayId)
		}
		return r.pick(ids), nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.CreateEgressOnlyInternetGatewayResult](ctx, r, "ec2", "CreateEgressOnlyInternetGateway", &ec2api.CreateEgressOnlyInternetGatewayRequest{
			VpcId: text(r.Properties, "VpcId"), ClientToken: r.Token(), TagSpecifications: r.specification("egress-only-internet-gateway"),
		})
		if err != nil {
			return "", err
		}
		return out.EgressOnlyInternetGateway.EgressOnlyInternetGatewayId, nil
	},
	Update: retag, Mutable: []string{"Tags"},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, "ec2", "DeleteEgressOnlyInternetGateway", &ec2api.DeleteEgressOnlyInternetGatewayRequest{EgressOnlyInternetGatewayId: r.ID}))
	},
	Attributes: idAttribute("Id"),
}

// An attachment has no id of its own: it is IGW|vpc-…, as on AWS.
var gatewayAttachment = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.DescribeInternetGatewaysResult](ctx, r, "ec2", "DescribeInternetGateways", &ec2api.DescribeInternetGatewaysRequest{InternetGatewayIds: []string{text(r.Properties, "InternetGatewayId")}})
		if err != nil {
			return "", err
		}
		for _, g := range out.InternetGateways {
			for _, a := range g.Attachments {
				if a.VpcId == text(r.Properties, "VpcId") {
					return "IGW|" + a.VpcId, nil
				}
			}
		}
		return "", nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		vpc := text(r.Properties, "VpcId")
		in := &ec2api.AttachInternetGatewayRequest{InternetGatewayId: text(r.Properties, "InternetGatewayId"), VpcId: vpc}
		return "IGW|" + vpc, do(ctx, r, "ec2", "AttachInternetGateway", in)
	},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, "ec2", "DetachInternetGateway", &ec2api.DetachInternetGatewayRequest{InternetGatewayId: text(r.Properties, "InternetGatewayId"), VpcId: text(r.Properties, "VpcId")}))
	},
	Attributes: func(context.Context, *Request) (map[string]any, error) {
		return map[string]any{"AttachmentType": "IGW"}, nil
	},
	Refuse: func(p map[string]any) (string, string) {
		if _, ok := p["InternetGatewayId"]; !ok {
			return "VpcId", "the local region attaches internet gateways only: InternetGatewayId is missing"
		}
		return "", ""
	},
}

var natGateway = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.DescribeNatGatewaysResult](ctx, r, "ec2", "DescribeNatGateways", &ec2api.DescribeNatGatewaysRequest{Filter: r.ours()})
		if err != nil {
			return "", err
		}
		var ids []string
		for _, v := range out.NatGateways {
			if v.State == "pending" || v.State == "available" {
				ids = append(ids, v.NatGatewayId)
			}
		}
		return r.pick(ids), nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		in := &ec2api.CreateNatGatewayRequest{ClientToken: r.Token(), TagSpecifications: r.specification("natgateway")}
		if err := fill(in, r.Properties, "Tags"); err != nil {
			return "", err
		}
		out, err := call[ec2api.CreateNatGatewayResult](ctx, r, "ec2", "CreateNatGateway", in)
		if err != nil {
			return "", err
		}
		return out.NatGateway.NatGatewayId, nil
	},
	Ready: func(ctx context.Context, r *Request) (bool, error) {
		v, err := describeNAT(ctx, r)
		if err != nil {
			return false, err
		}
		if v.State == "failed" {
			return false, fmt.Errorf("NatGateway %s is in state failed and hence failed to stabilize. Detailed failure message: %s", r.ID, v.FailureMessage)
		}
		return v.State == "available", nil
	},
	After:  afterGateway,
	Update: retag, Mutable: []string{"Tags"},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, "ec2", "DeleteNatGateway", &ec2api.DeleteNatGatewayRequest{NatGatewayId: r.ID}))
	},
	Gone: func(ctx context.Context, r *Request) (bool, error) {
		v, err := describeNAT(ctx, r)
		if NotFound(err) {
			return true, nil
		}
		return err == nil && v.State == "deleted", err
	},
	Attributes: func(ctx context.Context, r *Request) (map[string]any, error) {
		v, err := describeNAT(ctx, r)
		if err != nil {
			return nil, err
		}
		out := map[string]any{"NatGatewayId": r.ID}
		for _, a := range v.NatGatewayAddresses {
			out["EniId"] = a.NetworkInterfaceId
		}
		return out, nil
	},
}

func describeNAT(ctx context.Context, r *Request) (*ec2api.NatGateway, error) {
	out, err := call[ec2api.DescribeNatGatewaysResult](ctx, r, "ec2", "DescribeNatGateways", &ec2api.DescribeNatGatewaysRequest{NatGatewayIds: []string{r.ID}})
	if err != nil {
		return nil, err
	}
	return first(out.NatGateways, "NatGatewayNotFound", r.ID)
}

// An address's physical id is the address itself, as on AWS; its allocation
// is looked up.
var elasticIP = &Provider{
	After: afterGateway,
	Find: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.DescribeAddressesResult](ctx, r, "ec2", "DescribeAddresses", &ec2api.DescribeAddressesRequest{Filters: r.ours()})
		if err != nil {
			return "", err
		}
		var ids []string
		for _, v := range out.Addresses {
			ids = append(ids, v.PublicIp)
		}
		return r.pick(ids), nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.AllocateAddressResult](ctx, r, "ec2", "AllocateAddress", &ec2api.AllocateAddressRequest{Domain: "vpc", TagSpecifications: r.specification("elastic-ip")})
		if err != nil {
			return "", err
		}
		return out.PublicIp, nil
	},
	Configure: func(ctx context.Context, r *Request) error {
		id := text(r.Properties, "InstanceId")
		if id == "" {
			return nil
		}
		a, err := describeAddress(ctx, r)
		if err != nil || a.InstanceId == id {
			return err
		}
		return do(ctx, r, "ec2", "AssociateAddress", &ec2api.AssociateAddressRequest{AllocationId: a.AllocationId, InstanceId: id})
	},
	Update: func(ctx context.Context, r *Request) error {
		a, err := describeAddress(ctx, r)
		if err != nil {
			return err
		}
		return retagEC2(ctx, r, a.AllocationId)
	},
	Mutable: []string{"Tags"},
	Remove: func(ctx context.Context, r *Request) error {
		a, err := describeAddress(ctx, r)
		if err != nil {
			return gone(err)
		}
		if a.AssociationId != "" && text(r.Properties, "InstanceId") != "" {
			if err := gone(do(ctx, r, "ec2", "DisassociateAddress", &ec2api.DisassociateAddressRequest{AssociationId: a.AssociationId})); err != nil {
				return err
			}
		}
		return gone(do(ctx, r, "ec2", "ReleaseAddress", &ec2api.ReleaseAddressRequest{AllocationId: a.AllocationId}))
	},
	Attributes: func(ctx context.Context, r *Request) (map[string]any, error) {
		a, err := describeAddress(ctx, r)
		if err != nil {
			return nil, err
		}
		return map[string]any{"AllocationId": a.AllocationId, "PublicIp": a.PublicIp}, nil
	},
	Refuse: func(p map[string]any) (string, string) {
		if d := text(p, "Domain"); d != "" && !strings.EqualFold(d, "vpc") {
			return "Domain", "the local region has addresses of the domain vpc only"
		}
		return "", ""
	},
}

func describeAddress(ctx context.Context, r *Request) (*ec2api.Address, error) {
	out, err := call[ec2api.DescribeAddressesResult](ctx, r, "ec2", "DescribeAddresses", &ec2api.DescribeAddressesRequest{PublicIps: []string{r.ID}})
	if err != nil {
		return nil, err
	}
	return first(out.Addresses, "InvalidAddress", r.ID)
}
