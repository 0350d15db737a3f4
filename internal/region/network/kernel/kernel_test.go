package kernel

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/network/conformance"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Target {
		return target(t, fresh(t, testConfig(t)))
	})
}

func ensure(t testing.TB, n *Network, vpc string) {
	t.Helper()
	ctx := context.Background()
	all := network.Rule{Protocol: "-1", From: -1, To: -1, CIDR: netip.MustParsePrefix("0.0.0.0/0")}
	for _, err := range []error{
		n.EnsureVPC(ctx, network.VPC{ID: vpc, CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}),
		n.EnsureSubnet(ctx, network.Subnet{ID: "subnet-1", VPC: vpc, CIDR: netip.MustParsePrefix("10.0.0.0/22"), Egress: network.EgressInternet}),
		n.EnsureSubnet(ctx, network.Subnet{ID: "subnet-2", VPC: vpc, CIDR: netip.MustParsePrefix("10.0.4.0/22"), Egress: network.EgressNAT}),
		n.EnsureGroup(ctx, network.Group{ID: "sg-1", VPC: vpc, Ingress: []network.Rule{all}, Egress: []network.Rule{all}}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func cards(vpc string, count int) []network.Interface {
	out := make([]network.Interface, count)
	a := netip.MustParseAddr("10.0.0.10")
	for i := range out {
		out[i] = network.Interface{ID: fmt.Sprintf("eni-%s-%d", vpc, i), VPC: vpc, Subnet: "subnet-1", IP: a, Groups: []string{"sg-1"}}
		a = a.Next()
	}
	return out
}

func attach(t testing.TB, n *Network, cs ...network.Interface) []string {
	t.Helper()
	p, err := n.Attach(context.Background(), cs)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestServicesAndHost(t *testing.T) {
	cfg := testConfig(t)
	n := fresh(t, cfg)
	ensure(t, n, "vpc-1")
	cs := cards("vpc-1", 3)
	pub, err := n.AllocatePublic(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cs[0].Public = pub
	cs[1].Subnet, cs[1].IP = "subnet-2", netip.MustParseAddr("10.0.4.10")
	cs[2].Groups = nil // no group lets it do anything
	ns := attach(t, n, cs...)
	for _, p := range ns {
		serveIn(t, n, p, "0.0.0.0")
	}
	box, boxAddr, err := n.AddHost(t.Context(), "box")
	if err != nil {
		t.Fatal(err)
	}
	serveIn(t, n, box, "0.0.0.0")

	answer := func(c net.Conn) { fmt.Fprintln(c, c.RemoteAddr().(*net.TCPAddr).IP); c.Close() }
	for _, a := range []string{network.MetadataAddr.String(), network.EndpointAddr.String(), "10.0.0.2"} {
		l, err := n.ListenTCP("vpc-1", netip.MustParseAddrPort(a+":80"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				answer(c)
			}
		}()
	}
	pc, err := n.ListenUDP("vpc-1", netip.AddrPortFrom(network.ResolverAddr, 53))
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go func() {
		b := make([]byte, 64)
		for {
			_, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			pc.WriteTo([]byte("dns\n"), from)
		}
	}()
	router := n.vpcs["vpc-1"].model.Router.String()

	// A service on the host, on all its addresses.
	hostL, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hostL.Close()
	go func() {
		for {
			c, err := hostL.Accept()
			if err != nil {
				return
			}
			answer(c)
		}
	}()
	hostPort := hostL.Addr().(*net.TCPAddr).Port
	hostAddrs := []string{n.hostAddr().String(), "127.0.0.1"}
	ifs, _ := net.InterfaceAddrs()
	for _, a := range ifs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() {
			hostAddrs = append(hostAddrs, ip.IP.String())
		}
	}

	type q struct {
		name, from, dst, proto string
		port                   int
		want                   string
	}
	qs := []q{
		{"metadata", ns[0], "169.254.169.254", "tcp", 80, "10.0.0.10"},
		{"metadata without groups", ns[2], "169.254.169.254", "tcp", 80, "10.0.0.12"},
		{"API", ns[1], "169.254.169.250", "tcp", 80, "10.0.4.10"},
		{"resolver", ns[2], "169.254.169.253", "udp", 53, "dns"},
		{"VPC+2", ns[0], "10.0.0.2", "tcp", 80, "10.0.0.10"},
		{"metadata from outside", box, "169.254.169.254", "tcp", 80, ""},
		{"the router from outside", box, router, "tcp", 80, ""},
		{"public address from the host", "", pub.String(), "tcp", 80, n.hostAddr().String()},
		{"public address from the box", box, pub.String(), "tcp", 80, boxAddr.String()},
		{"1:1 out", ns[0], boxAddr.String(), "tcp", 80, pub.String()},
		{"NAT out", ns[1], boxAddr.String(), "tcp", 80, router},
		{"UDP NAT out", ns[1], boxAddr.String(), "udp", 53, router},
		{"no groups, out", ns[2], boxAddr.String(), "tcp", 80, ""},
		{"private from the host", "", "10.0.0.10", "tcp", 80, ""},
	}
	for _, a := range hostAddrs {
		qs = append(qs, q{"a service of the host", ns[0], a, "tcp", hostPort, ""}, q{"a service of the host by NAT", ns[1], a, "tcp", hostPort, ""})
	}
	for _, c := range qs {
		if got := ask(t, n, c.from, netip.Addr{}, c.dst, c.proto, c.port); got != c.want {
			t.Errorf("%s: %s/%d answers %q, want %q", c.name, c.dst, c.port, got, c.want)
		}
	}

	// The daemon's own connections into the VPC.
	conn, err := n.DialContext("vpc-1")(t.Context(), "tcp", "10.0.0.10:80")
	if err != nil {
		t.Fatal(err)
	}
	if s, _ := bufio.NewReader(conn).ReadString('\n'); s != "10.0.0.1\n" {
		t.Errorf("dialled from %q, want the subnet's router", s)
	}
	conn.Close()
	if len(n.HostChanges()) < 2 {
		t.Errorf("host changes: %q", n.HostChanges())
	}
}

func TestSpoofing(t *testing.T) {
	cfg := testConfig(t)
	n := fresh(t, cfg)
	ensure(t, n, "vpc-1")
	ns := attach(t, n, cards("vpc-1", 3)...)
	p, err := n.ListenUDP("vpc-1", netip.AddrPortFrom(network.MetadataAddr, 53))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	serveIn(t, n, ns[1], "0.0.0.0")
	addr := netip.MustParseAddr("10.0.0.12") // the third card's
	send := func() string {
		var heard string
		c := make(chan string, 1)
		go func() {
			b := make([]byte, 64)
			p.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			if _, from, err := p.ReadFrom(b); err == nil {
				heard = from.(*net.UDPAddr).IP.String()
			}
			c <- heard
		}()
		ask(t, n, ns[0], netip.Addr{}, network.MetadataAddr.String(), "udp", 53)
		return <-c
	}
	if got := send(); got != "10.0.0.10" {
		t.Fatalf("heard %q from the true address", got)
	}
	// Another card's address.
	must(t, at(t, n, ns[0], func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(host32(addr))})
	}))
	if got := ask(t, n, ns[0], addr, network.MetadataAddr.String(), "udp", 53); got != "" {
		t.Errorf("answer to a spoofed source: %q", got)
	}
	var c net.PacketConn
	must(t, at(t, n, ns[0], func() (err error) {
		c, err = net.ListenPacket("udp4", addr.String()+":0")
		return err
	}))
	defer c.Close()
	p.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err := c.WriteTo([]byte("spoofed"), &net.UDPAddr{IP: network.MetadataAddr.AsSlice(), Port: 53}); err != nil {
		t.Fatal(err)
	}
	if k, from, err := p.ReadFrom(make([]byte, 64)); err == nil {
		t.Errorf("heard %d bytes from the spoofed %s", k, from)
	}
	if got := ask(t, n, ns[0], netip.MustParseAddr("10.0.0.10"), "10.0.0.11", "tcp", 80); got != "10.0.0.10" {
		t.Errorf("the true address no longer works: %q", got)
	}
	// Another MAC.
	must(t, at(t, n, ns[0], func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetHardwareAddr(l, net.HardwareAddr{2, 9, 9, 9, 9, 9})
	}))
	if got := ask(t, n, ns[0], netip.MustParseAddr("10.0.0.10"), "10.0.0.11", "tcp", 80); got != "" {
		t.Errorf("answer to a spoofed MAC: %q", got)
	}
}

// An instance that puts an on-link route of its own on its card is still heard,
// and still filtered.
func TestOnLink(t *testing.T) {
	n := fresh(t, testConfig(t))
	ensure(t, n, "vpc-1")
	must(t, n.EnsureGroup(t.Context(), network.Group{ID: "sg-shut", VPC: "vpc-1"}))
	cs := cards("vpc-1", 3)
	cs[2].Groups = []string{"sg-shut"}
	ns := attach(t, n, cs...)
	for _, p := range ns {
		serveIn(t, n, p, "0.0.0.0")
		must(t, at(t, n, p, func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("10.0.0.0/22")), Scope: netlink.SCOPE_LINK})
		}))
	}
	// The kernel answers for others with a random delay of up to 0.8 s.
	var got string
	for try := 0; got == "" && try < 5; try++ {
		got = ask(t, n, ns[0], netip.Addr{}, "10.0.0.11", "tcp", 80)
	}
	if got != "10.0.0.10" {
		t.Errorf("on-link neighbour: %q", got)
	}
	if got := ask(t, n, ns[0], netip.Addr{}, "10.0.0.12", "tcp", 80); got != "" {
		t.Errorf("on-link neighbour whose group is shut: %q", got)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAdoption(t *testing.T) {
	cfg := testConfig(t)
	first := fresh(t, cfg)
	ensure(t, first, "vpc-1")
	cs := cards("vpc-1", 2)
	pub, err := first.AllocatePublic(t.Context())
	must(t, err)
	cs[0].Public = pub
	ns := attach(t, first, cs...)
	serveIn(t, first, ns[0], "0.0.0.0")
	_, box, err := first.AddHost(t.Context(), "box")
	must(t, err)
	router := first.vpcs["vpc-1"].model.Router
	must(t, first.Close())

	n := open(t, cfg)
	defer n.Close()
	if ids, _ := n.VPCs(t.Context()); len(ids) != 1 {
		t.Fatalf("adopted %v", ids)
	}
	if got := n.vpcs["vpc-1"].model.Router; got != router {
		t.Errorf("router %s became %s", router, got)
	}
	if got := ask(t, n, ns[1], netip.Addr{}, "10.0.0.10", "tcp", 80); got != "10.0.0.11" {
		t.Errorf("adopted interfaces: %q", got)
	}
	if got := ask(t, n, "", netip.Addr{}, pub.String(), "tcp", 80); got == "" {
		t.Error("the public address is gone")
	}
	for range 20 {
		a, err := n.AllocatePublic(t.Context())
		must(t, err)
		if a == pub || a == box || a == router {
			t.Fatalf("%s was handed out again", a)
		}
	}
	_, again, err := n.AddHost(t.Context(), "box")
	must(t, err)
	if again != box {
		t.Errorf("box was %s, is %s", box, again)
	}
	// Half of an interface, as a crash leaves it, is made whole.
	l, err := n.vpcs["vpc-1"].space.h.LinkByName(n.linkName(cs[1].ID))
	must(t, err)
	must(t, n.vpcs["vpc-1"].space.h.LinkDel(l))
	again2 := attach(t, n, cs[1])
	got := ""
	for range 3 { // the kernel may take a second until a new link carries
		if got = ask(t, n, again2[0], netip.Addr{}, "10.0.0.10", "tcp", 80); got != "" {
			break
		}
	}
	if got != "10.0.0.11" {
		t.Errorf("repaired interface: %q", got)
	}
	// Unknown namespaces are swept.
	must(t, makeNS(n.hostNS, n.eniPath("eni-stray"), nil))
	removed, err := n.Sweep(t.Context(), []string{"vpc-1"}, []string{cs[0].ID, cs[1].ID})
	must(t, err)
	if len(removed) != 1 || removed[0] != "eni-stray" {
		t.Errorf("swept %v", removed)
	}
	must(t, n.SetGroups(t.Context(), "vpc-1", cs[0].ID, nil))
	if got := ask(t, n, again2[0], netip.Addr{}, "10.0.0.10", "tcp", 80); got != "" {
		t.Errorf("groups of an adopted interface cannot be changed: %q", got)
	}
}

func BenchmarkAttach45(b *testing.B) {
	n := fresh(b, testConfig(b))
	ensure(b, n, "vpc-1")
	cs := cards("vpc-1", 45)
	ids := make([]string, len(cs))
	for i, c := range cs {
		ids[i] = c.ID
	}
	var up, down time.Duration
	for b.Loop() {
		start := time.Now()
		attach(b, n, cs...)
		mid := time.Now()
		must(b, n.Detach(context.Background(), "vpc-1", ids))
		up, down = up+mid.Sub(start), down+time.Since(mid)
	}
	b.ReportMetric(up.Seconds()/float64(b.N), "s/attach")
	b.ReportMetric(down.Seconds()/float64(b.N), "s/detach")
}

// knows counts the connections of an address in a VPC.
func knows(t *testing.T, n *Network, vpc string, ip netip.Addr) (flows int) {
	t.Helper()
	must(t, at(t, n, n.vpcPath(vpc), func() error {
		all, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		for _, f := range all {
			if (flowsOf{ip: true}).MatchConntrackFlow(f) {
				flows++
			}
		}
		return err
	}))
	return flows
}

// TestLeftAddress removes interfaces with public addresses: who talked to them is
// forgotten soon, and before the address leads to somebody else.
func TestLeftAddress(t *testing.T) {
	n := fresh(t, testConfig(t))
	ensure(t, n, "vpc-left")
	pub, err := n.AllocatePublic(t.Context())
	must(t, err)
	cs := cards("vpc-left", 3)
	for _, next := range []bool{false, true} {
		cs[1].Public, cs[2].Public = pub, netip.Addr{}
		paths := attach(t, n, cs[:2]...)
		serveIn(t, n, paths[1], cs[1].IP.String())
		if got := ask(t, n, paths[0], cs[0].IP, cs[1].IP.String(), "tcp", 80); got == "" || knows(t, n, "vpc-left", cs[1].IP) == 0 {
			t.Fatalf("no connection: %q", got)
		}
		must(t, n.Detach(t.Context(), "vpc-left", []string{cs[1].ID}))
		if next {
			cs[2].Public = pub
			attach(t, n, cs[2])
		} else {
			for until := time.Now().Add(20 * time.Second); knows(t, n, "vpc-left", cs[1].IP) > 0 && time.Now().Before(until); {
				time.Sleep(10 * time.Millisecond)
			}
		}
		if f := knows(t, n, "vpc-left", cs[1].IP); f != 0 {
			t.Errorf("next %v: the kernel still knows %d connections", next, f)
		}
	}
}

// TestUsedAddress has two interfaces with one address, one after the other: the
// second must not get what the kernel remembers of the first, also when another
// process was here in between.
func TestUsedAddress(t *testing.T) {
	cfg := testConfig(t)
	n := fresh(t, cfg)
	ensure(t, n, "vpc-used")
	cs := cards("vpc-used", 2)
	known := func() int { t.Helper(); return knows(t, n, "vpc-used", cs[1].IP) }
	for round, reopen := range []bool{false, false, true} {
		paths := attach(t, n, cs...)
		if f := known(); f != 0 {
			t.Errorf("round %d: the kernel knows %d connections of a new interface", round, f)
		}
		serveIn(t, n, paths[1], cs[1].IP.String())
		if got := ask(t, n, paths[0], cs[0].IP, cs[1].IP.String(), "tcp", 80); got == "" || known() == 0 {
			t.Fatalf("round %d: no connection: %q", round, got)
		}
		must(t, n.Detach(context.Background(), "vpc-used", []string{cs[0].ID, cs[1].ID}))
		if reopen {
			must(t, n.Close())
			n = open(t, cfg)
		}
	}
	attach(t, n, cs...)
	if f := known(); f != 0 {
		t.Errorf("after adoption the kernel knows %d connections of a new interface", f)
	}
}
