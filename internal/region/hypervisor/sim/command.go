package sim

import (
	"context"
	"errors"
	"fmt"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

// up returns a running instance whose guest answers; h.mu is held.
func (h *Hypervisor) up(id string) (*instance, *life, error) {
	i, err := h.find(id)
	if err != nil {
		return nil, nil, err
	}
	if i.life == nil {
		return nil, nil, fmt.Errorf("%s is stopped: %w (%w)", id, hypervisor.ErrNotReady, hypervisor.ErrState)
	}
	if !i.life.ready {
		return nil, nil, fmt.Errorf("%s: %w", id, hypervisor.ErrNotReady)
	}
	return i, i.life, nil
}

// Ready tells whether the boot delay is over.
func (h *Hypervisor) Ready(_ context.Context, id string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, _, err := h.up(id)
	return err
}

// Run plays a command by the Script hook, each id once.
func (h *Hypervisor) Run(ctx context.Context, id string, c hypervisor.Command) (hypervisor.Result, error) {
	h.mu.Lock()
	i, l, err := h.up(id)
	if err != nil {
		h.mu.Unlock()
		return hypervisor.Result{}, fmt.Errorf("run a command: %w", err)
	}
	if c.ID == "" {
		h.mu.Unlock()
		return hypervisor.Result{}, fmt.Errorf("run a command on %s: a command needs an id", id)
	}
	k := i.ran[c.ID]
	if k == nil {
		k = &command{done: make(chan struct{})}
		i.ran[c.ID] = k
		i.writes++
		spec := i.spec
		h.wg.Go(func() {
			defer close(k.done)
			k.result = h.play(l.ctx, spec, c)
		})
	}
	h.mu.Unlock()
	select {
	case <-k.done:
		return k.result, nil
	case <-ctx.Done():
		return hypervisor.Result{}, fmt.Errorf("run a command on %s: %w", id, ctx.Err())
	case <-l.ctx.Done():
	}
	select {
	case <-k.done:
		return k.result, nil
	default:
		return hypervisor.Result{}, fmt.Errorf("run a command on %s: the instance went away while it ran", id)
	}
}

const outputLimit = 1 << 20

func (h *Hypervisor) play(ctx context.Context, in hypervisor.Instance, c hypervisor.Command) hypervisor.Result {
	started := h.cfg.Clock.Now()
	var r hypervisor.Result
	if h.cfg.Script != nil {
		inner, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		if c.Timeout > 0 {
			go func() {
				select {
				case <-h.cfg.Clock.After(c.Timeout):
					cancel(context.DeadlineExceeded)
				case <-inner.Done():
				}
			}()
		}
		r = h.cfg.Script(inner, in, c)
		if errors.Is(context.Cause(inner), context.DeadlineExceeded) {
			r.TimedOut, r.ExitCode = true, 137
		}
		r.Stdout, r.Stderr = r.Stdout[max(0, len(r.Stdout)-outputLimit):], r.Stderr[max(0, len(r.Stderr)-outputLimit):]
	}
	r.Started, r.Ended = started, h.cfg.Clock.Now()
	return r
}
