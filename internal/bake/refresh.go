package bake

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// RefreshKind is the kind of refreshes; a name is that of the bake of the inputs
// without a date.
const RefreshKind = "refresh"

// Refresh is when the same inputs are baked anew: what they name may be another
// thing by then, such as a package's version.
type Refresh struct {
	Name      string        `json:"name"`
	Blueprint string        `json:"blueprint"`
	Files     string        `json:"files"`
	Every     time.Duration `json:"every"`
	Date      time.Time     `json:"date,omitzero"`   // of the last one that went well; a part of its inputs
	Trying    time.Time     `json:"trying,omitzero"` // of the one that was begun
	Bake      string        `json:"bake,omitempty"`  // the last one that was begun
	Next      time.Time     `json:"next"`            // when to begin one, or to look at it again
	Error     string        `json:"error,omitempty"` // why the last one was not begun
}

// RefreshName is the name of the refresh of these inputs, which may not be there.
func (b Bake) RefreshName() string { return recordName(b.Blueprint, cmp.Or(b.Plain, b.Inputs)) }

// retry is when a refresh that failed is tried again.
const retry = time.Hour

// dated is the bake of the same inputs as of a date.
func (b Bake) dated(at time.Time, stack func(string) string, now time.Time) Bake {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s refreshed %s\n", b.Plain, at.UTC().Format(time.RFC3339)))
	b.Inputs, b.Refreshed = "sha256:"+hex.EncodeToString(sum[:]), at
	b.Name = recordName(b.Blueprint, b.Inputs)
	return b.attempt(1, stack, now)
}

// refresh is when the inputs of a bake that ended well are baked anew.
func (b Bake) refresh(now time.Time) (Refresh, bool) {
	if b.Refresh == 0 {
		return Refresh{}, false
	}
	return Refresh{Name: recordName(b.Blueprint, b.Plain), Blueprint: b.Blueprint, Files: b.Files, Every: b.Refresh, Date: b.Refreshed, Bake: b.Name, Next: now.Add(b.Refresh)}, true
}

// Refreshes implements reconcile.Loop for refreshes: it begins bakes.
type Refreshes struct{ *Loop }

// Kind implements reconcile.Loop.
func (Refreshes) Kind() string { return RefreshKind }

// look is how long the loop sleeps at most, so that a clock that was set is noticed.
const look = 5 * time.Minute

// Reconcile implements reconcile.Loop.
func (l Refreshes) Reconcile(ctx context.Context, name string) (time.Duration, error) {
	r, _, err := store.Get[Refresh](ctx, l.Store, RefreshKind, name)
	if errors.Is(err, store.ErrNotFound) {
		return reconcile.Done, nil
	}
	if err != nil {
		return 0, err
	}
	if r.Every == 0 {
		return reconcile.Done, nil
	}
	now := l.Clock.Now()
	if wait := r.Next.Sub(now); wait > 0 {
		return min(wait, look), nil
	}
	newest, err := l.newest(ctx, r)
	if err != nil {
		return 0, err
	}
	if !newest { // other inputs were baked since; it is due when these are the newest again
		return look, nil
	}
	if r.Trying.IsZero() {
		return soon, l.note(ctx, name, func(r *Refresh) { r.Trying = now.Truncate(time.Second) })
	}
	b, err := l.renew(ctx, r)
	if errors.Is(err, context.Canceled) || errors.Is(err, store.ErrFenced) {
		return 0, err
	}
	if err != nil {
		l.Log.WarnContext(ctx, "an image could not be baked anew", "blueprint", r.Blueprint, "error", err)
	}
	return min(retry, look), l.note(ctx, name, func(c *Refresh) {
		// One that ended well meanwhile has said when the next is due.
		if c.Trying.Equal(r.Trying) {
			c.Next, c.Bake, c.Error = now.Add(min(retry, c.Every)), b.Name, ""
			if err != nil {
				c.Error = err.Error()
			}
		}
	})
}

// schedule follows what the blueprint says now of an image that is there.
func (l *Loop) schedule(ctx context.Context, b Bake, ended time.Time) error {
	want, due := b.refresh(ended)
	want.Name = recordName(b.Blueprint, b.Plain)
	r, version, err := store.Get[Refresh](ctx, l.Store, RefreshKind, want.Name)
	switch {
	case errors.Is(err, store.ErrNotFound) && due:
		r = want
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return err
	case err != nil || r.Every == b.Refresh && r.Files == b.Files:
		return nil
	default:
		r.Next, r.Every, r.Files = r.Next.Add(b.Refresh-r.Every), b.Refresh, b.Files
	}
	err = l.Store.Apply(ctx, store.NoEpoch, store.Put(RefreshKind, r.Name, version, r))
	if errors.Is(err, store.ErrConflict) { // another request, or the loop: the next deploy says it again
		return nil
	}
	return err
}

// newest tells whether the blueprint's channel of bakes points to an image of
// these inputs.
func (l Refreshes) newest(ctx context.Context, r Refresh) (bool, error) {
	ch, _, err := store.Get[image.Channel](ctx, l.Store, image.ChannelKind, r.Blueprint+"/"+image.Baked)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	b, _, err := store.Get[Bake](ctx, l.Store, Kind, ch.Image)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil && b.RefreshName() == r.Name, err
}

// renew begins the bake that is due, or finds it under way. Another base image,
// or another version of the Puppet server's code, makes other inputs: those are
// baked, without a date.
func (l Refreshes) renew(ctx context.Context, r Refresh) (Bake, error) {
	bp, files, err := l.Blueprints.Blueprint(ctx, r.Files)
	if err != nil {
		return Bake{}, err
	}
	b, err := l.plain(ctx, bp, files, r.Files, "dayfly (image.refresh)")
	if err != nil {
		return Bake{}, err
	}
	if b.Name == r.Name {
		b = b.dated(r.Trying, l.StackName, l.Clock.Now())
	}
	b.Keep = 0 // nobody is there to look inside
	b, err = l.begin(ctx, b, r.Files, b.By)
	if fault.KindOf(err) == fault.Denied { // that image is quarantined: only other inputs help
		err = nil
	}
	return b, err
}

func (l Refreshes) note(ctx context.Context, name string, f func(*Refresh)) error {
	return reconcile.Update(ctx, l.Store, RefreshKind, name, func(r *Refresh) error { f(r); return nil })
}
