package control

import (
	"context"
	"errors"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// DeployAgain implements server.Again.
func (c *Control) DeployAgain(ctx context.Context, name string, d server.DeployAgain) (environment.Environment, error) {
	e, err := c.environment(ctx, name)
	if err != nil {
		return e, err
	}
	if d.Size == 0 {
		d.Size = e.Size
	}
	return c.Deploy(ctx, again(e, d))
}

func (c *Control) environment(ctx context.Context, name string) (environment.Environment, error) {
	e, _, err := known[environment.Environment](ctx, c, environment.Kind, name, "dayfly env list; dayfly deploy FOLDER makes one")
	return e, err
}

// again is the deploy that has the blueprint of the last one.
func again(e environment.Environment, d server.DeployAgain) server.Deploy {
	files := e.Files
	if e.Next != nil {
		files = e.Next.Files
	}
	return server.Deploy{Files: files, Purpose: e.Purpose, Name: e.Name, Size: d.Size, Untested: d.Untested}
}

// Foresee implements server.Again. What stands in the way is part of the answer:
// people want to know it before they ask.
func (c *Control) Foresee(ctx context.Context, name string) (server.Foreseen, error) {
	e, err := c.environment(ctx, name)
	if err != nil {
		return server.Foreseen{}, err
	}
	d := again(e, server.DeployAgain{Size: e.Size})
	b, fsys, err := c.files.Blueprint(ctx, d.Files)
	if err != nil {
		return server.Foreseen{}, err
	}
	gs, err := store.List[environment.Generation](ctx, c.store, environment.GenerationKind, name+"/")
	if err != nil {
		return server.Foreseen{}, err
	}
	last := e.Want
	for _, g := range gs {
		last = max(last, g.Number)
	}
	takes, of := environment.Usual(gs)
	f := server.Foreseen{Environment: name, Blueprint: b.Name, Size: e.Size, Generation: last + 1, Seconds: takes.Seconds(), Launches: of}
	stands := func(err error) { // the first thing that stands in the way
		if err == nil || f.Refused != "" {
			return
		}
		f.Refused = err.Error()
		var fe *fault.Error
		if errors.As(err, &fe) {
			f.Refused, f.Hint = fe.Message, fe.Hint
		}
	}
	_, _, err = c.admit(ctx, name, b.Name)
	stands(err)
	stands(tested(b, d))
	stands(c.room("deploy"))
	im, there, err := c.bakes.Foretell(ctx, b, fsys)
	stands(err)
	f.Image = server.ForeseenImage{Name: im, There: there, Serves: im != "" && im == e.Image && e.Serving != 0}
	if im != "" && !there {
		if f.Image.Seconds, err = c.bakeTakes(ctx, b.Name); err != nil {
			return f, err
		}
	}
	a, record, err := c.resolver.Newest(ctx, b)
	stands(err)
	f.Release = server.ForeseenRelease{Artifact: a.Name, Name: record, Serves: record != "" && record == e.Release && e.Serving != 0}
	return f, nil
}

// bakeTakes is the median of a blueprint's bakes, in seconds.
func (c *Control) bakeTakes(ctx context.Context, blueprint string) (float64, error) {
	ims, err := store.List[image.Image](ctx, c.store, image.Kind, blueprint+"-")
	var took []float64
	for _, im := range ims {
		if im.Blueprint == blueprint && im.Seconds > 0 {
			took = append(took, im.Seconds)
		}
	}
	if err != nil || len(took) == 0 {
		return 0, err
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}
