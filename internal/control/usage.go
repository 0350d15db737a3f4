package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/dayfly-infra/dayfly/internal/audit"
	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/report"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Usage implements server.Usage. One report is made at a time: it reads much.
func (c *Control) Usage(ctx context.Context, from, to time.Time) (report.Report, error) {
	now := c.clock.Now()
	from, to, err := report.Period(from, to, now)
	if err != nil {
		return report.Report{}, err
	}
	c.reporting.Lock()
	defer c.reporting.Unlock()
	in := report.Input{Now: now, From: from, To: to, Config: c.cfg.Report}
	var errs [7]error
	in.Environments, errs[0] = store.List[environment.Environment](ctx, c.store, environment.Kind, "")
	in.Generations, errs[1] = store.List[environment.Generation](ctx, c.store, environment.GenerationKind, "")
	in.Instances, errs[2] = store.List[instance.Instance](ctx, c.store, instance.Kind, "")
	in.Runs, errs[3] = store.List[pipeline.Run](ctx, c.store, pipeline.Kind, "")
	in.Tallies, errs[4] = store.List[report.Tally](ctx, c.store, report.TallyKind, "")
	in.Images, errs[5] = c.Currency(ctx)
	in.Events, in.Oldest, errs[6] = c.eventsUntil(ctx, to)
	if err := errors.Join(errs[:]...); err != nil {
		return report.Report{}, err
	}
	if err := each(ctx, c, bake.Kind, func(b bake.Bake) {
		if !b.Ended.IsZero() && !b.Cancel {
			in.Bakes = append(in.Bakes, report.Bake{Ended: b.Ended, Failed: b.Error != ""})
		}
	}); err != nil {
		return report.Report{}, err
	}
	if s := c.swept.Load(); s != nil {
		in.Swept, in.Orphans = s.at, s.orphans
	}
	return report.Make(in), nil
}

// eventsUntil reads the events that a report is made of, up to its end, and when the
// oldest event was that is kept. Those of before its beginning tell what was
// there when it began.
func (c *Control) eventsUntil(ctx context.Context, to time.Time) (out []event.Event, oldest time.Time, err error) {
	r := store.Range{Limit: 1000}
	end := audit.Name(to)
	for {
		rs, err := c.store.Page(ctx, event.Kind, r)
		if err != nil {
			return nil, oldest, err
		}
		for _, rec := range rs {
			var e event.Event
			if err := json.Unmarshal(rec.Body, &e); err != nil {
				return nil, oldest, fmt.Errorf("record %s %s: %w", rec.Kind, rec.Name, err)
			}
			if oldest.IsZero() {
				oldest = e.At
			}
			if rec.Name >= end {
				return out, oldest, nil
			}
			switch e.Kind {
			case environment.Kind, instance.Kind, "orphan":
				out = append(out, e)
			}
		}
		if len(rs) < r.Limit {
			return out, oldest, nil
		}
		r.After = rs[len(rs)-1].Name
	}
}

// tidyTallies keeps few records of days that are over, and none of those long ago.
func (c *Control) tidyTallies(ctx context.Context, now time.Time) error {
	rs, err := c.store.List(ctx, report.TallyKind, "")
	if err != nil {
		return err
	}
	versions := map[string]int64{}
	days := map[string][]report.Tally{}
	for _, r := range rs {
		var t report.Tally
		if err := json.Unmarshal(r.Body, &t); err != nil {
			return fmt.Errorf("record %s %s: %w", r.Kind, r.Name, err)
		}
		versions[r.Name] = r.Version
		days[t.Day] = append(days[t.Day], t)
	}
	var errs []error
	for _, list := range days {
		remove, put := report.Tidy(list, now)
		var ws []store.Write
		for _, name := range remove {
			ws = append(ws, store.Delete(report.TallyKind, name, versions[name]))
		}
		for _, t := range put {
			ws = append(ws, store.Put(report.TallyKind, t.Name(), versions[t.Name()], t))
		}
		if len(ws) > 0 {
			errs = append(errs, c.store.Apply(ctx, store.NoEpoch, ws...))
		}
	}
	return errors.Join(errs...)
}
