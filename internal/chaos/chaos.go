// Package chaos decides what goes wrong on purpose: acts out of a seed, held on
// a leash. It is pure and does no I/O: the command line carries acts out, and
// the server asks Allow once more before it lets one happen.
package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Kind is what an act does.
type Kind string

const (
	KillInstance Kind = "kill-instance"
	LoseZone     Kind = "lose-zone"   // and give it back
	CutBox       Kind = "cut-box"     // the box does not answer for a while
	FreezeAPI    Kind = "freeze-api"  // the cloud's API does not answer for a while
	KillServer   Kind = "kill-server" // kill -9, and start it as it was
	KillRegion   Kind = "kill-region"
	KillReplica  Kind = "kill-replica" // another server on the same database, for a while
)

// Kinds are all of them.
var Kinds = []Kind{KillInstance, LoseZone, CutBox, FreezeAPI, KillServer, KillRegion, KillReplica}

// Act is one thing that goes wrong on purpose.
type Act struct {
	Kind        Kind          `json:"kind" enum:"kill-instance,lose-zone,cut-box,freeze-api,kill-server,kill-region,kill-replica"`
	Environment string        `json:"environment,omitempty" doc:"of the instance" maxLength:"120"`
	Instance    string        `json:"instance,omitempty" maxLength:"64"`
	Zone        string        `json:"zone,omitempty" maxLength:"64"`
	Replica     string        `json:"replica,omitempty" doc:"state folder of the server" maxLength:"500"`
	For         time.Duration `json:"for,omitempty" doc:"of what lasts, in nanoseconds" minimum:"0" maximum:"600000000000"`
}

// String is the act in words.
func (a Act) String() string {
	s := strings.ReplaceAll(string(a.Kind), "-", " ")
	for _, x := range []string{a.Instance, a.Zone, a.Replica} {
		if x != "" {
			s += " " + x
		}
	}
	if a.Environment != "" {
		s += " of " + a.Environment
	}
	if a.For > 0 {
		s += " for " + a.For.String()
	}
	return s
}

// Leash is what acts are held by.
type Leash struct {
	Environments []string // by name; empty = all that are not production-like
	Kinds        []Kind   // only these
	From, To     int      // hours of the day; equal = always; 22 to 6 is the night
	Most         int      // acts in all
	For          time.Duration
}

// Target is an environment as the leash sees it.
type Target struct {
	Name       string
	Production bool
	Floor      int      // so many must serve
	Serving    []string // instances that do
}

// World is what can go wrong now.
type World struct {
	Now      time.Time
	Done     int // acts so far
	Targets  []Target
	Zones    []string // that are there; a lost one is not
	Lost     int      // zones
	Box      bool     // it can be cut off
	Region   bool     // a local region is there
	Replicas []string
}

// maxFor bounds what lasts: whoever ends it may die before.
const maxFor = 10 * time.Minute

// ProductionLike tells whether an environment is to be left alone unless it is
// named: by its purpose's name, or because its lease never ends.
func ProductionLike(name, purpose string, standing bool) bool {
	for _, s := range []string{name, purpose} {
		if strings.Contains(s, "prod") || strings.Contains(s, "live") {
			return true
		}
	}
	return standing
}

// Next decides the next act: by the seed and by how many there were, so that
// the same seed in the same world does the same. An empty kind means that
// nothing may happen now; why says which part of the leash holds it.
func Next(seed uint64, l Leash, w World) (a Act, why string) {
	if w.Done >= l.Most {
		return Act{}, fmt.Sprintf("all %d acts are done", l.Most)
	}
	if !l.open(w.Now) {
		return Act{}, fmt.Sprintf("it is not between %d and %d o'clock", l.From, l.To)
	}
	r := rand.New(rand.NewPCG(seed, uint64(w.Done)))
	var all []Act
	for _, k := range l.Kinds {
		all = append(all, one(k, r, l, w)...)
	}
	if len(all) == 0 {
		return Act{}, "nothing may be done: no environment on the leash has an instance more than it must have, or what is asked for is not here"
	}
	return all[r.IntN(len(all))], ""
}

// one gives an act of a kind, or none.
func one(k Kind, r *rand.Rand, l Leash, w World) []Act {
	pick := func(s []string) string { return s[r.IntN(len(s))] }
	a := Act{Kind: k}
	switch k {
	case KillInstance:
		var some []Act
		for _, t := range w.Targets {
			if l.held(t) && len(t.Serving) > t.Floor {
				some = append(some, Act{Kind: k, Environment: t.Name, Instance: pick(t.Serving)})
			}
		}
		if len(some) == 0 {
			return nil
		}
		return []Act{some[r.IntN(len(some))]}
	case LoseZone:
		// A zone is everybody's: all environments that are there must be on the leash.
		if !w.Region || w.Lost > 0 || len(w.Zones) < 2 || !l.all(w.Targets) {
			return nil
		}
		a.Zone, a.For = pick(w.Zones), l.For
	case CutBox:
		if !w.Box || !l.all(w.Targets) {
			return nil
		}
		a.For = l.For
	case FreezeAPI:
		if !w.Region || !l.all(w.Targets) {
			return nil
		}
		a.For = l.For
	case KillRegion:
		if !w.Region || !l.all(w.Targets) {
			return nil
		}
	case KillServer:
		if !l.all(w.Targets) {
			return nil
		}
	case KillReplica:
		if len(w.Replicas) == 0 || !l.all(w.Targets) {
			return nil
		}
		a.Replica, a.For = pick(w.Replicas), l.For
	}
	return []Act{a}
}

func (l Leash) open(now time.Time) bool {
	h := now.Hour()
	switch {
	case l.From == l.To:
		return true
	case l.From < l.To:
		return h >= l.From && h < l.To
	}
	return h >= l.From || h < l.To
}

// held tells whether an environment is on the leash.
func (l Leash) held(t Target) bool {
	if len(l.Environments) == 0 {
		return !t.Production
	}
	return slices.Contains(l.Environments, t.Name)
}

func (l Leash) all(ts []Target) bool {
	for _, t := range ts {
		if !l.held(t) {
			return false
		}
	}
	return true
}

// Allow tells whether an act may be done to the environments that are there:
// the ones that it touches must not be production-like unless they are named.
func Allow(a Act, named []string, ts []Target) error {
	bad := func(kind fault.Kind, message, hint string) error {
		return &fault.Error{Kind: kind, Op: "chaos", Object: a.String(), Message: message, Hint: hint}
	}
	switch {
	case !slices.Contains(Kinds, a.Kind):
		return bad(fault.Invalid, "there is no such act", "")
	case a.For < 0 || a.For > maxFor:
		return bad(fault.Invalid, "it may last "+maxFor.String()+" at most", "")
	case a.Kind == KillInstance && (a.Environment == "" || a.Instance == ""):
		return bad(fault.Invalid, "it needs an environment and an instance", "")
	}
	found := false
	for _, t := range ts {
		touched := a.Kind != KillInstance || t.Name == a.Environment
		found = found || t.Name == a.Environment
		if touched && t.Production && !slices.Contains(named, t.Name) {
			return bad(fault.Denied, t.Name+" is production-like and was not named", "name it, if you mean it: --environments "+t.Name)
		}
	}
	if a.Kind == KillInstance && !found {
		return bad(fault.NotFound, "there is no such environment", "dayfly env list")
	}
	return nil
}
