package provider

import (
	"context"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
)

var subnet = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.DescribeSubnetsResult](ctx, r, "ec2", "DescribeSubnets", &ec2api.DescribeSubnetsRequest{Filters: r.ours()})
		if err != nil {
			return "", err
		}
		var ids []string
		for _, v := range out.Subnets {
			ids = append(ids, v.SubnetId)
		}
		return r.pick(ids), nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		in := &ec2api.CreateSubnetRequest{TagSpecifications: r.specification("subnet")}
		if err := fill(in, r.Properties, "Tags", "MapPublicIpOnLaunch", "AssignIpv6AddressOnCreation", "EnableDns64", "PrivateDnsNameOptionsOnLaunch"); err != nil {
			return "", err
		}
		out, err := call[ec2api.CreateSubnetResult](ctx, r, "ec2", "CreateSubnet", in)
		if err != nil {
			return "", err
		}
		return out.Subnet.SubnetId, nil
	},
	Configure: subnetAttributes,
	Ready: func(ctx context.Context, r *Request) (bool, error) {
		v, err := describeSubnet(ctx, r)
		return err == nil && v.State == "available", err
	},
	Update: func(ctx context.Context, r *Request) error {
		if err := subnetAttributes(ctx, r); err != nil {
			return err
		}
		return retag(ctx, r)
	},
	Mutable: []string{"MapPublicIpOnLaunch", "AssignIpv6AddressOnCreation", "EnableDns64", "PrivateDnsNameOptionsOnLaunch", "Tags"},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, "ec2", "DeleteSubnet", &ec2api.DeleteSubnetRequest{SubnetId: r.ID}))
	},
	Attributes: func(ctx context.Context, r *Request) (map[string]any, error) {
		v, err := describeSubnet(ctx, r)
		if err != nil {
			return nil, err
		}
		var v6 []string
		for _, a := range v.Ipv6CidrBlockAssociationSet {
			v6 = append(v6, a.Ipv6CidrBlock)
		}
		out := map[string]any{
			"SubnetId": v.SubnetId, "VpcId": v.VpcId, "AvailabilityZone": v.AvailabilityZone,
			"AvailabilityZoneId": v.AvailabilityZoneId, "CidrBlock": v.CidrBlock, "Ipv6CidrBlocks": v6, "OutpostArn": v.OutpostArn,
		}
		a, err := aclAssociation(ctx, r, r.ID)
		if err != nil {
			return nil, err
		}
		out["NetworkAclAssociationId"] = a.NetworkAclAssociationId
		return out, nil
	},
}

func describeSubnet(ctx context.Context, r *Request) (*ec2api.Subnet, error) {
	out, err := call[ec2api.DescribeSubnetsResult](ctx, r, "ec2", "DescribeSubnets", &ec2api.DescribeSubnetsRequest{SubnetIds: []string{r.ID}})
	if err != nil {
		return nil, err
	}
	return first(out.Subnets, "InvalidSubnetID", r.ID)
}

// subnetAttributes sets what CreateSubnet has no parameters for: one attribute
// a call.
func subnetAttributes(ctx context.Context, r *Request) error {
	orFalse := func(m map[string]any, name string) *bool {
		if v := flag(m, name); v != nil {
			return v
		}
		return new(false)
	}
	names, before := object(r.Properties, "PrivateDnsNameOptionsOnLaunch"), object(r.Old, "PrivateDnsNameOptionsOnLaunch")
	for _, a := range []struct {
		name     string
		new, old map[string]any
		in       func(*bool) *ec2api.ModifySubnetAttributeRequest
	}{
		{"MapPublicIpOnLaunch", r.Properties, r.Old, func(v *bool) *ec2api.ModifySubnetAttributeRequest {
			return &ec2api.ModifySubnetAttributeRequest{MapPublicIpOnLaunch: boolean(v)}
		}},
		{"AssignIpv6AddressOnCreation", r.Properties, r.Old, func(v *bool) *ec2api.ModifySubnetAttributeRequest {
			return &ec2api.ModifySubnetAttributeRequest{AssignIpv6AddressOnCreation: boolean(v)}
		}},
		{"EnableDns64", r.Properties, r.Old, func(v *bool) *ec2api.ModifySubnetAttributeRequest {
			return &ec2api.ModifySubnetAttributeRequest{EnableDns64: boolean(v)}
		}},
		{"EnableResourceNameDnsARecord", names, before, func(v *bool) *ec2api.ModifySubnetAttributeRequest {
			return &ec2api.ModifySubnetAttributeRequest{EnableResourceNameDnsARecordOnLaunch: boolean(v)}
		}},
		{"EnableResourceNameDnsAAAARecord", names, before, func(v *bool) *ec2api.ModifySubnetAttributeRequest {
			return &ec2api.ModifySubnetAttributeRequest{EnableResourceNameDnsAAAARecordOnLaunch: boolean(v)}
		}},
	} {
		if same(a.new, a.old, a.name) {
			continue
		}
		in := a.in(orFalse(a.new, a.name))
		in.SubnetId = r.ID
		if err := do(ctx, r, "ec2", "ModifySubnetAttribute", in); err != nil {
			return err
		}
	}
	if h := text(names, "HostnameType"); h != text(before, "HostnameType") && h != "" {
		return do(ctx, r, "ec2", "ModifySubnetAttribute", &ec2api.ModifySubnetAttributeRequest{SubnetId: r.ID, PrivateDnsHostnameTypeOnLaunch: h})
	}
	return nil
}

var subnetCIDRBlock = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		v, err := describeSubnet(ctx, &Request{Bus: r.Bus, ID: text(r.Properties, "SubnetId")})
		if err != nil {
			return "", err
		}
		for _, a := range v.Ipv6CidrBlockAssociationSet {
			if a.Ipv6CidrBlock == text(r.Properties, "Ipv6CidrBlock") {
				return a.AssociationId, nil
			}
		}
		return "", nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		in := &ec2api.AssociateSubnetCidrBlockRequest{}
		if err := fill(in, r.Properties); err != nil {
			return "", err
		}
		out, err := call[ec2api.AssociateSubnetCidrBlockResult](ctx, r, "ec2", "AssociateSubnetCidrBlock", in)
		if err != nil {
			return "", err
		}
		return out.Ipv6CidrBlockAssociation.AssociationId, nil
	},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, "ec2", "DisassociateSubnetCidrBlock", &ec2api.DisassociateSubnetCidrBlockRequest{AssociationId: r.ID}))
	},
	Attributes: idAttribute("Id"),
}
