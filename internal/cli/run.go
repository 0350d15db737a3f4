package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/server"
)

type runCmd struct {
	Start     runStartCmd     `cmd:"" help:"Start a run of the whole pipeline: stages, gates, manual suites, deploys."`
	List      runListCmd      `cmd:"" default:"1" help:"List runs."`
	Show      runShowCmd      `cmd:"" help:"Show a run: stages, suites, what failed, what it waits for."`
	Watch     runWatchCmd     `cmd:"" help:"Follow a run until it is over. Ctrl-C ends the watching, not the run."`
	Cancel    runCancelCmd    `cmd:"" help:"End a run and everything that it launched."`
	Approve   runApproveCmd   `cmd:"" help:"Let a run go on at a gate."`
	Reject    runRejectCmd    `cmd:"" help:"Stop a run at a gate."`
	Pass      runPassCmd      `cmd:"" help:"Say that a manual suite passed."`
	Fail      runFailCmd      `cmd:"" help:"Say that a manual suite failed, and why."`
	Logs      runLogsCmd      `cmd:"" help:"Print what a suite's command printed, also while it runs."`
	Artifacts runArtifactsCmd `cmd:"" help:"List, or fetch, the files that a suite left."`
}

type runStartCmd struct {
	Dir    string `arg:"" help:"The blueprint's folder."`
	Detach bool   `help:"Do not wait."`
}

func (c *runStartCmd) Run(ctx context.Context, a *app) error {
	r, err := a.startRun(ctx, c.Dir, server.Test{Full: true})
	if err != nil {
		return err
	}
	if c.Detach {
		return a.begun(r)
	}
	return a.watchRun(ctx, r)
}

// startRun sends a blueprint and starts a run of it.
func (a *app) startRun(ctx context.Context, dir string, t server.Test) (r pipeline.Run, err error) {
	b, err := a.send(ctx, dir)
	if err != nil {
		return r, err
	}
	t.Files = b.Digest
	err = a.client.Post(ctx, "/v1/runs", nil, t, &r)
	return r, err
}

// begun says how to follow a run that nobody waits for.
func (a *app) begun(r pipeline.Run) error {
	return a.print(r, func(w io.Writer) { fmt.Fprintln(w, r.Name, "has begun; dayfly run watch", r.Name, "follows it") })
}

// watchRun follows a run that goes on by itself.
func (a *app) watchRun(ctx context.Context, r pipeline.Run) error {
	r, err := a.followRun(ctx, r, false)
	if errors.Is(err, context.Canceled) {
		fmt.Fprintf(a.err, "%s goes on; dayfly run watch %s follows it again, dayfly run cancel %s ends it\n", r.Name, r.Name, r.Name)
		return err
	}
	if err != nil {
		return err
	}
	if err := a.print(r, func(w io.Writer) { runText(w, r) }); err != nil {
		return err
	}
	return runVerdict(r)
}

func runVerdict(r pipeline.Run) error {
	if r.Passed {
		return nil
	}
	why := "not every suite passed"
	for _, s := range r.Stages {
		if s.Result != pipeline.Passed && s.Required {
			why = fmt.Sprintf("the stage %s is %s: %s", s.Name, s.Result, s.Why)
			break
		}
	}
	return &fault.Error{Kind: fault.Failed, Op: "run", Object: r.Name, Message: why}
}

type runWatchCmd struct {
	Name string `arg:""`
}

func (c *runWatchCmd) Run(ctx context.Context, a *app) error {
	r, err := client.One[pipeline.Run](ctx, a.client, "runs", c.Name)
	if err != nil {
		return err
	}
	return a.watchRun(ctx, r)
}

type runShowCmd struct {
	Name string `arg:""`
}

func (c *runShowCmd) Run(ctx context.Context, a *app) error {
	r, err := client.One[pipeline.Run](ctx, a.client, "runs", c.Name)
	if err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) { runText(w, r) })
}

type runCancelCmd struct {
	Name string `arg:""`
}

func (c *runCancelCmd) Run(ctx context.Context, a *app) error {
	var r pipeline.Run
	if err := a.client.Delete(ctx, "/v1/runs/"+c.Name, &r); err != nil {
		return err
	}
	r, err := a.followRun(ctx, r, true)
	if err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) { fmt.Fprintln(w, r.Name, "is over;", leftText(r)) })
}

type runListCmd struct {
	All bool `help:"All of them, not only the newest 50."`
}

func (c *runListCmd) Run(ctx context.Context, a *app) error {
	rs, err := client.List[pipeline.Run](ctx, a.client, "runs", "")
	if err != nil {
		return err
	}
	slices.SortStableFunc(rs, func(x, y pipeline.Run) int { return x.Created.Compare(y.Created) })
	if !c.All && len(rs) > 50 {
		rs = rs[len(rs)-50:]
	}
	return a.print(rs, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tPHASE\tRESULT\tSUITES\tBY\tBEGAN\tWAITS FOR")
		for _, r := range rs {
			waits := "-"
			if r.Blocker != nil {
				waits = r.Blocker.Message
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", r.Name, r.Phase, runResult(r), len(r.Suites), dash(r.By), r.Created.Local().Format(time.DateTime), waits)
		}
		t.Flush()
	})
}

func runResult(r pipeline.Run) string {
	switch {
	case r.Phase != pipeline.Done:
		return "-"
	case r.Cancel:
		return "canceled"
	case r.Passed:
		return "passed"
	}
	return "failed"
}

type runApproveCmd struct {
	Name     string `arg:"" help:"The run."`
	Stage    string `arg:"" help:"The gate's stage."`
	Comment  string `short:"m" help:"Why; it stays on record."`
	Override bool   `help:"Decide as an administrator, though the gate is for others. It stays on record."`
}

func (c *runApproveCmd) Run(ctx context.Context, a *app) error {
	return a.decide(ctx, c.Name, c.Stage, server.Decision{Passed: true, Comment: c.Comment, Override: c.Override})
}

type runRejectCmd runApproveCmd

func (c *runRejectCmd) Run(ctx context.Context, a *app) error {
	return a.decide(ctx, c.Name, c.Stage, server.Decision{Comment: c.Comment, Override: c.Override})
}

func (a *app) decide(ctx context.Context, run, stage string, v server.Decision) error {
	var r pipeline.Run
	if err := a.client.Post(ctx, "/v1/runs/"+url.PathEscape(run)+"/stages/"+url.PathEscape(stage)+"/verdict", nil, v, &r); err != nil {
		return err
	}
	word := "rejected"
	if v.Passed {
		word = "approved"
	}
	return a.print(r, func(w io.Writer) { fmt.Fprintf(w, "%s: %s is %s\n", r.Name, stage, word) })
}

type runPassCmd struct {
	Name    string   `arg:"" help:"The run."`
	Suite   string   `arg:"" help:"The manual suite."`
	Comment string   `short:"m" help:"What was seen."`
	Checked []string `help:"Point of the checklist that holds; all: every one." placeholder:"POINT" sep:"none"`
	Attach  []string `help:"File to attach, at most 16 MiB; 20 in all." type:"existingfile" placeholder:"FILE" sep:"none"`
}

func (c *runPassCmd) Run(ctx context.Context, a *app) error { return a.judge(ctx, *c, true) }

type runFailCmd runPassCmd

func (c *runFailCmd) Run(ctx context.Context, a *app) error {
	return a.judge(ctx, runPassCmd(*c), false)
}

func (a *app) judge(ctx context.Context, c runPassCmd, passed bool) error {
	v := server.Decision{Passed: passed, Comment: c.Comment, Checked: c.Checked}
	r, err := client.One[pipeline.Run](ctx, a.client, "runs", c.Name)
	if err != nil {
		return err
	}
	if s := r.Suite(c.Suite); s != nil && s.Manual != nil && slices.Equal(c.Checked, []string{"all"}) {
		v.Checked = s.Manual.Checklist
	}
	at := "/v1/runs/" + url.PathEscape(c.Name) + "/suites/" + url.PathEscape(c.Suite)
	for _, f := range c.Attach {
		st, err := os.Stat(f)
		if err != nil {
			return err
		}
		if st.Size() > pipeline.MaxAttachment {
			return &fault.Error{Kind: fault.Invalid, Op: "attach", Object: f, Message: fmt.Sprintf("it has %d bytes, and may have %d", st.Size(), pipeline.MaxAttachment)}
		}
		raw, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if err := a.client.Put(ctx, at+"/attachments/"+url.PathEscape(filepath.Base(f)), raw, &r); err != nil {
			return err
		}
	}
	if err := a.client.Post(ctx, at+"/verdict", nil, v, &r); err != nil {
		return err
	}
	word := "failed"
	if passed {
		word = "passed"
	}
	return a.print(r, func(w io.Writer) { fmt.Fprintf(w, "%s: %s has %s\n", r.Name, c.Suite, word) })
}

type runLogsCmd struct {
	Name   string `arg:"" help:"The run."`
	Suite  string `arg:"" help:"The suite."`
	Follow bool   `short:"f" help:"Go on until its command has ended."`
}

func (c *runLogsCmd) Run(ctx context.Context, a *app) error {
	shown := ""
	return a.wait(ctx, func() (bool, error) {
		// The suite before its log: when it has ended, its log is complete.
		r, err := client.One[pipeline.Run](ctx, a.client, "runs", c.Name)
		if err != nil {
			return false, err
		}
		s := r.Suite(c.Suite)
		over := !c.Follow || r.Phase == pipeline.Done || (s != nil && s.Result != "")
		var raw []byte
		err = a.client.Get(ctx, "/v1/runs/"+url.PathEscape(c.Name)+"/suites/"+url.PathEscape(c.Suite)+"/log.txt", nil, &raw)
		if err != nil && (fault.KindOf(err) != fault.NotFound || s == nil || over) {
			return false, err
		}
		shown = more(a.out, shown, string(raw))
		return over, nil
	})
}

// more prints what is new of a log of which only the end is kept, and returns
// what was seen of it.
func more(w io.Writer, before, now string) string {
	if now == "" {
		return before
	}
	fresh := now
	if n := min(len(before), 200); n > 0 {
		if i := strings.LastIndex(now, before[len(before)-n:]); i >= 0 {
			fresh = now[i+n:]
		} else {
			fresh = "[…]\n" + now
		}
	}
	io.WriteString(w, fresh)
	return now
}

type runArtifactsCmd struct {
	Name  string `arg:"" help:"The run."`
	Suite string `arg:"" help:"The suite."`
	To    string `help:"Folder to put them into; without it they are listed." placeholder:"DIR"`
}

func (c *runArtifactsCmd) Run(ctx context.Context, a *app) error {
	at := "/v1/runs/" + url.PathEscape(c.Name) + "/suites/" + url.PathEscape(c.Suite)
	var files []string
	if err := a.client.Get(ctx, at+"/files", nil, &files); err != nil {
		return err
	}
	if c.To == "" {
		return a.print(files, func(w io.Writer) {
			for _, f := range files {
				fmt.Fprintln(w, f)
			}
		})
	}
	root, err := newRoot(c.To)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range files {
		var raw []byte
		if err := a.client.Get(ctx, at+"/file", url.Values{"path": {f}}, &raw); err != nil {
			return err
		}
		if err := root.MkdirAll(filepath.Dir(filepath.FromSlash(f)), 0o755); err != nil {
			return err
		}
		if err := root.WriteFile(filepath.FromSlash(f), raw, 0o644); err != nil { // never outside, whatever its name
			return err
		}
	}
	return a.print(files, func(w io.Writer) { fmt.Fprintf(w, "%d files in %s\n", len(files), c.To) })
}

func newRoot(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return os.OpenRoot(dir)
}
