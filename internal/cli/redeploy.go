package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/server"
)

type redeployCmd struct {
	Name     string `arg:"" help:"The environment, such as shop-dev."`
	Size     int    `help:"Instances; default as many as it has."`
	DryRun   bool   `help:"Say what would happen, and begin nothing."`
	Detach   bool   `help:"Do not wait."`
	Untested bool   `help:"Deploy past the pipeline whose stage deploys this environment. It stays on record."`
}

// Run deploys what the server has the blueprint of: nothing is sent.
func (c *redeployCmd) Run(ctx context.Context, a *app) error {
	path := "/v1/environments/" + c.Name + "/deploy"
	if c.DryRun {
		var f server.Foreseen
		if err := a.client.Get(ctx, path, nil, &f); err != nil {
			return err
		}
		if c.Size != 0 {
			f.Size = c.Size
		}
		return a.print(f, func(w io.Writer) { foreseenText(w, f) })
	}
	var e environment.Environment
	if err := a.client.Post(ctx, path, nil, server.DeployAgain{Size: c.Size, Untested: c.Untested}, &e); err != nil {
		return err
	}
	fresh := e.Serving == 0
	if !c.Detach {
		var err error
		e, err = a.follow(ctx, e)
		if errors.Is(err, context.Canceled) {
			return a.abandonDeploy(e, fresh)
		}
		if err != nil {
			return err
		}
	}
	return a.print(e, func(w io.Writer) { environmentText(w, e) })
}

func foreseenText(w io.Writer, f server.Foreseen) {
	fmt.Fprintf(w, "generation %d of %s: %d instances\n", f.Generation, f.Environment, f.Size)
	note := func(serves bool) string {
		if serves {
			return ", which serves already"
		}
		return ""
	}
	if f.Release.Artifact != "" {
		fmt.Fprintf(w, "  release %s (%s)%s\n", f.Release.Artifact, dash(f.Release.Name), note(f.Release.Serves))
	}
	switch {
	case f.Image.There:
		fmt.Fprintf(w, "  image %s%s\n", f.Image.Name, note(f.Image.Serves))
	case f.Image.Seconds > 0:
		fmt.Fprintf(w, "  image %s, baked first: usually %s\n", f.Image.Name, seconds(f.Image.Seconds))
	case f.Image.Name != "":
		fmt.Fprintf(w, "  image %s, baked first\n", f.Image.Name)
	}
	if f.Launches > 0 {
		fmt.Fprintf(w, "  ready after %s, the median of the last %d\n", seconds(f.Seconds), f.Launches)
	}
	if f.Refused != "" {
		fmt.Fprintf(w, "  refused now: %s\n", f.Refused)
		if f.Hint != "" {
			fmt.Fprintf(w, "    %s\n", f.Hint)
		}
	}
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(100 * time.Millisecond)
}
