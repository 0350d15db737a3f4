package haproxy

import (
	"testing"
	"time"
)

// A new daemon does not know how long the requests before it took, and does not
// guess: it begins with those that come.
func TestTookOfAnAdoptedProcess(t *testing.T) {
	w := newWorld(t)
	l := w.address()
	s := w.serve("s", true, 100*time.Millisecond)
	must(t, w.Apply(t.Context(), w.config(l, s)))
	w.healthy(1, 5*time.Second)
	ask := func(n int) {
		t.Helper()
		for range n {
			if status, _, _, err := w.get(w.client(false), l, "x", "/"); status != 200 {
				t.Fatalf("%d, %v", status, err)
			}
		}
	}
	took := func() time.Duration {
		t.Helper()
		list, err := w.Stats(t.Context(), vpcID)
		must(t, err)
		if len(list) != 1 {
			t.Fatalf("%+v", list)
		}
		return list[0].Took
	}
	ask(5)
	if d := took(); d < 500*time.Millisecond {
		t.Errorf("five requests took %s", d)
	}
	w.Close()
	w.Balancer = w.open()
	if d := took(); d != 0 {
		t.Errorf("nothing was asked since, and it took %s", d)
	}
	ask(3)
	if d := took(); d < 300*time.Millisecond || d > 3*time.Second {
		t.Errorf("three requests took %s", d)
	}
}
