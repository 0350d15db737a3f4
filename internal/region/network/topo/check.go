package topo

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/network"
)

// Limits of what one VPC may hold; larger inputs are a caller's defect.
const (
	MaxCards  = 16384
	MaxRules  = 1000 // per group and direction
	MaxGroups = 16   // per card
)

var nameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

func invalid(object, format string, a ...any) error {
	return &fault.Error{Kind: fault.Invalid, Op: "network", Object: object, Message: fmt.Sprintf(format, a...)}
}

// Conflict is the fault of a change that what is there does not allow.
func Conflict(object, format string, a ...any) error {
	return &fault.Error{Kind: fault.Conflict, Op: "network", Object: object, Message: fmt.Sprintf(format, a...)}
}

// NotFound is the fault of a change to what is not there.
func NotFound(object string) error {
	return &fault.Error{Kind: fault.NotFound, Op: "network", Object: object, Message: "there is no such thing in the network"}
}

// CheckVPC checks a VPC by itself; internet is the region's public prefix.
func CheckVPC(v network.VPC, internet netip.Prefix) error {
	if !nameRE.MatchString(v.ID) {
		return invalid(v.ID, "a VPC's id must be a plain name")
	}
	if len(v.CIDRs) == 0 || len(v.CIDRs) > 50 {
		return invalid(v.ID, "a VPC needs 1 to 50 address ranges, not %d", len(v.CIDRs))
	}
	linkLocal := netip.MustParsePrefix("169.254.0.0/16")
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	for i, c := range v.CIDRs {
		switch {
		case !c.IsValid() || !c.Addr().Is4() || c.Bits() < 8 || c.Bits() > 28:
			return invalid(v.ID, "%s is not an IPv4 range between /8 and /28", c)
		case c.Overlaps(linkLocal) || c.Overlaps(loopback) || c.Overlaps(internet):
			return invalid(v.ID, "%s overlaps link-local, loopback or the region's internet %s", c, internet)
		}
		for _, o := range v.CIDRs[:i] {
			if o.Overlaps(c) {
				return invalid(v.ID, "%s overlaps %s", c, o)
			}
		}
	}
	return nil
}

// SetCIDRs changes the VPC's ranges where its subnets allow that.
func (v *VPC) SetCIDRs(cidrs []netip.Prefix) error {
	for _, s := range v.Subnets {
		if !slices.ContainsFunc(cidrs, func(p netip.Prefix) bool { return covers(p, s.CIDR) }) {
			return Conflict(v.ID, "subnet %s (%s) would be outside", s.ID, s.CIDR)
		}
	}
	v.CIDRs = slices.Clone(cidrs)
	return nil
}

func covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// SetSubnet adds or changes a subnet.
func (v *VPC) SetSubnet(s network.Subnet) error {
	switch {
	case !nameRE.MatchString(s.ID):
		return invalid(s.ID, "a subnet's id must be a plain name")
	case !s.CIDR.IsValid() || !s.CIDR.Addr().Is4() || s.CIDR.Bits() > 28:
		return invalid(s.ID, "%s is not an IPv4 range of /28 or larger", s.CIDR)
	case s.Egress != network.EgressNone && s.Egress != network.EgressInternet && s.Egress != network.EgressNAT:
		return invalid(s.ID, "egress %q is not known", s.Egress)
	case !slices.ContainsFunc(v.CIDRs, func(p netip.Prefix) bool { return covers(p, s.CIDR) }):
		return invalid(s.ID, "%s is not inside %s", s.CIDR, v.ID)
	}
	s.CIDR = s.CIDR.Masked()
	if old, ok := v.Subnets[s.ID]; ok && old.CIDR != s.CIDR {
		return Conflict(s.ID, "a subnet's range cannot change from %s to %s", old.CIDR, s.CIDR)
	}
	for _, o := range v.Subnets {
		if o.ID != s.ID && o.CIDR.Overlaps(s.CIDR) {
			return Conflict(s.ID, "%s overlaps %s of %s", s.CIDR, o.CIDR, o.ID)
		}
	}
	v.Subnets[s.ID] = s
	return nil
}

// DropSubnet removes a subnet without cards; an unknown one is no error.
func (v *VPC) DropSubnet(id string) error {
	for _, c := range v.Cards {
		if c.Subnet == id {
			return Conflict(id, "interface %s is still in it", c.ID)
		}
	}
	delete(v.Subnets, id)
	return nil
}

// SetGroup adds or changes a group.
func (v *VPC) SetGroup(g network.Group) error {
	if !nameRE.MatchString(g.ID) {
		return invalid(g.ID, "a group's id must be a plain name")
	}
	for _, rs := range [][]network.Rule{g.Ingress, g.Egress} {
		if len(rs) > MaxRules {
			return invalid(g.ID, "%d rules are more than %d", len(rs), MaxRules)
		}
		for _, r := range rs {
			if err := checkRule(g.ID, r); err != nil {
				return err
			}
		}
	}
	g.Ingress, g.Egress = slices.Clone(g.Ingress), slices.Clone(g.Egress)
	v.Groups[g.ID] = g
	return nil
}

func checkRule(group string, r network.Rule) error {
	proto, ok := Protocol(r.Protocol)
	if !ok {
		return invalid(group, "protocol %q is not tcp, udp, icmp, -1 or a number", r.Protocol)
	}
	if (r.Group == "") == !r.CIDR.IsValid() {
		return invalid(group, "a rule needs a peer: either a range or a group")
	}
	if r.Group != "" && !nameRE.MatchString(r.Group) {
		return invalid(group, "peer group %q is not a plain name", r.Group)
	}
	if r.CIDR.IsValid() && !r.CIDR.Addr().Is4() {
		return invalid(group, "peer %s is not IPv4", r.CIDR)
	}
	if proto != 6 && proto != 17 {
		if r.From < -1 || r.From > 255 || r.To < -1 || r.To > 255 {
			if proto == 1 {
				return invalid(group, "ICMP type %d or code %d is out of range", r.From, r.To)
			}
		}
		return nil
	}
	if r.From == -1 && r.To == -1 {
		return nil
	}
	if r.From < 0 || r.To > 65535 || r.From > r.To {
		return invalid(group, "ports %d to %d are not a range", r.From, r.To)
	}
	return nil
}

// Protocol is an IP protocol's number, -1 for all.
func Protocol(s string) (int, bool) {
	switch s {
	case "-1":
		return -1, true
	case "tcp":
		return 6, true
	case "udp":
		return 17, true
	case "icmp":
		return 1, true
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 0 && n <= 255
}

// DropGroup removes a group that no card carries; an unknown one is no error.
func (v *VPC) DropGroup(id string) error {
	for _, c := range v.Cards {
		if slices.Contains(c.Groups, id) {
			return Conflict(id, "interface %s still carries it", c.ID)
		}
	}
	delete(v.Groups, id)
	return nil
}

// SetCard adds a card, or changes the groups and the public address of one.
func (v *VPC) SetCard(c network.Interface) error {
	s, ok := v.Subnets[c.Subnet]
	switch {
	case !nameRE.MatchString(c.ID):
		return invalid(c.ID, "an interface's id must be a plain name")
	case !ok:
		return NotFound(c.Subnet)
	case !s.CIDR.Contains(c.IP) || c.IP == s.CIDR.Addr() || c.IP == Gateway(s) || c.IP == Last(s.CIDR) || slices.Contains(v.Resolvers(), c.IP):
		return invalid(c.ID, "%s is not a usable address of %s (%s)", c.IP, s.ID, s.CIDR)
	case c.Public.IsValid() && !c.Public.Is4():
		return invalid(c.ID, "public address %s is not IPv4", c.Public)
	case len(v.Cards) >= MaxCards:
		return invalid(c.ID, "a VPC holds at most %d interfaces", MaxCards)
	}
	if err := v.checkGroups(c.ID, c.Groups); err != nil {
		return err
	}
	if old, ok := v.Cards[c.ID]; ok && (old.Subnet != c.Subnet || old.IP != c.IP || old.Shared != c.Shared) {
		return Conflict(c.ID, "an interface's subnet and address cannot change")
	}
	c.Groups = sorted(c.Groups)
	v.Cards[c.ID] = c
	return nil
}

// CheckUnique refuses two cards with one address; it is apart from SetCard so
// that adding n cards does not cost n².
func (v *VPC) CheckUnique() error {
	private, public := map[netip.Addr]string{}, map[netip.Addr]string{}
	for _, c := range v.Cards {
		if o, ok := private[c.IP]; ok {
			return Conflict(c.ID, "%s is the address of %s", c.IP, o)
		}
		private[c.IP] = c.ID
		if !c.Public.IsValid() {
			continue
		}
		if o, ok := public[c.Public]; ok {
			return Conflict(c.ID, "%s is the public address of %s", c.Public, o)
		}
		public[c.Public] = c.ID
	}
	return nil
}

// SetGroups replaces a card's groups.
func (v *VPC) SetGroups(eni string, groups []string) error {
	c, ok := v.Cards[eni]
	if !ok {
		return NotFound(eni)
	}
	if err := v.checkGroups(eni, groups); err != nil {
		return err
	}
	c.Groups = sorted(groups)
	v.Cards[eni] = c
	return nil
}

func (v *VPC) checkGroups(eni string, groups []string) error {
	if len(groups) > MaxGroups {
		return invalid(eni, "%d groups are more than %d", len(groups), MaxGroups)
	}
	for _, g := range groups {
		if _, ok := v.Groups[g]; !ok {
			return NotFound(g)
		}
	}
	return nil
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Compact(s)
}

// Last is a range's last address (its broadcast address).
func Last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

// CheckPublic refuses a public address that is not the region's.
func CheckPublic(c network.Interface, internet netip.Prefix) error {
	if c.Public.IsValid() && !internet.Contains(c.Public) {
		return invalid(c.ID, "public address %s is not in the region's internet %s", c.Public, internet)
	}
	return nil
}
