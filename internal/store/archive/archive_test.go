package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/pgtest"
	"github.com/dayfly-infra/dayfly/internal/store/postgres"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

func closing(t *testing.T, s store.Store, err error) store.Store {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newSQLite(t *testing.T) store.Store {
	s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"), clock.Real{})
	return closing(t, s, err)
}

func put(t *testing.T, s store.Store, ws ...store.Write) {
	t.Helper()
	if err := s.Apply(t.Context(), store.NoEpoch, ws...); err != nil {
		t.Fatal(err)
	}
}

func backup(t *testing.T, s store.Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := Write(t.Context(), &b, s, Head{By: "test", Made: time.Unix(0, 0).UTC()}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// content is all that a store has, but for what a restore gives anew.
func content(t *testing.T, s store.Store) string {
	t.Helper()
	var out []string
	err := s.Dump(t.Context(), func(i store.Item) error {
		if i.Record == nil {
			out = append(out, fmt.Sprintf("%s %d %x", i.Blob, i.Part, i.Data))
			return nil
		}
		out = append(out, fmt.Sprintf("%s/%s v%d %s %s", i.Record.Kind, i.Record.Name, i.Record.Version, i.Record.Updated, i.Record.Body))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

// Backups go from either kind of database to either.
func TestAcrossKinds(t *testing.T) {
	pg := pgtest.New(t)
	kinds := map[string]func(t *testing.T) store.Store{"sqlite": newSQLite, "postgres": func(t *testing.T) store.Store {
		s, err := postgres.Open(t.Context(), pg.Database(t), clock.Real{})
		return closing(t, s, err)
	}}
	big := bytes.Repeat([]byte("0123456789"), 300_000) // several parts
	for from, open := range kinds {
		for to, target := range kinds {
			t.Run(from+" to "+to, func(t *testing.T) {
				a := open(t)
				put(t, a, store.Put("a", "x", 0, "1"), store.Put("a", "y", 0, "ü \x01 <>&"), store.Put("b", "null", 0, nil))
				put(t, a, store.Put("a", "x", 1, "2"), store.Delete("a", "y", 1))
				if err := a.AddBlob(t.Context(), "blob/1", bytes.NewReader(big)); err != nil {
					t.Fatal(err)
				}
				if err := a.AddBlob(t.Context(), "blob/empty", strings.NewReader("")); err != nil {
					t.Fatal(err)
				}
				raw := backup(t, a)
				b := target(t)
				_, sum, err := Read(t.Context(), bytes.NewReader(raw), b, false)
				if err != nil || sum.Records != 2 || sum.Blobs != 2 {
					t.Fatalf("%+v %v", sum, err)
				}
				if got, want := content(t, b), content(t, a); got != want {
					t.Errorf("restored\n%.2000s\nwant\n%.2000s", got, want)
				}
				r, err := b.Blob(t.Context(), "blob/1")
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, big) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				// It goes on as a store: versions compare, deleted names go on counting.
				put(t, b, store.Put("a", "x", 2, "3"), store.Put("a", "y", 0, "again"))
				if _, v, err := store.Get[string](t.Context(), b, "a", "y"); err != nil || v != 3 {
					t.Errorf("the version is %d, %v", v, err)
				}
			})
		}
	}
}

// The old owner cannot write after a restore in place, and followers are told.
func TestReplaceFences(t *testing.T) {
	s := newSQLite(t)
	put(t, s, store.Put("a", "x", 0, "old"), store.Put("a", "kept", 0, 1))
	raw := backup(t, s)
	epoch, ok, err := s.Acquire(t.Context(), "me", time.Minute)
	if err != nil || !ok {
		t.Fatal(err)
	}
	put(t, s, store.Put("a", "x", 1, "new"), store.Put("a", "later", 0, 1), store.Delete("a", "kept", 1))
	before, _ := s.Revision(t.Context())
	_, _, err = Read(t.Context(), bytes.NewReader(raw), s, false)
	if fault.KindOf(err) != fault.Conflict || !strings.Contains(fault.HintOf(err), "--force") {
		t.Fatalf("a database with records was taken: %v", err)
	}
	if v, _, _ := store.Get[string](t.Context(), s, "a", "x"); v != "new" {
		t.Fatalf("the refused restore left %q", v)
	}
	if err := s.Apply(t.Context(), epoch); err != nil {
		t.Fatalf("the refused restore fenced the owner: %v", err)
	}
	keys, err := s.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(t.Context(), bytes.NewReader(raw), s, true); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), epoch, store.Put("a", "x", store.Any, "ghost")); !errors.Is(err, store.ErrFenced) {
		t.Errorf("the old owner wrote: %v", err)
	}
	if v, version, _ := store.Get[string](t.Context(), s, "a", "x"); v != "old" || version != 3 {
		t.Errorf("x is %q, version %d", v, version)
	}
	if _, err := s.Get(t.Context(), "a", "later"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("what came after the backup is there: %v", err)
	}
	seen := map[string]bool{}
	for len(seen) < 3 {
		select {
		case k := <-keys:
			seen[k.Name] = true
		case <-time.After(5 * time.Second):
			t.Fatalf("a watch was told of %v alone", seen)
		}
	}
	if _, err := s.Changes(t.Context(), before, 10); !errors.Is(err, store.ErrForgotten) {
		t.Errorf("a follower by revisions was told %v", err)
	}
	if again, ok, err := s.Acquire(t.Context(), "other", time.Minute); err != nil || !ok || again <= epoch {
		t.Errorf("the next owner has epoch %d, %v, %v", again, ok, err)
	}
}

// A backup under load is of one moment: two counters that move together are
// the same in it.
func TestUnderLoad(t *testing.T) {
	pg := pgtest.New(t)
	p, err := postgres.Open(t.Context(), pg.Database(t), clock.Real{})
	for name, s := range map[string]store.Store{"sqlite": newSQLite(t), "postgres": closing(t, p, err)} {
		t.Run(name, func(t *testing.T) {
			var fill []store.Write
			for i := range 3000 {
				fill = append(fill, store.Put("m", fmt.Sprintf("fill%d", i), 0, strings.Repeat("x", 300)))
			}
			put(t, s, append(fill, store.Put("a", "left", 0, 0), store.Put("z", "right", 0, 0))...)
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				for n := 1; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					if err := s.Apply(t.Context(), store.NoEpoch, store.Put("a", "left", store.Any, n), store.Put("m", fmt.Sprintf("new%d", n), 0, n), store.Put("z", "right", store.Any, n)); err != nil {
						t.Error(err)
						return
					}
				}
			})
			last := -1
			for range 5 {
				time.Sleep(20 * time.Millisecond)
				b := newSQLite(t)
				if _, _, err := Read(t.Context(), bytes.NewReader(backup(t, s)), b, false); err != nil {
					t.Fatal(err)
				}
				left, _, _ := store.Get[int](t.Context(), b, "a", "left")
				right, _, _ := store.Get[int](t.Context(), b, "z", "right")
				rs, err := b.List(t.Context(), "m", "new")
				if err != nil || left != right || len(rs) != left || left <= last {
					t.Errorf("left %d, right %d, %d records beside them, %d before (%v)", left, right, len(rs), last, err)
				}
				last = left
			}
			close(stop)
			wg.Wait()
		})
	}
}

// Whatever is wrong with a file, the store is not changed.
func TestDamaged(t *testing.T) {
	s := newSQLite(t)
	put(t, s, store.Put("a", "x", 0, "1"), store.Put("a", "y", 0, "2"))
	good := string(backup(t, s))
	lines := strings.SplitAfter(good, "\n")
	for name, text := range map[string]string{
		"empty":         "",
		"text":          "hello\n",
		"newer":         strings.Replace(good, `"format":1`, `"format":9`, 1),
		"changed":       strings.Replace(good, `"1"`, `"7"`, 1),
		"line gone":     lines[0] + strings.Join(lines[2:], ""),
		"line twice":    lines[0] + lines[1] + strings.Join(lines[1:], ""),
		"cut":           good[:len(good)/2],
		"no end":        strings.Join(lines[:len(lines)-2], ""),
		"unknown field": strings.Replace(good, `"kind"`, `"kinds"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			b := newSQLite(t)
			put(t, b, store.Put("k", "kept", 0, 1))
			before := content(t, b)
			_, _, err := Read(t.Context(), strings.NewReader(text), b, true)
			if fault.KindOf(err) != fault.Invalid || fault.HintOf(err) == "" {
				t.Errorf("%v", err)
			}
			if after := content(t, b); after != before {
				t.Errorf("the store was changed: %s", after)
			}
		})
	}
}
