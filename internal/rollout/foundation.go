package rollout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Foundations is the loop that makes and ends foundations.
type Foundations struct{ Config }

// Kind implements reconcile.Loop.
func (*Foundations) Kind() string { return environment.FoundationKind }

// Reconcile implements reconcile.Loop.
func (l *Foundations) Reconcile(ctx context.Context, name string) (time.Duration, error) {
	f, _, err := store.Get[environment.Foundation](ctx, l.Store, environment.FoundationKind, name)
	if errors.Is(err, store.ErrNotFound) {
		return reconcile.Done, nil
	}
	if err != nil {
		return 0, err
	}
	object := environment.FoundationKind + "/" + name
	switch {
	case f.Phase == environment.Gone:
		return reconcile.Done, nil
	case f.Destroy:
		return l.destroy(ctx, f, object)
	case f.Phase == environment.Serving || f.Phase == environment.Failed:
		return reconcile.Done, nil
	}
	late := l.Clock.Now().Sub(f.Created) > launchLimit
	st, err := l.Cloud.Stack(ctx, f.Stack)
	if fault.KindOf(err) == fault.NotFound {
		switch {
		case f.Phase != environment.Pending:
			return reconcile.Done, l.fail(ctx, name, "its stack "+f.Stack+" is not there any more; somebody deleted it")
		case late:
			return reconcile.Done, l.fail(ctx, name, fmt.Sprintf("its stack %s could not be made within %s", f.Stack, launchLimit))
		}
		return l.create(ctx, f, object)
	}
	if err != nil {
		return 0, err
	}
	switch {
	case st.Status == "CREATE_COMPLETE":
		return reconcile.Done, l.complete(ctx, f, st)
	case inProgress(st.Status) && late:
		return reconcile.Done, l.fail(ctx, name, fmt.Sprintf("its stack %s is still %s after %s", f.Stack, st.Status, launchLimit))
	case inProgress(st.Status):
		return l.poll(f.Created), l.update(ctx, name, func(f *environment.Foundation) {
			f.Phase = environment.Launching
			f.Blocker = blocker.Carry(f.Blocker, blocker.Blocker{Rule: "stack-in-progress", On: "stack/" + f.Stack, Message: "the foundation's stack is being made", Since: l.Clock.Now()})
		})
	default:
		return reconcile.Done, l.fail(ctx, name, stackFailure(ctx, l.Cloud, st))
	}
}

// launchLimit is how long a foundation's stack may take.
const launchLimit = 30 * time.Minute

func (l *Foundations) fail(ctx context.Context, name, why string) error {
	l.Log.WarnContext(ctx, "foundation failed", "foundation", name, "why", why)
	return l.update(ctx, name, func(f *environment.Foundation) { f.Phase, f.Error, f.Blocker = environment.Failed, why, nil })
}

func (l *Foundations) create(ctx context.Context, f environment.Foundation, object string) (time.Duration, error) {
	b, files, err := l.Blueprints.Blueprint(ctx, f.Files)
	if err != nil {
		return 0, err
	}
	body, err := fs.ReadFile(files, b.Foundation)
	if err != nil {
		return 0, err
	}
	declared, err := l.Templates.Parameters(b.Foundation, body)
	if err != nil {
		return reconcile.Done, l.fail(ctx, f.Name, err.Error())
	}
	in := cloud.StackInput{Name: f.Stack, Template: string(body), Parameters: only(declared, f.Parameter), Tags: cloud.Tags{
		cloud.TagObject: object, cloud.TagDeadline: f.Deadline.UTC().Format(time.RFC3339),
	}}
	// A name may live again after its end; the intent is of this life.
	_, err = l.Cloud.CreateStack(ctx, cloud.Intent{ID: object + "/create-stack/" + mark(f.Created.UnixNano()), Object: object}, in)
	if permanent(err) {
		return reconcile.Done, l.fail(ctx, f.Name, err.Error())
	}
	return 100 * time.Millisecond, err
}

func (l *Foundations) complete(ctx context.Context, f environment.Foundation, st cloud.Stack) error {
	rs, err := l.Cloud.StackResources(ctx, f.Stack)
	if err != nil {
		return err
	}
	return l.update(ctx, f.Name, func(f *environment.Foundation) {
		f.Phase, f.Outputs, f.Blocker, f.Error = environment.Serving, st.Outputs, nil, ""
		for _, r := range rs {
			switch r.Type {
			case "AWS::ElasticLoadBalancingV2::Listener":
				// That of a network load balancer answers nothing by itself, so
				// it cannot be without a target group: it and its group are the
				// foundation's own, and fleets join the group.
				if f.Listener == "" && !strings.Contains(r.Physical, ":listener/net/") {
					f.Listener = r.Physical
				}
			case "AWS::ElasticLoadBalancingV2::LoadBalancer":
				if f.Balancer == "" {
					f.Balancer = r.Physical
				}
			}
		}
	})
}

func (l *Foundations) destroy(ctx context.Context, f environment.Foundation, object string) (time.Duration, error) {
	envs, err := store.List[environment.Environment](ctx, l.Store, environment.Kind, "")
	if err != nil {
		return 0, err
	}
	var users []string
	for _, e := range envs {
		if e.Foundation != f.Name || e.Phase == environment.Gone {
			continue
		}
		// An environment's own foundation goes before it, when its generations
		// are gone.
		if !f.Shared && e.Destroy {
			gs, err := store.List[environment.Generation](ctx, l.Store, environment.GenerationKind, e.Name+"/")
			if err != nil {
				return 0, err
			}
			if !slices.ContainsFunc(gs, func(g environment.Generation) bool { return g.Phase != environment.Gone }) {
				continue
			}
		}
		users = append(users, e.Name)
	}
	if len(users) > 0 {
		return time.Second, l.update(ctx, f.Name, func(f *environment.Foundation) {
			f.Blocker = blocker.Carry(f.Blocker, blocker.Blocker{Rule: "foundation-in-use", On: "environment/" + users[0], Message: fmt.Sprintf("%d environments still stand on it: %s", len(users), strings.Join(users, ", ")), Since: l.Clock.Now(), Action: "dayfly env destroy " + users[0]})
		})
	}
	gone, why, again, err := l.deleteStack(ctx, object, f.Stack, f.Blocker)
	if err != nil || !gone {
		return again, errors.Join(err, l.update(ctx, f.Name, func(f *environment.Foundation) { f.Phase, f.Blocker = environment.Terminating, why }))
	}
	if err := l.Cloud.PruneIntents(ctx, object); err != nil {
		return 0, err
	}
	return reconcile.Done, l.update(ctx, f.Name, func(f *environment.Foundation) { f.Phase, f.Blocker = environment.Gone, nil })
}

func (l *Foundations) update(ctx context.Context, name string, f func(*environment.Foundation)) error {
	return reconcile.Update(ctx, l.Store, environment.FoundationKind, name, func(v *environment.Foundation) error { f(v); return nil })
}

// deleteStack takes a deletion as far as it goes now. The blocker is the one to
// show, and was the one that is shown.
func (c Config) deleteStack(ctx context.Context, object, stack string, was *blocker.Blocker) (gone bool, why *blocker.Blocker, again time.Duration, err error) {
	if was != nil && was.Rule != "stack-not-deleted" {
		was = nil
	}
	st, err := c.Cloud.Stack(ctx, stack)
	if fault.KindOf(err) == fault.NotFound {
		return true, nil, 0, nil
	}
	if err != nil {
		return false, was, 0, err
	}
	switch st.Status {
	case "DELETE_COMPLETE":
		return true, nil, 0, nil
	case "DELETE_IN_PROGRESS":
		return false, was, 150 * time.Millisecond, nil
	}
	// A deletion that failed is asked for again, with another intent: what
	// stood in its way may be gone by now. It may also fail for the same reason
	// again, so the reason alone does not tell one attempt from the next.
	id := object + "/delete-stack/" + mark(st.ID, st.Status)
	again = 150 * time.Millisecond
	if st.Status == "DELETE_FAILED" {
		now := c.Clock.Now()
		was = blocker.Carry(was, blocker.Blocker{Rule: "stack-not-deleted", On: "stack/" + stack, Message: "it could not be deleted, and is tried again: " + st.Reason, Since: now, Action: "remove what stands in its way, if it does not go by itself"})
		// The later the seldomer: each try is a record.
		again = 5 * time.Second
		every := again
		for every < 5*time.Minute && every*8 < now.Sub(was.Since) {
			every *= 2
		}
		id = object + "/delete-stack/" + mark(st.ID, st.Status, now.Truncate(every).Unix())
	}
	return false, was, again, c.Cloud.DeleteStack(ctx, cloud.Intent{ID: id, Object: object}, stack)
}

func inProgress(status string) bool { return strings.HasSuffix(status, "_IN_PROGRESS") }

// permanent tells whether repeating a call cannot help.
func permanent(err error) bool {
	if err == nil {
		return false
	}
	switch fault.KindOf(err) {
	case fault.Invalid, fault.Denied, fault.Failed:
		return true
	}
	return false
}

// stackFailure is the first thing that went wrong in a stack, in words.
func stackFailure(ctx context.Context, c Cloud, st cloud.Stack) string {
	why := st.Name + " is " + st.Status
	if st.Reason != "" {
		why += ": " + st.Reason
	}
	evs, err := c.StackEvents(ctx, st.ID)
	if err != nil {
		return why
	}
	slices.SortStableFunc(evs, func(a, b cloud.StackEvent) int { return a.Time.Compare(b.Time) })
	for _, e := range evs {
		if strings.HasSuffix(e.Status, "_FAILED") && !strings.Contains(e.Reason, "cancelled") && e.Type != "AWS::CloudFormation::Stack" {
			return fmt.Sprintf("%s (%s) of stack %s: %s", e.Resource, e.Type, st.Name, e.Reason)
		}
	}
	return why
}

// only keeps the values whose names are declared.
func only(declared []string, values map[string]string) map[string]string {
	out := maps.Clone(values)
	maps.DeleteFunc(out, func(k, _ string) bool { return !slices.Contains(declared, k) })
	return out
}
