package control

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/server"
)

// Extend implements server.Instances.
func (c *Control) Extend(ctx context.Context, name string, x server.Extend) (environment.Environment, error) {
	return update(ctx, c, environment.Kind, name, func(e *environment.Environment) error {
		refuse := func(message, hint string) error {
			return &fault.Error{Kind: fault.Conflict, Op: "extend the lease", Object: name, Message: message, Hint: hint}
		}
		if e.Destroy || e.Phase == environment.Gone {
			return refuse("the environment is ending or gone", "dayfly deploy makes it again")
		}
		to := c.clock.Now().Add(x.For())
		if to.Before(e.Deadline) {
			return refuse("it may live until "+e.Deadline.UTC().Format(time.RFC3339)+" already, which is later", "dayfly env destroy "+name+" ends it before")
		}
		if last := e.Created.Add(e.LeaseMax); e.LeaseMax > 0 && to.After(last) {
			return refuse(fmt.Sprintf("it may live until %s at the latest, %s after it was made", last.UTC().Format(time.RFC3339), e.LeaseMax), "environments."+e.Purpose+".lease_max in dayfly.yaml is the limit, at the time of the deploy")
		}
		e.Deadline, e.Notice = to, ""
		return nil
	})
}

// KeepInstance implements server.Instances.
func (c *Control) KeepInstance(ctx context.Context, k server.KeepInstance) (instance.Instance, error) {
	return c.instance(ctx, "keep", k.Name, func(i *instance.Instance) error {
		i.Keep = &instance.Keep{Until: c.clock.Now().Add(time.Duration(k.Minutes) * time.Minute), By: access.Of(ctx).Name, Why: k.Why}
		i.Step(c.clock.Now(), "shall be kept, asked by "+access.Of(ctx).Name)
		return nil
	})
}

// ReleaseInstance implements server.Instances.
func (c *Control) ReleaseInstance(ctx context.Context, name string) (instance.Instance, error) {
	return c.instance(ctx, "release", name, func(i *instance.Instance) error {
		if i.Keep == nil {
			return &fault.Error{Kind: fault.Conflict, Op: "release", Object: "instance " + i.ID, Message: "it is not kept"}
		}
		i.Keep.Until = c.clock.Now()
		return nil
	})
}

// ReplaceInstance implements server.Instances.
func (c *Control) ReplaceInstance(ctx context.Context, r server.ReplaceInstance) (instance.Instance, error) {
	return c.instance(ctx, "replace", r.Name, func(i *instance.Instance) error {
		if i.Ask == nil {
			i.Ask = &instance.Ask{By: access.Of(ctx).Name, Why: r.Why, At: c.clock.Now()}
			i.Step(c.clock.Now(), "shall be replaced, asked by "+i.Ask.By)
		}
		return nil
	})
}

// instance changes the record of an instance that lives, by its name or its id.
func (c *Control) instance(ctx context.Context, op, name string, f func(*instance.Instance) error) (instance.Instance, error) {
	if !strings.Contains(name, "/") {
		i, err := c.byID(ctx, name)
		if err != nil {
			return i, err
		}
		name = i.Name()
	}
	return update(ctx, c, instance.Kind, name, func(i *instance.Instance) error {
		if i.State == instance.Gone {
			return &fault.Error{Kind: fault.Conflict, Op: op, Object: "instance " + i.ID, Message: "it is gone: " + i.Why}
		}
		return f(i)
	})
}
