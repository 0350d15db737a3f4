package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

type bakeCmd struct {
	Run  bakeRunCmd  `cmd:"" default:"withargs" help:"Make the image: dayfly bake shop."`
	List bakeListCmd `cmd:"" help:"List bakes, and the builders that failed ones keep."`
	Due  bakeDueCmd  `cmd:"" help:"Say when images are baked anew from the same inputs (image.refresh), and how the last time went."`
	Exec bakeExecCmd `cmd:"" help:"Run a command on the builder, or on a canary, that a failed bake keeps: dayfly bake exec shop-0123456789abcdef -- tail /var/log/syslog."`
	Drop bakeDropCmd `cmd:"" help:"Remove what a failed bake keeps, or cancel a bake."`
}

type bakeRunCmd struct {
	Dir    string `arg:"" help:"The blueprint's folder."`
	Detach bool   `help:"Do not wait."`
	Resume bool   `help:"Go on with the builder that a failed bake keeps: from the step that failed, or, when the blueprint was mended, from fetching its files."`
	From   string `help:"The failed bake, with --resume; default the blueprint's last." placeholder:"BAKE"`
}

func (c *bakeRunCmd) Run(ctx context.Context, a *app) error {
	s, err := a.send(ctx, c.Dir)
	if err != nil {
		return err
	}
	var b bake.Bake
	if err := a.client.Post(ctx, "/v1/bakes", nil, map[string]any{"files": s.Digest, "resume": c.Resume || c.From != "", "from": c.From}, &b); err != nil {
		return err
	}
	cached := b.Step == bake.Done
	if !c.Detach && !cached {
		b, err = a.followBake(ctx, b)
		if err != nil {
			return err
		}
	}
	return a.print(struct {
		bake.Bake
		Cached bool `json:"cached"`
	}{b, cached}, func(w io.Writer) {
		switch {
		case cached:
			fmt.Fprintf(w, "image %s is there already (%s, made %s)\n", b.Image, b.AMI, b.Ended.Local().Format(time.DateTime))
		case b.Image != "":
			fmt.Fprintf(w, "image %s (%s), %d checks passed on %d fresh instances\n", b.Image, b.AMI, len(b.Checks), len(b.Canaries))
			for _, s := range b.Steps {
				fmt.Fprintf(w, "  %-9s %6.1fs\n", s.Step, s.Seconds)
			}
		default:
			fmt.Fprintf(w, "bake %s has begun; dayfly why %s says how far it is\n", b.Name, b.Name)
		}
	})
}

// followBake shows a bake until it is done; Ctrl-C cancels it and waits until
// its builder is gone.
func (a *app) followBake(ctx context.Context, b bake.Bake) (bake.Bake, error) {
	p := a.progress()
	over := false // a failure keeps the builder only once it was looked for
	look := func(ctx context.Context) func() (bool, error) {
		return func() (bool, error) {
			got, err := client.One[bake.Bake](ctx, a.client, "bakes", b.Name)
			if err != nil {
				return false, unlessDown(p, err)
			}
			b = got
			p.show(bakeBlock(b), b.Sentence)
			return b.Step == bake.Done || (b.Step == bake.Kept && !over), nil
		}
	}
	defer p.end()
	err := a.wait(ctx, look(ctx))
	if errors.Is(err, context.Canceled) {
		over = true
		fmt.Fprintln(a.err, "interrupted; the builder is going away")
		end, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		if err := a.client.Delete(end, "/v1/bakes/"+b.Name, nil); err != nil {
			return b, err
		}
		if err := a.wait(end, look(end)); err != nil {
			return b, err
		}
		return b, context.Canceled
	}
	if err == nil && b.Error != "" {
		err = &fault.Error{Kind: fault.Failed, Op: "bake", Object: b.Name, Message: fmt.Sprintf("step %s: %s", b.FailedAt, b.Error), Hint: b.Advice()}
	}
	return b, err
}

type bakeListCmd struct{}

func (bakeListCmd) Run(ctx context.Context, a *app) error {
	bs, err := client.List[bake.Bake](ctx, a.client, "bakes", "")
	if err != nil {
		return err
	}
	return a.print(bs, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tSTEP\tBEGUN\tBY\tBUILDER\tKEPT UNTIL\tFAILED AT")
		for _, b := range bs {
			until, builder := "", b.Instance
			switch b.Step {
			case bake.Kept:
				until = b.Until.Local().Format(time.DateTime)
			case bake.Done:
				builder = ""
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", b.Name, b.Step, b.Created.Local().Format(time.DateTime), b.By, builder, until, b.FailedAt)
		}
		t.Flush()
	})
}

type bakeExecCmd struct {
	Name    string   `arg:"" help:"The failed bake; dayfly bake list shows them."`
	Command []string `arg:"" passthrough:"" help:"The command, after --. One word is a line for the shell; more are a command and its arguments."`
	On      string   `help:"builder, canary-1 or canary-2; default what failed." placeholder:"WHICH"`
}

func (c *bakeExecCmd) Run(ctx context.Context, a *app) error {
	words := c.Command
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		return &fault.Error{Kind: fault.Invalid, Op: "bake exec", Message: "there is no command", Hint: "dayfly bake exec " + c.Name + " -- ps aux"}
	}
	line := words[0]
	if len(words) > 1 {
		quoted := make([]string, len(words))
		for i, w := range words {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		line = strings.Join(quoted, " ")
	}
	in := map[string]string{"command": line}
	if c.On != "" {
		in["on"] = c.On
	}
	var r bake.Executed
	if err := a.client.Post(ctx, "/v1/bakes/"+c.Name+"/exec", nil, in, &r); err != nil {
		return err
	}
	if err := a.print(r, func(w io.Writer) {
		fmt.Fprint(w, r.Stdout)
		fmt.Fprint(a.err, r.Stderr)
	}); err != nil {
		return err
	}
	if r.ExitCode != 0 {
		return &fault.Error{Kind: fault.Failed, Op: "bake exec", Object: r.Instance, Message: fmt.Sprintf("exit code %d", r.ExitCode)}
	}
	return nil
}

type bakeDropCmd struct {
	Name string `arg:"" help:"The bake; dayfly bake list shows them."`
}

func (c *bakeDropCmd) Run(ctx context.Context, a *app) error {
	var b bake.Bake
	if err := a.client.Delete(ctx, "/v1/bakes/"+c.Name, &b); err != nil {
		return err
	}
	p := a.progress()
	err := a.wait(ctx, func() (bool, error) {
		got, err := client.One[bake.Bake](ctx, a.client, "bakes", c.Name)
		if err != nil {
			return false, unlessDown(p, err)
		}
		b = got
		p.say(b.Sentence)
		return b.Step == bake.Done, nil
	})
	if err != nil {
		return err
	}
	return a.print(b, func(w io.Writer) { fmt.Fprintf(w, "bake %s: everything that it kept is gone\n", b.Name) })
}
