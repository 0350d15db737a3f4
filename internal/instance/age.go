package instance

import (
	"hash/fnv"
	"slices"
	"time"
)

// Ages are replaced within this part of the maximum age, so that a fleet that
// was born at once does not end at once.
const (
	earliest = 0.60
	latest   = 0.95
)

// Born gives the moment from which an instance is replaced because of its age,
// and the one at which it must be gone; zero times without a maximum age. The
// moment is spread over the last part of its life by its id.
func Born(id string, launched time.Time, maxAge time.Duration) (due, deadline time.Time) {
	if maxAge <= 0 {
		return time.Time{}, time.Time{}
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(id))
	x := h.Sum64()
	for range 2 { // FNV's high bits are poor for short ids
		x ^= x >> 33
		x *= 0xff51afd7ed558ccd
	}
	x ^= x >> 33
	at := earliest + (latest-earliest)*float64(x>>11)/(1<<53)
	return launched.Add(time.Duration(float64(maxAge) * at)), launched.Add(maxAge)
}

// aged returns those whose replacement must begin now, the most urgent first:
// their own moment has come, or they could not be replaced before their deadline
// otherwise, since no more than limit are replaced at once and each replacement
// takes that long.
func aged(ins []Instance, limit int, takes time.Duration, now time.Time) []Instance {
	left := slices.DeleteFunc(slices.Clone(ins), func(i Instance) bool { return i.Deadline.IsZero() })
	// Backwards from the last deadline: each place of limit is free again when
	// the one that has it next must begin.
	slices.SortStableFunc(left, func(a, b Instance) int { return b.Deadline.Compare(a.Deadline) })
	begin := make([]time.Time, len(left))
	var out []Instance
	for k, i := range left {
		until := i.Deadline
		if k >= limit && begin[k-limit].Before(until) {
			until = begin[k-limit]
		}
		begin[k] = until.Add(-takes)
		if !now.Before(begin[k]) || !now.Before(i.Due) {
			out = append(out, i)
		}
	}
	slices.Reverse(out)
	return out
}
