package provider

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
)

// exceptGroup are the group's properties that have other names or forms in
// Auto Scaling's requests.
var exceptGroup = []string{"AutoScalingGroupName", "Cooldown", "Tags", "VPCZoneIdentifier", "TargetGroupARNs", "LifecycleHookSpecificationList"}

var autoScalingGroup = &Provider{
	After: beforeBoot,
	Find: func(ctx context.Context, r *Request) (string, error) {
		r = &Request{Bus: r.Bus, ID: groupName(r), StackID: r.StackID}
		g, err := describeASG(ctx, r)
		if err != nil || g == nil {
			return "", err
		}
		for _, t := range g.Tags {
			if t.Key == TagStackID && t.Value == r.StackID {
				return r.ID, nil
			}
		}
		return "", nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		in := &autoscalingapi.CreateAutoScalingGroupType{
			AutoScalingGroupName: groupName(r), DefaultCooldown: number(r.Properties, "Cooldown"),
			VPCZoneIdentifier: strings.Join(texts(r.Properties, "VPCZoneIdentifier"), ","),
			TargetGroupARNs:   texts(r.Properties, "TargetGroupARNs"), Tags: groupTags(groupName(r), r.Properties, r.Tags),
		}
		if err := fill(in, r.Properties, exceptGroup...); err != nil {
			return "", err
		}
		// The hooks travel inside the call: instances that are launched before a
		// hook is there are missed by it.
		if hooks, ok := r.Properties["LifecycleHookSpecificationList"]; ok {
			if err := fill(in, map[string]any{"LifecycleHookSpecificationList": hooks}); err != nil {
				return "", err
			}
		}
		return in.AutoScalingGroupName, do(ctx, r, "autoscaling", "CreateAutoScalingGroup", in)
	},
	Update: updateGroup,
	Mutable: []string{
		"AvailabilityZoneDistribution", "AvailabilityZones", "Cooldown", "DefaultInstanceWarmup", "DesiredCapacity", "HealthCheckGracePeriod",
		"HealthCheckType", "LaunchTemplate", "LifecycleHookSpecificationList", "MaxInstanceLifetime", "MaxSize", "MinSize",
		"NewInstancesProtectedFromScaleIn", "Tags", "TargetGroupARNs", "TerminationPolicies", "VPCZoneIdentifier",
	},
	// As CloudFormation does it: first no instances, then no group. Instances
	// that are protected from scale-in keep it waiting.
	Remove: func(ctx context.Context, r *Request) error {
		g, err := describeASG(ctx, r)
		if err != nil || g == nil || g.Status != "" {
			return err
		}
		return gone(do(ctx, r, "autoscaling", "UpdateAutoScalingGroup", &autoscalingapi.UpdateAutoScalingGroupType{
			AutoScalingGroupName: r.ID, MinSize: new(int64(0)), MaxSize: new(int64(0)), DesiredCapacity: new(int64(0)),
		}))
	},
	Gone: func(ctx context.Context, r *Request) (bool, error) {
		g, err := describeASG(ctx, r)
		if err != nil || g == nil {
			return err == nil, err
		}
		if len(g.Instances) > 0 || g.Status != "" {
			return false, nil
		}
		err = do(ctx, r, "autoscaling", "DeleteAutoScalingGroup", &autoscalingapi.DeleteAutoScalingGroupType{AutoScalingGroupName: r.ID, ForceDelete: new(false)})
		if err != nil && !NotFound(err) && !Busy(err) {
			return false, err
		}
		g, err = describeASG(ctx, r)
		return err == nil && g == nil, err
	},
	Attributes: func(ctx context.Context, r *Request) (map[string]any, error) {
		g, err := describeASG(ctx, r)
		if err != nil {
			return nil, err
		}
		if g == nil {
			return nil, fmt.Errorf("AutoScalingGroup name not found - %s", r.ID)
		}
		return map[string]any{"AutoScalingGroupARN": g.AutoScalingGroupARN}, nil
	},
	Named: "AutoScalingGroupName",
	Refuse: func(p map[string]any) (string, string) {
		if _, ok := p["LaunchTemplate"]; !ok {
			return "LaunchTemplate", "the local region makes groups from launch templates only: LaunchTemplate is missing"
		}
		return "", ""
	},
}

func groupName(r *Request) string { return r.custom("AutoScalingGroupName", 255) }

// describeASG returns nil for a group that is not there.
func describeASG(ctx context.Context, r *Request) (*autoscalingapi.AutoScalingGroup, error) {
	out, err := call[autoscalingapi.AutoScalingGroupsType](ctx, r, "autoscaling", "DescribeAutoScalingGroups", &autoscalingapi.AutoScalingGroupNamesType{AutoScalingGroupNames: []string{r.ID}})
	if err != nil {
		return nil, err
	}
	for _, g := range out.AutoScalingGroups {
		return g, nil
	}
	return nil, nil
}

// groupTags are a group's tags: the stack's go on to instances, as on AWS.
func groupTags(name string, properties map[string]any, stack map[string]string) []*autoscalingapi.Tag {
	by := map[string]*autoscalingapi.Tag{}
	for k, v := range stack {
		by[k] = &autoscalingapi.Tag{Key: k, Value: v, PropagateAtLaunch: new(true), ResourceId: name, ResourceType: "auto-scaling-group"}
	}
	for _, x := range list(properties, "Tags") {
		m, _ := x.(map[string]any)
		k := text(m, "Key")
		by[k] = &autoscalingapi.Tag{Key: k, Value: text(m, "Value"), PropagateAtLaunch: flag(m, "PropagateAtLaunch"), ResourceId: name, ResourceType: "auto-scaling-group"}
	}
	var out []*autoscalingapi.Tag
	for _, k := range slices.Sorted(maps.Keys(by)) {
		out = append(out, by[k])
	}
	return out
}

func updateGroup(ctx context.Context, r *Request) error {
	in := &autoscalingapi.UpdateAutoScalingGroupType{
		AutoScalingGroupName: r.ID, DefaultCooldown: number(r.Properties, "Cooldown"),
		VPCZoneIdentifier: strings.Join(texts(r.Properties, "VPCZoneIdentifier"), ","),
	}
	if err := fill(in, r.Properties, exceptGroup...); err != nil {
		return err
	}
	if err := do(ctx, r, "autoscaling", "UpdateAutoScalingGroup", in); err != nil {
		return err
	}
	add, remove := difference(texts(r.Properties, "TargetGroupARNs"), texts(r.Old, "TargetGroupARNs"))
	if len(add) > 0 {
		if err := do(ctx, r, "autoscaling", "AttachLoadBalancerTargetGroups", &autoscalingapi.AttachLoadBalancerTargetGroupsType{AutoScalingGroupName: r.ID, TargetGroupARNs: add}); err != nil {
			return err
		}
	}
	if len(remove) > 0 {
		if err := gone(do(ctx, r, "autoscaling", "DetachLoadBalancerTargetGroups", &autoscalingapi.DetachLoadBalancerTargetGroupsType{AutoScalingGroupName: r.ID, TargetGroupARNs: remove})); err != nil {
			return err
		}
	}
	if err := updateHooks(ctx, r); err != nil {
		return err
	}
	if err := do(ctx, r, "autoscaling", "CreateOrUpdateTags", &autoscalingapi.CreateOrUpdateTagsType{Tags: groupTags(r.ID, r.Properties, r.Tags)}); err != nil {
		return err
	}
	if _, keys := r.tagChanges(); len(keys) > 0 {
		in := &autoscalingapi.DeleteTagsType{}
		for _, k := range keys {
			in.Tags = append(in.Tags, &autoscalingapi.Tag{Key: k, ResourceId: r.ID, ResourceType: "auto-scaling-group"})
		}
		return do(ctx, r, "autoscaling", "DeleteTags", in)
	}
	return nil
}

func updateHooks(ctx context.Context, r *Request) error {
	if !r.changed("LifecycleHookSpecificationList") {
		return nil
	}
	names := map[string]bool{}
	for _, x := range list(r.Properties, "LifecycleHookSpecificationList") {
		m, _ := x.(map[string]any)
		names[text(m, "LifecycleHookName")] = true
		in := &autoscalingapi.PutLifecycleHookType{AutoScalingGroupName: r.ID}
		if err := fill(in, m); err != nil {
			return err
		}
		if err := do(ctx, r, "autoscaling", "PutLifecycleHook", in); err != nil {
			return err
		}
	}
	for _, x := range list(r.Old, "LifecycleHookSpecificationList") {
		m, _ := x.(map[string]any)
		if n := text(m, "LifecycleHookName"); !names[n] {
			if err := gone(do(ctx, r, "autoscaling", "DeleteLifecycleHook", &autoscalingapi.DeleteLifecycleHookType{AutoScalingGroupName: r.ID, LifecycleHookName: n})); err != nil {
				return err
			}
		}
	}
	return nil
}

// difference is what is in want alone, and in have alone.
func difference(want, have []string) (add, remove []string) {
	for _, x := range want {
		if !slices.Contains(have, x) {
			add = append(add, x)
		}
	}
	for _, x := range have {
		if !slices.Contains(want, x) {
			remove = append(remove, x)
		}
	}
	return add, remove
}

var lifecycleHook = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		name := r.custom("LifecycleHookName", 255)
		out, err := call[autoscalingapi.DescribeLifecycleHooksAnswer](ctx, r, "autoscaling", "DescribeLifecycleHooks", &autoscalingapi.DescribeLifecycleHooksType{
			AutoScalingGroupName: text(r.Properties, "AutoScalingGroupName"), LifecycleHookNames: []string{name}})
		if err != nil || len(out.LifecycleHooks) == 0 {
			return "", gone(err)
		}
		return name, nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		name := r.custom("LifecycleHookName", 255)
		return name, putHook(ctx, r, name)
	},
	Update:  func(ctx context.Context, r *Request) error { return putHook(ctx, r, r.ID) },
	Mutable: []string{"DefaultResult", "HeartbeatTimeout", "LifecycleTransition", "NotificationMetadata"},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, "autoscaling", "DeleteLifecycleHook", &autoscalingapi.DeleteLifecycleHookType{
			AutoScalingGroupName: text(r.Properties, "AutoScalingGroupName"), LifecycleHookName: r.ID,
		}))
	},
	Named: "LifecycleHookName",
}

func putHook(ctx context.Context, r *Request, name string) error {
	in := &autoscalingapi.PutLifecycleHookType{}
	if err := fill(in, r.Properties, "LifecycleHookName"); err != nil {
		return err
	}
	in.LifecycleHookName = name
	return do(ctx, r, "autoscaling", "PutLifecycleHook", in)
}

// A handle does nothing here: it is a placeholder in templates. Whoever needs
// its address is told that there is none.
var waitConditionHandle = &Provider{
	Find:   func(context.Context, *Request) (string, error) { return "", nil },
	Create: func(_ context.Context, r *Request) (string, error) { return r.Name(255), nil },
	Ref: func(r *Request) (string, error) {
		return "", fmt.Errorf("the local region does not serve the addresses of wait condition handles, such as %s", r.Logical)
	},
}
