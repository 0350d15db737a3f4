package autoscaling

import (
	"context"
	"slices"
	"strings"

	api "github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/state"
)

// DescribeAutoScalingGroups describes groups with their instances.
func (s *Service) DescribeAutoScalingGroups(_ context.Context, in *api.AutoScalingGroupNamesType) (*api.AutoScalingGroupsType, error) {
	for _, f := range in.Filters {
		if f.Name != "tag-key" && f.Name != "tag-value" && !strings.HasPrefix(f.Name, "tag:") {
			return nil, invalid("Filter %s is not valid: use tag-key, tag-value or tag:<key>", f.Name)
		}
	}
	out := &api.AutoScalingGroupsType{AutoScalingGroups: []*api.AutoScalingGroup{}}
	var err error
	s.c.DB.View(func(tx *state.Tx) {
		var list []group
		if len(in.AutoScalingGroupNames) > 0 {
			names := slices.Sorted(slices.Values(in.AutoScalingGroupNames))
			for _, n := range slices.Compact(names) {
				if g, ok := s.groups.Get(tx, n); ok && matches(g.Tags, in.Filters) {
					list = append(list, g)
				}
			}
		} else {
			for _, g := range s.groups.All(tx) {
				if matches(g.Tags, in.Filters) {
					list = append(list, g)
				}
			}
		}
		from, to, next, e := page(len(list), in.NextToken, in.MaxRecords, 100)
		if err = e; err != nil {
			return
		}
		out.NextToken = next
		byGroup := map[string][]instance{}
		if in.IncludeInstances == nil || *in.IncludeInstances {
			for _, i := range s.instances.All(tx) {
				byGroup[i.Group] = append(byGroup[i.Group], i)
			}
		}
		for _, g := range list[from:to] {
			out.AutoScalingGroups = append(out.AutoScalingGroups, groupOut(g, byGroup[g.Name]))
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func matches(tags []tag, filters []*api.Filter) bool {
	for _, f := range filters {
		ok := slices.ContainsFunc(tags, func(t tag) bool {
			switch {
			case f.Name == "tag-key":
				return slices.Contains(f.Values, t.Key)
			case f.Name == "tag-value":
				return slices.Contains(f.Values, t.Value)
			}
			return t.Key == strings.TrimPrefix(f.Name, "tag:") && slices.Contains(f.Values, t.Value)
		})
		if !ok {
			return false
		}
	}
	return true
}

func groupOut(g group, members []instance) *api.AutoScalingGroup {
	out := &api.AutoScalingGroup{
		AutoScalingGroupARN: g.ARN, AutoScalingGroupName: g.Name, CreatedTime: new(g.Created),
		MinSize: new(g.Min), MaxSize: new(g.Max), DesiredCapacity: new(g.Desired),
		LaunchTemplate: specOut(g.Template), VPCZoneIdentifier: g.Subnets, AvailabilityZones: g.zoneNames(),
		AvailabilityZoneDistribution: &api.AvailabilityZoneDistribution{CapacityDistributionStrategy: g.Distribution},
		HealthCheckType:              g.HealthCheckType, HealthCheckGracePeriod: new(int64(g.Grace.Seconds())),
		DefaultCooldown: new(int64(g.Cooldown.Seconds())), DefaultInstanceWarmup: g.Warmup,
		TerminationPolicies: g.Policies, NewInstancesProtectedFromScaleIn: new(g.ProtectNew),
		ServiceLinkedRoleARN: g.ServiceRole, Context: g.Context, DeletionProtection: g.DeleteProtection,
		CapacityRebalance: new(false),
	}
	if g.MaxLifetime > 0 {
		out.MaxInstanceLifetime = new(int64(g.MaxLifetime.Seconds()))
	}
	if g.Deleting {
		out.Status = "Delete in progress"
	}
	for _, t := range g.Tags {
		out.Tags = append(out.Tags, tagOut(g.Name, t))
	}
	for _, p := range processes {
		if why, ok := g.Suspended[p]; ok {
			out.SuspendedProcesses = append(out.SuspendedProcesses, &api.SuspendedProcess{ProcessName: p, SuspensionReason: why})
		}
	}
	for _, tg := range g.TargetGroups {
		if tg.Typed {
			out.TrafficSources = append(out.TrafficSources, &api.TrafficSourceIdentifier{Identifier: tg.ARN, Type: "elbv2"})
			continue
		}
		out.TargetGroupARNs = append(out.TargetGroupARNs, tg.ARN)
		out.TrafficSources = append(out.TrafficSources, &api.TrafficSourceIdentifier{Identifier: tg.ARN, Type: "elbv2"})
	}
	for _, i := range members {
		out.Instances = append(out.Instances, &api.Instance{
			InstanceId: i.ID, InstanceType: i.Type, ImageId: i.Image, AvailabilityZone: i.Zone, LifecycleState: i.State,
			HealthStatus: i.Health, LaunchTemplate: specOut(i.Template), ProtectedFromScaleIn: new(i.Protected),
		})
	}
	return out
}

// DescribeAutoScalingInstances describes instances of any group.
func (s *Service) DescribeAutoScalingInstances(_ context.Context, in *api.DescribeAutoScalingInstancesType) (*api.AutoScalingInstancesType, error) {
	if len(in.InstanceIds) > 50 && in.MaxRecords == nil {
		return nil, invalid("The number of instance ids must not be greater than 50")
	}
	out := &api.AutoScalingInstancesType{AutoScalingInstances: []*api.AutoScalingInstanceDetails{}}
	var err error
	s.c.DB.View(func(tx *state.Tx) {
		var list []instance
		if len(in.InstanceIds) > 0 {
			for _, id := range in.InstanceIds {
				if i, ok := s.instances.Get(tx, id); ok {
					list = append(list, i)
				}
			}
		} else {
			for _, i := range s.instances.All(tx) {
				list = append(list, i)
			}
		}
		from, to, next, e := page(len(list), in.NextToken, in.MaxRecords, 50)
		if err = e; err != nil {
			return
		}
		out.NextToken = next
		for _, i := range list[from:to] {
			out.AutoScalingInstances = append(out.AutoScalingInstances, &api.AutoScalingInstanceDetails{
				AutoScalingGroupName: i.Group, InstanceId: i.ID, InstanceType: i.Type, ImageId: i.Image, AvailabilityZone: i.Zone,
				LifecycleState: i.State, HealthStatus: strings.ToUpper(i.Health), LaunchTemplate: specOut(i.Template), ProtectedFromScaleIn: new(i.Protected),
			})
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
