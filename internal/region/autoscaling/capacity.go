package autoscaling

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// capacity compares what runs with what is desired, and launches, terminates,
// replaces what is too old, or balances the zones.
func (p *planner) capacity() {
	current, moving := p.g.launching(), p.g.launching() > 0
	for i := range p.ins {
		in := &p.ins[i]
		if counts(in.State) {
			current++
		}
		moving = moving || !settled(in.State)
	}
	surplus := p.g.Surplus
	if surplus > 0 && !moving { // the new ones serve: now the old ones may go
		surplus = 0
		p.do(action{Verb: wantCalm})
	}
	desired := int(p.g.Desired)
	switch {
	case current < desired:
		if !p.g.suspended("Launch") && !p.now.Before(p.g.NotUntil) {
			p.launch(desired-current, current, desired)
		}
	case current-surplus > desired:
		if !p.g.suspended("Terminate") {
			p.shrink(current-surplus-desired, current-surplus)
		}
	case !moving && current == desired:
		if !p.expire() {
			p.rebalance()
		}
	}
}

func (p *planner) launch(n, from, to int) {
	replace := min(n, p.g.Replace)
	for _, pl := range p.spread(n) {
		a := action{Verb: wantMore, Place: pl.place, Count: pl.n}
		if replace > 0 {
			// One intent carries one cause; what is left over is told apart by the next.
			k := min(replace, pl.n)
			replace -= k
			p.do(action{Verb: wantMore, Place: pl.place, Count: k, Replace: true,
				Cause: fmt.Sprintf("At %s an instance was launched in response to an unhealthy instance needing to be replaced.", stamp(p.now))})
			if a.Count -= k; a.Count == 0 {
				continue
			}
		}
		a.Cause = fmt.Sprintf("At %s an instance was started in response to a difference between desired and actual capacity, increasing the capacity from %d to %d.", stamp(p.now), from, to)
		if p.g.Note != "" {
			a.Cause = p.g.Note + "  " + a.Cause
		}
		p.do(a)
	}
}

// share is how many instances go to a place.
type share struct {
	place place
	n     int
}

// spread distributes n launches so that the zones become as even as they can.
// A zone without capacity is passed over by balanced-best-effort and keeps its
// share, for later, under balanced-only.
func (p *planner) spread(n int) []share {
	zones := p.g.zoneNames()
	if len(zones) == 0 {
		return nil
	}
	have := map[string]int{}
	perSubnet := map[place]int{}
	for i := range p.ins {
		if in := &p.ins[i]; counts(in.State) {
			have[in.Zone]++
			perSubnet[place{in.Zone, in.Subnet}]++
		}
	}
	for _, l := range p.g.Launches {
		have[l.Place.Zone] += l.Count
		perSubnet[l.Place] += l.Count
	}
	blocked := func(z string) bool { return p.now.Before(p.g.Blocked[z]) }
	strict := p.g.Distribution == balancedOnly
	if !strict {
		zones = slices.DeleteFunc(zones, blocked)
	}
	got := map[string]int{}
	for range n {
		if len(zones) == 0 {
			break
		}
		z := slices.MinFunc(zones, func(a, b string) int { return cmp.Compare(have[a], have[b]) })
		have[z]++
		got[z]++
	}
	var out []share
	for _, z := range zones {
		if got[z] == 0 || strict && blocked(z) {
			continue
		}
		var places []place
		for _, pl := range p.g.Zones {
			if pl.Zone == z {
				places = append(places, pl)
			}
		}
		// Several subnets in one zone: the emptiest takes all of this round.
		best := slices.MinFunc(places, func(a, b place) int { return cmp.Compare(perSubnet[a], perSubnet[b]) })
		out = append(out, share{best, got[z]})
	}
	return out
}

// shrink takes n instances out of service: from the fullest zone, by the
// group's policies, never one that is protected.
func (p *planner) shrink(n, from int) {
	have := map[string]int{}
	byZone := map[string][]*instance{}
	for i := range p.ins {
		in := &p.ins[i]
		if !counts(in.State) {
			continue
		}
		have[in.Zone]++
		if !in.Protected {
			byZone[in.Zone] = append(byZone[in.Zone], in)
		}
	}
	for _, list := range byZone {
		slices.SortFunc(list, p.oldFirst)
	}
	zones := p.g.zoneNames()
	for z := range byZone { // zones that the group has left go first
		if !slices.Contains(zones, z) {
			have[z] += 1 << 20
		}
	}
	for range n {
		var pick string
		for z, list := range byZone {
			if len(list) > 0 && (pick == "" || have[z] > have[pick] || have[z] == have[pick] && z < pick) {
				pick = z
			}
		}
		if pick == "" {
			return // all protected
		}
		in := byZone[pick][0]
		byZone[pick] = byZone[pick][1:]
		have[pick]--
		in.State = terminating
		cause := fmt.Sprintf("At %s an instance was taken out of service in response to a difference between desired and actual capacity, shrinking the capacity from %d to %d.  At %s instance %s was selected for termination.",
			stamp(p.now), from, p.g.Desired, stamp(p.now), in.ID)
		if p.g.Note != "" {
			cause = p.g.Note + "  " + cause
		}
		p.do(action{Verb: wantEnd, ID: in.ID, Cause: cause})
	}
}

// oldFirst orders instances of one zone by the group's termination policies.
// What does not serve yet goes before what serves.
func (p *planner) oldFirst(a, b *instance) int {
	if c := cmp.Compare(serving(a), serving(b)); c != 0 {
		return c
	}
	for _, policy := range p.g.Policies {
		var c int
		switch policy {
		case "OldestInstance":
			c = a.Launched.Compare(b.Launched)
		case "NewestInstance":
			c = b.Launched.Compare(a.Launched)
		case "OldestLaunchTemplate", "OldestLaunchConfiguration", "Default":
			c = cmp.Or(cmp.Compare(p.current(a), p.current(b)), cmp.Compare(versionOf(a.Template), versionOf(b.Template)))
		case "ClosestToNextInstanceHour":
			c = cmp.Compare(p.toNextHour(a), p.toNextHour(b))
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Or(a.Launched.Compare(b.Launched), strings.Compare(a.ID, b.ID))
}

func serving(in *instance) int {
	if in.State == inService && in.Health == healthy {
		return 1
	}
	return 0
}

// current is 1 for instances of the group's own template, which go last.
func (p *planner) current(in *instance) int {
	if in.Template.ID == p.g.Template.ID {
		return 1
	}
	return 0
}

func versionOf(t template) int {
	n, _ := strconv.Atoi(t.Version) // instances always have numbers
	return n
}

func (p *planner) toNextHour(in *instance) int64 {
	return 3600 - int64(p.now.Sub(in.Launched).Seconds())%3600
}

// tenth is how many instances the group may move at once on its own account.
func (p *planner) tenth() int { return max(1, int(math.Ceil(float64(p.g.Max)/10))) }

// expire replaces instances that have outlived the group's maximum lifetime,
// as AWS does: terminate first, a tenth of the group at a time.
func (p *planner) expire() bool {
	if p.g.MaxLifetime == 0 || p.g.suspended("Terminate") || p.g.suspended("Launch") {
		return false
	}
	var old []*instance
	for i := range p.ins {
		if in := &p.ins[i]; in.State == inService && !p.now.Before(in.Launched.Add(p.g.MaxLifetime)) {
			old = append(old, in)
		}
	}
	slices.SortFunc(old, func(a, b *instance) int { return a.Launched.Compare(b.Launched) })
	for _, in := range old[:min(len(old), p.tenth())] {
		in.State = terminating
		p.do(action{Verb: wantEnd, ID: in.ID,
			Cause: fmt.Sprintf("At %s an instance was taken out of service in response to its age exceeding the group's maximum instance lifetime.", stamp(p.now))})
	}
	return len(old) > 0
}

// rebalance launches into zones that have too few; what is then too much goes
// when the new instances serve.
func (p *planner) rebalance() {
	zones := p.g.zoneNames()
	if p.g.suspended("AZRebalance") || p.g.suspended("Launch") || p.g.suspended("Terminate") || p.now.Before(p.g.NotUntil) || len(zones) == 0 {
		return
	}
	have := map[string]int{}
	free := map[string]int{} // may go for it
	for i := range p.ins {
		if in := &p.ins[i]; counts(in.State) {
			have[in.Zone]++
			if !in.Protected {
				free[in.Zone]++
			}
		}
	}
	floor := int(p.g.Desired) / len(zones)
	missing, spare := 0, 0
	var poor []string
	for _, z := range zones {
		if have[z] < floor && !p.now.Before(p.g.Blocked[z]) {
			missing += floor - have[z]
			poor = append(poor, z)
		}
	}
	for z, n := range have {
		most := floor
		if !slices.Contains(zones, z) {
			most = 0
		}
		spare += min(free[z], max(0, n-most))
	}
	n := min(missing, spare, p.tenth())
	if n == 0 {
		// Every zone has its floor, but one may still have two more than another.
		z := slices.MinFunc(zones, func(a, b string) int { return cmp.Compare(have[a], have[b]) })
		if p.now.Before(p.g.Blocked[z]) || !slices.ContainsFunc(zones, func(o string) bool { return have[o] > have[z]+1 && free[o] > 0 }) {
			return
		}
		n, poor = 1, []string{z}
	}
	for _, sh := range p.spread(n) {
		if !slices.Contains(poor, sh.place.Zone) {
			continue
		}
		p.do(action{Verb: wantMore, Place: sh.place, Count: sh.n, Surplus: true,
			Cause: fmt.Sprintf("At %s instances were launched to balance instances in zones %s with other zones resulting in more than desired number of instances in the group.", stamp(p.now), strings.Join(poor, " "))})
	}
}
