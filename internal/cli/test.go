package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/server"
)

type testCmd struct {
	Dir    string   `arg:"" help:"The blueprint's folder."`
	Suites []string `arg:"" optional:"" help:"Names of suites; default all automated ones."`
	Junit  string   `help:"Folder for the results: one SUITE.xml and SUITE.log each." placeholder:"DIR"`
	Detach bool     `help:"Do not wait."`
}

func (c *testCmd) Run(ctx context.Context, a *app) error {
	b, err := a.send(ctx, c.Dir)
	if err != nil {
		return err
	}
	var r pipeline.Run
	if err := a.client.Post(ctx, "/v1/runs", nil, server.Test{Files: b.Digest, Suites: c.Suites}, &r); err != nil {
		return err
	}
	if c.Detach {
		return a.print(r, func(w io.Writer) { fmt.Fprintln(w, r.Name, "has begun; dayfly runs show", r.Name, "shows it") })
	}
	if r, err = a.followRun(ctx, r); err != nil {
		return err
	}
	if c.Junit != "" {
		if err := a.saveResults(ctx, r, c.Junit); err != nil {
			return err
		}
	}
	if err := a.print(r, func(w io.Writer) { runText(w, r) }); err != nil {
		return err
	}
	if !r.Passed {
		return &fault.Error{Kind: fault.Failed, Op: "test", Object: r.Name, Message: "not every suite passed"}
	}
	return nil
}

// followRun shows a run until it is over; Ctrl-C cancels it and waits for the
// end of what it launched.
func (a *app) followRun(ctx context.Context, r pipeline.Run) (pipeline.Run, error) {
	p := a.progress()
	name := r.Name
	told := map[string]bool{}
	look := func(ctx context.Context) func() (bool, error) {
		return func() (bool, error) {
			got, err := client.One[pipeline.Run](ctx, a.client, "runs", name)
			if err != nil {
				return false, unlessDown(p, err)
			}
			r = got
			for _, s := range r.Suites {
				if !s.Ended.IsZero() && !told[s.Name] {
					told[s.Name] = true
					p.say(suiteLine(s))
				}
			}
			switch {
			case r.Phase == pipeline.Done:
				return true, nil
			case r.Phase == pipeline.Ending && r.Blocker != nil:
				p.say(r.Blocker.Message)
			case r.Phase == pipeline.Running:
				p.say(fmt.Sprintf("%d of %d suites have no result yet", r.Open(), len(r.Suites)))
			case r.Blocker != nil:
				p.say(r.Blocker.Message)
			}
			return false, nil
		}
	}
	err := wait(ctx, look(ctx))
	if errors.Is(err, context.Canceled) {
		fmt.Fprintf(a.err, "interrupted; canceling %s\n", name)
		end, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		if err := a.client.Delete(end, "/v1/runs/"+name, nil); err != nil {
			return r, err
		}
		if err := wait(end, look(end)); err != nil {
			return r, err
		}
		return r, context.Canceled
	}
	return r, err
}

func (a *app) saveResults(ctx context.Context, r pipeline.Run, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, s := range r.Suites {
		for file, to := range map[string]string{"junit.xml": s.Name + ".xml", "log.txt": s.Name + ".log"} {
			var raw []byte
			err := a.client.Get(ctx, "/v1/runs/"+r.Name+"/suites/"+s.Name+"/"+file, nil, &raw)
			if fault.KindOf(err) == fault.NotFound {
				continue // a suite that never ran has none
			}
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, to), raw, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func suiteLine(s pipeline.Suite) string {
	word := "passed"
	if !s.OK() {
		word = "FAILED"
	}
	line := fmt.Sprintf("suite %s %s: %d passed, %d failed in %.1fs", s.Name, word, s.Passed, s.Failed, s.Ended.Sub(s.Started).Seconds())
	if s.Error != "" {
		line += "; " + s.Error
	}
	for _, f := range s.Failures {
		line += "; " + f.Case + ": " + f.Message
	}
	return line
}

func runText(w io.Writer, r pipeline.Run) {
	fmt.Fprintf(w, "%s is %s, image %s, release %s\n", r.Name, r.Phase, dash(r.Image), dash(r.Release))
	if r.Error != "" {
		fmt.Fprintln(w, "  error:", r.Error)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SUITE\tRESULT\tPASSED\tFAILED\tSECONDS\tWHY")
	for _, s := range r.Suites {
		result, secs := string(s.Phase), "-"
		if !s.Ended.IsZero() {
			result, secs = "failed", fmt.Sprintf("%.1f", s.Ended.Sub(s.Started).Seconds())
			if s.OK() {
				result = "passed"
			}
		}
		why := s.Error
		for _, f := range s.Failures {
			why += " " + f.Case + ": " + f.Message
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\n", s.Name, result, s.Passed, s.Failed, secs, strings.TrimSpace(why))
	}
	t.Flush()
}

type runsCmd struct {
	List   runsListCmd   `cmd:"" default:"1" help:"List test runs."`
	Show   runsShowCmd   `cmd:"" help:"Show a run and its suites."`
	Cancel runsCancelCmd `cmd:"" help:"End a run and everything that it launched."`
}

type runsShowCmd struct {
	Name string `arg:""`
}

func (c *runsShowCmd) Run(ctx context.Context, a *app) error {
	r, err := client.One[pipeline.Run](ctx, a.client, "runs", c.Name)
	if err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) { runText(w, r) })
}

type runsCancelCmd struct {
	Name string `arg:""`
}

func (c *runsCancelCmd) Run(ctx context.Context, a *app) error {
	var r pipeline.Run
	if err := a.client.Delete(ctx, "/v1/runs/"+c.Name, &r); err != nil {
		return err
	}
	r, err := a.followRun(ctx, r)
	if err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) { fmt.Fprintln(w, r.Name, "is over") })
}

type runsListCmd struct{}

func (runsListCmd) Run(ctx context.Context, a *app) error {
	rs, err := client.List[pipeline.Run](ctx, a.client, "runs", "")
	if err != nil {
		return err
	}
	return a.print(rs, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tPHASE\tPASSED\tSUITES\tBEGAN")
		for _, r := range rs {
			fmt.Fprintf(t, "%s\t%s\t%v\t%d\t%s\n", r.Name, r.Phase, r.Passed, len(r.Suites), r.Created.Local().Format(time.DateTime))
		}
		t.Flush()
	})
}
