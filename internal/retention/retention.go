// Package retention says which records of what is over are forgotten: an
// installation that works for years keeps what lives, what one may go back to,
// what reports count, and a while of what was. It is pure, knows records only by
// the few things that matter for that, and must not know where they are kept.
package retention

import (
	"cmp"
	"slices"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Policy is what is kept of what is over.
type Policy struct {
	Keep    time.Duration // everything, so long after its end
	Reports time.Duration // what reports count, if that is longer
	Last    int           // of each family so many stay, however old
}

// Least is the shortest time that may be kept: a week, so that a weekend does not
// take away what somebody still looks for, nor a long look at an instance its
// generation.
const Least = 7 * 24 * time.Hour

// Usual is what is kept where nobody says otherwise.
var Usual = Policy{Keep: 90 * 24 * time.Hour, Last: 3}

// Keeping is the policy that keeps so long; 0 is as usual.
func Keeping(keep time.Duration) (Policy, error) {
	p := Usual
	if keep != 0 {
		p.Keep = keep
	}
	if p.Keep < Least {
		return p, &fault.Error{Kind: fault.Invalid, Object: "--keep " + keep.String(), Message: "what is over is kept for a week at least: people look for it, and instances may be kept so long", Hint: "--keep 90d is the default"}
	}
	return p, nil
}

// Record is what is known of one.
type Record struct {
	Key   string    // kind/name
	Ended time.Time // zero: it is not over
	// Held says why it may still have an effect, such as a call to the cloud whose
	// end is not known; such a record stays.
	Held string
	// Counted is that reports count it.
	Counted bool
	// Of is a record that does not go before this one.
	Of string
	// Names are records that it may need: as long as it lives or is kept for its
	// own sake. What is kept because reports count it needs nothing.
	Names []string
	// Family is that of which the last stay as its head does, a record: numbers go
	// on from the highest. A family without a head has no end.
	Family, Head string
	Number       int64 // in the family; higher is later
}

// Fate is what becomes of a record.
type Fate int

// From what goes to what stays for its own sake.
const (
	Forgotten Fate = iota
	Figures        // only because reports count it, or another record is of it
	Whole          // with everything that belongs to it
)

// Judge says for each record what becomes of it. What it says of records does
// not depend on their order.
func Judge(rs []Record, p Policy, now time.Time) map[string]Fate {
	j := judge{fate: make(map[string]Fate, len(rs)), by: make(map[string]*Record, len(rs)), families: map[string][]*Record{}}
	for i := range rs {
		r := &rs[i]
		j.by[r.Key] = r
		if r.Family != "" {
			j.families[r.Family] = append(j.families[r.Family], r)
		}
	}
	heads := map[string][]string{} // families by their head
	for f, list := range j.families {
		slices.SortFunc(list, func(a, b *Record) int { return cmp.Or(cmp.Compare(b.Number, a.Number), cmp.Compare(a.Key, b.Key)) })
		j.families[f] = list[:min(len(list), p.Last)]
		heads[list[0].Head] = append(heads[list[0].Head], f)
	}
	j.last = func(head string, as Fate) {
		for _, f := range heads[head] {
			for _, r := range j.families[f] {
				j.stay(r.Key, as)
			}
		}
	}
	j.last("", Whole)
	for i := range rs {
		switch r, age := &rs[i], now.Sub(rs[i].Ended); {
		case r.Ended.IsZero() || r.Held != "" || age < p.Keep:
			j.stay(r.Key, Whole)
		case r.Counted && age < p.Reports:
			j.stay(r.Key, Figures)
		}
	}
	for len(j.todo) > 0 {
		key := j.todo[len(j.todo)-1]
		j.todo = j.todo[:len(j.todo)-1]
		r := j.by[key]
		j.stay(r.Of, Figures)
		j.last(key, j.fate[key])
		if j.fate[key] == Whole {
			for _, n := range r.Names {
				j.stay(n, Whole)
			}
		}
	}
	return j.fate
}

// judge begins with nothing that stays, and adds what must until nothing is to
// be added: what only keeps each other goes.
type judge struct {
	fate     map[string]Fate
	by       map[string]*Record
	families map[string][]*Record
	last     func(head string, as Fate)
	todo     []string
}

func (j *judge) stay(key string, f Fate) {
	if j.by[key] == nil || j.fate[key] >= f {
		return
	}
	j.fate[key] = f
	j.todo = append(j.todo, key)
}
