package limiter

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
)

// tells is how long a request waits for its turn before that is told.
const tells = 3 * time.Second

// Blockers are the operations whose turns are waited for, by name: requests that
// wait for seconds, and those that were turned away until a turn that has not
// come yet.
func (l *Limiter) Blockers() []blocker.Blocker {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	var out []blocker.Blocker
	for _, op := range slices.Sorted(maps.Keys(l.lanes)) {
		la := l.lanes[op]
		b := blocker.Blocker{Rule: "cloud-rate", On: "operation/" + op, Action: "it goes on by itself; others who use the account share its limits"}
		if n := la.length(); n > 0 {
			b.Since, b.Until = la.oldest(), now.Add(la.wait(la.first()))
			b.Message = fmt.Sprintf("AWS allows this account no more requests of this kind for now, and %d wait for their turn", n)
		}
		if away := la.away; now.Before(away.until) && (b.Since.IsZero() || away.since.Before(b.Since)) {
			b.Since, b.Until = away.since, away.until
			b.Message = "AWS allows this account no more requests of this kind for now, and what asked was turned away to come again"
		}
		if !b.Since.IsZero() && now.Sub(b.Since) >= tells {
			out = append(out, b)
		}
	}
	return out
}

// away is when requests were turned away.
type away struct{ since, until time.Time }

// turn notes that a request that came at a moment was turned away.
func (a *away) turn(since, now, until time.Time) {
	if a.until.Before(now) { // the turns before have come
		a.since = since
	}
	if until.After(a.until) {
		a.until = until
	}
}

// oldest is since when the first of those that wait does.
func (la *lane) oldest() (since time.Time) {
	for _, q := range la.waiting {
		if len(q) > 0 && (since.IsZero() || q[0].since.Before(since)) {
			since = q[0].since
		}
	}
	return since
}
