package instance

import (
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
)

// FleetKind is the kind of the fleets' records; they are named
// <environment>/<generation>/<group>.
const FleetKind = "fleet"

// Fleet is what the loop that heals knows of a group as a whole.
type Fleet struct {
	Name        string           `json:"name"`
	Environment string           `json:"environment"`
	Generation  int              `json:"generation"`
	Group       string           `json:"group"`
	Size        int              `json:"size"`
	Serving     int              `json:"serving"`
	Replacing   int              `json:"replacing"`
	Moves       int              `json:"moves,omitempty"` // how often its capacity was set: the same wish may come again
	Takes       time.Duration    `json:"takes,omitempty"` // a launch, until it serves, as seen here
	Blocker     *blocker.Blocker `json:"blocker,omitempty"`
	Op          string           `json:"op,omitempty"` // the operation that it is part of, as in logs and events
}

// Surge is how many instances more than its size a group must be able to hold,
// so that replacements can come before those that they replace go.
func Surge(size int) int { return limit(size) }

// Successors gives new instances their parents: those of the group that went, or
// are going, and have no successor yet, the first ones first. It changes fresh.
func Successors(known []Instance, fresh []*Instance) {
	taken := map[string]bool{}
	for _, i := range known {
		if i.Parent != "" {
			taken[i.Parent] = true
		}
	}
	next := 0
	for _, f := range fresh {
		for ; next < len(known); next++ {
			p := known[next]
			if taken[p.ID] || p.Group != f.Group || (p.State != Gone && p.Leave == nil) || p.Launched.After(f.Launched) {
				continue
			}
			f.Parent, f.Failures = p.ID, inherited(p)
			next++
			break
		}
	}
}

// short is a service that ended so soon after it began that what replaces it
// may have inherited the cause.
const short = 15 * time.Minute

func inherited(p Instance) int {
	cause, at := p.Cause, p.Ended
	if p.Leave != nil {
		cause, at = p.Leave.Cause, p.Leave.Since
	}
	switch {
	case cause != Unhealthy && cause != NeverReady:
		return 0
	case cause == Unhealthy && at.Sub(p.InService) > short:
		return 1
	}
	return p.Failures + 1
}

// Together finds an image to blame: so many of those that were launched from it
// lately ended before they ever said a word, in more than one zone. Failed
// hand-offs are not counted: those are a release's.
func Together(lately []Instance) (image string, failed, launched int) {
	type count struct{ failed, launched int }
	by := map[string]*count{}
	zones := map[string]map[string]bool{}
	good := map[string]map[string]bool{}
	for _, i := range lately {
		c := by[i.Image]
		if c == nil {
			c = &count{}
			by[i.Image], zones[i.Image], good[i.Image] = c, map[string]bool{}, map[string]bool{}
		}
		c.launched++
		switch {
		case i.Cause == NeverReady && i.Silent:
			c.failed++
			zones[i.Image][i.Zone] = true
		case !i.InService.IsZero():
			good[i.Image][i.Zone] = true
		}
	}
	for name, c := range by {
		oneZone := len(zones[name]) == 1 && len(good[name]) > 0
		if !oneZone && c.failed >= 3 && c.failed*5 >= c.launched && c.failed > failed {
			image, failed, launched = name, c.failed, c.launched
		}
	}
	return image, failed, launched
}
