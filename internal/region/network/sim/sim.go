// Package sim is a network in memory: the same checks and the same decisions
// about packets as network/kernel, without packets. It makes no paths, needs no
// rights, and can be told to fail.
package sim

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/network/topo"
)

// Network is a simulated network.Network.
type Network struct {
	// Fail, where set, is asked before every change with the operation's name
	// and the object's id; its error is the answer. Set it before use.
	Fail func(op, object string) error

	mu    sync.Mutex
	world topo.World
	pool  *topo.Pool
	hosts map[string]netip.Addr
}

var _ network.Network = (*Network)(nil)

// New is an empty network whose public addresses come from internet.
func New(internet netip.Prefix) *Network {
	return &Network{
		world: topo.World{Internet: internet.Masked(), VPCs: map[string]*topo.VPC{}},
		pool:  topo.NewPool(internet), hosts: map[string]netip.Addr{},
	}
}

// begin locks, and asks for a fault.
func (n *Network) begin(ctx context.Context, op, object string) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if n.Fail != nil {
		if err := n.Fail(op, object); err != nil {
			return nil, err
		}
	}
	n.mu.Lock()
	return n.mu.Unlock, nil
}

// edit changes a copy of a VPC, and keeps it if nothing was wrong.
func (n *Network) edit(ctx context.Context, op, object, vpc string, fn func(*topo.VPC) error) error {
	end, err := n.begin(ctx, op, object)
	if err != nil {
		return err
	}
	defer end()
	v := n.world.VPCs[vpc]
	if v == nil {
		return topo.NotFound(vpc)
	}
	c := v.Clone()
	if err := fn(c); err != nil {
		return err
	}
	n.world.VPCs[vpc] = c
	return nil
}

// EnsureVPC makes a VPC, or changes its ranges.
func (n *Network) EnsureVPC(ctx context.Context, v network.VPC) error {
	end, err := n.begin(ctx, "EnsureVPC", v.ID)
	if err != nil {
		return err
	}
	defer end()
	if err := topo.CheckVPC(v, n.world.Internet); err != nil {
		return err
	}
	if old := n.world.VPCs[v.ID]; old != nil {
		return old.SetCIDRs(v.CIDRs)
	}
	router, err := n.pool.Take()
	if err != nil {
		return err
	}
	n.world.VPCs[v.ID] = topo.NewVPC(v, router)
	return nil
}

// RemoveVPC removes an empty VPC.
func (n *Network) RemoveVPC(ctx context.Context, id string) error {
	end, err := n.begin(ctx, "RemoveVPC", id)
	if err != nil {
		return err
	}
	defer end()
	v := n.world.VPCs[id]
	if v == nil {
		return nil
	}
	if len(v.Cards) > 0 || len(v.Subnets) > 0 {
		return topo.Conflict(id, "%d interfaces and %d subnets are still in it", len(v.Cards), len(v.Subnets))
	}
	n.drop(v)
	return nil
}

func (n *Network) drop(v *topo.VPC) {
	n.pool.Release(v.Router)
	delete(n.world.VPCs, v.ID)
}

// EnsureSubnet adds a subnet or changes where its default route leads.
func (n *Network) EnsureSubnet(ctx context.Context, s network.Subnet) error {
	return n.edit(ctx, "EnsureSubnet", s.ID, s.VPC, func(v *topo.VPC) error { return v.SetSubnet(s) })
}

// RemoveSubnet removes an empty subnet.
func (n *Network) RemoveSubnet(ctx context.Context, vpc, id string) error {
	if !n.has(vpc) {
		return nil
	}
	return n.edit(ctx, "RemoveSubnet", id, vpc, func(v *topo.VPC) error { return v.DropSubnet(id) })
}

// EnsureGroup adds or replaces a group.
func (n *Network) EnsureGroup(ctx context.Context, g network.Group) error {
	return n.edit(ctx, "EnsureGroup", g.ID, g.VPC, func(v *topo.VPC) error { return v.SetGroup(g) })
}

// RemoveGroup removes a group that no interface carries.
func (n *Network) RemoveGroup(ctx context.Context, vpc, id string) error {
	if !n.has(vpc) {
		return nil
	}
	return n.edit(ctx, "RemoveGroup", id, vpc, func(v *topo.VPC) error { return v.DropGroup(id) })
}

func (n *Network) has(vpc string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.world.VPCs[vpc] != nil
}

// Attach adds interfaces, all or none. The paths are empty: there are no
// namespaces.
func (n *Network) Attach(ctx context.Context, is []network.Interface) ([]string, error) {
	object := ""
	if len(is) > 0 {
		object = is[0].ID
	}
	end, err := n.begin(ctx, "Attach", object)
	if err != nil {
		return nil, err
	}
	defer end()
	changed := map[string]*topo.VPC{}
	for _, c := range is {
		v := changed[c.VPC]
		if v == nil {
			if n.world.VPCs[c.VPC] == nil {
				return nil, topo.NotFound(c.VPC)
			}
			v = n.world.VPCs[c.VPC].Clone()
			changed[c.VPC] = v
		}
		if err := v.SetCard(c); err != nil {
			return nil, err
		}
		if err := topo.CheckPublic(c, n.world.Internet); err != nil {
			return nil, err
		}
	}
	for _, v := range changed {
		if err := v.CheckUnique(); err != nil {
			return nil, err
		}
	}
	for id, v := range changed {
		n.world.VPCs[id] = v
	}
	for _, c := range is {
		n.pool.Mark(c.Public)
	}
	return make([]string, len(is)), nil
}

// SetGroups replaces an interface's groups.
func (n *Network) SetGroups(ctx context.Context, vpc, eni string, groups []string) error {
	return n.edit(ctx, "SetGroups", eni, vpc, func(v *topo.VPC) error { return v.SetGroups(eni, groups) })
}

// Detach removes interfaces; unknown ones are no error.
func (n *Network) Detach(ctx context.Context, vpc string, enis []string) error {
	if !n.has(vpc) {
		return nil
	}
	object := ""
	if len(enis) > 0 {
		object = enis[0]
	}
	return n.edit(ctx, "Detach", object, vpc, func(v *topo.VPC) error {
		for _, id := range enis {
			delete(v.Cards, id)
		}
		return nil
	})
}

// AllocatePublic reserves a public address.
func (n *Network) AllocatePublic(ctx context.Context) (netip.Addr, error) {
	end, err := n.begin(ctx, "AllocatePublic", "")
	if err != nil {
		return netip.Addr{}, err
	}
	defer end()
	return n.pool.Take()
}

// ReleasePublic gives one back, unless it is in use.
func (n *Network) ReleasePublic(ctx context.Context, a netip.Addr) error {
	end, err := n.begin(ctx, "ReleasePublic", a.String())
	if err != nil {
		return err
	}
	defer end()
	for _, v := range n.world.VPCs {
		if v.Router == a {
			return topo.Conflict(a.String(), "it is the address of %s", v.ID)
		}
		for _, c := range v.Cards {
			if c.Public == a {
				return topo.Conflict(a.String(), "it is the address of %s", c.ID)
			}
		}
	}
	for name, h := range n.hosts {
		if h == a {
			return topo.Conflict(a.String(), "it is the address of host %s", name)
		}
	}
	n.pool.Release(a)
	return nil
}

// NetNS is empty: there are no namespaces.
func (n *Network) NetNS(string) string { return "" }

// VPCs lists the networks.
func (n *Network) VPCs(context.Context) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := []string{}
	for id := range n.world.VPCs {
		out = append(out, id)
	}
	slices.Sort(out)
	return out, nil
}

// Sweep removes what is not named.
func (n *Network) Sweep(ctx context.Context, vpcs, enis []string) ([]string, error) {
	end, err := n.begin(ctx, "Sweep", "")
	if err != nil {
		return nil, err
	}
	defer end()
	var removed []string
	for id, v := range n.world.VPCs {
		keep := slices.Contains(vpcs, id)
		for eni := range v.Cards {
			if !keep || !slices.Contains(enis, eni) {
				delete(v.Cards, eni)
				removed = append(removed, eni)
			}
		}
		if !keep {
			n.drop(v)
			removed = append(removed, id)
		}
	}
	slices.Sort(removed)
	return removed, nil
}

// AddHost names a host outside every VPC.
func (n *Network) AddHost(ctx context.Context, name string) (string, netip.Addr, error) {
	end, err := n.begin(ctx, "AddHost", name)
	if err != nil {
		return "", netip.Addr{}, err
	}
	defer end()
	if a, ok := n.hosts[name]; ok {
		return "", a, nil
	}
	a, err := n.pool.Take()
	if err == nil {
		n.hosts[name] = a
	}
	return "", a, err
}

// RemoveHost forgets a host.
func (n *Network) RemoveHost(_ context.Context, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pool.Release(n.hosts[name])
	delete(n.hosts, name)
	return nil
}

// Allowed decides whether the first packet of a conversation arrives. src and
// dst are interface ids or addresses; for ICMP port is the type.
func (n *Network) Allowed(src, dst, proto string, port int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.world.Allowed(src, dst, proto, port)
}

// Close does nothing.
func (n *Network) Close() error { return nil }
