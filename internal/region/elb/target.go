package elb

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	api "github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

func portOf(t *api.TargetDescription, g *targetGroup) int64 {
	if t.Port != nil {
		return *t.Port
	}
	return g.Port
}

// RegisterTargets adds targets; their addresses are looked up once, together.
func (s *Service) RegisterTargets(ctx context.Context, in *api.RegisterTargetsInput) (*api.RegisterTargetsOutput, error) {
	g, err := s.group(in.TargetGroupArn)
	if err != nil {
		return nil, err
	}
	if len(in.Targets) == 0 {
		return nil, invalid("You must specify at least one target")
	}
	found := map[string]target{}
	if g.Type == "ip" {
		for _, t := range in.Targets {
			ip, err := netip.ParseAddr(t.Id)
			if err != nil || !ip.Is4() {
				return nil, invalid("The IP address '%s' is not a valid IPv4 address", t.Id)
			}
			found[t.Id] = target{ID: t.Id, IP: ip, Zone: t.AvailabilityZone}
		}
	} else if found, err = s.lookUp(ctx, g, in.Targets); err != nil {
		return nil, err
	}
	err = s.changeGroup(g.ARN, func(_ *state.Tx, g *targetGroup) error {
		g.Targets = slices.Clone(g.Targets)
		for _, d := range in.Targets {
			t := found[d.Id]
			t.Port, t.State = portOf(d, g), stInitial
			if t.Port < 1 || t.Port > 65535 {
				return invalid("Port '%d' is not between 1 and 65535", t.Port)
			}
			switch i := g.find(t.ID, t.Port); {
			case i < 0:
				g.Targets = append(g.Targets, t)
			case g.Targets[i].State == stDraining || g.Targets[i].IP != t.IP:
				g.Targets[i] = t
			}
		}
		if len(g.Targets) > mostTargets {
			return wire.Errorf("TooManyTargets", "The maximum number of targets in a target group is %d", mostTargets)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.RegisterTargetsOutput{}, nil
}

// lookUp finds instances that are to become targets.
func (s *Service) lookUp(ctx context.Context, g targetGroup, list []*api.TargetDescription) (map[string]target, error) {
	var ids []string
	for _, t := range list {
		if !strings.HasPrefix(t.Id, "i-") {
			return nil, invalid("Instance ID '%s' is not valid", t.Id)
		}
		if !slices.Contains(ids, t.Id) {
			ids = append(ids, t.Id)
		}
	}
	res, err := wire.Call[ec2api.DescribeInstancesResult](s.internal(ctx), s.c.Bus, "ec2", "DescribeInstances", &ec2api.DescribeInstancesRequest{InstanceIds: ids})
	if wire.CodeOf(err) != "" {
		return nil, wire.Errorf("InvalidTarget", "The following targets are not valid: %s", err.(*wire.Error).Message)
	}
	if err != nil {
		return nil, fmt.Errorf("describe targets: %w", err)
	}
	out := map[string]target{}
	for _, r := range res.Reservations {
		for _, e := range r.Instances {
			if e.State == nil || e.State.Name != "running" {
				return nil, wire.Errorf("InvalidTarget", "The following targets are not in a running state and cannot be registered: '%s'", e.InstanceId)
			}
			ip, perr := netip.ParseAddr(e.PrivateIpAddress)
			if e.VpcId != g.VPC || perr != nil {
				return nil, wire.Errorf("InvalidTarget", "The following targets are not in the target group VPC '%s': '%s'", g.VPC, e.InstanceId)
			}
			t := target{ID: e.InstanceId, IP: ip}
			if e.Placement != nil {
				t.Zone = e.Placement.AvailabilityZone
			}
			out[t.ID] = t
		}
	}
	for _, id := range ids {
		if _, ok := out[id]; !ok {
			return nil, wire.Errorf("InvalidTarget", "The following targets are not valid: '%s'", id)
		}
	}
	return out, nil
}

// DeregisterTargets lets targets go: where requests may be under way they
// drain first.
func (s *Service) DeregisterTargets(_ context.Context, in *api.DeregisterTargetsInput) (*api.DeregisterTargetsOutput, error) {
	if len(in.Targets) == 0 {
		return nil, invalid("You must specify at least one target")
	}
	now := s.now()
	err := s.changeGroup(in.TargetGroupArn, func(tx *state.Tx, g *targetGroup) error {
		used := len(s.balancersOf(tx)[g.ARN]) > 0
		delay, err := strconv.Atoi(withDefaults(groupDefaults, g.Attributes)["deregistration_delay.timeout_seconds"])
		if err != nil {
			return fmt.Errorf("deregistration delay of %s: %w", g.ARN, err)
		}
		var keep []target
		for _, t := range g.Targets {
			named := slices.ContainsFunc(in.Targets, func(d *api.TargetDescription) bool {
				return d.Id == t.ID && (d.Port == nil || *d.Port == t.Port)
			})
			switch {
			case !named || t.State == stDraining:
			case !used || delay == 0 || t.Off != "":
				continue
			default:
				t.State, t.Detail, t.Until = stDraining, "", now.Add(time.Duration(delay)*time.Second)
			}
			keep = append(keep, t)
		}
		g.Targets = keep
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DeregisterTargetsOutput{}, nil
}

// DescribeTargetHealth tells the state of targets, with AWS's reasons.
func (s *Service) DescribeTargetHealth(_ context.Context, in *api.DescribeTargetHealthInput) (*api.DescribeTargetHealthOutput, error) {
	out := &api.DescribeTargetHealthOutput{TargetHealthDescriptions: []*api.TargetHealthDescription{}}
	var g targetGroup
	var used, ok bool
	s.c.DB.View(func(tx *state.Tx) {
		if g, ok = s.groups.Get(tx, in.TargetGroupArn); ok {
			used = len(s.balancersOf(tx)[g.ARN]) > 0
		}
	})
	if !ok {
		return nil, notFoundTG(in.TargetGroupArn)
	}
	add := func(t target, h *api.TargetHealth) {
		d := &api.TargetHealthDescription{Target: &api.TargetDescription{Id: t.ID, Port: new(t.Port), AvailabilityZone: t.Zone}, TargetHealth: h, HealthCheckPort: g.Check.Port}
		if d.HealthCheckPort == "traffic-port" {
			d.HealthCheckPort = strconv.FormatInt(t.Port, 10)
		}
		if g.Type == "instance" {
			d.Target.AvailabilityZone = ""
		}
		out.TargetHealthDescriptions = append(out.TargetHealthDescriptions, d)
	}
	if len(in.Targets) == 0 {
		for _, t := range g.Targets {
			add(t, healthOf(t, used))
		}
		return out, nil
	}
	for _, d := range in.Targets {
		hit := false
		for _, t := range g.Targets {
			if t.ID == d.Id && (d.Port == nil || *d.Port == t.Port) {
				add(t, healthOf(t, used))
				hit = true
			}
		}
		if !hit {
			add(target{ID: d.Id, Port: portOf(d, &g)}, &api.TargetHealth{State: stUnused, Reason: "Target.NotRegistered", Description: "Target is not registered to the target group"})
		}
	}
	return out, nil
}

// healthOf puts a target's state into AWS's words.
func healthOf(t target, used bool) *api.TargetHealth {
	switch {
	case t.State == stDraining:
		return &api.TargetHealth{State: stDraining, Reason: "Target.DeregistrationInProgress", Description: "Target deregistration is in progress"}
	case !used:
		return &api.TargetHealth{State: stUnused, Reason: "Target.NotInUse", Description: "Target group is not configured to receive traffic from the load balancer"}
	case t.Off != "":
		return &api.TargetHealth{State: stUnused, Reason: "Target.InvalidState", Description: "Target is in the " + t.Off + " state"}
	case t.State == stHealthy:
		return &api.TargetHealth{State: stHealthy}
	case t.State == stUnhealthy:
		d := strings.ToLower(t.Detail)
		if code, ok := strings.CutPrefix(d, "http "); ok {
			return &api.TargetHealth{State: stUnhealthy, Reason: "Target.ResponseCodeMismatch", Description: "Health checks failed with these codes: [" + code + "]"}
		}
		if strings.Contains(d, "timeout") || strings.Contains(d, "timed out") {
			return &api.TargetHealth{State: stUnhealthy, Reason: "Target.Timeout", Description: "Request timed out"}
		}
		return &api.TargetHealth{State: stUnhealthy, Reason: "Target.FailedHealthChecks", Description: "Health checks failed"}
	}
	return &api.TargetHealth{State: stInitial, Reason: "Elb.InitialHealthChecking", Description: "Initial health checks in progress"}
}
