package control

import (
	"context"
	"errors"
	"fmt"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Rollback implements server.Backend. While what served before is there it is a
// switch of traffic; later the last good version is deployed again, by the
// names of its image and release, which never move.
func (c *Control) Rollback(ctx context.Context, name string, r server.Rollback) (environment.Environment, error) {
	if err := c.room("roll back"); err != nil {
		return environment.Environment{}, err
	}
	now, who := c.clock.Now(), access.Of(ctx).Name
	launches, from, err := c.wayBack(ctx, name)
	if err != nil {
		return environment.Environment{}, err
	}
	return update(ctx, c, environment.Kind, name, func(e *environment.Environment) error {
		refuse := func(message, hint string) error {
			return &fault.Error{Kind: fault.Conflict, Op: "roll back", Object: name, Message: message, Hint: hint}
		}
		back := &environment.Back{By: who, Why: r.Why, At: now}
		s := e.Shift
		switch {
		case e.Destroy || e.Phase == environment.Gone:
			return refuse("the environment is ending or gone", "dayfly deploy makes it again")
		case e.Run != "":
			return refuse("the environment belongs to the run "+e.Run, "")
		case e.Back != nil:
			return nil // it is on its way
		case s != nil && s.Back:
			return refuse(fmt.Sprintf("it has just gone back to generation %d", e.Serving), "dayfly env show "+name)
		case s != nil && s.From != 0 && from != e.Image && !launches(from) && launches(e.Image):
			return refuse("what served before is made from the image "+from+", from which nothing may be launched", "deploy another image; dayfly image release "+from+" ends its quarantine")
		case s != nil && s.From != 0:
			e.Back = back
			// A deploy that waits for the soak is off, too: who goes back wants to
			// look first.
			e.Next = nil
			return nil
		case e.Want != e.Serving && e.Serving != 0:
			e.Back = back // it is being made: nothing has traffic yet
			return nil
		case e.Next != nil && e.Serving != 0:
			if e.Next.Why != "" && e.Next.Image != e.Image { // else Dayfly would begin again
				e.Refuse(e.Next.Image, "called off"+by(back), now)
			}
			e.Next, e.Blocker, e.Error = nil, nil, "called off by "+who
			return nil
		case e.Serving == 0:
			return refuse("nothing serves yet", "dayfly env destroy "+name)
		}
		good, ok := e.LastGood(launches)
		if !ok {
			return refuse("it remembers no other version that came through its soak", "dayfly deploy makes what you name")
		}
		// Never with fewer instances than carry the load now.
		e.Next = &environment.Change{Files: good.Files, Image: good.Image, Release: good.Release, Size: max(good.Size, e.Size), By: who, Asked: now, Strategy: e.Strategy, Back: back}
		back.From, e.Error = e.Serving, ""
		if good.Image != e.Image {
			e.Refuse(e.Image, "left"+by(back), now)
		}
		return nil
	})
}

// wayBack tells which images may be launched, and which one an environment
// could go back to by a switch of traffic.
func (c *Control) wayBack(ctx context.Context, name string) (launches func(image string) bool, from string, err error) {
	ok := map[string]bool{}
	if err := each(ctx, c, image.Kind, func(i image.Image) { ok[i.Name] = i.Launches() }); err != nil {
		return nil, "", err
	}
	e, _, err := known[environment.Environment](ctx, c, environment.Kind, name, "dayfly envs lists them")
	if err != nil {
		return nil, "", err
	}
	if e.Shift != nil && e.Shift.From != 0 {
		g, _, err := store.Get[environment.Generation](ctx, c.store, environment.GenerationKind, environment.GenerationName(name, e.Shift.From))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, "", err
		}
		from = g.Image
	}
	return func(image string) bool { return ok[image] }, from, nil
}

// by says who wanted something, and why.
func by(b *environment.Back) string {
	s := ""
	if b.By != "" {
		s = " by " + b.By
	}
	if b.Why != "" {
		s += ": " + b.Why
	}
	return s
}
