package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/server"
)

type envExtendCmd struct {
	Name string        `arg:""`
	For  time.Duration `help:"How long from now, such as 4h." default:"4h"`
}

func (c *envExtendCmd) Help() string {
	return "For example:\n\n  dayfly env extend shop-dev --for 8h"
}

func (c *envExtendCmd) Run(ctx context.Context, a *app) error {
	if c.For < time.Minute {
		return &fault.Error{Kind: fault.Invalid, Op: "extend the lease", Object: c.Name, Message: "--for must be a minute or more"}
	}
	var e environment.Environment
	if err := a.client.Post(ctx, "/v1/environments/"+c.Name+"/lease", nil, server.Extend{Minutes: int(c.For / time.Minute)}, &e); err != nil {
		return err
	}
	return a.print(e, func(w io.Writer) {
		fmt.Fprintf(w, "%s lives until %s\n", e.Name, e.Deadline.Local().Format(time.RFC1123))
	})
}

type instanceCmd struct {
	List    instanceListCmd    `cmd:"" help:"List the instances of an environment."`
	Show    instanceShowCmd    `cmd:"" help:"Show an instance's life: when it was launched, served, was touched, and why it went."`
	Logs    instanceLogsCmd    `cmd:"" help:"Print the ends of an instance's logs: boot, console, Puppet, deploy script, service."`
	Keep    instanceKeepCmd    `cmd:"" help:"Keep an instance for a look: another takes its place first, and it goes out of service."`
	Release instanceReleaseCmd `cmd:"" help:"End the keeping of an instance: it is terminated."`
	Replace instanceReplaceCmd `cmd:"" help:"Have an instance replaced: another takes its place first."`
}

type instanceListCmd struct {
	Environment string `arg:""`
	All         bool   `help:"Those that are gone, too; they are remembered for a day."`
}

func (c *instanceListCmd) Run(ctx context.Context, a *app) error {
	if _, err := client.One[environment.Environment](ctx, a.client, "environments", c.Environment); err != nil {
		return err
	}
	all, err := client.List[instance.Instance](ctx, a.client, "instances", c.Environment+"/")
	if err != nil {
		return err
	}
	if !c.All {
		all = slices.DeleteFunc(all, func(i instance.Instance) bool { return i.State == instance.Gone })
	}
	slices.SortStableFunc(all, func(x, y instance.Instance) int { return x.Launched.Compare(y.Launched) })
	now := time.Now()
	return a.print(all, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "INSTANCE\tGEN\tSTATE\tZONE\tADDRESS\tAGE\tNOTE")
		for _, i := range all {
			until := now
			if !i.Ended.IsZero() {
				until = i.Ended
			}
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", i.ID, i.Generation, i.State, i.Zone, dash(i.Address), until.Sub(i.Launched).Round(time.Second), note(i))
		}
		t.Flush()
	})
}

// note is what is special about an instance.
func note(i instance.Instance) string {
	switch {
	case i.State == instance.Gone:
		return i.Why
	case i.Leave != nil:
		return string(i.Leave.Cause) + ": " + i.Leave.Why
	case i.Keep != nil:
		return "kept until " + i.Keep.Until.Local().Format("15:04") + " by " + i.Keep.By
	case i.Touch != nil:
		return fmt.Sprintf("touched: %v", i.Touch.What)
	}
	return i.Trouble
}

type instanceShowCmd struct {
	Name string `arg:"" help:"ENVIRONMENT/GENERATION/INSTANCE or the instance's id."`
}

func (c *instanceShowCmd) Run(ctx context.Context, a *app) error {
	all, err := client.List[instance.Instance](ctx, a.client, "instances", "")
	if err != nil {
		return err
	}
	for _, i := range all {
		if i.ID != c.Name && i.Name() != c.Name {
			continue
		}
		es, err := events(ctx, a, url.Values{"object": {instance.Kind + "/" + i.Name()}}, 200)
		if err != nil {
			return err
		}
		return a.print(i, func(w io.Writer) {
			fmt.Fprintf(w, "%s is %s\n  image %s, release %s, zone %s, address %s\n", i.Name(), i.State, i.Image, i.Release, i.Zone, dash(i.Address))
			if i.Parent != "" {
				fmt.Fprintf(w, "  in the place of %s\n", i.Parent)
			}
			if !i.Deadline.IsZero() && i.Ended.IsZero() {
				fmt.Fprintf(w, "  replaced by %s at the latest\n", i.Deadline.Local().Format(time.RFC1123))
			}
			if len(es) > 0 {
				showEvents(w, es, false)
				return
			}
			for _, s := range i.Steps { // events are kept for a time only
				fmt.Fprintf(w, "  %s  %s\n", s.At.Local().Format("2006-01-02 15:04:05"), s.What)
			}
		})
	}
	return &fault.Error{Kind: fault.NotFound, Object: "instance " + c.Name, Message: "there is no such instance", Hint: "dayfly instance list ENVIRONMENT --all lists those of the last day"}
}

type instanceLogsCmd struct {
	ID   string `arg:"" help:"The instance's id."`
	Only string `help:"One of them: boot, console, puppet, deploy or service." enum:",boot,console,puppet,deploy,service" default:""`
}

func (c *instanceLogsCmd) Help() string {
	return "For example:\n\n  dayfly instance logs i-0123456789abcdef0 --only deploy"
}

func (c *instanceLogsCmd) Run(ctx context.Context, a *app) error {
	var l server.InstanceLogs
	if err := a.client.Get(ctx, "/v1/instances/"+url.PathEscape(c.ID)+"/logs", nil, &l); err != nil {
		return err
	}
	return a.print(l, func(w io.Writer) { logsText(w, l, c.Only) })
}

func logsText(w io.Writer, l server.InstanceLogs, only string) {
	if only == "" {
		fmt.Fprintf(w, "%s is %s", l.Instance, l.State)
		if l.Why != "" {
			fmt.Fprintf(w, ": %s", l.Why)
		}
		fmt.Fprintln(w)
		if h := l.HandOff; h != nil {
			fmt.Fprintf(w, "  hand-off ok: %v, exit code %d %s\n", h.OK, h.ExitCode, h.Reason)
			for _, p := range h.Phases {
				fmt.Fprintf(w, "  %-10s %.3f s\n", p.Name, p.Seconds)
			}
		}
	}
	for _, x := range l.Logs {
		if only != "" && x.Name != only {
			continue
		}
		if only == "" {
			fmt.Fprintf(w, "--- %s\n", x.Name)
		}
		if x.Text == "" {
			fmt.Fprintf(w, "(%s)\n", x.Note)
			continue
		}
		fmt.Fprint(w, x.Text)
		if !strings.HasSuffix(x.Text, "\n") {
			fmt.Fprintln(w)
		}
	}
}

type instanceKeepCmd struct {
	Name string        `arg:"" help:"ENVIRONMENT/GENERATION/INSTANCE or the instance's id."`
	For  time.Duration `help:"How long, at most 24h." default:"2h"`
	Why  string        `help:"For those who find it."`
}

func (c *instanceKeepCmd) Help() string {
	return "For example:\n\n  dayfly instance keep i-0123456789abcdef0 --for 1h --why \"answers slowly\""
}

func (c *instanceKeepCmd) Run(ctx context.Context, a *app) error {
	return a.instance(ctx, "keep", server.KeepInstance{Name: c.Name, Minutes: int(c.For / time.Minute), Why: c.Why}, "another takes its place; then it is out of service and kept")
}

type instanceReleaseCmd struct {
	Name string `arg:"" help:"ENVIRONMENT/GENERATION/INSTANCE or the instance's id."`
}

func (c *instanceReleaseCmd) Run(ctx context.Context, a *app) error {
	return a.instance(ctx, "release", map[string]string{"name": c.Name}, "it is not kept any longer")
}

type instanceReplaceCmd struct {
	Name string `arg:"" help:"ENVIRONMENT/GENERATION/INSTANCE or the instance's id."`
	Why  string `help:"For those who wonder later."`
}

func (c *instanceReplaceCmd) Run(ctx context.Context, a *app) error {
	return a.instance(ctx, "replace", server.ReplaceInstance{Name: c.Name, Why: c.Why}, "another takes its place; then it goes")
}

func (a *app) instance(ctx context.Context, verb string, in any, said string) error {
	var i instance.Instance
	if err := a.client.Post(ctx, "/v1/instances/"+verb, nil, in, &i); err != nil {
		return err
	}
	return a.print(i, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s (dayfly instance show %s)\n", i.Name(), said, i.ID)
	})
}
