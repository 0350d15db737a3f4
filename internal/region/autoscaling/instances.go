package autoscaling

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	api "github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// TerminateInstanceInAutoScalingGroup takes instances out of service and
// terminates them; they are replaced unless the desired capacity goes down too.
func (s *Service) TerminateInstanceInAutoScalingGroup(_ context.Context, in *api.TerminateInstanceInAutoScalingGroupType) (*api.ActivityType, error) {
	ids := in.InstanceIds
	if in.InstanceId != "" {
		ids = append([]string{in.InstanceId}, ids...)
	}
	if len(ids) == 0 || in.ShouldDecrementDesiredCapacity == nil {
		return nil, invalid("InstanceId and ShouldDecrementDesiredCapacity are required.")
	}
	out := &api.ActivityType{}
	now := s.now()
	err := s.c.DB.Update(func(tx *state.Tx) error {
		for _, id := range ids {
			m, ok := s.instances.Get(tx, id)
			if !ok || in.AutoScalingGroupName != "" && in.AutoScalingGroupName != m.Group {
				return noInstance(id)
			}
			g, ok := s.groups.Get(tx, m.Group)
			if !ok {
				return noInstance(id)
			}
			if !strings.HasPrefix(m.State, terminating) {
				cause := fmt.Sprintf("At %s instance %s was taken out of service in response to a user request", stamp(now), id)
				if *in.ShouldDecrementDesiredCapacity && counts(m.State) {
					if g.Desired <= g.Min {
						return invalid("Currently, desiredSize equals minSize (%d). Terminating instance without replacement will violate group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or lower group's min size.", g.Min)
					}
					cause += fmt.Sprintf(", shrinking the capacity from %d to %d", g.Desired, g.Desired-1)
					g.Desired--
				}
				s.takeOut(tx, &g, &m, cause+".", now)
				s.instances.Put(tx, id, m)
				s.groups.Put(tx, g.Name, g)
			}
			if a, ok := s.activities.Get(tx, m.Activity); ok {
				out.Activities = append(out.Activities, s.activityOut(tx, a))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(out.Activities) > 0 {
		out.Activity = out.Activities[0]
	}
	return out, nil
}

// each changes instances that must be in the named group.
func (s *Service) each(name string, ids []string, f func(tx *state.Tx, g *group, m *instance, now time.Time) error) error {
	if len(ids) == 0 || len(ids) > 200 {
		return invalid("Between 1 and 200 instance ids are required.")
	}
	return s.change(name, func(tx *state.Tx, g *group, now time.Time) error {
		for _, id := range ids {
			m, ok := s.instances.Get(tx, id)
			if !ok || m.Group != name {
				return invalid("The instance %s is not part of Auto Scaling group %s.", id, name)
			}
			if err := f(tx, g, &m, now); err != nil {
				return err
			}
			s.instances.Put(tx, id, m)
		}
		return nil
	})
}

// SetInstanceProtection protects instances from scale-in, or lifts that.
func (s *Service) SetInstanceProtection(_ context.Context, in *api.SetInstanceProtectionQuery) (*api.SetInstanceProtectionAnswer, error) {
	if in.ProtectedFromScaleIn == nil {
		return nil, invalid("ProtectedFromScaleIn is required.")
	}
	err := s.each(in.AutoScalingGroupName, in.InstanceIds, func(_ *state.Tx, _ *group, m *instance, _ time.Time) error {
		if m.State != inService && m.State != enteringStandby && m.State != standby {
			return invalid("The instance %s is not in InService or EnteringStandby or Standby.", m.ID)
		}
		m.Protected = *in.ProtectedFromScaleIn
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.SetInstanceProtectionAnswer{}, nil
}

// SetInstanceHealth marks an instance; the loop replaces what is unhealthy.
func (s *Service) SetInstanceHealth(_ context.Context, in *api.SetInstanceHealthQuery) error {
	if in.HealthStatus != healthy && in.HealthStatus != unhealthy {
		return invalid("Valid instance health states are: [Healthy, Unhealthy].")
	}
	now := s.now()
	return s.c.DB.Update(func(tx *state.Tx) error {
		m, ok := s.instances.Get(tx, in.InstanceId)
		if !ok {
			return noInstance(in.InstanceId)
		}
		g, _ := s.groups.Get(tx, m.Group)
		respect := in.ShouldRespectGracePeriod == nil || *in.ShouldRespectGracePeriod
		if in.HealthStatus == unhealthy && respect && m.State == inService && now.Before(m.Entered.Add(g.Grace)) {
			return nil // as AWS: the grace period goes before
		}
		m.Health, m.Sick = in.HealthStatus, ""
		if m.Health == unhealthy {
			m.Sick = "a user health-check"
		}
		s.instances.Put(tx, m.ID, m)
		return nil
	})
}

// findWait finds an outstanding lifecycle action by token or by instance.
func (s *Service) findWait(tx *state.Tx, g *group, hookName, token, id string) (instance, int, error) {
	if token == "" && id == "" {
		return instance{}, 0, invalid("Either LifecycleActionToken or InstanceId is required.")
	}
	if !slices.ContainsFunc(g.Hooks, func(h hook) bool { return h.Name == hookName }) {
		return instance{}, 0, invalid("No Lifecycle Hook found with name: %s", hookName)
	}
	if id != "" {
		m, ok := s.instances.Get(tx, id)
		if ok && m.Group == g.Name {
			i := slices.IndexFunc(m.Waits, func(w wait) bool { return w.Hook == hookName && (token == "" || token == w.Token) })
			if i >= 0 {
				return m, i, nil
			}
			if token == "" && m.State == pending && !m.NoHooks && !slices.Contains(m.Done, hookName) {
				return m, -1, nil // ahead of the loop
			}
		}
		return instance{}, 0, invalid("No active Lifecycle Action found with instance ID %s", id)
	}
	for _, m := range s.members(tx, g.Name) {
		if i := slices.IndexFunc(m.Waits, func(w wait) bool { return w.Hook == hookName && w.Token == token }); i >= 0 {
			return m, i, nil
		}
	}
	return instance{}, 0, invalid("No active Lifecycle Action found with token %s", token)
}

// CompleteLifecycleAction ends an instance's wait for a hook.
func (s *Service) CompleteLifecycleAction(_ context.Context, in *api.CompleteLifecycleActionType) (*api.CompleteLifecycleActionAnswer, error) {
	if in.LifecycleActionResult != resultContinue && in.LifecycleActionResult != resultAbandon {
		return nil, invalid("The lifecycle action result must be CONTINUE or ABANDON, not '%s'", in.LifecycleActionResult)
	}
	err := s.change(in.AutoScalingGroupName, func(tx *state.Tx, g *group, now time.Time) error {
		m, i, err := s.findWait(tx, g, in.LifecycleHookName, in.LifecycleActionToken, in.InstanceId)
		if err != nil {
			return err
		}
		launching := counts(m.State)
		switch {
		case launching && in.LifecycleActionResult == resultAbandon:
			token := in.LifecycleActionToken
			if i >= 0 {
				token = m.Waits[i].Token
			}
			s.failLaunch(tx, g, &m, action{Status: "Cancelled", Message: abandonedMessage(token, "Lifecycle Action Completed with ABANDON Result"),
				Cause: fmt.Sprintf("At %s an instance was taken out of service because its launch failed.", stamp(now))}, now)
		case i < 0:
			m.Done = with(m.Done, in.LifecycleHookName)
		case !launching && in.LifecycleActionResult == resultAbandon:
			m.Waits, m.State = nil, terminatingProceed // the other hooks are not waited for
		default:
			m.Waits = slices.Delete(slices.Clone(m.Waits), i, i+1)
			if len(m.Waits) == 0 && launching {
				m.State = pendingProceed
			} else if len(m.Waits) == 0 {
				m.State = terminatingProceed
			}
		}
		s.instances.Put(tx, m.ID, m)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CompleteLifecycleActionAnswer{}, nil
}

// RecordLifecycleActionHeartbeat gives a waiting instance its time anew.
func (s *Service) RecordLifecycleActionHeartbeat(_ context.Context, in *api.RecordLifecycleActionHeartbeatType) (*api.RecordLifecycleActionHeartbeatAnswer, error) {
	err := s.change(in.AutoScalingGroupName, func(tx *state.Tx, g *group, now time.Time) error {
		m, i, err := s.findWait(tx, g, in.LifecycleHookName, in.LifecycleActionToken, in.InstanceId)
		if err != nil || i < 0 { // before the wait begins there is nothing to renew
			return err
		}
		m.Waits = slices.Clone(m.Waits)
		m.Waits[i].Until = now.Add(m.Waits[i].Beat)
		s.instances.Put(tx, m.ID, m)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.RecordLifecycleActionHeartbeatAnswer{}, nil
}

// AttachInstances adds running instances to a group, whose desired capacity grows.
func (s *Service) AttachInstances(ctx context.Context, in *api.AttachInstancesQuery) error {
	if len(in.InstanceIds) == 0 || len(in.InstanceIds) > 20 {
		return invalid("Between 1 and 20 instance ids are required.")
	}
	ctx = s.internal(ctx)
	g, err := s.group(in.AutoScalingGroupName)
	if err != nil {
		return err
	}
	res, err := wire.Call[ec2api.DescribeInstancesResult](ctx, s.c.Bus, "ec2", "DescribeInstances", &ec2api.DescribeInstancesRequest{InstanceIds: in.InstanceIds})
	if err != nil {
		if wire.CodeOf(err) != "" {
			return invalid("Invalid Instance ID(s): %s", messageOf(err))
		}
		return fmt.Errorf("describe instances: %w", err)
	}
	found := map[string]*ec2api.Instance{}
	for _, r := range res.Reservations {
		for _, e := range r.Instances {
			found[e.InstanceId] = e
		}
	}
	zones := g.zoneNames()
	for _, id := range in.InstanceIds {
		e := found[id]
		switch {
		case e == nil:
			return invalid("Invalid Instance ID(s): [%s] specified", id)
		case e.State == nil || e.State.Name != "running":
			return invalid("Instance %s is not in correct state. Instance(s) must be in 'running' state.", id)
		case e.Placement == nil || !slices.Contains(zones, e.Placement.AvailabilityZone):
			return invalid("Instance %s is not in an Availability Zone of group %s.", id, g.Name)
		}
	}
	// The tag first: with it EC2 finds the instance as this group's, and
	// attaching the same instance again puts right what a crash left between.
	if _, err := s.c.Bus.Invoke(ctx, "ec2", "CreateTags", &ec2api.CreateTagsRequest{Resources: in.InstanceIds, Tags: []*ec2api.Tag{{Key: groupTag, Value: g.Name}}}); err != nil {
		return fmt.Errorf("tag instances: %w", err)
	}
	return s.change(g.Name, func(tx *state.Tx, g *group, now time.Time) error {
		n := int64(0)
		for _, id := range in.InstanceIds {
			if old, ok := s.instances.Get(tx, id); ok {
				return invalid("Instance %s is already part of Auto Scaling group %s.", id, old.Group)
			}
			n++
		}
		if g.Desired+n > g.Max {
			return invalid("AutoScalingGroup %s has min-size=%d, max-size=%d, and desired-size=%d. To attach %d more instance(s), please update the AutoScalingGroup sizes appropriately.", g.Name, g.Min, g.Max, g.Desired, n)
		}
		for _, id := range in.InstanceIds {
			e := found[id]
			m := instance{ID: id, Group: g.Name, Zone: e.Placement.AvailabilityZone, Subnet: e.SubnetId, Type: e.InstanceType, Image: e.ImageId,
				State: pending, Health: healthy, Protected: g.ProtectNew, Launched: now, NoHooks: true}
			if e.LaunchTime != nil {
				m.Launched = *e.LaunchTime
			}
			m.Activity = s.begin(tx, g, id, "Attaching an existing EC2 instance: "+id,
				fmt.Sprintf("At %s an instance was attached in response to user request.", stamp(now)), place{m.Zone, m.Subnet}, "InProgress", now)
			s.instances.Put(tx, id, m)
		}
		g.Desired += n
		return nil
	})
}

// leave is what DetachInstances and EnterStandby share.
func (s *Service) leave(name string, ids []string, decrement *bool, to, description, verb string) ([]*api.Activity, error) {
	if decrement == nil {
		return nil, invalid("ShouldDecrementDesiredCapacity is required.")
	}
	var out []*api.Activity
	err := s.each(name, ids, func(tx *state.Tx, g *group, m *instance, now time.Time) error {
		if m.State != inService && !(to == detaching && m.State == standby) {
			return invalid("The instance %s is not in InService.", m.ID)
		}
		cause := fmt.Sprintf("At %s instance %s was %s in response to a user request", stamp(now), m.ID, verb)
		if *decrement && m.State == inService {
			if g.Desired <= g.Min {
				return invalid("AutoScalingGroup %s has min-size=%d, max-size=%d, and desired-size=%d. To take %d instance(s) out, please update the AutoScalingGroup sizes appropriately.", g.Name, g.Min, g.Max, g.Desired, len(ids))
			}
			g.Desired--
			cause += fmt.Sprintf(", shrinking the capacity from %d to %d", g.Desired+1, g.Desired)
		}
		status := "InProgress"
		if len(m.Registered) > 0 {
			status = "WaitingForELBConnectionDraining"
		}
		m.Activity = s.begin(tx, g, m.ID, description+m.ID, cause+".", place{m.Zone, m.Subnet}, status, now)
		m.State = to
		if a, ok := s.activities.Get(tx, m.Activity); ok {
			out = append(out, s.activityOut(tx, a))
		}
		return nil
	})
	return out, err
}

// DetachInstances takes instances out of the group; they go on running.
func (s *Service) DetachInstances(ctx context.Context, in *api.DetachInstancesQuery) (*api.DetachInstancesAnswer, error) {
	acts, err := s.leave(in.AutoScalingGroupName, in.InstanceIds, in.ShouldDecrementDesiredCapacity, detaching, "Detaching EC2 instance: ", "detached")
	if err != nil {
		return nil, err
	}
	if _, err := s.c.Bus.Invoke(s.internal(ctx), "ec2", "DeleteTags", &ec2api.DeleteTagsRequest{Resources: in.InstanceIds, Tags: []*ec2api.Tag{{Key: groupTag}}}); err != nil {
		s.c.Log.Warn("untag detached instances", "group", in.AutoScalingGroupName, "err", err)
	}
	return &api.DetachInstancesAnswer{Activities: acts}, nil
}

// EnterStandby takes instances out of service for a while.
func (s *Service) EnterStandby(_ context.Context, in *api.EnterStandbyQuery) (*api.EnterStandbyAnswer, error) {
	acts, err := s.leave(in.AutoScalingGroupName, in.InstanceIds, in.ShouldDecrementDesiredCapacity, enteringStandby, "Moving EC2 instance to Standby: ", "moved to standby")
	if err != nil {
		return nil, err
	}
	return &api.EnterStandbyAnswer{Activities: acts}, nil
}

// ExitStandby puts instances back into service; the desired capacity grows.
func (s *Service) ExitStandby(_ context.Context, in *api.ExitStandbyQuery) (*api.ExitStandbyAnswer, error) {
	out := &api.ExitStandbyAnswer{}
	err := s.each(in.AutoScalingGroupName, in.InstanceIds, func(tx *state.Tx, g *group, m *instance, now time.Time) error {
		if m.State != standby {
			return invalid("The instance %s is not in Standby.", m.ID)
		}
		if g.Desired >= g.Max {
			return invalid("AutoScalingGroup %s has min-size=%d, max-size=%d, and desired-size=%d. To place into service %d more instance(s), please update the AutoScalingGroup sizes appropriately.", g.Name, g.Min, g.Max, g.Desired, len(in.InstanceIds))
		}
		g.Desired++
		m.State, m.NoHooks = pending, true
		m.Activity = s.begin(tx, g, m.ID, "Moving EC2 instance out of Standby: "+m.ID,
			fmt.Sprintf("At %s instance %s was moved out of standby in response to a user request, increasing the capacity from %d to %d.", stamp(now), m.ID, g.Desired-1, g.Desired),
			place{m.Zone, m.Subnet}, "PreInService", now)
		if a, ok := s.activities.Get(tx, m.Activity); ok {
			out.Activities = append(out.Activities, s.activityOut(tx, a))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
