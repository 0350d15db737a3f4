// Package topo is what networks are made of, as data: VPCs with their subnets,
// groups and cards, the checks that every change must pass, and the decision
// whether a packet may pass. network/kernel renders it into kernel objects and
// network/sim answers from it, so that the two cannot disagree about rules. It
// must not do I/O, and knows neither kernels nor instances.
package topo

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/region/network"
)

// VPC is a network with all that is in it.
type VPC struct {
	network.VPC
	Router  netip.Addr // the VPC's own address in the region's internet
	Subnets map[string]network.Subnet
	Groups  map[string]network.Group
	Cards   map[string]network.Interface
}

// NewVPC is an empty network.
func NewVPC(v network.VPC, router netip.Addr) *VPC {
	return &VPC{
		VPC: v, Router: router,
		Subnets: map[string]network.Subnet{},
		Groups:  map[string]network.Group{},
		Cards:   map[string]network.Interface{},
	}
}

// Clone copies the maps, so that a change can be tried and dropped.
func (v *VPC) Clone() *VPC {
	c := *v
	c.Subnets, c.Groups, c.Cards = maps.Clone(v.Subnets), maps.Clone(v.Groups), maps.Clone(v.Cards)
	return &c
}

// Resolvers are the VPC+2 addresses, where a VPC's resolver answers.
func (v *VPC) Resolvers() []netip.Addr {
	out := make([]netip.Addr, 0, len(v.CIDRs))
	for _, c := range v.CIDRs {
		out = append(out, c.Masked().Addr().Next().Next())
	}
	return out
}

// Services are the addresses that every card of the VPC reaches, whatever its
// groups say.
func (v *VPC) Services() []netip.Addr {
	return append([]netip.Addr{network.MetadataAddr, network.ResolverAddr, network.EndpointAddr}, v.Resolvers()...)
}

// Gateway is a subnet's router: its .1.
func Gateway(s network.Subnet) netip.Addr { return s.CIDR.Masked().Addr().Next() }

// Contains tells whether an address is inside the VPC.
func (v *VPC) Contains(a netip.Addr) bool {
	return slices.ContainsFunc(v.CIDRs, func(p netip.Prefix) bool { return p.Contains(a) })
}

// PublicOf is a card's working public address: it has one, and its subnet's
// default route leads to an internet gateway.
func (v *VPC) PublicOf(c network.Interface) (netip.Addr, bool) {
	return c.Public, c.Public.IsValid() && v.Subnets[c.Subnet].Egress == network.EgressInternet
}

// SourceOf is the address with which a card's packets leave the VPC; false
// where they may not.
func (v *VPC) SourceOf(c network.Interface) (netip.Addr, bool) {
	if a, ok := v.PublicOf(c); ok {
		return a, true
	}
	if v.Subnets[c.Subnet].Egress == network.EgressNAT {
		return v.Router, true
	}
	return netip.Addr{}, false
}

// CardAt finds the card with a private address.
func (v *VPC) CardAt(a netip.Addr) (network.Interface, bool) {
	for _, c := range v.Cards {
		if c.IP == a {
			return c, true
		}
	}
	return network.Interface{}, false
}

// Members are a group's private addresses, sorted.
func (v *VPC) Members(group string) []netip.Addr {
	var out []netip.Addr
	for _, c := range v.Cards {
		if slices.Contains(c.Groups, group) {
			out = append(out, c.IP)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}
