package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"text/tabwriter"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/report"
)

type reportCmd struct {
	Since string `help:"How far back, such as 24h or 30d: its day (UTC) is the first." default:"7d" placeholder:"TIME"`
	From  string `help:"The first day (UTC) in the place of --since." placeholder:"YYYY-MM-DD"`
	Until string `help:"The last day (UTC); default today." placeholder:"YYYY-MM-DD"`
}

func (reportCmd) Help() string {
	return "Cost needs a price list, and what was saved a baseline: dayfly server start --report FILE.\n\nFor example:\n\n  dayfly report --since 30d\n  dayfly report --from 2026-03-01 --until 2026-03-31 --output json"
}

func (c *reportCmd) Run(ctx context.Context, a *app) error {
	to := time.Now().UTC()
	if c.Until != "" {
		t, err := date("--until", c.Until)
		if err != nil {
			return err
		}
		to = t.AddDate(0, 0, 1)
	}
	from, err := date("--from", c.From)
	if c.From == "" {
		var back time.Duration
		back, err = days(c.Since)
		from = to.Add(-back)
	}
	if err != nil {
		return err
	}
	q := url.Values{"from": {from.Format(time.RFC3339)}, "to": {to.Format(time.RFC3339)}}
	var r report.Report
	if err := a.client.Get(ctx, "/v1/report", q, &r); err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) { showReport(w, r) })
}

func date(flag, s string) (time.Time, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return t, &fault.Error{Kind: fault.Invalid, Object: flag, Message: fmt.Sprintf("%q is no day", s), Hint: "for example 2026-03-31"}
	}
	return t, nil
}

func showReport(w io.Writer, r report.Report) {
	fmt.Fprintf(w, "from %s to %s UTC\n\n", r.From.Format("2006-01-02"), r.To.Format("2006-01-02 15:04"))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(what, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", what, fmt.Sprintf(format, args...))
	}
	l := r.Launches
	failures := "nothing is known"
	if l.Rate != nil {
		failures = fmt.Sprintf("%s (%d of %d; at most %s with 95 %% certainty)", percent(*l.Rate), l.Failed, l.Failed+l.InService, percent(*l.Bound))
	}
	line("instances that failed to start", "%s", failures)
	line("deploys", "%d: %d ready, %d failed, %d rollbacks; %s", r.Deploys.Begun, r.Deploys.Ready, r.Deploys.Failed, r.Deploys.Rollbacks, took(r.Deploys.Took))
	line("from a push to tested", "%s", took(r.Push))
	line("from another start to tested", "%s", took(r.Start))
	line("test runs", "%d: %d passed, %d failed, %d canceled", r.Tests.Runs, r.Tests.Passed, r.Tests.Failed, r.Tests.Canceled)
	line("suites", "%d: %d passed (%d flaky), %d failed", r.Tests.Suites, r.Tests.SuitesPassed, r.Tests.Flaky, r.Tests.SuitesFailed)
	line("images", "%d made, %d bakes failed; %d of %d environments current, %d late", r.Bakes.Made, r.Bakes.Failed, r.Images.Current, r.Images.Environments, r.Images.Late)
	swept := "not looked for yet"
	if !r.Orphans.Swept.IsZero() {
		swept = fmt.Sprintf("%d left at %s", r.Orphans.Left, r.Orphans.Swept.Local().Format(time.DateTime))
	}
	line("orphans", "%d removed, %s", r.Orphans.Removed, swept)
	line("instance hours", "%.1f%s", r.Hours, cost(r.Cost, ", "+r.Currency+" "))
	if s := r.Saved; s != nil {
		line("saved", "%s and %d clicks in %d deploys and %d tests: %s of the time of the former process", (time.Duration(s.Seconds) * time.Second).Round(time.Minute), s.Clicks, s.Deploys, s.Tests, percent(s.Share))
		line("measured against", "%s", s.Source)
	}
	t.Flush()
	for _, x := range []struct {
		title string
		rows  []report.Row
	}{{"ENVIRONMENT", r.Environments}, {"TEAM", r.Teams}} {
		if len(x.rows) == 0 {
			continue
		}
		fmt.Fprintln(w)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "%s\tHOURS\tCOST\tDEPLOYS\tLAUNCHED\tFAILED\tUP\n", x.title)
		for _, row := range x.rows {
			up := "-"
			if row.Uptime != nil {
				up = fmt.Sprintf("%.3f %%", 100*row.Uptime.Share)
			}
			fmt.Fprintf(t, "%s\t%.1f\t%s\t%d\t%d\t%d\t%s\n", row.Name, row.Hours, cmp.Or(cost(row.Cost, ""), "-"), row.Deploys, row.Launched, row.Failed, up)
		}
		t.Flush()
	}
	if len(r.Notes) > 0 {
		fmt.Fprintln(w)
	}
	for _, n := range r.Notes {
		fmt.Fprintln(w, "note:", n)
	}
}

func cost(c *float64, before string) string {
	if c == nil {
		return ""
	}
	return fmt.Sprintf("%s%.2f", before, *c)
}

func percent(share float64) string { return fmt.Sprintf("%.3g %%", 100*share) }

func took(t report.Took) string {
	if t.Count == 0 {
		return "none to measure"
	}
	round := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)).Round(time.Second) }
	return fmt.Sprintf("half within %s, nine of ten within %s (%d)", round(*t.Median), round(*t.P90), t.Count)
}

// figures reads the operator's file.
func (f runFlags) figures() (report.Config, error) {
	if f.Report == "" {
		return report.Config{}, nil
	}
	bad := func(err error) (report.Config, error) {
		return report.Config{}, &fault.Error{Kind: fault.Invalid, Op: "read the report's file", Object: f.Report, Message: "it cannot be read", Err: err}
	}
	file, err := os.Open(f.Report)
	if err != nil {
		return bad(err)
	}
	raw, err := io.ReadAll(io.LimitReader(file, report.MaxConfig+1))
	if err = errors.Join(err, file.Close()); err != nil {
		return bad(err)
	}
	return report.Parse(f.Report, raw)
}
