package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
)

// TallyKind is the kind of tallies; they are named <day>/<environment>/<generation>,
// so that one loop alone writes each, and <day>/<environment> when they are old.
const TallyKind = "tally"

// KeepDays is for how many days tallies are kept, and how long a period may be.
const KeepDays = 400

// dayForm is a day in UTC; its order is that of time.
const dayForm = "2006-01-02"

const day = 24 * time.Hour

// Tally is what the instances of a generation that are gone were on one day. The
// records of instances are forgotten a day after their end; this stays.
type Tally struct {
	Day         string `json:"day"`
	Environment string `json:"environment"`          // or a run, for all of its environments
	Generation  int    `json:"generation,omitempty"` // 0: all
	Launched    int    `json:"launched"`             // on that day
	InService   int    `json:"in_service"`           // of those that were launched on that day
	Failed      int    `json:"failed"`               // of those as well: launched, and never in service
	// Seconds that they lived on that day, by instance type.
	Seconds map[string]float64 `json:"seconds"`
}

// Name is the record's name.
func (t Tally) Name() string {
	if t.Generation == 0 {
		return t.Day + "/" + t.Environment
	}
	return fmt.Sprintf("%s/%s/%d", t.Day, t.Environment, t.Generation)
}

// Add puts another of the same day to it.
func (t *Tally) Add(o Tally) {
	t.Launched, t.InService, t.Failed = t.Launched+o.Launched, t.InService+o.InService, t.Failed+o.Failed
	if t.Seconds == nil {
		t.Seconds = map[string]float64{}
	}
	for k, v := range o.Seconds {
		t.Seconds[k] += v
	}
}

// Lives counts what instances were, by day and generation: up to now where they
// live. The order is that of the tallies' names.
func Lives(list []instance.Instance, now time.Time) []Tally {
	all := map[string]*Tally{}
	at := func(i instance.Instance, t time.Time) *Tally {
		v := Tally{Day: t.UTC().Format(dayForm), Environment: i.Environment, Generation: i.Generation, Seconds: map[string]float64{}}
		if all[v.Name()] == nil {
			all[v.Name()] = &v
		}
		return all[v.Name()]
	}
	for _, i := range list {
		end := now
		if i.State == instance.Gone {
			end = i.Ended
		}
		born := at(i, i.Launched)
		born.Launched++
		switch {
		case !i.InService.IsZero():
			born.InService++
		case i.State == instance.Gone && i.Cause == instance.NeverReady:
			born.Failed++
		}
		from := i.Launched
		if oldest := end.Add(-KeepDays * day); from.Before(oldest) {
			from = oldest
		}
		for from.Before(end) {
			to := midnight(from).Add(day)
			if to.After(end) {
				to = end
			}
			at(i, from).Seconds[cmp.Or(i.Type, unknown)] += to.Sub(from).Round(time.Millisecond).Seconds()
			from = to
		}
	}
	return sorted(all)
}

// unknown stands for an instance type that the cloud did not tell.
const unknown = "unknown"

func midnight(t time.Time) time.Time { return t.UTC().Truncate(day) }

func sorted(all map[string]*Tally) []Tally {
	var out []Tally
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, *all[name])
	}
	return out
}

// Tidy says which tallies are removed and which take their place: those that are
// too old go, and those of a day that is over are one for an environment, and
// one for a run. It is for the records that are there; what stays is in neither.
func Tidy(list []Tally, now time.Time) (remove []string, put []Tally) {
	oldest, over := now.Add(-KeepDays*day).UTC().Format(dayForm), now.Add(-2*day).UTC().Format(dayForm)
	merged, parts := map[string]*Tally{}, map[string][]string{}
	for _, t := range list {
		if t.Day < oldest {
			remove = append(remove, t.Name())
			continue
		}
		if t.Day >= over {
			continue
		}
		m := Tally{Day: t.Day, Environment: cmp.Or(pipeline.RunOf(t.Environment), t.Environment)}
		if merged[m.Name()] == nil {
			merged[m.Name()] = &m
		}
		merged[m.Name()].Add(t)
		parts[m.Name()] = append(parts[m.Name()], t.Name())
	}
	for name, from := range parts {
		if len(from) == 1 && from[0] == name {
			continue
		}
		put = append(put, *merged[name])
		for _, p := range from {
			if p != name {
				remove = append(remove, p)
			}
		}
	}
	slices.Sort(remove)
	slices.SortFunc(put, func(a, b Tally) int { return cmp.Compare(a.Name(), b.Name()) })
	return remove, put
}
