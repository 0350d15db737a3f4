package advance

import (
	"context"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// ledger is what all runs have of the quota and want of it. The loop alone
// launches suites, so what it wrote last is what is; after a restart or a
// takeover the ledger is read anew.
type ledger struct {
	mu    sync.Mutex
	epoch int64
	read  bool
	runs  map[string][]pipeline.Claim
}

// begin reads the ledger where that was not done yet. The caller holds mu from
// before it decides until what it decided is written.
func (g *ledger) begin(ctx context.Context, s store.Store) error {
	if epoch := reconcile.Epoch(ctx); !g.read || g.epoch != epoch {
		rs, err := store.List[pipeline.Run](ctx, s, pipeline.Kind, "")
		if err != nil {
			return err
		}
		g.runs, g.epoch, g.read = map[string][]pipeline.Claim{}, epoch, true
		for _, r := range rs {
			g.set(r)
		}
	}
	return nil
}

func (g *ledger) set(r pipeline.Run) {
	if cs := r.Claims(); len(cs) > 0 {
		g.runs[r.Name] = cs
	} else {
		delete(g.runs, r.Name)
	}
}

// note is set for who does not hold mu. What is not read yet will be.
func (g *ledger) note(r pipeline.Run) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.read {
		g.set(r)
	}
}

func (g *ledger) drop(run string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.runs, run)
}

// grant decides which of the run's suites may launch.
func (g *ledger) grant(r pipeline.Run, c pipeline.Capacity, now time.Time, o *pipeline.Observed) {
	g.set(r)
	var all []pipeline.Claim
	for _, cs := range g.runs {
		all = append(all, cs...)
	}
	granted, waits := pipeline.Grant(all, c, now)
	o.Granted, o.Queue = map[string]bool{}, map[string]string{}
	for _, c := range granted {
		if c.Run == r.Name {
			o.Granted[c.Suite] = true
		}
	}
	for id, why := range waits {
		if id[0] == r.Name {
			o.Queue[id[1]] = why
		}
	}
}
