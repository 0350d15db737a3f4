package reconcile

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
)

// key is one loop's work on one record.
type key struct {
	loop int
	name string
}

// queue hands out keys. A key is waiting at most once, is never handed out
// twice at the same time, and a key that is added while it is processed is
// handed out again afterwards. Delayed keys become ready at their time; being
// handed out cancels a key's delay, since the run that follows decides anew.
type queue struct {
	clock clock.Clock

	mu         sync.Mutex
	ready      []key
	waiting    map[key]bool // in ready
	processing map[key]bool
	dirty      map[key]bool // added while processing
	floor      map[key]time.Time
	delayed    delays
	byKey      map[key]*delay
	signal     chan struct{} // closed and replaced when something became ready
	timer      chan struct{} // tells the timer that the next time has changed
}

type delay struct {
	key   key
	due   time.Time
	index int
}

func newQueue(c clock.Clock) *queue {
	return &queue{
		clock: c, waiting: map[key]bool{}, processing: map[key]bool{}, dirty: map[key]bool{}, floor: map[key]time.Time{},
		byKey: map[key]*delay{}, signal: make(chan struct{}), timer: make(chan struct{}, 1),
	}
}

// add makes a key ready now, or at its floor where it has one.
func (q *queue) add(k key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.processing[k] {
		q.dirty[k] = true
		return
	}
	if f, ok := q.floor[k]; ok && q.clock.Now().Before(f) {
		q.later(k, f)
		return
	}
	q.push(k)
}

// get waits for a key; ok is false when ctx ends.
func (q *queue) get(ctx context.Context) (k key, ok bool) {
	for {
		q.mu.Lock()
		if ctx.Err() == nil && len(q.ready) > 0 {
			k, q.ready = q.ready[0], q.ready[1:]
			delete(q.waiting, k)
			q.processing[k] = true
			if d := q.byKey[k]; d != nil {
				heap.Remove(&q.delayed, d.index)
				delete(q.byKey, k)
			}
			q.mu.Unlock()
			return k, true
		}
		signal := q.signal
		q.mu.Unlock()
		select {
		case <-signal:
		case <-ctx.Done():
			return key{}, false
		}
	}
}

// done ends the processing of a key. It comes again after the delay, if that is
// positive; at once when it was added meanwhile. Additions from now on wait for
// floor: a key that fails is not run in circles by its own writes.
func (q *queue) done(k key, again, floor time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.clock.Now()
	delete(q.processing, k)
	delete(q.floor, k)
	if floor > 0 {
		q.floor[k] = now.Add(floor)
	}
	dirty := q.dirty[k]
	delete(q.dirty, k)
	switch {
	case dirty && floor > 0:
		q.later(k, q.floor[k])
	case dirty:
		q.push(k)
	}
	if again > 0 {
		q.later(k, together(now.Add(again), again))
	}
}

// grid is how much later than asked for a key may come that waits for a second
// or more, so that many wake the process together and not one after the other.
const grid = 100 * time.Millisecond

func together(due time.Time, wait time.Duration) time.Time {
	if wait < time.Second {
		return due
	}
	at := due.Truncate(grid)
	if at.Before(due) {
		at = at.Add(grid)
	}
	return at
}

func (q *queue) push(k key) {
	if q.waiting[k] {
		return
	}
	q.waiting[k] = true
	q.ready = append(q.ready, k)
	if len(q.ready) == 1 { // nobody waits while there is something
		close(q.signal)
		q.signal = make(chan struct{})
	}
}

// later makes a key ready at due, if it is not to be ready before.
func (q *queue) later(k key, due time.Time) {
	if q.waiting[k] {
		return
	}
	d := q.byKey[k]
	switch {
	case d == nil:
		d = &delay{key: k, due: due}
		q.byKey[k] = d
		heap.Push(&q.delayed, d)
	case due.Before(d.due):
		d.due = due
		heap.Fix(&q.delayed, d.index)
	default:
		return
	}
	if q.delayed[0] == d {
		select {
		case q.timer <- struct{}{}:
		default:
		}
	}
}

// run moves delayed keys to the ready ones at their time, until ctx ends.
func (q *queue) run(ctx context.Context) {
	for {
		q.mu.Lock()
		now := q.clock.Now()
		for len(q.delayed) > 0 && !q.delayed[0].due.After(now) {
			d := heap.Pop(&q.delayed).(*delay)
			delete(q.byKey, d.key)
			if q.processing[d.key] {
				q.dirty[d.key] = true
			} else {
				q.push(d.key)
			}
		}
		var next <-chan time.Time
		if len(q.delayed) > 0 {
			next = q.clock.After(q.delayed[0].due.Sub(now))
		}
		q.mu.Unlock()
		select {
		case <-next:
		case <-q.timer:
		case <-ctx.Done():
			return
		}
	}
}

// delays is a heap by due time.
type delays []*delay

func (d delays) Len() int           { return len(d) }
func (d delays) Less(i, j int) bool { return d[i].due.Before(d[j].due) }
func (d delays) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}
func (d *delays) Push(x any) {
	e := x.(*delay)
	e.index = len(*d)
	*d = append(*d, e)
}
func (d *delays) Pop() any {
	old := *d
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	return e
}
