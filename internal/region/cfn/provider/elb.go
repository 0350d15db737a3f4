package provider

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
)

const elb = "elbv2"

func elbTags(m map[string]string) []*elbv2api.Tag {
	var out []*elbv2api.Tag
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, &elbv2api.Tag{Key: k, Value: m[k]})
	}
	return out
}

func retagELB(ctx context.Context, r *Request) error {
	put, remove := r.tagChanges()
	if len(put) > 0 {
		if err := do(ctx, r, elb, "AddTags", &elbv2api.AddTagsInput{ResourceArns: []string{r.ID}, Tags: elbTags(put)}); err != nil {
			return err
		}
	}
	if len(remove) == 0 {
		return nil
	}
	return do(ctx, r, elb, "RemoveTags", &elbv2api.RemoveTagsInput{ResourceArns: []string{r.ID}, TagKeys: remove})
}

// oursELB is the first of the ARNs that carries this resource's tags.
func oursELB(ctx context.Context, r *Request, arns []string) (string, error) {
	if len(arns) == 0 {
		return "", nil
	}
	out, err := call[elbv2api.DescribeTagsOutput](ctx, r, elb, "DescribeTags", &elbv2api.DescribeTagsInput{ResourceArns: arns})
	if err != nil {
		return "", err
	}
	var ids []string
	for _, d := range out.TagDescriptions {
		tags := map[string]string{}
		for _, t := range d.Tags {
			tags[t.Key] = t.Value
		}
		if tags[TagStackID] == r.StackID && tags[TagLogicalID] == r.Logical {
			ids = append(ids, d.ResourceArn)
		}
	}
	return r.pick(ids), nil
}

var loadBalancer = &Provider{
	After: afterGateway,
	Find: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[elbv2api.DescribeLoadBalancersOutput](ctx, r, elb, "DescribeLoadBalancers", &elbv2api.DescribeLoadBalancersInput{Names: []string{r.custom("Name", 32)}})
		if err != nil || len(out.LoadBalancers) == 0 {
			return "", gone(err)
		}
		return oursELB(ctx, r, []string{out.LoadBalancers[0].LoadBalancerArn})
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		in := &elbv2api.CreateLoadBalancerInput{Tags: elbTags(r.tags())}
		if err := fill(in, r.Properties, "Tags", "Name", "LoadBalancerAttributes"); err != nil {
			return "", err
		}
		in.Name = r.custom("Name", 32)
		out, err := call[elbv2api.CreateLoadBalancerOutput](ctx, r, elb, "CreateLoadBalancer", in)
		if err != nil {
			return "", err
		}
		lb, err := first(out.LoadBalancers, "LoadBalancer", in.Name)
		if err != nil {
			return "", err
		}
		return lb.LoadBalancerArn, nil
	},
	Configure: lbAttributes,
	Ready: func(ctx context.Context, r *Request) (bool, error) {
		lb, err := describeLB(ctx, r)
		if err != nil {
			return false, err
		}
		if lb.State != nil && lb.State.Code == "failed" {
			return false, fmt.Errorf("LoadBalancer %s failed to stabilize: %s", r.ID, lb.State.Reason)
		}
		return lb.State == nil || lb.State.Code == "active" || lb.State.Code == "active_impaired", nil
	},
	Update: func(ctx context.Context, r *Request) error {
		if err := lbAttributes(ctx, r); err != nil {
			return err
		}
		if r.changed("SecurityGroups") {
			if err := do(ctx, r, elb, "SetSecurityGroups", &elbv2api.SetSecurityGroupsInput{LoadBalancerArn: r.ID, SecurityGroups: texts(r.Properties, "SecurityGroups")}); err != nil {
				return err
			}
		}
		if r.changed("Subnets", "SubnetMappings") {
			in := &elbv2api.SetSubnetsInput{LoadBalancerArn: r.ID}
			p := map[string]any{"Subnets": r.Properties["Subnets"], "SubnetMappings": r.Properties["SubnetMappings"]}
			if err := fill(in, p); err != nil {
				return err
			}
			if err := do(ctx, r, elb, "SetSubnets", in); err != nil {
				return err
			}
		}
		return retagELB(ctx, r)
	},
	Mutable:  []string{"LoadBalancerAttributes", "SecurityGroups", "Subnets", "SubnetMappings", "Tags"},
	Volatile: []string{"SecurityGroups"},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, elb, "DeleteLoadBalancer", &elbv2api.DeleteLoadBalancerInput{LoadBalancerArn: r.ID}))
	},
	Gone: func(ctx context.Context, r *Request) (bool, error) {
		_, err := describeLB(ctx, r)
		return NotFound(err), gone(err)
	},
	Attributes: func(ctx context.Context, r *Request) (map[string]any, error) {
		lb, err := describeLB(ctx, r)
		if err != nil {
			return nil, err
		}
		_, full, _ := strings.Cut(lb.LoadBalancerArn, ":loadbalancer/")
		return map[string]any{
			"LoadBalancerArn": lb.LoadBalancerArn, "DNSName": lb.DNSName, "CanonicalHostedZoneID": lb.CanonicalHostedZoneId,
			"LoadBalancerFullName": full, "LoadBalancerName": lb.LoadBalancerName, "SecurityGroups": lb.SecurityGroups,
		}, nil
	},
	Named: "Name",
}

func describeLB(ctx context.Context, r *Request) (*elbv2api.LoadBalancer, error) {
	out, err := call[elbv2api.DescribeLoadBalancersOutput](ctx, r, elb, "DescribeLoadBalancers", &elbv2api.DescribeLoadBalancersInput{LoadBalancerArns: []string{r.ID}})
	if err != nil {
		return nil, err
	}
	return first(out.LoadBalancers, "LoadBalancer", r.ID)
}

func lbAttributes(ctx context.Context, r *Request) error {
	if !r.changed("LoadBalancerAttributes") || len(list(r.Properties, "LoadBalancerAttributes")) == 0 {
		return nil
	}
	in := &elbv2api.ModifyLoadBalancerAttributesInput{LoadBalancerArn: r.ID}
	if err := fill(in, map[string]any{"Attributes": r.Properties["LoadBalancerAttributes"]}); err != nil {
		return err
	}
	return do(ctx, r, elb, "ModifyLoadBalancerAttributes", in)
}

var targetGroup = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[elbv2api.DescribeTargetGroupsOutput](ctx, r, elb, "DescribeTargetGroups", &elbv2api.DescribeTargetGroupsInput{Names: []string{r.custom("Name", 32)}})
		if err != nil || len(out.TargetGroups) == 0 {
			return "", gone(err)
		}
		return oursELB(ctx, r, []string{out.TargetGroups[0].TargetGroupArn})
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		in := &elbv2api.CreateTargetGroupInput{Tags: elbTags(r.tags())}
		if err := fill(in, r.Properties, "Tags", "Name", "Targets", "TargetGroupAttributes"); err != nil {
			return "", err
		}
		in.Name = r.custom("Name", 32)
		out, err := call[elbv2api.CreateTargetGroupOutput](ctx, r, elb, "CreateTargetGroup", in)
		if err != nil {
			return "", err
		}
		tg, err := first(out.TargetGroups, "TargetGroup", in.Name)
		if err != nil {
			return "", err
		}
		return tg.TargetGroupArn, nil
	},
	Configure: tgAttributes,
	Update: func(ctx context.Context, r *Request) error {
		in := &elbv2api.ModifyTargetGroupInput{TargetGroupArn: r.ID}
		p := map[string]any{}
		for _, k := range healthCheck {
			p[k] = r.Properties[k]
		}
		if err := fill(in, p); err != nil {
			return err
		}
		if r.changed(healthCheck...) {
			if err := do(ctx, r, elb, "ModifyTargetGroup", in); err != nil {
				return err
			}
		}
		if err := tgAttributes(ctx, r); err != nil {
			return err
		}
		return retagELB(ctx, r)
	},
	Mutable: append([]string{"TargetGroupAttributes", "Targets", "Tags"}, healthCheck...),
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, elb, "DeleteTargetGroup", &elbv2api.DeleteTargetGroupInput{TargetGroupArn: r.ID}))
	},
	Attributes: func(ctx context.Context, r *Request) (map[string]any, error) {
		out, err := call[elbv2api.DescribeTargetGroupsOutput](ctx, r, elb, "DescribeTargetGroups", &elbv2api.DescribeTargetGroupsInput{TargetGroupArns: []string{r.ID}})
		if err != nil {
			return nil, err
		}
		tg, err := first(out.TargetGroups, "TargetGroup", r.ID)
		if err != nil {
			return nil, err
		}
		i := strings.Index(tg.TargetGroupArn, "targetgroup/")
		return map[string]any{
			"TargetGroupArn": tg.TargetGroupArn, "TargetGroupName": tg.TargetGroupName, "LoadBalancerArns": tg.LoadBalancerArns,
			"TargetGroupFullName": tg.TargetGroupArn[max(i, 0):],
		}, nil
	},
	Named: "Name",
}

var healthCheck = []string{
	"HealthCheckEnabled", "HealthCheckIntervalSeconds", "HealthCheckPath", "HealthCheckPort", "HealthCheckProtocol",
	"HealthCheckTimeoutSeconds", "HealthyThresholdCount", "Matcher", "UnhealthyThresholdCount",
}

func tgAttributes(ctx context.Context, r *Request) error {
	if r.changed("TargetGroupAttributes") && len(list(r.Properties, "TargetGroupAttributes")) > 0 {
		in := &elbv2api.ModifyTargetGroupAttributesInput{TargetGroupArn: r.ID}
		if err := fill(in, map[string]any{"Attributes": r.Properties["TargetGroupAttributes"]}); err != nil {
			return err
		}
		if err := do(ctx, r, elb, "ModifyTargetGroupAttributes", in); err != nil {
			return err
		}
	}
	if !r.changed("Targets") {
		return nil
	}
	if len(list(r.Properties, "Targets")) > 0 {
		in := &elbv2api.RegisterTargetsInput{TargetGroupArn: r.ID}
		if err := fill(in, map[string]any{"Targets": r.Properties["Targets"]}); err != nil {
			return err
		}
		if err := do(ctx, r, elb, "RegisterTargets", in); err != nil {
			return err
		}
	}
	var left []any
	for _, x := range list(r.Old, "Targets") {
		if !slices.ContainsFunc(list(r.Properties, "Targets"), func(y any) bool { return asText(x) == asText(y) }) {
			left = append(left, x)
		}
	}
	if left == nil {
		return nil
	}
	in := &elbv2api.DeregisterTargetsInput{TargetGroupArn: r.ID}
	if err := fill(in, map[string]any{"Targets": left}); err != nil {
		return err
	}
	return do(ctx, r, elb, "DeregisterTargets", in)
}

var listener = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[elbv2api.DescribeListenersOutput](ctx, r, elb, "DescribeListeners", &elbv2api.DescribeListenersInput{LoadBalancerArn: text(r.Properties, "LoadBalancerArn")})
		if err != nil {
			return "", gone(err)
		}
		var arns []string
		for _, l := range out.Listeners {
			arns = append(arns, l.ListenerArn)
		}
		return oursELB(ctx, r, arns)
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		in := &elbv2api.CreateListenerInput{Tags: elbTags(r.tags())}
		if err := fill(in, r.Properties); err != nil {
			return "", err
		}
		out, err := call[elbv2api.CreateListenerOutput](ctx, r, elb, "CreateListener", in)
		if err != nil {
			return "", err
		}
		l, err := first(out.Listeners, "Listener", "")
		if err != nil {
			return "", err
		}
		return l.ListenerArn, nil
	},
	Update: func(ctx context.Context, r *Request) error {
		in := &elbv2api.ModifyListenerInput{ListenerArn: r.ID}
		if err := fill(in, r.Properties, "LoadBalancerArn"); err != nil {
			return err
		}
		if err := do(ctx, r, elb, "ModifyListener", in); err != nil {
			return err
		}
		return retagELB(ctx, r)
	},
	Mutable: []string{"DefaultActions", "Port", "Protocol"},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, elb, "DeleteListener", &elbv2api.DeleteListenerInput{ListenerArn: r.ID}))
	},
	Attributes: idAttribute("ListenerArn"),
}

var listenerRule = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[elbv2api.DescribeRulesOutput](ctx, r, elb, "DescribeRules", &elbv2api.DescribeRulesInput{ListenerArn: text(r.Properties, "ListenerArn")})
		if err != nil {
			return "", gone(err)
		}
		var arns []string
		for _, x := range out.Rules {
			if x.IsDefault == nil || !*x.IsDefault {
				arns = append(arns, x.RuleArn)
			}
		}
		return oursELB(ctx, r, arns)
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		in := &elbv2api.CreateRuleInput{Tags: elbTags(r.tags())}
		if err := fill(in, r.Properties); err != nil {
			return "", err
		}
		out, err := call[elbv2api.CreateRuleOutput](ctx, r, elb, "CreateRule", in)
		if err != nil {
			return "", err
		}
		x, err := first(out.Rules, "Rule", "")
		if err != nil {
			return "", err
		}
		return x.RuleArn, nil
	},
	Update: func(ctx context.Context, r *Request) error {
		if r.changed("Priority") {
			in := &elbv2api.SetRulePrioritiesInput{RulePriorities: []*elbv2api.RulePriorityPair{{RuleArn: r.ID, Priority: number(r.Properties, "Priority")}}}
			if err := do(ctx, r, elb, "SetRulePriorities", in); err != nil {
				return err
			}
		}
		in := &elbv2api.ModifyRuleInput{RuleArn: r.ID}
		if err := fill(in, r.Properties, "Priority", "ListenerArn"); err != nil {
			return err
		}
		if err := do(ctx, r, elb, "ModifyRule", in); err != nil {
			return err
		}
		return retagELB(ctx, r)
	},
	Mutable: []string{"Actions", "Conditions", "Priority"},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, elb, "DeleteRule", &elbv2api.DeleteRuleInput{RuleArn: r.ID}))
	},
	Attributes: func(_ context.Context, r *Request) (map[string]any, error) {
		return map[string]any{"RuleArn": r.ID, "IsDefault": false}, nil
	},
}
