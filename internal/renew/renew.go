// Package renew takes environments to the image that they shall run: one that
// their channel points to, or another when theirs was revoked. It decides with
// currency.Plan and must not know how a rollout is made: it writes what is
// wanted into the environment's record.
package renew

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/currency"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Loop implements reconcile.Loop for environments.
type Loop struct {
	Store  store.Store
	Clock  clock.Clock
	Log    *slog.Logger
	Budget int // instances that may be launched for new images at once; 0 = no limit

	mu      sync.Mutex
	names   map[string]bool            // environments that are there
	planned time.Time                  // when plan was made; zero = it has to be made anew
	plan    map[string]currency.Status // by environment
}

const (
	// fresh is how old a plan may be: it looks at the whole estate.
	fresh = time.Second
	soon  = 5 * time.Second
	// longest is how long the loop sleeps at most: what it waits for wakes it.
	longest = 5 * time.Minute
)

// Kind implements reconcile.Loop.
func (*Loop) Kind() string { return environment.Kind }

// Follows implements reconcile.Follower: a channel that moves, an image that is
// revoked and a freeze concern any environment.
func (l *Loop) Follows(k store.Key) []string {
	switch k.Kind {
	case image.ChannelKind, image.Kind, currency.FreezeKind:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.planned = time.Time{}
		return slices.Collect(maps.Keys(l.names))
	}
	return nil
}

// Reconcile implements reconcile.Loop.
func (l *Loop) Reconcile(ctx context.Context, name string) (time.Duration, error) {
	e, _, err := store.Get[environment.Environment](ctx, l.Store, environment.Kind, name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, err
	}
	there := err == nil && e.Phase != environment.Gone && !e.Destroy && e.Run == ""
	l.know(name, there)
	if !there || e.Serving == 0 {
		return reconcile.Done, nil
	}
	if e.Follow.Channel == "" {
		revoked, err := l.revoked(ctx, e)
		if err != nil || !revoked {
			return reconcile.Done, err
		}
	}
	s, ok, err := l.status(ctx, name)
	if err != nil || !ok {
		return soon, err
	}
	if s.Step != currency.Nothing {
		return soon, l.do(ctx, s)
	}
	switch {
	case !s.Again.IsZero():
		return min(max(s.Again.Sub(l.Clock.Now()), fresh), longest), nil
	case s.State == currency.Waiting || s.State == currency.Moving:
		return soon, nil
	}
	return longest, nil
}

// revoked tells whether the image that an environment runs, or is taken to, was
// revoked.
func (l *Loop) revoked(ctx context.Context, e environment.Environment) (bool, error) {
	images := []string{e.Image}
	if e.Want != e.Serving {
		g, _, err := store.Get[environment.Generation](ctx, l.Store, environment.GenerationKind, environment.GenerationName(e.Name, e.Want))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return false, err
		}
		images = append(images, g.Image)
	}
	for _, name := range images {
		i, _, err := store.Get[image.Image](ctx, l.Store, image.Kind, name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return false, err
		}
		if !i.Revoked.IsZero() {
			return true, nil
		}
	}
	return false, nil
}

func (l *Loop) know(name string, there bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.names == nil {
		l.names = map[string]bool{}
	}
	if l.names[name] = true; !there {
		delete(l.names, name)
	}
}

// status is what the plan says of an environment.
func (l *Loop) status(ctx context.Context, name string) (currency.Status, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.Clock.Now(); l.planned.IsZero() || now.Sub(l.planned) >= fresh || now.Before(l.planned) {
		o, err := Look(ctx, l.Store, now, l.Budget)
		if err != nil {
			return currency.Status{}, false, err
		}
		l.planned, l.plan = now, map[string]currency.Status{}
		for _, s := range currency.Plan(o) {
			l.plan[s.Environment] = s
		}
	}
	s, ok := l.plan[name]
	return s, ok, nil
}

// do writes what is wanted, unless somebody else was faster.
func (l *Loop) do(ctx context.Context, s currency.Status) error {
	now := l.Clock.Now()
	return reconcile.Update(ctx, l.Store, environment.Kind, s.Environment, func(e *environment.Environment) error {
		if e.Image != s.Image || e.Back != nil || e.Destroy || e.Serving == 0 {
			return nil
		}
		rests, soaks := e.Next == nil && e.Want == e.Serving, e.Shift != nil && !e.Shift.Back
		switch {
		case s.Step == currency.GoBack && e.Want == s.Leaves && (e.Want != e.Serving || soaks && e.Shift.From != 0):
			e.Back = &environment.Back{By: environment.Dayfly, Why: s.Why, At: now}
		case s.Step == currency.Take && rests && (e.Shift == nil || s.Revoked && soaks):
			if soaks {
				e.Shift.Soak = now // nobody goes back to what served before
			}
			e.Next = &environment.Change{Files: e.Files, Image: s.Target, Release: e.Release, Size: e.Size, By: environment.Dayfly, Why: s.Why, Asked: now, Strategy: e.Strategy}
			e.Error = ""
		default:
			return nil
		}
		l.Log.InfoContext(ctx, "an environment is taken to another image", "environment", e.Name, "image", s.Target, "why", s.Why)
		return nil
	})
}

// Look reads what a plan needs.
func Look(ctx context.Context, s store.Store, now time.Time, budget int) (currency.Estate, error) {
	o := currency.Estate{
		Now: now, Budget: budget, Channels: map[string]image.Channel{}, Images: map[string]image.Image{}, Freezes: map[string]currency.Freeze{},
		Wanted: map[string]string{}, From: map[string]string{}, Launched: map[string]bool{}, Begun: map[string]time.Time{}, Usual: map[string]time.Duration{},
	}
	var err error
	if o.Environments, err = store.List[environment.Environment](ctx, s, environment.Kind, ""); err != nil {
		return o, err
	}
	chs, err := store.List[image.Channel](ctx, s, image.ChannelKind, "")
	for _, ch := range chs {
		o.Channels[ch.Name] = ch
	}
	is, err2 := store.List[image.Image](ctx, s, image.Kind, "")
	for _, i := range is {
		o.Images[i.Name] = i
	}
	fs, err3 := store.List[currency.Freeze](ctx, s, currency.FreezeKind, "")
	for _, f := range fs {
		o.Freezes[f.Name] = f
	}
	gs, err4 := store.List[environment.Generation](ctx, s, environment.GenerationKind, "")
	of := map[string][]environment.Generation{}
	for _, g := range gs {
		of[g.Environment] = append(of[g.Environment], g)
	}
	for _, e := range o.Environments {
		for _, g := range of[e.Name] {
			if g.Number == e.Want {
				o.Wanted[e.Name], o.Begun[e.Name] = g.Image, g.Created
				o.Launched[e.Name] = !g.Ready.IsZero() && g.Size == g.Whole() && e.Next == nil
			}
			if e.Shift != nil && g.Number == e.Shift.From && g.Phase == environment.Serving {
				o.From[e.Name] = g.Image
			}
		}
		if e.Next != nil {
			o.Begun[e.Name] = e.Next.Asked
		}
		o.Usual[e.Name], _ = environment.Usual(of[e.Name])
	}
	return o, errors.Join(err, err2, err3, err4)
}
