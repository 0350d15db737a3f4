package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
)

// book is a report that is being made.
type book struct {
	in       Input
	r        *Report
	envs     map[string]environment.Environment
	runOf    map[string]pipeline.Run
	team     map[string]string // by blueprint
	rows     map[string]*Row
	unpriced map[string]bool
	since    time.Time // from when on hours are known
	// deploys and tests that can be compared with the former process.
	ready, tested []compared
}

// compared is how long something took, and whether somebody clicked for it.
type compared struct {
	seconds float64
	click   bool
}

func books(in Input, r *Report) *book {
	b := &book{in: in, r: r, envs: map[string]environment.Environment{}, runOf: map[string]pipeline.Run{}, team: map[string]string{}, rows: map[string]*Row{}, unpriced: map[string]bool{}}
	for _, e := range in.Environments {
		b.envs[e.Name] = e
	}
	latest := map[string]time.Time{}
	for _, v := range in.Runs {
		b.runOf[v.Name] = v
		if v.Team != "" && !v.Created.Before(latest[v.Blueprint]) {
			latest[v.Blueprint], b.team[v.Blueprint] = v.Created, v.Team
		}
	}
	return b
}

func (b *book) within(t time.Time) bool { return !t.Before(b.in.From) && t.Before(b.in.To) }

func (b *book) isTest(name string) bool {
	if e, ok := b.envs[name]; ok {
		return e.Run != ""
	}
	return b.run(name) != nil
}

// run is the run that an environment belongs to, or that has the name itself.
func (b *book) run(name string) *pipeline.Run {
	for _, n := range []string{b.envs[name].Run, name, pipeline.RunOf(name)} {
		if v, ok := b.runOf[n]; ok {
			return &v
		}
	}
	return nil
}

// row is where an environment is counted.
func (b *book) row(name string) *Row {
	key, row := name, Row{Name: name}
	e, known := b.envs[name]
	switch run := b.run(name); {
	case run != nil && (!known || e.Run != ""):
		key, row = "tests of\x00"+run.Blueprint, Row{Name: run.Blueprint + ": test runs", Tests: true, Team: cmp.Or(run.Team, b.team[run.Blueprint], run.Blueprint)}
	case known:
		row.Team = cmp.Or(b.team[e.Blueprint], e.Blueprint)
	default:
		row.Team = "unknown"
	}
	if b.rows[key] == nil {
		b.rows[key] = &row
	}
	return b.rows[key]
}

// tallies counts launches and hours: of instances that are gone by tallies, of
// those that live by their records.
func (b *book) tallies() {
	alive := slices.DeleteFunc(slices.Clone(b.in.Instances), func(i instance.Instance) bool { return i.State == instance.Gone })
	first := ""
	for _, t := range slices.Concat(b.in.Tallies, Lives(alive, b.in.Now)) {
		if first == "" || t.Day < first {
			first = t.Day
		}
		d, err := time.Parse(dayForm, t.Day)
		if err != nil || !b.within(d) {
			continue
		}
		row := b.row(t.Environment)
		l := &b.r.Launches
		l.Launched, l.InService, l.Failed = l.Launched+t.Launched, l.InService+t.InService, l.Failed+t.Failed
		row.Launched, row.Failed = row.Launched+t.Launched, row.Failed+t.Failed
		for kind, s := range t.Seconds {
			h := s / 3600
			b.r.Hours, row.Hours = b.r.Hours+h, row.Hours+h
			if len(b.in.Config.Prices) == 0 {
				continue
			}
			price, ok := b.in.Config.Prices[kind]
			if !ok && h > 0 {
				b.unpriced[kind] = true
			}
			add(&row.Cost, h*price)
			add(&b.r.Cost, h*price)
		}
	}
	b.since, _ = time.Parse(dayForm, first)
	if l := &b.r.Launches; l.InService+l.Failed > 0 {
		n := l.InService + l.Failed
		rate, up := float64(l.Failed)/float64(n), bound(l.Failed, n)
		l.Rate, l.Bound = &rate, &up
	}
}

func add(to **float64, v float64) {
	if *to == nil {
		*to = new(float64)
	}
	**to += v
}

func (b *book) deploys() {
	var seconds []float64
	d := &b.r.Deploys
	for _, g := range b.in.Generations {
		if !b.within(g.Created) || b.isTest(g.Environment) {
			continue
		}
		d.Begun++
		b.row(g.Environment).Deploys++
		switch {
		case !g.Ready.IsZero():
			d.Ready++
			s := g.Ready.Sub(g.Created).Seconds()
			seconds = append(seconds, s)
			b.ready = append(b.ready, compared{s, true})
		case g.Error != "" || g.Phase == environment.Failed:
			d.Failed++
		}
	}
	d.Took = took(seconds)
}

// pushed are the kinds of causes that are a forge's hook.
var pushed = []string{"github", "gitlab", "hmac"}

func (b *book) runs() {
	var push, start []float64
	t := &b.r.Tests
	for _, v := range b.in.Runs {
		if !b.within(v.Created) {
			continue
		}
		t.Runs++
		var last time.Time
		whole := v.Phase == pipeline.Done && len(v.Suites) > 0
		for _, s := range v.Suites {
			if s.Ended.IsZero() {
				whole = false
				continue
			}
			if s.Ended.After(last) {
				last = s.Ended
			}
			if s.Result == pipeline.Canceled {
				whole = false
				continue
			}
			t.Suites++
			switch {
			case !s.OK():
				t.SuitesFailed++
			case s.Flaky:
				t.Flaky++
				fallthrough
			default:
				t.SuitesPassed++
			}
		}
		switch {
		case v.Phase != pipeline.Done:
			continue
		case v.Cancel:
			t.Canceled++
			continue
		case v.Passed:
			t.Passed++
		default:
			t.Failed++
		}
		if !whole {
			continue
		}
		s := last.Sub(v.Created).Seconds()
		b.tested = append(b.tested, compared{s, v.Cause == nil})
		switch {
		case !v.Passed:
		case v.Cause != nil && slices.Contains(pushed, v.Cause.Kind):
			push = append(push, s)
		default:
			start = append(start, s)
		}
	}
	b.r.Push, b.r.Start = took(push), took(start)
}

// saved compares with the former process, where the operator says what it was.
func (b *book) saved() {
	base := b.in.Config.Baseline
	if base == nil {
		return
	}
	v := Saved{Source: base.Source}
	var before float64
	compare := func(f *Former, list []compared) int {
		if f == nil {
			return 0
		}
		for _, c := range list {
			before += f.Time.Seconds()
			v.Seconds += f.Time.Seconds() - c.seconds
			v.Clicks += f.Clicks
			if c.click {
				v.Clicks--
			}
		}
		return len(list)
	}
	v.Deploys, v.Tests = compare(base.Deploy, b.ready), compare(base.Test, b.tested)
	if before == 0 {
		b.note("Nothing that the baseline speaks of ended in the period, so nothing was compared.")
		return
	}
	v.Share = v.Seconds / before
	b.r.Saved = &v
}

// mostRows is how many environments are listed; the rest is one row.
const mostRows = 200

func (b *book) finish() {
	teams := map[string]*Row{}
	for _, row := range b.rows {
		b.r.Environments = append(b.r.Environments, *row)
		t := teams[row.Team]
		if t == nil {
			t = &Row{Name: row.Team}
			teams[row.Team] = t
		}
		t.take(*row)
	}
	for _, t := range teams {
		b.r.Teams = append(b.r.Teams, *t)
	}
	order := func(x, y Row) int { return cmp.Or(cmp.Compare(y.Hours, x.Hours), cmp.Compare(x.Name, y.Name)) }
	slices.SortFunc(b.r.Environments, order)
	slices.SortFunc(b.r.Teams, order)
	b.r.Environments, b.r.Teams = head(b.r.Environments), head(b.r.Teams)
	b.r.Unpriced = slices.Sorted(maps.Keys(b.unpriced))
}

func head(rows []Row) []Row {
	if len(rows) <= mostRows {
		return rows
	}
	rest := Row{Name: fmt.Sprintf("%d others", len(rows)-mostRows)}
	for _, r := range rows[mostRows:] {
		rest.take(r)
	}
	return append(rows[:mostRows:mostRows], rest)
}

func (r *Row) take(o Row) {
	r.Launched, r.Failed, r.Deploys, r.Hours = r.Launched+o.Launched, r.Failed+o.Failed, r.Deploys+o.Deploys, r.Hours+o.Hours
	if o.Cost != nil {
		add(&r.Cost, *o.Cost)
	}
}

func (b *book) note(format string, args ...any) {
	b.r.Notes = append(b.r.Notes, fmt.Sprintf(format, args...))
}

// notes say what is not known.
func (b *book) notes() {
	in := b.in
	began := in.Now // of the first generation
	for _, g := range in.Generations {
		if g.Created.Before(began) {
			began = g.Created
		}
	}
	if began.Before(in.From) {
		began = in.From
	}
	switch {
	case b.since.IsZero() && began.Before(in.To) && len(in.Generations) > 0:
		b.note("Hours and launches are not known: nothing that was launched was counted.")
	case !b.since.IsZero() && b.since.After(began):
		b.note("Hours and launches are known from %s on; what ended before was not counted.", b.since.Format(dayForm))
	}
	if in.Oldest.IsZero() || in.Oldest.After(in.From) && in.Oldest.After(began.Add(time.Minute)) {
		since := "No events are kept"
		if !in.Oldest.IsZero() {
			since = "Events are kept from " + in.Oldest.UTC().Format("2006-01-02 15:04 MST") + " on"
		}
		b.note("%s: uptime, rollbacks and removed orphans of the time before are not known.", since)
	}
	if in.Swept.IsZero() {
		b.note("The server has not looked for orphans since it began.")
	}
	switch {
	case len(in.Config.Prices) == 0:
		b.note("Without a price list there is no cost.")
	case len(b.unpriced) > 0:
		b.note("The cost is without that of %s, which have no price.", strings.Join(b.r.Unpriced, ", "))
	}
	if in.Config.Baseline == nil {
		b.note("Without a baseline of the former process there is nothing to compare with.")
	}
}
