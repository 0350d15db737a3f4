// Package limiter keeps one account's requests to one region below what AWS
// allows: a token bucket per operation, for requests and for the things that
// they make or end, shared by all loops of the process. Who waits goes by
// priority (cloud.WithPriority), with a turn for the longest wait now and then,
// so that nobody waits for ever. A refusal by the cloud halves the operation's
// rate, which then comes back by itself. It must not know what the operations
// do.
//
// Several replicas share an account: only the active one works, the others
// answer questions from the store, so a limiter in each is enough. Others who
// use the same account are noticed by the refusals.
package limiter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

// longestEvery is how many grants of an operation one goes to whoever waits
// longest, whatever the priority.
const longestEvery = 16

// Limiter implements cloud.Limiter.
type Limiter struct {
	clock clock.Clock
	log   *slog.Logger

	mu    sync.Mutex // for all below
	lanes map[string]*lane
}

// lane is what waits for one operation.
type lane struct {
	requests, things *bucket // things may be nil
	waiting          [cloud.Priorities][]*waiter
	grants           int
	told             *waiter // who knows that it is first
	stats            Stats
	away             away
}

type waiter struct {
	n        int
	priority cloud.Priority
	since    time.Time
	order    int
	granted  bool
	wake     chan struct{} // it is granted, or first
}

// Stats of an operation.
type Stats struct {
	Granted   int           `json:"granted"`
	Throttled int           `json:"throttled"` // refused by the cloud
	Given     int           `json:"given_up"`  // left before their turn
	Waited    time.Duration `json:"waited"`    // all together
}

// New makes a limiter with full buckets.
func New(c clock.Clock, log *slog.Logger) *Limiter {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Limiter{clock: c, log: log, lanes: map[string]*lane{}}
}

func (l *Limiter) lane(op string, now time.Time) *lane {
	la := l.lanes[op]
	if la == nil {
		b := BucketsOf(op)
		la = &lane{requests: newBucket(b.Requests, now)}
		if b.Things.Burst > 0 {
			la.things = newBucket(b.Things, now)
		}
		l.lanes[op] = la
	}
	return la
}

// Wait implements cloud.Limiter.
func (l *Limiter) Wait(ctx context.Context, op string, n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	la := l.lane(op, now)
	if la.things != nil && float64(n) > la.things.full.Burst {
		return &fault.Error{Kind: fault.Invalid, Op: op, Message: fmt.Sprintf("%d at once; AWS takes %.0f", n, la.things.full.Burst), Hint: "ask for fewer"}
	}
	w := &waiter{n: max(n, 1), priority: cloud.PriorityOf(ctx), since: now, wake: make(chan struct{}, 1)}
	w.order = la.stats.Granted + la.stats.Given + la.length()
	la.waiting[w.priority] = append(la.waiting[w.priority], w)
	la.pump(now)
	if end, ok := ctx.Deadline(); ok && !w.granted {
		// Its own tokens alone take longer than it may wait.
		if at := now.Add(la.wait(w)); at.After(end) {
			return l.leave(la, w, op, at)
		}
	}
	for !w.granted {
		var timer <-chan time.Time
		if la.first() == w {
			timer = l.clock.After(la.wait(w))
		}
		l.mu.Unlock()
		select {
		case <-w.wake:
		case <-timer:
		case <-ctx.Done():
		}
		l.mu.Lock()
		now = l.clock.Now()
		la.pump(now)
		if !w.granted && ctx.Err() != nil {
			err := l.leave(la, w, op, now.Add(la.wait(w)))
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return err
		}
	}
	waited := now.Sub(w.since)
	la.stats.Waited += waited
	if waited > 5*time.Second {
		l.log.Info("a request waited for its turn", "operation", op, "things", n, "waited", waited.Round(time.Millisecond))
	}
	return nil
}

// leave takes w out of the queue.
func (l *Limiter) leave(la *lane, w *waiter, op string, until time.Time) error {
	la.remove(w)
	la.stats.Given++
	la.away.turn(w.since, l.clock.Now(), until)
	la.pump(l.clock.Now())
	return &fault.Error{
		Kind: fault.Unavailable, Op: op, Message: "the requests that AWS allows this account are used up; the next turn comes at " + until.UTC().Format(time.TimeOnly) + " UTC at the earliest",
		Hint: "the platform tries again by itself", Err: &cloud.Limited{Op: op, Until: until},
	}
}

// Answered implements cloud.Limiter.
func (l *Limiter) Answered(op string, throttled bool) {
	if !throttled {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	la := l.lane(op, now)
	la.stats.Throttled++
	// Which of the two was empty is not said.
	cut := la.requests.refused(now, 0)
	if la.things != nil {
		la.things.refused(now, 0.5)
	}
	if cut {
		l.log.Warn("the cloud limits our requests: half as many for a while", "operation", op, "per_second", la.requests.rate)
	}
}

// Stats returns what happened so far, by operation.
func (l *Limiter) Stats() map[string]Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]Stats{}
	for op, la := range l.lanes {
		out[op] = la.stats
	}
	return out
}

func (la *lane) length() (n int) {
	for _, q := range la.waiting {
		n += len(q)
	}
	return n
}

// first is whose turn it is: the most urgent, and of those the longest waiting;
// every longestEvery-th time the longest waiting of all.
func (la *lane) first() *waiter {
	var w *waiter
	longest := la.grants%longestEvery == longestEvery-1
	for _, q := range la.waiting {
		switch {
		case len(q) == 0:
		case w == nil, longest && q[0].order < w.order:
			w = q[0]
		}
	}
	return w
}

// wait is how long the tokens of w alone take.
func (la *lane) wait(w *waiter) time.Duration {
	d := la.requests.wait(1)
	if la.things != nil {
		d = max(d, la.things.wait(float64(w.n)))
	}
	return d
}

// pump grants what can be granted and tells the next one that it is first.
func (la *lane) pump(now time.Time) {
	la.requests.refill(now)
	if la.things != nil {
		la.things.refill(now)
	}
	for {
		w := la.first()
		if w == nil {
			return
		}
		if la.wait(w) > 0 {
			if la.told != w {
				la.told = w
				w.poke()
			}
			return
		}
		la.requests.tokens--
		if la.things != nil {
			la.things.tokens -= float64(w.n)
		}
		la.remove(w)
		la.grants++
		la.stats.Granted++
		w.granted = true
		w.poke()
	}
}

func (w *waiter) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (la *lane) remove(w *waiter) {
	q := la.waiting[w.priority]
	if i := slices.Index(q, w); i >= 0 {
		la.waiting[w.priority] = slices.Delete(q, i, i+1)
	}
}
