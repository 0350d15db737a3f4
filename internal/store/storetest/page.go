package storetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/store"
)

// pages reads a kind page by page, in both directions, while it changes.
func pages(t *testing.T, s store.Store) {
	var want []string
	for i := range 23 {
		name := fmt.Sprintf("p/%02d", i)
		want = append(want, name)
		put(t, s, "g", name, 0, i)
	}
	put(t, s, "g", "o", 0, 0)
	put(t, s, "g", "q", 0, 0)
	put(t, s, "other", "p/03x", 0, 0)
	for _, reverse := range []bool{false, true} {
		var got []string
		r := store.Range{Prefix: "p/", Limit: 5, Reverse: reverse}
		for {
			rs, err := s.Page(t.Context(), "g", r)
			if err != nil {
				t.Fatal(err)
			}
			if len(rs) == 0 {
				break
			}
			for _, rec := range rs {
				got = append(got, rec.Name)
				if rec.Kind != "g" || len(rec.Body) == 0 || rec.Version == 0 || rec.Updated.IsZero() {
					t.Errorf("record %+v", rec)
				}
			}
			if len(rs) > 5 {
				t.Fatalf("%d records on a page of 5", len(rs))
			}
			r.After = rs[len(rs)-1].Name
			// What is deleted and what comes on pages that were read moves nothing.
			if err := s.Apply(t.Context(), store.NoEpoch, store.Delete("g", rs[0].Name, store.Any)); err != nil {
				t.Fatal(err)
			}
		}
		if reverse {
			slices.Reverse(got)
		}
		if !slices.Equal(got, want) {
			t.Errorf("reverse %v gives %q, want %q", reverse, got, want)
		}
		rs, err := s.List(t.Context(), "g", "p/")
		if err != nil {
			t.Fatal(err)
		}
		want = nil
		for _, rec := range rs {
			want = append(want, rec.Name)
		}
	}
}

// changes follows the store by revisions alone, as a client does that comes
// and goes, and must have the same picture in the end.
func changes(t *testing.T, s store.Store) {
	ctx := t.Context()
	if r, err := s.Revision(ctx); err != nil || r != 0 {
		t.Fatalf("the revision of an empty store is %d, %v", r, err)
	}
	picture := map[string]int64{}
	var since int64
	catchUp := func() {
		t.Helper()
		for {
			rs, err := s.Changes(ctx, since, 3)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rs {
				if r.Revision <= since {
					t.Fatalf("revision %d comes after %d", r.Revision, since)
				}
				since = r.Revision
				if r.Body == nil {
					delete(picture, r.Kind+" "+r.Name)
				} else {
					picture[r.Kind+" "+r.Name] = r.Version
				}
			}
			if len(rs) < 3 {
				return
			}
		}
	}
	compare := func() {
		t.Helper()
		want := map[string]int64{}
		for _, kind := range []string{"a", "b"} {
			rs, err := s.List(ctx, kind, "")
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rs {
				want[kind+" "+r.Name] = r.Version
			}
		}
		if fmt.Sprint(picture) != fmt.Sprint(want) {
			t.Fatalf("the picture is %v, want %v", picture, want)
		}
		if r, err := s.Revision(ctx); err != nil || r != since {
			t.Fatalf("the revision is %d (%v), the last change has %d", r, err, since)
		}
	}
	for i := range 10 {
		put(t, s, []string{"a", "b"}[i%2], keyName(i%7), store.Any, i)
	}
	catchUp()
	compare()
	for i := range 5 {
		put(t, s, "a", keyName(i), store.Any, i)
	}
	if err := s.Apply(ctx, store.NoEpoch, store.Delete("a", keyName(2), store.Any), store.Delete("b", keyName(1), store.Any)); err != nil {
		t.Fatal(err)
	}
	catchUp()
	compare()
}
