package ec2

import (
	"net/netip"
	"sync"

	"github.com/dayfly-infra/dayfly/internal/region/ec2/instancetype"
	"github.com/dayfly-infra/dayfly/internal/region/state"
)

// index finds in one step what the tables would have to be searched for. It is
// never on disk: New builds it. Writers hold mu for writing for the whole
// transaction (Service.update), readers for reading.
type index struct {
	mu   sync.RWMutex
	undo []func() // of the transaction under way

	at       map[place]string               // card by VPC and address
	inSubnet map[string]map[string]struct{} // cards by subnet
	inGroup  map[string]map[string]struct{} // cards by security group
	public   map[netip.Addr]string          // public addresses in use, by card or allocation
	cursor   map[string]netip.Addr          // last address given out, by subnet
	rules    map[string]string              // security group by rule
	vcpus    int                            // of pending and running instances
	live     int                            // instances that are not terminated
}

type place struct {
	vpc string
	ip  netip.Addr
}

func (x *index) init() {
	x.at = map[place]string{}
	x.inSubnet = map[string]map[string]struct{}{}
	x.inGroup = map[string]map[string]struct{}{}
	x.public = map[netip.Addr]string{}
	x.cursor = map[string]netip.Addr{}
	x.rules = map[string]string{}
}

func (x *index) addCard(c card) {
	x.at[place{c.VPC, c.IP}] = c.ID
	put(x.inSubnet, c.Subnet, c.ID)
	for _, g := range c.Groups {
		put(x.inGroup, g, c.ID)
	}
	if c.Public.IsValid() && c.Allocation == "" {
		x.public[c.Public] = c.ID
	}
	x.undo = append(x.undo, func() { x.dropCard(c) })
}

func (x *index) dropCard(c card) {
	delete(x.at, place{c.VPC, c.IP})
	drop(x.inSubnet, c.Subnet, c.ID)
	for _, g := range c.Groups {
		drop(x.inGroup, g, c.ID)
	}
	if c.Public.IsValid() && x.public[c.Public] == c.ID {
		delete(x.public, c.Public)
	}
	x.undo = append(x.undo, func() { x.addCard(c) })
}

func (x *index) addInstance(i instance) { x.count(i, 1) }

func (x *index) dropInstance(i instance) { x.count(i, -1) }

func (x *index) count(i instance, by int) {
	if i.State != terminated {
		x.live += by
	}
	if i.State == pending || i.State == running {
		t, _ := instancetype.Get(i.Type)
		x.vcpus += by * t.VCPUs
	}
	x.undo = append(x.undo, func() { x.count(i, -by) })
}

func (x *index) addGroup(g group) {
	for _, r := range g.Rules {
		x.rules[r.ID] = g.ID
	}
	x.undo = append(x.undo, func() { x.dropGroup(g) })
}

func (x *index) dropGroup(g group) {
	for _, r := range g.Rules {
		delete(x.rules, r.ID)
	}
	x.undo = append(x.undo, func() { x.addGroup(g) })
}

func put(m map[string]map[string]struct{}, k, v string) {
	if m[k] == nil {
		m[k] = map[string]struct{}{}
	}
	m[k][v] = struct{}{}
}

func drop(m map[string]map[string]struct{}, k, v string) {
	delete(m[k], v)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

// free counts a subnet's free addresses: AWS keeps the first four and the last.
func (x *index) free(sn subnet) int {
	p := netip.MustParsePrefix(sn.CIDR)
	return 1<<(32-p.Bits()) - 5 - len(x.inSubnet[sn.ID])
}

// take finds a free address, going on from the last one given out so that an
// address is not somebody else's right after it was given back.
func (x *index) take(sn subnet) (netip.Addr, bool) {
	if x.free(sn) <= 0 {
		return netip.Addr{}, false
	}
	p := netip.MustParsePrefix(sn.CIDR).Masked()
	first := p.Addr()
	for range 4 {
		first = first.Next()
	}
	a, ok := x.cursor[sn.ID]
	if ok {
		a = a.Next()
	} else {
		a = first
	}
	for range 1 << (32 - p.Bits()) {
		if !p.Contains(a) || !p.Contains(a.Next()) || a.Less(first) { // outside, or the last one
			a = first
		}
		if _, used := x.at[place{sn.VPC, a}]; !used {
			x.cursor[sn.ID] = a
			return a, true
		}
		a = a.Next()
	}
	return netip.Addr{}, false
}

// usable tells whether a particular address of a subnet can be had at all.
func usable(sn subnet, a netip.Addr) bool {
	p := netip.MustParsePrefix(sn.CIDR).Masked()
	first := p.Addr()
	for range 4 {
		first = first.Next()
	}
	return p.Contains(a) && p.Contains(a.Next()) && !a.Less(first)
}

func (s *Service) putCard(tx *state.Tx, c card) {
	if old, ok := s.cards.Get(tx, c.ID); ok {
		s.ix.dropCard(old)
	}
	s.ix.addCard(c)
	s.cards.Put(tx, c.ID, c)
}

func (s *Service) deleteCard(tx *state.Tx, id string) {
	if old, ok := s.cards.Get(tx, id); ok {
		s.ix.dropCard(old)
		s.cards.Delete(tx, id)
		s.tagsOf.Delete(tx, id)
	}
}

func (s *Service) putInstance(tx *state.Tx, i instance) {
	if old, ok := s.instances.Get(tx, i.ID); ok {
		s.ix.dropInstance(old)
	}
	s.ix.addInstance(i)
	s.instances.Put(tx, i.ID, i)
}

func (s *Service) putGroup(tx *state.Tx, g group) {
	if old, ok := s.groups.Get(tx, g.ID); ok {
		s.ix.dropGroup(old)
	}
	s.ix.addGroup(g)
	s.groups.Put(tx, g.ID, g)
}

func (s *Service) deleteGroup(tx *state.Tx, id string) {
	if old, ok := s.groups.Get(tx, id); ok {
		s.ix.dropGroup(old)
		for _, r := range old.Rules {
			s.tagsOf.Delete(tx, r.ID)
		}
		s.groups.Delete(tx, id)
		s.tagsOf.Delete(tx, id)
	}
}

func (s *Service) setPublic(a netip.Addr, owner string) {
	old, had := s.ix.public[a]
	if owner == "" {
		delete(s.ix.public, a)
	} else {
		s.ix.public[a] = owner
	}
	s.ix.undo = append(s.ix.undo, func() {
		if had {
			s.ix.public[a] = old
		} else {
			delete(s.ix.public, a)
		}
	})
}
