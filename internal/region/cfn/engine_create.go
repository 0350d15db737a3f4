package cfn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/template"
)

// create makes all resources of a new stack.
func (o *op) create(ctx context.Context) error {
	needs, _, err := o.s.dependencies(o.s.blank(o.st, o.rev, o.tmpl))
	if err != nil {
		return o.createFailed(nil, because("", err))
	}
	wait, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !o.st.Deadline.IsZero() {
		go func() {
			select {
			case <-wait.Done():
			case <-o.s.c.Clock.After(o.st.Deadline.Sub(o.s.now())):
				cancel(errTimeout)
			}
		}()
	}
	failed := walk(needs, true, func(name string) error {
		if err := context.Cause(wait); err != nil {
			return err
		}
		err := o.make(ctx, wait, name, needs[name], createInProgress)
		if err != nil {
			cancel(errCancelled)
		}
		return err
	})
	if err := o.stopped(ctx, failed); err != nil {
		return err
	}
	if errors.Is(context.Cause(wait), errTimeout) {
		return o.createFailed(nil, errTimeout.Error())
	}
	if len(failed) > 0 {
		names := slices.DeleteFunc(slices.Sorted(maps.Keys(failed)), func(name string) bool {
			r, ok := o.s.resource(o.id, name)
			return !ok || r.Status != createFailed // it was not begun
		})
		return o.createFailed(names, "")
	}
	outputs, imports, err := o.outputs(ctx)
	if err != nil {
		return o.createFailed(nil, because("", err))
	}
	return o.finish(createComplete, func(tx *state.Tx, st *stack) error {
		st.Outputs, st.Imports = outputs, imports
		return nil
	})
}

// stopped tells whether an operation ended for another reason than its
// resources: the region stops, or another operation took its place.
func (o *op) stopped(ctx context.Context, failed map[string]error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for _, err := range failed {
		if errors.Is(err, errSuperseded) || errors.Is(err, errStore) {
			return err
		}
	}
	return nil
}

// finish ends an operation well.
func (o *op) finish(status string, f func(*state.Tx, *stack) error) error {
	return o.commit(func(tx *state.Tx, st stack) error {
		st.Status, st.Reason, st.Op = status, "", ""
		if f != nil {
			if err := f(tx, &st); err != nil {
				return err
			}
		}
		o.s.stackEvent(tx, st)
		return nil
	})
}

// createFailed turns a creation that failed into what is to follow.
func (o *op) createFailed(names []string, reason string) error {
	if len(names) > 0 {
		reason = fmt.Sprintf("The following resource(s) failed to create: [%s]", strings.Join(names, ", "))
	}
	reason = strings.TrimRight(reason, ".") + ". "
	switch o.st.OnFailure {
	case "DO_NOTHING":
		return o.status(createFailed, reason, func(st *stack) { st.Op = "" })
	case "DELETE":
		return o.status(deleteInProgress, reason+"Delete requested by user.", func(st *stack) { st.Op = deleting; st.OpNumber++ })
	}
	return o.status(rollbackInProgress, reason+"Rollback requested by user.", func(st *stack) { st.Op = rollingBack; st.OpNumber++ })
}

// errStore is an error of the database and not of a resource.
var errStore = errors.New("the database failed")

func stored(err error) error {
	if err == nil || errors.Is(err, errSuperseded) {
		return err
	}
	return fmt.Errorf("%w: %w", errStore, err)
}

// make creates a resource, or goes on with creating it. ctx is for calls, wait
// for waiting: a call that is under way when something else fails is let end,
// so that its result is known.
func (o *op) make(ctx, wait context.Context, name string, needs []string, status string) error {
	def := o.tmpl.Resource(name)
	r, ok := o.s.resource(o.id, name)
	if ok && (r.Status == createComplete || r.Status == updateComplete) {
		return nil
	}
	if ok && r.OpNumber == o.number && (r.Status == createFailed || r.Status == updateFailed) {
		return errors.New(r.Reason) // it failed before a restart
	}
	if !ok {
		r = resource{Stack: o.id, Logical: name}
	}
	again := r.Begun
	r.Type, r.Deletion, r.Replacement, r.Needs = def.Type, def.DeletionPolicy, def.UpdateReplacePolicy, needs
	fail := func(err error) error {
		if context.Cause(ctx) != nil || errors.Is(err, errSuperseded) || errors.Is(err, errStore) {
			return err // not the resource's fault: it goes on after the restart
		}
		if perr := stored(o.put(&r, strings.Replace(status, "IN_PROGRESS", "FAILED", 1), because(r.Type, err))); perr != nil {
			return perr
		}
		return err
	}
	p, ok := o.s.lookup(r.Type)
	if !ok {
		return fail(fmt.Errorf("the local region does not have the resource type %s", r.Type))
	}
	if !again {
		props, err := o.evaluate(ctx, name)
		if err != nil {
			return fail(err)
		}
		r.Properties, r.Tags, r.Begun = props, o.stackTags(name), true
		reason := ""
		if r.Generation > 0 {
			reason = "Requested update requires the creation of a new physical resource; hence creating one."
		}
		if err := stored(o.put(&r, status, reason)); err != nil {
			return err
		}
	}
	q := o.s.request(o.st, r)
	if r.ID == "" {
		id := ""
		var err error
		if again {
			id, err = p.Find(ctx, q)
		}
		if err == nil && id == "" {
			id, err = p.Create(ctx, q)
		}
		if err != nil {
			return fail(err)
		}
		r.ID, r.Since = id, o.s.now()
		if err := stored(o.put(&r, status, "Resource creation Initiated")); err != nil {
			o.s.note(r.key(), id)
			return err
		}
		q.ID = id
	}
	if p.Configure != nil {
		if err := p.Configure(ctx, q); err != nil {
			return fail(err)
		}
	}
	if p.Ready != nil {
		if err := o.s.await(wait, func() (bool, error) { return p.Ready(ctx, q) }); err != nil {
			return fail(err)
		}
	}
	if def.CreationPolicy != nil && r.Generation == 0 {
		if err := o.signals(ctx, wait, def, r); err != nil {
			return fail(err)
		}
	}
	return stored(o.put(&r, strings.Replace(status, "IN_PROGRESS", "COMPLETE", 1), ""))
}

// note keeps a physical id whose operation was overtaken: who deletes the
// stack must know it.
func (s *Service) note(key, id string) {
	err := s.c.DB.Update(func(tx *state.Tx) error {
		if r, ok := s.resources.Get(tx, key); ok && r.ID == "" {
			r.ID = id
			s.resources.Put(tx, key, r)
		}
		return nil
	})
	if err != nil { // it will be found by its tags
		s.c.Log.Warn("a resource's id was not written down", "resource", key, "id", id, "error", err)
	}
}

// signals waits for the signals that a creation policy asks for.
func (o *op) signals(ctx, wait context.Context, def *template.Resource, r resource) error {
	n, err := o.scope(ctx).Eval(def.CreationPolicy)
	if err != nil {
		return err
	}
	policy, err := template.ParseCreationPolicy(n)
	if err != nil {
		return err
	}
	least := (policy.Count*policy.MinPercent + 99) / 100
	deadline := r.Since.Add(policy.Timeout)
	return o.s.await(wait, func() (bool, error) {
		now, _ := o.s.resource(o.id, r.Logical)
		good, bad := 0, 0
		for _, s := range now.Signals {
			if s.Success {
				good++
			} else {
				bad++
			}
		}
		switch {
		case bad > policy.Count-least:
			return false, fmt.Errorf("Received %d FAILURE signal(s) out of %d. Unable to satisfy %d%% MinSuccessfulInstancesPercent requirement", bad, policy.Count, policy.MinPercent)
		case good >= least && good+bad >= policy.Count:
			return true, nil
		case o.s.now().After(deadline):
			return false, fmt.Errorf("Failed to receive %d resource signal(s) within the specified duration", max(policy.Count-good-bad, 1))
		}
		return false, nil
	})
}

// outputs evaluates the outputs, and says which exports of others are used.
func (o *op) outputs(ctx context.Context) ([]output, []string, error) {
	sc := o.scope(ctx)
	var out []output
	for _, x := range o.tmpl.Outputs {
		yes, err := sc.Condition(x.Condition)
		if err != nil {
			return nil, nil, err
		}
		if !yes {
			continue
		}
		v, err := sc.Eval(x.Value)
		if err != nil {
			return nil, nil, err
		}
		if !v.Scalar() {
			return nil, nil, template.Problem{Line: x.At.Line, Column: x.At.Column, Message: fmt.Sprintf("Template format error: Output %s is malformed. The Value field of every Outputs member must evaluate to a String", x.Name)}
		}
		y := output{Key: x.Name, Value: v.Text, Description: x.Description}
		if x.Export != nil {
			n, err := sc.Eval(x.Export)
			if err != nil {
				return nil, nil, err
			}
			y.Export = n.Text
			if e, ok := o.s.export(y.Export); ok && e.Stack != o.id {
				return nil, nil, fmt.Errorf("Export with name %s is already exported by stack %s", y.Export, e.StackName)
			}
		}
		out = append(out, y)
	}
	imports, err := o.imports(ctx)
	return out, imports, err
}

// imports are the names of the exports that the template uses.
func (o *op) imports(ctx context.Context) ([]string, error) {
	used := map[string]bool{}
	sc := o.scope(ctx)
	find := sc.Import
	sc.Import = func(name string) (string, error) {
		used[name] = true
		return find(name)
	}
	for _, r := range o.tmpl.Resources {
		if yes, err := sc.Condition(r.Condition); err != nil || !yes || r.Properties == nil || !usesImport(r.Properties) {
			continue
		}
		if _, err := sc.Eval(r.Properties); err != nil {
			return nil, err
		}
	}
	for _, x := range o.tmpl.Outputs {
		if yes, err := sc.Condition(x.Condition); err != nil || !yes || !usesImport(x.Value) {
			continue
		}
		if _, err := sc.Eval(x.Value); err != nil {
			return nil, err
		}
	}
	return slices.Sorted(maps.Keys(used)), nil
}

func usesImport(n *template.Node) bool {
	if n.Get("Fn::ImportValue") != nil || slices.ContainsFunc(n.Items, usesImport) {
		return true
	}
	return slices.ContainsFunc(n.Pairs, func(p template.Pair) bool { return usesImport(p.Value) })
}
