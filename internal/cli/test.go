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
	"unicode"

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
	r, err := a.startRun(ctx, c.Dir, server.Test{Suites: c.Suites})
	if err != nil {
		return err
	}
	if c.Detach {
		return a.begun(r)
	}
	if r, err = a.followRun(ctx, r, true); err != nil {
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
	return runVerdict(r)
}

// followRun shows a run until it is over; where this command owns it, Ctrl-C
// cancels it and waits for the end of what it launched.
func (a *app) followRun(ctx context.Context, r pipeline.Run, own bool) (pipeline.Run, error) {
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
			for _, s := range r.Stages {
				if len(r.Stages) > 1 && s.Over() && !told["/"+s.Name] {
					told["/"+s.Name] = true
					p.say(stageLine(s))
				}
			}
			if r.Phase == pipeline.Done {
				return true, nil
			}
			line := ""
			if r.Blocker != nil {
				line = r.Blocker.Message
				if r.Blocker.Action != "" {
					line += ": " + r.Blocker.Action
				}
			}
			p.show(runBlock(r, time.Now()), line)
			return false, nil
		}
	}
	defer p.end()
	err := a.wait(ctx, look(ctx))
	if errors.Is(err, context.Canceled) && own {
		fmt.Fprintf(a.err, "interrupted; canceling %s\n", name)
		end, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		if err := a.client.Delete(end, "/v1/runs/"+name, nil); err != nil {
			return r, err
		}
		if err := a.wait(end, look(end)); err != nil {
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

func stageLine(s pipeline.Stage) string {
	line := "stage " + s.Name + " " + strings.ToUpper(string(s.Result))
	if s.Result == pipeline.Passed {
		line = "stage " + s.Name + " passed"
	}
	if s.Why != "" {
		line += ": " + s.Why
	}
	return line
}

func suiteLine(s pipeline.Suite) string {
	word := suiteResult(s)
	if !s.OK() {
		word = strings.ToUpper(word)
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

// suiteResult is a word for the result, or the phase where there is none.
func suiteResult(s pipeline.Suite) string {
	switch {
	case s.Flaky:
		return fmt.Sprintf("flaky (passed at try %d)", s.Try)
	case s.Result != "":
		return string(s.Result)
	case s.OK():
		return "passed"
	case !s.Ended.IsZero():
		return "failed"
	}
	return string(s.Phase)
}

// printable is a line of a command without what moves a terminal's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\t' {
			return r
		}
		return '?'
	}, s)
}

func runText(w io.Writer, r pipeline.Run) {
	fmt.Fprintf(w, "%s is %s, image %s, release %s\n", r.Name, r.Phase, dash(r.Image), dash(r.Release))
	if r.Cause != nil {
		fmt.Fprintf(w, "  started by %s %s %s %s\n", r.Cause.Kind, r.Cause.Trigger, r.Cause.Ref, r.Cause.Commit)
	}
	if r.Error != "" {
		fmt.Fprintln(w, "  error:", r.Error)
	}
	if r.Cancel {
		fmt.Fprintln(w, "  canceled", r.CancelWhy)
	}
	if r.Blocker != nil {
		fmt.Fprintln(w, "  waits:", r.Blocker.Sentence(time.Now()))
	}
	if r.Clean != nil {
		fmt.Fprintln(w, "  "+leftText(r))
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(r.Stages) > 1 {
		fmt.Fprintln(t, "STAGE\tRESULT\tWHY")
		for _, s := range r.Stages {
			result := string(s.Result)
			if result == "" {
				result = string(s.Phase)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\n", s.Name, result, dash(s.Why))
		}
		t.Flush()
		for _, s := range r.Stages {
			if s.Gate == nil || s.Gate.Command == nil || s.Gate.Command.Output == "" {
				continue
			}
			c := s.Gate.Command
			fmt.Fprintf(w, "output of %s, the gate %s, on %s of %s:\n", c.Run, s.Name, c.Instance, c.Environment)
			for line := range strings.Lines(c.Output) {
				fmt.Fprintln(w, "  | "+printable(strings.TrimRight(line, "\r\n")))
			}
		}
	}
	fmt.Fprintln(t, "SUITE\tRESULT\tPASSED\tFAILED\tSECONDS\tWHY")
	for _, s := range r.Suites {
		secs := "-"
		if !s.Ended.IsZero() && !s.Started.IsZero() {
			secs = fmt.Sprintf("%.1f", s.Ended.Sub(s.Started).Seconds())
		}
		why := s.Error
		for _, f := range s.Failures {
			why += " " + f.Case + ": " + f.Message
		}
		if s.Result == "" && s.Waits != "" {
			why = s.Waits
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\n", s.Name, suiteResult(s), s.Passed, s.Failed, secs, strings.TrimSpace(why))
	}
	t.Flush()
	for _, s := range r.Suites {
		if s.Manual == nil || s.Result != "" {
			continue
		}
		fmt.Fprintf(w, "manual suite %s at %s, until %s\n", s.Name, dash(s.Address), s.Manual.Until.Local().Format(time.DateTime))
		for i, step := range s.Manual.Steps {
			fmt.Fprintf(w, "  %d. %s\n", i+1, step)
		}
		for _, c := range s.Manual.Checklist {
			fmt.Fprintf(w, "  [ ] %s\n", c)
		}
		if s.Manual.Notice != "" {
			fmt.Fprintln(w, "  notice:", s.Manual.Notice)
		}
	}
}

// leftText is what the look after the run's end has found.
func leftText(r pipeline.Run) string {
	switch {
	case r.Clean == nil:
		return "nobody has looked yet whether anything of it is left"
	case r.Clean.Left == 0:
		return fmt.Sprintf("left: 0 (of %d things of ours in the cloud none is of this run)", r.Clean.Seen)
	}
	return fmt.Sprintf("LEFT: %d: %s; dayfly sweep removes what belongs to nothing", r.Clean.Left, strings.Join(r.Clean.Names, ", "))
}
