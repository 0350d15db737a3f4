package tables

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/dayfly-infra/dayfly/internal/store"
)

// batch is how many changes a watch reads at once.
const batch = 500

// retry is when a watch that could not read tries again.
const retry = 250 * time.Millisecond

// A watcher reads the keys behind its cursor from the table itself, so a slow
// reader costs no memory, and a record written often is seen once.
type watcher struct {
	cursor int64 // under Store.mu: everything up to here was delivered
	wake   chan struct{}
}

// Watch implements store.Store. The channel is closed when ctx ends or the
// store is closed.
func (s *Store) Watch(ctx context.Context) (<-chan store.Key, error) {
	w := &watcher{wake: make(chan struct{}, 1)}
	s.mu.Lock()
	select {
	case <-s.closed:
		s.mu.Unlock()
		return nil, fmt.Errorf("watch records: the store is closed")
	default:
	}
	s.watchers[w] = struct{}{} // cursor 0 holds tombstones until it is known
	s.done.Add(1)
	s.mu.Unlock()
	var from int64
	if err := s.row(ctx, `SELECT revision FROM ledger WHERE id = 1`).Scan(&from); err != nil {
		s.forget(w)
		s.done.Done()
		return nil, fmt.Errorf("watch records: %w", err)
	}
	s.advance(w, from)
	keys := make(chan store.Key)
	go func() {
		defer s.done.Done()
		defer close(keys)
		defer s.forget(w)
		s.deliver(ctx, w, from, keys)
	}()
	return keys, nil
}

func (s *Store) deliver(ctx context.Context, w *watcher, cursor int64, keys chan<- store.Key) {
	for {
		type change struct {
			key      store.Key
			revision int64
		}
		var changes []change
		rows, err := s.rows(ctx, `SELECT kind, name, revision FROM record WHERE revision > $1 ORDER BY revision LIMIT $2`, cursor, batch)
		if err == nil {
			for rows.Next() {
				var c change
				if err = rows.Scan(&c.key.Kind, &c.key.Name, &c.revision); err != nil {
					break
				}
				changes = append(changes, c)
			}
			if rows.Err() != nil {
				err = rows.Err()
			}
			rows.Close()
		}
		for _, c := range changes {
			select {
			case keys <- c.key:
				cursor = c.revision
				s.advance(w, cursor)
			case <-ctx.Done():
				return
			case <-s.closed:
				return
			}
		}
		if err == nil && len(changes) == batch {
			continue
		}
		var look <-chan time.Time
		switch {
		case err != nil:
			look = s.cfg.Clock.After(retry)
		case s.cfg.Look != nil:
			look = s.cfg.Clock.After(s.cfg.Look())
		}
		select {
		case <-w.wake:
		case <-look:
		case <-ctx.Done():
			return
		case <-s.closed:
			return
		}
	}
}

// Wake makes every watch look for changes now.
func (s *Store) Wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watchers {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func (s *Store) advance(w *watcher, cursor int64) {
	s.mu.Lock()
	w.cursor = cursor
	s.mu.Unlock()
}

func (s *Store) forget(w *watcher) {
	s.mu.Lock()
	delete(s.watchers, w)
	s.mu.Unlock()
}

// seen is the revision that every watcher has delivered.
func (s *Store) seen(last int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	least := int64(math.MaxInt64)
	for w := range s.watchers {
		least = min(least, w.cursor)
	}
	return min(least, last)
}

// mayPrune lets tombstones be removed now and then.
func (s *Store) mayPrune(now int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now-s.pruned < int64(Tombstones/6) {
		return false
	}
	s.pruned = now
	return true
}
