package provider

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
)

var securityGroup = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.DescribeSecurityGroupsResult](ctx, r, "ec2", "DescribeSecurityGroups", &ec2api.DescribeSecurityGroupsRequest{Filters: r.ours()})
		if err != nil {
			return "", err
		}
		var ids []string
		for _, v := range out.SecurityGroups {
			ids = append(ids, v.GroupId)
		}
		return r.pick(ids), nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.CreateSecurityGroupResult](ctx, r, "ec2", "CreateSecurityGroup", &ec2api.CreateSecurityGroupRequest{
			Description: text(r.Properties, "GroupDescription"), GroupName: r.custom("GroupName", 255),
			VpcId: text(r.Properties, "VpcId"), TagSpecifications: r.specification("security-group"),
		})
		if err != nil {
			return "", err
		}
		return out.GroupId, nil
	},
	Configure: syncRules,
	Update: func(ctx context.Context, r *Request) error {
		if err := syncRules(ctx, r); err != nil {
			return err
		}
		return retag(ctx, r)
	},
	Mutable: []string{"SecurityGroupIngress", "SecurityGroupEgress", "Tags"},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, "ec2", "DeleteSecurityGroup", &ec2api.DeleteSecurityGroupRequest{GroupId: r.ID}))
	},
	Attributes: func(ctx context.Context, r *Request) (map[string]any, error) {
		g, err := describeGroup(ctx, r, r.ID)
		if err != nil {
			return nil, err
		}
		return map[string]any{"GroupId": g.GroupId, "Id": g.GroupId, "VpcId": g.VpcId}, nil
	},
	Named: "GroupName",
}

func describeGroup(ctx context.Context, r *Request, id string) (*ec2api.SecurityGroup, error) {
	out, err := call[ec2api.DescribeSecurityGroupsResult](ctx, r, "ec2", "DescribeSecurityGroups", &ec2api.DescribeSecurityGroupsRequest{GroupIds: []string{id}})
	if err != nil {
		return nil, err
	}
	return first(out.SecurityGroups, "InvalidGroup", id)
}

// rule is one source or destination of one permission.
type rule struct {
	protocol, from, to string
	kind, peer         string // v4, v6, group or list, and which
}

// protocolName writes a protocol as EC2 does.
func protocolName(p string) string {
	switch p = strings.ToLower(p); p {
	case "all":
		return "-1"
	case "6":
		return "tcp"
	case "17":
		return "udp"
	case "1":
		return "icmp"
	case "58":
		return "icmpv6"
	}
	return p
}

// ruleOf reads a rule of a template, with its description.
func ruleOf(p map[string]any) (rule, *ec2api.IpPermission, error) {
	perm := &ec2api.IpPermission{IpProtocol: protocolName(text(p, "IpProtocol")), FromPort: number(p, "FromPort"), ToPort: number(p, "ToPort")}
	k := rule{protocol: perm.IpProtocol, from: text(p, "FromPort"), to: text(p, "ToPort")}
	if perm.IpProtocol == "-1" { // all protocols have no ports
		perm.FromPort, perm.ToPort, k.from, k.to = nil, nil, "", ""
	}
	note := text(p, "Description")
	group := text(p, "SourceSecurityGroupId") + text(p, "DestinationSecurityGroupId")
	list := text(p, "SourcePrefixListId") + text(p, "DestinationPrefixListId")
	switch {
	case text(p, "CidrIp") != "":
		k.kind, k.peer = "v4", text(p, "CidrIp")
		perm.IpRanges = []*ec2api.IpRange{{CidrIp: k.peer, Description: note}}
	case text(p, "CidrIpv6") != "":
		k.kind, k.peer = "v6", text(p, "CidrIpv6")
		perm.Ipv6Ranges = []*ec2api.Ipv6Range{{CidrIpv6: k.peer, Description: note}}
	case group != "":
		k.kind, k.peer = "group", group
		perm.UserIdGroupPairs = []*ec2api.UserIdGroupPair{{GroupId: group, UserId: text(p, "SourceSecurityGroupOwnerId"), Description: note}}
	case list != "":
		k.kind, k.peer = "list", list
		perm.PrefixListIds = []*ec2api.PrefixListId{{PrefixListId: list, Description: note}}
	default:
		return k, nil, fmt.Errorf("a security group rule needs one of CidrIp, CidrIpv6 and a security group's id")
	}
	return k, perm, nil
}

// rulesOf takes live permissions apart.
func rulesOf(ps []*ec2api.IpPermission) map[rule]*ec2api.IpPermission {
	out := map[rule]*ec2api.IpPermission{}
	port := func(p *int64) string {
		if p == nil {
			return ""
		}
		return fmt.Sprint(*p)
	}
	for _, p := range ps {
		k := rule{protocol: protocolName(p.IpProtocol), from: port(p.FromPort), to: port(p.ToPort)}
		if k.protocol == "-1" {
			k.from, k.to = "", ""
		}
		one := func(kind, peer string, f func(*ec2api.IpPermission)) {
			k := k
			k.kind, k.peer = kind, peer
			perm := &ec2api.IpPermission{IpProtocol: p.IpProtocol, FromPort: p.FromPort, ToPort: p.ToPort}
			f(perm)
			out[k] = perm
		}
		for _, x := range p.IpRanges {
			one("v4", x.CidrIp, func(p *ec2api.IpPermission) { p.IpRanges = []*ec2api.IpRange{x} })
		}
		for _, x := range p.Ipv6Ranges {
			one("v6", x.CidrIpv6, func(p *ec2api.IpPermission) { p.Ipv6Ranges = []*ec2api.Ipv6Range{x} })
		}
		for _, x := range p.UserIdGroupPairs {
			one("group", x.GroupId, func(p *ec2api.IpPermission) { p.UserIdGroupPairs = []*ec2api.UserIdGroupPair{x} })
		}
		for _, x := range p.PrefixListIds {
			one("list", x.PrefixListId, func(p *ec2api.IpPermission) { p.PrefixListIds = []*ec2api.PrefixListId{x} })
		}
	}
	return out
}

// syncRules makes a group's own rules those of the template. Rules that others
// added, such as AWS::EC2::SecurityGroupIngress resources, stay.
func syncRules(ctx context.Context, r *Request) error {
	if len(list(r.Properties, "SecurityGroupIngress"))+len(list(r.Properties, "SecurityGroupEgress")) == 0 && r.Old == nil {
		return nil
	}
	g, err := describeGroup(ctx, r, r.ID)
	if err != nil {
		return err
	}
	// Until there is a rule of the template's, everything may go out.
	anywhere := rule{protocol: "-1", kind: "v4", peer: "0.0.0.0/0"}
	everywhere := []any{map[string]any{"IpProtocol": "-1", "CidrIp": anywhere.peer}}
	side := func(property, authorize, revoke string, live []*ec2api.IpPermission, egress bool) error {
		now := rulesOf(live)
		want, notes, err := wantedRules(r.Properties, property)
		if err != nil {
			return err
		}
		before, oldNotes, err := wantedRules(r.Old, property)
		if err != nil {
			return err
		}
		if egress && len(list(r.Properties, property)) == 0 {
			if len(list(r.Old, property)) == 0 {
				return nil
			}
			want, _, err = wantedRules(map[string]any{property: everywhere}, property)
			if err != nil {
				return err
			}
		} else if egress && len(list(r.Old, property)) == 0 {
			before[anywhere] = now[anywhere]
		}
		var add, remove []*ec2api.IpPermission
		for _, k := range sortedRules(want) {
			if _, ok := now[k]; !ok {
				add = append(add, want[k])
			} else if old, ok := oldNotes[k]; ok && old != notes[k] {
				add, remove = append(add, want[k]), append(remove, now[k])
			}
		}
		for _, k := range sortedRules(before) {
			if _, ok := want[k]; !ok && now[k] != nil {
				remove = append(remove, now[k])
			}
		}
		if err := changeRules(ctx, r, revoke, remove); err != nil && !NotFound(err) {
			return err
		}
		if err := changeRules(ctx, r, authorize, add); err != nil && Code(err) != "InvalidPermission.Duplicate" {
			return err
		}
		return nil
	}
	if err := side("SecurityGroupIngress", "AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress", g.IpPermissions, false); err != nil {
		return err
	}
	return side("SecurityGroupEgress", "AuthorizeSecurityGroupEgress", "RevokeSecurityGroupEgress", g.IpPermissionsEgress, true)
}

func sortedRules(m map[rule]*ec2api.IpPermission) []rule {
	return slices.SortedFunc(maps.Keys(m), func(a, b rule) int {
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	})
}

func wantedRules(p map[string]any, property string) (rules map[rule]*ec2api.IpPermission, notes map[rule]string, err error) {
	rules, notes = map[rule]*ec2api.IpPermission{}, map[rule]string{}
	for _, x := range list(p, property) {
		m, _ := x.(map[string]any)
		k, perm, err := ruleOf(m)
		if err != nil {
			return nil, nil, err
		}
		rules[k], notes[k] = perm, text(m, "Description")
	}
	return rules, notes, nil
}

func changeRules(ctx context.Context, r *Request, operation string, ps []*ec2api.IpPermission) error {
	if len(ps) == 0 {
		return nil
	}
	var in any
	switch operation {
	case "AuthorizeSecurityGroupIngress":
		in = &ec2api.AuthorizeSecurityGroupIngressRequest{GroupId: r.ID, IpPermissions: ps}
	case "AuthorizeSecurityGroupEgress":
		in = &ec2api.AuthorizeSecurityGroupEgressRequest{GroupId: r.ID, IpPermissions: ps}
	case "RevokeSecurityGroupIngress":
		in = &ec2api.RevokeSecurityGroupIngressRequest{GroupId: r.ID, IpPermissions: ps}
	default:
		in = &ec2api.RevokeSecurityGroupEgressRequest{GroupId: r.ID, IpPermissions: ps}
	}
	return do(ctx, r, "ec2", operation, in)
}

// ruleProvider treats a rule that is a resource of its own. Its physical id is
// the group's with the rule's key: a group has a rule once only.
func ruleProvider(authorize, revoke string, live func(*ec2api.SecurityGroup) []*ec2api.IpPermission) *Provider {
	id := func(group string, k rule) string {
		return strings.Join([]string{group, k.protocol, k.from, k.to, k.peer}, "|")
	}
	within := func(r *Request) *Request { return &Request{Bus: r.Bus, ID: text(r.Properties, "GroupId")} }
	return &Provider{
		Find: func(ctx context.Context, r *Request) (string, error) {
			group := text(r.Properties, "GroupId")
			g, err := describeGroup(ctx, r, group)
			if err != nil {
				return "", err
			}
			k, _, err := ruleOf(r.Properties)
			if _, ok := rulesOf(live(g))[k]; err != nil || !ok {
				return "", err
			}
			return id(group, k), nil
		},
		Create: func(ctx context.Context, r *Request) (string, error) {
			k, perm, err := ruleOf(r.Properties)
			if err != nil {
				return "", err
			}
			return id(text(r.Properties, "GroupId"), k), changeRules(ctx, within(r), authorize, []*ec2api.IpPermission{perm})
		},
		Remove: func(ctx context.Context, r *Request) error {
			_, perm, err := ruleOf(r.Properties)
			if err != nil {
				return err
			}
			return gone(changeRules(ctx, within(r), revoke, []*ec2api.IpPermission{perm}))
		},
		Attributes: idAttribute("Id"),
	}
}

var (
	securityGroupIngress = ruleProvider("AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress", func(g *ec2api.SecurityGroup) []*ec2api.IpPermission { return g.IpPermissions })
	securityGroupEgress  = ruleProvider("AuthorizeSecurityGroupEgress", "RevokeSecurityGroupEgress", func(g *ec2api.SecurityGroup) []*ec2api.IpPermission { return g.IpPermissionsEgress })
)
