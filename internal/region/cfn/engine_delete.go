package cfn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/cfn/provider"
	"github.com/dayfly-infra/dayfly/internal/region/state"
)

// delete removes all resources of a stack, each after those that need it.
func (o *op) delete(ctx context.Context) error {
	all := map[string]resource{}
	for _, r := range o.records() {
		if r.Status != deleteComplete && r.Status != deleteSkipped {
			all[r.Logical] = r
		}
	}
	under := map[string][]string{}
	for name, r := range all {
		under[name] = r.needs()
	}
	failed := walk(turned(under, func(name string) string { return name }), false, func(name string) error { return o.dispose(ctx, all[name]) })
	if err := o.stopped(ctx, failed); err != nil {
		return err
	}
	if len(failed) > 0 {
		reason := fmt.Sprintf("The following resource(s) failed to delete: [%s]. ", strings.Join(slices.Sorted(maps.Keys(failed)), ", "))
		status := deleteFailed
		if o.kind == rollingBack {
			status = rollbackFailed
		}
		return o.status(status, reason, func(st *stack) { st.Op = "" })
	}
	if o.kind == rollingBack {
		return o.finish(rollbackComplete, func(_ *state.Tx, st *stack) error {
			st.Outputs, st.Imports = nil, nil
			return nil
		})
	}
	return o.finish(deleteComplete, func(tx *state.Tx, st *stack) error {
		st.Deleted, st.Outputs, st.Imports = o.s.now(), nil, nil
		for id, c := range o.s.sets.All(tx) {
			if c.Stack == o.id {
				o.s.sets.Delete(tx, id)
			}
		}
		o.s.prune(tx, o.id)
		return nil
	})
}

// dispose deletes a resource and what it took the place of.
func (o *op) dispose(ctx context.Context, r resource) error {
	keep := r.Deletion == "Retain" || r.Deletion == "RetainExceptOnCreate" && o.kind != rollingBack && o.kind != reverting || slices.Contains(o.st.Retain, r.Logical)
	if o.kind == rollingBack && o.st.RetainExceptOnCreate {
		keep = false
	}
	if keep && r.ID != "" {
		return stored(o.put(&r, deleteSkipped, ""))
	}
	if !r.Begun && len(r.Former) == 0 {
		return stored(o.put(&r, "", ""))
	}
	if r.Begun {
		if err := stored(o.put(&r, deleteInProgress, "")); err != nil {
			return err
		}
	}
	err := o.destroy(ctx, r)
	for _, f := range r.Former {
		if err != nil {
			break
		}
		err = o.destroy(ctx, f.resource(r))
	}
	switch {
	case err == nil:
		r.Former = nil
		return stored(o.put(&r, deleteComplete, ""))
	case context.Cause(ctx) != nil || errors.Is(err, errSuperseded) || errors.Is(err, errStore):
		return err
	}
	if perr := stored(o.put(&r, deleteFailed, because(r.Type, err))); perr != nil {
		return perr
	}
	return err
}

// needs is what a resource and what it took the place of need.
func (r resource) needs() []string {
	out := slices.Clone(r.Needs)
	for _, f := range r.Former {
		out = append(out, f.Needs...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// turned turns needs around for deleting: all that needs a thing goes before
// it. name is the resource that a thing belongs to. Needs of different times
// can make a circle; it is cut open.
func turned(needs map[string][]string, name func(string) string) map[string][]string {
	after := map[string][]string{}
	for _, k := range slices.Sorted(maps.Keys(needs)) {
		after[k] = nil
	}
	for _, k := range slices.Sorted(maps.Keys(needs)) {
		for other := range needs {
			if name(other) != name(k) && slices.Contains(needs[k], name(other)) && !reaches(after, k, other) {
				after[other] = append(after[other], k)
			}
		}
	}
	return after
}

// resource is a replaced physical resource as if it were the current one, with
// the current one among those that it is not.
func (f former) resource(r resource) resource {
	others := []former{{ID: r.ID}}
	for _, x := range r.Former {
		if x.Generation != f.Generation {
			others = append(others, x)
		}
	}
	r.ID, r.Type, r.Begun, r.Generation, r.Properties, r.Tags, r.Former = f.ID, f.Type, f.Begun, f.Generation, f.Properties, f.Tags, others
	return r
}

// destroy deletes one physical resource and waits until it is gone.
func (o *op) destroy(ctx context.Context, r resource) error {
	if !r.Begun {
		return nil
	}
	p, ok := o.s.lookup(r.Type)
	if !ok {
		return fmt.Errorf("the local region does not have the resource type %s", r.Type)
	}
	q := o.s.request(o.st, r)
	if q.ID == "" {
		id, err := p.Find(ctx, q)
		if err != nil && !provider.NotFound(err) {
			return err
		}
		if id == "" {
			return nil // the call was never made, or failed
		}
		q.ID = id
	}
	began := o.s.now()
	changed, stop := o.s.c.DB.Watch()
	defer stop()
	for pause := 50 * time.Millisecond; p.Remove != nil; pause = min(2*pause, time.Second) {
		err := p.Remove(ctx, q)
		if err == nil || provider.NotFound(err) {
			break
		}
		// What uses it may still be on its way out.
		if !provider.Busy(err) || o.s.now().Sub(began) > o.s.patience {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		case <-o.s.c.Clock.After(pause):
		}
	}
	if p.Gone == nil {
		return nil
	}
	return o.s.await(ctx, func() (bool, error) {
		ok, err := p.Gone(ctx, q)
		if provider.Busy(err) {
			err = nil
		}
		return ok, err
	})
}

// keepDeleted is how many deleted stacks are remembered.
const keepDeleted = 100

// prune forgets the oldest deleted stacks. except is the one being deleted.
func (s *Service) prune(tx *state.Tx, except string) {
	var old []stack
	for id, st := range s.stacks.All(tx) {
		if !st.live() && id != except {
			old = append(old, st)
		}
	}
	if len(old) < keepDeleted {
		return
	}
	slices.SortFunc(old, func(a, b stack) int { return a.Deleted.Compare(b.Deleted) })
	gone := map[string]bool{}
	for _, st := range old[:len(old)-keepDeleted+1] {
		s.stacks.Delete(tx, st.ID)
		gone[st.ID] = true
	}
	for k, r := range s.resources.All(tx) {
		if gone[r.Stack] {
			s.resources.Delete(tx, k)
		}
	}
	for k, e := range s.events.All(tx) {
		if gone[e.Stack] {
			s.events.Delete(tx, k)
		}
	}
}
