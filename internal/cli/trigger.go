package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/server"
)

type triggerCmd struct {
	Set  triggerSetCmd  `cmd:"" help:"Let runs of a blueprint's pipeline begin by themselves; again for a new version of the blueprint."`
	List triggerListCmd `cmd:"" default:"1" help:"List triggers."`
	Rm   triggerRmCmd   `cmd:"" help:"Remove a trigger."`
}

type triggerSetCmd struct {
	Name        string        `arg:"" help:"Name of the trigger."`
	Dir         string        `arg:"" help:"The blueprint's folder."`
	Every       time.Duration `help:"So often, such as 24h." placeholder:"DURATION"`
	Cron        string        `help:"Minute, hour, day, month, weekday, in UTC." placeholder:"'0 3 * * *'"`
	Hook        string        `help:"Take hooks at /hooks/NAME: github, gitlab or hmac." enum:"github,gitlab,hmac," default:"" placeholder:"KIND"`
	Secret      string        `help:"File in the server's folder secrets with the hook's secret." placeholder:"NAME"`
	Repo        string        `help:"Only pushes to this repository." placeholder:"OWNER/NAME"`
	Branch      string        `help:"Only pushes to this branch."`
	Status      string        `help:"Set the commit's status: github or gitlab." enum:"github,gitlab," default:"" placeholder:"FORGE"`
	StatusAPI   string        `help:"The forge's API, where it is not github.com or gitlab.com." placeholder:"URL"`
	StatusToken string        `help:"File in the server's folder secrets with the forge's token." placeholder:"NAME"`
}

func (c *triggerSetCmd) Run(ctx context.Context, a *app) error {
	b, err := a.send(ctx, c.Dir)
	if err != nil {
		return err
	}
	var t pipeline.Trigger
	if err := a.client.Post(ctx, "/v1/triggers/"+url.PathEscape(c.Name), nil, server.SetTrigger{
		Files: b.Digest, Seconds: int(c.Every / time.Second), Cron: c.Cron, Hook: c.Hook, Secret: c.Secret, Repo: c.Repo, Branch: c.Branch,
		StatusForge: c.Status, StatusAPI: c.StatusAPI, StatusToken: c.StatusToken,
	}, &t); err != nil {
		return err
	}
	return a.print(t, func(w io.Writer) { fmt.Fprintf(w, "%s starts runs of %s: %s\n", t.Name, t.Blueprint, triggerText(t)) })
}

func triggerText(t pipeline.Trigger) string {
	var out []string
	if t.Every > 0 {
		out = append(out, "every "+t.Every.String())
	}
	if t.Cron != "" {
		out = append(out, "at "+t.Cron+" UTC")
	}
	if t.Hook != "" {
		out = append(out, "on "+t.Hook+" hooks at /hooks/"+t.Name)
	}
	return strings.Join(out, ", ")
}

type triggerListCmd struct{}

func (triggerListCmd) Run(ctx context.Context, a *app) error {
	ts, err := client.List[pipeline.Trigger](ctx, a.client, "triggers", "")
	if err != nil {
		return err
	}
	return a.print(ts, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tBLUEPRINT\tWHEN\tNEXT\tLAST")
		for _, v := range ts {
			next, last := "-", "-"
			if !v.Next.IsZero() {
				next = v.Next.Local().Format(time.DateTime)
			}
			if v.Last != nil {
				last = v.Last.Run + v.Last.Error
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", v.Name, v.Blueprint, triggerText(v), next, last)
		}
		t.Flush()
	})
}

type triggerRmCmd struct {
	Name string `arg:""`
}

func (c *triggerRmCmd) Run(ctx context.Context, a *app) error {
	return a.client.Delete(ctx, "/v1/triggers/"+url.PathEscape(c.Name), nil)
}
