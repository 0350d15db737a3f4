// Package outbound fetches addresses that others than the operator named, such
// as a blueprint, and only where the operator allows it: what is connected to
// is an address that was looked at, so neither a name that resolves to another
// one nor a redirect leads anywhere else. It must not know what is fetched.
package outbound

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Any, as an entry, is everywhere but this machine and its link.
const Any = "any"

// Allowed are the places that may be asked; none where it is empty.
type Allowed struct {
	places []place
	flag   string
}

// place is a host by its name, a range of addresses, or everywhere.
type place struct {
	name   string
	prefix netip.Prefix
	any    bool
	port   string // "" is 80 and 443, and each port of everywhere
}

// Parse reads places: HOST, HOST:PORT, an address or a range such as
// 10.20.0.0/16, [fd00::/8]:9090, or "any". Without a port 80 and 443 are meant,
// with "any" all of them. flag is what errors tell people to set.
func Parse(flag string, entries []string) (Allowed, error) {
	a := Allowed{flag: flag}
	for _, e := range entries {
		bad := func(why string) (Allowed, error) {
			return Allowed{}, &fault.Error{Kind: fault.Invalid, Op: "read " + flag, Object: e, Message: why, Hint: "for example " + flag + " prometheus.corp.example:9090,10.20.0.0/16"}
		}
		host, port := strings.TrimSpace(e), ""
		if h, p, err := net.SplitHostPort(host); err == nil {
			n, err := strconv.ParseUint(p, 10, 16)
			if err != nil || n == 0 {
				return bad("the port is a number from 1 to 65535")
			}
			host, port = h, strconv.FormatUint(n, 10)
		}
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
		p := place{port: port}
		if host == Any {
			p.any = true
		} else if prefix, err := netip.ParsePrefix(host); err == nil {
			p.prefix = prefix.Masked()
		} else if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() == "" {
			p.prefix = netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen())
		} else if p.name = canonical(host); p.name == "" || strings.ContainsFunc(p.name, func(r rune) bool {
			return r != '-' && r != '.' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
		}) {
			return bad("this is neither a host nor a range of addresses")
		}
		if first := p.prefix.Addr(); p.name == "" && !p.any && never(first) && (p.prefix.IsSingleIP() || !first.IsUnspecified()) {
			return bad("addresses of the link, such as those of instance metadata, are never asked")
		}
		a.places = append(a.places, p)
	}
	return a, nil
}

func canonical(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// denied is the error about a place that is not allowed.
func (a Allowed) denied(host, port, why string) error {
	where := net.JoinHostPort(host, port)
	op := "ask " + where
	if slices.ContainsFunc(a.places, func(p place) bool { return p.any && p.port == "" }) {
		where = Any + "," + where
	}
	return &fault.Error{Kind: fault.Denied, Op: op, Message: fmt.Sprintf("the server may not: %s; an operator allows it by %s %s", why, a.flag, where), Hint: "dayfly server start " + a.flag + " " + where}
}

var ports = map[string]string{"http": "80", "https": "443", "ssh": "22"}

// URL says why an address cannot be asked, as far as that is known without
// resolving its name.
func (a Allowed) URL(u *url.URL) error {
	host, port := canonical(u.Hostname()), u.Port()
	if port == "" {
		port = ports[u.Scheme]
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return a.address(host, port, ip)
	}
	if slices.ContainsFunc(a.places, func(p place) bool { return p.meant(port) && (p.name == host || p.name == "") }) {
		return nil
	}
	return a.denied(host, port, "it is not in the list of what may be asked")
}

// meant tells whether a place is meant with a port.
func (p place) meant(port string) bool {
	return p.port == port || (p.port == "" && p.any) || (p.port == "" && (port == "80" || port == "443"))
}

// address says why an address that a host resolved to cannot be asked.
func (a Allowed) address(host, port string, ip netip.Addr) error {
	ip = plain(ip)
	if never(ip) {
		return &fault.Error{Kind: fault.Denied, Op: "ask " + net.JoinHostPort(host, port), Message: ip.String() + " is an address of the link, such as those of instance metadata, which is never asked"}
	}
	for _, p := range a.places {
		switch {
		case !p.meant(port):
		case p.any:
			if !ip.IsLoopback() {
				return nil
			}
		case p.name != "":
			// A name of the operator's leads into private networks, and to this
			// machine only where it says so.
			if p.name == host && (!ip.IsLoopback() || host == "localhost") {
				return nil
			}
		case p.prefix.Contains(ip) && (!ip.IsLoopback() || p.prefix.Addr().IsLoopback()):
			return nil
		}
	}
	if ip.String() != host {
		return a.denied(ip.String(), port, host+" is at "+ip.String()+", which is not in the list of what may be asked")
	}
	return a.denied(host, port, "it is not in the list of what may be asked")
}

var (
	// nat64 are IPv4 addresses as IPv6 networks reach them.
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
	// services are AWS's own at each instance, by IPv6.
	services = netip.MustParsePrefix("fd00:ec2::/32")
)

// plain is the IPv4 address in an IPv6 one.
func plain(ip netip.Addr) netip.Addr {
	ip = ip.Unmap()
	if nat64.Contains(ip) {
		b := ip.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return ip
}

// never are the addresses that no list can allow.
func never(ip netip.Addr) bool {
	ip = ip.WithZone("")
	return ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || services.Contains(ip)
}
