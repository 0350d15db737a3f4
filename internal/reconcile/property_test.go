package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Whatever happens in whatever order: the last change of every record is seen
// by a run that began after it, and no name runs twice at the same time.
func TestNothingLostNothingTwice(t *testing.T) {
	for seed := range uint64(60) {
		bubble(t, func(t *testing.T, s store.Store) {
			r := rand.New(rand.NewPCG(seed, 5))
			names := 1 + r.IntN(5)
			var mu sync.Mutex
			dice := rand.New(rand.NewPCG(seed, 6))
			running, seen := map[string]bool{}, map[string]int{}
			l := loop{"a", func(ctx context.Context, name string) (time.Duration, error) {
				n, _, err := store.Get[int](ctx, s, "a", name)
				if err != nil {
					return 0, err
				}
				mu.Lock()
				if running[name] {
					t.Errorf("seed %d: %s runs twice", seed, name)
				}
				running[name] = true
				pause, outcome := time.Duration(dice.IntN(4))*time.Millisecond, dice.IntN(10)
				mu.Unlock()
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
				mu.Lock()
				defer mu.Unlock()
				running[name] = false
				switch outcome {
				case 0:
					return 0, errors.New("by chance")
				case 1:
					panic("by chance")
				case 2:
					seen[name] = n
					return time.Duration(dice.IntN(20)) * time.Millisecond, nil
				}
				seen[name] = n
				return reconcile.Done, nil
			}}
			e, stop := start(t, reconcile.Config{Store: s, Loops: []reconcile.Loop{l}, Workers: 1 + r.IntN(4), Rand: rand.New(rand.NewPCG(seed, 7))})
			defer stop()
			want := map[string]int{}
			for i := range 120 {
				name := fmt.Sprint("n", r.IntN(names))
				want[name] = i + 1
				put(t, s, "a", name, i+1)
				if r.IntN(3) == 0 {
					time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
				}
				if r.IntN(60) == 0 { // ownership moves for a moment
					if epoch, ok := e.Owner(); ok {
						s.Release(t.Context(), "one", epoch)
					}
				}
			}
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			stop()
			for name, n := range want {
				if seen[name] != n {
					t.Errorf("seed %d: %s was last seen at %d, want %d", seed, name, seen[name], n)
				}
			}
		})
	}
}

var errKilled = errors.New("killed")

// mortal dies at its nth write: before it happens, or after it happened but
// before anybody was told. From then on the process does nothing any more.
type mortal struct {
	store.Store
	left  atomic.Int64
	after bool
	dead  chan struct{}
}

func (m *mortal) Apply(ctx context.Context, epoch int64, writes ...store.Write) error {
	n := m.left.Add(-1)
	if n < 0 {
		return errKilled
	}
	if n > 0 {
		return m.Store.Apply(ctx, epoch, writes...)
	}
	if m.after {
		m.Store.Apply(ctx, epoch, writes...)
	}
	close(m.dead)
	return errKilled
}

// job is worked through in steps; each step has an effect outside that must
// happen once, found again by its name.
type job struct {
	Step  int
	Begun bool // the step's intent
}

// A process that is killed at any write, before or after it, leaves work that
// the next one finishes: every job ends, no effect happens twice.
func TestKilledAtAnyWrite(t *testing.T) {
	const jobs, steps = 3, 3
	for at := int64(1); ; at++ {
		died := false
		for _, after := range []bool{false, true} {
			bubble(t, func(t *testing.T, s store.Store) {
				for i := range jobs {
					put(t, s, "job", fmt.Sprint("j", i), job{})
				}
				var mu sync.Mutex
				effects := map[string]int{}
				run := func(st store.Store) func() {
					l := loop{"job", func(ctx context.Context, name string) (time.Duration, error) {
						j, _, err := store.Get[job](ctx, st, "job", name)
						if err != nil || j.Step == steps {
							return 0, err
						}
						if !j.Begun {
							return 0, reconcile.Update(ctx, st, "job", name, func(j *job) error { j.Begun = true; return nil })
						}
						effect := fmt.Sprint(name, "/", j.Step)
						mu.Lock()
						if effects[effect] == 0 {
							effects[effect]++
						}
						mu.Unlock()
						return 0, reconcile.Update(ctx, st, "job", name, func(j *job) error { j.Step, j.Begun = j.Step+1, false; return nil })
					}}
					_, stop := start(t, reconcile.Config{Store: st, Loops: []reconcile.Loop{l}, Workers: 2, TTL: 3 * time.Second})
					return stop
				}
				m := &mortal{Store: s, after: after, dead: make(chan struct{})}
				m.left.Store(at)
				stop := run(m)
				select {
				case <-m.dead:
					died = true
				case <-time.After(time.Minute):
				}
				stop()
				stop = run(s)
				time.Sleep(time.Minute)
				synctest.Wait()
				stop()
				for i := range jobs {
					if j, _, err := store.Get[job](t.Context(), s, "job", fmt.Sprint("j", i)); err != nil || j.Step != steps {
						t.Errorf("killed at write %d (after: %v): job %d is at %+v, %v", at, after, i, j, err)
					}
				}
				if len(effects) != jobs*steps {
					t.Errorf("killed at write %d (after: %v): %d effects", at, after, len(effects))
				}
			})
		}
		if !died {
			if at < jobs*steps {
				t.Errorf("only %d writes were tried", at)
			}
			return
		}
	}
}
