// Package conformance is what every network.Network must do, as tests: the
// kernel's proves it with packets, the simulation with its decisions. It knows
// neither.
package conformance

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/network"
)

// Target is a network under test.
type Target struct {
	network.Network
	// Internet is the prefix that the network was made with.
	Internet netip.Prefix
	AddHost  func(ctx context.Context, name string) (netns string, addr netip.Addr, err error)
	// Serve starts answering on the interface's (or, with an address as id, the
	// host's) ports 80 and 443 tcp and 53 udp.
	Serve func(t *testing.T, id, netns string, addr netip.Addr)
	// Reach tells whether a conversation from src to dst works. src is an
	// interface id or the address of a host from AddHost; dst is an address.
	Reach func(t *testing.T, src, dst, proto string, port int) bool
}

// Run tests a network; fresh makes an empty one.
func Run(t *testing.T, fresh func(t *testing.T) Target) {
	t.Run("packets", func(t *testing.T) { packets(t, fresh(t)) })
	t.Run("lifecycle", func(t *testing.T) { lifecycle(t, fresh(t)) })
	t.Run("refusals", func(t *testing.T) { refusals(t, fresh(t)) })
	t.Run("sweep", func(t *testing.T) { sweep(t, fresh(t)) })
}

func ip(s string) netip.Addr    { return netip.MustParseAddr(s) }
func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

var anywhere = pfx("0.0.0.0/0")

func tcp(port int, cidr string) network.Rule {
	return network.Rule{Protocol: "tcp", From: port, To: port, CIDR: pfx(cidr)}
}

var all = network.Rule{Protocol: "-1", From: -1, To: -1, CIDR: anywhere}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// probe is one conversation and whether it must work.
type probe struct {
	name     string
	src, dst string
	proto    string
	port     int
	want     bool
}

// check runs probes side by side: those that must fail take a timeout each.
func check(t *testing.T, n Target, probes []probe) {
	t.Helper()
	var wg sync.WaitGroup
	for _, p := range probes {
		wg.Go(func() {
			got := n.Reach(t, p.src, p.dst, p.proto, p.port)
			for try := 0; p.want && !got && try < 3; try++ { // the machine is busy, and a probe does not wait long
				got = n.Reach(t, p.src, p.dst, p.proto, p.port)
			}
			if got != p.want {
				t.Errorf("%s: %s → %s %s/%d: passes=%t, want %t", p.name, p.src, p.dst, p.proto, p.port, got, p.want)
			}
		})
	}
	wg.Wait()
}

func packets(t *testing.T, n Target) {
	ctx := t.Context()
	// Two VPCs of the same range.
	for _, v := range []string{"vpc-a", "vpc-b"} {
		must(t, n.EnsureVPC(ctx, network.VPC{ID: v, CIDRs: []netip.Prefix{pfx("10.0.0.0/16")}}))
		for _, s := range []network.Subnet{
			{ID: "subnet-pub", VPC: v, CIDR: pfx("10.0.1.0/24"), Egress: network.EgressInternet},
			{ID: "subnet-nat", VPC: v, CIDR: pfx("10.0.2.0/24"), Egress: network.EgressNAT},
			{ID: "subnet-iso", VPC: v, CIDR: pfx("10.0.3.0/24")},
		} {
			must(t, n.EnsureSubnet(ctx, s))
		}
		for _, g := range []network.Group{
			{ID: "sg-web", Ingress: []network.Rule{tcp(80, "0.0.0.0/0")}, Egress: []network.Rule{all}},
			{ID: "sg-db", Ingress: []network.Rule{{Protocol: "tcp", From: 400, To: 500, Group: "sg-web"}}, Egress: []network.Rule{tcp(80, "10.0.0.0/16")}},
			{ID: "sg-udp", Ingress: []network.Rule{{Protocol: "udp", From: 53, To: 53, CIDR: pfx("10.0.1.10/32")}}, Egress: []network.Rule{all}},
			{ID: "sg-shut", Ingress: nil, Egress: nil},
			{ID: "sg-lb", Ingress: []network.Rule{tcp(80, "0.0.0.0/0"), tcp(443, "10.0.1.10/32")}, Egress: []network.Rule{{Protocol: "tcp", From: 80, To: 80, Group: "sg-web"}}},
		} {
			g.VPC = v
			must(t, n.EnsureGroup(ctx, g))
		}
	}
	pubA, pubB, pubLB, pubIso := public(t, n), public(t, n), public(t, n), public(t, n)
	cards := []network.Interface{
		{ID: "eni-a1", VPC: "vpc-a", Subnet: "subnet-pub", IP: ip("10.0.1.10"), Public: pubA, Groups: []string{"sg-web"}},
		{ID: "eni-a2", VPC: "vpc-a", Subnet: "subnet-pub", IP: ip("10.0.1.11"), Groups: []string{"sg-web"}},
		{ID: "eni-a3", VPC: "vpc-a", Subnet: "subnet-nat", IP: ip("10.0.2.10"), Groups: []string{"sg-web"}},
		{ID: "eni-a4", VPC: "vpc-a", Subnet: "subnet-nat", IP: ip("10.0.2.11"), Groups: []string{"sg-db"}},
		{ID: "eni-a5", VPC: "vpc-a", Subnet: "subnet-iso", IP: ip("10.0.3.10"), Public: pubIso, Groups: []string{"sg-web", "sg-udp"}},
		{ID: "eni-a6", VPC: "vpc-a", Subnet: "subnet-iso", IP: ip("10.0.3.11"), Groups: []string{"sg-shut"}},
		{ID: "eni-lb", VPC: "vpc-a", Subnet: "subnet-pub", IP: ip("10.0.1.20"), Public: pubLB, Groups: []string{"sg-lb"}, Shared: true},
		{ID: "eni-b1", VPC: "vpc-b", Subnet: "subnet-pub", IP: ip("10.0.1.10"), Public: pubB, Groups: []string{"sg-web"}},
		{ID: "eni-b9", VPC: "vpc-b", Subnet: "subnet-iso", IP: ip("10.0.3.99"), Groups: []string{"sg-web"}},
	}
	paths, err := n.Attach(ctx, cards)
	must(t, err)
	if len(paths) != len(cards) {
		t.Fatalf("%d paths for %d cards", len(paths), len(cards))
	}
	for i, c := range cards {
		n.Serve(t, c.ID, paths[i], c.IP)
	}
	hostNS, box, err := n.AddHost(ctx, "box")
	must(t, err)
	n.Serve(t, box.String(), hostNS, box)

	check(t, n, []probe{
		{"open port in one subnet", "eni-a1", "10.0.1.11", "tcp", 80, true},
		{"other port in one subnet", "eni-a1", "10.0.1.11", "tcp", 443, false},
		{"open port between subnets", "eni-a1", "10.0.2.10", "tcp", 80, true},
		{"own address of the same range", "eni-b1", "10.0.1.11", "tcp", 80, false},
		{"another VPC's private address", "eni-a1", "10.0.3.99", "tcp", 80, false},
		{"peer group's member", "eni-a2", "10.0.2.11", "tcp", 443, true},
		{"peer group's member, other protocol", "eni-a2", "10.0.2.11", "udp", 53, false},
		{"not the peer group's member", "eni-a6", "10.0.2.11", "tcp", 443, false},
		{"sender's group refuses", "eni-a4", "10.0.1.11", "tcp", 443, false},
		{"sender's group allows", "eni-a4", "10.0.1.11", "tcp", 80, true},
		{"second group counts", "eni-a1", "10.0.3.10", "udp", 53, true},
		{"second group, other source", "eni-a2", "10.0.3.10", "udp", 53, false},
		{"group without rules", "eni-a6", "10.0.1.11", "tcp", 80, false},
		{"to a group without rules", "eni-a1", "10.0.3.11", "tcp", 80, false},
		{"to a balancer", "eni-a3", "10.0.1.20", "tcp", 80, true},
		{"to a balancer, one source only", "eni-a1", "10.0.1.20", "tcp", 443, true},
		{"to a balancer, other source", "eni-a2", "10.0.1.20", "tcp", 443, false},
		{"from a balancer", "eni-lb", "10.0.1.11", "tcp", 80, true},
		{"from a balancer, its egress refuses", "eni-lb", "10.0.2.11", "tcp", 443, false},
		{"out with a public address", "eni-a1", box.String(), "tcp", 80, true},
		{"out without a public address", "eni-a2", box.String(), "tcp", 80, false},
		{"out by NAT", "eni-a3", box.String(), "tcp", 80, true},
		{"out by NAT, group refuses", "eni-a4", box.String(), "tcp", 80, false},
		{"out without a route", "eni-a5", box.String(), "tcp", 80, false},
		{"in from outside", box.String(), pubA.String(), "tcp", 80, true},
		{"in from outside, closed port", box.String(), pubA.String(), "tcp", 443, false},
		{"in to a balancer", box.String(), pubLB.String(), "tcp", 80, true},
		{"in to a balancer, closed port", box.String(), pubLB.String(), "tcp", 443, false},
		{"in where no route leads out", box.String(), pubIso.String(), "tcp", 80, false},
		{"to another VPC's public address", "eni-a1", pubB.String(), "tcp", 80, true},
		{"to another VPC's public address by NAT", "eni-a3", pubB.String(), "tcp", 80, true},
		{"to the own VPC's public address by NAT", "eni-a3", pubLB.String(), "tcp", 80, true},
		{"to the own VPC's public address, no way out", "eni-a5", pubLB.String(), "tcp", 80, false},
		{"private addresses from outside", box.String(), "10.0.1.10", "tcp", 80, false},
	})

	// Changes hold at once.
	must(t, n.SetGroups(ctx, "vpc-a", "eni-a2", []string{"sg-shut"}))
	must(t, n.EnsureGroup(ctx, network.Group{ID: "sg-udp", VPC: "vpc-a", Ingress: []network.Rule{tcp(443, "10.0.2.10/32")}, Egress: []network.Rule{all}}))
	must(t, n.EnsureSubnet(ctx, network.Subnet{ID: "subnet-iso", VPC: "vpc-a", CIDR: pfx("10.0.3.0/24"), Egress: network.EgressInternet}))
	must(t, n.Detach(ctx, "vpc-a", []string{"eni-a4"}))
	check(t, n, []probe{
		{"groups were taken away", "eni-a1", "10.0.1.11", "tcp", 80, false},
		{"groups were taken away, out", "eni-a2", "10.0.2.10", "tcp", 80, false},
		{"new rule", "eni-a3", "10.0.3.10", "tcp", 443, true},
		{"old rule", "eni-a1", "10.0.3.10", "udp", 53, false},
		{"new route, in", box.String(), pubIso.String(), "tcp", 80, true},
		{"new route, out", "eni-a5", box.String(), "tcp", 80, true},
		{"detached", "eni-a3", "10.0.2.11", "tcp", 443, false},
		{"untouched", "eni-a1", "10.0.2.10", "tcp", 80, true},
	})
}

func public(t *testing.T, n Target) netip.Addr {
	t.Helper()
	a, err := n.AllocatePublic(t.Context())
	must(t, err)
	if !n.Internet.Contains(a) {
		t.Fatalf("public address %s is not in %s", a, n.Internet)
	}
	return a
}

func small(t *testing.T, n Target, vpc string) {
	t.Helper()
	ctx := t.Context()
	must(t, n.EnsureVPC(ctx, network.VPC{ID: vpc, CIDRs: []netip.Prefix{pfx("10.1.0.0/16")}}))
	must(t, n.EnsureSubnet(ctx, network.Subnet{ID: "subnet-1", VPC: vpc, CIDR: pfx("10.1.1.0/24")}))
	must(t, n.EnsureGroup(ctx, network.Group{ID: "sg-1", VPC: vpc, Egress: []network.Rule{all}}))
}

func card(vpc, id, addr string) network.Interface {
	return network.Interface{ID: id, VPC: vpc, Subnet: "subnet-1", IP: ip(addr), Groups: []string{"sg-1"}}
}

// lifecycle: everything twice, in the order in which things may go.
func lifecycle(t *testing.T, n Target) {
	ctx := t.Context()
	for range 2 {
		small(t, n, "vpc-l")
		small(t, n, "vpc-l")
		c := card("vpc-l", "eni-1", "10.1.1.5")
		first, err := n.Attach(ctx, []network.Interface{c})
		must(t, err)
		second, err := n.Attach(ctx, []network.Interface{c, card("vpc-l", "eni-2", "10.1.1.6")})
		must(t, err)
		if first[0] != second[0] {
			t.Errorf("attached twice: %q, then %q", first[0], second[0])
		}
		must(t, n.Detach(ctx, "vpc-l", []string{"eni-1", "eni-2", "eni-none"}))
		must(t, n.Detach(ctx, "vpc-l", []string{"eni-1"}))
		must(t, n.RemoveGroup(ctx, "vpc-l", "sg-1"))
		must(t, n.RemoveSubnet(ctx, "vpc-l", "subnet-1"))
		must(t, n.RemoveVPC(ctx, "vpc-l"))
		must(t, n.RemoveVPC(ctx, "vpc-l"))
		must(t, n.RemoveSubnet(ctx, "vpc-l", "subnet-1"))
		must(t, n.RemoveGroup(ctx, "vpc-l", "sg-1"))
		must(t, n.Detach(ctx, "vpc-l", []string{"eni-1"}))
		if ids, err := n.VPCs(ctx); err != nil || len(ids) != 0 {
			t.Errorf("VPCs left: %v, %v", ids, err)
		}
	}
	seen := map[netip.Addr]bool{}
	for range 20 {
		a := public(t, n)
		if seen[a] {
			t.Errorf("%s was handed out twice", a)
		}
		seen[a] = true
	}
	for a := range seen {
		must(t, n.ReleasePublic(ctx, a))
	}
}

func refusals(t *testing.T, n Target) {
	ctx := t.Context()
	small(t, n, "vpc-r")
	pub := public(t, n)
	c := card("vpc-r", "eni-1", "10.1.1.5")
	c.Public = pub
	_, err := n.Attach(ctx, []network.Interface{c})
	must(t, err)
	attach := func(c network.Interface) error {
		_, err := n.Attach(ctx, []network.Interface{card("vpc-r", "eni-ok", "10.1.1.77"), c})
		return err
	}
	with := func(fn func(*network.Interface)) network.Interface {
		c := card("vpc-r", "eni-2", "10.1.1.6")
		fn(&c)
		return c
	}
	group := func(r network.Rule) error {
		return n.EnsureGroup(ctx, network.Group{ID: "sg-2", VPC: "vpc-r", Ingress: []network.Rule{r}})
	}
	for _, c := range []struct {
		name string
		err  error
		kind fault.Kind
	}{
		{"VPC without a range", n.EnsureVPC(ctx, network.VPC{ID: "vpc-x"}), fault.Invalid},
		{"VPC of IPv6", n.EnsureVPC(ctx, network.VPC{ID: "vpc-x", CIDRs: []netip.Prefix{pfx("fd00::/16")}}), fault.Invalid},
		{"VPC over the internet", n.EnsureVPC(ctx, network.VPC{ID: "vpc-x", CIDRs: []netip.Prefix{n.Internet}}), fault.Invalid},
		{"VPC with a path as id", n.EnsureVPC(ctx, network.VPC{ID: "../x", CIDRs: []netip.Prefix{pfx("10.0.0.0/16")}}), fault.Invalid},
		{"VPC that shrinks", n.EnsureVPC(ctx, network.VPC{ID: "vpc-r", CIDRs: []netip.Prefix{pfx("10.9.0.0/16")}}), fault.Conflict},
		{"subnet of no VPC", n.EnsureSubnet(ctx, network.Subnet{ID: "subnet-x", VPC: "vpc-none", CIDR: pfx("10.1.2.0/24")}), fault.NotFound},
		{"subnet outside", n.EnsureSubnet(ctx, network.Subnet{ID: "subnet-x", VPC: "vpc-r", CIDR: pfx("10.2.2.0/24")}), fault.Invalid},
		{"subnet over another", n.EnsureSubnet(ctx, network.Subnet{ID: "subnet-x", VPC: "vpc-r", CIDR: pfx("10.1.1.128/25")}), fault.Conflict},
		{"subnet that moves", n.EnsureSubnet(ctx, network.Subnet{ID: "subnet-1", VPC: "vpc-r", CIDR: pfx("10.1.3.0/24")}), fault.Conflict},
		{"rule without peer", group(network.Rule{Protocol: "tcp", From: 1, To: 2}), fault.Invalid},
		{"rule with two peers", group(network.Rule{Protocol: "tcp", From: 1, To: 2, CIDR: anywhere, Group: "sg-1"}), fault.Invalid},
		{"rule with ports reversed", group(network.Rule{Protocol: "tcp", From: 2, To: 1, CIDR: anywhere}), fault.Invalid},
		{"rule of an unknown protocol", group(network.Rule{Protocol: "smtp", CIDR: anywhere}), fault.Invalid},
		{"card in no subnet", attach(with(func(c *network.Interface) { c.Subnet = "subnet-none" })), fault.NotFound},
		{"card in no group", attach(with(func(c *network.Interface) { c.Groups = []string{"sg-none"} })), fault.NotFound},
		{"card outside its subnet", attach(with(func(c *network.Interface) { c.IP = ip("10.1.2.6") })), fault.Invalid},
		{"card at the gateway", attach(with(func(c *network.Interface) { c.IP = ip("10.1.1.1") })), fault.Invalid},
		{"card at the broadcast address", attach(with(func(c *network.Interface) { c.IP = ip("10.1.1.255") })), fault.Invalid},
		{"card at another's address", attach(with(func(c *network.Interface) { c.IP = ip("10.1.1.5") })), fault.Conflict},
		{"card with another's public address", attach(with(func(c *network.Interface) { c.Public = pub })), fault.Conflict},
		{"card with a foreign public address", attach(with(func(c *network.Interface) { c.Public = ip("203.0.113.7") })), fault.Invalid},
		{"card that moves", attach(with(func(c *network.Interface) { c.ID = "eni-1" })), fault.Conflict},
		{"groups of no card", n.SetGroups(ctx, "vpc-r", "eni-none", nil), fault.NotFound},
		{"removing a used group", n.RemoveGroup(ctx, "vpc-r", "sg-1"), fault.Conflict},
		{"removing a used subnet", n.RemoveSubnet(ctx, "vpc-r", "subnet-1"), fault.Conflict},
		{"removing a used VPC", n.RemoveVPC(ctx, "vpc-r"), fault.Conflict},
		{"releasing a used address", n.ReleasePublic(ctx, pub), fault.Conflict},
	} {
		if c.err == nil || fault.KindOf(c.err) != c.kind {
			t.Errorf("%s: %v, want a fault of kind %s", c.name, c.err, c.kind)
		}
	}
	// A refused call of many has changed nothing.
	if _, err := n.Attach(ctx, []network.Interface{card("vpc-r", "eni-other", "10.1.1.77")}); err != nil {
		t.Errorf("the address of a refused call is taken: %v", err)
	}
}

func sweep(t *testing.T, n Target) {
	ctx := t.Context()
	for _, v := range []string{"vpc-s1", "vpc-s2"} {
		small(t, n, v)
	}
	_, err := n.Attach(ctx, []network.Interface{
		card("vpc-s1", "eni-s1", "10.1.1.5"), card("vpc-s1", "eni-s2", "10.1.1.6"), card("vpc-s2", "eni-s3", "10.1.1.5"),
	})
	must(t, err)
	removed, err := n.Sweep(ctx, []string{"vpc-s1"}, []string{"eni-s1"})
	must(t, err)
	slices.Sort(removed)
	if want := []string{"eni-s2", "eni-s3", "vpc-s2"}; !slices.Equal(removed, want) {
		t.Errorf("swept %v, want %v", removed, want)
	}
	if removed, err := n.Sweep(ctx, []string{"vpc-s1"}, []string{"eni-s1"}); err != nil || len(removed) > 0 {
		t.Errorf("swept again: %v, %v", removed, err)
	}
	if ids, _ := n.VPCs(ctx); !slices.Equal(ids, []string{"vpc-s1"}) {
		t.Errorf("VPCs after the sweep: %v", ids)
	}
}
