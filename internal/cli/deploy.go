package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/server"
)

type deployCmd struct {
	Dir     string `arg:"" help:"The blueprint's folder."`
	Purpose string `arg:"" default:"dev" help:"Which of the blueprint's environments."`
	Name    string `help:"Name of the environment; default BLUEPRINT-PURPOSE."`
	Size    int    `help:"Instances; default the blueprint's."`
	Detach  bool   `help:"Do not wait."`

	Untested bool `help:"Deploy past the pipeline whose stage deploys this environment. It stays on record."`
}

func (c *deployCmd) Run(ctx context.Context, a *app) error {
	b, err := a.send(ctx, c.Dir)
	if err != nil {
		return err
	}
	var e environment.Environment
	if err := a.client.Post(ctx, "/v1/environments", nil, server.Deploy{Files: b.Digest, Purpose: c.Purpose, Name: c.Name, Size: c.Size, Untested: c.Untested}, &e); err != nil {
		return err
	}
	fresh := e.Serving == 0
	if !c.Detach {
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

// follow shows a deploy until it serves or has failed.
func (a *app) follow(ctx context.Context, e environment.Environment) (environment.Environment, error) {
	p := a.progress()
	name, before := e.Name, e.Serving
	err := a.wait(ctx, func() (bool, error) {
		got, err := client.One[environment.Environment](ctx, a.client, "environments", name)
		if err != nil {
			return false, unlessDown(p, err)
		}
		e = got
		switch {
		case e.Next == nil && e.Error != "":
			return true, &fault.Error{Kind: fault.Failed, Op: "deploy", Object: name, Message: e.Error, Hint: hintAfterFailure(e)}
		case e.Destroy:
			return true, &fault.Error{Kind: fault.Failed, Op: "deploy", Object: name, Message: "the environment is being destroyed"}
		case e.Next == nil && e.Want == e.Serving && e.Serving != 0 && e.Serving >= before:
			p.say(fmt.Sprintf("generation %d serves at %s", e.Serving, e.Address))
			return true, nil
		}
		line := "deciding"
		if e.Blocker != nil {
			line = e.Blocker.Message
		}
		var g *environment.Generation
		if p.live != nil && e.Want != 0 {
			if v, err := client.One[environment.Generation](ctx, a.client, "generations", environment.GenerationName(name, e.Want)); err == nil {
				g = &v
			}
		}
		p.show(deployBlock(e, g, time.Now()), line)
		return false, nil
	})
	p.end()
	return e, err
}

func hintAfterFailure(e environment.Environment) string {
	if e.Serving != 0 {
		return fmt.Sprintf("generation %d goes on serving; mend the cause and deploy again", e.Serving)
	}
	return "mend the cause and deploy again, or dayfly env destroy " + e.Name
}

// abandonDeploy is Ctrl-C: a new environment goes away again, an existing one
// keeps what serves.
func (a *app) abandonDeploy(e environment.Environment, fresh bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if !fresh {
		fmt.Fprintf(a.err, "interrupted; the server goes on with the deploy of %s (dayfly env show %s)\n", e.Name, e.Name)
		return context.Canceled
	}
	fmt.Fprintf(a.err, "interrupted; destroying %s, which this command began\n", e.Name)
	if err := a.destroy(ctx, e.Name); err != nil {
		return err
	}
	return context.Canceled
}

// unlessDown goes on while the server restarts.
func unlessDown(p *progress, err error) error {
	if fault.KindOf(err) == fault.Unavailable && time.Since(p.start) < time.Hour {
		p.say("the server does not answer; waiting for it (dayfly server start)")
		return nil
	}
	return err
}

type envCmd struct {
	List    envListCmd    `cmd:"" help:"List environments."`
	Show    envShowCmd    `cmd:"" help:"Show an environment and its generations."`
	Extend  envExtendCmd  `cmd:"" help:"Let an environment live longer, as far as its blueprint allows."`
	Destroy envDestroyCmd `cmd:"" help:"Terminate an environment and everything of it."`
}

type envListCmd struct {
	All bool `help:"Those that are gone, too."`
}

func (c *envListCmd) Run(ctx context.Context, a *app) error {
	all, err := client.List[environment.Environment](ctx, a.client, "environments", "")
	if err != nil {
		return err
	}
	es := []environment.Environment{}
	for _, e := range all {
		if c.All || e.Phase != environment.Gone {
			es = append(es, e)
		}
	}
	return a.print(es, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tPHASE\tSIZE\tIMAGE\tRELEASE\tADDRESS\tENDS")
		for _, e := range es {
			ends := e.Deadline.Local().Format("Mon 15:04")
			if e.Standing {
				ends = "standing"
			}
			fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", e.Name, e.Phase, e.Size, dash(e.Image), dash(e.Release), dash(e.Address), ends)
		}
		t.Flush()
	})
}

type envShowCmd struct {
	Name string `arg:""`
}

func (c *envShowCmd) Run(ctx context.Context, a *app) error {
	e, err := client.One[environment.Environment](ctx, a.client, "environments", c.Name)
	if err != nil {
		return err
	}
	gs, err := client.List[environment.Generation](ctx, a.client, "generations", c.Name+"/")
	if err != nil {
		return err
	}
	return a.print(map[string]any{"environment": e, "generations": gs}, func(w io.Writer) {
		environmentText(w, e)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "GENERATION\tPHASE\tHEALTHY\tLAUNCHED\tIMAGE\tRELEASE\tERROR")
		for _, g := range gs {
			fmt.Fprintf(t, "%d\t%s\t%d/%d\t%d\t%s\t%s\t%s\n", g.Number, g.Phase, g.Healthy, g.Size, g.Launched, g.Image, g.Release, g.Error)
		}
		t.Flush()
	})
}

func environmentText(w io.Writer, e environment.Environment) {
	fmt.Fprintf(w, "%s is %s", e.Name, e.Phase)
	if e.Address != "" {
		fmt.Fprintf(w, " at %s", e.Address)
	}
	fmt.Fprintf(w, "\n  %d instances, image %s, release %s, until %s\n", e.Size, dash(e.Image), dash(e.Release), e.Deadline.Local().Format(time.RFC1123))
	shiftText(w, e)
	if e.Notice != "" {
		fmt.Fprintf(w, "  notice: %s\n", e.Notice)
	}
	if e.Blocker != nil {
		fmt.Fprintf(w, "  waits: %s\n", e.Blocker.Sentence(time.Now()))
	}
	if e.Error != "" {
		fmt.Fprintf(w, "  error: %s\n", e.Error)
	}
}

type envDestroyCmd struct {
	Name   string `arg:""`
	Detach bool   `help:"Do not wait."`
}

func (c *envDestroyCmd) Run(ctx context.Context, a *app) error {
	if c.Detach {
		return a.client.Delete(ctx, "/v1/environments/"+c.Name, nil)
	}
	if err := a.destroy(ctx, c.Name); err != nil {
		return err
	}
	return a.print(map[string]string{"name": c.Name, "phase": string(environment.Gone)}, func(w io.Writer) { fmt.Fprintln(w, c.Name, "is gone") })
}

func (a *app) destroy(ctx context.Context, name string) error {
	if err := a.client.Delete(ctx, "/v1/environments/"+name, nil); err != nil {
		return err
	}
	p := a.progress()
	return a.wait(ctx, func() (bool, error) {
		e, err := client.One[environment.Environment](ctx, a.client, "environments", name)
		switch {
		case fault.KindOf(err) == fault.NotFound || (err == nil && e.Phase == environment.Gone):
			return true, nil
		case err != nil:
			return false, unlessDown(p, err)
		case e.Blocker != nil:
			p.say(e.Blocker.Message)
		}
		return false, nil
	})
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
