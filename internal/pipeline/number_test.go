package pipeline

import "testing"

func TestNextNumber(t *testing.T) {
	run := func(blueprint, name string) Run { return Run{Name: name, Blueprint: blueprint} }
	for _, c := range []struct {
		there []Run
		want  int
	}{
		{nil, 1},
		{[]Run{run("shop", "shop-r7")}, 8}, // those before were forgotten
		{[]Run{run("shop", "shop-r10"), run("shop", "shop-r9")}, 11},
		{[]Run{run("shop-r2", "shop-r2-r40"), run("shop", "shop-r1")}, 2},
	} {
		if n := NextNumber("shop", c.there); n != c.want {
			t.Errorf("after %+v comes %d", c.there, n)
		}
	}
}
