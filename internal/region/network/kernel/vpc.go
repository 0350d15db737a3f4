package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/network/topo"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const loIndex = 1

// uplink is the name of a VPC's link to the internet, inside its namespace.
func (n *Network) uplink() string { return n.cfg.Prefix + "up" }

// EnsureVPC makes a VPC's namespace, or changes its ranges.
func (n *Network) EnsureVPC(_ context.Context, want network.VPC) error {
	if err := topo.CheckVPC(want, n.cfg.Internet); err != nil {
		return err
	}
	for i := range want.CIDRs {
		want.CIDRs[i] = want.CIDRs[i].Masked()
	}
	defer n.lockMaking(want.ID)()
	v, err := n.lookup(want.ID)
	if err == nil {
		defer v.mu.Unlock()
		m := v.model.Clone()
		if err := m.SetCIDRs(want.CIDRs); err != nil {
			return err
		}
		return n.change(v, m, true)
	}
	n.mu.Lock()
	router, err := n.pool.Take()
	n.mu.Unlock()
	if err != nil {
		return err
	}
	m := topo.NewVPC(want, router)
	v, err = n.makeVPC(m)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.pool.Release(router)
		return fmt.Errorf("network: make %s: %w", want.ID, err)
	}
	n.vpcs[want.ID] = v
	return nil
}

// lockMaking serialises the making and removing of one VPC.
func (n *Network) lockMaking(id string) func() {
	n.mu.Lock()
	l := n.making[id]
	if l == nil {
		l = new(sync.Mutex)
		n.making[id] = l
	}
	n.mu.Unlock()
	l.Lock()
	return l.Unlock
}

func (n *Network) makeVPC(m *topo.VPC) (_ *vpc, err error) {
	path, peer := n.vpcPath(m.ID), n.linkName(m.ID)
	defer func() {
		if err != nil {
			n.deleteInternetLink(peer)
			n.forget(m)
		}
	}()
	if err := n.saveState(m); err != nil {
		return nil, err
	}
	n.deleteInternetLink(peer) // of a half-made one
	err = makeNS(n.hostNS, path, func() error {
		for _, s := range [][2]string{
			{"net.ipv4.ip_forward", "1"},
			{"net.ipv4.ip_nonlocal_bind", "1"}, // a balancer may start before its address is there
			{"net.ipv4.conf.all.send_redirects", "0"},
			{"net.ipv4.conf.default.send_redirects", "0"},
			{"net.ipv4.conf.all.accept_redirects", "0"},
			{"net.ipv4.conf.default.accept_redirects", "0"},
			{"net.ipv4.conf.default.rp_filter", "1"},
		} {
			if err := sysctl(s[0], s[1]); err != nil {
				return err
			}
		}
		disableIPv6("all", "default")
		return nil
	})
	if err != nil {
		return nil, err
	}
	sp, err := openSpace(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			sp.close()
		}
	}()
	if err := sp.h.LinkSetUp(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: loIndex}}); err != nil {
		return nil, err
	}
	if err := n.plug(peer, sp, n.uplink()); err != nil {
		return nil, err
	}
	up, err := sp.h.LinkByName(n.uplink())
	if err != nil {
		return nil, err
	}
	v := &vpc{model: m, space: sp, up: up.Attrs().Index}
	err = inNS(n.hostNS, sp.fd(), func() error {
		for _, s := range [][2]string{
			{"net.ipv4.conf." + n.uplink() + ".arp_ignore", "1"},
			// For cards whose owner puts his own on-link route on them.
			{"net.ipv4.conf.default.proxy_arp", "1"},
		} {
			if err := sysctl(s[0], s[1]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := n.syncLinks(v, m); err != nil {
		return nil, err
	}
	if err := addDefault(sp.h, v.up, n.hostAddr(), 0); err != nil {
		return nil, err
	}
	return v, n.render(v, m)
}

// openVPC opens an existing VPC's namespace.
func (n *Network) openVPC(m *topo.VPC) (*vpc, error) {
	sp, err := openSpace(n.vpcPath(m.ID))
	if err != nil {
		return nil, err
	}
	up, err := sp.h.LinkByName(n.uplink())
	if missing(err) { // made by half, or the internet was made anew
		n.deleteInternetLink(n.linkName(m.ID))
		sp.close()
		return n.makeVPC(m)
	}
	if err != nil {
		sp.close()
		return nil, err
	}
	v := &vpc{model: m, space: sp, up: up.Attrs().Index}
	if err := n.syncLinks(v, m); err != nil {
		sp.close()
		return nil, err
	}
	return v, nil
}

// plug connects a namespace to the region's internet.
func (n *Network) plug(peer string, sp *space, name string) error {
	bridge, err := n.inet.h.LinkByName(n.bridge())
	if err != nil {
		return err
	}
	la := netlink.NewLinkAttrs()
	la.Name, la.MasterIndex, la.Flags = peer, bridge.Attrs().Index, net.FlagUp
	if err := n.inet.h.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: name, PeerNamespace: netlink.NsFd(sp.fd())}); err != nil {
		return fmt.Errorf("add link %s: %w", peer, err)
	}
	l, err := sp.h.LinkByName(name)
	if err != nil {
		return err
	}
	return sp.h.LinkSetUp(l)
}

func (n *Network) deleteInternetLink(name string) {
	if l, err := n.inet.h.LinkByName(name); err == nil {
		if err := n.inet.h.LinkDel(l); err != nil {
			n.log.Warn("a link could not be removed", "link", name, "error", err)
		}
	}
}

func addDefault(h *netlink.Handle, index int, gw netip.Addr, flags int) error {
	err := h.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gw.AsSlice(), Flags: flags})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add default route by %s: %w", gw, err)
	}
	return nil
}

// syncLinks brings the addresses and routes of the VPC's own namespace up to
// date: link-local services, gateways and shared cards on lo, public addresses
// on the uplink.
func (n *Network) syncLinks(v *vpc, m *topo.VPC) error {
	var local []netip.Prefix
	for _, a := range m.Services() {
		local = append(local, host32(a))
	}
	for _, s := range m.Subnets {
		local = append(local, host32(topo.Gateway(s)))
	}
	outside := []netip.Prefix{netip.PrefixFrom(m.Router, n.cfg.Internet.Bits())}
	for _, c := range m.Cards {
		if c.Shared {
			local = append(local, host32(c.IP))
		}
		if a, ok := m.PublicOf(c); ok {
			outside = append(outside, host32(a))
		}
	}
	if _, err := syncAddrs(v.space.h, loIndex, local); err != nil {
		return err
	}
	added, err := syncAddrs(v.space.h, v.up, outside)
	if err != nil {
		return err
	}
	if len(added) > 0 {
		if err := inNS(n.hostNS, v.space.fd(), func() error { return announce(n.uplink(), added) }); err != nil {
			// Neighbours learn it anyway, only later.
			n.log.Warn("public addresses were not announced", "vpc", m.ID, "error", err)
		}
	}
	// What has no card inside the VPC's ranges must not leave by the uplink.
	want := append([]netip.Prefix{linkLocal}, m.CIDRs...)
	for _, p := range want {
		err := v.space.h.RouteReplace(&netlink.Route{Dst: ipNet(p), Type: unix.RTN_UNREACHABLE})
		if err != nil {
			return fmt.Errorf("add route for %s: %w", p, err)
		}
	}
	routes, err := v.space.h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Type: unix.RTN_UNREACHABLE}, netlink.RT_FILTER_TYPE)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		keep := r.Dst == nil
		for _, p := range want {
			keep = keep || r.Dst.String() == p.String()
		}
		if !keep {
			if err := v.space.h.RouteDel(&r); err != nil {
				return fmt.Errorf("remove route for %s: %w", r.Dst, err)
			}
		}
	}
	return nil
}

// change makes the kernel follow a new model of a VPC, which the caller has
// locked.
func (n *Network) change(v *vpc, m *topo.VPC, links bool) error {
	if err := n.saveState(m); err != nil {
		return err
	}
	if links {
		if err := n.syncLinks(v, m); err != nil {
			return fmt.Errorf("network: %s: %w", m.ID, err)
		}
	}
	if err := n.render(v, m); err != nil {
		return fmt.Errorf("network: %s: %w", m.ID, err)
	}
	v.model = m
	return nil
}

// edit locks a VPC and applies a change of its model.
func (n *Network) edit(id string, links bool, fn func(*topo.VPC) error) error {
	v, err := n.lookup(id)
	if err != nil {
		return err
	}
	defer v.mu.Unlock()
	m := v.model.Clone()
	if err := fn(m); err != nil {
		return err
	}
	return n.change(v, m, links)
}

// EnsureSubnet adds a subnet or changes where its default route leads.
func (n *Network) EnsureSubnet(_ context.Context, s network.Subnet) error {
	return n.edit(s.VPC, true, func(m *topo.VPC) error { return m.SetSubnet(s) })
}

// RemoveSubnet removes an empty subnet.
func (n *Network) RemoveSubnet(_ context.Context, vpc, id string) error {
	return ignoreMissing(n.edit(vpc, true, func(m *topo.VPC) error { return m.DropSubnet(id) }))
}

// EnsureGroup adds or replaces a group.
func (n *Network) EnsureGroup(_ context.Context, g network.Group) error {
	return n.edit(g.VPC, false, func(m *topo.VPC) error { return m.SetGroup(g) })
}

// RemoveGroup removes a group that no interface carries.
func (n *Network) RemoveGroup(_ context.Context, vpc, id string) error {
	return ignoreMissing(n.edit(vpc, false, func(m *topo.VPC) error { return m.DropGroup(id) }))
}

// SetGroups replaces an interface's groups.
func (n *Network) SetGroups(_ context.Context, vpc, eni string, groups []string) error {
	return n.edit(vpc, false, func(m *topo.VPC) error { return m.SetGroups(eni, groups) })
}

// RemoveVPC removes an empty VPC.
func (n *Network) RemoveVPC(_ context.Context, id string) error {
	defer n.lockMaking(id)()
	v, err := n.lookup(id)
	if err != nil {
		return ignoreMissing(err)
	}
	defer v.mu.Unlock()
	for _, c := range v.model.Cards {
		return topo.Conflict(id, "interface %s is still in it", c.ID)
	}
	for _, s := range v.model.Subnets {
		return topo.Conflict(id, "subnet %s is still in it", s.ID)
	}
	return n.dropVPC(v)
}

func (n *Network) dropVPC(v *vpc) error {
	id := v.model.ID
	n.deleteInternetLink(n.linkName(id))
	if err := dropNS(n.vpcPath(id)); err != nil {
		return fmt.Errorf("network: remove %s: %w", id, err)
	}
	if err := os.Remove(n.statePath(id)); err != nil && !missing(err) {
		return fmt.Errorf("network: remove %s: %w", id, err)
	}
	v.gone = true
	v.space.close()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.vpcs, id)
	n.pool.Release(v.model.Router)
	return nil
}
