// Package cached answers reads of a store from memory while nothing happens.
// It is itself a store.Store, over another one, and keeps all of its promises:
// what was written by this process, was heard of in a watch or was read before
// is in every read that begins afterwards. What other processes wrote and nobody
// told of is seen after a second, or reads go past the memory. It must not know
// what the records mean.
package cached

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/store"
)

const (
	// batch is how many changes are read at once, but for the first time.
	batch = 500
	// every is how often memory is compared with the store without being told;
	// stale is when it is not believed any more because that did not succeed.
	every = time.Second
	stale = 5 * time.Second
	// retry is when a comparison that failed is tried again.
	retry = 250 * time.Millisecond
)

// Config of a Store.
type Config struct {
	Store store.Store
	Kinds []string // those that are kept; reads of others go to the store
	Clock clock.Clock
	Limit int64 // bytes kept at most; 0 means 96 MiB
}

// Store is a store with a memory.
type Store struct {
	store.Store
	clock clock.Clock
	limit int64

	mu       sync.RWMutex
	tables   map[string]*table
	size     int64
	writing  int   // Apply calls under way: what they will do is not known
	heard    int64 // counts news: writes of ours, keys in watches, a new epoch
	knows    int64 // the news up to here are in memory
	applied  int64 // revision up to which all changes are in memory
	needs    int64 // newest revision that anybody has read past the memory
	life     int   // counts how often all was forgotten
	compared time.Time

	wake chan struct{}
	ctx  context.Context // ends with Close
	end  context.CancelFunc
	done sync.WaitGroup
}

// table is the records of a kind. Names are sorted.
type table struct {
	records map[string]store.Record
	names   []string
	off     bool // there was no room for them
}

var _ store.Store = (*Store)(nil)

// New begins to fill a memory; until it is full reads go to the store. Close
// ends it and closes the store.
func New(cfg Config) *Store {
	s := &Store{Store: cfg.Store, clock: cfg.Clock, limit: cfg.Limit, tables: map[string]*table{}, heard: 1, wake: make(chan struct{}, 1)}
	s.ctx, s.end = context.WithCancel(context.Background())
	if s.limit <= 0 {
		s.limit = 96 << 20
	}
	for _, k := range cfg.Kinds {
		s.tables[k] = &table{records: map[string]store.Record{}}
	}
	s.done.Go(func() { s.run(s.ctx) })
	return s
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.end()
	s.done.Wait()
	return s.Store.Close()
}

// run keeps the memory up to date.
func (s *Store) run(ctx context.Context) {
	var keys <-chan store.Key
	for ctx.Err() == nil {
		if keys == nil {
			keys, _ = s.Store.Watch(ctx) // without it the clock alone wakes
		}
		next := s.clock.After(every)
		if err := s.compare(ctx); err != nil {
			next = s.clock.After(retry)
		}
		select {
		case <-ctx.Done():
		case <-next:
		case <-s.wake:
		case _, ok := <-keys:
			if !ok {
				keys = nil
			}
			s.news()
		}
	}
}

// compare reads what has changed since the last time.
func (s *Store) compare(ctx context.Context) error {
	s.mu.RLock()
	heard, from, life := s.heard, s.applied, s.life
	s.mu.RUnlock()
	began := s.clock.Now()
	for {
		// What is there at first is read at once: between two parts of it lie
		// revisions whose deletions are forgotten, so the second would be refused,
		// today and at every other try.
		limit := batch
		if from == 0 {
			limit = math.MaxInt32
		}
		changes, err := s.Store.Changes(ctx, from, limit)
		if errors.Is(err, store.ErrForgotten) {
			s.forget()
			s.rouse()
			return nil
		}
		if err != nil {
			return err
		}
		s.mu.Lock()
		if s.life != life {
			s.mu.Unlock()
			s.rouse()
			return nil
		}
		for _, r := range changes {
			s.put(r)
			from = r.Revision
		}
		s.applied = from
		if len(changes) < limit {
			s.knows, s.compared = max(s.knows, heard), began
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
	}
}

// forget begins anew.
func (s *Store) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life++
	s.size, s.applied, s.knows = 0, 0, 0
	s.compared = time.Time{}
	for k := range s.tables {
		s.tables[k] = &table{records: map[string]store.Record{}}
	}
}

func (s *Store) put(r store.Record) {
	t := s.tables[r.Kind]
	if t == nil || t.off {
		return
	}
	old, there := t.records[r.Name]
	if there && old.Revision >= r.Revision {
		return
	}
	if there {
		s.size -= weight(old)
	}
	if r.Body == nil {
		if there {
			delete(t.records, r.Name)
			i, _ := slices.BinarySearch(t.names, r.Name)
			t.names = slices.Delete(t.names, i, i+1)
		}
		return
	}
	if s.size += weight(r); s.size > s.limit {
		for _, r := range t.records {
			s.size -= weight(r)
		}
		if there {
			s.size += weight(old) // it was taken off already
		}
		s.size -= weight(r)
		s.tables[r.Kind] = &table{off: true}
		return
	}
	t.records[r.Name] = r
	if !there {
		i, _ := slices.BinarySearch(t.names, r.Name)
		t.names = slices.Insert(t.names, i, r.Name)
	}
}

// weight is about what a record costs in memory.
func weight(r store.Record) int64 { return int64(len(r.Kind)+2*len(r.Name)+len(r.Body)) + 160 }

// news says that something happened which may not be in memory.
func (s *Store) news() {
	s.mu.Lock()
	s.heard++
	s.mu.Unlock()
	s.rouse()
}

func (s *Store) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// from gives a kind's table when it is as new as anybody may expect. The caller
// holds the lock.
func (s *Store) from(kind string) *table {
	t := s.tables[kind]
	if t == nil || t.off || s.writing > 0 || s.knows < s.heard || s.applied < s.needs || s.clock.Now().Sub(s.compared) > stale {
		return nil
	}
	return t
}

// read notes that records were read past the memory.
func (s *Store) read(rs ...store.Record) {
	var newest int64
	for _, r := range rs {
		newest = max(newest, r.Revision)
	}
	s.mu.RLock()
	known := newest <= s.needs || newest <= s.applied
	s.mu.RUnlock()
	if known {
		return
	}
	s.mu.Lock()
	s.needs = max(s.needs, newest)
	s.mu.Unlock()
	s.rouse()
}

// missed looks whether memory has what was not found: then it was deleted, and
// memory is behind. Of a list it has all names that begin with the prefix.
func (s *Store) missed(kind, prefix string, found []store.Record) {
	s.mu.RLock()
	behind := false
	if t := s.tables[kind]; t != nil && found == nil {
		_, behind = t.records[prefix]
	} else if t != nil {
		i, _ := slices.BinarySearch(t.names, prefix)
		for ; i < len(t.names) && strings.HasPrefix(t.names[i], prefix) && !behind; i++ {
			_, there := slices.BinarySearchFunc(found, t.names[i], func(r store.Record, name string) int { return strings.Compare(r.Name, name) })
			behind = !there
		}
	}
	s.mu.RUnlock()
	if behind {
		s.news()
	}
}

// Get implements store.Store. The body is shared: nobody may change it.
func (s *Store) Get(ctx context.Context, kind, name string) (store.Record, error) {
	s.mu.RLock()
	if t := s.from(kind); t != nil {
		r, ok := t.records[name]
		s.mu.RUnlock()
		if !ok {
			return store.Record{}, fmt.Errorf("%s %s: %w", kind, name, store.ErrNotFound)
		}
		return r, ctx.Err()
	}
	s.mu.RUnlock()
	r, err := s.Store.Get(ctx, kind, name)
	switch {
	case err == nil:
		s.read(r)
	case errors.Is(err, store.ErrNotFound):
		s.missed(kind, name, nil)
	}
	return r, err
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, kind, prefix string) ([]store.Record, error) {
	if out, ok := s.page(kind, store.Range{Prefix: prefix}); ok {
		return out, ctx.Err()
	}
	out, err := s.Store.List(ctx, kind, prefix)
	if err == nil {
		s.read(out...)
		s.missed(kind, prefix, out)
	}
	return out, err
}

// Page implements store.Store.
func (s *Store) Page(ctx context.Context, kind string, r store.Range) ([]store.Record, error) {
	if r.Limit > 0 {
		if out, ok := s.page(kind, r); ok {
			return out, ctx.Err()
		}
	}
	out, err := s.Store.Page(ctx, kind, r)
	s.read(out...)
	return out, err
}

// page reads from memory; without a limit it reads all.
func (s *Store) page(kind string, r store.Range) (out []store.Record, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := s.from(kind)
	if t == nil {
		return nil, false
	}
	i, _ := slices.BinarySearch(t.names, r.Prefix)
	step := 1
	switch {
	case r.Reverse:
		step = -1
		// The first name behind all that begin with the prefix.
		i, _ = slices.BinarySearchFunc(t.names, r.Prefix, func(name, prefix string) int {
			if strings.HasPrefix(name, prefix) {
				return -1
			}
			return strings.Compare(name, prefix)
		})
		if r.After != "" {
			before, _ := slices.BinarySearch(t.names, r.After)
			i = min(i, before)
		}
		i--
	case r.After != "":
		after, found := slices.BinarySearch(t.names, r.After)
		if found {
			after++
		}
		i = max(i, after)
	}
	for ; i >= 0 && i < len(t.names) && strings.HasPrefix(t.names[i], r.Prefix) && (r.Limit <= 0 || len(out) < r.Limit); i += step {
		out = append(out, t.records[t.names[i]])
	}
	return out, true
}

// Apply implements store.Store. While it is under way nobody reads from memory,
// and afterwards not before memory has what it did; also where it failed, since
// it may have been done all the same.
func (s *Store) Apply(ctx context.Context, epoch int64, writes ...store.Write) error {
	s.mu.Lock()
	s.writing++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.writing--
		s.heard++
		s.mu.Unlock()
		s.rouse()
	}()
	return s.Store.Apply(ctx, epoch, writes...)
}

// Watch implements store.Store: whoever is told of a key reads at least what he
// was told of.
func (s *Store) Watch(ctx context.Context) (<-chan store.Key, error) {
	if s.ctx.Err() != nil {
		return nil, errors.New("watch records: the store is closed")
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	in, err := s.Store.Watch(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	out := make(chan store.Key)
	s.done.Go(func() {
		defer close(out)
		defer cancel()
		defer stop()
		for k := range in {
			s.news()
			select {
			case out <- k:
			case <-ctx.Done():
				return
			}
		}
	})
	return out, nil
}

// Acquire implements store.Store: a new owner begins with all that the former
// one wrote.
func (s *Store) Acquire(ctx context.Context, holder string, ttl time.Duration) (int64, bool, error) {
	epoch, ok, err := s.Store.Acquire(ctx, holder, ttl)
	if ok || err != nil {
		s.news()
	}
	return epoch, ok, err
}

// Load implements store.Store: nothing of what was there is left.
func (s *Store) Load(ctx context.Context, replace bool, next func() (store.Item, error)) error {
	s.mu.Lock()
	s.writing++
	s.mu.Unlock()
	defer func() {
		s.forget()
		s.mu.Lock()
		s.writing--
		s.heard++
		s.needs = 0
		s.mu.Unlock()
		s.rouse()
	}()
	return s.Store.Load(ctx, replace, next)
}
