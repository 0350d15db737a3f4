package ec2

import (
	"sync"
	"time"
)

// queue holds the ids of instances at which something is to be done. An id is
// worked on by one goroutine at a time; what is added meanwhile comes again
// afterwards, so that no news is lost and none is handled twice at once.
type queue struct {
	mu    sync.Mutex
	order []string
	dirty map[string]struct{}
	busy  map[string]struct{}
	fails map[string]int
	wake  chan struct{}
}

func (q *queue) init() {
	q.dirty, q.busy, q.fails = map[string]struct{}{}, map[string]struct{}{}, map[string]int{}
	q.wake = make(chan struct{}, 1)
}

func (q *queue) add(ids ...string) {
	q.mu.Lock()
	for _, id := range ids {
		if _, ok := q.dirty[id]; !ok {
			q.dirty[id] = struct{}{}
			q.order = append(q.order, id)
		}
	}
	q.mu.Unlock()
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take gives every id that nobody works on; each needs a done.
func (q *queue) take() (ids []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var left []string
	for _, id := range q.order {
		if _, busy := q.busy[id]; busy {
			left = append(left, id)
			continue
		}
		delete(q.dirty, id)
		q.busy[id] = struct{}{}
		ids = append(ids, id)
	}
	q.order = left
	return ids
}

// done ends the work on an id; a failure tells how long to wait before it is
// to be added again.
func (q *queue) done(id string, err error) (wait time.Duration) {
	q.mu.Lock()
	delete(q.busy, id)
	if err == nil {
		delete(q.fails, id)
	} else {
		n := q.fails[id]
		q.fails[id] = n + 1
		wait = min(200*time.Millisecond<<min(n, 10), 30*time.Second)
	}
	_, again := q.dirty[id]
	q.mu.Unlock()
	if again {
		q.signal()
	}
	return wait
}

// failures is how often work on an id has failed in a row.
func (q *queue) failures(id string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.fails[id]
}

// idle tells whether nothing is to be done or being done about an id.
func (q *queue) idle(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, dirty := q.dirty[id]
	_, busy := q.busy[id]
	return !dirty && !busy
}
