package control

import (
	"context"
	"fmt"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/server"
)

// Rollback implements server.Backend. While what served before is there it is a
// switch of traffic; later the last good version is deployed again, by the
// names of its image and release, which never move.
func (c *Control) Rollback(ctx context.Context, name string, r server.Rollback) (environment.Environment, error) {
	if err := c.room("roll back"); err != nil {
		return environment.Environment{}, err
	}
	now, who := c.clock.Now(), access.Of(ctx).Name
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
			e.Next, e.Blocker, e.Error = nil, nil, "called off by "+who
			return nil
		case e.Serving == 0:
			return refuse("nothing serves yet", "dayfly env destroy "+name)
		}
		good, ok := e.LastGood()
		if !ok {
			return refuse("it remembers no other version that came through its soak", "dayfly deploy makes what you name")
		}
		e.Next = &environment.Change{Files: good.Files, Image: good.Image, Release: good.Release, Size: good.Size, By: who, Asked: now, Strategy: e.Strategy, Back: back}
		back.From, e.Error = e.Serving, ""
		return nil
	})
}
