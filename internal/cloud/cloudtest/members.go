package cloudtest

import (
	"context"
	"slices"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Sicken lets the health check of an instance fail, or pass again.
func (c *Cloud) Sicken(id string, sick bool) {
	defer c.lock()()
	c.instances[id].sick = sick
}

// Command plays somebody else's Run Command.
func (c *Cloud) Command(instance, comment string) {
	defer c.lock()()
	c.foreign = append(c.foreign, cloud.ForeignCommand{ID: c.id("command-"), Document: "AWS-RunShellScript", Comment: comment, Instances: []string{instance}, At: c.Clock.Now()})
}

// ForeignCommands implements the driver's.
func (d *Driver) ForeignCommands(_ context.Context, since time.Time) ([]cloud.ForeignCommand, error) {
	defer d.c.lock()()
	return slices.DeleteFunc(slices.Clone(d.c.foreign), func(f cloud.ForeignCommand) bool { return f.At.Before(since) }), nil
}

// SetDesired implements the driver's.
func (d *Driver) SetDesired(ctx context.Context, in cloud.Intent, name string, n int) error {
	_, err := perform(ctx, d, in, "autoscaling:SetDesiredCapacity", false, []any{name, n}, func() (bool, error) {
		g := d.c.groups[name]
		if g == nil {
			return false, Absent("autoscaling:SetDesiredCapacity", name)
		}
		if n < g.Min || n > g.Max {
			return false, &fault.Error{Kind: fault.Invalid, Code: "ValidationError", Message: "beyond the group's limits"}
		}
		g.Desired = n
		return true, nil
	})
	return err
}

// SetMinimum implements the driver's.
func (d *Driver) SetMinimum(ctx context.Context, in cloud.Intent, name string, n int) error {
	_, err := perform(ctx, d, in, "autoscaling:UpdateAutoScalingGroup", false, []any{name, n}, func() (bool, error) {
		g := d.c.groups[name]
		if g == nil {
			return false, Absent("autoscaling:UpdateAutoScalingGroup", name)
		}
		g.Min = min(g.Min, n)
		return true, nil
	})
	return err
}

// SuspendLaunches implements the driver's.
func (d *Driver) SuspendLaunches(ctx context.Context, in cloud.Intent, name string) error {
	return d.launches(ctx, in, "autoscaling:SuspendProcesses", name, []string{"Launch"})
}

// ResumeLaunches implements the driver's.
func (d *Driver) ResumeLaunches(ctx context.Context, in cloud.Intent, name string) error {
	return d.launches(ctx, in, "autoscaling:ResumeProcesses", name, nil)
}

func (d *Driver) launches(ctx context.Context, in cloud.Intent, op, name string, suspended []string) error {
	_, err := perform(ctx, d, in, op, false, name, func() (bool, error) {
		g := d.c.groups[name]
		if g == nil {
			return false, Absent(op, name)
		}
		g.Suspended = suspended
		return true, nil
	})
	return err
}

// EndMember implements the driver's.
func (d *Driver) EndMember(ctx context.Context, in cloud.Intent, group, id string, shrink bool) error {
	return d.leave(ctx, in, "autoscaling:TerminateInstanceInAutoScalingGroup", group, id, shrink, func(m *cloud.Member) {
		m.Lifecycle = "Terminating"
		d.c.instances[id].end(d.c.Clock.Now())
	})
}

// StandBy implements the driver's.
func (d *Driver) StandBy(ctx context.Context, in cloud.Intent, group, id string, shrink bool) error {
	return d.leave(ctx, in, "autoscaling:EnterStandby", group, id, shrink, func(m *cloud.Member) { m.Lifecycle = "Standby" })
}

func (d *Driver) leave(ctx context.Context, in cloud.Intent, op, group, id string, shrink bool, f func(*cloud.Member)) error {
	_, err := perform(ctx, d, in, op, true, []any{group, id, shrink}, func() (bool, error) {
		g := d.c.groups[group]
		if g == nil {
			return true, nil
		}
		i := slices.IndexFunc(g.Members, func(m cloud.Member) bool { return m.Instance == id })
		if i < 0 || g.Members[i].Lifecycle != "InService" && (g.Members[i].Lifecycle != "Standby" || shrink) {
			return true, nil
		}
		if shrink {
			if g.Desired <= g.Min {
				return false, &fault.Error{Kind: fault.Invalid, Code: "ValidationError", Message: "below the group's minimum"}
			}
			g.Desired--
		}
		f(&g.Members[i])
		return true, nil
	})
	return err
}
