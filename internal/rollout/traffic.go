package rollout

import (
	"context"
	"fmt"
	"time"

	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// drain is how long a generation that was left in a hurry may end its requests.
const drain = 30 * time.Second

// pause is when to look again at an environment that waits.
func (l *Environments) pause(o environment.Observed, d environment.Decision) time.Duration {
	if d.Rule != "soak" && d.Rule != "traffic-step" {
		return 500 * time.Millisecond
	}
	return min(max(d.Until.Sub(o.Now), soon), 2*time.Second)
}

// move carries out what moves traffic between two generations.
func (l *Environments) move(ctx context.Context, e environment.Environment, o environment.Observed, listener string, d environment.Decision) (time.Duration, error) {
	g := generation(o, d.Number)
	// shift changes the record while it is about the same move.
	shift := func(f func(e *environment.Environment, s *environment.Shift)) error {
		return l.update(ctx, e.Name, func(v *environment.Environment) {
			if v.Shift != nil && e.Shift != nil && v.Shift.To == e.Shift.To && v.Want == e.Want {
				f(v, v.Shift)
			}
		})
	}
	now := l.Clock.Now()
	switch d.Action {
	case environment.Begin:
		l.Log.Info("traffic begins to move", "environment", e.Name, "from", e.Serving, "to", d.Number)
		return soon, l.update(ctx, e.Name, func(v *environment.Environment) {
			if v.Want == d.Number && v.Serving == e.Serving {
				v.Shift = &environment.Shift{From: e.Serving, To: d.Number}
			}
		})
	case environment.Step:
		return soon, shift(func(_ *environment.Environment, s *environment.Shift) {
			if s.Step == e.Shift.Step {
				*s = environment.Shift{From: s.From, To: s.To, Step: s.Step + 1, Was: s.Since}
			}
		})
	case environment.Resize:
		l.Log.Info("generation is resized", "environment", e.Name, "generation", d.Number, "size", d.Size, "why", d.Reason)
		b, _, err := l.Blueprints.Blueprint(ctx, g.Files)
		if err != nil {
			return 0, err
		}
		return soon, reconcile.Update(ctx, l.Store, environment.GenerationKind, environment.GenerationName(e.Name, d.Number), func(g *environment.Generation) error {
			if g.Phase == environment.Serving && g.Size != d.Size {
				g.Size, g.Deadline = d.Size, now.Add(b.Handoff.Deadline+slack)
			}
			return nil
		})
	case environment.Route:
		if listener != "" {
			if err := l.traffic(ctx, e, listener, d.Weights); err != nil {
				return 0, err
			}
			l.Log.Info("traffic is set", "environment", e.Name, "generation", d.Number, "why", d.Reason)
		}
		return soon, l.update(ctx, e.Name, func(v *environment.Environment) {
			v.Moves = e.Moves + 1
			if s := v.Shift; s != nil && s.To == d.Number && e.Shift != nil && s.Step == e.Shift.Step {
				s.Since = l.Clock.Now()
			}
		})
	case environment.Switch:
		return soon, shift(func(v *environment.Environment, s *environment.Shift) {
			v.Serving, v.Size, v.Image, v.Release, v.Files = g.Number, g.Whole(), g.Image, g.Release, g.Files
			v.Phase, v.Blocker, v.Error, v.Address = environment.Serving, nil, "", l.address(*v, o, g)
			s.Soak, v.Switched = now.Add(v.Strategy.Soak), now
			if !g.Asked.IsZero() && !g.Asked.Equal(v.Follow.From) {
				s.Said, v.Follow.From = v.Follow.From, g.Asked
			}
			if v.LastBack != nil && v.LastBack.To == g.Number && v.LastBack.Done.IsZero() {
				v.LastBack.Done = now
			}
		})
	case environment.Settle:
		return soon, shift(func(v *environment.Environment, s *environment.Shift) {
			if !s.Back {
				v.Proved(environment.Version{Generation: g.Number, Image: g.Image, Release: g.Release, Files: g.Files, Size: g.Whole(), At: now})
			}
			v.Shift, v.Blocker = nil, nil
		})
	case environment.Revert:
		l.Log.Warn("a deploy goes back", "environment", e.Name, "generation", d.Number, "why", d.Reason)
		return soon, shift(func(v *environment.Environment, _ *environment.Shift) {
			if v.Back == nil {
				v.Back = &environment.Back{By: environment.Dayfly, Why: d.Reason, At: now}
			}
		})
	case environment.Stay:
		return soon, l.update(ctx, e.Name, func(v *environment.Environment) {
			if v.Back != nil {
				v.Back, v.Error = nil, "it cannot go back: "+d.Reason
			}
		})
	}
	return soon, l.comeBack(ctx, e, o, g)
}

// comeBack writes down that all traffic is where it came from.
func (l *Environments) comeBack(ctx context.Context, e environment.Environment, o environment.Observed, g environment.Generation) error {
	v, version, err := store.Get[environment.Environment](ctx, l.Store, environment.Kind, e.Name)
	if err != nil || v.Back == nil || v.Shift == nil || v.Shift.From != g.Number || v.Want != v.Shift.To {
		return err // it was decided otherwise meanwhile
	}
	now := l.Clock.Now()
	v.LastBack = v.Back
	v.LastBack.From, v.LastBack.To, v.LastBack.Done = v.Want, g.Number, now
	v.Error = fmt.Sprintf("generation %d was left for generation %d%s", v.Want, g.Number, by(v.Back))
	said := v.Shift.Said
	v.Shift = &environment.Shift{From: v.Want, To: g.Number, Back: true, Since: now, Soak: now.Add(drain)}
	v.Back, v.Blocker, v.Switched = nil, nil, now
	if left := generation(o, v.Want); left.BlamesImage(g.Image, g.Release, v.LastBack.Person()) {
		v.Refuse(left.Image, v.Error, now)
	} else if left.Image != g.Image && left.Asked.Equal(v.Follow.From) {
		v.Follow.From = said // what was said went with it: the image is tried with the release that serves
	}
	v.Want, v.Serving, v.Size, v.Image, v.Release, v.Files = g.Number, g.Number, g.Whole(), g.Image, g.Release, g.Files
	v.Phase, v.Address = environment.Serving, l.address(v, o, g)
	l.Log.Info("all traffic is back", "environment", e.Name, "generation", g.Number, "took", now.Sub(v.LastBack.At))
	return l.Store.Apply(ctx, reconcile.Epoch(ctx), store.Put(environment.Kind, e.Name, version, v))
}

func by(b *environment.Back) string {
	s := ""
	if b.By != "" && b.Person() {
		s = " by " + b.By
	}
	if b.Why != "" {
		s += ": " + b.Why
	}
	return s
}
