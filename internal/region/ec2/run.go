package ec2

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/state"
)

// How often Run looks for what nobody told it.
const (
	tickEvery   = time.Second
	resyncEvery = 5 * time.Second
	expireEvery = 30 * time.Second
	listTimeout = 30 * time.Second
)

// run is one Run under way.
type run struct {
	*Service
	ctx context.Context
	wg  sync.WaitGroup
}

// Run makes, stops and destroys what the tables say, watches what the
// hypervisor reports, and forgets what is long gone. It returns when ctx ends,
// after everything under way has stopped; instances go on.
func (s *Service) Run(ctx context.Context) error {
	r := &run{Service: s, ctx: ctx}
	defer r.wg.Wait()
	r.wg.Go(r.keepHouse)
	events := s.hyper.Events()
	for {
		select {
		case <-ctx.Done():
			return nil
		case st, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			s.suspect(st)
		case <-s.work.wake:
			r.dispatch(s.work.take())
		}
	}
}

// dispatch starts the work on instances: launches of a VPC together, so that
// the network is asked once for all of them, everything else one by one.
func (r *run) dispatch(ids []string) {
	launches := map[string][]string{}
	var others []string
	r.view(func(tx *state.Tx) {
		for _, id := range ids {
			if i, ok := r.instances.Get(tx, id); ok && i.State == pending {
				launches[i.VPC] = append(launches[i.VPC], id)
			} else {
				others = append(others, id)
			}
		}
	})
	for vpcID, batch := range launches {
		r.wg.Go(func() { r.launch(vpcID, batch) })
	}
	for _, id := range others {
		r.wg.Go(func() { r.finish(id, r.step(id)) })
	}
}

// finish ends the work on an instance, or sees that it is tried again.
func (r *run) finish(id string, err error) {
	if r.ctx.Err() != nil {
		r.work.done(id, err)
		return
	}
	if err == nil {
		if i, ok := r.record(id); ok && i.owes() {
			r.work.add(id)
		}
	}
	wait := r.work.done(id, err)
	if err == nil {
		return
	}
	r.log.Warn("work on an instance failed and is tried again", "instance", id, "in", wait, "error", err)
	r.wg.Go(func() {
		select {
		case <-r.ctx.Done():
		case <-r.clock.After(wait):
			r.work.add(id)
		}
	})
}

// step does what is next for an instance that is not being launched.
func (r *run) step(id string) error {
	i, ok := r.record(id)
	if !ok {
		return nil
	}
	switch {
	case i.State == shuttingDown:
		return r.terminate(i)
	case i.State == stopping:
		return r.stop(i)
	case (i.State == running || i.State == stopped) && len(i.Imaging) > 0:
		return r.makeImages(i)
	case i.State == running && i.Reboot:
		return r.reboot(i)
	case i.State == running:
		return r.verify(i)
	}
	return nil
}

func (s *Service) record(id string) (i instance, ok bool) {
	s.view(func(tx *state.Tx) { i, ok = s.instances.Get(tx, id) })
	return i, ok
}

// change writes an instance's new state, together with those of others that
// come at the same time. f tells whether there is anything to write.
func (s *Service) change(id string, f func(tx *state.Tx, i *instance) bool) error {
	return s.save.do(func(tx *state.Tx) {
		if i, ok := s.instances.Get(tx, id); ok && f(tx, &i) {
			s.putInstance(tx, i)
		}
	})
}

func (s *Service) saveAll(fs []func(*state.Tx)) []error {
	err := s.update(func(tx *state.Tx) error {
		for _, f := range fs {
			f(tx)
		}
		return nil
	})
	if err == nil {
		return nil
	}
	errs := make([]error, len(fs))
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// with runs f while holding one of the slots.
func (r *run) with(slots chan struct{}, f func() error) error {
	select {
	case slots <- struct{}{}:
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
	defer func() { <-slots }()
	return f()
}

// terminate destroys what an instance was, then forgets its card.
func (r *run) terminate(i instance) error {
	if err := r.with(r.slots, func() error { return r.hyper.Destroy(r.ctx, i.ID) }); err != nil {
		return err
	}
	var c card
	var ok bool
	r.view(func(tx *state.Tx) { c, ok = r.cards.Get(tx, i.Card) })
	if ok {
		r.forget("card " + c.ID)
		if err := r.detach.do(c); err != nil {
			return err
		}
	}
	r.ready.forget(i.ID)
	release := c.Public
	err := r.change(i.ID, func(tx *state.Tx, i *instance) bool {
		if !i.become(terminated) {
			return false
		}
		release = r.freeCard(tx, i.Card)
		i.Ended = r.now()
		for _, ami := range i.Imaging {
			r.failImage(tx, ami, "The instance was terminated before the image was made")
		}
		i.Imaging, i.Reboot = nil, false
		r.tagsOf.Delete(tx, volumeID(i.ID))
		return true
	})
	if err != nil {
		return err
	}
	r.releasePublic(r.ctx, release)
	return nil
}

// stop ends what runs in an instance; its disk stays.
func (r *run) stop(i instance) error {
	err := r.with(r.stops, func() error { return r.hyper.Stop(r.ctx, i.ID, r.grace(i)) })
	if errors.Is(err, hypervisor.ErrNoInstance) {
		return r.lost(i, "the instance is not there any more")
	}
	if err != nil {
		return err
	}
	return r.nowStopped(i.ID, i.Epoch, i.Reason)
}

func (r *run) grace(i instance) time.Duration {
	if i.Force {
		return 0
	}
	return r.cfg.StopGrace
}

// nowStopped writes down that an instance has stopped, and takes its address
// of the day away, as AWS does.
func (s *Service) nowStopped(id string, epoch int64, why reason) error {
	release, changed := card{}, false
	err := s.change(id, func(tx *state.Tx, i *instance) bool {
		if i.Epoch != epoch || !i.become(stopped) {
			return false
		}
		changed = true
		i.Reason, i.Force, i.Reboot = why, false, false
		if c, ok := s.cards.Get(tx, i.Card); ok && c.Public.IsValid() && c.Allocation == "" {
			release = c
			c.Public = noAddr
			s.putCard(tx, c)
		}
		return true
	})
	if err != nil {
		return err
	}
	s.ready.forget(id)
	if release.ID != "" {
		if err := s.pushCard(context.Background(), release.VPC, release.ID); err == nil {
			s.releasePublic(context.Background(), release.Public)
		}
	}
	if changed {
		s.work.add(id) // images may wait for this
	}
	return nil
}

// lost writes down that what an instance was is gone.
func (s *Service) lost(i instance, why string) error {
	err := s.change(i.ID, func(_ *state.Tx, i *instance) bool {
		if !i.become(shuttingDown) {
			return false
		}
		i.Reason = internalReason(why)
		i.Transition = "Server.InternalError"
		return true
	})
	if err == nil {
		s.work.add(i.ID)
	}
	return err
}

func internalReason(why string) reason {
	return reason{"Server.InternalError", "Server.InternalError: " + why}
}

// reboot stops and starts an instance that counts as running all the while.
func (r *run) reboot(i instance) error {
	if err := r.with(r.stops, func() error { return r.hyper.Stop(r.ctx, i.ID, r.cfg.StopGrace) }); err != nil {
		return r.giveUp(i, err)
	}
	if err := r.again(i); err != nil {
		return r.giveUp(i, err)
	}
	return r.change(i.ID, func(_ *state.Tx, i *instance) bool {
		i.Reboot = false
		i.Epoch++
		return true
	})
}

// again starts an instance that was stopped in passing, unless it shall not
// run any more.
func (r *run) again(i instance) error {
	now, ok := r.record(i.ID)
	if !ok || now.State != running {
		return nil
	}
	ns, err := r.attach(i.VPC, []string{i.ID})
	if err != nil {
		return err
	}
	r.ready.forget(i.ID)
	return r.with(r.slots, func() error { return r.hyper.Start(r.ctx, i.ID, ns[i.ID]) })
}

// giveUp decides what an error in the middle of a restart means: the instance
// is gone, does not start, or it is to be tried again.
func (r *run) giveUp(i instance, err error) error {
	switch {
	case r.ctx.Err() != nil:
		return err
	case errors.Is(err, hypervisor.ErrNoInstance), errors.Is(err, hypervisor.ErrNoImage):
		return r.lost(i, err.Error())
	case r.work.failures(i.ID) >= 3:
		now, _ := r.record(i.ID)
		return r.nowStopped(i.ID, now.Epoch, internalReason(err.Error()))
	}
	return err
}
