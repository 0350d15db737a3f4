package autoscaling

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	api "github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const mostTargetGroups = 50

// checkTargetGroups refuses target groups that are not there.
func (s *Service) checkTargetGroups(ctx context.Context, list []source) error {
	if len(list) == 0 {
		return nil
	}
	var arns []string
	for _, t := range list {
		if !strings.HasPrefix(t.ARN, "arn:") || !strings.Contains(t.ARN, ":targetgroup/") {
			return invalid("Provided Target Groups may not be valid. Please ensure they exist and try again.")
		}
		arns = append(arns, t.ARN)
	}
	if len(arns) > mostTargetGroups {
		return wire.Errorf("LimitExceeded", "The number of target groups must not exceed %d", mostTargetGroups)
	}
	_, err := wire.Call[elbv2api.DescribeTargetGroupsOutput](s.internal(ctx), s.c.Bus, "elbv2", "DescribeTargetGroups", &elbv2api.DescribeTargetGroupsInput{TargetGroupArns: arns})
	if wire.CodeOf(err) == "TargetGroupNotFound" || wire.CodeOf(err) == "ValidationError" {
		return invalid("Provided Target Groups may not be valid. Please ensure they exist and try again.")
	}
	if err != nil {
		return fmt.Errorf("check target groups: %w", err)
	}
	return nil
}

func addSources(have, add []source) []source {
	out := slices.Clone(have)
	for _, t := range add {
		if !slices.ContainsFunc(out, func(x source) bool { return x.ARN == t.ARN }) {
			out = append(out, t)
		}
	}
	return out
}

func (s *Service) attach(ctx context.Context, name string, list []source) error {
	if err := s.checkTargetGroups(ctx, list); err != nil {
		return err
	}
	return s.change(name, func(tx *state.Tx, g *group, _ time.Time) error {
		if g.TargetGroups = addSources(g.TargetGroups, list); len(g.TargetGroups) > mostTargetGroups {
			return wire.Errorf("LimitExceeded", "The number of target groups must not exceed %d", mostTargetGroups)
		}
		skip := g.suspended("AddToLoadBalancer")
		for _, t := range list {
			g.DetachTargets = without(g.DetachTargets, t.ARN)
			if !skip {
				continue
			}
			for _, m := range s.members(tx, g.Name) {
				if m.State == inService {
					m.Skip = with(m.Skip, t.ARN)
					s.instances.Put(tx, m.ID, m)
				}
			}
		}
		return nil
	})
}

func (s *Service) detach(name string, arns []string) error {
	return s.change(name, func(_ *state.Tx, g *group, _ time.Time) error {
		for _, a := range arns {
			if !slices.ContainsFunc(g.TargetGroups, func(t source) bool { return t.ARN == a }) {
				return invalid("Trying to remove Target Groups that are not part of the group: %s", a)
			}
			g.TargetGroups = slices.DeleteFunc(slices.Clone(g.TargetGroups), func(t source) bool { return t.ARN == a })
			g.DetachTargets = with(g.DetachTargets, a)
		}
		return nil
	})
}

// AttachLoadBalancerTargetGroups registers what is in service with target groups.
func (s *Service) AttachLoadBalancerTargetGroups(ctx context.Context, in *api.AttachLoadBalancerTargetGroupsType) (*api.AttachLoadBalancerTargetGroupsResultType, error) {
	var list []source
	for _, a := range in.TargetGroupARNs {
		list = append(list, source{ARN: a})
	}
	if err := s.attach(ctx, in.AutoScalingGroupName, list); err != nil {
		return nil, err
	}
	return &api.AttachLoadBalancerTargetGroupsResultType{}, nil
}

// DetachLoadBalancerTargetGroups deregisters the group's instances.
func (s *Service) DetachLoadBalancerTargetGroups(_ context.Context, in *api.DetachLoadBalancerTargetGroupsType) (*api.DetachLoadBalancerTargetGroupsResultType, error) {
	if err := s.detach(in.AutoScalingGroupName, in.TargetGroupARNs); err != nil {
		return nil, err
	}
	return &api.DetachLoadBalancerTargetGroupsResultType{}, nil
}

// AttachTrafficSources is AttachLoadBalancerTargetGroups by its newer name.
func (s *Service) AttachTrafficSources(ctx context.Context, in *api.AttachTrafficSourcesType) (*api.AttachTrafficSourcesResultType, error) {
	var list []source
	for _, t := range in.TrafficSources {
		if t.Type != "" && t.Type != "elbv2" {
			return nil, wire.Unrealised("traffic sources of type " + t.Type)
		}
		list = append(list, source{ARN: t.Identifier, Typed: true})
	}
	if err := s.attach(ctx, in.AutoScalingGroupName, list); err != nil {
		return nil, err
	}
	return &api.AttachTrafficSourcesResultType{}, nil
}

// DetachTrafficSources is DetachLoadBalancerTargetGroups by its newer name.
func (s *Service) DetachTrafficSources(_ context.Context, in *api.DetachTrafficSourcesType) (*api.DetachTrafficSourcesResultType, error) {
	var arns []string
	for _, t := range in.TrafficSources {
		arns = append(arns, t.Identifier)
	}
	if err := s.detach(in.AutoScalingGroupName, arns); err != nil {
		return nil, err
	}
	return &api.DetachTrafficSourcesResultType{}, nil
}

// sourceState is where a target group's attachment stands.
type sourceState struct {
	source
	State string
}

// sourceStates: Adding until every instance in service is registered, then
// Added, and InService once one of them passes the health checks.
func (s *Service) sourceStates(ctx context.Context, name string) ([]sourceState, error) {
	var g group
	var members []instance
	s.c.DB.View(func(tx *state.Tx) {
		var ok bool
		if g, ok = s.groups.Get(tx, name); ok {
			members = s.members(tx, name)
		}
	})
	if g.Name == "" {
		return nil, noGroup(name)
	}
	var out []sourceState
	for _, t := range g.TargetGroups {
		st := sourceState{t, "Added"}
		for i := range members {
			m := &members[i]
			if m.State == inService && !slices.Contains(m.Registered, t.ARN) && !slices.Contains(m.Skip, t.ARN) {
				st.State = "Adding"
			}
		}
		if st.State == "Added" && g.HealthCheckType != "EC2" {
			res, err := wire.Call[elbv2api.DescribeTargetHealthOutput](s.internal(ctx), s.c.Bus, "elbv2", "DescribeTargetHealth", &elbv2api.DescribeTargetHealthInput{TargetGroupArn: t.ARN})
			if err == nil && slices.ContainsFunc(res.TargetHealthDescriptions, func(d *elbv2api.TargetHealthDescription) bool { return d.TargetHealth.State == "healthy" }) {
				st.State = "InService"
			}
		}
		out = append(out, st)
	}
	for _, a := range g.DetachTargets {
		out = append(out, sourceState{source{ARN: a}, "Removing"})
	}
	return out, nil
}

// DescribeLoadBalancerTargetGroups lists a group's target groups.
func (s *Service) DescribeLoadBalancerTargetGroups(ctx context.Context, in *api.DescribeLoadBalancerTargetGroupsRequest) (*api.DescribeLoadBalancerTargetGroupsResponse, error) {
	list, err := s.sourceStates(ctx, in.AutoScalingGroupName)
	if err != nil {
		return nil, err
	}
	from, to, next, err := page(len(list), in.NextToken, in.MaxRecords, 100)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeLoadBalancerTargetGroupsResponse{LoadBalancerTargetGroups: []*api.LoadBalancerTargetGroupState{}, NextToken: next}
	for _, t := range list[from:to] {
		out.LoadBalancerTargetGroups = append(out.LoadBalancerTargetGroups, &api.LoadBalancerTargetGroupState{LoadBalancerTargetGroupARN: t.ARN, State: t.State})
	}
	return out, nil
}

// DescribeTrafficSources lists the same as traffic sources.
func (s *Service) DescribeTrafficSources(ctx context.Context, in *api.DescribeTrafficSourcesRequest) (*api.DescribeTrafficSourcesResponse, error) {
	list, err := s.sourceStates(ctx, in.AutoScalingGroupName)
	if err != nil {
		return nil, err
	}
	if in.TrafficSourceType != "" && in.TrafficSourceType != "elbv2" {
		list = nil
	}
	from, to, next, err := page(len(list), in.NextToken, in.MaxRecords, 50)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeTrafficSourcesResponse{TrafficSources: []*api.TrafficSourceState{}, NextToken: next}
	for _, t := range list[from:to] {
		out.TrafficSources = append(out.TrafficSources, &api.TrafficSourceState{Identifier: t.ARN, State: t.State, TrafficSource: t.ARN, Type: "elbv2"})
	}
	return out, nil
}
