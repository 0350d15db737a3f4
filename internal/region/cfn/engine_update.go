package cfn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/cfn/provider"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/template/schema"
)

// update brings a stack to a revision: the next one, or, when that failed,
// back to the present one. First everything new is made and what changes is
// changed, in the order of dependencies; then what is not needed any more is
// deleted. So nothing is lost while it can still be gone back.
func (o *op) update(ctx context.Context) error {
	needs, _, err := o.s.dependencies(o.s.blank(o.st, o.rev, o.tmpl))
	if err != nil {
		return o.updateFailed(nil, because("", err))
	}
	if o.st.Status == updateCleanup || o.st.Status == revertCleanup { // it was there before a restart
		return o.cleanup(ctx, needs)
	}
	wait, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A circle of undoing is not left half done: every resource gets its turn.
	failed := walk(needs, o.kind == updating, func(name string) error {
		if err := context.Cause(wait); err != nil {
			return err
		}
		err := o.change(ctx, wait, name, needs[name])
		if err != nil && o.kind == updating {
			cancel(errors.New("Resource update cancelled"))
		}
		return err
	})
	if err := o.stopped(ctx, failed); err != nil {
		return err
	}
	if len(failed) > 0 {
		return o.updateFailed(slices.Sorted(maps.Keys(failed)), "")
	}
	outputs, imports, err := o.outputs(ctx)
	if err == nil {
		err = o.exportsFree(outputs)
	}
	if err != nil {
		return o.updateFailed(nil, because("", err))
	}
	status := updateCleanup
	if o.kind == reverting {
		status = revertCleanup
	}
	err = o.status(status, "", func(st *stack) {
		st.Outputs, st.Imports = outputs, imports
		if st.Next != nil && o.kind == updating {
			st.Now = *st.Next
		}
		st.Next = nil
	})
	if err != nil {
		return err
	}
	return o.cleanup(ctx, needs)
}

// exportsFree tells whether exports that go are used by others.
func (o *op) exportsFree(next []output) error {
	for _, old := range o.st.Outputs {
		if old.Export == "" || slices.ContainsFunc(next, func(n output) bool { return n.Export == old.Export && n.Value == old.Value }) {
			continue
		}
		var users []string
		o.s.c.DB.View(func(tx *state.Tx) { users = o.s.importers(tx, old.Export, o.id) })
		if len(users) > 0 {
			return fmt.Errorf("Export %s cannot be updated as it is in use by %s", old.Export, strings.Join(users, ", "))
		}
	}
	return nil
}

func (o *op) updateFailed(names []string, reason string) error {
	if len(names) > 0 {
		reason = fmt.Sprintf("The following resource(s) failed to update: [%s]", strings.Join(names, ", "))
	}
	reason = strings.TrimRight(reason, ".") + ". "
	if o.kind == reverting {
		return o.status(revertFailed, reason, func(st *stack) { st.Op, st.Next = "", nil })
	}
	if o.st.OnFailure == "DO_NOTHING" {
		return o.status(updateFailed, reason, func(st *stack) { st.Op, st.Next = "", nil })
	}
	return o.status(revertInProgress, reason, func(st *stack) { st.Op, st.Next = reverting, nil; st.OpNumber++ })
}

// change brings one resource to the revision.
func (o *op) change(ctx, wait context.Context, name string, needs []string) error {
	r, ok := o.s.resource(o.id, name)
	if o.kind == reverting && ok && r.OpNumber != o.number {
		if back, ok := o.takeBack(r); ok {
			return stored(o.put(&back, updateComplete, ""))
		}
	}
	if !ok || !r.Begun || r.Status == deleteComplete || r.Status == deleteSkipped {
		if ok { // it was there once: begin anew, under another token
			former := r.Former
			r = resource{Stack: o.id, Logical: name, Generation: r.Last + 1, Last: r.Last + 1, Former: former}
			if err := stored(o.put(&r, "", "")); err != nil {
				return err
			}
		}
		return o.make(ctx, wait, name, needs, createInProgress)
	}
	if r.OpNumber == o.number {
		switch r.Status {
		case createInProgress:
			return o.make(ctx, wait, name, needs, createInProgress)
		case updateInProgress:
			if r.Attempt == nil { // a replacement is being made
				return o.make(ctx, wait, name, needs, updateInProgress)
			}
		case createComplete, updateComplete:
			return nil
		case createFailed, updateFailed:
			return errors.New(r.Reason) // it failed before a restart
		}
	}
	want, err := o.evaluate(ctx, name)
	if err != nil {
		return o.failed(ctx, &r, err)
	}
	tags := o.stackTags(name)
	r.Deletion, r.Replacement = o.tmpl.Resource(name).DeletionPolicy, o.tmpl.Resource(name).UpdateReplacePolicy
	unfinished := r.Attempt != nil
	if equal(want, r.Properties) && equal(tags, r.Tags) && r.Type == o.tmpl.Resource(name).Type && !unfinished {
		r.Needs = needs
		return stored(o.put(&r, "", ""))
	}
	if o.replaces(r, want) {
		return o.replace(ctx, wait, r, needs)
	}
	both := append(slices.Clone(r.Needs), needs...) // until it is done it may need either
	slices.Sort(both)
	r.Needs = slices.Compact(both)
	if err := o.modify(ctx, wait, &r, want, tags); err != nil {
		return err
	}
	r.Needs = needs
	return stored(o.put(&r, "", ""))
}

// failed notes a resource's failure, unless it is none of the resource's.
func (o *op) failed(ctx context.Context, r *resource, err error) error {
	if context.Cause(ctx) != nil || errors.Is(err, errSuperseded) || errors.Is(err, errStore) {
		return err
	}
	if perr := stored(o.put(r, updateFailed, because(r.Type, err))); perr != nil {
		return perr
	}
	return err
}

// takeBack puts the resource in its place that the failed update replaced.
func (o *op) takeBack(r resource) (resource, bool) {
	i := slices.IndexFunc(r.Former, func(f former) bool { return f.OpNumber == o.number-1 && !f.Dead })
	if i < 0 {
		return r, false
	}
	old := r.Former[i]
	made := former{ID: r.ID, Type: r.Type, Begun: r.Begun, Generation: r.Generation, Properties: r.Properties, Tags: r.Tags, Needs: r.Needs, Dead: true}
	r.Former = append(slices.Delete(slices.Clone(r.Former), i, i+1), made)
	r.ID, r.Type, r.Begun, r.Properties, r.Tags, r.Needs = old.ID, old.Type, old.Begun, old.Properties, old.Tags, old.Needs
	r.Attempt, r.AttemptTags = nil, nil
	r.Generation = old.Generation
	return r, true
}

// replaces tells whether a change needs another physical resource.
func (o *op) replaces(r resource, want properties) bool {
	if r.Type != o.tmpl.Resource(r.Logical).Type {
		return true
	}
	d, ok := schema.Lookup(r.Type)
	if !ok {
		return false
	}
	return slices.ContainsFunc(differing(want, r.Properties), func(name string) bool {
		return d.Properties[name].Replacement == schema.Always
	})
}

func (o *op) replace(ctx, wait context.Context, r resource, needs []string) error {
	r.Former = append(slices.Clone(r.Former), former{ID: r.ID, Type: r.Type, Begun: r.Begun, Generation: r.Generation, Properties: r.Properties, Tags: r.Tags, Needs: r.Needs, OpNumber: o.number})
	r.Last++
	r.ID, r.Begun, r.Generation, r.Attempt, r.Status = "", false, r.Last, nil, updateInProgress
	r.Type = o.tmpl.Resource(r.Logical).Type
	if err := stored(o.put(&r, "", "")); err != nil {
		return err
	}
	return o.make(ctx, wait, r.Logical, needs, updateInProgress)
}

func (o *op) modify(ctx, wait context.Context, r *resource, want properties, tags map[string]string) error {
	p, ok := o.s.lookup(r.Type)
	if !ok || p.Update == nil {
		// Only the stack's tags differ, and the type has none.
		r.Tags = tags
		if !ok || !equal(want, r.Properties) {
			return o.failed(ctx, r, fmt.Errorf("the local region cannot change a %s in place", r.Type))
		}
		return stored(o.put(r, "", ""))
	}
	q := o.s.request(o.st, *r)
	q.Old, q.OldTags = r.Properties, r.Tags
	if r.Attempt != nil { // an earlier try may have changed part of it
		q.Old, q.OldTags = r.Attempt, r.AttemptTags
	}
	q.Properties, q.Tags = want, tags
	r.Attempt, r.AttemptTags = want, tags
	if err := stored(o.put(r, updateInProgress, "")); err != nil {
		return err
	}
	if err := o.retried(wait, func() error { return p.Update(ctx, q) }); err != nil {
		return o.failed(ctx, r, err)
	}
	if p.Ready != nil {
		if err := o.s.await(wait, func() (bool, error) { return p.Ready(ctx, q) }); err != nil {
			return o.failed(ctx, r, err)
		}
	}
	r.Properties, r.Tags, r.Attempt, r.AttemptTags = want, tags, nil, nil
	return stored(o.put(r, updateComplete, ""))
}

// retried repeats f while something else must go first.
func (o *op) retried(ctx context.Context, f func() error) error {
	began := o.s.now()
	var last error
	err := o.s.await(ctx, func() (bool, error) {
		last = f()
		if provider.Busy(last) && o.s.now().Sub(began) < o.s.patience {
			return false, nil
		}
		return true, last
	})
	return err
}

// cleanup deletes what the revision does not have any more. A deletion that
// fails is told of, and does not undo the update.
func (o *op) cleanup(ctx context.Context, needs map[string][]string) error {
	gone := map[string]resource{} // what goes as a whole
	old := map[string]former{}    // what was replaced, by name and generation
	owner := map[string]resource{}
	under := map[string][]string{}
	for _, r := range o.records() {
		if _, live := needs[r.Logical]; live {
			for _, f := range r.Former {
				k := fmt.Sprintf("%s#%d", r.Logical, f.Generation)
				old[k], owner[k], under[k] = f, r, f.Needs
			}
		} else if r.Status != deleteComplete && r.Status != deleteSkipped {
			gone[r.Logical], owner[r.Logical], under[r.Logical] = r, r, r.needs()
		}
	}
	failed := walk(turned(under, func(k string) string { return owner[k].Logical }), false, func(k string) error {
		if r, ok := gone[k]; ok {
			return o.dispose(ctx, r)
		}
		f, r := old[k], owner[k]
		if r.Replacement != "Retain" || f.Dead {
			if err := o.destroy(ctx, f.resource(r)); err != nil {
				return err
			}
		}
		return stored(o.commit(func(tx *state.Tx, _ stack) error {
			r, _ := o.s.resources.Get(tx, r.key())
			r.Former = slices.DeleteFunc(slices.Clone(r.Former), func(x former) bool { return x.Generation == f.Generation })
			o.s.resources.Put(tx, r.key(), r)
			return nil
		}))
	})
	if err := o.stopped(ctx, failed); err != nil {
		return err
	}
	for name, err := range failed {
		o.s.c.Log.Warn("a resource that is not needed any more was not deleted", "stack", o.st.Name, "resource", name, "error", err)
	}
	status := updateComplete
	if o.kind == reverting {
		status = revertComplete
	}
	return o.finish(status, nil)
}
