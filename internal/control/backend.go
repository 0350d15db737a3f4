package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/release"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/sweep"
)

// AddBlueprint implements server.Backend.
func (c *Control) AddBlueprint(ctx context.Context, tar io.Reader) (server.Blueprint, error) {
	if err := c.room("receive the blueprint"); err != nil {
		return server.Blueprint{}, err
	}
	digest, err := c.files.Add(ctx, tar)
	if err != nil {
		return server.Blueprint{}, err
	}
	b, _, err := c.files.Blueprint(ctx, digest)
	if err != nil {
		return server.Blueprint{}, err
	}
	out := server.Blueprint{Digest: digest, Name: b.Name, Environments: slices.Sorted(maps.Keys(b.Environments)), Suites: []string{}}
	for _, s := range b.Pipeline {
		for _, u := range s.Suites {
			out.Suites = append(out.Suites, u.Name)
		}
	}
	return out, nil
}

// Bake implements server.Backend.
func (c *Control) Bake(ctx context.Context, a server.StartBake) (bake.Bake, error) {
	if err := c.room("bake"); err != nil {
		return bake.Bake{}, err
	}
	b, fsys, err := c.files.Blueprint(ctx, a.Files)
	if err != nil {
		return bake.Bake{}, err
	}
	if a.Resume {
		return c.bakes.Resume(ctx, b, fsys, a.Files, a.From, access.Of(ctx).Name)
	}
	return c.bakes.Start(ctx, b, fsys, a.Files, access.Of(ctx).Name)
}

// ExecBake implements server.Backend.
func (c *Control) ExecBake(ctx context.Context, name, on, command string) (bake.Executed, error) {
	return c.bakes.Exec(ctx, name, on, command)
}

// CancelBake implements server.Backend.
func (c *Control) CancelBake(ctx context.Context, name string) (bake.Bake, error) {
	return update(ctx, c, bake.Kind, name, func(b *bake.Bake) error {
		if b.Step != bake.Done {
			b.Cancel = true
		}
		return nil
	})
}

// Resolve implements server.Backend.
func (c *Control) Resolve(ctx context.Context, files string) (release.Release, error) {
	if err := c.room("resolve the release"); err != nil {
		return release.Release{}, err
	}
	b, _, err := c.files.Blueprint(ctx, files)
	if err != nil {
		return release.Release{}, err
	}
	name, err := c.resolver.Resolve(ctx, "api", b)
	if err != nil {
		return release.Release{}, err
	}
	r, _, err := store.Get[release.Release](ctx, c.store, release.Kind, name)
	return r, err
}

// Deploy implements server.Backend: it writes what is wanted, and loops do it.
func (c *Control) Deploy(ctx context.Context, d server.Deploy) (environment.Environment, error) {
	if err := c.room("deploy"); err != nil {
		return environment.Environment{}, err
	}
	var zero environment.Environment
	b, fsys, err := c.files.Blueprint(ctx, d.Files)
	if err != nil {
		return zero, err
	}
	want, ok := b.Environments[d.Purpose]
	if !ok {
		return zero, &fault.Error{Kind: fault.NotFound, Op: "deploy", Object: b.Name, Message: fmt.Sprintf("the blueprint has no environment %q", d.Purpose), Hint: "it has " + strings.Join(slices.Sorted(maps.Keys(b.Environments)), ", ")}
	}
	if err := tested(b, d); err != nil {
		return zero, err
	}
	by := access.Of(ctx).Name
	if d.Untested {
		by += " (untested)"
	}
	if d.Name == "" {
		d.Name = b.Name + "-" + d.Purpose
	}
	if d.Size == 0 {
		d.Size = want.Instances()
	}
	if _, _, err := c.admit(ctx, d.Name, b.Name); err != nil { // before anything costs
		return zero, err
	}
	change := &environment.Change{Files: d.Files, Size: d.Size, By: by, Asked: c.clock.Now()}
	if change.Image, err = c.followed(ctx, b.Name, want.Image); err != nil {
		return zero, err
	}
	if change.Image == "" {
		bk, err := c.bakes.Start(ctx, b, fsys, d.Files, by)
		if err != nil {
			return zero, err
		}
		change.Bake = bk.Name
	}
	for range 20 {
		e, version, err := c.admit(ctx, d.Name, b.Name)
		if err != nil {
			return zero, err
		}
		if e.Name == "" {
			if err := c.forgetGone(ctx, d.Name); err != nil {
				return zero, err
			}
		}
		wish(&e, d.Name, b, want, change)
		err = c.store.Apply(ctx, store.NoEpoch, store.Put(environment.Kind, d.Name, version, e))
		if !errors.Is(err, store.ErrConflict) {
			return e, err
		}
	}
	return zero, &fault.Error{Kind: fault.Conflict, Op: "deploy", Object: d.Name, Message: "others change it all the time"}
}

// wish notes in an environment's record what shall be, for the loops to do.
func wish(e *environment.Environment, name string, b *blueprint.Blueprint, want blueprint.Environment, change *environment.Change) {
	if e.Name == "" {
		e.Name, e.Blueprint, e.Purpose, e.Created, e.Size = name, b.Name, want.Name, change.Asked, change.Size
		if b.Foundation != "" {
			e.Foundation = name
		}
	}
	if e.Serving == 0 {
		e.Phase = environment.Pending
	}
	e.Parameters, e.Deadline, e.Next, e.Error = want.Parameters, change.Asked.Add(want.Lease), change, ""
	e.MaxAge, e.Touched, e.LeaseMax, e.Notice = want.MaxAge, want.Touched, want.LeaseMax, ""
	want.Follow.From = e.Follow.From // a deploy that fails says nothing of what runs
	e.Standing, change.Strategy, e.Follow = want.Standing, want.Strategy, want.Follow
	e.Follow.After = nil // environments of a blueprint are named by a deploy without --name
	for _, purpose := range want.Follow.After {
		e.Follow.After = append(e.Follow.After, b.Name+"-"+purpose)
	}
	e.Accept(change.Image) // who deploys it wants to try it again
}

// tested refuses a deploy past the pipeline of an environment that a stage of
// it deploys: there, only what a run has tested goes.
func tested(b *blueprint.Blueprint, d server.Deploy) error {
	for _, s := range b.Pipeline {
		if s.Deploy == d.Purpose && !d.Untested {
			return &fault.Error{
				Kind: fault.Denied, Op: "deploy", Object: d.Purpose,
				Message: fmt.Sprintf("the stage %s of the pipeline deploys this environment, with the image and the release that its run has tested", s.Name),
				Hint:    "dayfly run start DIR; --untested deploys past the pipeline and stays on record",
			}
		}
	}
	return nil
}

// admit reads the environment that a deploy would change, and says when it may
// not. One that is not there, or was and is gone, has no name yet.
func (c *Control) admit(ctx context.Context, name, blueprint string) (environment.Environment, int64, error) {
	conflict := func(message, hint string) (environment.Environment, int64, error) {
		return environment.Environment{}, 0, &fault.Error{Kind: fault.Conflict, Op: "deploy", Object: name, Message: message, Hint: hint}
	}
	if err := c.frozen(ctx, name); err != nil {
		return environment.Environment{}, 0, err
	}
	e, version, err := store.Get[environment.Environment](ctx, c.store, environment.Kind, name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		f, _, err := store.Get[environment.Former](ctx, c.store, environment.FormerKind, name)
		if errors.Is(err, store.ErrNotFound) {
			err = nil
		}
		return environment.Environment{Want: f.Last}, 0, err
	case err != nil:
		return e, 0, err
	case e.Phase == environment.Gone:
		// Its number goes on, so that no name of a stack is used twice.
		return environment.Environment{Want: e.Want}, version, nil
	case e.Destroy:
		return conflict("the environment is being destroyed", "wait until it is gone, or deploy with another --name")
	case e.Run != "":
		return conflict("the environment belongs to the run "+e.Run, "choose another --name")
	case e.Blueprint != blueprint:
		return conflict("the environment belongs to the blueprint "+e.Blueprint, "choose another --name")
	case e.Next != nil || (e.Want != e.Serving && e.Want != 0 && e.Error == ""):
		return conflict("a deploy is under way", "dayfly why "+name+" says how far it is")
	}
	return e, version, nil
}

// forgetGone removes the records of an earlier life of an environment.
func (c *Control) forgetGone(ctx context.Context, name string) error {
	f, version, err := store.Get[environment.Foundation](ctx, c.store, environment.FoundationKind, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if f.Phase != environment.Gone {
		return &fault.Error{Kind: fault.Conflict, Op: "deploy", Object: name, Message: "its former foundation is not gone yet"}
	}
	return c.store.Apply(ctx, store.NoEpoch, store.Delete(environment.FoundationKind, name, version))
}

// Destroy implements server.Backend.
func (c *Control) Destroy(ctx context.Context, name string) (environment.Environment, error) {
	return update(ctx, c, environment.Kind, name, func(e *environment.Environment) error {
		if e.Phase != environment.Gone {
			e.Destroy = true
		}
		return nil
	})
}

// update changes a record as the API does: what is wanted, without an epoch.
func update[T any](ctx context.Context, c *Control, kind, name string, f func(*T) error) (T, error) {
	var zero T
	err := reconcile.Update(ctx, c.store, kind, name, f)
	if errors.Is(err, store.ErrNotFound) {
		return zero, &fault.Error{Kind: fault.NotFound, Object: kind + " " + name, Message: "there is no such " + kind}
	}
	if err != nil {
		return zero, err
	}
	v, _, err := store.Get[T](ctx, c.store, kind, name)
	return v, err
}

// known reads a record that a person named; hint says where the right names are.
func known[T any](ctx context.Context, c *Control, kind, name, hint string) (T, int64, error) {
	v, version, err := store.Get[T](ctx, c.store, kind, name)
	if errors.Is(err, store.ErrNotFound) {
		err = &fault.Error{Kind: fault.NotFound, Object: kind + " " + name, Message: "there is no such " + kind, Hint: hint}
	}
	return v, version, err
}

// DeleteImage implements server.Backend.
func (c *Control) DeleteImage(ctx context.Context, name string) error {
	im, version, err := c.image(ctx, name)
	if err != nil {
		return err
	}
	es, err := store.List[environment.Environment](ctx, c.store, environment.Kind, "")
	if err != nil {
		return err
	}
	for _, e := range es {
		if e.Phase != environment.Gone && (e.Image == name || (e.Next != nil && (e.Next.Bake == im.Bake || e.Next.Image == name))) {
			return &fault.Error{Kind: fault.Conflict, Op: "remove the image", Object: name, Message: "the environment " + e.Name + " runs it", Hint: "dayfly env destroy " + e.Name}
		}
	}
	for _, e := range es {
		if good, ok := e.LastGood(func(string) bool { return true }); ok && e.Phase != environment.Gone && good.Image == name {
			return &fault.Error{
				Kind: fault.Conflict, Op: "remove the image", Object: name, Message: "it is the last good one of the environment " + e.Name + ": rolling back would need it",
				Hint: "deploy a newer image to " + e.Name + ", which then has a later one to go back to, or dayfly env destroy " + e.Name,
			}
		}
	}
	gs, err := store.List[environment.Generation](ctx, c.store, environment.GenerationKind, "")
	if err != nil {
		return err
	}
	for _, g := range gs { // also those that are being launched, and those that still end
		if g.Phase != environment.Gone && g.Image == name {
			return &fault.Error{Kind: fault.Conflict, Op: "remove the image", Object: name, Message: fmt.Sprintf("generation %d of %s is made from it", g.Number, g.Environment), Hint: "dayfly env destroy " + g.Environment}
		}
	}
	rs, err := store.List[pipeline.Run](ctx, c.store, pipeline.Kind, "")
	if err != nil {
		return err
	}
	for _, r := range rs {
		if r.Phase != pipeline.Done && (r.Image == name || r.Bake == im.Bake) {
			return &fault.Error{Kind: fault.Conflict, Op: "remove the image", Object: name, Message: "the run " + r.Name + " uses it", Hint: "wait for its end, or cancel it"}
		}
	}
	object := image.Kind + "/" + name
	if err := c.cloud.DeleteImage(ctx, cloud.Intent{ID: object + "/delete/" + im.AMI, Object: object}, im.AMI); err != nil && fault.KindOf(err) != fault.NotFound {
		return err
	}
	ws := []store.Write{store.Delete(image.Kind, name, version)}
	chs, err := store.List[image.Channel](ctx, c.store, image.ChannelKind, im.Blueprint+"/")
	if err != nil {
		return err
	}
	for _, ch := range chs {
		if ch.Image == name {
			ws = append(ws, store.Delete(image.ChannelKind, ch.Name, store.Any))
		}
	}
	if err := c.store.Apply(ctx, store.NoEpoch, ws...); err != nil {
		return err
	}
	return c.cloud.PruneIntents(ctx, object)
}

// Sweep implements server.Backend.
func (c *Control) Sweep(ctx context.Context, dry bool) (sweep.Report, error) {
	r, err := c.sweeper.Sweep(cloud.WithPriority(ctx, cloud.Sweep), dry)
	if !dry && err == nil {
		left := 0
		for _, o := range r.Orphans {
			if !o.Removed {
				left++
			}
		}
		c.swept.Store(&swept{c.clock.Now(), left})
		c.orphans(ctx, r)
	}
	return r, err
}

// live tells of every object that has a record whether it still wants what it
// made.
func (c *Control) live(ctx context.Context) (map[string]bool, error) {
	out := map[string]bool{}
	if err := each(ctx, c, bake.Kind, func(b bake.Bake) {
		wants := b.Step != bake.Done
		out[image.Kind+"/"+b.Name] = wants // its image may have no record yet
		// A builder that was taken over has the tags of the bake that made it.
		for _, name := range []string{b.Name, b.Origin} {
			if wants || !out[bake.Kind+"/"+name] {
				out[bake.Kind+"/"+name] = wants
			}
		}
	}); err != nil {
		return nil, err
	}
	if err := each(ctx, c, image.Kind, func(i image.Image) { out[image.Kind+"/"+i.Name] = true }); err != nil {
		return nil, err
	}
	if err := each(ctx, c, environment.Kind, func(e environment.Environment) {
		out[environment.Kind+"/"+e.Name] = e.Phase != environment.Gone
	}); err != nil {
		return nil, err
	}
	if err := each(ctx, c, environment.FoundationKind, func(f environment.Foundation) {
		out[environment.FoundationKind+"/"+f.Name] = f.Phase != environment.Gone
	}); err != nil {
		return nil, err
	}
	return out, each(ctx, c, environment.GenerationKind, func(g environment.Generation) {
		out[environment.GenerationKind+"/"+environment.GenerationName(g.Environment, g.Number)] = g.Phase != environment.Gone
	})
}

func each[T any](ctx context.Context, c *Control, kind string, f func(T)) error {
	vs, err := store.List[T](ctx, c.store, kind, "")
	for _, v := range vs {
		f(v)
	}
	return err
}

// Status implements server.Backend.
func (c *Control) Status(ctx context.Context) (server.Status, error) {
	account, _, err := c.cloud.Identity(ctx)
	if err != nil {
		return server.Status{}, err
	}
	return server.Status{Version: c.cfg.Version, PID: os.Getpid(), Account: account, Region: c.cloud.Region(), Endpoint: os.Getenv("AWS_ENDPOINT_URL"), Owner: c.cloud.Owner(), Active: c.Active(), Console: c.console}, nil
}

// Active implements server.Backend.
func (c *Control) Active() bool {
	_, active := c.engine.Owner()
	return active
}
