package region

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/balancer"
	"github.com/dayfly-infra/dayfly/internal/region/dns"
	"github.com/dayfly-infra/dayfly/internal/region/network"
)

// sockets are listeners inside VPCs; a network in memory has none.
type sockets interface {
	ListenTCP(vpc string, a netip.AddrPort) (net.Listener, error)
	ListenUDP(vpc string, a netip.AddrPort) (net.PacketConn, error)
}

// vpcs is a network that also listens inside every VPC: metadata, names and the
// AWS API at their link-local addresses.
type vpcs struct {
	network.Network
	sockets  sockets
	balancer balancer.Balancer
	dns      *dns.Resolver
	api      *http.Server
	imds     func(vpc string) http.Handler
	log      *slog.Logger

	mu   sync.Mutex
	open map[string][]interface{ Close() error }
}

// EnsureVPC implements network.Network.
func (v *vpcs) EnsureVPC(ctx context.Context, vpc network.VPC) error {
	if err := v.Network.EnsureVPC(ctx, vpc); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, there := v.open[vpc.ID]; there || v.sockets == nil {
		return nil
	}
	closers, err := v.listen(vpc)
	if err != nil {
		for _, c := range closers {
			_ = c.Close()
		}
		return err
	}
	v.open[vpc.ID] = closers
	return nil
}

func (v *vpcs) listen(vpc network.VPC) (closers []interface{ Close() error }, err error) {
	tcp := func(a netip.Addr, port uint16) (net.Listener, error) {
		l, err := v.sockets.ListenTCP(vpc.ID, netip.AddrPortFrom(a, port))
		if err == nil {
			closers = append(closers, l)
		}
		return l, err
	}
	serve := func(s *http.Server, l net.Listener) {
		go func() {
			if err := s.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				v.log.Error("a listener inside a VPC ended", "vpc", vpc.ID, "address", l.Addr(), "error", err)
			}
		}()
	}
	l, err := tcp(network.MetadataAddr, 80)
	if err != nil {
		return closers, err
	}
	meta := webServer(v.imds(vpc.ID))
	closers = append(closers, meta)
	serve(meta, l)
	if l, err = tcp(network.EndpointAddr, 80); err != nil {
		return closers, err
	}
	serve(v.api, l)
	resolvers := []netip.Addr{network.ResolverAddr}
	if len(vpc.CIDRs) > 0 {
		resolvers = append(resolvers, vpc.CIDRs[0].Addr().Next().Next())
	}
	for _, a := range resolvers {
		pc, err := v.sockets.ListenUDP(vpc.ID, netip.AddrPortFrom(a, 53))
		if err != nil {
			return closers, err
		}
		closers = append(closers, pc)
		l, err := tcp(a, 53)
		if err != nil {
			return closers, err
		}
		v.dns.Serve(vpc.ID, pc, l)
	}
	return closers, nil
}

// RemoveVPC implements network.Network.
func (v *vpcs) RemoveVPC(ctx context.Context, id string) error {
	if err := v.balancer.Remove(ctx, id); err != nil {
		return err
	}
	v.mu.Lock()
	closers := v.open[id]
	delete(v.open, id)
	v.mu.Unlock()
	for _, c := range closers {
		_ = c.Close() // listeners of a network that goes away
	}
	return v.Network.RemoveVPC(ctx, id)
}

// closeAll closes every listener; the networks stay.
func (v *vpcs) closeAll() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, cs := range v.open {
		for _, c := range cs {
			_ = c.Close()
		}
	}
	clear(v.open)
}

// webServer is an HTTP server with limits on whoever is slow.
func webServer(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
}
