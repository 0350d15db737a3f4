package ec2

import (
	"context"
	"net/netip"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// Network ACLs are kept and told, but the network has no stateless filters: the
// only entries that can be made are those that let everything pass, which is
// what happens without ACLs too. An ACL to which nobody has added such entries
// yet would drop everything on AWS and does not here.

func allowAll() []aclEntry {
	return []aclEntry{{Number: 100, CIDR: anywhere, Protocol: "-1"}, {Number: 100, CIDR: anywhere, Protocol: "-1", Egress: true}}
}

// CreateNetworkAcl makes an ACL without entries of its own.
func (s *Service) CreateNetworkAcl(ctx context.Context, in *ec2api.CreateNetworkAclRequest) (*ec2api.CreateNetworkAclResult, error) {
	tags, err := tagSpecs(ctx, in.TagSpecifications, "network-acl")
	if err != nil {
		return nil, err
	}
	out := &ec2api.CreateNetworkAclResult{ClientToken: in.ClientToken}
	hash := hashOf(in)
	return out, s.update(func(tx *state.Tx) error {
		ids, err := s.once(tx, "network-acl", in.ClientToken, hash)
		if err != nil {
			return err
		}
		if ids != nil {
			if a, ok := s.acls.Get(tx, ids[0]); ok {
				out.NetworkAcl = s.aclView(tx)(a)
				return nil
			}
		}
		if _, ok := s.vpcs.Get(tx, in.VpcId); !ok {
			return noVPC(in.VpcId)
		}
		a := acl{ID: s.newID("acl"), VPC: in.VpcId}
		s.acls.Put(tx, a.ID, a)
		s.putTags(tx, "network-acl", a.ID, tags["network-acl"])
		s.remember(tx, "network-acl", in.ClientToken, hash, a.ID)
		out.NetworkAcl = s.aclView(tx)(a)
		return dry(in.DryRun)
	})
}

// DeleteNetworkAcl deletes an ACL that no subnet uses.
func (s *Service) DeleteNetworkAcl(ctx context.Context, in *ec2api.DeleteNetworkAclRequest) error {
	return s.update(func(tx *state.Tx) error {
		a, ok := s.acls.Get(tx, in.NetworkAclId)
		if !ok {
			return noACL(in.NetworkAclId)
		}
		if a.Default {
			return wire.Errorf("InvalidParameterValue", "cannot delete default network ACL %s", a.ID)
		}
		for _, sn := range s.subnets.All(tx) {
			if sn.ACL == a.ID {
				return wire.Errorf("DependencyViolation", "The networkAcl '%s' has dependencies and cannot be deleted.", a.ID)
			}
		}
		s.acls.Delete(tx, a.ID)
		s.tagsOf.Delete(tx, a.ID)
		return dry(in.DryRun)
	})
}

// CreateNetworkAclEntry adds an entry that lets everything pass; see above.
func (s *Service) CreateNetworkAclEntry(ctx context.Context, in *ec2api.CreateNetworkAclEntryRequest) error {
	cidr := in.CidrBlock + in.Ipv6CidrBlock
	p, err := netip.ParsePrefix(cidr)
	switch {
	case in.CidrBlock != "" && in.Ipv6CidrBlock != "" || err != nil || p.Addr().Is4() != (in.CidrBlock != ""):
		return wire.Errorf("InvalidParameterValue", "Value (%.60s) for parameter cidrBlock is invalid. This is not a valid CIDR block.", cidr)
	case in.RuleNumber == nil || *in.RuleNumber < 1 || *in.RuleNumber > 32766:
		return wire.Errorf("InvalidParameterValue", "The rule number of a network ACL's entry is between 1 and 32766")
	case in.RuleAction != "allow" && in.RuleAction != "deny":
		return wire.Errorf("InvalidParameterValue", "Value (%.20s) for parameter ruleAction is invalid", in.RuleAction)
	case in.RuleAction == "deny" || in.Protocol != "-1" || p.Bits() != 0:
		return unsupported("a network ACL entry other than one that allows protocol -1 for %s or %s; use security groups", anywhere, anywhere6)
	}
	return s.update(func(tx *state.Tx) error {
		a, ok := s.acls.Get(tx, in.NetworkAclId)
		if !ok {
			return noACL(in.NetworkAclId)
		}
		e := aclEntry{Number: *in.RuleNumber, Egress: yes(in.Egress), CIDR: p.String(), Protocol: "-1"}
		n := 0
		for _, o := range a.Entries {
			if o.Egress == e.Egress {
				n++
				if o.Number == e.Number {
					return wire.Errorf("NetworkAclEntryAlreadyExists", "The network acl entry identified by %d already exists.", e.Number)
				}
			}
		}
		if n >= 20 {
			return wire.Errorf("NetworkAclEntryLimitExceeded", "The maximum number of network acl entries has been reached.")
		}
		a.Entries = append(slices.Clone(a.Entries), e)
		s.acls.Put(tx, a.ID, a)
		return dry(in.DryRun)
	})
}

// DeleteNetworkAclEntry removes an entry. Where it was the last that let
// packets pass, they would be dropped on AWS; here that is refused for the
// ACLs that subnets of running instances use.
func (s *Service) DeleteNetworkAclEntry(ctx context.Context, in *ec2api.DeleteNetworkAclEntryRequest) error {
	return s.update(func(tx *state.Tx) error {
		a, ok := s.acls.Get(tx, in.NetworkAclId)
		if !ok {
			return noACL(in.NetworkAclId)
		}
		left := slices.DeleteFunc(slices.Clone(a.Entries), func(e aclEntry) bool {
			return in.RuleNumber != nil && e.Number == *in.RuleNumber && e.Egress == yes(in.Egress)
		})
		if len(left) == len(a.Entries) {
			return wire.Errorf("InvalidNetworkAclEntry.NotFound", "The network acl entry with the rule number in the network acl '%s' does not exist", a.ID)
		}
		open := slices.ContainsFunc(left, func(e aclEntry) bool { return e.CIDR == anywhere && e.Egress == yes(in.Egress) })
		for _, sn := range s.subnets.All(tx) {
			if !open && sn.ACL == a.ID && len(s.ix.inSubnet[sn.ID]) > 0 {
				return unsupported("a network ACL that lets nothing pass, for subnet %s", sn.ID)
			}
		}
		a.Entries = left
		s.acls.Put(tx, a.ID, a)
		return dry(in.DryRun)
	})
}

// ReplaceNetworkAclAssociation gives a subnet another ACL.
func (s *Service) ReplaceNetworkAclAssociation(ctx context.Context, in *ec2api.ReplaceNetworkAclAssociationRequest) (*ec2api.ReplaceNetworkAclAssociationResult, error) {
	out := &ec2api.ReplaceNetworkAclAssociationResult{NewAssociationId: s.newID("aclassoc")}
	return out, s.update(func(tx *state.Tx) error {
		a, ok := s.acls.Get(tx, in.NetworkAclId)
		if !ok {
			return noACL(in.NetworkAclId)
		}
		for _, sn := range s.subnets.All(tx) {
			if sn.ACLAssoc != in.AssociationId {
				continue
			}
			if sn.VPC != a.VPC {
				return wire.Errorf("InvalidParameterValue", "network ACL %s and subnet %s belong to different networks", a.ID, sn.ID)
			}
			sn.ACL, sn.ACLAssoc = a.ID, out.NewAssociationId
			s.subnets.Put(tx, sn.ID, sn)
			return dry(in.DryRun)
		}
		return noAssociation(in.AssociationId)
	})
}

func (s *Service) aclView(tx *state.Tx) func(acl) *ec2api.NetworkAcl {
	by := map[string][]subnet{}
	for _, sn := range s.subnets.All(tx) {
		by[sn.ACL] = append(by[sn.ACL], sn)
	}
	return func(a acl) *ec2api.NetworkAcl {
		o := &ec2api.NetworkAcl{NetworkAclId: a.ID, VpcId: a.VPC, IsDefault: new(a.Default), OwnerId: s.cfg.Account, Tags: s.tagList(tx, a.ID)}
		entry := func(e aclEntry, action string) {
			x := &ec2api.NetworkAclEntry{Egress: new(e.Egress), Protocol: e.Protocol, RuleAction: action, RuleNumber: new(e.Number)}
			if e.CIDR == anywhere6 {
				x.Ipv6CidrBlock = e.CIDR
			} else {
				x.CidrBlock = e.CIDR
			}
			o.Entries = append(o.Entries, x)
		}
		for _, e := range a.Entries {
			entry(e, "allow")
		}
		for _, egress := range []bool{false, true} {
			entry(aclEntry{Number: 32767, Egress: egress, Protocol: "-1", CIDR: anywhere}, "deny")
		}
		for _, sn := range by[a.ID] {
			o.Associations = append(o.Associations, &ec2api.NetworkAclAssociation{NetworkAclAssociationId: sn.ACLAssoc, NetworkAclId: a.ID, SubnetId: sn.ID})
		}
		return o
	}
}

var aclFields = filter.Fields[*ec2api.NetworkAcl]{
	Tags: func(v *ec2api.NetworkAcl) []*ec2api.Tag { return v.Tags },
	By: map[string]func(*ec2api.NetworkAcl) []string{
		"network-acl-id": func(v *ec2api.NetworkAcl) []string { return filter.One(v.NetworkAclId) },
		"vpc-id":         func(v *ec2api.NetworkAcl) []string { return filter.One(v.VpcId) },
		"owner-id":       func(v *ec2api.NetworkAcl) []string { return filter.One(v.OwnerId) },
		"default":        func(v *ec2api.NetworkAcl) []string { return filter.Bool(v.IsDefault) },
		"association.subnet-id": func(v *ec2api.NetworkAcl) (o []string) {
			for _, a := range v.Associations {
				o = append(o, a.SubnetId)
			}
			return o
		},
		"association.association-id": func(v *ec2api.NetworkAcl) (o []string) {
			for _, a := range v.Associations {
				o = append(o, a.NetworkAclAssociationId)
			}
			return o
		},
		"association.network-acl-id": func(v *ec2api.NetworkAcl) (o []string) {
			for _, a := range v.Associations {
				o = append(o, a.NetworkAclId)
			}
			return o
		},
	},
}

// DescribeNetworkAcls lists network ACLs.
func (s *Service) DescribeNetworkAcls(ctx context.Context, in *ec2api.DescribeNetworkAclsRequest) (*ec2api.DescribeNetworkAclsResult, error) {
	out := &ec2api.DescribeNetworkAclsResult{}
	q := query[ec2api.NetworkAcl]{ids: in.NetworkAclIds, filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: aclFields,
		id: func(v *ec2api.NetworkAcl) string { return v.NetworkAclId }, missing: noACL}
	var err error
	s.view(func(tx *state.Tx) { out.NetworkAcls, out.NextToken, err = list(tx, q, s.acls, s.aclView(tx)) })
	if err != nil {
		return nil, err
	}
	return out, nil
}
