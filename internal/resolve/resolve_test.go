package resolve

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/box"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/release"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

type shelf struct {
	name, body, digest string
	cut                error // after the body
	mu                 sync.Mutex
	opened             int
}

func (s *shelf) Resolve(context.Context, string) (box.Artifact, error) {
	return box.Artifact{Name: s.name, URL: "http://box/" + s.name, Digest: s.digest}, nil
}

func (s *shelf) Open(context.Context, box.Artifact) (io.ReadCloser, error) {
	s.mu.Lock()
	s.opened++
	s.mu.Unlock()
	r := io.Reader(strings.NewReader(s.body))
	if s.cut != nil {
		r = io.MultiReader(r, broken{s.cut})
	}
	return io.NopCloser(r), nil
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

func sum(s string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s))) }

func resolver(t *testing.T, s *shelf) (*Resolver, *cloudtest.Cloud) {
	st, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	c := cloudtest.New(clock.Real{})
	return &Resolver{
		Store: st, Cloud: c.Driver(st), Open: func(string) (box.Box, error) { return s, nil }, Dir: t.TempDir(), Clock: clock.Real{},
		Log: slog.New(slog.DiscardHandler), Epoch: reconcile.Epoch,
	}, c
}

var shop = &blueprint.Blueprint{Name: "shop"}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		s    *shelf
		kind fault.Kind
		want string
	}{
		{"other bytes than promised", &shelf{name: "a.tar", body: "evil", digest: sum("good")}, fault.Invalid, "its bytes have " + sum("evil")},
		{"cut off", &shelf{name: "a.tar", body: "go", digest: sum("good"), cut: errors.New("connection reset")}, fault.Unavailable, "broke off"},
		{"cut off, and the box told no digest", &shelf{name: "a.tar", body: "go", cut: io.ErrUnexpectedEOF}, fault.Unavailable, "broke off"},
		{"too short", &shelf{name: "a.tar", body: "go", digest: sum("good")}, fault.Invalid, "its bytes have"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, cl := resolver(t, c.s)
			if name, err := r.Resolve(t.Context(), "x/1", shop); fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %v", name, err)
			}
			if left := cl.Left(); len(left) > 0 {
				t.Errorf("mirrored: %v", left)
			}
			if tmp, _ := os.ReadDir(r.Dir); len(tmp) > 0 {
				t.Errorf("left behind: %v", tmp)
			}
			if all, _ := store.List[release.Release](t.Context(), r.Store, release.Kind, ""); len(all) > 0 {
				t.Errorf("recorded: %v", all)
			}
		})
	}
}

func TestOnce(t *testing.T) {
	for _, digest := range []string{"", sum("good")} {
		s := &shelf{name: "a.tar", body: "good", digest: digest}
		r, cl := resolver(t, s)
		names := make([]string, 20)
		var wg sync.WaitGroup
		for i := range names {
			wg.Go(func() {
				var err error
				if names[i], err = r.Resolve(t.Context(), "x/1", shop); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if digest != "" && s.opened != 1 {
			t.Errorf("%d downloads of the same bytes", s.opened)
		}
		if n := cl.Calls("s3:PutObject"); n != 1 {
			t.Errorf("mirrored %d times", n)
		}
		s.name = "b.tar" // the same bytes under another name
		again, err := r.Resolve(t.Context(), "x/1", shop)
		if err != nil || again != names[0] || names[19] != names[0] {
			t.Errorf("%v, again %s %v", names, again, err)
		}
		rel, _, err := store.Get[release.Release](t.Context(), r.Store, release.Kind, again)
		if err != nil || rel.Digest != sum("good") || rel.Size != 4 || !strings.HasPrefix(rel.Mirror, "s3://bucket/releases/shop/") || rel.Artifact != "a.tar" {
			t.Errorf("%+v %v", rel, err)
		}
		if raw, err := cl.Driver(r.Store).Object(t.Context(), strings.TrimPrefix(rel.Mirror, "s3://bucket/"), 100); err != nil || string(raw) != "good" {
			t.Errorf("the mirror has %q %v", raw, err)
		}
	}
}

func TestTurnEnds(t *testing.T) {
	r, _ := resolver(t, &shelf{})
	done, err := r.turn(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.turn(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	done()
	done, err = r.turn(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	done()
}

// Who takes a release that was not taken for a day says so in its record; one
// that is being forgotten is not taken.
func TestTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := resolver(t, &shelf{name: "a.tar", body: "good", digest: sum("good")})
		resolve := func() (string, error) { return r.Resolve(t.Context(), "x/1", shop) }
		name, err := resolve()
		if err != nil {
			t.Fatal(err)
		}
		read := func() (release.Release, int64) {
			t.Helper()
			l, version, err := store.Get[release.Release](t.Context(), r.Store, release.Kind, name)
			if err != nil {
				t.Fatal(err)
			}
			return l, version
		}
		if _, err := resolve(); err != nil {
			t.Fatal(err)
		}
		if l, version := read(); !l.Used.IsZero() || version != 1 {
			t.Errorf("within a day it was written: %+v", l)
		}
		time.Sleep(25 * time.Hour)
		for range 3 {
			if _, err := resolve(); err != nil {
				t.Fatal(err)
			}
		}
		l, version := read()
		if !l.Used.Equal(time.Now()) || version != 2 {
			t.Errorf("version %d: %+v", version, l)
		}
		l.Ending = time.Now()
		if err := r.Store.Apply(t.Context(), store.NoEpoch, store.Put(release.Kind, name, version, l)); err != nil {
			t.Fatal(err)
		}
		if _, err := resolve(); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("it was taken: %v", err)
		}
	})
}
