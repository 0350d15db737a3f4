package ec2

import (
	"context"
	"errors"
	"hash/fnv"
	"net/netip"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// syncer carries what the tables say to the network. Each push reads the
// tables under the VPC's lock and pushes what they say now, so pushes may come
// late or twice and never bring back an older state. What failed is tried
// again by Run until it holds; after a restart Adopt pushes everything.
type syncer struct {
	locks [64]sync.Mutex // of VPCs, by hash

	mu      sync.Mutex
	retries map[string]func(context.Context) error
	egress  map[string]network.Egress // last pushed, by subnet
}

func (y *syncer) init() {
	y.retries = map[string]func(context.Context) error{}
	y.egress = map[string]network.Egress{}
}

func (y *syncer) lock(vpc string) (unlock func()) {
	h := fnv.New32a()
	h.Write([]byte(vpc))
	m := &y.locks[h.Sum32()%uint32(len(y.locks))]
	m.Lock()
	return m.Unlock
}

// pushTimeout bounds one change of the network; the caller's patience does
// not, because a change that was written down is carried out.
const pushTimeout = 30 * time.Second

// push runs f under the VPC's lock, and again later where it fails.
func (s *Service) push(ctx context.Context, vpc, what string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pushTimeout)
	defer cancel()
	unlock := s.net1.lock(vpc)
	err := f(ctx)
	unlock()
	if err == nil {
		return nil
	}
	s.log.Error("the network refused a change", "change", what, "error", err)
	s.net1.mu.Lock()
	s.net1.retries[what] = func(ctx context.Context) error {
		defer s.net1.lock(vpc)()
		return f(ctx)
	}
	s.net1.mu.Unlock()
	return s.netError(err)
}

// forget drops the retry of a push whose record is gone.
func (s *Service) forget(what string) {
	s.net1.mu.Lock()
	delete(s.net1.retries, what)
	s.net1.mu.Unlock()
}

func (s *Service) netError(err error) error {
	if _, ok := errors.AsType[*wire.Error](err); ok {
		return err
	}
	switch fault.KindOf(err) {
	case fault.Invalid:
		return wire.Errorf("InvalidParameterValue", "%s", err)
	case fault.Conflict:
		return wire.Errorf("IncorrectState", "%s", err)
	}
	return internal(err)
}

// retryPushes tries once more what failed.
func (s *Service) retryPushes(ctx context.Context) {
	s.net1.mu.Lock()
	todo := s.net1.retries
	s.net1.retries = map[string]func(context.Context) error{}
	s.net1.mu.Unlock()
	for what, f := range todo {
		if err := f(ctx); err != nil {
			s.log.Warn("the network still refuses a change", "change", what, "error", err)
			s.net1.mu.Lock()
			if _, newer := s.net1.retries[what]; !newer {
				s.net1.retries[what] = f
			}
			s.net1.mu.Unlock()
		}
	}
}

func (s *Service) pushVPC(ctx context.Context, id string) error {
	return s.push(ctx, id, "vpc "+id, func(ctx context.Context) error {
		var v vpc
		var ok bool
		s.view(func(tx *state.Tx) { v, ok = s.vpcs.Get(tx, id) })
		if !ok {
			return nil
		}
		n := network.VPC{ID: id}
		for _, b := range v.CIDRs {
			n.CIDRs = append(n.CIDRs, netip.MustParsePrefix(b.CIDR))
		}
		return s.net.EnsureVPC(ctx, n)
	})
}

func (s *Service) pushGroup(ctx context.Context, vpc, id string) error {
	return s.push(ctx, vpc, "group "+id, func(ctx context.Context) error {
		var g group
		var ok bool
		s.view(func(tx *state.Tx) { g, ok = s.groups.Get(tx, id) })
		if !ok {
			return nil
		}
		return s.net.EnsureGroup(ctx, networkGroup(g))
	})
}

func networkGroup(g group) network.Group {
	n := network.Group{ID: g.ID, VPC: g.VPC}
	for _, r := range g.Rules {
		x, ok := r.Network()
		switch {
		case !ok:
		case r.Egress:
			n.Egress = append(n.Egress, x)
		default:
			n.Ingress = append(n.Ingress, x)
		}
	}
	return n
}

// pushSubnets brings the subnets of a VPC to the network whose way out has
// changed, or that are new.
func (s *Service) pushSubnets(ctx context.Context, vpc string) error {
	return s.push(ctx, vpc, "subnets of "+vpc, func(ctx context.Context) error {
		var todo []network.Subnet
		s.view(func(tx *state.Tx) {
			for _, sn := range s.subnets.All(tx) {
				if sn.VPC == vpc {
					todo = append(todo, network.Subnet{ID: sn.ID, VPC: vpc, CIDR: netip.MustParsePrefix(sn.CIDR), Egress: s.egressOf(tx, sn)})
				}
			}
		})
		for _, n := range todo {
			s.net1.mu.Lock()
			had, ok := s.net1.egress[n.ID]
			s.net1.mu.Unlock()
			if ok && had == n.Egress {
				continue
			}
			if err := s.net.EnsureSubnet(ctx, n); err != nil {
				return err
			}
			s.net1.mu.Lock()
			s.net1.egress[n.ID] = n.Egress
			s.net1.mu.Unlock()
		}
		return nil
	})
}

// pushCard carries a card's groups and public address to the network. Cards
// that are on their way out are left alone: they must not come back.
func (s *Service) pushCard(ctx context.Context, vpc, id string) error {
	return s.push(ctx, vpc, "card "+id, func(ctx context.Context) error {
		var c card
		var ok bool
		s.view(func(tx *state.Tx) {
			if c, ok = s.cards.Get(tx, id); ok && c.Kind == cardInstance {
				i, _ := s.instances.Get(tx, c.Instance)
				ok = i.State != shuttingDown && i.State != terminated
			}
		})
		if !ok || c.Gone || c.Kind == cardNAT {
			return nil
		}
		_, err := s.net.Attach(ctx, []network.Interface{networkCard(c)})
		return err
	})
}

func networkCard(c card) network.Interface {
	return network.Interface{ID: c.ID, VPC: c.VPC, Subnet: c.Subnet, IP: c.IP, Public: c.Public, Groups: c.Groups, Shared: c.Kind == cardManaged}
}

// allocatePublic reserves an address that nobody here has. A network that was
// started anew does not know of addresses that are allocated but unused; such
// ones stay reserved when they are met.
func (s *Service) allocatePublic(ctx context.Context) (netip.Addr, error) {
	for {
		a, err := s.net.AllocatePublic(ctx)
		if err != nil {
			if fault.KindOf(err) == fault.Unavailable {
				return a, wire.Errorf("InsufficientAddressCapacity", "%s", err)
			}
			return a, internal(err)
		}
		var used bool
		s.view(func(*state.Tx) { _, used = s.ix.public[a] })
		if !used {
			return a, nil
		}
	}
}

func (s *Service) releasePublic(ctx context.Context, as ...netip.Addr) {
	for _, a := range as {
		if !a.IsValid() {
			continue
		}
		if err := s.net.ReleasePublic(context.WithoutCancel(ctx), a); err != nil {
			s.log.Warn("a public address was not given back", "address", a, "error", err)
		}
	}
}
