package cloud

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

// Targets reads a target group's members and their health.
func (d *Driver) Targets(ctx context.Context, targetGroup string) ([]Target, error) {
	ctx, cancel := limit(ctx)
	defer cancel()
	out, err := d.elb.DescribeTargetHealth(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: &targetGroup})
	if err != nil {
		return nil, translate("elasticloadbalancing:DescribeTargetHealth", targetGroup, err)
	}
	var all []Target
	for _, t := range out.TargetHealthDescriptions {
		var one Target
		if t.Target != nil {
			one.Instance, one.Port = aws.ToString(t.Target.Id), int(aws.ToInt32(t.Target.Port))
		}
		if t.TargetHealth != nil {
			one.State, one.Reason = string(t.TargetHealth.State), string(t.TargetHealth.Reason)
			if m := aws.ToString(t.TargetHealth.Description); m != "" {
				one.Reason = m
			}
		}
		all = append(all, one)
	}
	return all, nil
}

// DrainDelay is how long a target that is taken out of a target group may end
// its requests.
func (d *Driver) DrainDelay(ctx context.Context, targetGroup string) (time.Duration, error) {
	const op = "elasticloadbalancing:DescribeTargetGroupAttributes"
	ctx, cancel := limit(ctx)
	defer cancel()
	out, err := d.elb.DescribeTargetGroupAttributes(ctx, &elb.DescribeTargetGroupAttributesInput{TargetGroupArn: &targetGroup})
	if err != nil {
		return 0, translate(op, targetGroup, err)
	}
	for _, a := range out.Attributes {
		if aws.ToString(a.Key) == "deregistration_delay.timeout_seconds" {
			n, err := strconv.Atoi(aws.ToString(a.Value))
			if err != nil {
				return 0, translate(op, targetGroup, err)
			}
			return time.Duration(n) * time.Second, nil
		}
	}
	return 0, nil
}

// idle is what a listener answers while no target group is behind it.
var idle = types.Action{Type: types.ActionTypeEnumFixedResponse, FixedResponseConfig: &types.FixedResponseActionConfig{
	StatusCode: new("503"), ContentType: new("text/plain"), MessageBody: new("no generation serves"),
}}

// SetListener makes a listener's default action a weighted forward; without
// weights it answers 503 and forwards to nobody.
func (d *Driver) SetListener(ctx context.Context, in Intent, listener string, weights []Weight) error {
	const op = "elasticloadbalancing:ModifyListener"
	weights = inOrder(weights)
	_, err := perform(ctx, d, in, action[bool]{
		op: op, input: []any{listener, weights},
		find: func(ctx context.Context, _ *IntentRecord) (bool, bool, error) {
			now, err := d.ListenerWeights(ctx, listener)
			return true, err == nil && slices.Equal(inOrder(now), weights), err
		},
		call: func(ctx context.Context, _ *IntentRecord) (bool, error) {
			forward := &types.ForwardActionConfig{}
			for _, w := range weights {
				forward.TargetGroups = append(forward.TargetGroups, types.TargetGroupTuple{TargetGroupArn: &w.TargetGroup, Weight: new(int32(w.Weight))})
			}
			to := types.Action{Type: types.ActionTypeEnumForward, ForwardConfig: forward}
			if len(weights) == 0 {
				to = idle
			}
			_, err := d.elb.ModifyListener(ctx, &elb.ModifyListenerInput{ListenerArn: &listener, DefaultActions: []types.Action{to}})
			return true, translate(op, listener, err)
		},
	})
	return err
}

// EnsureListener makes an HTTP listener on a port of a load balancer and returns
// its ARN; the port is how it is found again.
func (d *Driver) EnsureListener(ctx context.Context, in Intent, loadBalancer string, port int, tags Tags) (string, error) {
	const op = "elasticloadbalancing:CreateListener"
	return perform(ctx, d, in, action[string]{
		op: op, input: []any{loadBalancer, port},
		find: func(ctx context.Context, _ *IntentRecord) (string, bool, error) {
			p := elb.NewDescribeListenersPaginator(d.elb, &elb.DescribeListenersInput{LoadBalancerArn: &loadBalancer})
			for p.HasMorePages() {
				out, err := p.NextPage(ctx)
				if err != nil {
					return "", false, translate(op, loadBalancer, err)
				}
				for _, l := range out.Listeners {
					if aws.ToInt32(l.Port) == int32(port) {
						return aws.ToString(l.ListenerArn), true, nil
					}
				}
			}
			return "", false, nil
		},
		call: func(ctx context.Context, _ *IntentRecord) (string, error) {
			req := &elb.CreateListenerInput{LoadBalancerArn: &loadBalancer, Port: new(int32(port)), Protocol: types.ProtocolEnumHttp, DefaultActions: []types.Action{idle}}
			for k, v := range d.marked(in, tags) {
				req.Tags = append(req.Tags, types.Tag{Key: new(k), Value: new(v)})
			}
			out, err := d.elb.CreateListener(ctx, req)
			if err != nil {
				return "", translate(op, loadBalancer, err)
			}
			return aws.ToString(out.Listeners[0].ListenerArn), nil
		},
	})
}

// DeleteListener removes a listener; one that is absent is a success.
func (d *Driver) DeleteListener(ctx context.Context, in Intent, listener string) error {
	const op = "elasticloadbalancing:DeleteListener"
	_, err := perform(ctx, d, in, action[bool]{
		op: op, input: listener,
		find: func(ctx context.Context, _ *IntentRecord) (bool, bool, error) { return true, false, nil },
		call: func(ctx context.Context, _ *IntentRecord) (bool, error) {
			_, err := d.elb.DeleteListener(ctx, &elb.DeleteListenerInput{ListenerArn: &listener})
			if err = translate(op, listener, err); isNotFound(err) {
				err = nil
			}
			return true, err
		},
	})
	return err
}

// ListenerWeights reads the weights of a listener's default action; none where
// it does not forward.
func (d *Driver) ListenerWeights(ctx context.Context, listener string) ([]Weight, error) {
	const op = "elasticloadbalancing:DescribeListeners"
	ctx, cancel := limit(ctx)
	defer cancel()
	out, err := d.elb.DescribeListeners(ctx, &elb.DescribeListenersInput{ListenerArns: []string{listener}})
	if err != nil {
		return nil, translate(op, listener, err)
	}
	if len(out.Listeners) == 0 {
		return nil, missing(op, listener)
	}
	var all []Weight
	for _, a := range out.Listeners[0].DefaultActions {
		switch {
		case a.Type != types.ActionTypeEnumForward:
		case a.ForwardConfig != nil && len(a.ForwardConfig.TargetGroups) > 0:
			for _, t := range a.ForwardConfig.TargetGroups {
				w := 1 // what ELB takes where none is given
				if t.Weight != nil {
					w = int(*t.Weight)
				}
				all = append(all, Weight{aws.ToString(t.TargetGroupArn), w})
			}
		case a.TargetGroupArn != nil:
			all = append(all, Weight{*a.TargetGroupArn, 1})
		}
	}
	return all, nil
}

func inOrder(w []Weight) []Weight {
	return slices.SortedFunc(slices.Values(w), func(a, b Weight) int {
		return cmp.Or(cmp.Compare(a.TargetGroup, b.TargetGroup), cmp.Compare(a.Weight, b.Weight))
	})
}
