package sqlite

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/storetest"
	"github.com/dayfly-infra/dayfly/internal/store/tables"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, path string, clk clock.Clock) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, clk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestFile(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		return open(t, filepath.Join(t.TempDir(), "new", "state.db"), clock.Real{})
	})
}

func TestMemory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, ":memory:", clock.Real{}) })
}

func TestCrash(t *testing.T) {
	storetest.Crash(t, func(ctx context.Context, dir string) (store.Store, error) {
		return Open(ctx, filepath.Join(dir, "state.db"), clock.Real{})
	})
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c#d%20.db") // nothing in a path is special
	s := open(t, path, clock.Real{})
	if err := s.Apply(t.Context(), store.NoEpoch, store.Put("a", "x", 0, "hello")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the file's mode is %v (%v)", info.Mode(), err)
	}
	v, _, err := store.Get[string](t.Context(), open(t, path, clock.Real{}), "a", "x")
	if err != nil || v != "hello" {
		t.Fatalf("%q, %v", v, err)
	}
}

// Two processes on one file: the second sees what the first writes.
func TestTwoOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	a, b := open(t, path, clock.Real{}), open(t, path, clock.Real{})
	keys, err := b.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Apply(t.Context(), store.NoEpoch, store.Put("a", "x", 0, 1)); err != nil {
		t.Fatal(err)
	}
	select {
	case k := <-keys:
		if k != (store.Key{Kind: "a", Name: "x"}) {
			t.Fatal(k)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the other's write was not seen")
	}
}

func TestRefusedUntouched(t *testing.T) {
	good := func(t *testing.T, path string) {
		s := open(t, path, clock.Real{})
		for i := range 200 {
			if err := s.Apply(t.Context(), store.NoEpoch, store.Put("a", strings.Repeat("x", i+1), 0, strings.Repeat("y", 500))); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		make func(t *testing.T, path string)
		want string
	}{
		"newer": {func(t *testing.T, path string) {
			good(t, path)
			raw(t, path, `INSERT INTO schema_version (version_id, is_applied) VALUES (99999, 1)`)
		}, "newer Dayfly"},
		"text": {func(t *testing.T, path string) {
			os.WriteFile(path, []byte("name: shop\nthis is not a database at all\n"), 0o600)
		}, "not a database"},
		"short": {func(t *testing.T, path string) { os.WriteFile(path, []byte("SQLite"), 0o600) }, "damaged"},
		"page": {func(t *testing.T, path string) {
			good(t, path)
			b, _ := os.ReadFile(path)
			for i := 4096; i < len(b)-4096; i++ {
				b[i] ^= 0x5a
			}
			os.WriteFile(path, b, 0o600)
		}, "damaged"},
		"cut": {func(t *testing.T, path string) {
			good(t, path)
			os.Truncate(path, 8192)
		}, "damaged"},
		"foreign": {func(t *testing.T, path string) { raw(t, path, `CREATE TABLE theirs (a TEXT)`) }, "another program"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.db")
			c.make(t, path)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), path, clock.Real{})
			if err == nil {
				s.Close()
				t.Fatal("it was opened")
			}
			f, ok := errors.AsType[*fault.Error](err)
			if !ok || f.Kind != fault.Invalid || f.Hint == "" || f.Object != path || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the fault is %#v: %v", f, err)
			}
			after, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(before, after) {
				t.Errorf("the file was changed (%v)", err)
			}
		})
	}
}

func TestOpenNoDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(t.Context(), filepath.Join(file, "state.db"), clock.Real{}); err == nil {
		s.Close()
		t.Fatal("opened below a file")
	}
	if s, err := Open(t.Context(), t.TempDir(), clock.Real{}); err == nil {
		s.Close()
		t.Fatal("opened a directory")
	}
}

type still struct {
	clock.Real
	now time.Time
}

func (s *still) Now() time.Time { return s.now }

// Tombstones go after their time, but never before every watcher saw them.
func TestTombstones(t *testing.T) {
	clk := &still{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	s := open(t, ":memory:", clk)
	count := func() (n int) {
		t.Helper()
		if err := s.read.QueryRow(`SELECT count(*) FROM record WHERE body IS NULL`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	apply := func(ws ...store.Write) {
		t.Helper()
		if err := s.Apply(t.Context(), store.NoEpoch, ws...); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := s.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	apply(store.Put("a", "x", 0, 1), store.Put("a", "y", 0, 1), store.Put("a", "z", 0, 1))
	apply(store.Delete("a", "x", 1))
	clk.now = clk.now.Add(2 * tables.Tombstones)
	apply(store.Delete("a", "y", 1))
	if n := count(); n != 2 {
		t.Fatalf("%d tombstones, but nobody has read the watch", n)
	}
	for range 3 {
		<-keys
	}
	quiet := time.After(50 * time.Millisecond)
	for done := false; !done; {
		select {
		case <-keys:
		case <-quiet:
			done = true
		}
	}
	clk.now = clk.now.Add(2 * tables.Tombstones)
	apply(store.Delete("a", "z", 1))
	if n := count(); n != 1 {
		t.Errorf("%d tombstones are left", n)
	}
	// The deletions with the revisions 4 and 5 are forgotten, 6 is not.
	if _, err := s.Changes(t.Context(), 4, 10); !errors.Is(err, store.ErrForgotten) {
		t.Errorf("changes that are not known any more gave %v", err)
	}
	for since, want := range map[int64]int{0: 1, 5: 1, 6: 0} {
		if rs, err := s.Changes(t.Context(), since, 10); err != nil || len(rs) != want {
			t.Errorf("since %d: %d changes, %v", since, len(rs), err)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "state.db"), clock.Real{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		if err := s.Apply(b.Context(), store.NoEpoch, store.Put("a", "x", store.Any, "hello")); err != nil {
			b.Fatal(err)
		}
	}
}
