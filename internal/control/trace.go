package control

import (
	"context"
	"encoding/json"
	"errors"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/dayfly-infra/dayfly/internal/audit"
	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/trace"
)

// settle is how long after a deploy its trace is made: what its instances say
// may come a little later.
const settle = 10 * time.Second

// happened hears of each event.
func (c *Control) happened(e event.Event) {
	c.metrics.Event(e)
	if c.traces == nil || e.Kind != environment.Kind || e.Op == "" || !slices.Contains([]string{"Serving", "Switched", "DeployFailed"}, e.Reason) {
		return
	}
	select {
	case c.deployed <- e:
	default: // a trace is not worth a wait
		c.cfg.Log.Warn("a trace is not exported: too many wait", "environment", e.Name)
	}
}

// traceNowAndThen exports the traces of deploys that are over.
func (c *Control) traceNowAndThen(ctx context.Context) {
	for c.traces != nil {
		select {
		case <-ctx.Done():
			return
		case e := <-c.deployed:
			select {
			case <-ctx.Done():
				return
			case <-c.clock.After(max(0, settle-c.clock.Now().Sub(e.At))):
			}
			told, err := c.told(ctx, e)
			if err == nil {
				err = c.traces.Export(ctx, trace.Deploy(told))
			}
			if err != nil && ctx.Err() == nil {
				c.cfg.Log.Warn("a trace was not exported", "environment", e.Name, "op", e.Op, "error", err)
			}
		}
	}
}

// told gathers what was written down of a deploy.
func (c *Control) told(ctx context.Context, over event.Event) (trace.Told, error) {
	t := trace.Told{Op: over.Op, Environment: over.Name, Reports: map[string]handoff.Report{}}
	var begun time.Time
	err := newest(ctx, c.store, event.Kind, func(e event.Event) bool {
		if e.Op == over.Op {
			t.Events = append(t.Events, e)
			if e.Kind == environment.Kind && e.Reason == "DeployRequested" {
				begun = e.At
			}
		}
		return e.At.Before(begun) // others of the same moment are of it
	})
	if err != nil || len(t.Events) == 0 {
		return t, err
	}
	slices.Reverse(t.Events)
	begun = t.Events[0].At.Add(-time.Minute)
	if err := newest(ctx, c.store, audit.Kind, func(e audit.Entry) bool {
		if e.Request == over.Op {
			t.Request = &e
		}
		return t.Request != nil || e.At.Before(begun)
	}); err != nil {
		return t, err
	}
	for _, e := range t.Events {
		if e.Kind == bake.Kind && t.Bake == nil {
			b, _, err := store.Get[bake.Bake](ctx, c.store, bake.Kind, e.Name)
			if err == nil {
				t.Bake = &b
			} else if !errors.Is(err, store.ErrNotFound) {
				return t, err
			}
		}
		if e.Reason != "GenerationCreated" {
			continue
		}
		g, _, err := store.Get[environment.Generation](ctx, c.store, environment.GenerationKind, e.Name)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return t, err
		}
		is, err := store.List[instance.Instance](ctx, c.store, instance.Kind, e.Name+"/")
		if err != nil {
			return t, err
		}
		for _, i := range is {
			t.Instances = append(t.Instances, i)
			raw, err := c.cloud.Object(ctx, handoff.ReportKey(g.Environment, strconv.Itoa(g.Number), i.ID), 64<<10)
			var r handoff.Report
			if err == nil && json.Unmarshal(raw, &r) == nil {
				t.Reports[path.Base(i.ID)] = r
			}
		}
	}
	return t, nil
}

// newest goes through records that are named by time, from the last one, until f
// has enough; it looks at 20,000 at most.
func newest[T any](ctx context.Context, st store.Store, kind string, f func(T) (enough bool)) error {
	r := store.Range{Limit: 500, Reverse: true}
	for range 40 {
		rs, err := st.Page(ctx, kind, r)
		if err != nil {
			return err
		}
		for _, rec := range rs {
			var v T
			if err := json.Unmarshal(rec.Body, &v); err != nil {
				return err
			}
			if f(v) {
				return nil
			}
			r.After = rec.Name
		}
		if len(rs) < r.Limit {
			return nil
		}
	}
	return nil
}
