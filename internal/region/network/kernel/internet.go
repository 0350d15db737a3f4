package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/network/topo"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The region's internet is a bridge in a namespace of its own, so that the
// host's bridge filters and forward policies have no say in what VPCs send one
// another; one veth leads from it to the host, which has the first address.

func (n *Network) bridge() string       { return n.cfg.Prefix + "br" }
func (n *Network) hostLink() string     { return n.cfg.Prefix + "0" }
func (n *Network) internetPath() string { return n.cfg.RunDir + "/internet" }

func (n *Network) ensureInternet() error {
	host, err := netlink.NewHandleAt(netns.NsHandle(n.hostNS.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer host.Close()
	if err := n.overlap(host); err != nil {
		return err
	}
	if !isNetNS(n.internetPath()) {
		if err := makeNS(n.hostNS, n.internetPath(), func() error {
			disableIPv6("all", "default")
			return nil
		}); err != nil {
			return err
		}
	}
	if n.inet, err = openSpace(n.internetPath()); err != nil {
		return err
	}
	br, err := n.inet.h.LinkByName(n.bridge())
	if missing(err) {
		la := netlink.NewLinkAttrs()
		la.Name, la.Flags = n.bridge(), net.FlagUp
		if err := n.inet.h.LinkAdd(&netlink.Bridge{LinkAttrs: la}); err != nil {
			return fmt.Errorf("add bridge: %w", err)
		}
		br, err = n.inet.h.LinkByName(n.bridge())
	}
	if err != nil {
		return err
	}
	const inner = "host"
	if _, err := n.inet.h.LinkByName(inner); missing(err) {
		if l, err := host.LinkByName(n.hostLink()); err == nil { // of an internet that is gone
			if err := host.LinkDel(l); err != nil {
				return err
			}
		}
		la := netlink.NewLinkAttrs()
		la.Name, la.MasterIndex, la.Flags = inner, br.Attrs().Index, net.FlagUp
		if err := n.inet.h.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: n.hostLink(), PeerNamespace: netlink.NsFd(int(n.hostNS.Fd()))}); err != nil {
			return fmt.Errorf("add link %s: %w", n.hostLink(), err)
		}
	}
	l, err := host.LinkByName(n.hostLink())
	if err != nil {
		return err
	}
	if err := inNS(n.hostNS, int(n.hostNS.Fd()), func() error {
		disableIPv6(n.hostLink())
		return nil
	}); err != nil {
		return err
	}
	// The rules come before the address: nothing gets in between.
	if err := n.hostRules().write(int(n.hostNS.Fd()), nil); err != nil {
		return err
	}
	if _, err := syncAddrs(host, l.Attrs().Index, []netip.Prefix{netip.PrefixFrom(n.hostAddr(), n.cfg.Internet.Bits())}); err != nil {
		return err
	}
	if err := host.LinkSetUp(l); err != nil {
		return err
	}
	return n.changeHost(sysForward, "1", func(have string) bool { return have != "0" })
}

// overlap refuses an internet that the host already has an address or route in.
func (n *Network) overlap(host *netlink.Handle) error {
	routes, err := host.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	own, _ := host.LinkByName(n.hostLink())
	for _, r := range routes {
		if r.Dst == nil || own != nil && r.LinkIndex == own.Attrs().Index {
			continue
		}
		ip, _ := netip.AddrFromSlice(r.Dst.IP.To4())
		ones, _ := r.Dst.Mask.Size()
		if p := netip.PrefixFrom(ip, ones); ones > 0 && p.Overlaps(n.cfg.Internet) {
			return &fault.Error{Kind: fault.Conflict, Op: "network", Object: n.cfg.Internet.String(),
				Message: fmt.Sprintf("the host has a route to %s already", p), Hint: "give the region another internet prefix, or stop what uses this one"}
		}
	}
	return nil
}

var hostRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// AddHost makes a namespace outside every VPC, on the region's internet; one
// that is there already is returned. Its default route is the host.
func (n *Network) AddHost(_ context.Context, name string) (string, netip.Addr, error) {
	if !hostRE.MatchString(name) {
		return "", netip.Addr{}, &fault.Error{Kind: fault.Invalid, Op: "network", Object: name, Message: "a host's name must be 1 to 32 characters of a-z, 0-9 and -"}
	}
	defer n.lockMaking("host/" + name)()
	path := n.hostPath(name)
	n.mu.Lock()
	a, ok := n.hosts[name]
	var err error
	if !ok || !isNetNS(path) {
		if !ok {
			a, err = n.pool.Take()
		}
		ok = false
		n.hosts[name] = a
	}
	n.mu.Unlock()
	if ok || err != nil {
		return path, a, err
	}
	if err := n.plugHost(name, path, a); err != nil {
		return "", netip.Addr{}, errors.Join(fmt.Errorf("network: add host %s: %w", name, err), n.dropHost(name))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return path, a, n.saveHosts()
}

func (n *Network) plugHost(name, path string, a netip.Addr) error {
	peer := n.linkName("host/" + name)
	n.deleteInternetLink(peer)
	if err := makeNS(n.hostNS, path, func() error {
		disableIPv6("default")
		return nil
	}); err != nil {
		return err
	}
	sp, err := openSpace(path)
	if err != nil {
		return err
	}
	defer sp.close()
	if err := sp.h.LinkSetUp(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: loIndex}}); err != nil {
		return err
	}
	if err := n.plug(peer, sp, "eth0"); err != nil {
		return err
	}
	l, err := sp.h.LinkByName("eth0")
	if err != nil {
		return err
	}
	if _, err := syncAddrs(sp.h, l.Attrs().Index, []netip.Prefix{netip.PrefixFrom(a, n.cfg.Internet.Bits())}); err != nil {
		return err
	}
	return addDefault(sp.h, l.Attrs().Index, n.hostAddr(), 0)
}

// RemoveHost removes a host; an unknown one is no error.
func (n *Network) RemoveHost(_ context.Context, name string) error {
	if !hostRE.MatchString(name) {
		return topo.NotFound(name)
	}
	defer n.lockMaking("host/" + name)()
	return n.dropHost(name)
}

func (n *Network) dropHost(name string) error {
	n.deleteInternetLink(n.linkName("host/" + name))
	if err := dropNS(n.hostPath(name)); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if a, ok := n.hosts[name]; ok {
		n.pool.Release(a)
		delete(n.hosts, name)
	}
	return n.saveHosts()
}

// disableIPv6 switches IPv6 off for links of the calling thread's namespace: a
// VPC has none. Kernels without it have no such file.
func disableIPv6(links ...string) {
	for _, l := range links {
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+l+"/disable_ipv6", []byte("1"), 0)
	}
}
