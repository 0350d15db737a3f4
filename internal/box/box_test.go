package box

import (
	"slices"
	"testing"
)

func TestCompareVersions(t *testing.T) {
	want := []string{"shop-1.0.0~rc1", "shop-1.0.0", "shop-1.0.1", "shop-1.2", "shop-1.10", "shop-002.0", "shop-10"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, CompareVersions)
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func FuzzCompareVersions(f *testing.F) {
	f.Add("a1", "a01")
	f.Fuzz(func(t *testing.T, a, b string) {
		if CompareVersions(a, b) != -CompareVersions(b, a) {
			t.Errorf("%q and %q are ordered both ways", a, b)
		}
	})
}
