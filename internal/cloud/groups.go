package cloud

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Group reads an Auto Scaling group.
func (d *Driver) Group(ctx context.Context, name string) (Group, error) {
	const op = "autoscaling:DescribeAutoScalingGroups"
	ctx, cancel := limit(ctx)
	defer cancel()
	out, err := d.asg.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{name}})
	if err != nil {
		return Group{}, translate(op, name, err)
	}
	if len(out.AutoScalingGroups) == 0 {
		return Group{}, missing(op, name)
	}
	return groupOf(out.AutoScalingGroups[0]), nil
}

// Groups reads all that are ours.
func (d *Driver) Groups(ctx context.Context) ([]Group, error) {
	ctx, cancel := limit(ctx)
	defer cancel()
	var all []Group
	for p := autoscaling.NewDescribeAutoScalingGroupsPaginator(d.asg, &autoscaling.DescribeAutoScalingGroupsInput{
		Filters: []types.Filter{{Name: new("tag:" + TagOwner), Values: []string{d.cfg.Owner}}},
	}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, translate("autoscaling:DescribeAutoScalingGroups", "", err)
		}
		for _, g := range page.AutoScalingGroups {
			if g := groupOf(g); g.Tags[TagOwner] == d.cfg.Owner {
				all = append(all, g)
			}
		}
	}
	return all, nil
}

func groupOf(g types.AutoScalingGroup) Group {
	out := Group{
		Name: aws.ToString(g.AutoScalingGroupName), Min: int(aws.ToInt32(g.MinSize)), Max: int(aws.ToInt32(g.MaxSize)), Desired: int(aws.ToInt32(g.DesiredCapacity)),
		TargetGroups: g.TargetGroupARNs, Tags: map[string]string{}, Deleting: aws.ToString(g.Status) != "",
	}
	for _, p := range g.SuspendedProcesses {
		out.Suspended = append(out.Suspended, aws.ToString(p.ProcessName))
	}
	for _, t := range g.Tags {
		out.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	for _, i := range g.Instances {
		out.Members = append(out.Members, Member{
			Instance: aws.ToString(i.InstanceId), Zone: aws.ToString(i.AvailabilityZone), Lifecycle: string(i.LifecycleState),
			Healthy: strings.EqualFold(aws.ToString(i.HealthStatus), "Healthy"), Protected: aws.ToBool(i.ProtectedFromScaleIn),
		})
	}
	return out
}

// Activities reads a group's scaling activities, the latest first.
func (d *Driver) Activities(ctx context.Context, group string) ([]Activity, error) {
	ctx, cancel := limit(ctx)
	defer cancel()
	var all []Activity
	for p := autoscaling.NewDescribeScalingActivitiesPaginator(d.asg, &autoscaling.DescribeScalingActivitiesInput{AutoScalingGroupName: &group}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, translate("autoscaling:DescribeScalingActivities", group, err)
		}
		for _, a := range page.Activities {
			all = append(all, Activity{
				ID: aws.ToString(a.ActivityId), Status: string(a.StatusCode), Description: aws.ToString(a.Description), Cause: aws.ToString(a.Cause),
				Message: aws.ToString(a.StatusMessage), Started: aws.ToTime(a.StartTime),
			})
		}
	}
	return all, nil
}

// DeleteGroup deletes a group of ours with its instances, protected or not;
// one that is not there is a success.
func (d *Driver) DeleteGroup(ctx context.Context, in Intent, name string) error {
	const op = "autoscaling:DeleteAutoScalingGroup"
	going := func(ctx context.Context) (bool, error) {
		g, err := d.Group(ctx, name)
		if isNotFound(err) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		ours, err := d.ours(ctx, g.Tags)
		if err == nil && !ours {
			err = notOurs(op, name)
		}
		return g.Deleting, err
	}
	_, err := perform(ctx, d, in, action[bool]{
		op: op, input: name,
		find: func(ctx context.Context, _ *IntentRecord) (bool, bool, error) {
			done, err := going(ctx)
			return done, done, err
		},
		call: func(ctx context.Context, _ *IntentRecord) (bool, error) {
			if done, err := going(ctx); done || err != nil {
				return done, err
			}
			_, err := d.asg.DeleteAutoScalingGroup(ctx, &autoscaling.DeleteAutoScalingGroupInput{AutoScalingGroupName: &name, ForceDelete: new(true)})
			err = translate(op, name, err)
			if isNotFound(err) || fault.CodeOf(err) == "ScalingActivityInProgress" && strings.Contains(err.Error(), "delet") {
				err = nil
			}
			return err == nil, err
		},
	})
	return err
}
