package report

import (
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/instance"
)

// Uptime is how long at least one healthy instance of an environment was in
// service, of the time in which it was to serve: from its first time of service
// until it was to be destroyed. It is what the loops saw of instances, and not
// what users saw of the service.
type Uptime struct {
	Up      float64 `json:"up_seconds"`
	Watched float64 `json:"watched_seconds" doc:"how long it was to serve, as far as events tell"`
	Share   float64 `json:"share" doc:"0 to 1"`
}

// change is that something begins (+1) or ends (-1).
type change struct {
	at   time.Time
	duty int
	up   int
}

type uptimes struct {
	from, to  time.Time // that events tell of
	envs      map[string]environment.Environment
	instances map[string]instance.Instance // by record name
	changes   map[string][]change          // by environment
}

// uptime derives it from events in the order of time; from is not before the
// oldest event.
func uptime(in Input, from, to time.Time) map[string]*Uptime {
	u := uptimes{from: from, to: to, envs: map[string]environment.Environment{}, instances: map[string]instance.Instance{}, changes: map[string][]change{}}
	for _, e := range in.Environments {
		if e.Run == "" {
			u.envs[e.Name] = e
		}
	}
	for _, i := range in.Instances {
		u.instances[i.Name()] = i
	}
	byObject := map[string][]event.Event{}
	for _, e := range in.Events {
		if e.Kind != environment.Kind && e.Kind != instance.Kind {
			continue
		}
		byObject[e.Object()] = append(byObject[e.Object()], e)
		if e.Count > 1 && e.Last.After(e.At) {
			e.At = e.Last
			byObject[e.Object()] = append(byObject[e.Object()], e)
		}
	}
	for _, list := range byObject {
		slices.SortStableFunc(list, func(a, b event.Event) int { return a.At.Compare(b.At) })
	}
	for name, e := range u.envs {
		u.duty(e, byObject[environment.Kind+"/"+name])
	}
	seen := map[string]bool{}
	for object, list := range byObject {
		if name, ok := strings.CutPrefix(object, instance.Kind+"/"); ok {
			seen[name] = true
			u.life(name, list)
		}
	}
	for name := range u.instances {
		if !seen[name] {
			u.life(name, nil)
		}
	}
	out := map[string]*Uptime{}
	for name, cs := range u.changes {
		if v := u.sum(cs); v.Watched > 0 {
			v.Share = v.Up / v.Watched
			out[name] = v
		}
	}
	return out
}

// duty is when an environment was to serve.
func (u *uptimes) duty(e environment.Environment, events []event.Event) {
	on, known := false, false
	begin := func(at time.Time) {
		if !on {
			u.changes[e.Name] = append(u.changes[e.Name], change{at: at, duty: 1})
		}
		on, known = true, true
	}
	for _, v := range events {
		switch v.Reason {
		case "Serving":
			begin(v.At)
		case "Switched", "StoppedServing":
			if !known { // it served before the events that are kept
				begin(time.Time{})
			}
		case "DestroyRequested", "LeaseEnded", "Gone":
			if !known && v.Reason != "Gone" {
				begin(time.Time{})
			}
			if on {
				u.changes[e.Name] = append(u.changes[e.Name], change{at: v.At, duty: -1})
			}
			on, known = false, true
		}
	}
	if !known && e.Serving != 0 && !e.Destroy && e.Phase != environment.Gone {
		begin(time.Time{})
	}
}

// life is when an instance was healthy and in service.
func (u *uptimes) life(name string, events []event.Event) {
	env, _, _ := strings.Cut(name, "/")
	if _, ok := u.envs[env]; !ok {
		return
	}
	on, known := false, false
	set := func(at time.Time, up bool) {
		switch {
		case up && !on:
			u.changes[env] = append(u.changes[env], change{at: at, up: 1})
		case !up && on:
			u.changes[env] = append(u.changes[env], change{at: at, up: -1})
		}
		on, known = up, true
	}
	for _, v := range events {
		switch v.Reason {
		case "InstanceLaunched":
			set(v.At, false)
		case "InstanceInService", "InstanceHealthy":
			set(v.At, true)
		case "InstanceFailing", "InstanceKept", "InstanceDied", "InstanceGone", "InstanceFailedToStart":
			if !known && v.Reason != "InstanceFailedToStart" {
				set(time.Time{}, true)
			}
			set(v.At, false)
		}
	}
	if i := u.instances[name]; !known && (i.State == instance.Serving || i.State == instance.Leaving) && i.Failing.IsZero() && !i.InService.IsZero() {
		set(i.InService, true)
	}
}

func (u *uptimes) sum(cs []change) *Uptime {
	slices.SortStableFunc(cs, func(a, b change) int { return a.at.Compare(b.at) })
	out := &Uptime{}
	var duty, up int
	last := u.from
	until := func(t time.Time) {
		if t.After(u.to) {
			t = u.to
		}
		if !t.After(last) {
			return
		}
		if d := t.Sub(last).Seconds(); duty > 0 {
			out.Watched += d
			if up > 0 {
				out.Up += d
			}
		}
		last = t
	}
	for _, c := range cs {
		until(c.at)
		duty, up = duty+c.duty, up+c.up
	}
	until(u.to)
	return out
}
