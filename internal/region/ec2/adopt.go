package ec2

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/state"
)

// Adopt brings the world in line with the tables after a start: networks are
// made again, what runs goes on, what died meanwhile is written down, what
// nobody knows is destroyed. What a crash left half done is queued for Run.
// Call it before anything else is asked of the service.
func (s *Service) Adopt(ctx context.Context) error {
	if err := s.adoptInstances(ctx); err != nil {
		return fmt.Errorf("adopt instances: %w", err)
	}
	if err := s.adoptNetworks(ctx); err != nil {
		return fmt.Errorf("adopt networks: %w", err)
	}
	return nil
}

// adoptInstances compares the tables with what the hypervisor has.
func (s *Service) adoptInstances(ctx context.Context) error {
	found, err := s.hyper.List(ctx)
	if err != nil {
		return err
	}
	have := map[string]hypervisor.Status{}
	var unknown []string
	var todo []string
	s.view(func(tx *state.Tx) {
		for _, st := range found {
			have[st.ID] = st
			if i, ok := s.instances.Get(tx, st.ID); !ok || i.State == terminated {
				unknown = append(unknown, st.ID)
			}
		}
	})
	var errs []error
	for _, id := range unknown {
		s.log.Warn("an instance that nobody knows is destroyed", "instance", id)
		if err := s.hyper.Destroy(ctx, id); err != nil {
			errs = append(errs, fmt.Errorf("destroy %s: %w", id, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var strays []string // run although they shall not
	err = s.update(func(tx *state.Tx) error {
		todo, strays = nil, nil
		for id, i := range s.instances.All(tx) {
			st, there := have[id]
			busy := i.Reboot || len(i.Imaging) > 0
			switch {
			case i.State == terminated:
				continue
			case i.State == pending || i.State == stopping || i.State == shuttingDown:
				todo = append(todo, id)
			case !there: // running or stopped, and its disk is gone
				i.become(shuttingDown)
				i.Reason = internalReason("the instance is not there any more")
				s.putInstance(tx, i)
				todo = append(todo, id)
			case i.State == stopped && st.State == hypervisor.Running:
				strays = append(strays, id)
			case busy:
				todo = append(todo, id)
			case i.State == running && st.State == hypervisor.Stopped:
				s.diedAlone(tx, i, st.Reason)
				todo = append(todo, id)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range strays {
		if err := s.hyper.Stop(ctx, id, 0); err != nil {
			return fmt.Errorf("stop %s: %w", id, err)
		}
	}
	s.work.add(todo...)
	return nil
}

// diedAlone writes down the end of an instance that nobody watched.
func (s *Service) diedAlone(tx *state.Tx, i instance, how string) {
	i.Reason = internalReason("the instance ended while the region was down: " + how)
	if i.Terminate {
		i.become(shuttingDown)
	} else {
		i.become(stopped)
		if c, ok := s.cards.Get(tx, i.Card); ok && c.Allocation == "" {
			c.Public = noAddr
			s.putCard(tx, c)
		}
	}
	s.putInstance(tx, i)
}

// plan is what a VPC's network has to hold.
type plan struct {
	vpc     network.VPC
	groups  []network.Group
	subnets []network.Subnet
	cards   []network.Interface
}

// adoptNetworks makes every network object again, and sweeps what is left of
// others.
func (s *Service) adoptNetworks(ctx context.Context) error {
	if err := s.keepPublic(ctx); err != nil {
		return fmt.Errorf("public addresses: %w", err)
	}
	var worlds []*plan
	var keepVPCs, keepCards, gone []string
	s.view(func(tx *state.Tx) { worlds, keepVPCs, keepCards, gone = s.plans(tx) })
	for _, w := range worlds {
		// One network that cannot be made must not keep the region down.
		if err := s.adoptNetwork(ctx, w); err != nil {
			s.log.Error("a network could not be adopted and is tried again", "vpc", w.vpc.ID, "error", err)
			s.net1.retries["adopt "+w.vpc.ID] = func(ctx context.Context) error {
				defer s.net1.lock(w.vpc.ID)()
				var now []*plan
				s.view(func(tx *state.Tx) { now, _, _, _ = s.plans(tx) })
				for _, x := range now {
					if x.vpc.ID == w.vpc.ID {
						return s.adoptNetwork(ctx, x)
					}
				}
				return nil
			}
		}
	}
	removed, err := s.net.Sweep(ctx, keepVPCs, keepCards)
	if err != nil {
		return err
	}
	if len(removed) > 0 {
		s.log.Warn("what was left of networks that nobody knows was removed", "objects", removed)
	}
	for _, id := range gone { // load balancers' interfaces that were being deleted
		if err := s.DeleteManagedInterface(ctx, id); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
	}
	return nil
}

// plans says what every VPC's network has to hold, which cards may stay in it,
// and which of load balancers were being deleted.
func (s *Service) plans(tx *state.Tx) (worlds []*plan, keepVPCs, keepCards, gone []string) {
	by := map[string]*plan{}
	for id, v := range s.vpcs.All(tx) {
		w := &plan{vpc: network.VPC{ID: id}}
		for _, b := range v.CIDRs {
			w.vpc.CIDRs = append(w.vpc.CIDRs, netip.MustParsePrefix(b.CIDR))
		}
		by[id] = w
		worlds, keepVPCs = append(worlds, w), append(keepVPCs, id)
	}
	for _, g := range s.groups.All(tx) {
		if w := by[g.VPC]; w != nil {
			w.groups = append(w.groups, networkGroup(g))
		}
	}
	for _, sn := range s.subnets.All(tx) {
		if w := by[sn.VPC]; w != nil {
			w.subnets = append(w.subnets, network.Subnet{ID: sn.ID, VPC: sn.VPC, CIDR: netip.MustParsePrefix(sn.CIDR), Egress: s.egressOf(tx, sn)})
		}
	}
	for id, c := range s.cards.All(tx) {
		w := by[c.VPC]
		i, _ := s.instances.Get(tx, c.Instance)
		switch {
		case w == nil || c.Kind == cardNAT:
			continue
		case c.Gone:
			gone = append(gone, id)
		case c.Kind == cardInstance && (i.State == pending && !i.Booted || i.State == shuttingDown):
			// a launch attaches it, a termination detaches it
		default:
			w.cards = append(w.cards, networkCard(c))
		}
		keepCards = append(keepCards, id)
	}
	return worlds, keepVPCs, keepCards, gone
}

func (s *Service) adoptNetwork(ctx context.Context, w *plan) error {
	if err := s.net.EnsureVPC(ctx, w.vpc); err != nil {
		return fmt.Errorf("%s: %w", w.vpc.ID, err)
	}
	for _, g := range w.groups {
		if err := s.net.EnsureGroup(ctx, g); err != nil {
			return fmt.Errorf("%s: %w", g.ID, err)
		}
	}
	for _, sn := range w.subnets {
		if err := s.net.EnsureSubnet(ctx, sn); err != nil {
			return fmt.Errorf("%s: %w", sn.ID, err)
		}
		s.net1.mu.Lock()
		s.net1.egress[sn.ID] = sn.Egress
		s.net1.mu.Unlock()
	}
	if len(w.cards) == 0 {
		return nil
	}
	if _, err := s.net.Attach(ctx, w.cards); err != nil {
		return fmt.Errorf("interfaces of %s: %w", w.vpc.ID, err)
	}
	return nil
}

// reserver is a network that can be told of an address that is in use without
// being any interface's.
type reserver interface {
	ReservePublic(ctx context.Context, a netip.Addr) error
}

// keepPublic takes the addresses that no interface in the network carries out
// of its pool again: elastic ones that are free or of a NAT gateway. A network
// that cannot be told is asked for addresses until it has given them.
func (s *Service) keepPublic(ctx context.Context) error {
	idle := map[netip.Addr]bool{}
	s.view(func(tx *state.Tx) {
		for _, a := range s.eips.All(tx) {
			if c, ok := s.cards.Get(tx, a.Card); !ok || c.Kind == cardNAT {
				idle[a.IP] = true
			}
		}
	})
	if r, ok := s.net.(reserver); ok {
		for a := range idle {
			if err := r.ReservePublic(ctx, a); err != nil {
				return err
			}
		}
		return nil
	}
	var others []netip.Addr
	defer func() { s.releasePublic(ctx, others...) }()
	for range 1 << 16 {
		if len(idle) == 0 {
			return nil
		}
		a, err := s.net.AllocatePublic(ctx)
		if err != nil {
			s.log.Warn("elastic addresses could not be reserved", "addresses", len(idle), "error", err)
			return nil // the pool is drained: whatever is left there is not ours
		}
		if idle[a] {
			delete(idle, a)
		} else {
			others = append(others, a)
		}
	}
	return nil
}
