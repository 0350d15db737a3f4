package topo

import (
	"net/netip"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Pool hands out a prefix's addresses, the longest unused first, so that an
// address is not somebody else's right after it was given back. The network
// address, the first (the host's) and the last are never handed out.
type Pool struct {
	prefix netip.Prefix
	next   netip.Addr
	used   map[netip.Addr]bool
}

// NewPool is a pool with nothing handed out.
func NewPool(p netip.Prefix) *Pool {
	p = p.Masked()
	return &Pool{prefix: p, next: p.Addr().Next().Next(), used: map[netip.Addr]bool{}}
}

// Take reserves an address.
func (p *Pool) Take() (netip.Addr, error) {
	last := Last(p.prefix)
	for range 1 << (32 - p.prefix.Bits()) {
		a := p.next
		if p.next = p.next.Next(); a == last || !p.prefix.Contains(a) {
			p.next = p.prefix.Addr().Next().Next()
			continue
		}
		if !p.used[a] {
			p.used[a] = true
			return a, nil
		}
	}
	return netip.Addr{}, &fault.Error{Kind: fault.Unavailable, Op: "network", Object: p.prefix.String(),
		Message: "no address of the region's internet is free", Hint: "release addresses, or give the region a larger internet prefix"}
}

// Mark reserves a known address; false where it is not the pool's.
func (p *Pool) Mark(a netip.Addr) bool {
	if !p.prefix.Contains(a) || a == p.prefix.Addr() || a == p.prefix.Addr().Next() || a == Last(p.prefix) {
		return false
	}
	p.used[a] = true
	return true
}

// Release gives an address back.
func (p *Pool) Release(a netip.Addr) { delete(p.used, a) }
