// Package storetest is the suite that every implementation of store.Store must
// pass. It must not know any implementation.
package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/store"
)

// Run checks a store; open returns an empty one on the real clock, which the
// caller closes when t ends.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for name, f := range map[string]func(*testing.T, store.Store){
		"Versions":          versions,
		"Atomic":            batches,
		"List":              list,
		"Pages":             pages,
		"Changes":           changes,
		"Refuses":           refuses,
		"Model":             model,
		"ConcurrentWriters": concurrentWriters,
		"Ownership":         ownership,
		"Fencing":           fencing,
		"FencingRace":       fencingRace,
		"WatchOrder":        watchOrder,
		"WatchSlowReader":   watchSlowReader,
		"WatchComplete":     watchComplete,
		"WatchEnds":         watchEnds,
	} {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
}

type number struct {
	N int `json:"n"`
}

func put(t *testing.T, s store.Store, kind, name string, version int64, n int) {
	t.Helper()
	if err := s.Apply(t.Context(), store.NoEpoch, store.Put(kind, name, version, number{n})); err != nil {
		t.Fatal(err)
	}
}

func value(t *testing.T, s store.Store, kind, name string) (n int, version int64) {
	t.Helper()
	v, version, err := store.Get[number](t.Context(), s, kind, name)
	if err != nil {
		t.Fatal(err)
	}
	return v.N, version
}

func wantErr(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("the error is %v, want %v", err, target)
	}
}

func versions(t *testing.T, s store.Store) {
	ctx := t.Context()
	_, err := s.Get(ctx, "a", "x")
	wantErr(t, err, store.ErrNotFound)
	wantErr(t, s.Apply(ctx, store.NoEpoch, store.Put("a", "x", 3, number{1})), store.ErrConflict)
	put(t, s, "a", "x", 0, 1)
	wantErr(t, s.Apply(ctx, store.NoEpoch, store.Put("a", "x", 0, number{2})), store.ErrConflict)
	first, err := s.Get(ctx, "a", "x")
	if err != nil || first.Version != 1 || first.Kind != "a" || first.Name != "x" || first.Updated.IsZero() || first.Revision < 1 {
		t.Fatalf("the first version is %+v, %v", first, err)
	}
	put(t, s, "a", "x", 1, 2)
	second, _ := s.Get(ctx, "a", "x")
	if second.Version != 2 || second.Revision <= first.Revision {
		t.Fatalf("the second version is %+v", second)
	}
	put(t, s, "a", "x", store.Any, 3)
	if n, v := value(t, s, "a", "x"); n != 3 || v != 3 {
		t.Fatalf("value %d, version %d", n, v)
	}
	wantErr(t, s.Apply(ctx, store.NoEpoch, store.Delete("a", "x", 2)), store.ErrConflict)
	if err := s.Apply(ctx, store.NoEpoch, store.Delete("a", "x", 3)); err != nil {
		t.Fatal(err)
	}
	_, err = s.Get(ctx, "a", "x")
	wantErr(t, err, store.ErrNotFound)
	if err := s.Apply(ctx, store.NoEpoch, store.Delete("a", "x", store.Any)); err != nil {
		t.Fatal("a deletion of what is not there:", err)
	}
	// A name that is made again is another record: whoever read the old one
	// must not overwrite it.
	put(t, s, "a", "x", 0, 4)
	for old := int64(1); old <= 3; old++ {
		wantErr(t, s.Apply(ctx, store.NoEpoch, store.Put("a", "x", old, number{9})), store.ErrConflict)
	}
}

func batches(t *testing.T, s store.Store) {
	ctx := t.Context()
	put(t, s, "a", "x", 0, 1)
	err := s.Apply(ctx, store.NoEpoch,
		store.Put("a", "new", 0, number{1}), store.Put("a", "x", 1, number{2}), store.Put("a", "wrong", 7, number{1}), store.Delete("a", "x", store.Any))
	wantErr(t, err, store.ErrConflict)
	if !strings.Contains(err.Error(), "wrong") {
		t.Errorf("the error does not name the record: %v", err)
	}
	if n, v := value(t, s, "a", "x"); n != 1 || v != 1 {
		t.Errorf("half of a batch was written: value %d, version %d", n, v)
	}
	_, err = s.Get(ctx, "a", "new")
	wantErr(t, err, store.ErrNotFound)
	if err := s.Apply(ctx, store.NoEpoch); err != nil {
		t.Error("an empty batch:", err)
	}
	if err := s.Apply(ctx, store.NoEpoch, store.Put("a", "new", 0, number{1}), store.Put("a", "x", 1, number{2}), store.Put("b", "x", 0, number{3})); err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]int{"a": 2, "b": 3} {
		if n, _ := value(t, s, kind, "x"); n != want {
			t.Errorf("%s x is %d, want %d", kind, n, want)
		}
	}
}

func list(t *testing.T, s store.Store) {
	names := []string{"shop-dev/1", "shop-dev/10", "shop-dev/2", "shop-dev0", "shop", "Shop", "%", "shop_dev/1", "ü/1", "u"}
	for i, n := range names {
		put(t, s, "g", n, 0, i)
	}
	put(t, s, "other", "shop-dev/3", 0, 0)
	if err := s.Apply(t.Context(), store.NoEpoch, store.Delete("g", "shop-dev/2", store.Any)); err != nil {
		t.Fatal(err)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == "shop-dev/2" })
	slices.Sort(names)
	for _, prefix := range []string{"", "shop-dev/", "shop", "%", "ü", "nothing", "shop-dev/10"} {
		rs, err := s.List(t.Context(), "g", prefix)
		if err != nil {
			t.Fatal(err)
		}
		var got, want []string
		for _, r := range rs {
			got = append(got, r.Name)
			if r.Kind != "g" || r.Version != 1 || !json.Valid(r.Body) {
				t.Errorf("record %+v", r)
			}
		}
		for _, n := range names {
			if strings.HasPrefix(n, prefix) {
				want = append(want, n)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("prefix %q gives %q, want %q", prefix, got, want)
		}
	}
	vs, err := store.List[number](t.Context(), s, "g", "shop-dev/10")
	if err != nil || len(vs) != 1 || vs[0].N != 1 {
		t.Errorf("values %v, %v", vs, err)
	}
}

func refuses(t *testing.T, s store.Store) {
	for name, w := range map[string]store.Write{
		"no kind":       {Name: "x", Body: []byte("{}")},
		"no name":       {Kind: "a", Body: []byte("{}")},
		"long name":     {Kind: "a", Name: strings.Repeat("x", 5000), Body: []byte("{}")},
		"control":       {Kind: "a", Name: "x\ny", Body: []byte("{}")},
		"not UTF-8":     {Kind: "a", Name: "x\xff", Body: []byte("{}")},
		"not JSON":      {Kind: "a", Name: "x", Body: []byte("{")},
		"empty body":    {Kind: "a", Name: "x", Body: []byte{}},
		"wrong version": {Kind: "a", Name: "x", Version: -2, Body: []byte("{}")},
	} {
		if err := s.Apply(t.Context(), store.NoEpoch, store.Put("a", "beside", store.Any, number{1}), w); err == nil {
			t.Errorf("%s: was written", name)
		}
	}
	rs, err := s.List(t.Context(), "a", "")
	if err != nil || len(rs) != 0 {
		t.Errorf("%d records were written beside refused ones (%v)", len(rs), err)
	}
	injection := `'; DROP TABLE record; --`
	put(t, s, "a", injection, 0, 1)
	if n, _ := value(t, s, "a", injection); n != 1 {
		t.Error("the name was not taken as it is")
	}
}

// keyName spreads the concurrent tests over few names, so that they meet.
func keyName(i int) string { return fmt.Sprintf("k%d", i) }
