package control

import (
	"context"
	"time"

	"github.com/dayfly-infra/dayfly/internal/metrics"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// swept is how the last sweep ended.
type swept struct {
	at      time.Time
	orphans int // that are left
}

// measure adds what is read when somebody asks.
func (c *Control) measure() {
	c.metrics.Watch(metrics.Sources{
		Store: c.store, Clock: c.clock, Active: c.Active, Queue: c.engine.Waiting,
		Limiter: func() map[string]metrics.Limited {
			out := map[string]metrics.Limited{}
			if c.limiter != nil {
				for op, s := range c.limiter.Stats() {
					out[op] = metrics.Limited{Waited: s.Waited, Given: s.Given}
				}
			}
			return out
		},
		Swept: func() (time.Time, int) {
			if s := c.swept.Load(); s != nil {
				return s.at, s.orphans
			}
			return time.Time{}, 0
		},
		Currency: c.Currency,
	})
}

// metered counts what is written to a store.
type metered struct {
	store.Store
	metrics *metrics.Set
}

// Apply implements store.Store.
func (m metered) Apply(ctx context.Context, epoch int64, writes ...store.Write) error {
	began := time.Now()
	err := m.Store.Apply(ctx, epoch, writes...)
	m.metrics.Write(err, time.Since(began))
	return err
}
