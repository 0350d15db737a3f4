package ec2

import (
	"context"
	"slices"
	"strconv"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/permission"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// maxRules is AWS's quota of rules of a group, for each direction.
const maxRules = 60

func number(n *int64) []string {
	if n == nil {
		return nil
	}
	return []string{strconv.FormatInt(*n, 10)}
}

// peerIn finds the groups that rules name, by id or by name, in one VPC.
func (s *Service) peerIn(tx *state.Tx, vpc string) permission.Peer {
	return func(p *ec2api.UserIdGroupPair) (string, error) {
		if p.UserId != "" && p.UserId != s.cfg.Account {
			return "", unsupported("a security group of another account")
		}
		g, ok := s.groups.Get(tx, p.GroupId)
		if p.GroupId == "" {
			g, ok = s.groupNamed(tx, vpc, p.GroupName)
		}
		if !ok || g.VPC != vpc {
			name := p.GroupId
			if name == "" {
				name = p.GroupName
			}
			return "", wire.Errorf("InvalidGroup.NotFound", "You have specified two resources that belong to different networks, or the security group '%.64s' does not exist", name)
		}
		return g.ID, nil
	}
}

func permissions(ps []*ec2api.IpPermission, flat *ec2api.IpPermission) ([]*ec2api.IpPermission, error) {
	if flat == nil {
		return ps, nil
	}
	if len(ps) > 0 {
		return nil, wire.Errorf("InvalidParameterCombination", "The parameter ipPermissions may not be used together with the parameters of a single rule")
	}
	return []*ec2api.IpPermission{flat}, nil
}

func ruleWords(r permission.Rule) string {
	peer := r.CIDR
	if peer == "" {
		peer = r.Group
	}
	ports := ""
	if r.From >= 0 {
		ports = ", from port: " + strconv.Itoa(r.From) + ", to port: " + strconv.Itoa(r.To)
	}
	proto := r.Protocol
	if proto == "-1" {
		proto = "ALL"
	}
	return "\"peer: " + peer + ", " + proto + ports + ", ALLOW\""
}

func (s *Service) authorize(ctx context.Context, id string, ps []*ec2api.IpPermission, specs []*ec2api.TagSpecification, egress bool, dryRun *bool) ([]*ec2api.SecurityGroupRule, error) {
	if id == "" {
		return nil, wire.Errorf("MissingParameter", "The request must contain the parameter groupId")
	}
	tags, err := tagSpecs(ctx, specs, "security-group-rule")
	if err != nil {
		return nil, err
	}
	var out []*ec2api.SecurityGroupRule
	var g group
	err = s.update(func(tx *state.Tx) error {
		var ok bool
		if g, ok = s.groups.Get(tx, id); !ok {
			return noGroup(id)
		}
		rules, err := permission.Expand(ps, egress, s.peerIn(tx, g.VPC))
		if err != nil {
			return err
		}
		n := 0
		for _, o := range g.Rules {
			if o.Egress == egress {
				n++
			}
			if i := slices.IndexFunc(rules, o.Same); i >= 0 {
				return wire.Errorf("InvalidPermission.Duplicate", "the specified rule %s already exists", ruleWords(rules[i]))
			}
		}
		if n+len(rules) > maxRules {
			return wire.Errorf("RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per security group has been reached.")
		}
		for i := range rules {
			rules[i].ID = s.newID("sgr")
			s.putTags(tx, "security-group-rule", rules[i].ID, tags["security-group-rule"])
		}
		g.Rules = append(slices.Clone(g.Rules), rules...)
		s.putGroup(tx, g)
		for _, r := range rules {
			out = append(out, s.ruleView(tx, g, r))
		}
		return dry(dryRun)
	})
	if err != nil {
		return nil, err
	}
	return out, s.pushGroup(ctx, g.VPC, g.ID)
}

// AuthorizeSecurityGroupIngress lets something in.
func (s *Service) AuthorizeSecurityGroupIngress(ctx context.Context, in *ec2api.AuthorizeSecurityGroupIngressRequest) (*ec2api.AuthorizeSecurityGroupIngressResult, error) {
	ps, err := permissions(in.IpPermissions, permission.Flat(in.IpProtocol, in.CidrIp, in.FromPort, in.ToPort, in.SourceSecurityGroupName))
	if err != nil {
		return nil, err
	}
	rules, err := s.authorize(ctx, in.GroupId, ps, in.TagSpecifications, false, in.DryRun)
	if err != nil {
		return nil, err
	}
	return &ec2api.AuthorizeSecurityGroupIngressResult{Return: new(true), SecurityGroupRules: rules}, nil
}

// AuthorizeSecurityGroupEgress lets something out.
func (s *Service) AuthorizeSecurityGroupEgress(ctx context.Context, in *ec2api.AuthorizeSecurityGroupEgressRequest) (*ec2api.AuthorizeSecurityGroupEgressResult, error) {
	ps, err := permissions(in.IpPermissions, permission.Flat(in.IpProtocol, in.CidrIp, in.FromPort, in.ToPort, in.SourceSecurityGroupName))
	if err != nil {
		return nil, err
	}
	rules, err := s.authorize(ctx, in.GroupId, ps, in.TagSpecifications, true, in.DryRun)
	if err != nil {
		return nil, err
	}
	return &ec2api.AuthorizeSecurityGroupEgressResult{Return: new(true), SecurityGroupRules: rules}, nil
}

func (s *Service) revoke(ctx context.Context, id string, ids []string, ps []*ec2api.IpPermission, egress bool, dryRun *bool) ([]*ec2api.RevokedSecurityGroupRule, error) {
	switch {
	case id == "":
		return nil, wire.Errorf("MissingParameter", "The request must contain the parameter groupId")
	case len(ids) > 0 && len(ps) > 0:
		return nil, wire.Errorf("InvalidParameterCombination", "The parameter securityGroupRuleIds may not be used together with ipPermissions")
	case len(ids) == 0 && len(ps) == 0:
		return nil, wire.Errorf("MissingParameter", "Either 'ipPermissions' or 'securityGroupRuleIds' should be provided.")
	}
	var out []*ec2api.RevokedSecurityGroupRule
	var g group
	err := s.update(func(tx *state.Tx) error {
		var ok bool
		if g, ok = s.groups.Get(tx, id); !ok {
			return noGroup(id)
		}
		left := slices.Clone(g.Rules)
		gone := func(i int) {
			r := left[i]
			left = slices.Delete(left, i, i+1)
			s.tagsOf.Delete(tx, r.ID)
			out = append(out, &ec2api.RevokedSecurityGroupRule{SecurityGroupRuleId: r.ID, GroupId: g.ID, IsEgress: new(egress), IpProtocol: r.Protocol,
				FromPort: new(int64(r.From)), ToPort: new(int64(r.To)), CidrIpv4: r.V4(), CidrIpv6: r.V6(), ReferencedGroupId: r.Group, Description: r.Description})
		}
		for _, rid := range ids {
			i := slices.IndexFunc(left, func(r permission.Rule) bool { return r.ID == rid && r.Egress == egress })
			if i < 0 {
				return noRule(rid)
			}
			gone(i)
		}
		if len(ps) > 0 {
			rules, err := permission.Expand(ps, egress, s.peerIn(tx, g.VPC))
			if err != nil {
				return err
			}
			for _, r := range rules {
				i := slices.IndexFunc(left, r.Same)
				if i < 0 {
					return wire.Errorf("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
				}
				gone(i)
			}
		}
		g.Rules = left
		s.putGroup(tx, g)
		return dry(dryRun)
	})
	if err != nil {
		return nil, err
	}
	return out, s.pushGroup(ctx, g.VPC, g.ID)
}

// RevokeSecurityGroupIngress takes ingress rules away, all or none.
func (s *Service) RevokeSecurityGroupIngress(ctx context.Context, in *ec2api.RevokeSecurityGroupIngressRequest) (*ec2api.RevokeSecurityGroupIngressResult, error) {
	ps, err := permissions(in.IpPermissions, permission.Flat(in.IpProtocol, in.CidrIp, in.FromPort, in.ToPort, in.SourceSecurityGroupName))
	if err != nil {
		return nil, err
	}
	rules, err := s.revoke(ctx, in.GroupId, in.SecurityGroupRuleIds, ps, false, in.DryRun)
	if err != nil {
		return nil, err
	}
	return &ec2api.RevokeSecurityGroupIngressResult{Return: new(true), RevokedSecurityGroupRules: rules}, nil
}

// RevokeSecurityGroupEgress takes egress rules away, all or none.
func (s *Service) RevokeSecurityGroupEgress(ctx context.Context, in *ec2api.RevokeSecurityGroupEgressRequest) (*ec2api.RevokeSecurityGroupEgressResult, error) {
	ps, err := permissions(in.IpPermissions, permission.Flat(in.IpProtocol, in.CidrIp, in.FromPort, in.ToPort, in.SourceSecurityGroupName))
	if err != nil {
		return nil, err
	}
	rules, err := s.revoke(ctx, in.GroupId, in.SecurityGroupRuleIds, ps, true, in.DryRun)
	if err != nil {
		return nil, err
	}
	return &ec2api.RevokeSecurityGroupEgressResult{Return: new(true), RevokedSecurityGroupRules: rules}, nil
}

func (s *Service) ruleView(tx *state.Tx, g group, r permission.Rule) *ec2api.SecurityGroupRule {
	o := &ec2api.SecurityGroupRule{SecurityGroupRuleId: r.ID, SecurityGroupRuleArn: s.arn("security-group-rule", r.ID), GroupId: g.ID, GroupOwnerId: s.cfg.Account,
		IsEgress: new(r.Egress), IpProtocol: r.Protocol, FromPort: new(int64(r.From)), ToPort: new(int64(r.To)), CidrIpv4: r.V4(), CidrIpv6: r.V6(),
		Description: r.Description, Tags: s.tagList(tx, r.ID)}
	if r.Group != "" {
		o.ReferencedGroupInfo = &ec2api.ReferencedSecurityGroup{GroupId: r.Group, UserId: s.cfg.Account, VpcId: g.VPC}
	}
	return o
}

var ruleFields = filter.Fields[*ec2api.SecurityGroupRule]{
	Tags: func(v *ec2api.SecurityGroupRule) []*ec2api.Tag { return v.Tags },
	By: map[string]func(*ec2api.SecurityGroupRule) []string{
		"group-id":               func(v *ec2api.SecurityGroupRule) []string { return filter.One(v.GroupId) },
		"security-group-rule-id": func(v *ec2api.SecurityGroupRule) []string { return filter.One(v.SecurityGroupRuleId) },
	},
}

// DescribeSecurityGroupRules lists single rules.
func (s *Service) DescribeSecurityGroupRules(ctx context.Context, in *ec2api.DescribeSecurityGroupRulesRequest) (*ec2api.DescribeSecurityGroupRulesResult, error) {
	out := &ec2api.DescribeSecurityGroupRulesResult{}
	q := query[ec2api.SecurityGroupRule]{ids: in.SecurityGroupRuleIds, filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: ruleFields,
		id: func(v *ec2api.SecurityGroupRule) string { return v.SecurityGroupRuleId }, missing: noRule}
	var err error
	s.view(func(tx *state.Tx) {
		all := map[string]*ec2api.SecurityGroupRule{}
		for _, g := range s.groups.All(tx) {
			for _, r := range g.Rules {
				all[r.ID] = s.ruleView(tx, g, r)
			}
		}
		out.SecurityGroupRules, out.NextToken, err = q.run(sorted(all), func(id string) *ec2api.SecurityGroupRule { return all[id] })
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
