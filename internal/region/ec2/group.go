package ec2

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/permission"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// maxGroupsPerCard is AWS's quota of security groups on an interface.
const maxGroupsPerCard = 5

var groupText = regexp.MustCompile(`^[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{1,255}$`)

// CreateSecurityGroup makes a group that lets nothing in and everything out.
func (s *Service) CreateSecurityGroup(ctx context.Context, in *ec2api.CreateSecurityGroupRequest) (*ec2api.CreateSecurityGroupResult, error) {
	switch {
	case in.GroupName == "":
		return nil, wire.Errorf("MissingParameter", "The request must contain the parameter GroupName")
	case in.Description == "":
		return nil, wire.Errorf("MissingParameter", "The request must contain the parameter GroupDescription")
	case !groupText.MatchString(in.GroupName) || strings.TrimSpace(in.GroupName) != in.GroupName:
		return nil, wire.Errorf("InvalidParameterValue", "Value (%.64s) for parameter GroupName is invalid. Character sets beyond ASCII are not supported.", in.GroupName)
	case strings.HasPrefix(in.GroupName, "sg-"):
		return nil, wire.Errorf("InvalidParameterValue", "Invalid value '%.64s' for groupName. Group names may not be in the format sg-*.", in.GroupName)
	case !groupText.MatchString(in.Description):
		return nil, wire.Errorf("InvalidParameterValue", "Value (%.64s) for parameter GroupDescription is invalid. Character sets beyond ASCII are not supported.", in.Description)
	case in.GroupName == "default":
		return nil, wire.Errorf("InvalidParameterValue", "Cannot use reserved security group name: default")
	case in.VpcId == "":
		return nil, wire.Errorf("VPCIdNotSpecified", "No default VPC for this user")
	}
	tags, err := tagSpecs(ctx, in.TagSpecifications, "security-group")
	if err != nil {
		return nil, err
	}
	g := group{ID: s.newID("sg"), VPC: in.VpcId, Name: in.GroupName, Description: in.Description, Rules: []permission.Rule{s.openEgress()}}
	err = s.update(func(tx *state.Tx) error {
		if _, ok := s.vpcs.Get(tx, in.VpcId); !ok {
			return noVPC(in.VpcId)
		}
		if _, ok := s.groupNamed(tx, in.VpcId, in.GroupName); ok {
			return wire.Errorf("InvalidGroup.Duplicate", "The security group '%s' already exists for VPC '%s'", in.GroupName, in.VpcId)
		}
		s.putGroup(tx, g)
		s.putTags(tx, "security-group", g.ID, tags["security-group"])
		return dry(in.DryRun)
	})
	if err != nil {
		return nil, err
	}
	if err := s.pushGroup(ctx, g.VPC, g.ID); err != nil {
		s.forget("group " + g.ID)
		if undo := s.update(func(tx *state.Tx) error { s.deleteGroup(tx, g.ID); return nil }); undo != nil {
			s.log.Error("a group that the network refused stays in the database", "group", g.ID, "error", undo)
		}
		return nil, err
	}
	return &ec2api.CreateSecurityGroupResult{GroupId: g.ID, SecurityGroupArn: s.arn("security-group", g.ID), Tags: tagsOut(tags["security-group"])}, nil
}

func (s *Service) groupNamed(tx *state.Tx, vpc, name string) (group, bool) {
	for _, g := range s.groups.All(tx) {
		if g.VPC == vpc && g.Name == name {
			return g, true
		}
	}
	return group{}, false
}

// DeleteSecurityGroup deletes a group that no interface has and no other
// group's rule names.
func (s *Service) DeleteSecurityGroup(ctx context.Context, in *ec2api.DeleteSecurityGroupRequest) (*ec2api.DeleteSecurityGroupResult, error) {
	if in.GroupId == "" {
		if in.GroupName == "" {
			return nil, wire.Errorf("MissingParameter", "The request must contain the parameter groupName or groupId")
		}
		return nil, wire.Errorf("VPCIdNotSpecified", "No default VPC for this user: name the group by its id")
	}
	var g group
	err := s.update(func(tx *state.Tx) error {
		var ok bool
		if g, ok = s.groups.Get(tx, in.GroupId); !ok {
			return noGroup(in.GroupId)
		}
		if g.Name == "default" {
			return wire.Errorf("CannotDelete", "the specified group: \"%s\" name: \"default\" cannot be deleted by a user", g.ID)
		}
		used := len(s.ix.inGroup[g.ID]) > 0
		for _, o := range s.groups.All(tx) {
			used = used || o.ID != g.ID && slices.ContainsFunc(o.Rules, func(r permission.Rule) bool { return r.Group == g.ID })
		}
		if used {
			return wire.Errorf("DependencyViolation", "resource %s has a dependent object", g.ID)
		}
		s.deleteGroup(tx, g.ID)
		return dry(in.DryRun)
	})
	if err != nil {
		return nil, err
	}
	s.forget("group " + g.ID)
	_ = s.push(ctx, g.VPC, "remove group "+g.ID, func(ctx context.Context) error { return s.net.RemoveGroup(ctx, g.VPC, g.ID) }) // push logs and retries
	return &ec2api.DeleteSecurityGroupResult{Return: new(true), GroupId: g.ID}, nil
}

func (s *Service) groupView(tx *state.Tx) func(group) *ec2api.SecurityGroup {
	return func(g group) *ec2api.SecurityGroup {
		return &ec2api.SecurityGroup{GroupId: g.ID, GroupName: g.Name, Description: g.Description, VpcId: g.VPC, OwnerId: s.cfg.Account, SecurityGroupArn: s.arn("security-group", g.ID),
			IpPermissions: permission.Fold(g.Rules, false, s.cfg.Account), IpPermissionsEgress: permission.Fold(g.Rules, true, s.cfg.Account), Tags: s.tagList(tx, g.ID)}
	}
}

// ofPermissions makes the filters of one direction: ip-permission.* and
// egress.ip-permission.*.
func ofPermissions(egress bool, f func(*ec2api.IpPermission) []string) func(*ec2api.SecurityGroup) []string {
	return func(g *ec2api.SecurityGroup) (o []string) {
		ps := g.IpPermissions
		if egress {
			ps = g.IpPermissionsEgress
		}
		for _, p := range ps {
			o = append(o, f(p)...)
		}
		return o
	}
}

var groupFields = groupFilters()

func groupFilters() filter.Fields[*ec2api.SecurityGroup] {
	f := filter.Fields[*ec2api.SecurityGroup]{
		Tags: func(v *ec2api.SecurityGroup) []*ec2api.Tag { return v.Tags },
		By: map[string]func(*ec2api.SecurityGroup) []string{
			"group-id":    func(v *ec2api.SecurityGroup) []string { return filter.One(v.GroupId) },
			"group-name":  func(v *ec2api.SecurityGroup) []string { return filter.One(v.GroupName) },
			"description": func(v *ec2api.SecurityGroup) []string { return filter.One(v.Description) },
			"vpc-id":      func(v *ec2api.SecurityGroup) []string { return filter.One(v.VpcId) },
			"owner-id":    func(v *ec2api.SecurityGroup) []string { return filter.One(v.OwnerId) },
		},
	}
	for prefix, egress := range map[string]bool{"ip-permission.": false, "egress.ip-permission.": true} {
		f.By[prefix+"protocol"] = ofPermissions(egress, func(p *ec2api.IpPermission) []string { return filter.One(p.IpProtocol) })
		f.By[prefix+"from-port"] = ofPermissions(egress, func(p *ec2api.IpPermission) []string { return number(p.FromPort) })
		f.By[prefix+"to-port"] = ofPermissions(egress, func(p *ec2api.IpPermission) []string { return number(p.ToPort) })
		f.By[prefix+"cidr"] = ofPermissions(egress, func(p *ec2api.IpPermission) (o []string) {
			for _, r := range p.IpRanges {
				o = append(o, r.CidrIp)
			}
			return o
		})
		f.By[prefix+"ipv6-cidr"] = ofPermissions(egress, func(p *ec2api.IpPermission) (o []string) {
			for _, r := range p.Ipv6Ranges {
				o = append(o, r.CidrIpv6)
			}
			return o
		})
		f.By[prefix+"group-id"] = ofPermissions(egress, func(p *ec2api.IpPermission) (o []string) {
			for _, r := range p.UserIdGroupPairs {
				o = append(o, r.GroupId)
			}
			return o
		})
	}
	return f
}

// DescribeSecurityGroups lists security groups.
func (s *Service) DescribeSecurityGroups(ctx context.Context, in *ec2api.DescribeSecurityGroupsRequest) (*ec2api.DescribeSecurityGroupsResult, error) {
	if len(in.GroupNames) > 0 {
		return nil, wire.Errorf("VPCIdNotSpecified", "No default VPC for this user: use the filters group-name and vpc-id")
	}
	out := &ec2api.DescribeSecurityGroupsResult{}
	q := query[ec2api.SecurityGroup]{ids: in.GroupIds, filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: groupFields,
		id: func(v *ec2api.SecurityGroup) string { return v.GroupId }, missing: noGroup}
	var err error
	s.view(func(tx *state.Tx) { out.SecurityGroups, out.NextToken, err = list(tx, q, s.groups, s.groupView(tx)) })
	if err != nil {
		return nil, err
	}
	return out, nil
}
