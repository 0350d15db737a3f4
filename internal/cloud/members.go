package cloud

import (
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/autoscaling"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// groupOfOurs reads a group and refuses one that is not ours.
func (d *Driver) groupOfOurs(ctx context.Context, op, name string) (Group, error) {
	g, err := d.Group(ctx, name)
	if err != nil {
		return g, err
	}
	ours, err := d.ours(ctx, g.Tags)
	if err == nil && !ours {
		err = notOurs(op, name)
	}
	return g, err
}

// SetDesired sets a group's desired capacity. The group's MinSize and MaxSize
// bound it.
func (d *Driver) SetDesired(ctx context.Context, in Intent, group string, n int) error {
	const op = "autoscaling:SetDesiredCapacity"
	_, err := perform(ctx, d, in, action[bool]{
		op: op, input: []any{group, n},
		find: func(ctx context.Context, _ *IntentRecord) (bool, bool, error) {
			g, err := d.groupOfOurs(ctx, op, group)
			return true, err == nil && g.Desired == n, err
		},
		call: func(ctx context.Context, _ *IntentRecord) (bool, error) {
			if _, err := d.groupOfOurs(ctx, op, group); err != nil {
				return false, err
			}
			_, err := d.asg.SetDesiredCapacity(ctx, &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: &group, DesiredCapacity: new(int32(n)), HonorCooldown: new(false)})
			return true, translate(op, group, err)
		},
	})
	return err
}

// SetMinimum lowers a group's MinSize, so that it may shrink; one that is as low
// stays as it is.
func (d *Driver) SetMinimum(ctx context.Context, in Intent, group string, n int) error {
	const op = "autoscaling:UpdateAutoScalingGroup"
	_, err := perform(ctx, d, in, action[bool]{
		op: op, input: []any{group, n},
		find: func(ctx context.Context, _ *IntentRecord) (bool, bool, error) {
			g, err := d.groupOfOurs(ctx, op, group)
			return true, err == nil && g.Min <= n, err
		},
		call: func(ctx context.Context, _ *IntentRecord) (bool, error) {
			if _, err := d.groupOfOurs(ctx, op, group); err != nil {
				return false, err
			}
			_, err := d.asg.UpdateAutoScalingGroup(ctx, &autoscaling.UpdateAutoScalingGroupInput{AutoScalingGroupName: &group, MinSize: new(int32(n))})
			return true, translate(op, group, err)
		},
	})
	return err
}

// launch is the Auto Scaling process that makes instances.
const launch = "Launch"

// SuspendLaunches lets a group launch nothing any more, not even for what dies.
func (d *Driver) SuspendLaunches(ctx context.Context, in Intent, group string) error {
	return d.launches(ctx, in, "autoscaling:SuspendProcesses", group, true, func(ctx context.Context) error {
		_, err := d.asg.SuspendProcesses(ctx, &autoscaling.SuspendProcessesInput{AutoScalingGroupName: &group, ScalingProcesses: []string{launch}})
		return err
	})
}

// ResumeLaunches ends that.
func (d *Driver) ResumeLaunches(ctx context.Context, in Intent, group string) error {
	return d.launches(ctx, in, "autoscaling:ResumeProcesses", group, false, func(ctx context.Context) error {
		_, err := d.asg.ResumeProcesses(ctx, &autoscaling.ResumeProcessesInput{AutoScalingGroupName: &group, ScalingProcesses: []string{launch}})
		return err
	})
}

func (d *Driver) launches(ctx context.Context, in Intent, op, group string, suspended bool, call func(context.Context) error) error {
	_, err := perform(ctx, d, in, action[bool]{
		op: op, input: group,
		find: func(ctx context.Context, _ *IntentRecord) (bool, bool, error) {
			g, err := d.groupOfOurs(ctx, op, group)
			return true, err == nil && slices.Contains(g.Suspended, launch) == suspended, err
		},
		call: func(ctx context.Context, _ *IntentRecord) (bool, error) {
			if _, err := d.groupOfOurs(ctx, op, group); err != nil {
				return false, err
			}
			return true, translate(op, group, call(ctx))
		},
	})
	return err
}

// EndMember takes an instance out of its group's service, lets it drain and ends
// it; with shrink the group's desired capacity goes down with it, otherwise the
// group launches another. One that is not in the group any more is a success.
func (d *Driver) EndMember(ctx context.Context, in Intent, group, id string, shrink bool) error {
	const op = "autoscaling:TerminateInstanceInAutoScalingGroup"
	return d.leave(ctx, in, op, group, id, []any{group, id, shrink}, func(ctx context.Context) error {
		_, err := d.asg.TerminateInstanceInAutoScalingGroup(ctx, &autoscaling.TerminateInstanceInAutoScalingGroupInput{InstanceId: &id, ShouldDecrementDesiredCapacity: &shrink})
		return err
	})
}

const standBy = "autoscaling:EnterStandby"

// StandBy takes an instance out of service and keeps it running; with shrink the
// group's desired capacity goes down with it.
func (d *Driver) StandBy(ctx context.Context, in Intent, group, id string, shrink bool) error {
	return d.leave(ctx, in, standBy, group, id, []any{group, id, shrink}, func(ctx context.Context) error {
		_, err := d.asg.EnterStandby(ctx, &autoscaling.EnterStandbyInput{AutoScalingGroupName: &group, InstanceIds: []string{id}, ShouldDecrementDesiredCapacity: &shrink})
		return err
	})
}

// leave carries out a call that takes a member out of service, unless it is out
// of it already: a repeated call would shrink the group once more.
func (d *Driver) leave(ctx context.Context, in Intent, op, group, id string, input any, call func(context.Context) error) error {
	out := func(ctx context.Context) (bool, error) {
		g, err := d.groupOfOurs(ctx, op, group)
		if isNotFound(err) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		for _, m := range g.Members {
			if m.Instance == id {
				return m.Lifecycle != "InService" && (m.Lifecycle != "Standby" || op == standBy), nil
			}
		}
		return true, nil
	}
	_, err := perform(ctx, d, in, action[bool]{
		op: op, input: input,
		find: func(ctx context.Context, _ *IntentRecord) (bool, bool, error) {
			done, err := out(ctx)
			return true, done, err
		},
		call: func(ctx context.Context, _ *IntentRecord) (bool, error) {
			if done, err := out(ctx); done || err != nil {
				return done, err
			}
			err := translate(op, id, call(ctx))
			if isNotFound(err) || fault.CodeOf(err) == "ScalingActivityInProgress" {
				if done, derr := out(ctx); derr == nil && done {
					err = nil
				}
			}
			return err == nil, err
		},
	})
	return err
}
