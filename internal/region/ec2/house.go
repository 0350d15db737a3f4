package ec2

import (
	"context"
	"strings"
	"sync"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/state"
)

// keepHouse does what has time: it never holds up a launch.
func (r *run) keepHouse() {
	resynced, expired := r.clock.Now(), r.clock.Now()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.litter:
		case <-r.clock.After(tickEvery):
		}
		r.retryPushes(r.ctx)
		r.collect(r.ctx)
		if now := r.clock.Now(); now.Sub(resynced) >= resyncEvery {
			resynced = now
			r.resync(r.ctx)
		}
		if now := r.clock.Now(); now.Sub(expired) >= expireEvery {
			expired = now
			r.expire()
		}
	}
}

// suspects are instances that are said to have died. News of a death may be
// late: the machine may have been started again since. So it is only looked
// into, when nothing else is being done to the instance.
type suspects struct {
	mu sync.Mutex
	m  map[string]struct{}
}

func (d *suspects) put(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.m == nil {
		d.m = map[string]struct{}{}
	}
	d.m[id] = struct{}{}
}

func (d *suspects) take(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.m[id]
	delete(d.m, id)
	return ok
}

// suspect handles the news that an instance's PID 1 has ended.
func (s *Service) suspect(st hypervisor.Status) {
	if st.State != hypervisor.Stopped || st.Reason == "stopped" {
		return // the latter was our own doing
	}
	s.deaths.put(st.ID)
	s.work.add(st.ID)
}

// verify finds out whether a suspect runs, and draws the consequences.
func (r *run) verify(i instance) error {
	if !r.deaths.take(i.ID) {
		return nil
	}
	ask := &question{id: i.ID}
	if err := r.census.do(ask); err != nil {
		r.deaths.put(i.ID)
		return err
	}
	switch {
	case !ask.found:
		return r.lost(i, "the instance is not there any more")
	case ask.status.State == hypervisor.Stopped:
		return r.ended(i, ask.status.Reason)
	}
	return nil
}

// question asks what the hypervisor says of an instance.
type question struct {
	id     string
	status hypervisor.Status
	found  bool
}

// count answers many questions by one list.
func (s *Service) count(qs []*question) []error {
	ctx, cancel := context.WithTimeout(context.Background(), listTimeout) // of nobody's request in particular
	defer cancel()
	list, err := s.hyper.List(ctx)
	if err != nil {
		errs := make([]error, len(qs))
		for k := range errs {
			errs[k] = err
		}
		return errs
	}
	by := make(map[string]hypervisor.Status, len(list))
	for _, st := range list {
		by[st.ID] = st
	}
	for _, q := range qs {
		q.status, q.found = by[q.id]
	}
	return nil
}

// ended applies the shutdown behaviour of an instance that stopped by itself.
func (s *Service) ended(i instance, how string) error {
	why := reason{"Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown"}
	if !strings.HasPrefix(how, "exited") {
		why = internalReason("the instance ended: " + how)
	}
	if !i.Terminate {
		return s.nowStopped(i.ID, i.Epoch, why)
	}
	err := s.change(i.ID, func(_ *state.Tx, now *instance) bool {
		if now.Epoch != i.Epoch || !now.become(shuttingDown) {
			return false
		}
		now.Reason = why
		return true
	})
	if err == nil {
		s.work.add(i.ID)
	}
	return err
}

// resync compares the running instances with what the hypervisor says, for
// news that did not arrive.
func (s *Service) resync(ctx context.Context) {
	var before []instance
	s.view(func(tx *state.Tx) {
		for _, i := range s.instances.All(tx) {
			if i.State == running && !i.Reboot && len(i.Imaging) == 0 && s.work.idle(i.ID) {
				before = append(before, i)
			}
		}
	})
	if len(before) == 0 {
		return
	}
	list, err := s.hyper.List(ctx)
	if err != nil {
		s.log.Warn("the hypervisor does not say what runs", "error", err)
		return
	}
	now := map[string]hypervisor.Status{}
	for _, st := range list {
		now[st.ID] = st
	}
	for _, i := range before {
		if st, ok := now[i.ID]; !ok || st.State == hypervisor.Stopped {
			s.deaths.put(i.ID)
			s.work.add(i.ID)
		}
	}
}

// expire forgets what was terminated or deleted an hour ago, and old tokens.
func (s *Service) expire() {
	now := s.now()
	err := s.update(func(tx *state.Tx) error {
		for id, i := range s.instances.All(tx) {
			if i.State == terminated && now.Sub(i.Ended) >= keepDeleted {
				s.ix.dropInstance(i)
				s.instances.Delete(tx, id)
				s.tagsOf.Delete(tx, id)
			}
		}
		for id, n := range s.nats.All(tx) {
			if n.State == "deleted" && now.Sub(n.Deleted) >= keepDeleted {
				s.nats.Delete(tx, id)
				s.tagsOf.Delete(tx, id)
			}
		}
		for id, t := range s.tokens.All(tx) {
			if now.Sub(t.Made) < keepTokens {
				continue
			}
			live := false
			for _, x := range t.IDs {
				_, ok := s.instances.Get(tx, x)
				live = live || ok
			}
			if !live {
				s.tokens.Delete(tx, id)
			}
		}
		return nil
	})
	if err != nil {
		s.log.Error("what is long gone was not forgotten", "error", err)
	}
}
