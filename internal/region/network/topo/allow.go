package topo

import (
	"net/netip"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/region/network"
)

// World is all VPCs of a region and its internet.
type World struct {
	Internet netip.Prefix
	VPCs     map[string]*VPC
}

// passes tells whether one of a card's groups lets a packet to or from peer pass.
func (v *VPC) passes(c network.Interface, ingress bool, peer netip.Addr, proto, port int) bool {
	for _, id := range c.Groups {
		rules := v.Groups[id].Egress
		if ingress {
			rules = v.Groups[id].Ingress
		}
		for _, r := range rules {
			if ruleMatches(r, proto, port) && v.peerMatches(r, peer) {
				return true
			}
		}
	}
	return false
}

func (v *VPC) peerMatches(r network.Rule, peer netip.Addr) bool {
	if r.Group == "" {
		return r.CIDR.Contains(peer)
	}
	c, ok := v.CardAt(peer)
	return ok && slices.Contains(c.Groups, r.Group)
}

// ruleMatches compares protocol and port; for ICMP port is the type.
func ruleMatches(r network.Rule, proto, port int) bool {
	want, _ := Protocol(r.Protocol)
	switch {
	case want == -1:
		return true
	case want != proto:
		return false
	case proto == 1:
		return r.From == -1 || r.From == port
	case proto != 6 && proto != 17, r.From == -1 && r.To == -1:
		return true
	}
	return r.From <= port && port <= r.To
}

// Allowed decides whether the first packet of a conversation arrives. src and
// dst are interface ids or addresses; an address as src is a host in the
// internet. For ICMP port is the type.
func (w *World) Allowed(src, dst, protocol string, port int) bool {
	proto, ok := Protocol(protocol)
	if !ok || proto == -1 {
		return false
	}
	if sv, s, ok := w.card(src); ok {
		return w.fromCard(sv, s, dst, proto, port)
	}
	from, err := netip.ParseAddr(src)
	if err != nil {
		return false
	}
	dv, d, ok := w.card(dst)
	if !ok {
		if to, err := netip.ParseAddr(dst); err == nil {
			dv, d, ok = w.public(to)
		}
	}
	if !ok {
		return false
	}
	_, open := dv.PublicOf(d)
	return open && !dv.Contains(from) && dv.passes(d, true, from, proto, port)
}

func (w *World) fromCard(v *VPC, s network.Interface, dst string, proto, port int) bool {
	to, err := netip.ParseAddr(dst)
	if err != nil {
		dv, d, ok := w.card(dst)
		if !ok || dv != v {
			return false // another VPC's private addresses do not exist here
		}
		to = d.IP
	}
	switch {
	case slices.Contains(v.Services(), to):
		return true
	case v.Contains(to):
		d, ok := v.CardAt(to)
		return ok && v.between(s, d, proto, port)
	case to.IsLinkLocalUnicast(), to.IsLoopback(), to.IsMulticast(), !to.Is4(), to == w.Internet.Masked().Addr().Next():
		return false
	}
	from, ok := v.SourceOf(s)
	if !ok {
		return false
	}
	dv, d, ok := w.public(to)
	if ok && dv == v {
		return v.between(s, d, proto, port)
	}
	if !v.passes(s, false, to, proto, port) {
		return false
	}
	if ok {
		return dv.passes(d, true, from, proto, port)
	}
	return true
}

func (v *VPC) between(s, d network.Interface, proto, port int) bool {
	return v.passes(s, false, d.IP, proto, port) && v.passes(d, true, s.IP, proto, port)
}

func (w *World) card(id string) (*VPC, network.Interface, bool) {
	for _, v := range w.VPCs {
		if c, ok := v.Cards[id]; ok {
			return v, c, true
		}
	}
	return nil, network.Interface{}, false
}

func (w *World) public(a netip.Addr) (*VPC, network.Interface, bool) {
	for _, v := range w.VPCs {
		for _, c := range v.Cards {
			if p, ok := v.PublicOf(c); ok && p == a {
				return v, c, true
			}
		}
	}
	return nil, network.Interface{}, false
}
