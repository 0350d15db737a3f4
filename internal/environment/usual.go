package environment

import (
	"slices"
	"time"
)

// recent is how many generations say what is usual.
const recent = 10

// Usual is how long a generation of an environment usually takes from its record
// until it is ready: the median of the last ones, and of how many. One that
// never was ready says nothing.
func Usual(gs []Generation) (takes time.Duration, of int) {
	gs = slices.Clone(gs)
	slices.SortFunc(gs, func(a, b Generation) int { return b.Created.Compare(a.Created) })
	var took []time.Duration
	for _, g := range gs {
		if d := g.Ready.Sub(g.Created); !g.Ready.IsZero() && d >= 0 && len(took) < recent {
			took = append(took, d)
		}
	}
	if len(took) == 0 {
		return 0, 0
	}
	slices.Sort(took)
	return took[len(took)/2], len(took)
}
