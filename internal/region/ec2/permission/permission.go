// Package permission is what the rules of a security group are: how EC2's
// IpPermissions expand into single rules and fold back, when two rules are the
// same, and what a rule means to the network. It must not know who has the
// rules, nor where they are kept.
package permission

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// Rule lets one kind of packet pass to or from one peer.
type Rule struct {
	ID          string // sgr-…
	Egress      bool
	Protocol    string // tcp, udp, icmp, icmpv6, a number, or -1 for all
	From, To    int    // -1 where all
	CIDR        string // exactly one of CIDR (IPv4 or IPv6) and
	Group       string // Group is set
	Description string
}

// Peer finds the group that a pair means.
type Peer func(*ec2api.UserIdGroupPair) (id string, err error)

// Expand checks permissions and makes single rules of them. Rules that come
// twice in one request are refused, as AWS does.
func Expand(perms []*ec2api.IpPermission, egress bool, peer Peer) ([]Rule, error) {
	var out []Rule
	for _, p := range perms {
		if p == nil {
			continue
		}
		base := Rule{Egress: egress}
		var err error
		if base.Protocol, base.From, base.To, err = traffic(p.IpProtocol, p.FromPort, p.ToPort); err != nil {
			return nil, err
		}
		if len(p.PrefixListIds) > 0 {
			return nil, wire.Errorf("UnsupportedOperation", "the local region has no prefix lists")
		}
		n := len(out)
		for _, r := range p.IpRanges {
			x := base
			if x.CIDR, err = cidr(r.CidrIp, true); err != nil {
				return nil, err
			}
			x.Description = r.Description
			out = append(out, x)
		}
		for _, r := range p.Ipv6Ranges {
			x := base
			if x.CIDR, err = cidr(r.CidrIpv6, false); err != nil {
				return nil, err
			}
			x.Description = r.Description
			out = append(out, x)
		}
		for _, g := range p.UserIdGroupPairs {
			x := base
			if x.Group, err = peer(g); err != nil {
				return nil, err
			}
			x.Description = g.Description
			out = append(out, x)
		}
		if len(out) == n {
			return nil, wire.Errorf("InvalidPermission.Malformed", "The permission names no range and no security group")
		}
	}
	if len(out) == 0 {
		return nil, wire.Errorf("MissingParameter", "The request must contain the parameter ipPermissions")
	}
	for i, r := range out {
		if len(r.Description) > 255 {
			return nil, wire.Errorf("InvalidParameterValue", "The description of a rule can be up to 255 characters")
		}
		if slices.ContainsFunc(out[:i], r.Same) {
			return nil, wire.Errorf("InvalidParameterValue", "The same permission must not appear multiple times")
		}
	}
	return out, nil
}

func traffic(proto string, fromPort, toPort *int64) (name string, from, to int, err error) {
	switch proto {
	case "":
		return "", 0, 0, wire.Errorf("MissingParameter", "The request must contain the parameter ipProtocol")
	case "-1", "all":
		return "-1", -1, -1, nil
	case "tcp", "6":
		name = "tcp"
	case "udp", "17":
		name = "udp"
	case "icmp", "1":
		name = "icmp"
	case "icmpv6", "58":
		name = "icmpv6"
	default:
		n, err := strconv.Atoi(proto)
		if err != nil || n < 0 || n > 255 {
			return "", 0, 0, wire.Errorf("InvalidPermission.Malformed", "Invalid IP protocol '%.20s'", proto)
		}
		return strconv.Itoa(n), -1, -1, nil // such protocols have no ports
	}
	from, to = -1, -1
	if fromPort != nil {
		from = int(max(min(*fromPort, 1<<20), -2))
	}
	if toPort != nil {
		to = int(max(min(*toPort, 1<<20), -2))
	}
	if name == "icmp" || name == "icmpv6" {
		if from < -1 || from > 255 || to < -1 || to > 255 || from == -1 && to != -1 {
			return "", 0, 0, wire.Errorf("InvalidParameterValue", "ICMP type or code (%d, %d) out of range", from, to)
		}
		return name, from, to, nil
	}
	switch {
	case fromPort == nil || toPort == nil:
		return "", 0, 0, wire.Errorf("InvalidParameterValue", "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.")
	case from < 0 || from > 65535 || to < 0 || to > 65535:
		return "", 0, 0, wire.Errorf("InvalidParameterValue", "TCP/UDP port (%d, %d) out of range", from, to)
	case from > to:
		return "", 0, 0, wire.Errorf("InvalidParameterValue", "Invalid TCP/UDP port range (%d:%d)", from, to)
	}
	return name, from, to, nil
}

func cidr(s string, v4 bool) (string, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4() != v4 || p.Addr().Zone() != "" {
		return "", wire.Errorf("InvalidParameterValue", "CIDR block %.60s is malformed", s)
	}
	return p.Masked().String(), nil
}

// Same tells whether two rules let the same packets pass.
func (r Rule) Same(o Rule) bool {
	return r.Egress == o.Egress && r.Protocol == o.Protocol && r.From == o.From && r.To == o.To && r.CIDR == o.CIDR && r.Group == o.Group
}

// V4 and V6 give the rule's range, "" where it is of the other kind.
func (r Rule) V4() string {
	if r.isV6() {
		return ""
	}
	return r.CIDR
}

// V6 gives the rule's IPv6 range, "" where it has none.
func (r Rule) V6() string {
	if r.isV6() {
		return r.CIDR
	}
	return ""
}

func (r Rule) isV6() bool {
	p, err := netip.ParsePrefix(r.CIDR)
	return err == nil && p.Addr().Is6()
}

// Network is what the rule means to packets; false for rules about IPv6, which
// the region's networks do not carry.
func (r Rule) Network() (network.Rule, bool) {
	if r.isV6() || r.Protocol == "icmpv6" {
		return network.Rule{}, false
	}
	n := network.Rule{Protocol: r.Protocol, From: r.From, To: r.To, Group: r.Group}
	if r.CIDR != "" {
		p, err := netip.ParsePrefix(r.CIDR)
		if err != nil {
			return network.Rule{}, false
		}
		n.CIDR = p
	}
	return n, true
}

// Fold makes IpPermissions of the rules of one direction, one for each
// protocol and port range.
func Fold(rules []Rule, egress bool, account string) []*ec2api.IpPermission {
	type key struct {
		proto    string
		from, to int
	}
	by := map[key]*ec2api.IpPermission{}
	var out []*ec2api.IpPermission
	for _, r := range rules {
		if r.Egress != egress {
			continue
		}
		k := key{r.Protocol, r.From, r.To}
		p := by[k]
		if p == nil {
			p = &ec2api.IpPermission{IpProtocol: r.Protocol}
			if r.Protocol == "tcp" || r.Protocol == "udp" || r.Protocol == "icmp" || r.Protocol == "icmpv6" {
				p.FromPort, p.ToPort = new(int64(r.From)), new(int64(r.To))
			}
			by[k] = p
			out = append(out, p)
		}
		switch {
		case r.Group != "":
			p.UserIdGroupPairs = append(p.UserIdGroupPairs, &ec2api.UserIdGroupPair{GroupId: r.Group, UserId: account, Description: r.Description})
		case r.isV6():
			p.Ipv6Ranges = append(p.Ipv6Ranges, &ec2api.Ipv6Range{CidrIpv6: r.CIDR, Description: r.Description})
		default:
			p.IpRanges = append(p.IpRanges, &ec2api.IpRange{CidrIp: r.CIDR, Description: r.Description})
		}
	}
	slices.SortStableFunc(out, func(a, b *ec2api.IpPermission) int {
		return cmp.Or(cmp.Compare(a.IpProtocol, b.IpProtocol), cmp.Compare(port(a.FromPort), port(b.FromPort)), cmp.Compare(port(a.ToPort), port(b.ToPort)))
	})
	return out
}

func port(p *int64) int64 {
	if p == nil {
		return -1
	}
	return *p
}

// Flat makes a permission of the parameters of old clients, which name a
// single rule outside IpPermissions; nil where there are none.
func Flat(proto, cidrIP string, from, to *int64, group string) *ec2api.IpPermission {
	if proto == "" && cidrIP == "" && group == "" && from == nil && to == nil {
		return nil
	}
	p := &ec2api.IpPermission{IpProtocol: proto, FromPort: from, ToPort: to}
	if cidrIP != "" {
		p.IpRanges = []*ec2api.IpRange{{CidrIp: cidrIP}}
	}
	if group != "" {
		p.UserIdGroupPairs = []*ec2api.UserIdGroupPair{{GroupName: group}}
		if proto == "" {
			p.IpProtocol = "-1"
		}
	}
	return p
}
