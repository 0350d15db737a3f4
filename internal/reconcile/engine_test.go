package reconcile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type loop struct {
	kind string
	f    func(ctx context.Context, name string) (time.Duration, error)
}

func (l loop) Kind() string { return l.kind }
func (l loop) Reconcile(ctx context.Context, name string) (time.Duration, error) {
	return l.f(ctx, name)
}

type follower struct {
	loop
	follows func(store.Key) []string
}

func (f follower) Follows(k store.Key) []string { return f.follows(k) }

func open(t *testing.T, path string) store.Store {
	t.Helper()
	s, err := sqlite.Open(context.Background(), path, clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t *testing.T, s store.Store, kind, name string, v any) {
	t.Helper()
	if err := s.Apply(context.Background(), store.NoEpoch, store.Put(kind, name, store.Any, v)); err != nil {
		t.Error(err)
	}
}

// start runs an engine; stop ends it and waits.
func start(t *testing.T, cfg reconcile.Config) (e *reconcile.Engine, stop func()) {
	t.Helper()
	if cfg.Holder == "" {
		cfg.Holder = "one"
	}
	e = reconcile.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	return e, sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// bubble runs f in virtual time with an empty store.
func bubble(t *testing.T, f func(t *testing.T, s store.Store)) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, ":memory:")
		f(t, s)
		s.Close()
	})
}

func TestExistingChangedAndDeleted(t *testing.T) {
	bubble(t, func(t *testing.T, s store.Store) {
		put(t, s, "a", "old", 1)
		put(t, s, "b", "other", 1)
		var mu sync.Mutex
		var runs []string
		l := loop{"a", func(ctx context.Context, name string) (time.Duration, error) {
			if reconcile.Epoch(ctx) == store.NoEpoch {
				t.Error("a loop runs without an epoch")
			}
			_, err := s.Get(ctx, "a", name)
			mu.Lock()
			defer mu.Unlock()
			runs = append(runs, fmt.Sprint(name, " ", err == nil))
			return reconcile.Done, nil
		}}
		e, stop := start(t, reconcile.Config{Store: s, Loops: []reconcile.Loop{l}})
		defer stop()
		synctest.Wait()
		if _, ok := e.Owner(); !ok {
			t.Error("the engine does not say that it owns")
		}
		put(t, s, "a", "new", 1)
		synctest.Wait()
		put(t, s, "b", "other", 2)
		if err := s.Apply(t.Context(), store.NoEpoch, store.Delete("a", "old", store.Any)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stop()
		if want := []string{"old true", "new true", "old false"}; !slices.Equal(runs, want) {
			t.Errorf("runs %v, want %v", runs, want)
		}
		if _, ok := e.Owner(); ok {
			t.Error("the engine ended and says that it owns")
		}
	})
}

func TestFollows(t *testing.T) {
	bubble(t, func(t *testing.T, s store.Store) {
		put(t, s, "environment", "dev", 1)
		var runs atomic.Int64
		l := follower{
			loop{"environment", func(context.Context, string) (time.Duration, error) { runs.Add(1); return 0, nil }},
			func(k store.Key) []string {
				env, _, _ := strings.Cut(k.Name, "/")
				return []string{env}
			},
		}
		_, stop := start(t, reconcile.Config{Store: s, Loops: []reconcile.Loop{l}})
		defer stop()
		synctest.Wait()
		put(t, s, "generation", "dev/1", 1)
		synctest.Wait()
		if runs.Load() != 2 {
			t.Errorf("%d runs", runs.Load())
		}
	})
}

// A loop that asks to come again does, and a change meanwhile does not double it.
func TestAgain(t *testing.T) {
	bubble(t, func(t *testing.T, s store.Store) {
		put(t, s, "a", "x", 1)
		began := time.Now()
		var at []time.Duration
		l := loop{"a", func(context.Context, string) (time.Duration, error) {
			at = append(at, time.Since(began))
			return 10 * time.Second, nil
		}}
		_, stop := start(t, reconcile.Config{Store: s, Loops: []reconcile.Loop{l}})
		defer stop()
		time.Sleep(14 * time.Second) // ran at 0 and 10
		put(t, s, "a", "x", 2)
		time.Sleep(25 * time.Second) // 14, 24, 34
		stop()
		want := []time.Duration{0, 10 * time.Second, 14 * time.Second, 24 * time.Second, 34 * time.Second}
		if !slices.Equal(at, want) {
			t.Errorf("ran at %v, want %v", at, want)
		}
	})
}

// An error backs off up to 30 s, is logged once, and a change of the record
// shortens the wait; a panic is an error and stops nobody else.
func TestErrors(t *testing.T) {
	bubble(t, func(t *testing.T, s store.Store) {
		put(t, s, "a", "bad", 1)
		put(t, s, "a", "panics", 1)
		var log bytes.Buffer
		var fixed atomic.Bool
		var mu sync.Mutex
		at := map[string][]time.Time{}
		l := loop{"a", func(_ context.Context, name string) (time.Duration, error) {
			mu.Lock()
			at[name] = append(at[name], time.Now())
			mu.Unlock()
			switch {
			case fixed.Load():
				return 0, nil
			case name == "panics":
				panic("broken loop")
			}
			return 0, errors.New("the sky is cloudy")
		}}
		_, stop := start(t, reconcile.Config{
			Store: s, Loops: []reconcile.Loop{l}, Log: slog.New(slog.NewTextHandler(&log, nil)), Rand: rand.New(rand.NewPCG(1, 2)),
		})
		defer stop()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		mu.Lock()
		runs := at["bad"]
		if len(runs) < 15 || len(runs) > 45 {
			t.Errorf("%d tries in five minutes", len(runs))
		}
		for i := 1; i < len(runs); i++ {
			if d := runs[i].Sub(runs[i-1]); d > 30*time.Second {
				t.Errorf("waited %v", d)
			}
		}
		last := len(runs)
		mu.Unlock()
		if runs[last-1].Sub(runs[last-2]) < 14*time.Second {
			t.Errorf("the last wait was %v only", runs[last-1].Sub(runs[last-2]))
		}
		fixed.Store(true)
		put(t, s, "a", "bad", 2)
		put(t, s, "a", "panics", 2)
		time.Sleep(time.Second)
		synctest.Wait()
		stop()
		for _, want := range []string{"name=bad error=\"the sky is cloudy\"", "name=panics error=\"panic: broken loop", "goes on"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log lacks %q", want)
			}
		}
		if n := strings.Count(log.String(), "the sky is cloudy"); n != 1 {
			t.Errorf("the error was logged %d times", n)
		}
		if n := strings.Count(log.String(), "panic: broken"); n != 1 {
			t.Errorf("the panic was logged %d times", n)
		}
		if len(at["bad"]) != last+1 {
			t.Errorf("%d runs after the fix, want 1", len(at["bad"])-last)
		}
	})
}

// A loop that fails and writes the failure down each time must not spin on its
// own writes.
func TestFailingLoopThatWrites(t *testing.T) {
	bubble(t, func(t *testing.T, s store.Store) {
		put(t, s, "a", "x", 1)
		runs := 0
		l := loop{"a", func(ctx context.Context, name string) (time.Duration, error) {
			runs++
			put(t, s, "a", name, runs)
			return 0, errors.New("no")
		}}
		_, stop := start(t, reconcile.Config{Store: s, Loops: []reconcile.Loop{l}})
		defer stop()
		time.Sleep(time.Minute)
		stop()
		if runs < 30 || runs > 80 {
			t.Errorf("%d runs in a minute", runs)
		}
	})
}

// Loss of ownership stops what runs; the engine then stands by, and takes over
// when the other is gone.
func TestOwnershipLost(t *testing.T) {
	bubble(t, func(t *testing.T, s store.Store) {
		put(t, s, "a", "x", 1)
		var running atomic.Int64
		var epochs []int64
		l := loop{"a", func(ctx context.Context, name string) (time.Duration, error) {
			running.Add(1)
			defer running.Add(-1)
			epochs = append(epochs, reconcile.Epoch(ctx))
			<-ctx.Done() // a step that waits
			return 0, ctx.Err()
		}}
		e, stop := start(t, reconcile.Config{Store: s, Loops: []reconcile.Loop{l}, TTL: 10 * time.Second})
		defer stop()
		synctest.Wait()
		if running.Load() != 1 {
			t.Fatal("the loop does not run")
		}
		// Another takes over, as after a pause of this process.
		mine, _ := e.Owner()
		if err := s.Release(t.Context(), "one", mine); err != nil {
			t.Fatal(err)
		}
		other, ok, err := s.Acquire(t.Context(), "two", 30*time.Second)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		time.Sleep(5 * time.Second) // it learns at its next renewal
		synctest.Wait()
		if _, ok := e.Owner(); ok || running.Load() != 0 {
			t.Fatal("the engine works although another owns")
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if running.Load() != 0 {
			t.Fatal("it runs while another owns")
		}
		time.Sleep(30 * time.Second) // two never renews
		synctest.Wait()
		now, ok := e.Owner()
		if !ok || now <= other || running.Load() != 1 {
			t.Fatalf("epoch %d, owns %v, %d running", now, ok, running.Load())
		}
		stop()
		if !slices.Equal(epochs, []int64{mine, now}) {
			t.Errorf("epochs %v", epochs)
		}
		// Given up: nobody has to wait.
		if _, ok, err := s.Acquire(t.Context(), "three", time.Second); err != nil || !ok {
			t.Errorf("ownership was not given up: %v, %v", ok, err)
		}
	})
}

// unrenewable fails renewals, as a database that is gone does.
type unrenewable struct {
	store.Store
	down atomic.Bool
}

func (u *unrenewable) Renew(ctx context.Context, holder string, epoch int64, ttl time.Duration) error {
	if u.down.Load() {
		return errors.New("the database is gone")
	}
	return u.Store.Renew(ctx, holder, epoch, ttl)
}

func TestStopsWhenItCannotRenew(t *testing.T) {
	bubble(t, func(t *testing.T, s store.Store) {
		put(t, s, "a", "x", 1)
		u := &unrenewable{Store: s}
		var stopped atomic.Int64
		l := loop{"a", func(ctx context.Context, name string) (time.Duration, error) {
			<-ctx.Done()
			stopped.Add(1)
			return 0, nil
		}}
		_, stop := start(t, reconcile.Config{Store: u, Loops: []reconcile.Loop{l}, TTL: 10 * time.Second})
		defer stop()
		time.Sleep(21 * time.Second)
		synctest.Wait()
		if stopped.Load() != 0 {
			t.Fatal("stopped while it could renew")
		}
		u.down.Store(true)
		time.Sleep(13 * time.Second)
		synctest.Wait()
		if stopped.Load() == 0 {
			t.Fatal("works on without a lease")
		}
	})
}

// A fenced write ends everything at once, without waiting for the renewal.
func TestFencedWrite(t *testing.T) {
	bubble(t, func(t *testing.T, s store.Store) {
		put(t, s, "a", "x", 1)
		var seen []int64
		l := loop{"a", func(ctx context.Context, name string) (time.Duration, error) {
			seen = append(seen, reconcile.Epoch(ctx))
			if len(seen) == 1 {
				if _, _, err := s.Acquire(ctx, "one", time.Minute); err != nil {
					t.Error(err)
				}
			}
			return 0, reconcile.Update(ctx, s, "a", name, func(n *int) error { *n = 2; return nil })
		}}
		_, stop := start(t, reconcile.Config{Store: s, Loops: []reconcile.Loop{l}, TTL: time.Hour})
		defer stop()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		stop()
		if len(seen) < 2 || seen[1] <= seen[0] {
			t.Errorf("epochs %v", seen)
		}
	})
}

func TestUpdate(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"))
	type counter struct{ N int }
	put(t, s, "c", "x", counter{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				if err := reconcile.Update(t.Context(), s, "c", "x", func(c *counter) error { c.N++; return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	c, version, err := store.Get[counter](t.Context(), s, "c", "x")
	if err != nil || c.N != 100 || version != 101 {
		t.Fatalf("%+v, version %d, %v", c, version, err)
	}
	if err := reconcile.Update(t.Context(), s, "c", "x", func(*counter) error { return nil }); err != nil {
		t.Fatal(err)
	}
	no := errors.New("no")
	if err := reconcile.Update(t.Context(), s, "c", "x", func(c *counter) error { c.N = 7; return no }); !errors.Is(err, no) {
		t.Fatal(err)
	}
	if _, v, _ := store.Get[counter](t.Context(), s, "c", "x"); v != 101 {
		t.Error("an unchanged record was written")
	}
	if err := reconcile.Update(t.Context(), s, "c", "none", func(*counter) error { return nil }); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	ctx := reconcile.WithEpoch(t.Context(), 77)
	if err := reconcile.Update(ctx, s, "c", "x", func(c *counter) error { c.N++; return nil }); !errors.Is(err, store.ErrFenced) {
		t.Error(err)
	}
}

// An event reaches its loop in a few milliseconds.
func TestLatency(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "s.db"))
	ran := make(chan time.Time, 1)
	l := loop{"a", func(context.Context, string) (time.Duration, error) { ran <- time.Now(); return 0, nil }}
	_, stop := start(t, reconcile.Config{Store: s, Loops: []reconcile.Loop{l}})
	defer stop()
	put(t, s, "a", "x", 0)
	<-ran
	var took []time.Duration
	for i := range 60 {
		put(t, s, "a", "x", i+1)
		written := time.Now()
		took = append(took, (<-ran).Sub(written))
	}
	slices.Sort(took)
	t.Logf("median %v, worst %v", took[len(took)/2], took[len(took)-1])
	if m := took[len(took)/2]; m > 5*time.Millisecond {
		t.Errorf("the median from event to loop is %v", m)
	}
}
