package elb

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	api "github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// Defaults of the attributes that AWS has. Those that the region does not
// realise may be set to these values only.
var (
	appDefaults = map[string]string{
		"idle_timeout.timeout_seconds": "60", "deletion_protection.enabled": "false",
		"access_logs.s3.enabled": "false", "access_logs.s3.bucket": "", "access_logs.s3.prefix": "",
		"connection_logs.s3.enabled": "false", "connection_logs.s3.bucket": "", "connection_logs.s3.prefix": "",
		"routing.http2.enabled": "true", "routing.http.drop_invalid_header_fields.enabled": "false",
		"routing.http.desync_mitigation_mode": "defensive", "routing.http.preserve_host_header.enabled": "false",
		"routing.http.xff_client_port.enabled": "false", "routing.http.xff_header_processing.mode": "append",
		"routing.http.x_amzn_tls_version_and_cipher_suite.enabled": "false",
		"waf.fail_open.enabled": "false", "load_balancing.cross_zone.enabled": "true", "client_keep_alive.seconds": "3600",
		"zonal_shift.config.enabled": "false",
	}
	netDefaults = map[string]string{
		"deletion_protection.enabled": "false", "load_balancing.cross_zone.enabled": "false",
		"access_logs.s3.enabled": "false", "access_logs.s3.bucket": "", "access_logs.s3.prefix": "",
		"dns_record.client_routing_policy": "any_availability_zone", "zonal_shift.config.enabled": "false",
	}
	groupDefaults = map[string]string{
		"deregistration_delay.timeout_seconds": "300", "stickiness.enabled": "false", "stickiness.type": "lb_cookie",
		"stickiness.lb_cookie.duration_seconds": "86400", "stickiness.app_cookie.duration_seconds": "86400", "stickiness.app_cookie.cookie_name": "",
		"slow_start.duration_seconds": "0", "load_balancing.algorithm.type": "round_robin",
		"load_balancing.algorithm.anomaly_mitigation": "off", "load_balancing.cross_zone.enabled": "use_load_balancer_configuration",
		"target_group_health.dns_failover.minimum_healthy_targets.count":                 "1",
		"target_group_health.dns_failover.minimum_healthy_targets.percentage":            "off",
		"target_group_health.unhealthy_state_routing.minimum_healthy_targets.count":      "1",
		"target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": "off",
		"deregistration_delay.connection_termination.enabled":                            "false",
		"proxy_protocol_v2.enabled": "false", "preserve_client_ip.enabled": "false",
		"target_health_state.unhealthy.connection_termination.enabled": "true",
		"target_health_state.unhealthy.draining_interval_seconds":      "0",
	}
	// Realised: any valid value is kept and acted upon.
	realised = []string{"idle_timeout.timeout_seconds", "deletion_protection.enabled", "deregistration_delay.timeout_seconds"}
	// Cross-zone balancing is always on here: every server gets its share.
	accepted = map[string][]string{"load_balancing.cross_zone.enabled": {"true", "use_load_balancer_configuration"}}
)

func checkAttribute(defaults map[string]string, key, value string) error {
	def, ok := defaults[key]
	if !ok {
		return wire.Errorf("InvalidConfigurationRequest", "Attribute key '%s' is not recognized", key)
	}
	switch {
	case slices.Contains(realised, key):
		if strings.HasSuffix(key, ".enabled") {
			if value != "true" && value != "false" {
				return wire.Errorf("InvalidConfigurationRequest", "'%s' is not a valid value for %s: use true or false", value, key)
			}
			return nil
		}
		least, most := int64(0), int64(3600)
		if key == "idle_timeout.timeout_seconds" {
			least, most = 1, 4000
		}
		if n, err := strconv.ParseInt(value, 10, 64); err != nil || n < least || n > most {
			return wire.Errorf("InvalidConfigurationRequest", "'%s' is not a valid value for %s: it must be between %d and %d", value, key, least, most)
		}
		return nil
	case value == def || slices.Contains(accepted[key], value):
		return nil
	case strings.HasPrefix(key, "stickiness.") && key != "stickiness.enabled":
		return nil // of no effect while stickiness is off, and it cannot be on
	}
	return wire.Unrealised("the value '" + value + "' of " + key)
}

func balancerDefaults(kind string) map[string]string {
	if kind == "network" {
		return netDefaults
	}
	return appDefaults
}

func withDefaults(defaults, set map[string]string) map[string]string {
	out := maps.Clone(defaults)
	maps.Copy(out, set)
	return out
}

// DescribeLoadBalancerAttributes lists a load balancer's attributes.
func (s *Service) DescribeLoadBalancerAttributes(_ context.Context, in *api.DescribeLoadBalancerAttributesInput) (*api.DescribeLoadBalancerAttributesOutput, error) {
	b, ok := s.balancer(in.LoadBalancerArn)
	if !ok || b.Deleting {
		return nil, notFoundLB(in.LoadBalancerArn)
	}
	return &api.DescribeLoadBalancerAttributesOutput{Attributes: balancerAttributes(b)}, nil
}

func balancerAttributes(b loadBalancer) []*api.LoadBalancerAttribute {
	var out []*api.LoadBalancerAttribute
	all := withDefaults(balancerDefaults(b.Type), b.Attributes)
	for _, k := range slices.Sorted(maps.Keys(all)) {
		out = append(out, &api.LoadBalancerAttribute{Key: k, Value: all[k]})
	}
	return out
}

// ModifyLoadBalancerAttributes sets attributes.
func (s *Service) ModifyLoadBalancerAttributes(_ context.Context, in *api.ModifyLoadBalancerAttributesInput) (*api.ModifyLoadBalancerAttributesOutput, error) {
	var out *api.ModifyLoadBalancerAttributesOutput
	err := s.change(in.LoadBalancerArn, func(b *loadBalancer) error {
		set := maps.Clone(b.Attributes)
		if set == nil {
			set = map[string]string{}
		}
		for _, a := range in.Attributes {
			if err := checkAttribute(balancerDefaults(b.Type), a.Key, a.Value); err != nil {
				return err
			}
			set[a.Key] = a.Value
		}
		b.Attributes = set
		out = &api.ModifyLoadBalancerAttributesOutput{Attributes: balancerAttributes(*b)}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func groupAttributes(g targetGroup) []*api.TargetGroupAttribute {
	var out []*api.TargetGroupAttribute
	all := withDefaults(groupDefaults, g.Attributes)
	for _, k := range slices.Sorted(maps.Keys(all)) {
		out = append(out, &api.TargetGroupAttribute{Key: k, Value: all[k]})
	}
	return out
}

// DescribeTargetGroupAttributes lists a target group's attributes.
func (s *Service) DescribeTargetGroupAttributes(_ context.Context, in *api.DescribeTargetGroupAttributesInput) (*api.DescribeTargetGroupAttributesOutput, error) {
	g, err := s.group(in.TargetGroupArn)
	if err != nil {
		return nil, err
	}
	return &api.DescribeTargetGroupAttributesOutput{Attributes: groupAttributes(g)}, nil
}

// ModifyTargetGroupAttributes sets attributes.
func (s *Service) ModifyTargetGroupAttributes(_ context.Context, in *api.ModifyTargetGroupAttributesInput) (*api.ModifyTargetGroupAttributesOutput, error) {
	var out *api.ModifyTargetGroupAttributesOutput
	err := s.changeGroup(in.TargetGroupArn, func(_ *state.Tx, g *targetGroup) error {
		set := maps.Clone(g.Attributes)
		if set == nil {
			set = map[string]string{}
		}
		for _, a := range in.Attributes {
			if err := checkAttribute(groupDefaults, a.Key, a.Value); err != nil {
				return err
			}
			set[a.Key] = a.Value
		}
		g.Attributes = set
		out = &api.ModifyTargetGroupAttributesOutput{Attributes: groupAttributes(*g)}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

const mostTags = 50

func mergeTags(ctx context.Context, have map[string]string, add []*api.Tag) (map[string]string, error) {
	caller, _ := wire.CallerFrom(ctx)
	out := map[string]string{}
	maps.Copy(out, have)
	for _, t := range add {
		switch {
		case t.Key == "" || len(t.Key) > 128 || len(t.Value) > 256:
			return nil, invalid("The tag '%s' is not valid: keys have 1 to 128 characters, values up to 256", t.Key)
		case strings.HasPrefix(strings.ToLower(t.Key), "aws:") && caller.Service == "":
			return nil, invalid("aws: prefixed tag key names are not allowed for external use.")
		}
		out[t.Key] = t.Value
	}
	if len(out) > mostTags {
		return nil, wire.Errorf("TooManyTags", "The maximum number of tags is %d", mostTags)
	}
	return out, nil
}

// retag changes the tags of whatever an ARN names.
func (s *Service) retag(arns []string, f func(map[string]string) (map[string]string, error)) error {
	if len(arns) == 0 || len(arns) > 20 {
		return invalid("Between 1 and 20 resource ARNs are required")
	}
	return s.c.DB.Update(func(tx *state.Tx) error {
		for _, arn := range arns {
			var err error
			if b, ok := s.balancers.Get(tx, arn); ok && !b.Deleting {
				if b.Tags, err = f(b.Tags); err == nil {
					s.balancers.Put(tx, arn, b)
				}
			} else if g, ok := s.groups.Get(tx, arn); ok {
				if g.Tags, err = f(g.Tags); err == nil {
					s.groups.Put(tx, arn, g)
				}
			} else if l, ok := s.listeners.Get(tx, arn); ok {
				if l.Tags, err = f(l.Tags); err == nil {
					s.listeners.Put(tx, arn, l)
				}
			} else if r, ok := s.rules.Get(tx, arn); ok {
				if r.Tags, err = f(r.Tags); err == nil {
					s.rules.Put(tx, arn, r)
				}
			} else {
				err = missing(arn)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// missing is AWS's error for an ARN of whatever kind.
func missing(arn string) error {
	switch {
	case strings.Contains(arn, ":loadbalancer/"):
		return notFoundLB(arn)
	case strings.Contains(arn, ":targetgroup/"):
		return notFoundTG(arn)
	case strings.Contains(arn, ":listener/"):
		return notFoundListener()
	case strings.Contains(arn, ":listener-rule/"):
		return notFoundRule()
	}
	return invalid("'%s' is not a valid resource ARN", arn)
}

// AddTags adds tags or changes their values.
func (s *Service) AddTags(ctx context.Context, in *api.AddTagsInput) (*api.AddTagsOutput, error) {
	err := s.retag(in.ResourceArns, func(m map[string]string) (map[string]string, error) { return mergeTags(ctx, m, in.Tags) })
	if err != nil {
		return nil, err
	}
	return &api.AddTagsOutput{}, nil
}

// RemoveTags removes tags.
func (s *Service) RemoveTags(_ context.Context, in *api.RemoveTagsInput) (*api.RemoveTagsOutput, error) {
	err := s.retag(in.ResourceArns, func(m map[string]string) (map[string]string, error) {
		out := maps.Clone(m)
		for _, k := range in.TagKeys {
			delete(out, k)
		}
		return out, nil
	})
	if err != nil {
		return nil, err
	}
	return &api.RemoveTagsOutput{}, nil
}

// DescribeTags lists the tags of resources.
func (s *Service) DescribeTags(_ context.Context, in *api.DescribeTagsInput) (*api.DescribeTagsOutput, error) {
	if len(in.ResourceArns) == 0 || len(in.ResourceArns) > 20 {
		return nil, invalid("Between 1 and 20 resource ARNs are required")
	}
	out := &api.DescribeTagsOutput{TagDescriptions: []*api.TagDescription{}}
	var err error
	s.c.DB.View(func(tx *state.Tx) {
		for _, arn := range in.ResourceArns {
			var tags map[string]string
			if b, ok := s.balancers.Get(tx, arn); ok && !b.Deleting {
				tags = b.Tags
			} else if g, ok := s.groups.Get(tx, arn); ok {
				tags = g.Tags
			} else if l, ok := s.listeners.Get(tx, arn); ok {
				tags = l.Tags
			} else if r, ok := s.rules.Get(tx, arn); ok {
				tags = r.Tags
			} else {
				err = missing(arn)
				return
			}
			d := &api.TagDescription{ResourceArn: arn}
			for _, k := range slices.Sorted(maps.Keys(tags)) {
				d.Tags = append(d.Tags, &api.Tag{Key: k, Value: tags[k]})
			}
			out.TagDescriptions = append(out.TagDescriptions, d)
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
