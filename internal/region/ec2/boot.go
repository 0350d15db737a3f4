package ec2

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/region/ec2/instancetype"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/state"
)

var noAddr netip.Addr

// launch brings pending instances of one VPC up: addresses, then all cards in
// one call, then the instances side by side.
func (r *run) launch(vpcID string, ids []string) {
	err := r.publics(ids)
	var ns map[string]string
	if err == nil {
		ns, err = r.attach(vpcID, ids)
	}
	if err != nil && len(ids) > 1 { // find out which it is, without the others suffering
		for _, id := range ids {
			r.wg.Go(func() { r.launch(vpcID, []string{id}) })
		}
		return
	}
	for _, id := range ids {
		r.wg.Go(func() {
			if err != nil {
				r.finish(id, r.failed(id, err))
				return
			}
			path, ok := ns[id]
			if !ok { // it is not to be launched any more
				err := r.step(id)
				if i, there := r.record(id); err == nil && there && i.State == pending {
					err = errors.New("it has no interface")
				}
				r.finish(id, err)
				return
			}
			r.finish(id, r.boot(id, path))
		})
	}
}

// publics gives public addresses to those instances that want one.
func (r *run) publics(ids []string) error {
	var want []string
	r.view(func(tx *state.Tx) {
		for _, id := range ids {
			i, _ := r.instances.Get(tx, id)
			if c, ok := r.cards.Get(tx, i.Card); ok && i.State == pending && i.WantPublic && !c.Public.IsValid() {
				want = append(want, c.ID)
			}
		}
	})
	if len(want) == 0 {
		return nil
	}
	got := make([]netip.Addr, 0, len(want))
	for range want {
		a, err := r.allocatePublic(r.ctx)
		if err != nil {
			r.releasePublic(r.ctx, got...)
			return err
		}
		got = append(got, a)
	}
	var spare []netip.Addr
	err := r.update(func(tx *state.Tx) error {
		for k, id := range want {
			c, ok := r.cards.Get(tx, id)
			if !ok || c.Public.IsValid() { // gone, or an elastic address came
				spare = append(spare, got[k])
				continue
			}
			c.Public = got[k]
			r.putCard(tx, c)
		}
		return nil
	})
	if err != nil {
		spare = got
	}
	r.releasePublic(r.ctx, spare...)
	return err
}

// attach makes the cards of instances that are to run, in one call, and gives
// the network namespace of each.
func (r *run) attach(vpcID string, ids []string) (map[string]string, error) {
	defer r.net1.lock(vpcID)()
	var cards []network.Interface
	var of []string
	r.view(func(tx *state.Tx) {
		for _, id := range ids {
			i, _ := r.instances.Get(tx, id)
			if c, ok := r.cards.Get(tx, i.Card); ok && (i.State == pending || i.State == running) {
				cards, of = append(cards, networkCard(c)), append(of, id)
			}
		}
	})
	if len(cards) == 0 {
		return nil, nil
	}
	paths, err := r.net.Attach(r.ctx, cards)
	if err != nil {
		return nil, err
	}
	if len(paths) != len(cards) {
		return nil, fmt.Errorf("the network made %d of %d interfaces", len(paths), len(cards))
	}
	out := make(map[string]string, len(of))
	for k, id := range of {
		out[id] = paths[k]
	}
	return out, nil
}

// boot creates an instance, or starts a stopped one again.
func (r *run) boot(id, netns string) error {
	var i instance
	err := r.with(r.slots, func() error {
		var ok bool
		if i, ok = r.record(id); !ok || i.State != pending {
			return nil // it was terminated while it waited
		}
		r.ready.forget(id)
		if i.Booted {
			return r.hyper.Start(r.ctx, id, netns)
		}
		spec, err := r.hyperSpec(i, netns)
		if err != nil {
			return err
		}
		return r.hyper.Create(r.ctx, spec)
	})
	if err != nil {
		return r.failed(id, err)
	}
	err = r.change(id, func(_ *state.Tx, i *instance) bool {
		i.Booted = true
		i.become(running)
		return true
	})
	if err != nil {
		return err
	}
	return r.step(id) // it may have been terminated meanwhile, or died
}

func (r *run) hyperSpec(i instance, netns string) (hypervisor.Instance, error) {
	t, ok := instancetype.Get(i.Type)
	if !ok {
		return hypervisor.Instance{}, fmt.Errorf("there is no instance type %s", i.Type)
	}
	data, err := base64.StdEncoding.DecodeString(i.UserData)
	if err != nil {
		return hypervisor.Instance{}, fmt.Errorf("user data: %w", err)
	}
	env := map[string]string{"AWS_REGION": r.cfg.Region, "AWS_DEFAULT_REGION": r.cfg.Region}
	if r.cfg.Endpoint != "" {
		env["AWS_ENDPOINT_URL"] = r.cfg.Endpoint
	}
	return hypervisor.Instance{
		ID: i.ID, Image: i.Disk, CPUs: float64(t.VCPUs), MemoryMiB: t.MemoryMiB, Pids: t.Pids(), Hostname: i.Hostname, NetNS: netns,
		Env: env, UserData: data, Resolver: network.ResolverAddr.String(),
	}, nil
}

// failed writes down that a launch failed: a new instance is terminated, one
// that was stopped before is stopped again.
func (r *run) failed(id string, cause error) error {
	if r.ctx.Err() != nil {
		return cause // the region is going down; the launch goes on at the next start
	}
	why := internalReason("Internal error on launch: " + cause.Error())
	if errors.Is(cause, hypervisor.ErrNoImage) {
		why = reason{"Client.InvalidSnapshot.NotFound", "Client.InvalidSnapshot.NotFound: " + cause.Error()}
	}
	r.log.Error("a launch failed", "instance", id, "error", cause)
	i, ok := r.record(id)
	if !ok || i.State != pending {
		return r.step(id)
	}
	if i.Booted && !slices.ContainsFunc([]error{hypervisor.ErrNoInstance, hypervisor.ErrNoImage}, func(e error) bool { return errors.Is(cause, e) }) {
		return r.nowStopped(id, i.Epoch, why)
	}
	err := r.change(id, func(_ *state.Tx, i *instance) bool {
		if !i.become(shuttingDown) {
			return false
		}
		i.Reason = why
		return true
	})
	if err != nil {
		return err
	}
	return r.step(id)
}
