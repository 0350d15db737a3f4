package provider

import (
	"context"
	"fmt"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

var networkACL = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.DescribeNetworkAclsResult](ctx, r, "ec2", "DescribeNetworkAcls", &ec2api.DescribeNetworkAclsRequest{Filters: r.ours()})
		if err != nil {
			return "", err
		}
		var ids []string
		for _, v := range out.NetworkAcls {
			ids = append(ids, v.NetworkAclId)
		}
		return r.pick(ids), nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.CreateNetworkAclResult](ctx, r, "ec2", "CreateNetworkAcl", &ec2api.CreateNetworkAclRequest{
			VpcId: text(r.Properties, "VpcId"), ClientToken: r.Token(), TagSpecifications: r.specification("network-acl"),
		})
		if err != nil {
			return "", err
		}
		return out.NetworkAcl.NetworkAclId, nil
	},
	Update: retag, Mutable: []string{"Tags"},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, "ec2", "DeleteNetworkAcl", &ec2api.DeleteNetworkAclRequest{NetworkAclId: r.ID}))
	},
	Attributes: idAttribute("Id"),
}

func entryID(p map[string]any) string {
	side := "ingress"
	if e := flag(p, "Egress"); e != nil && *e {
		side = "egress"
	}
	return fmt.Sprintf("%s|%s|%s", text(p, "NetworkAclId"), text(p, "RuleNumber"), side)
}

var networkACLEntry = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.DescribeNetworkAclsResult](ctx, r, "ec2", "DescribeNetworkAcls", &ec2api.DescribeNetworkAclsRequest{NetworkAclIds: []string{text(r.Properties, "NetworkAclId")}})
		if err != nil {
			return "", err
		}
		want := entryID(r.Properties)
		for _, a := range out.NetworkAcls {
			for _, e := range a.Entries {
				if e.RuleNumber != nil && entryID(map[string]any{"NetworkAclId": a.NetworkAclId, "RuleNumber": *e.RuleNumber, "Egress": e.Egress != nil && *e.Egress}) == want {
					return want, nil
				}
			}
		}
		return "", nil
	},
	Create: createEntry,
	Update: func(ctx context.Context, r *Request) error {
		if err := removeEntry(ctx, r, r.Old); err != nil {
			return err
		}
		_, err := createEntry(ctx, r)
		return err
	},
	Mutable:    []string{"CidrBlock", "Icmp", "Ipv6CidrBlock", "PortRange", "Protocol", "RuleAction"},
	Remove:     func(ctx context.Context, r *Request) error { return removeEntry(ctx, r, r.Properties) },
	Attributes: idAttribute("Id"),
}

func createEntry(ctx context.Context, r *Request) (string, error) {
	in := &ec2api.CreateNetworkAclEntryRequest{Egress: new(false)}
	if err := fill(in, r.Properties, "Icmp"); err != nil {
		return "", err
	}
	if icmp := object(r.Properties, "Icmp"); icmp != nil {
		in.IcmpTypeCode = &ec2api.IcmpTypeCode{Code: number(icmp, "Code"), Type: number(icmp, "Type")}
	}
	return entryID(r.Properties), do(ctx, r, "ec2", "CreateNetworkAclEntry", in)
}

func removeEntry(ctx context.Context, r *Request, p map[string]any) error {
	egress := flag(p, "Egress")
	if egress == nil {
		egress = new(false)
	}
	return gone(do(ctx, r, "ec2", "DeleteNetworkAclEntry", &ec2api.DeleteNetworkAclEntryRequest{
		NetworkAclId: text(p, "NetworkAclId"), RuleNumber: number(p, "RuleNumber"), Egress: egress,
	}))
}

// aclAssociation is the association that a subnet has now.
func aclAssociation(ctx context.Context, r *Request, subnet string) (*ec2api.NetworkAclAssociation, error) {
	out, err := call[ec2api.DescribeNetworkAclsResult](ctx, r, "ec2", "DescribeNetworkAcls", &ec2api.DescribeNetworkAclsRequest{
		Filters: []*ec2api.Filter{{Name: "association.subnet-id", Values: []string{subnet}}}})
	if err != nil {
		return nil, err
	}
	for _, a := range out.NetworkAcls {
		for _, x := range a.Associations {
			if x.SubnetId == subnet {
				return x, nil
			}
		}
	}
	return nil, wire.Errorf("InvalidAssociationID.NotFound", "The subnet %s has no network ACL association", subnet)
}

// Every subnet always has an association: creating one moves the subnet's,
// deleting one moves it back to the VPC's default.
var networkACLAssociation = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		a, err := aclAssociation(ctx, r, text(r.Properties, "SubnetId"))
		if err != nil || a.NetworkAclId != text(r.Properties, "NetworkAclId") {
			return "", gone(err)
		}
		return a.NetworkAclAssociationId, nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		return associateACL(ctx, r, text(r.Properties, "SubnetId"), text(r.Properties, "NetworkAclId"))
	},
	Remove: func(ctx context.Context, r *Request) error {
		subnet := text(r.Properties, "SubnetId")
		a, err := aclAssociation(ctx, r, subnet)
		if err != nil || a.NetworkAclId != text(r.Properties, "NetworkAclId") {
			return gone(err)
		}
		s, err := describeSubnet(ctx, &Request{Bus: r.Bus, ID: subnet})
		if err != nil {
			return gone(err)
		}
		out, err := call[ec2api.DescribeNetworkAclsResult](ctx, r, "ec2", "DescribeNetworkAcls", &ec2api.DescribeNetworkAclsRequest{Filters: []*ec2api.Filter{
			{Name: "vpc-id", Values: []string{s.VpcId}}, {Name: "default", Values: []string{"true"}},
		}})
		if err != nil {
			return gone(err)
		}
		if len(out.NetworkAcls) == 0 {
			return nil
		}
		_, err = associateACL(ctx, r, subnet, out.NetworkAcls[0].NetworkAclId)
		return gone(err)
	},
	Attributes: idAttribute("AssociationId"),
	// A subnet in use is never under a list without entries, which lets nothing pass.
	After: map[string]string{"AWS::EC2::NetworkAclEntry": "NetworkAclId"},
}

func associateACL(ctx context.Context, r *Request, subnet, acl string) (string, error) {
	a, err := aclAssociation(ctx, r, subnet)
	if err != nil {
		return "", err
	}
	out, err := call[ec2api.ReplaceNetworkAclAssociationResult](ctx, r, "ec2", "ReplaceNetworkAclAssociation", &ec2api.ReplaceNetworkAclAssociationRequest{
		AssociationId: a.NetworkAclAssociationId, NetworkAclId: acl,
	})
	if err != nil {
		return "", err
	}
	return out.NewAssociationId, nil
}
