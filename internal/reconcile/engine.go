package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/store"
)

const (
	firstBackoff = 50 * time.Millisecond
	maxBackoff   = 30 * time.Second
	// eventFloor is how soon a change may run a key again that fails.
	eventFloor = time.Second
	// sameAgain is how often the same error of the same key is logged.
	sameAgain = 10 * time.Minute
)

// Follower is a Loop that also wants to run when records of other kinds change.
type Follower interface {
	Loop
	// Follows returns the names of this loop's own kind that the change of
	// another kind's record concerns. It is called for every change and does
	// no I/O.
	Follows(k store.Key) []string
}

// Config of an Engine.
type Config struct {
	Store store.Store
	Loops []Loop
	Clock clock.Clock
	Log   *slog.Logger
	// Workers is how many keys run at the same time; 0 means 16. A step of a
	// loop does not wait for the world, so a few are enough.
	Workers int
	// Holder names this replica: unique, and the same after a restart, which
	// then goes on at once.
	Holder string
	// TTL is after how long a silent owner is replaced; 0 means 10 s.
	TTL time.Duration
	// Ran is told of each run of a loop; nil tells nobody.
	Ran func(loop string, took time.Duration, err error)
	// Context makes the context of a run, for what is logged about it; nil leaves
	// it as it is.
	Context func(ctx context.Context, loop Loop, name string) context.Context
	// Rand makes the jitter; nil seeds one.
	Rand *rand.Rand
}

// Engine runs loops while this process owns the work.
type Engine struct {
	cfg   Config
	epoch atomic.Int64 // 0 while standing by

	mu       sync.Mutex // for all below
	queue    *queue     // while it owns the work
	rand     *rand.Rand
	failures map[key]*failure
}

type failure struct {
	count  int
	text   string
	logged time.Time
	same   int // not logged since then
}

// New makes an engine; Run starts it.
func New(cfg Config) *Engine {
	if cfg.Workers <= 0 {
		cfg.Workers = 16
	}
	if cfg.TTL <= 0 {
		cfg.TTL = 10 * time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	return &Engine{cfg: cfg, rand: cfg.Rand, failures: map[key]*failure{}}
}

// Owner tells whether this engine owns the work now, and its epoch.
func (e *Engine) Owner() (epoch int64, ok bool) {
	epoch = e.epoch.Load()
	return epoch, epoch != store.NoEpoch
}

// Run stands by until it owns the work, runs the loops, and stands by again
// when ownership is lost. It returns nil when ctx ends, with every loop ended
// and ownership given up.
func (e *Engine) Run(ctx context.Context) error {
	if e.cfg.Holder == "" {
		return errors.New("reconcile: the engine has no holder's name")
	}
	var last string
	for ctx.Err() == nil {
		began := e.cfg.Clock.Now() // the lease counts from before the call
		epoch, ok, err := e.cfg.Store.Acquire(ctx, e.cfg.Holder, e.cfg.TTL)
		if err != nil && ctx.Err() == nil && err.Error() != last {
			last = err.Error()
			e.cfg.Log.Error("ownership cannot be acquired", "error", err)
		}
		if err != nil || !ok {
			e.sleep(ctx, min(e.cfg.TTL/4, time.Second))
			continue
		}
		last = ""
		e.cfg.Log.Info("owns the work", "holder", e.cfg.Holder, "epoch", epoch)
		if err := e.own(ctx, epoch, began); err != nil && ctx.Err() == nil {
			e.cfg.Log.Warn("stopped all work, standing by", "epoch", epoch, "error", err)
			e.sleep(ctx, min(e.cfg.TTL/4, time.Second))
		}
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		if err := e.cfg.Store.Release(release, e.cfg.Holder, epoch); err != nil && !errors.Is(err, store.ErrFenced) {
			e.cfg.Log.Warn("ownership was not given up, it ends by itself", "error", err)
		}
		cancel()
	}
	return nil
}

func (e *Engine) sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-e.cfg.Clock.After(d):
	}
}

// own runs the loops under an epoch until ctx ends or ownership is lost. When
// it returns nothing runs any more.
func (e *Engine) own(parent context.Context, epoch int64, began time.Time) error {
	ctx, lose := context.WithCancelCause(WithEpoch(parent, epoch))
	defer lose(nil)
	e.epoch.Store(epoch)
	defer e.epoch.Store(store.NoEpoch)
	e.mu.Lock()
	clear(e.failures)
	e.mu.Unlock()

	q := newQueue(e.cfg.Clock)
	e.mu.Lock()
	e.queue = q
	e.mu.Unlock()
	changes, err := e.cfg.Store.Watch(ctx) // before the list, so that nothing falls between
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer lose(nil)
	wg.Go(func() { q.run(ctx) })
	wg.Go(func() { e.renew(ctx, epoch, began, lose) })
	wg.Go(func() {
		e.follow(ctx, changes, q)
		lose(errors.New("the watch of the store ended"))
	})
	for range e.cfg.Workers {
		wg.Go(func() { e.work(ctx, q, lose) })
	}
	for i, l := range e.cfg.Loops {
		if err := e.fill(ctx, i, l.Kind(), q); err != nil {
			lose(err)
			break
		}
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// page is how many records are read at once, so that many cost little memory.
const page = 500

// fill makes all records of a loop ready.
func (e *Engine) fill(ctx context.Context, loop int, kind string, q *queue) error {
	r := store.Range{Limit: page}
	for {
		records, err := e.cfg.Store.Page(ctx, kind, r)
		if err != nil {
			return err
		}
		for _, rec := range records {
			q.add(key{loop, rec.Name})
			r.After = rec.Name
		}
		if len(records) < page {
			return nil
		}
	}
}

// renew keeps the ownership; it is lost when another has it, and also when it
// could not be renewed in time, whoever has it then.
func (e *Engine) renew(ctx context.Context, epoch int64, until time.Time, lose context.CancelCauseFunc) {
	until = until.Add(e.cfg.TTL)
	for {
		e.sleep(ctx, e.cfg.TTL/4)
		if ctx.Err() != nil {
			return
		}
		began := e.cfg.Clock.Now()
		if !began.Before(until) {
			lose(fmt.Errorf("ownership was not renewed in time: %w", store.ErrFenced))
			return
		}
		call, cancel := context.WithTimeout(ctx, e.cfg.TTL/4)
		err := e.cfg.Store.Renew(call, e.cfg.Holder, epoch, e.cfg.TTL)
		cancel()
		switch {
		case err == nil:
			until = began.Add(e.cfg.TTL)
		case errors.Is(err, store.ErrFenced):
			lose(err)
			return
		case ctx.Err() == nil:
			e.cfg.Log.Warn("ownership was not renewed, trying again", "error", err)
		}
	}
}

func (e *Engine) follow(ctx context.Context, changes <-chan store.Key, q *queue) {
	for {
		select {
		case <-ctx.Done():
			return
		case k, ok := <-changes:
			if !ok {
				return
			}
			for i, l := range e.cfg.Loops {
				if l.Kind() == k.Kind {
					q.add(key{i, k.Name})
				} else if f, ok := l.(Follower); ok {
					for _, name := range f.Follows(k) {
						q.add(key{i, name})
					}
				}
			}
		}
	}
}

func (e *Engine) work(ctx context.Context, q *queue, lose context.CancelCauseFunc) {
	for {
		k, ok := q.get(ctx)
		if !ok {
			return
		}
		run := ctx
		if e.cfg.Context != nil {
			run = e.cfg.Context(ctx, e.cfg.Loops[k.loop], k.name)
		}
		began := e.cfg.Clock.Now()
		again, err := e.step(run, k)
		if e.cfg.Ran != nil && ctx.Err() == nil {
			e.cfg.Ran(e.cfg.Loops[k.loop].Kind(), e.cfg.Clock.Now().Sub(began), err)
		}
		if err != nil && errors.Is(err, store.ErrFenced) {
			lose(err)
		}
		if ctx.Err() != nil { // what ends everything is no failure of this key
			q.done(k, 0, 0)
			return
		}
		if err == nil {
			e.succeeded(run, k)
			q.done(k, again, 0)
			continue
		}
		wait := e.failed(run, k, err)
		if again > 0 {
			wait = max(wait, min(again, maxBackoff))
		}
		q.done(k, wait, min(wait, eventFloor))
	}
}

// Waiting is how many records wait for a worker, by loop.
func (e *Engine) Waiting() map[string]int {
	out := map[string]int{}
	for _, l := range e.cfg.Loops {
		out[l.Kind()] = 0
	}
	e.mu.Lock()
	q := e.queue
	e.mu.Unlock()
	if q == nil || e.epoch.Load() == store.NoEpoch {
		return out
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, k := range q.ready {
		out[e.cfg.Loops[k.loop].Kind()]++
	}
	return out
}

// step runs a loop once; a panic is an error like others.
func (e *Engine) step(ctx context.Context, k key) (again time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			again, err = 0, fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return e.cfg.Loops[k.loop].Reconcile(ctx, k.name)
}

func (e *Engine) succeeded(ctx context.Context, k key) {
	e.mu.Lock()
	f := e.failures[k]
	delete(e.failures, k)
	e.mu.Unlock()
	if f != nil && f.text != "" {
		e.cfg.Log.InfoContext(ctx, "goes on", "kind", e.cfg.Loops[k.loop].Kind(), "name", k.name, "failures", f.count)
	}
}

// failed notes an error, logs it unless it is the last one again, and returns
// how long to wait.
func (e *Engine) failed(ctx context.Context, k key, err error) time.Duration {
	now := e.cfg.Clock.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	f := e.failures[k]
	if f == nil {
		f = &failure{}
		e.failures[k] = f
	}
	f.count++
	wait := min(firstBackoff<<min(f.count-1, 20), maxBackoff)
	wait = wait/2 + time.Duration(e.rand.Int64N(int64(wait/2)+1))
	if errors.Is(err, store.ErrConflict) && f.count < 5 {
		return wait // another writer was faster: not worth a line
	}
	text, _, _ := strings.Cut(err.Error(), "\n") // a panic's stack differs each time
	if text == f.text && now.Sub(f.logged) < sameAgain {
		f.same++
		return wait
	}
	e.cfg.Log.ErrorContext(ctx, "reconcile failed", "kind", e.cfg.Loops[k.loop].Kind(), "name", k.name, "error", err, "failures", f.count, "not_logged", f.same)
	f.text, f.logged, f.same = text, now, 0
	return wait
}
