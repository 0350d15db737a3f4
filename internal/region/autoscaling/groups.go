package autoscaling

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	api "github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const (
	mostGroups = 500
	mostSize   = 5000
)

var processes = []string{"AZRebalance", "AddToLoadBalancer", "AlarmNotification", "HealthCheck", "InstanceRefresh", "Launch", "ReplaceUnhealthy", "ScheduledActions", "Terminate"}

var terminationPolicies = []string{"Default", "OldestInstance", "NewestInstance", "OldestLaunchTemplate", "OldestLaunchConfiguration", "ClosestToNextInstanceHour"}

// CreateAutoScalingGroup makes a group; its loop launches the instances.
func (s *Service) CreateAutoScalingGroup(ctx context.Context, in *api.CreateAutoScalingGroupType) error {
	name := in.AutoScalingGroupName
	if name == "" || len(name) > 255 || strings.ContainsAny(name, ":\t\n\r") {
		return invalid("1 validation error detected: Value '%s' at 'autoScalingGroupName' failed to satisfy constraint: Member must have length between 1 and 255 and hold no colon", name)
	}
	for what, set := range map[string]bool{
		"LaunchConfigurationName (AWS has retired launch configurations: use a launch template)": in.LaunchConfigurationName != "",
		"MixedInstancesPolicy":                                      in.MixedInstancesPolicy != nil,
		"groups from an InstanceId":                                 in.InstanceId != "",
		"classic load balancers (LoadBalancerNames)":                len(in.LoadBalancerNames) > 0,
		"PlacementGroup":                                            in.PlacementGroup != "",
		"CapacityRebalance":                                         truth(in.CapacityRebalance),
		"InstanceMaintenancePolicy":                                 maintenance(in.InstanceMaintenancePolicy),
		"DesiredCapacityType " + in.DesiredCapacityType:             in.DesiredCapacityType != "" && in.DesiredCapacityType != "units",
		"CapacityReservationSpecification":                          in.CapacityReservationSpecification != nil && in.CapacityReservationSpecification.CapacityReservationPreference != "default",
		"AvailabilityZoneImpairmentPolicy":                          in.AvailabilityZoneImpairmentPolicy != nil && truth(in.AvailabilityZoneImpairmentPolicy.ZonalShiftEnabled),
		"InstanceLifecyclePolicy":                                   retains(in.InstanceLifecyclePolicy),
		"AvailabilityZoneIds (use AvailabilityZones)":               len(in.AvailabilityZoneIds) > 0,
		"notifications of lifecycle hooks (NotificationTargetARN)":  slices.ContainsFunc(in.LifecycleHookSpecificationList, func(h *api.LifecycleHookSpecification) bool { return h.NotificationTargetARN != "" }),
		"traffic sources other than target groups (TrafficSources)": slices.ContainsFunc(in.TrafficSources, func(t *api.TrafficSourceIdentifier) bool { return t.Type != "" && t.Type != "elbv2" }),
	} {
		if set {
			return wire.Unrealised(what)
		}
	}
	if in.LaunchTemplate == nil {
		return invalid("Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or MixedInstancesPolicy parameter.")
	}
	if in.MinSize == nil || in.MaxSize == nil {
		return invalid("MinSize and MaxSize are required.")
	}
	now := s.now()
	g := group{Name: name, Created: now, HealthCheckType: "EC2", Cooldown: 300 * time.Second, Policies: []string{"Default"},
		Distribution: balancedBestEffort, DeleteProtection: "none", Desired: *in.MinSize}
	g.ARN = fmt.Sprintf("arn:aws:autoscaling:%s:%s:autoScalingGroup:%s:autoScalingGroupName/%s", s.c.Region, s.c.Account, s.ids.UUID(), name)
	g.ServiceRole = "arn:aws:iam::" + s.c.Account + ":role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
	set := settings{in.MinSize, in.MaxSize, in.DesiredCapacity, in.HealthCheckGracePeriod, in.DefaultCooldown, in.DefaultInstanceWarmup, in.MaxInstanceLifetime,
		in.LaunchTemplate, in.AvailabilityZones, in.VPCZoneIdentifier, in.HealthCheckType, in.DeletionProtection, in.ServiceLinkedRoleARN, in.Context,
		in.AvailabilityZoneDistribution, in.TerminationPolicies, in.NewInstancesProtectedFromScaleIn}
	if err := s.set(ctx, &g, set); err != nil {
		return err
	}
	if len(g.Zones) == 0 {
		return invalid("At least one Availability Zone or VPC Subnet is required.")
	}
	if g.Desired < g.Min || g.Desired > g.Max {
		return invalid("Desired capacity:%d must be between the specified min size:%d and max size:%d", g.Desired, g.Min, g.Max)
	}
	var err error
	if g.Tags, err = mergeTags(ctx, nil, name, in.Tags); err != nil {
		return err
	}
	for _, h := range in.LifecycleHookSpecificationList {
		hk, err := newHook(hook{Name: h.LifecycleHookName, Transition: h.LifecycleTransition, Default: h.DefaultResult,
			Heartbeat: seconds(h.HeartbeatTimeout), Metadata: h.NotificationMetadata, Target: h.NotificationTargetARN, Role: h.RoleARN})
		if err != nil {
			return err
		}
		g.Hooks = putHook(g.Hooks, hk)
	}
	var sources []source
	for _, a := range in.TargetGroupARNs {
		sources = append(sources, source{ARN: a})
	}
	for _, t := range in.TrafficSources {
		sources = append(sources, source{ARN: t.Identifier, Typed: true})
	}
	if err := s.checkTargetGroups(ctx, sources); err != nil {
		return err
	}
	g.TargetGroups = addSources(nil, sources)
	g.Note = fmt.Sprintf("At %s a user request created an AutoScalingGroup changing the desired capacity from 0 to %d.", stamp(now), g.Desired)
	return s.c.DB.Update(func(tx *state.Tx) error {
		if old, ok := s.groups.Get(tx, name); ok {
			if old.Deleting {
				return wire.Errorf("AlreadyExists", "AutoScalingGroup by this name already exists - A group with the name %s is being deleted", name)
			}
			return wire.Errorf("AlreadyExists", "AutoScalingGroup by this name already exists - A group with the name %s already exists", name)
		}
		if s.groups.Len(tx) >= mostGroups {
			return wire.Errorf("LimitExceeded", "AutoScalingGroup limit of %d exceeded", mostGroups)
		}
		s.groups.Put(tx, name, g)
		return nil
	})
}

func truth(b *bool) bool { return b != nil && *b }

func maintenance(p *api.InstanceMaintenancePolicy) bool {
	off := func(n *int64) bool { return n == nil || *n == -1 }
	return p != nil && !(off(p.MinHealthyPercentage) && off(p.MaxHealthyPercentage))
}

func retains(p *api.InstanceLifecyclePolicy) bool {
	return p != nil && p.RetentionTriggers != nil && p.RetentionTriggers.TerminateHookAbandon == "retain"
}

func seconds(n *int64) time.Duration {
	if n == nil {
		return 0
	}
	return time.Duration(*n) * time.Second
}

// UpdateAutoScalingGroup changes a group's settings; sizes are moved along.
func (s *Service) UpdateAutoScalingGroup(ctx context.Context, in *api.UpdateAutoScalingGroupType) error {
	for what, set := range map[string]bool{
		"LaunchConfigurationName":                             in.LaunchConfigurationName != "",
		"MixedInstancesPolicy":                                in.MixedInstancesPolicy != nil,
		"PlacementGroup":                                      in.PlacementGroup != "",
		"CapacityRebalance":                                   truth(in.CapacityRebalance),
		"InstanceMaintenancePolicy":                           maintenance(in.InstanceMaintenancePolicy),
		"AvailabilityZoneIds":                                 len(in.AvailabilityZoneIds) > 0,
		"InstanceLifecyclePolicy":                             retains(in.InstanceLifecyclePolicy),
		"DesiredCapacityType":                                 in.DesiredCapacityType != "" && in.DesiredCapacityType != "units",
		"AvailabilityZoneImpairmentPolicy with a zonal shift": in.AvailabilityZoneImpairmentPolicy != nil && truth(in.AvailabilityZoneImpairmentPolicy.ZonalShiftEnabled),
		"CapacityReservationSpecification other than default": in.CapacityReservationSpecification != nil && in.CapacityReservationSpecification.CapacityReservationPreference != "default",
	} {
		if set {
			return wire.Unrealised(what)
		}
	}
	set := settings{in.MinSize, in.MaxSize, in.DesiredCapacity, in.HealthCheckGracePeriod, in.DefaultCooldown, in.DefaultInstanceWarmup, in.MaxInstanceLifetime,
		in.LaunchTemplate, in.AvailabilityZones, in.VPCZoneIdentifier, in.HealthCheckType, in.DeletionProtection, in.ServiceLinkedRoleARN, in.Context,
		in.AvailabilityZoneDistribution, in.TerminationPolicies, in.NewInstancesProtectedFromScaleIn}
	// Checking asks EC2, which may not happen while the database is held: check
	// on a copy first, then take the same settings over under the lock.
	probe, err := s.group(in.AutoScalingGroupName)
	if err != nil {
		return err
	}
	if err := s.set(ctx, &probe, set); err != nil {
		return err
	}
	now := s.now()
	return s.c.DB.Update(func(tx *state.Tx) error {
		g, ok := s.groups.Get(tx, in.AutoScalingGroupName)
		if !ok || g.Deleting {
			return noGroup(in.AutoScalingGroupName)
		}
		old := g.Desired
		g.Template, g.Zones, g.Subnets = probe.Template, probe.Zones, probe.Subnets
		set.template, set.zones, set.subnets = nil, nil, ""
		if err := s.set(ctx, &g, set); err != nil {
			return err
		}
		if in.DesiredCapacity == nil {
			g.Desired = min(max(g.Desired, g.Min), g.Max)
		} else if g.Desired < g.Min || g.Desired > g.Max {
			return invalid("Desired capacity:%d must be between the specified min size:%d and max size:%d", g.Desired, g.Min, g.Max)
		}
		if g.Desired != old {
			g.Note = fmt.Sprintf("At %s a user request update of AutoScalingGroup constraints to min: %d, max: %d, desired: %d changing the desired capacity from %d to %d.",
				stamp(now), g.Min, g.Max, g.Desired, old, g.Desired)
			g.NotUntil, g.Failures = time.Time{}, 0
		}
		if in.LaunchTemplate != nil { // a new template deserves a new try
			g.NotUntil, g.Failures = time.Time{}, 0
		}
		s.groups.Put(tx, g.Name, g)
		return nil
	})
}

// SetDesiredCapacity sets the number of instances.
func (s *Service) SetDesiredCapacity(_ context.Context, in *api.SetDesiredCapacityType) error {
	if in.DesiredCapacity == nil {
		return invalid("DesiredCapacity is required.")
	}
	return s.change(in.AutoScalingGroupName, func(_ *state.Tx, g *group, now time.Time) error {
		n := *in.DesiredCapacity
		switch {
		case n > g.Max:
			return invalid("New SetDesiredCapacity value %d is above max value %d for the AutoScalingGroup.", n, g.Max)
		case n < g.Min:
			return invalid("New SetDesiredCapacity value %d is below min value %d for the AutoScalingGroup.", n, g.Min)
		case truth(in.HonorCooldown) && now.Before(g.Scaled.Add(g.Cooldown)):
			return wire.Errorf("ScalingActivityInProgress", "Scaling activity cannot be started: the cooldown of %d seconds is not over", int(g.Cooldown.Seconds()))
		}
		if n != g.Desired {
			g.Note = fmt.Sprintf("At %s a user request explicitly set group desired capacity changing the desired capacity from %d to %d.", stamp(now), g.Desired, n)
			g.Desired = n
			g.NotUntil, g.Failures = time.Time{}, 0
		}
		return nil
	})
}

// group reads one group.
func (s *Service) group(name string) (g group, err error) {
	s.c.DB.View(func(tx *state.Tx) {
		var ok bool
		if g, ok = s.groups.Get(tx, name); !ok {
			err = noGroup(name)
		}
	})
	return g, err
}

// change updates one group that is not being deleted.
func (s *Service) change(name string, f func(*state.Tx, *group, time.Time) error) error {
	now := s.now()
	return s.c.DB.Update(func(tx *state.Tx) error {
		g, ok := s.groups.Get(tx, name)
		if !ok || g.Deleting {
			return noGroup(name)
		}
		if err := f(tx, &g, now); err != nil {
			return err
		}
		s.groups.Put(tx, name, g)
		return nil
	})
}

// members are the instances of a group.
func (s *Service) members(tx *state.Tx, name string) []instance {
	var out []instance
	for _, in := range s.instances.All(tx) {
		if in.Group == name {
			out = append(out, in)
		}
	}
	return out
}

// DeleteAutoScalingGroup deletes an empty group; with ForceDelete the
// instances go as well, all at once and without hooks or draining.
func (s *Service) DeleteAutoScalingGroup(_ context.Context, in *api.DeleteAutoScalingGroupType) error {
	now := s.now()
	return s.c.DB.Update(func(tx *state.Tx) error {
		g, ok := s.groups.Get(tx, in.AutoScalingGroupName)
		if !ok {
			return noGroup(in.AutoScalingGroupName)
		}
		force := truth(in.ForceDelete)
		if g.DeleteProtection == "prevent-all-deletion" || force && g.DeleteProtection == "prevent-force-deletion" {
			return wire.Errorf("ResourceInUse", "The deletion protection of the AutoScalingGroup is %s.", g.DeleteProtection)
		}
		if g.Deleting {
			return nil
		}
		members := s.members(tx, g.Name)
		if !force {
			for i := range members {
				if !strings.HasPrefix(members[i].State, terminating) {
					return wire.Errorf("ResourceInUse", "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance request(s) still in the group.")
				}
			}
			if len(members) > 0 || len(g.Launches) > 0 {
				return wire.Errorf("ScalingActivityInProgress", "You cannot delete an AutoScalingGroup while there are scaling activities in progress for that group.")
			}
		}
		if len(members) == 0 && len(g.Launches) == 0 {
			s.groups.Delete(tx, g.Name)
			return nil
		}
		g.Note = fmt.Sprintf("At %s a user request force deleted AutoScalingGroup changing the desired capacity from %d to 0.", stamp(now), g.Desired)
		g.Min, g.Max, g.Desired, g.Deleting = 0, 0, 0, true
		s.groups.Put(tx, g.Name, g)
		return nil
	})
}

// SuspendProcesses stops some of a group's processes, or all.
func (s *Service) SuspendProcesses(_ context.Context, in *api.ScalingProcessQuery) error {
	return s.process(in, func(m map[string]string, p string, now time.Time) { m[p] = "User suspended at " + stamp(now) })
}

// ResumeProcesses starts them again.
func (s *Service) ResumeProcesses(_ context.Context, in *api.ScalingProcessQuery) error {
	return s.process(in, func(m map[string]string, p string, _ time.Time) { delete(m, p) })
}

func (s *Service) process(in *api.ScalingProcessQuery, f func(map[string]string, string, time.Time)) error {
	list := in.ScalingProcesses
	if len(list) == 0 {
		list = processes
	}
	for _, p := range list {
		if !slices.Contains(processes, p) {
			return invalid("Invalid process type: %s", p)
		}
	}
	return s.change(in.AutoScalingGroupName, func(_ *state.Tx, g *group, now time.Time) error {
		m := maps.Clone(g.Suspended)
		if m == nil {
			m = map[string]string{}
		}
		for _, p := range list {
			f(m, p, now)
		}
		g.Suspended = m
		return nil
	})
}
