package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/release"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/sweep"
)

type releaseCmd struct {
	Resolve releaseResolveCmd `cmd:"" help:"Say what the most recent release is, and mirror it."`
	List    releaseListCmd    `cmd:"" help:"List the releases that were resolved."`
}

type releaseResolveCmd struct {
	Dir string `arg:"" help:"The blueprint's folder."`
}

func (c *releaseResolveCmd) Run(ctx context.Context, a *app) error {
	b, err := a.send(ctx, c.Dir)
	if err != nil {
		return err
	}
	var r release.Release
	if err := a.client.Post(ctx, "/v1/releases", nil, map[string]string{"files": b.Digest}, &r); err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) { fmt.Fprintf(w, "%s is %s, %s, %d bytes\n", r.Name, r.Artifact, r.Digest, r.Size) })
}

type releaseListCmd struct{}

func (releaseListCmd) Run(ctx context.Context, a *app) error {
	rs, err := client.List[release.Release](ctx, a.client, "releases", "")
	if err != nil {
		return err
	}
	return a.print(rs, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tARTIFACT\tBYTES\tRESOLVED\tDIGEST")
		for _, r := range rs {
			fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\n", r.Name, r.Artifact, r.Size, r.Resolved.Local().Format(time.DateTime), r.Digest)
		}
		t.Flush()
	})
}

type whyCmd struct {
	Object string `arg:"" optional:"" help:"A bake, image, environment, generation, foundation, run, fleet or instance, by its name, KIND/NAME or id; default all that waits."`
}

func (c *whyCmd) Run(ctx context.Context, a *app) error {
	var rs []server.Reason
	if err := a.client.Get(ctx, "/v1/why", url.Values{"object": {c.Object}}, &rs); err != nil {
		return err
	}
	return a.print(rs, func(w io.Writer) {
		for _, r := range rs {
			fmt.Fprintf(w, "%s (%s): %s\n", r.Object, r.Phase, r.Sentence)
		}
		if len(rs) == 0 {
			fmt.Fprintln(w, "nothing waits")
		}
	})
}

type sweepCmd struct {
	DryRun bool `help:"Remove nothing; say of everything that is ours whether it would be removed, and why."`
}

func (c *sweepCmd) Run(ctx context.Context, a *app) error {
	var r sweep.Report
	if err := a.client.Post(ctx, "/v1/sweep", url.Values{"dry_run": {fmt.Sprint(c.DryRun)}}, nil, &r); err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) {
		for _, o := range r.Orphans {
			word := "stays until a second sweep finds it"
			if o.Removed {
				word = "removed"
			}
			fmt.Fprintf(w, "%s %s: %s; %s\n", o.Kind, o.ID, o.Why, word)
		}
		if len(r.Orphans) == 0 {
			fmt.Fprintln(w, "no orphans")
		}
		for _, k := range r.Kept {
			fmt.Fprintf(w, "%s %s stays: %s\n", k.Kind, k.ID, k.Why)
		}
	})
}
