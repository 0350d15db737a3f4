package bake

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// bases are the names for base images and the public parameters behind them.
var bases = map[string]string{
	"debian-12":      "/aws/service/debian/release/12/latest/amd64",
	"debian-12-slim": "/aws/service/debian/release/12-slim/latest/amd64",
}

const baseHint = "image.base is debian-12, debian-12-slim, an ami-… or the name of a parameter"

// base finds the AMI that a blueprint's image.base names.
func (l *Loop) base(ctx context.Context, name string) (string, error) {
	if strings.HasPrefix(name, "ami-") {
		return name, nil
	}
	p := bases[name]
	if p == "" {
		p = name
	}
	if !strings.HasPrefix(p, "/") {
		return "", &fault.Error{Kind: fault.Invalid, Op: "find the base image", Object: name, Message: "there is no such base image", Hint: baseHint}
	}
	ami, err := l.Cloud.Parameter(ctx, p)
	if fault.KindOf(err) == fault.NotFound {
		return "", &fault.Error{Kind: fault.NotFound, Op: "find the base image", Object: name, Message: "this region has no parameter " + p, Hint: "a local region makes its base images when it starts: dayfly region start --base " + name, Err: err}
	}
	return ami, err
}

// launchable tells of a base image that is not there before anything is begun.
func (l *Loop) launchable(ctx context.Context, ami string) error {
	im, err := l.Cloud.Image(ctx, ami)
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return &fault.Error{Kind: fault.NotFound, Op: "find the base image", Object: ami, Message: "the base image " + ami + " is not there, or not for this account", Hint: baseHint, Err: err}
	case err == nil && im.State != "available":
		return &fault.Error{Kind: fault.Failed, Op: "find the base image", Object: ami, Message: "the base image is " + im.State + ": " + im.Reason}
	}
	return err
}

// fresh is the first attempt of a bake. Where its inputs were baked anew, it is
// the last such bake: its image is there.
func (l *Loop) fresh(ctx context.Context, b *blueprint.Blueprint, files fs.FS, filesDigest, by string) (Bake, error) {
	first, err := l.plain(ctx, b, files, filesDigest, by)
	if err != nil {
		return first, err
	}
	r, _, err := store.Get[Refresh](ctx, l.Store, RefreshKind, first.Name)
	if errors.Is(err, store.ErrNotFound) || err == nil && r.Date.IsZero() {
		return first, nil
	}
	return first.dated(r.Date, l.StackName, l.Clock.Now()), err
}

// plain is the first attempt of a bake of inputs that were never baked.
func (l *Loop) plain(ctx context.Context, b *blueprint.Blueprint, files fs.FS, filesDigest, by string) (Bake, error) {
	base, err := l.base(ctx, b.Image.Base)
	if err != nil {
		return Bake{}, err
	}
	wanted, err := l.wanted(ctx, b)
	if err != nil {
		return Bake{}, err
	}
	inputs, err := digest(b, files, base, wanted, l.Agent, l.Probe)
	if err != nil {
		return Bake{}, fmt.Errorf("read the bake's inputs: %w", err)
	}
	return Bake{
		Name: recordName(b.Name, inputs), Blueprint: b.Name, Files: filesDigest, Inputs: inputs, Plain: inputs, Base: base, By: by,
		Keep: b.Image.KeepFailed, Puppet: b.Image.Puppet.Deadline, Wanted: wanted, Refresh: b.Image.Refresh,
	}.attempt(1, l.StackName, l.Clock.Now()), nil
}

func recordName(blueprint, inputs string) string {
	return blueprint + "-" + strings.TrimPrefix(inputs, "sha256:")[:16]
}

// attempt is a bake of the same inputs from the beginning.
func (b Bake) attempt(n int, stack func(string) string, now time.Time) Bake {
	return Bake{
		Plain: b.Plain, Refreshed: b.Refreshed, Refresh: b.Refresh,
		Name: b.Name, Blueprint: b.Blueprint, Files: b.Files, Inputs: b.Inputs, Base: b.Base, By: b.By, Keep: b.Keep, Puppet: b.Puppet, Wanted: b.Wanted,
		Attempt: n, Step: Inputs, Sentence: Inputs.stage().sentence, Stack: stack(fmt.Sprintf("bake-%s-%d", b.Name, n)), Origin: b.Name,
		Prefix: fmt.Sprintf("bake/%s/%d/", b.Name, n), Created: now, Since: now,
	}
}

// Start begins a bake, or finds the one that is under way for the same inputs,
// or the image that is there already: then the bake that is returned is done.
func (l *Loop) Start(ctx context.Context, b *blueprint.Blueprint, files fs.FS, filesDigest, by string) (Bake, error) {
	fresh, err := l.fresh(ctx, b, files, filesDigest, by)
	if err != nil {
		return Bake{}, err
	}
	out, err := l.begin(ctx, fresh, filesDigest, by)
	if err != nil || out.Step != Done {
		return out, err
	}
	return out, l.schedule(ctx, fresh, out.Ended)
}

// begin starts a bake, unless it is under way or its image is there.
func (l *Loop) begin(ctx context.Context, fresh Bake, filesDigest, by string) (Bake, error) {
	name := fresh.Name
	for range 10 {
		want := fresh
		old, version, err := store.Get[Bake](ctx, l.Store, Kind, name)
		switch {
		case errors.Is(err, store.ErrNotFound):
			version = 0
		case err != nil:
			return Bake{}, err
		case old.Step == Kept && !old.Cancel:
			// What it keeps goes first: the new attempt has a builder of its own.
			want = old.enter(Clean, l.Clock.Now())
			want.Again, want.Error, want.Files, want.Keep, want.Puppet, want.By = true, "", filesDigest, fresh.Keep, fresh.Puppet, by
			want.Sentence = "the kept builder of the failed try is going away"
		case old.Step != Done && (old.Cancel || old.Error != ""):
			// It cannot give an image any more, and its end is not over yet.
			return Bake{}, &fault.Error{Kind: fault.Conflict, Op: "start the bake", Object: name, Message: "a bake of the same inputs was canceled or has failed, and what it made is still going away", Hint: "try again in a moment"}
		case old.Step != Done:
			return old, nil // single flight
		case old.Error == "":
			ok, err := l.there(ctx, old)
			if err != nil {
				return Bake{}, err
			}
			if ok {
				return old, nil
			}
			fallthrough
		default:
			want = fresh.attempt(old.Attempt+1, l.StackName, l.Clock.Now())
		}
		if want.Step == Inputs {
			if err := l.launchable(ctx, want.Base); err != nil {
				return Bake{}, err
			}
		}
		err = l.Store.Apply(ctx, store.NoEpoch, store.Put(Kind, name, version, want))
		if !errors.Is(err, store.ErrConflict) {
			return want, err
		}
	}
	return Bake{}, &fault.Error{Kind: fault.Conflict, Op: "start the bake", Object: name, Message: "others change it all the time"}
}

// there tells whether the image of a finished bake can still be launched.
func (l *Loop) there(ctx context.Context, b Bake) (bool, error) {
	im, _, err := store.Get[image.Image](ctx, l.Store, image.Kind, b.Image)
	switch {
	case errors.Is(err, store.ErrNotFound) || (err == nil && im.State == image.Retired):
		return false, nil
	case err != nil:
		return false, err
	case im.State == image.Quarantined:
		// The same inputs would give the same fault again, under a good name.
		return false, &fault.Error{
			Kind: fault.Denied, Op: "bake", Object: "image " + im.Name, Message: "the image of these inputs is quarantined: " + im.Why,
			Hint: "mend the cause in the blueprint, which makes another image; or dayfly image release " + im.Name + " --why REASON; or dayfly images rm " + im.Name + " to have it made again",
		}
	}
	a, err := l.Cloud.Image(ctx, im.AMI)
	if fault.KindOf(err) == fault.NotFound {
		return false, nil
	}
	return err == nil && a.State == "available", err
}

// Baked tells how far the image of a bake is; it serves those who wait for it.
func (l *Loop) Baked(ctx context.Context, name string) (img, waiting string, err error) {
	b, _, err := store.Get[Bake](ctx, l.Store, Kind, name)
	switch {
	case err != nil:
		return "", "", err
	case b.Step == Done && b.Error == "":
		return b.Image, "", nil
	case b.Step == Done || b.Step == Kept:
		return "", "", &fault.Error{Kind: fault.Failed, Op: "bake", Object: name, Message: b.Error, Hint: b.Advice()}
	}
	return "", fmt.Sprintf("the image is being baked: %s", b.Sentence), nil
}

// AMI returns the machine image of an image record that may be launched.
func (l *Loop) AMI(ctx context.Context, name string) (string, error) {
	im, _, err := store.Get[image.Image](ctx, l.Store, image.Kind, name)
	if errors.Is(err, store.ErrNotFound) {
		return "", &fault.Error{Kind: fault.Failed, Op: "launch", Object: "image " + name, Message: "there is no such image any more", Hint: "dayfly bake makes it again"}
	}
	if err != nil {
		return "", err
	}
	if im.State == image.Quarantined {
		return "", &fault.Error{Kind: fault.Denied, Op: "launch", Object: "image " + name, Message: "the image is quarantined: " + im.Why}
	}
	if err := l.Proven(ctx, im); err != nil {
		return "", err
	}
	return im.AMI, nil
}
