package kernel

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ListenTCP opens a listener inside a VPC's namespace.
func (n *Network) ListenTCP(vpc string, a netip.AddrPort) (net.Listener, error) {
	return inVPC(n, vpc, func() (net.Listener, error) {
		return net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(a))
	})
}

// ListenUDP opens a packet socket inside a VPC's namespace.
func (n *Network) ListenUDP(vpc string, a netip.AddrPort) (net.PacketConn, error) {
	return inVPC(n, vpc, func() (net.PacketConn, error) {
		return net.ListenUDP("udp4", net.UDPAddrFromAddrPort(a))
	})
}

// DialContext returns a dialler whose connections start inside a VPC's
// namespace. Addresses are literal: names are the host's business. What it
// sends to instances must pass their groups as coming from the subnet's router.
func (n *Network) DialContext(vpc string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if _, err := netip.ParseAddrPort(addr); err != nil {
			return nil, fmt.Errorf("network: dial in %s: %w", vpc, err)
		}
		return inVPC(n, vpc, func() (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr)
		})
	}
}

func inVPC[T any](n *Network, id string, fn func() (T, error)) (T, error) {
	var out T
	v, err := n.lookup(id)
	if err != nil {
		return out, err
	}
	// The namespace must not be closed while the thread enters it, but a slow
	// dial may not hold the lock: so it has a descriptor of its own.
	fd, err := unix.Dup(v.space.fd())
	v.mu.Unlock()
	if err != nil {
		return out, err
	}
	defer unix.Close(fd)
	err = inNS(n.hostNS, fd, func() (err error) {
		out, err = fn()
		return err
	})
	if err != nil {
		return out, fmt.Errorf("network: in %s: %w", id, err)
	}
	return out, nil
}

// announce tells a link's neighbours, by gratuitous ARP, that addresses are
// here now. It runs in the link's namespace.
func announce(link string, as []netip.Addr) error {
	l, err := net.InterfaceByName(link)
	if err != nil {
		return err
	}
	const arp = 0x0806
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	broadcast := []byte{255, 255, 255, 255, 255, 255}
	for _, a := range as {
		frame := append([]byte{}, broadcast...)
		frame = append(frame, l.HardwareAddr...)
		frame = binary.BigEndian.AppendUint16(frame, arp)
		frame = append(frame, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, request
		frame = append(frame, l.HardwareAddr...)
		frame = append(frame, a.AsSlice()...)
		frame = append(frame, make([]byte, 6)...)
		frame = append(frame, a.AsSlice()...)
		to := &unix.SockaddrLinklayer{Ifindex: l.Index, Protocol: arp<<8&0xff00 | arp>>8, Halen: 6}
		copy(to.Addr[:], broadcast)
		if err := unix.Sendto(fd, frame, 0, to); err != nil {
			return err
		}
	}
	return nil
}
