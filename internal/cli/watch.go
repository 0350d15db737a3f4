package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/dayfly-infra/dayfly/internal/client"
)

type watchCmd struct {
	Kinds []string `help:"Only these: bake, image, channel, release, environment, generation, foundation, run, instance, fleet." placeholder:"KIND,..."`
	Since int64    `help:"A revision, as lists and events have it: what came after it; 0: first all that is there; default: what comes." default:"-1"`
}

// Run prints a line for each change; with --output json each is a JSON value.
// It goes on over restarts of the server.
func (c *watchCmd) Run(ctx context.Context, a *app) error {
	e := json.NewEncoder(a.out)
	return a.client.Watch(ctx, c.Kinds, c.Since, func(x client.Event) error {
		switch {
		case a.Output == "json":
			if x.Type == "heartbeat" {
				return nil
			}
			return e.Encode(x)
		case x.Type == "reset":
			fmt.Fprintln(a.err, "what was deleted before this is not known any more")
		case x.Type == "change":
			_, err := fmt.Fprintf(a.out, "%s %s/%s %s\n", time.Now().Format(time.TimeOnly), x.Kind, x.Name, state(x))
			return err
		}
		return nil
	})
}

// state is the word that says how a record is.
func state(x client.Event) string {
	if x.Deleted {
		return "deleted"
	}
	var r struct{ Phase, Step, State, Image string }
	_ = json.Unmarshal(x.Record, &r) // what it has not stays empty
	return cmp.Or(r.Phase, r.Step, r.State, r.Image)
}
