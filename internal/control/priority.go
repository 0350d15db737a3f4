package control

import (
	"context"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/heal"
	"github.com/dayfly-infra/dayfly/internal/operation"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// operationOf is the operation that a record is part of.
func operationOf(ctx context.Context, st store.Store, kind, name string) string {
	r, _, _ := store.Get[struct {
		Op string `json:"op"`
	}](ctx, st, kind, name)
	return r.Op
}

// context gives a run the priority that its work has in the cloud, and the
// operation that its record is part of.
func (c *Control) context(ctx context.Context, l reconcile.Loop, name string) context.Context {
	ctx = cloud.WithPriority(ctx, priority(l, name))
	return operation.Lazy(ctx, func() string { return operationOf(ctx, c.store, l.Kind(), name) })
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
