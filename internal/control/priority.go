package control

import (
	"context"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/heal"
	"github.com/dayfly-infra/dayfly/internal/operation"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// ranked runs a loop with the priority that its work has in the cloud, and as
// part of the operation that its record is part of.
type ranked struct {
	reconcile.Loop
	store store.Store
}

// operationOf is the operation that a record is part of.
func operationOf(ctx context.Context, st store.Store, kind, name string) string {
	r, _, _ := store.Get[struct {
		Op string `json:"op"`
	}](ctx, st, kind, name)
	return r.Op
}

// Reconcile implements reconcile.Loop.
func (r ranked) Reconcile(ctx context.Context, name string) (time.Duration, error) {
	ctx = cloud.WithPriority(ctx, priority(r.Loop, name))
	return r.Loop.Reconcile(operation.Lazy(ctx, func() string { return operationOf(ctx, r.store, r.Kind(), name) }), name)
}

// Follows implements reconcile.Follower.
func (r ranked) Follows(k store.Key) []string {
	if f, ok := r.Loop.(reconcile.Follower); ok {
		return f.Follows(k)
	}
	return nil
}

func prioritized(st store.Store, loops []reconcile.Loop) []reconcile.Loop {
	out := make([]reconcile.Loop, len(loops))
	for i, l := range loops {
		out[i] = ranked{l, st}
	}
	return out
}

// priority is that of a record's work: what a test run waits for comes after
// what people and users wait for.
func priority(l reconcile.Loop, name string) cloud.Priority {
	if _, ok := l.(*heal.Loop); ok {
		return cloud.Repair
	}
	switch l.Kind() {
	case bake.Kind:
		return cloud.Bake
	case pipeline.Kind:
		return cloud.Tests
	case environment.Kind, environment.FoundationKind, environment.GenerationKind:
		env, _, _ := strings.Cut(name, "/")
		if pipeline.RunOf(env) != "" {
			return cloud.Tests
		}
	}
	return cloud.Rollout
}
