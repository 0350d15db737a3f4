package cfn

import (
	"context"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"sync"

	"github.com/dayfly-infra/dayfly/internal/region/cfn/provider"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// ground is a world of things that outlives the service. A thing's Value names
// the ids of the things that it needs.
type ground struct {
	mu     sync.Mutex
	rnd    *rand.Rand
	things map[string]thing
	made   int
	fails  map[string]bool // logical names whose creation or update fails
	wrong  []string        // what must never happen

	calls, crashAt int
	kill           func()
}

type thing struct {
	stack, logical string
	generation     int
	value, note    string
	asked          int
}

func (g *ground) report(format string, args ...any) {
	g.wrong = append(g.wrong, fmt.Sprintf(format, args...))
}

// step counts calls; at the chosen one the process dies: before the call has
// an effect, or after it and before anybody hears of it.
func (g *ground) step(ctx context.Context, effect func() error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	g.calls++
	if g.calls != g.crashAt {
		return effect()
	}
	if g.rnd.Intn(2) == 0 {
		_ = effect()
	}
	g.kill()
	return context.Canceled
}

func (g *ground) needs(value string) (ids []string) {
	for _, w := range strings.Fields(value) {
		if strings.HasPrefix(w, "id-") {
			ids = append(ids, w)
		}
	}
	return ids
}

func (g *ground) provider() *provider.Provider {
	failure := wire.Errorf("Broken", "it does not work")
	return &provider.Provider{
		Find: func(ctx context.Context, r *provider.Request) (id string, err error) {
			return id, g.step(ctx, func() error {
				for k, v := range g.things {
					if v.stack == r.StackID && v.logical == r.Logical && !slices.Contains(r.Others, k) {
						if id != "" {
							g.report("%s was made twice: %s and %s", r.Logical, id, k)
						}
						id = k
					}
				}
				return nil
			})
		},
		Create: func(ctx context.Context, r *provider.Request) (id string, err error) {
			value, _ := r.Properties["Value"].(string)
			note, _ := r.Properties["Description"].(string)
			return id, g.step(ctx, func() error {
				if g.fails[r.Logical] {
					delete(g.fails, r.Logical) // once
					return failure
				}
				for _, n := range g.needs(value) {
					if _, ok := g.things[n]; !ok {
						g.report("%s is made before %s is there", r.Logical, n)
					}
				}
				for k, v := range g.things {
					if v.stack == r.StackID && v.logical == r.Logical && v.generation == r.Generation {
						g.report("%s generation %d is made twice: %s", r.Logical, r.Generation, k)
					}
				}
				g.made++
				id = fmt.Sprintf("id-%s-%d", r.Logical, g.made)
				g.things[id] = thing{stack: r.StackID, logical: r.Logical, generation: r.Generation, value: value, note: note}
				return nil
			})
		},
		Ready: func(ctx context.Context, r *provider.Request) (ok bool, err error) {
			return ok, g.step(ctx, func() error {
				v := g.things[r.ID]
				v.asked++
				g.things[r.ID] = v
				ok = v.asked > len(r.Logical)%2
				return nil
			})
		},
		Update: func(ctx context.Context, r *provider.Request) error {
			value, _ := r.Properties["Value"].(string)
			note, _ := r.Properties["Description"].(string)
			return g.step(ctx, func() error {
				v, ok := g.things[r.ID]
				if !ok {
					g.report("%s is changed and not there", r.ID)
				}
				v.value = value // half of it, before it fails
				g.things[r.ID] = v
				if g.fails[r.Logical] {
					delete(g.fails, r.Logical) // once
					return failure
				}
				v.note = note
				g.things[r.ID] = v
				return nil
			})
		},
		Mutable: []string{"Value", "Description"},
		Remove: func(ctx context.Context, r *provider.Request) error {
			return g.step(ctx, func() error {
				for k, v := range g.things {
					if k != r.ID && slices.Contains(g.needs(v.value), r.ID) {
						g.report("%s is deleted while %s needs it", r.ID, k)
					}
				}
				delete(g.things, r.ID)
				return nil
			})
		},
		Gone: func(ctx context.Context, r *provider.Request) (ok bool, err error) {
			return ok, g.step(ctx, func() error {
				_, there := g.things[r.ID]
				ok = !there
				return nil
			})
		},
	}
}
