package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/network/topo"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// routerMAC is what instances see as their gateway's.
var routerMAC = net.HardwareAddr{0x02, 0xdf, 0, 0, 0, 1}

// Attach makes interfaces: all of them, or none of a VPC's.
func (n *Network) Attach(ctx context.Context, is []network.Interface) ([]string, error) {
	byVPC := map[string][]network.Interface{}
	out := make([]string, len(is))
	for i, c := range is {
		byVPC[c.VPC] = append(byVPC[c.VPC], c)
		if !c.Shared {
			out[i] = n.eniPath(c.ID)
		}
	}
	var done []string
	for id, cs := range byVPC {
		if err := n.attach(ctx, id, cs); err != nil {
			for _, v := range done { // of other VPCs
				var ids []string
				for _, c := range byVPC[v] {
					ids = append(ids, c.ID)
				}
				err = errors.Join(err, n.Detach(context.WithoutCancel(ctx), v, ids))
			}
			return nil, err
		}
		done = append(done, id)
	}
	return out, nil
}

func (n *Network) attach(ctx context.Context, id string, cs []network.Interface) error {
	v, err := n.lookup(id)
	if err != nil {
		return err
	}
	defer v.mu.Unlock()
	old, m := v.model, v.model.Clone()
	links := false // whether the VPC's own addresses change
	var fresh []network.Interface
	for _, c := range cs {
		if err := topo.CheckPublic(c, n.cfg.Internet); err != nil {
			return err
		}
		was, known := old.Cards[c.ID]
		if err := m.SetCard(c); err != nil {
			return err
		}
		links = links || c.Shared || c.Public != was.Public
		if !known {
			fresh = append(fresh, m.Cards[c.ID])
		} else if !c.Shared && !n.attached(v, c.ID) {
			fresh = append(fresh, m.Cards[c.ID]) // a crash came between
		}
	}
	if err := m.CheckUnique(); err != nil {
		return err
	}
	if err := n.count(len(m.Cards) - len(old.Cards)); err != nil {
		return err
	}
	undo := func(err error) error {
		n.count(len(old.Cards) - len(m.Cards))
		var ids []string
		for _, c := range fresh {
			if _, known := old.Cards[c.ID]; !known {
				ids = append(ids, c.ID)
			}
		}
		return errors.Join(err, n.unplug(v, ids), n.change(v, old, links))
	}
	if err := n.saveState(m); err != nil {
		return undo(err)
	}
	if slices.ContainsFunc(cs, func(c network.Interface) bool { return v.left[c.Public] }) {
		n.forgetLeft(v)
	}
	n.startAfresh(v, fresh)
	if err := n.plugAll(ctx, v, m, fresh); err != nil {
		return undo(fmt.Errorf("network: attach to %s: %w", id, err))
	}
	if err := n.change(v, m, links); err != nil {
		return undo(err)
	}
	n.mu.Lock()
	for _, c := range cs {
		if was := old.Cards[c.ID].Public; was != c.Public {
			n.pool.Mark(c.Public)
		}
	}
	n.mu.Unlock()
	return nil
}

// attached tells whether an interface is really there.
func (n *Network) attached(v *vpc, eni string) bool {
	if !isNetNS(n.eniPath(eni)) {
		return false
	}
	l, err := v.space.h.LinkByName(n.linkName(eni))
	return err == nil && l.Attrs().OperState != netlink.OperLowerLayerDown
}

// plugAll makes the cards' namespaces and links, several at a time.
func (n *Network) plugAll(ctx context.Context, v *vpc, m *topo.VPC, cs []network.Interface) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	var next atomic.Int64
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = err
		}
	}
	for range min(len(cs), 2*runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				mu.Lock()
				stop := first != nil
				mu.Unlock()
				if i >= len(cs) || stop {
					return
				}
				if err := ctx.Err(); err != nil {
					fail(err)
					return
				}
				if cs[i].Shared {
					continue
				}
				if err := n.plugCard(v, m.Subnets[cs[i].Subnet], cs[i]); err != nil {
					fail(fmt.Errorf("%s: %w", cs[i].ID, err))
				}
			}
		})
	}
	wg.Wait()
	return first
}

func (n *Network) plugCard(v *vpc, s network.Subnet, c network.Interface) error {
	name := n.linkName(c.ID)
	if l, err := v.space.h.LinkByName(name); err == nil { // of a crash
		if err := v.space.h.LinkDel(l); err != nil {
			return err
		}
	}
	gw := topo.Gateway(s)
	return makeNS(n.hostNS, n.eniPath(c.ID), func() error {
		disableIPv6("default") // of eth0; ::1 stays
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		la := netlink.NewLinkAttrs()
		la.Name, la.HardwareAddr, la.Flags = name, routerMAC, net.FlagUp
		veth := &netlink.Veth{LinkAttrs: la, PeerName: "eth0", PeerHardwareAddr: network.MAC(c.ID), PeerNamespace: netlink.NsFd(fd)}
		if err := v.space.h.LinkAdd(veth); err != nil {
			return fmt.Errorf("add link: %w", err)
		}
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		eth0, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		index := eth0.Attrs().Index
		// The whole subnet goes by the gateway, which is a permanent neighbour.
		if err := h.AddrAdd(eth0, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(c.IP, s.CIDR.Bits())), Flags: unix.IFA_F_NOPREFIXROUTE}); err != nil {
			return fmt.Errorf("add address: %w", err)
		}
		if err := h.LinkSetUp(eth0); err != nil {
			return err
		}
		if err := h.LinkSetUp(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: loIndex}}); err != nil {
			return err
		}
		if err := h.NeighSet(neighbour(index, gw, routerMAC)); err != nil {
			return fmt.Errorf("add neighbour: %w", err)
		}
		if err := addDefault(h, index, gw, int(netlink.FLAG_ONLINK)); err != nil {
			return err
		}
		// And the way back.
		own := veth.Attrs().Index
		if own == 0 {
			l, err := v.space.h.LinkByName(name)
			if err != nil {
				return err
			}
			own = l.Attrs().Index
		}
		if err := v.space.h.RouteReplace(&netlink.Route{LinkIndex: own, Dst: ipNet(host32(c.IP)), Scope: netlink.SCOPE_LINK, Src: gw.AsSlice()}); err != nil {
			return fmt.Errorf("add route: %w", err)
		}
		if err := v.space.h.NeighSet(neighbour(own, c.IP, network.MAC(c.ID))); err != nil {
			return fmt.Errorf("add neighbour: %w", err)
		}
		return nil
	})
}

func neighbour(index int, a netip.Addr, mac net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac}
}

// Detach removes interfaces; unknown ones are no error.
func (n *Network) Detach(_ context.Context, vpc string, enis []string) error {
	v, err := n.lookup(vpc)
	if err != nil {
		return ignoreMissing(err)
	}
	defer v.mu.Unlock()
	m := v.model.Clone()
	links := false
	var gone []string
	var ips []netip.Addr
	left, reached := map[netip.Addr]bool{}, map[netip.Addr]bool{}
	for _, id := range enis {
		c, ok := m.Cards[id]
		if !ok {
			continue
		}
		links = links || c.Shared || c.Public.IsValid()
		gone = append(gone, id)
		ips = append(ips, c.IP)
		if c.Shared || c.Public.IsValid() {
			reached[c.IP] = true
		}
		if c.Public.IsValid() {
			left[c.Public] = true
		}
		delete(m.Cards, id)
	}
	if len(gone) == 0 {
		return nil
	}
	// Rules first, then the links; the record last, so that a crash between
	// leaves nothing that nobody knows.
	if links {
		if err := n.syncLinks(v, m); err != nil {
			return fmt.Errorf("network: %s: %w", m.ID, err)
		}
	}
	if err := n.render(v, m); err != nil {
		return fmt.Errorf("network: %s: %w", m.ID, err)
	}
	if err := n.unplug(v, gone); err != nil {
		return fmt.Errorf("network: %s: %w", m.ID, err)
	}
	// Who talked to a public address must not be led to where it was. All other
	// connections are over with the links; startAfresh forgets them when an
	// address is used again: reading the kernel's table costs more than the rest.
	if len(reached) > 0 {
		n.forgetSoon(v, left, reached)
	}
	if v.used == nil {
		v.used = map[netip.Addr]bool{}
	}
	for _, ip := range ips {
		v.used[ip] = true
	}
	if err := n.saveState(m); err != nil {
		return err
	}
	v.model = m
	return n.count(-len(gone))
}

// unplug removes links and namespaces. The links die as one device group: one
// grace period of the kernel for all, not one for each.
func (n *Network) unplug(v *vpc, enis []string) error {
	var errs []error
	// The VPC is locked and no group outlives this function, so one number will do.
	const group = 7
	some := false
	for _, id := range enis {
		l, err := v.space.h.LinkByName(n.linkName(id))
		if err != nil {
			if !missing(err) {
				errs = append(errs, err)
			}
			continue
		}
		if err := v.space.h.LinkSetGroup(l, group); err != nil {
			errs = append(errs, err)
			continue
		}
		some = true
	}
	if some {
		errs = append(errs, inNS(n.hostNS, v.space.fd(), func() error {
			req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
			req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
			req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
			_, err := req.Execute(unix.NETLINK_ROUTE, 0)
			return err
		}))
	}
	for _, id := range enis {
		errs = append(errs, dropNS(n.eniPath(id)))
	}
	return errors.Join(errs...)
}

// forgetAfter is how long connections to removed public addresses are collected.
const forgetAfter = 200 * time.Millisecond

// forgetSoon forgets the connections that came by public addresses, those of many
// interfaces at once: hundreds that are removed one after the other would read
// the kernel's table of thousands of connections as often. Who gets one of the
// addresses before that has it done at once. The caller has locked v.
func (n *Network) forgetSoon(v *vpc, left, reached map[netip.Addr]bool) {
	if v.left != nil {
		maps.Copy(v.left, left)
		maps.Copy(v.reached, reached)
		return // somebody is about to
	}
	v.left, v.reached = left, reached
	id := v.model.ID
	n.cleaners.Go(func() {
		select {
		case <-n.stop:
		case <-time.After(forgetAfter):
		}
		if v, err := n.lookup(id); err == nil {
			n.forgetLeft(v)
			v.mu.Unlock()
		}
	})
}

func (n *Network) forgetLeft(v *vpc) {
	if len(v.reached) > 0 {
		n.endFlows(v, slices.Collect(maps.Keys(v.reached)))
	}
	v.left, v.reached = nil, nil
}

// startAfresh forgets the connections of those who had the addresses of new
// interfaces before.
func (n *Network) startAfresh(v *vpc, cs []network.Interface) {
	var ips []netip.Addr
	for _, c := range cs {
		if v.anyUsed || v.used[c.IP] {
			ips = append(ips, c.IP)
		}
	}
	if len(ips) == 0 {
		return
	}
	n.endFlows(v, ips)
	for _, ip := range ips {
		delete(v.used, ip)
	}
}

// endFlows forgets the connections of addresses.
func (n *Network) endFlows(v *vpc, ips []netip.Addr) {
	err := inNS(n.hostNS, v.space.fd(), func() error {
		f := flowsOf{}
		for _, ip := range ips {
			f[ip] = true
		}
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, f)
		return err
	})
	if err != nil {
		n.log.Warn("connections of removed interfaces were not forgotten", "vpc", v.model.ID, "error", err)
	}
}

type flowsOf map[netip.Addr]bool

// MatchConntrackFlow tells whether a flow has one of the addresses.
func (f flowsOf) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	for _, ip := range []net.IP{flow.Forward.SrcIP, flow.Forward.DstIP, flow.Reverse.SrcIP} {
		if a, ok := netip.AddrFromSlice(ip); ok && f[a.Unmap()] {
			return true
		}
	}
	return false
}

func ignoreMissing(err error) error {
	if err != nil && fault.KindOf(err) == fault.NotFound {
		return nil
	}
	return err
}
