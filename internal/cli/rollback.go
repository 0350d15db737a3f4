package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/server"
)

type rollbackCmd struct {
	Name   string `arg:"" help:"The environment."`
	Why    string `help:"What is wrong."`
	Detach bool   `help:"Do not wait."`
}

func (c *rollbackCmd) Help() string {
	return `While the generation that served before is kept, through the soak, this is a switch of traffic and launches nothing. Later it deploys the last image and release that came through their soak, by their own names.

Example: dayfly rollback shop-production --why "orders are slow"`
}

func (c *rollbackCmd) Run(ctx context.Context, a *app) error {
	var e environment.Environment
	if err := a.client.Post(ctx, "/v1/environments/"+url.PathEscape(c.Name)+"/rollback", nil, server.Rollback{Why: c.Why}, &e); err != nil {
		return err
	}
	if !c.Detach {
		var err error
		if e, err = a.wentBack(ctx, e); err != nil {
			return err
		}
	}
	return a.print(e, func(w io.Writer) { environmentText(w, e) })
}

// wentBack waits until all traffic is where it was.
func (a *app) wentBack(ctx context.Context, e environment.Environment) (environment.Environment, error) {
	if e.Next != nil { // it is deployed again
		return a.follow(ctx, e)
	}
	p := a.progress()
	name := e.Name
	err := a.wait(ctx, func() (bool, error) {
		got, err := client.One[environment.Environment](ctx, a.client, "environments", name)
		if err != nil {
			return false, unlessDown(p, err)
		}
		e = got
		switch {
		case e.Destroy:
			return true, &fault.Error{Kind: fault.Failed, Op: "roll back", Object: name, Message: "the environment is being destroyed"}
		case e.Back == nil && e.Want == e.Serving && e.Serving != 0:
			p.say(fmt.Sprintf("generation %d serves", e.Serving))
			return true, nil
		case e.Blocker != nil:
			p.say(e.Blocker.Message)
		}
		return false, nil
	})
	return e, err
}

// shiftText says which generations serve and what was left.
func shiftText(w io.Writer, e environment.Environment) {
	if s := e.Shift; s != nil && !s.Back && s.From != 0 {
		switch {
		case !s.Soak.IsZero():
			fmt.Fprintf(w, "  soaks until %s: dayfly rollback %s goes back to generation %d at once\n", s.Soak.Local().Format("15:04:05"), e.Name, s.From)
		case s.Step < len(e.Strategy.Steps):
			fmt.Fprintf(w, "  %d %% of the traffic goes to generation %d, the rest to generation %d\n", e.Strategy.Steps[s.Step], s.To, s.From)
		}
	}
	if b := e.LastBack; b != nil && !b.Done.IsZero() {
		fmt.Fprintf(w, "  went back from generation %d to %d at %s in %s, by %s: %s\n", b.From, b.To, b.Done.Local().Format(time.DateTime), b.Done.Sub(b.At).Round(10*time.Millisecond), b.By, dash(b.Why))
	}
}
