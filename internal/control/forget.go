package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/release"
	"github.com/dayfly-infra/dayfly/internal/report"
	"github.com/dayfly-infra/dayfly/internal/retention"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// mostForgotten is how many records are written at once: others want to write
// meanwhile.
const mostForgotten = 500

// policy is what is kept of what is over. Reports count what began in the last
// days that they can be asked for; a day more, since they are of whole days.
func (cfg Config) policy() (retention.Policy, error) {
	p, err := retention.Keeping(cfg.Keep)
	p.Reports = (report.KeepDays + 1) * 24 * time.Hour
	return p, err
}

// forget removes the records of what is over for long enough, with their intents
// and what they have in the bucket. It can be killed at any instruction: files go
// first, and while the record is there they are found again.
func (c *Control) forget(ctx context.Context) error {
	epoch, active := c.engine.Owner()
	if !active {
		return nil
	}
	p, err := c.cfg.policy()
	if err != nil {
		return err
	}
	return c.forgetBy(cloud.WithPriority(reconcile.WithEpoch(ctx, epoch), cloud.Sweep), p)
}

func (c *Control) forgetBy(ctx context.Context, p retention.Policy) error {
	now := c.clock.Now()
	r, err := c.remains(ctx)
	if err != nil {
		return err
	}
	fate := retention.Judge(r.list, p, now)
	var errs []error
	var groups [][]store.Write
	parts := map[string][]store.Write{} // of environments: their generations go with them, or not at all
	for _, v := range r.list {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rec := r.records[v.Key]
		if rec.Kind == pipeline.Kind && fate[v.Key] != retention.Whole {
			if rec.Version, err = c.empty(ctx, r.runs[rec.Name], rec.Version); err != nil {
				errs = append(errs, err)
				continue
			}
			r.records[v.Key] = rec
		}
		if fate[v.Key] != retention.Forgotten {
			continue
		}
		switch rec.Kind {
		case release.Kind:
			if rec.Version, err = c.unmirror(ctx, r.rels[rec.Name], rec.Version); err != nil {
				errs = append(errs, err)
				continue
			}
			r.records[v.Key] = rec
			delete(r.intents, v.Key) // they had to go before the record
			groups = append(groups, r.deletes(v.Key, now))
		case environment.Kind:
			parts[v.Key] = append(parts[v.Key], r.deletes(v.Key, now)...)
		case environment.GenerationKind:
			if _, there := r.records[v.Of]; there && fate[v.Of] == retention.Forgotten {
				parts[v.Of] = append(parts[v.Of], r.deletes(v.Key, now)...)
				continue
			}
			fallthrough
		default:
			groups = append(groups, r.deletes(v.Key, now))
		}
	}
	for _, ws := range parts {
		groups = append(groups, ws)
	}
	with := map[string]bool{} // intents that go with their objects
	for _, ws := range groups {
		for _, w := range ws {
			with[w.Kind+"/"+w.Name] = true
		}
	}
	for _, i := range r.old {
		if !with[i.Kind+"/"+i.Name] && now.Sub(i.Updated) >= p.Keep {
			groups = append(groups, []store.Write{store.Delete(i.Kind, i.Name, i.Version)})
		}
	}
	return errors.Join(append(errs, c.forgetAll(ctx, groups))...)
}

// empty removes what the suites of a run left in the bucket, and notes that in
// its record.
func (c *Control) empty(ctx context.Context, r pipeline.Run, version int64) (int64, error) {
	if !r.Emptied.IsZero() {
		return version, nil
	}
	object := pipeline.Kind + "/" + r.Name
	if err := c.cloud.DeletePrefix(ctx, cloud.Intent{ID: object + "/empty/1", Object: object}, pipeline.ResultsOf(r.Name)); err != nil {
		return version, fmt.Errorf("%s: %w", object, err)
	}
	r.Emptied = c.clock.Now()
	err := c.store.Apply(ctx, reconcile.Epoch(ctx), store.Put(pipeline.Kind, r.Name, version, r))
	if err == nil {
		version, err = version+1, c.cloud.PruneIntents(ctx, object)
	}
	return version, err
}

// unmirror removes the mirror of a release. From the moment on when its record
// says so nobody takes it: whoever wants it then waits until it is gone, and
// mirrors it anew.
func (c *Control) unmirror(ctx context.Context, l release.Release, version int64) (int64, error) {
	object := release.Kind + "/" + l.Name
	prefix := mirror(l, c.cloud.Bucket())
	if prefix == "" {
		return version, &fault.Error{Kind: fault.Denied, Op: "forget a release", Object: l.Name, Message: "its mirror " + l.Mirror + " is not in this server's bucket, so both stay"}
	}
	if l.Ending.IsZero() {
		l.Ending = c.clock.Now()
		if err := c.store.Apply(ctx, reconcile.Epoch(ctx), store.Put(release.Kind, l.Name, version, l)); err != nil {
			return version, err
		}
		version++
	}
	if err := c.cloud.DeletePrefix(ctx, cloud.Intent{ID: object + "/unmirror/1", Object: object}, prefix); err != nil {
		return version, fmt.Errorf("%s: %w", object, err)
	}
	// Before the record: a done intent would say that it is mirrored.
	return version, c.cloud.PruneIntents(ctx, object)
}

// forgetAll writes groups, each all or nothing, some at once.
func (c *Control) forgetAll(ctx context.Context, groups [][]store.Write) error {
	write := func(ws []store.Write) error {
		err := c.store.Apply(ctx, reconcile.Epoch(ctx), ws...)
		if err == nil {
			for _, w := range ws {
				if w.Body == nil {
					c.metrics.Forgot(w.Kind)
				}
			}
		}
		return err
	}
	for len(groups) > 0 {
		var batch []store.Write
		n := 0
		for n < len(groups) && (n == 0 || len(batch)+len(groups[n]) <= mostForgotten) {
			batch = append(batch, groups[n]...)
			n++
		}
		err := write(batch)
		if errors.Is(err, store.ErrConflict) {
			// Something lives again, or was forgotten by others: the rest goes.
			for _, g := range groups[:n] {
				if err = write(g); err != nil && !errors.Is(err, store.ErrConflict) {
					return err
				}
			}
			err = nil
		}
		if err != nil {
			return err
		}
		groups = groups[n:]
	}
	return nil
}

// emptied says of files of a run that they are not kept any more.
func emptied(r pipeline.Run, file string) error {
	return &fault.Error{Kind: fault.NotFound, Object: "run " + r.Name, Message: strings.TrimSpace("what its suites left was removed on " + r.Emptied.UTC().Format("2006-01-02") + ": " + file), Hint: "dayfly server start --keep says how long it is kept"}
}
