package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	proceed = "CONTINUE"
	abandon = "ABANDON"

	autoscalingVersion = "2011-01-01"
)

// group is the Auto Scaling group that the instance belongs to, "" when none:
// from the instance's own tag where metadata shows tags, else by asking.
func (a *Agent) group(ctx context.Context, instance string) (string, error) {
	g, err := a.metadata.get(ctx, "meta-data/tags/instance/aws:autoscaling:groupName")
	if err == nil && g != "" {
		return g, nil
	}
	doc, err := a.describe(ctx, instance)
	return element(doc, "AutoScalingGroupName"), err
}

func (a *Agent) describe(ctx context.Context, instance string) (doc string, err error) {
	err = a.aws.retry(ctx, 6, func() error {
		doc, err = a.aws.query(ctx, "autoscaling", autoscalingVersion, "DescribeAutoScalingInstances", map[string]string{"InstanceIds.member.1": instance})
		return err
	})
	return doc, err
}

// complete answers the launch hook. The instance may be faster than its group:
// until the group waits for it there is no action to complete, and the answer
// is tried again; in a group without the hook it comes into service by itself.
func (a *Agent) complete(ctx context.Context, b *boot, group, result string) error {
	if group == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	pause := 100 * time.Millisecond
	for {
		err := a.aws.retry(ctx, 8, func() error {
			_, err := a.aws.query(ctx, "autoscaling", autoscalingVersion, "CompleteLifecycleAction", map[string]string{
				"AutoScalingGroupName": group, "LifecycleHookName": b.Launch.Hook, "InstanceId": b.ID.Instance, "LifecycleActionResult": result,
			})
			return err
		})
		if err == nil {
			return nil
		}
		if e, ok := errors.AsType[*awsError](err); !ok || e.Code != "ValidationError" {
			return err
		}
		doc, derr := a.describe(ctx, b.ID.Instance)
		if derr != nil {
			return errors.Join(err, derr)
		}
		state := element(doc, "LifecycleState")
		if !strings.HasPrefix(state, "Pending") {
			return nil // in service already, on its way out, or not in a group any more
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the instance is %s: %w", state, err)
		case <-time.After(pause):
		}
		pause = min(2*pause, 2*time.Second)
	}
}
