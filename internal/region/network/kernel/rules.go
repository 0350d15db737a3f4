package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/network/topo"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// The rule set of a VPC. A packet's way:
//
//	raw      drops what is not from an interface's own address and MAC, and
//	         what comes from outside with an inside address
//	dnat     public address → private address
//	forward, input, output
//	         answers pass; else the sender's egress groups (map "out"), whose
//	         rules go to "to", which asks the receiver's ingress groups (map
//	         "in") or, on the way out of the VPC, "away"
//	snat     private → public address, or the NAT gateway's
const (
	setCards = "cards" // interface . address . MAC
	setExit  = "exit"  // may leave the VPC
	setNAT   = "nat"   // leave it with the VPC's router address
	mapOut   = "out"   // address → its egress groups' chain
	mapIn    = "in"    // address → its ingress groups' chain
	mapDNAT  = "public-private"
	mapSNAT  = "private-public"

	chainTo   = "to"
	chainAway = "away"
)

var (
	linkLocal = netip.MustParsePrefix("169.254.0.0/16")
	loopback  = netip.MustParsePrefix("127.0.0.0/8")
	multicast = netip.MustParsePrefix("224.0.0.0/3")
)

// rules renders a VPC.
func (n *Network) rules(v *topo.VPC) *image {
	img := &image{table: n.cfg.Prefix}
	up := n.uplink()
	combos := map[string][]string{}

	cards := img.set(setCards, nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr, nftables.TypeEtherAddr), nftables.SetDatatype{})
	exit := img.set(setExit, nftables.TypeIPAddr, nftables.SetDatatype{})
	nat := img.set(setNAT, nftables.TypeIPAddr, nftables.SetDatatype{})
	out := img.set(mapOut, nftables.TypeIPAddr, nftables.TypeVerdict)
	in := img.set(mapIn, nftables.TypeIPAddr, nftables.TypeVerdict)
	dnat := img.set(mapDNAT, nftables.TypeIPAddr, nftables.TypeIPAddr)
	snat := img.set(mapSNAT, nftables.TypeIPAddr, nftables.TypeIPAddr)

	names := map[string]bool{} // groups, and those that rules speak of
	for id, g := range v.Groups {
		names[id] = true
		for _, r := range slices.Concat(g.Ingress, g.Egress) {
			if r.Group != "" {
				names[r.Group] = true
			}
		}
	}
	members := map[string]*setImage{}
	for _, id := range slices.Sorted(maps.Keys(names)) {
		members[id] = img.set("m-"+id, nftables.TypeIPAddr, nftables.SetDatatype{})
	}
	for _, c := range v.Cards {
		ip := c.IP.AsSlice()
		if !c.Shared {
			key := append(ifName(n.linkName(c.ID)), ip...)
			key = append(key, network.MAC(c.ID)...)
			cards.add(append(key, 0, 0))
		}
		combo := comboName(c.Groups)
		combos[combo] = c.Groups
		out.addGoto(ip, "o-"+combo)
		in.addGoto(ip, "i-"+combo)
		for _, g := range c.Groups {
			members[g].add(ip)
		}
		if src, ok := v.SourceOf(c); ok {
			exit.add(ip)
			if src == c.Public {
				dnat.addValue(src.AsSlice(), ip)
				snat.addValue(ip, src.AsSlice())
			} else {
				nat.add(ip)
			}
		}
	}
	img.sig = signature(v, combos)

	// Chains that others name come first.
	to, away := img.chain(chainTo), img.chain(chainAway)
	to.rule(oif(up), goTo(chainAway))
	to.rule(vmap(offDest, mapIn))
	to.rule(drop())
	for _, p := range append([]netip.Prefix{linkLocal, loopback, multicast, host32(n.hostAddr())}, v.CIDRs...) {
		away.rule(within(offDest, p), drop())
	}
	away.rule(inSet(offSource, setExit), accept())
	away.rule(within(offSource, host32(v.Router)), accept())
	away.rule(drop())

	for _, id := range slices.Sorted(maps.Keys(v.Groups)) {
		groupChain(img.chain("ge-"+id), v.Groups[id].Egress, offDest, goTo(chainTo))
		groupChain(img.chain("gi-"+id), v.Groups[id].Ingress, offSource, accept())
	}
	for _, combo := range slices.Sorted(maps.Keys(combos)) {
		o, i := img.chain("o-"+combo), img.chain("i-"+combo)
		for _, g := range combos[combo] {
			o.rule(jump("ge-" + g))
			i.rule(jump("gi-" + g))
		}
		o.rule(drop())
		i.rule(drop())
	}

	raw := img.base("raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw)
	outside := img.chain("outside")
	raw.rule(iif("lo"), accept())
	raw.rule(iif(up), goTo("outside"))
	raw.rule(ownPacket(setCards), accept())
	raw.rule(drop())
	outside.rule(within(offDest, linkLocal), drop())
	for _, p := range v.CIDRs {
		outside.rule(within(offSource, p), drop())
		outside.rule(within(offDest, p), drop())
	}
	outside.rule(accept())

	pre := img.base("dnat", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest)
	pre.rule(natMap(expr.NATTypeDestNAT, offDest, mapDNAT))
	post := img.base("snat", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource)
	post.rule(oif(up), natMap(expr.NATTypeSourceNAT, offSource, mapSNAT))
	post.rule(oif(up), inSet(offSource, setNAT), snatTo(v.Router))

	forward := img.base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityFilter)
	forward.rule(established(), accept())
	forward.rule(invalidCt(), drop())
	forward.rule(iif(up), dnatted(), goTo(chainTo))
	forward.rule(iif(up), drop())
	forward.rule(dnatted(), notInSet(offSource, setExit), drop())
	forward.rule(vmap(offSource, mapOut))
	forward.rule(drop())

	input := img.base("input", nftables.ChainTypeFilter, nftables.ChainHookInput, *nftables.ChainPriorityFilter)
	input.rule(iif("lo"), accept())
	input.rule(established(), accept())
	input.rule(invalidCt(), drop())
	input.rule(iif(up), dnatted(), goTo(chainTo))
	input.rule(iif(up), drop())
	for _, a := range v.Services() {
		input.rule(within(offDest, host32(a)), accept())
	}
	input.rule(dnatted(), notInSet(offSource, setExit), drop())
	input.rule(vmap(offSource, mapOut))
	input.rule(drop())

	output := img.base("output", nftables.ChainTypeFilter, nftables.ChainHookOutput, *nftables.ChainPriorityFilter)
	output.rule(oif("lo"), accept())
	output.rule(established(), accept())
	output.rule(vmap(offSource, mapOut))
	output.rule(goTo(chainTo)) // the daemon's own sockets: receivers' groups hold
	return img
}

func groupChain(c *chainImage, rules []network.Rule, peer uint32, pass []expr.Any) {
	for _, r := range rules {
		var match []expr.Any
		proto, _ := topo.Protocol(r.Protocol)
		if proto >= 0 {
			match = l4proto(proto)
		}
		switch {
		case proto == 1:
			if r.From >= 0 {
				match = append(match, transportByte(0, r.From)...)
				if r.To >= 0 {
					match = append(match, transportByte(1, r.To)...)
				}
			}
		case (proto == 6 || proto == 17) && !(r.From == -1 && r.To == -1):
			match = append(match, dports(r.From, r.To)...)
		}
		if r.Group != "" {
			match = append(match, inSet(peer, "m-"+r.Group)...)
		} else {
			match = append(match, within(peer, r.CIDR)...)
		}
		c.rule(match, pass)
	}
}

// comboName names the chain of a set of groups.
func comboName(groups []string) string {
	if len(groups) == 1 {
		return groups[0]
	}
	sum := sha256.Sum256([]byte(strings.Join(groups, "\n")))
	return "x" + hex.EncodeToString(sum[:10])
}

// signature is equal where only set elements differ.
func signature(v *topo.VPC, combos map[string][]string) string {
	b, _ := json.Marshal(struct { // maps are marshalled in order of their keys
		VPC    network.VPC
		Router netip.Addr
		Groups map[string]network.Group
		Combos map[string][]string
	}{v.VPC, v.Router, v.Groups, combos})
	sum := sha256.Sum256(b)
	return string(sum[:])
}

// render makes the kernel's rules those of the model.
func (n *Network) render(v *vpc, m *topo.VPC) error {
	img := n.rules(m)
	if err := img.write(v.space.fd(), v.img); err != nil {
		v.img = nil
		return err
	}
	v.img = img
	return nil
}
