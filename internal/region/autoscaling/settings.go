package autoscaling

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	api "github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// settings are what CreateAutoScalingGroup and UpdateAutoScalingGroup share.
type settings struct {
	min, max, desired, grace, cooldown, warmup, lifetime *int64
	template                                             *api.LaunchTemplateSpecification
	zones                                                []string
	subnets, health, protect, role, context              string
	distribution                                         *api.AvailabilityZoneDistribution
	policies                                             []string
	protectNew                                           *bool
}

// set checks and takes over settings; what is nil or empty stays.
func (s *Service) set(ctx context.Context, g *group, in settings) error {
	if in.min != nil {
		g.Min = *in.min
	}
	if in.max != nil {
		g.Max = *in.max
	}
	if g.Min < 0 || g.Max < 0 || g.Max > mostSize {
		return invalid("MinSize and MaxSize must be between 0 and %d", mostSize)
	}
	if g.Max < g.Min {
		return invalid("Max bound, %d, must be greater than or equal to min bound, %d", g.Max, g.Min)
	}
	if in.desired != nil {
		g.Desired = *in.desired
	}
	for what, d := range map[string]*int64{"HealthCheckGracePeriod": in.grace, "DefaultCooldown": in.cooldown} {
		if d != nil && *d < 0 {
			return invalid("%s must not be negative", what)
		}
	}
	if in.grace != nil {
		g.Grace = seconds(in.grace)
	}
	if in.cooldown != nil {
		g.Cooldown = seconds(in.cooldown)
	}
	if in.warmup != nil {
		g.Warmup = in.warmup
	}
	if in.lifetime != nil {
		if n := *in.lifetime; n != 0 && (n < 86400 || n > 31536000) {
			return invalid("MaxInstanceLifetime must be either 0 or between 86400 and 31536000 seconds.")
		}
		g.MaxLifetime = seconds(in.lifetime)
	}
	if in.health != "" {
		for part := range strings.SplitSeq(in.health, ",") {
			if part != "EC2" && part != "ELB" {
				return invalid("Invalid HealthCheckType: %s", in.health)
			}
		}
		g.HealthCheckType = in.health
	}
	if len(in.policies) > 0 {
		for _, p := range in.policies {
			if !slices.Contains(terminationPolicies, p) {
				return invalid("Termination policy %s does not exist or is not one that the local region realises (%s)", p, strings.Join(terminationPolicies, ", "))
			}
		}
		g.Policies = in.policies
	}
	if in.protectNew != nil {
		g.ProtectNew = *in.protectNew
	}
	if in.protect != "" {
		g.DeleteProtection = in.protect
	}
	if in.role != "" {
		g.ServiceRole = in.role
	}
	if in.context != "" {
		g.Context = in.context
	}
	if in.distribution != nil && in.distribution.CapacityDistributionStrategy != "" {
		d := in.distribution.CapacityDistributionStrategy
		if d != balancedOnly && d != balancedBestEffort {
			return invalid("CapacityDistributionStrategy %s is not %s or %s", d, balancedOnly, balancedBestEffort)
		}
		g.Distribution = d
	}
	if err := s.setTemplate(ctx, g, in.template); err != nil {
		return err
	}
	return s.setPlaces(ctx, g, in.zones, in.subnets)
}

func (s *Service) setTemplate(ctx context.Context, g *group, in *api.LaunchTemplateSpecification) error {
	if in == nil {
		return nil
	}
	if (in.LaunchTemplateId == "") == (in.LaunchTemplateName == "") {
		return invalid("Valid requests must contain either launchTemplateId or LaunchTemplateName")
	}
	version := in.Version
	if version == "" {
		version = "$Default"
	}
	if n, err := strconv.Atoi(version); version != "$Latest" && version != "$Default" && (err != nil || n < 1) {
		return invalid("Invalid launch template version: either '$Default', '$Latest', or a numeric version are allowed.")
	}
	got, data, err := s.resolve(s.internal(ctx), template{ID: in.LaunchTemplateId, Name: in.LaunchTemplateName, Version: version})
	if err != nil {
		if wire.CodeOf(err) != "" {
			return invalid("You must use a valid fully-formed launch template. %s", messageOf(err))
		}
		return fmt.Errorf("resolve launch template: %w", err)
	}
	if data != nil && data.ImageId == "" {
		return invalid("You must use a valid fully-formed launch template. The request must contain the parameter ImageId")
	}
	g.Template = template{ID: got.ID, Name: got.Name, Version: version}
	return nil
}

// setPlaces finds the zones of the subnets that the user named.
func (s *Service) setPlaces(ctx context.Context, g *group, zones []string, subnets string) error {
	for _, z := range zones {
		if len(s.c.Zones) > 0 && !slices.Contains(s.c.Zones, z) {
			return invalid("Invalid Availability Zones: [%s]", z)
		}
	}
	if subnets == "" {
		if len(zones) == 0 {
			return nil
		}
		g.Zones, g.Subnets = nil, ""
		for _, z := range zones {
			g.Zones = append(g.Zones, place{Zone: z})
		}
		return nil
	}
	var ids []string
	for id := range strings.SplitSeq(subnets, ",") {
		if id = strings.TrimSpace(id); id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	res, err := wire.Call[ec2api.DescribeSubnetsResult](s.internal(ctx), s.c.Bus, "ec2", "DescribeSubnets", &ec2api.DescribeSubnetsRequest{SubnetIds: ids})
	if err != nil {
		if wire.CodeOf(err) != "" {
			return invalid("The subnet ID '%s' does not exist: %s", subnets, messageOf(err))
		}
		return fmt.Errorf("describe subnets: %w", err)
	}
	byID := map[string]*ec2api.Subnet{}
	vpc := ""
	for _, sn := range res.Subnets {
		byID[sn.SubnetId] = sn
		if vpc != "" && vpc != sn.VpcId {
			return invalid("The subnets specified span more than one VPC: %s", subnets)
		}
		vpc = sn.VpcId
	}
	var places []place
	for _, id := range ids {
		sn := byID[id]
		if sn == nil {
			return invalid("The subnet ID '%s' does not exist", id)
		}
		if len(zones) > 0 && !slices.Contains(zones, sn.AvailabilityZone) {
			return invalid("The availability zones of the specified subnets and the Auto Scaling group do not match")
		}
		places = append(places, place{Zone: sn.AvailabilityZone, Subnet: id})
	}
	g.Zones, g.Subnets = places, strings.Join(ids, ",")
	return nil
}
