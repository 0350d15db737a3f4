package environment

import (
	"testing"
	"time"
)

func TestUsual(t *testing.T) {
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	gen := func(after, took time.Duration) Generation {
		g := Generation{Created: day.Add(after)}
		if took > 0 {
			g.Ready = g.Created.Add(took)
		}
		return g
	}
	old := []Generation{} // slow ones of long ago, which ten newer ones outvote
	for i := range 10 {
		old = append(old, gen(time.Duration(i)*time.Minute, time.Hour))
	}
	for i := range 10 {
		old = append(old, gen(time.Duration(i+1)*time.Hour, time.Duration(i+1)*time.Second))
	}
	for _, c := range []struct {
		name  string
		gs    []Generation
		takes time.Duration
		of    int
	}{
		{"none", nil, 0, 0},
		{"none was ready", []Generation{gen(0, 0)}, 0, 0},
		{"one", []Generation{gen(0, 9*time.Second), gen(time.Hour, 0)}, 9 * time.Second, 1},
		{"in any order", []Generation{gen(2, 30*time.Second), gen(0, 10*time.Second), gen(1, 20*time.Second)}, 20 * time.Second, 3},
		{"the last ones", old, 6 * time.Second, 10},
	} {
		if takes, of := Usual(c.gs); takes != c.takes || of != c.of {
			t.Errorf("%s: %s of %d, want %s of %d", c.name, takes, of, c.takes, c.of)
		}
	}
}
