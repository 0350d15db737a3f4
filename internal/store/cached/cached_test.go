package cached_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/cached"
	"github.com/dayfly-infra/dayfly/internal/store/pgtest"
	"github.com/dayfly-infra/dayfly/internal/store/postgres"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
	"github.com/dayfly-infra/dayfly/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counting counts the reads that went past the memory.
type counting struct {
	store.Store
	reads     atomic.Int64
	down      atomic.Bool
	forgotten atomic.Int64 // deletions up to this revision
}

var errDown = errors.New("the database is down")

func (c *counting) Get(ctx context.Context, kind, name string) (store.Record, error) {
	c.reads.Add(1)
	if c.down.Load() {
		return store.Record{}, errDown
	}
	return c.Store.Get(ctx, kind, name)
}

func (c *counting) List(ctx context.Context, kind, prefix string) ([]store.Record, error) {
	c.reads.Add(1)
	return c.Store.List(ctx, kind, prefix)
}

func (c *counting) Page(ctx context.Context, kind string, r store.Range) ([]store.Record, error) {
	c.reads.Add(1)
	return c.Store.Page(ctx, kind, r)
}

func (c *counting) Changes(ctx context.Context, revision int64, limit int) ([]store.Record, error) {
	if c.down.Load() {
		return nil, errDown
	}
	if 0 < revision && revision < c.forgotten.Load() {
		return nil, store.ErrForgotten
	}
	return c.Store.Changes(ctx, revision, limit)
}

func over(t *testing.T, path string, limit int64, kinds ...string) (*cached.Store, *counting) {
	t.Helper()
	inner, err := sqlite.Open(t.Context(), path, clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	c := &counting{Store: inner}
	s := cached.New(cached.Config{Store: c, Kinds: kinds, Clock: clock.Real{}, Limit: limit})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, c
}

// settled waits until reads come from memory.
func settled(t *testing.T, s *cached.Store, c *counting, kind string) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(time.Millisecond) {
		before := c.reads.Load()
		if _, err := s.List(t.Context(), kind, "no such prefix"); err != nil {
			t.Fatal(err)
		}
		if c.reads.Load() == before {
			return
		}
	}
	t.Fatal("reads never come from memory")
}

// A memory changes nothing of what a store promises.
func TestSuite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, _ := over(t, filepath.Join(t.TempDir(), "x.db"), 0, "a", "b", "c", "k", "n", "x")
		return s
	})
}

// A server that starts on records of weeks finds most deletions forgotten.
func TestFillsBeforeForgotten(t *testing.T) {
	inner, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"), clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1200 { // more than is read at once
		if err := inner.Apply(t.Context(), store.NoEpoch, store.Put("a", fmt.Sprintf("n%04d", i), 0, i)); err != nil {
			t.Fatal(err)
		}
	}
	c := &counting{Store: inner}
	c.forgotten.Store(1100)
	s := cached.New(cached.Config{Store: c, Kinds: []string{"a"}, Clock: clock.Real{}})
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	settled(t, s, c, "a")
}

// At rest reads cost the database nothing.
func TestFromMemory(t *testing.T) {
	s, c := over(t, filepath.Join(t.TempDir(), "x.db"), 0, "a")
	var ws []store.Write
	for i := range 1200 { // more than is read at once
		ws = append(ws, store.Put("a", fmt.Sprintf("n%04d", i), 0, i))
	}
	if err := s.Apply(t.Context(), store.NoEpoch, ws...); err != nil {
		t.Fatal(err)
	}
	settled(t, s, c, "a")
	for try := 0; ; try++ { // the watch may still tell of what is known
		before := c.reads.Load()
		fromMemory(t, s, c)
		n := c.reads.Load() - before
		if n <= 1200/20 { // on a busy machine the watch tells all the time
			break
		}
		if try == 20 {
			t.Fatalf("%d reads went to the database", n)
		}
	}
	before := c.reads.Load()
	if _, err := s.Get(t.Context(), "b", "x"); !errors.Is(err, store.ErrNotFound) || c.reads.Load() == before {
		t.Error("a kind that is not kept came from memory", err)
	}
}

func fromMemory(t *testing.T, s *cached.Store, c *counting) {
	t.Helper()
	for i := range 1200 {
		if n, v, err := store.Get[int](t.Context(), s, "a", fmt.Sprintf("n%04d", i)); err != nil || n != i || v != 1 {
			t.Fatalf("%d, version %d, %v", n, v, err)
		}
	}
	for _, r := range []store.Range{{Limit: 7}, {Prefix: "n01", Limit: 200}, {Prefix: "n01", After: "n0150", Limit: 5}, {Prefix: "n01", Limit: 5, Reverse: true}, {Prefix: "n01", After: "n0150", Limit: 5, Reverse: true}, {After: "n1198", Limit: 9}, {Prefix: "o", Limit: 9, Reverse: true}, {Prefix: "n1", After: "n0", Limit: 3}, {Prefix: "n0", After: "n1", Limit: 3, Reverse: true}} {
		got, err := s.Page(t.Context(), "a", r)
		if err != nil {
			t.Fatal(err)
		}
		want, err := c.Store.Page(t.Context(), "a", r)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(names(got), names(want)) {
			t.Errorf("%+v gives %v, the store %v", r, names(got), names(want))
		}
	}
}

func names(rs []store.Record) (out []string) {
	for _, r := range rs {
		out = append(out, r.Name)
	}
	return out
}

// What is too much for the memory is read from the store.
func TestLimit(t *testing.T) {
	s, c := over(t, filepath.Join(t.TempDir(), "x.db"), 3000, "a", "b")
	for i := range 20 {
		for _, kind := range []string{"a", "b"} {
			if i > 3 && kind == "b" {
				continue
			}
			if err := s.Apply(t.Context(), store.NoEpoch, store.Put(kind, fmt.Sprint(i), 0, "some text")); err != nil {
				t.Fatal(err)
			}
		}
	}
	settled(t, s, c, "b")
	before := c.reads.Load()
	if rs, err := s.List(t.Context(), "a", ""); err != nil || len(rs) != 20 || c.reads.Load() == before {
		t.Errorf("%d records, %v, %d reads", len(rs), err, c.reads.Load()-before)
	}
}

// While the database does not answer, memory is not believed for long.
func TestDown(t *testing.T) {
	s, c := over(t, filepath.Join(t.TempDir(), "x.db"), 0, "a")
	if err := s.Apply(t.Context(), store.NoEpoch, store.Put("a", "x", 0, 1)); err != nil {
		t.Fatal(err)
	}
	settled(t, s, c, "a")
	c.down.Store(true)
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := s.Get(t.Context(), "a", "x"); errors.Is(err, errDown) {
			break
		}
		if time.Now().After(until) {
			t.Fatal("memory is believed for ever")
		}
	}
	c.down.Store(false)
	settled(t, s, c, "a")
}

// Whatever happens in whatever order, through one server or another: who wrote
// something reads it or what came after, who is told of a key reads what he was
// told of, and nobody reads an older state than before.
func TestNeverStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	t.Run("sqlite", func(t *testing.T) {
		neverStale(t, func() store.Store {
			s, err := sqlite.Open(t.Context(), path, clock.Real{})
			if err != nil {
				t.Fatal(err)
			}
			return s
		})
	})
	t.Run("postgres", func(t *testing.T) {
		where := pgtest.New(t).Database(t)
		neverStale(t, func() store.Store {
			s, err := postgres.Open(t.Context(), where, clock.Real{})
			if err != nil {
				t.Fatal(err)
			}
			return s
		})
	})
}

func neverStale(t *testing.T, open func() store.Store) {
	inner, other := open(), open()
	defer other.Close()
	s := cached.New(cached.Config{Store: inner, Kinds: []string{"a", "b"}, Clock: clock.Real{}})
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	// One after the other: what the watch tells of is read.
	changes, err := s.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n := range 60 {
		if err := other.Apply(t.Context(), store.NoEpoch, store.Put("b", "x", store.Any, n)); err != nil {
			t.Fatal(err)
		}
		for k := range changes {
			if k.Name == "x" {
				break
			}
		}
		if got, _, err := store.Get[int](t.Context(), s, "b", "x"); err != nil || got != n {
			t.Fatalf("%d was read when %d was told of, %v", got, n, err)
		}
		time.Sleep(time.Duration(n%5) * time.Millisecond)
		if err := s.Apply(t.Context(), store.NoEpoch, store.Put("b", "y", store.Any, n)); err != nil {
			t.Fatal(err)
		}
		if got, _, err := store.Get[int](t.Context(), s, "b", "y"); err != nil || got != n {
			t.Fatalf("%d was read when %d was written, %v", got, n, err)
		}
		time.Sleep(time.Duration(n%7) * time.Millisecond)
	}
	go func() {
		for range changes {
		}
	}()
	// All at the same time: k0 to k2 are written by this server, k3 and k4 by another.
	const keys = 5
	var seen [keys]atomic.Int64 // versions, which only go forward
	raise := func(i int, v int64) {
		for old := seen[i].Load(); old < v && !seen[i].CompareAndSwap(old, v); old = seen[i].Load() {
		}
	}
	read := func(i int) {
		least := seen[i].Load()
		rs, err := s.List(ctx, "a", fmt.Sprint("k", i))
		if err != nil || len(rs) == 0 {
			if ctx.Err() == nil && least > 0 {
				t.Errorf("k%d: %d records, %v", i, len(rs), err)
			}
			return
		}
		if rs[0].Version < least {
			t.Errorf("k%d: version %d was read, %d before", i, rs[0].Version, least)
		}
		raise(i, rs[0].Version)
	}
	var wg sync.WaitGroup
	write := func(st store.Store, own bool, from, n int) {
		r := rand.New(rand.NewPCG(uint64(from), 1))
		for v := int64(1); ctx.Err() == nil; v++ {
			var ws []store.Write
			for i := from; i < from+n; i++ {
				ws = append(ws, store.Put("a", fmt.Sprint("k", i), v-1, v))
			}
			if err := st.Apply(context.WithoutCancel(ctx), store.NoEpoch, ws...); err != nil {
				t.Error(err)
				return
			}
			for i := from; i < from+n && own; i++ {
				raise(i, v)
				read(i)
			}
			time.Sleep(time.Duration(r.IntN(4000)) * time.Microsecond)
		}
	}
	wg.Go(func() { write(s, true, 0, 3) })
	wg.Go(func() { write(other, false, 3, 2) })
	for g := range 3 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 9))
			for ctx.Err() == nil {
				read(r.IntN(keys))
				time.Sleep(time.Duration(r.IntN(300)) * time.Microsecond)
			}
		})
	}
	wg.Wait()
}
