package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/store"
)

const patience = 30 * time.Second

func watch(t *testing.T, s store.Store) (<-chan store.Key, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	keys, err := s.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return keys, cancel
}

func next(t *testing.T, keys <-chan store.Key) store.Key {
	t.Helper()
	select {
	case k, ok := <-keys:
		if !ok {
			t.Fatal("the watch ended")
		}
		return k
	case <-time.After(patience):
		t.Fatal("no key came")
	}
	panic("unreachable")
}

func quiet(t *testing.T, keys <-chan store.Key) {
	t.Helper()
	select {
	case k := <-keys:
		t.Fatalf("key %v came, although nothing was written", k)
	case <-time.After(30 * time.Millisecond):
	}
}

func watchOrder(t *testing.T, s store.Store) {
	put(t, s, "w", "before", 0, 1)
	keys, stop := watch(t, s)
	defer stop()
	quiet(t, keys)
	for i := range 20 {
		put(t, s, "w", keyName(i), 0, i)
	}
	for i := range 20 {
		if k := next(t, keys); k != (store.Key{Kind: "w", Name: keyName(i)}) {
			t.Fatalf("key %d is %v", i, k)
		}
	}
	// Deletions are writes; refused batches are not.
	if err := s.Apply(t.Context(), store.NoEpoch, store.Delete("w", "before", store.Any)); err != nil {
		t.Fatal(err)
	}
	if k := next(t, keys); k.Name != "before" {
		t.Fatalf("the deletion gave %v", k)
	}
	wantErr(t, s.Apply(t.Context(), store.NoEpoch, store.Put("w", "half", 0, number{1}), store.Put("w", "k1", 9, number{1})), store.ErrConflict)
	quiet(t, keys)
}

// watchSlowReader writes far more than anything buffers before it reads.
func watchSlowReader(t *testing.T, s store.Store) {
	keys, stop := watch(t, s)
	defer stop()
	const names = 1200
	for round := range 3 {
		var writes []store.Write
		for i := range names {
			writes = append(writes, store.Put("w", keyName(i), store.Any, number{round}))
		}
		if err := s.Apply(t.Context(), store.NoEpoch, writes...); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]int{}
	for len(seen) < names {
		seen[next(t, keys).Name]++
	}
	if seen[keyName(names-1)] > 3 {
		t.Errorf("the last key came %d times for three writes", seen[keyName(names-1)])
	}
}

// watchComplete writes from many sides while several watchers read at their own
// pace: after the last write of each record every watcher must still be told.
func watchComplete(t *testing.T, s store.Store) {
	const writers, each, names, watchers = 4, 60, 7, 3
	type result struct {
		id   int
		last map[string]int
	}
	final := make(chan map[string]int, 1)
	results := make(chan result, watchers)
	for w := range watchers {
		keys, stop := watch(t, s)
		defer stop()
		go func() {
			r := rand.New(rand.NewPCG(7, uint64(w)))
			seen := map[string]int{}
			var want map[string]int
			var deadline <-chan time.Time // from the last write on: a busy disk makes the writes slow
			for {
				select {
				case k := <-keys:
					if v, _, err := store.Get[number](t.Context(), s, k.Kind, k.Name); err == nil {
						seen[k.Name] = v.N
					}
					if r.IntN(8) == 0 {
						time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
					}
				case want = <-final:
					final <- want
					if deadline == nil {
						deadline = time.After(patience)
					}
				case <-deadline:
					results <- result{w, seen}
					return
				}
				if want != nil && fmt.Sprint(seen) == fmt.Sprint(want) {
					results <- result{w, seen}
					return
				}
				if want != nil {
					time.Sleep(time.Millisecond) // the case above would spin
				}
			}
		}()
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(3, uint64(w)))
			for i := range each {
				err := s.Apply(t.Context(), store.NoEpoch, store.Put("w", keyName(r.IntN(names)), store.Any, number{w*1000 + i}))
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	want := map[string]int{}
	rs, err := s.List(t.Context(), "w", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		want[r.Name], _ = value(t, s, "w", r.Name)
	}
	final <- want
	for range watchers {
		if r := <-results; fmt.Sprint(r.last) != fmt.Sprint(want) {
			t.Errorf("watcher %d last saw %v, want %v", r.id, r.last, want)
		}
	}
}

func watchEnds(t *testing.T, s store.Store) {
	keys, stop := watch(t, s)
	stop()
	select {
	case _, ok := <-keys:
		if ok {
			t.Fatal("a key after the end")
		}
	case <-time.After(patience):
		t.Fatal("the channel was not closed")
	}
	put(t, s, "w", "x", 0, 1) // must not block
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(ctx, "w", "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("a read with an ended context gave %v", err)
	}
	if err := s.Apply(ctx, store.NoEpoch, store.Put("w", "x", 1, number{2})); !errors.Is(err, context.Canceled) {
		t.Errorf("a write with an ended context gave %v", err)
	}
	if n, _ := value(t, s, "w", "x"); n != 1 {
		t.Errorf("the value is %d", n)
	}
}
