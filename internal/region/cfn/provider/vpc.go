package provider

import (
	"context"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

func boolean(v *bool) *ec2api.AttributeBooleanValue { return &ec2api.AttributeBooleanValue{Value: v} }

// first returns a list's only element, or the error of AWS for what is not there.
func first[T any](items []*T, kind, id string) (*T, error) {
	if len(items) == 0 {
		return nil, wire.Errorf(kind+".NotFound", "The ID '%s' does not exist", id)
	}
	return items[0], nil
}

var vpc = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.DescribeVpcsResult](ctx, r, "ec2", "DescribeVpcs", &ec2api.DescribeVpcsRequest{Filters: r.ours()})
		if err != nil {
			return "", err
		}
		var ids []string
		for _, v := range out.Vpcs {
			ids = append(ids, v.VpcId)
		}
		return r.pick(ids), nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		in := &ec2api.CreateVpcRequest{TagSpecifications: r.specification("vpc")}
		if err := fill(in, r.Properties, "Tags", "EnableDnsSupport", "EnableDnsHostnames"); err != nil {
			return "", err
		}
		out, err := call[ec2api.CreateVpcResult](ctx, r, "ec2", "CreateVpc", in)
		if err != nil {
			return "", err
		}
		return out.Vpc.VpcId, nil
	},
	Configure: vpcAttributes,
	Ready: func(ctx context.Context, r *Request) (bool, error) {
		v, err := describeVPC(ctx, r)
		return err == nil && v.State == "available", err
	},
	Update: func(ctx context.Context, r *Request) error {
		if err := vpcAttributes(ctx, r); err != nil {
			return err
		}
		return retag(ctx, r)
	},
	Mutable: []string{"EnableDnsSupport", "EnableDnsHostnames", "Tags"},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, "ec2", "DeleteVpc", &ec2api.DeleteVpcRequest{VpcId: r.ID}))
	},
	Attributes: func(ctx context.Context, r *Request) (map[string]any, error) {
		v, err := describeVPC(ctx, r)
		if err != nil {
			return nil, err
		}
		out := map[string]any{"VpcId": v.VpcId, "CidrBlock": v.CidrBlock}
		var v4, v6 []string
		for _, a := range v.CidrBlockAssociationSet {
			v4 = append(v4, a.AssociationId)
		}
		for _, a := range v.Ipv6CidrBlockAssociationSet {
			if a.Ipv6CidrBlockState == nil || a.Ipv6CidrBlockState.State == "associated" || a.Ipv6CidrBlockState.State == "associating" {
				v6 = append(v6, a.Ipv6CidrBlock)
			}
		}
		out["CidrBlockAssociations"], out["Ipv6CidrBlocks"] = v4, v6
		of := []*ec2api.Filter{{Name: "vpc-id", Values: []string{r.ID}}}
		groups, err := call[ec2api.DescribeSecurityGroupsResult](ctx, r, "ec2", "DescribeSecurityGroups", &ec2api.DescribeSecurityGroupsRequest{
			Filters: append(of, &ec2api.Filter{Name: "group-name", Values: []string{"default"}})})
		if err != nil {
			return nil, err
		}
		for _, g := range groups.SecurityGroups {
			out["DefaultSecurityGroup"] = g.GroupId
		}
		acls, err := call[ec2api.DescribeNetworkAclsResult](ctx, r, "ec2", "DescribeNetworkAcls", &ec2api.DescribeNetworkAclsRequest{
			Filters: append(of, &ec2api.Filter{Name: "default", Values: []string{"true"}})})
		if err != nil {
			return nil, err
		}
		for _, a := range acls.NetworkAcls {
			out["DefaultNetworkAcl"] = a.NetworkAclId
		}
		return out, nil
	},
}

func describeVPC(ctx context.Context, r *Request) (*ec2api.Vpc, error) {
	out, err := call[ec2api.DescribeVpcsResult](ctx, r, "ec2", "DescribeVpcs", &ec2api.DescribeVpcsRequest{VpcIds: []string{r.ID}})
	if err != nil {
		return nil, err
	}
	return first(out.Vpcs, "InvalidVpcID", r.ID)
}

// vpcAttributes sets what CreateVpc has no parameters for: one attribute a call.
func vpcAttributes(ctx context.Context, r *Request) error {
	set := func(name string, in *ec2api.ModifyVpcAttributeRequest) error {
		if same(r.Properties, r.Old, name) {
			return nil
		}
		in.VpcId = r.ID
		return do(ctx, r, "ec2", "ModifyVpcAttribute", in)
	}
	support, names := flag(r.Properties, "EnableDnsSupport"), flag(r.Properties, "EnableDnsHostnames")
	if support == nil {
		support = new(true)
	}
	if names == nil {
		names = new(false)
	}
	if err := set("EnableDnsSupport", &ec2api.ModifyVpcAttributeRequest{EnableDnsSupport: boolean(support)}); err != nil {
		return err
	}
	return set("EnableDnsHostnames", &ec2api.ModifyVpcAttributeRequest{EnableDnsHostnames: boolean(names)})
}

var vpcCIDRBlock = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		v, err := describeVPC(ctx, &Request{Bus: r.Bus, ID: text(r.Properties, "VpcId")})
		if err != nil {
			return "", err
		}
		var ids []string
		if block := text(r.Properties, "CidrBlock"); block != "" {
			for _, a := range v.CidrBlockAssociationSet {
				if a.CidrBlock == block && (a.CidrBlockState == nil || a.CidrBlockState.State != "disassociated") {
					ids = append(ids, a.AssociationId)
				}
			}
			return r.pick(ids), nil
		}
		for _, a := range v.Ipv6CidrBlockAssociationSet {
			if a.Ipv6CidrBlockState == nil || a.Ipv6CidrBlockState.State != "disassociated" {
				ids = append(ids, a.AssociationId)
			}
		}
		return r.pick(ids), nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		in := &ec2api.AssociateVpcCidrBlockRequest{}
		if err := fill(in, r.Properties); err != nil {
			return "", err
		}
		out, err := call[ec2api.AssociateVpcCidrBlockResult](ctx, r, "ec2", "AssociateVpcCidrBlock", in)
		switch {
		case err != nil:
			return "", err
		case out.Ipv6CidrBlockAssociation != nil:
			return out.Ipv6CidrBlockAssociation.AssociationId, nil
		}
		return out.CidrBlockAssociation.AssociationId, nil
	},
	Ready: func(ctx context.Context, r *Request) (bool, error) {
		v, err := describeVPC(ctx, &Request{Bus: r.Bus, ID: text(r.Properties, "VpcId")})
		if err != nil {
			return false, err
		}
		for _, a := range v.CidrBlockAssociationSet {
			if a.AssociationId == r.ID {
				return a.CidrBlockState == nil || a.CidrBlockState.State == "associated", nil
			}
		}
		for _, a := range v.Ipv6CidrBlockAssociationSet {
			if a.AssociationId == r.ID {
				return a.Ipv6CidrBlockState == nil || a.Ipv6CidrBlockState.State == "associated", nil
			}
		}
		return false, nil
	},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, "ec2", "DisassociateVpcCidrBlock", &ec2api.DisassociateVpcCidrBlockRequest{AssociationId: r.ID}))
	},
	Attributes: idAttribute("Id"),
}

// idAttribute gives the physical id under an attribute's name.
func idAttribute(name string) func(context.Context, *Request) (map[string]any, error) {
	return func(_ context.Context, r *Request) (map[string]any, error) {
		return map[string]any{name: r.ID}, nil
	}
}
