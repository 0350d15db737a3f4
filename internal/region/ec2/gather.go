package ec2

import "sync"

// gather makes few large calls of many small ones: whoever comes first works
// off everything that has come meanwhile, for all of them. A lone call is not
// delayed.
type gather[T any] struct {
	run func([]T) []error // one error for each item, or nil for all

	mu    sync.Mutex
	busy  bool
	items []T
	waits []chan error
}

func (g *gather[T]) do(item T) error {
	done := make(chan error, 1)
	g.mu.Lock()
	g.items = append(g.items, item)
	g.waits = append(g.waits, done)
	if g.busy {
		g.mu.Unlock()
		return <-done
	}
	g.busy = true
	for len(g.items) > 0 {
		items, waits := g.items, g.waits
		g.items, g.waits = nil, nil
		g.mu.Unlock()
		errs := g.run(items)
		for i, w := range waits {
			if errs == nil {
				w <- nil
			} else {
				w <- errs[i]
			}
		}
		g.mu.Lock()
	}
	g.busy = false
	g.mu.Unlock()
	return <-done
}
