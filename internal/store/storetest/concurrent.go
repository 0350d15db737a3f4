package storetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dayfly-infra/dayfly/internal/store"
)

// model compares random batches with a map.
func model(t *testing.T, s store.Store) {
	type entry struct {
		version int64
		n       int
	}
	there := map[string]entry{}
	last := map[string]int64{} // versions go on after a deletion
	var revision int64
	rapid.Check(t, func(rt *rapid.T) {
		var writes []store.Write
		next := map[string]entry{}
		for k, v := range there {
			next[k] = v
		}
		nextLast := map[string]int64{}
		for k, v := range last {
			nextLast[k] = v
		}
		conflict := false
		for range rapid.IntRange(0, 4).Draw(rt, "writes") {
			name := keyName(rapid.IntRange(0, 5).Draw(rt, "name"))
			have := next[name].version
			version := rapid.SampledFrom([]int64{have, have, have, store.Any, 0, have + 1, 1}).Draw(rt, "version")
			conflict = conflict || version != store.Any && version != have
			if rapid.IntRange(0, 3).Draw(rt, "delete") == 0 {
				writes = append(writes, store.Delete("m", name, version))
				if have != 0 {
					nextLast[name]++
				}
				delete(next, name)
				continue
			}
			n := rapid.Int().Draw(rt, "value")
			writes = append(writes, store.Put("m", name, version, number{n}))
			nextLast[name]++
			next[name] = entry{nextLast[name], n}
		}
		err := s.Apply(t.Context(), store.NoEpoch, writes...)
		switch {
		case conflict && !errors.Is(err, store.ErrConflict):
			rt.Fatalf("%+v over %+v gave %v, want a conflict", writes, there, err)
		case !conflict && err != nil:
			rt.Fatalf("%+v over %+v: %v", writes, there, err)
		case !conflict:
			there, last = next, nextLast
		}
		rs, err := s.List(t.Context(), "m", "")
		if err != nil || len(rs) != len(there) {
			rt.Fatalf("%d records, want %d (%v)", len(rs), len(there), err)
		}
		top := revision
		for _, r := range rs {
			n, version := value(t, s, "m", r.Name)
			if want := there[r.Name]; want != (entry{version, n}) {
				rt.Fatalf("%s is version %d, value %d, want %+v", r.Name, version, n, want)
			}
			top = max(top, r.Revision)
		}
		revision = top
	})
}

// concurrentWriters counts together; a lost update shows in the sums.
func concurrentWriters(t *testing.T, s store.Store) {
	const writers, each, keys = 8, 40, 3
	for i := range keys {
		put(t, s, "c", keyName(i), 0, 0)
	}
	var wg sync.WaitGroup
	var conflicts atomic.Int64
	for w := range writers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(w)))
			for done := 0; done < each; {
				// Two counters move together; readers must never see half.
				a, b := r.IntN(keys), r.IntN(keys)
				va, vera, err1 := store.Get[number](t.Context(), s, "c", keyName(a))
				vb, verb, err2 := store.Get[number](t.Context(), s, "c", keyName(b))
				if err := errors.Join(err1, err2); err != nil {
					t.Error(err)
					return
				}
				writes := []store.Write{store.Put("c", keyName(a), vera, number{va.N + 1})}
				if a != b {
					writes = append(writes, store.Put("c", keyName(b), verb, number{vb.N + 1}))
				} else {
					writes[0] = store.Put("c", keyName(a), vera, number{va.N + 2})
				}
				switch err := s.Apply(t.Context(), store.NoEpoch, writes...); {
				case err == nil:
					done++
				case errors.Is(err, store.ErrConflict):
					conflicts.Add(1)
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	sum := 0
	for i := range keys {
		n, _ := value(t, s, "c", keyName(i))
		sum += n
	}
	if sum != 2*writers*each {
		t.Fatalf("the counters hold %d, want %d (%d conflicts)", sum, 2*writers*each, conflicts.Load())
	}
}

func ownership(t *testing.T, s store.Store) {
	ctx := t.Context()
	const ttl = 200 * time.Millisecond
	acquire := func(holder string) (int64, bool) {
		t.Helper()
		e, ok, err := s.Acquire(ctx, holder, ttl)
		if err != nil {
			t.Fatal(err)
		}
		return e, ok
	}
	first, ok := acquire("a")
	if !ok || first == store.NoEpoch {
		t.Fatalf("nobody owns, but a got %d, %v", first, ok)
	}
	if _, ok := acquire("b"); ok {
		t.Fatal("b owns beside a")
	}
	for range 3 {
		time.Sleep(ttl * 2 / 3)
		if err := s.Renew(ctx, "a", first, ttl); err != nil {
			t.Fatal(err)
		}
		if _, ok := acquire("b"); ok {
			t.Fatal("b owns although a renewed")
		}
	}
	wantErr(t, s.Renew(ctx, "b", first, ttl), store.ErrFenced)
	wantErr(t, s.Release(ctx, "b", first), store.ErrFenced)
	time.Sleep(ttl + 20*time.Millisecond)
	second, ok := acquire("b")
	if !ok || second <= first {
		t.Fatalf("a's time is over, but b got %d, %v", second, ok)
	}
	wantErr(t, s.Renew(ctx, "a", first, ttl), store.ErrFenced)
	wantErr(t, s.Release(ctx, "a", first), store.ErrFenced)
	// b died and starts again under its name.
	third, ok := acquire("b")
	if !ok || third <= second {
		t.Fatalf("b came back and got %d, %v", third, ok)
	}
	wantErr(t, s.Renew(ctx, "b", second, ttl), store.ErrFenced)
	if err := s.Release(ctx, "b", third); err != nil {
		t.Fatal(err)
	}
	wantErr(t, s.Renew(ctx, "b", third, ttl), store.ErrFenced)
	if e, ok := acquire("a"); !ok || e <= third {
		t.Fatalf("b released, but a got %d, %v", e, ok)
	}
	for _, bad := range []func() error{
		func() error { _, _, err := s.Acquire(ctx, "", ttl); return err },
		func() error { _, _, err := s.Acquire(ctx, "a", 0); return err },
	} {
		if bad() == nil {
			t.Error("ownership without a holder or a time was given")
		}
	}
}

func fencing(t *testing.T, s store.Store) {
	ctx := t.Context()
	write := func(epoch int64) error {
		return s.Apply(ctx, epoch, store.Put("f", "x", store.Any, number{int(epoch)}))
	}
	wantErr(t, write(1), store.ErrFenced)
	e1, _, err := s.Acquire(ctx, "a", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := write(e1); err != nil {
		t.Fatal(err)
	}
	e2, _, err := s.Acquire(ctx, "a", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, write(e1), store.ErrFenced)
	wantErr(t, s.Apply(ctx, e1), store.ErrFenced) // an empty batch asks only this
	if err := write(e2); err != nil {
		t.Fatal(err)
	}
	if err := write(store.NoEpoch); err != nil {
		t.Fatal("the API needs no epoch:", err)
	}
	wantErr(t, write(e2+1), store.ErrFenced)
	if err := s.Release(ctx, "a", e2); err != nil {
		t.Fatal(err)
	}
	wantErr(t, write(e2), store.ErrFenced)
}

// fencingRace lets owners take over from one another while the old ones still
// write: the epochs that are written may never go back.
func fencingRace(t *testing.T, s store.Store) {
	put(t, s, "f", "epoch", 0, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			holder := string(rune('a' + w))
			for ctx.Err() == nil {
				epoch, ok, err := s.Acquire(ctx, holder, 10*time.Millisecond) // never renewed
				if err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
				for ok && ctx.Err() == nil {
					v, version, err := store.Get[number](ctx, s, "f", "epoch")
					if err == nil && int64(v.N) > epoch {
						if err := s.Apply(ctx, epoch, store.Put("f", "epoch", version, number{int(epoch)})); err == nil {
							t.Errorf("epoch %d wrote after epoch %d", epoch, v.N)
						}
						break
					}
					err = s.Apply(ctx, epoch, store.Put("f", "epoch", store.Any, number{int(epoch)}))
					if errors.Is(err, store.ErrFenced) {
						break
					}
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	wg.Wait()
	if n, _ := value(t, s, "f", "epoch"); n < 2 {
		t.Errorf("only epoch %d ever wrote: the test saw no race", n)
	}
}
