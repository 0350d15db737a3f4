package autoscaling

import (
	"context"
	"slices"
	"strings"
	"time"

	api "github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const (
	mostHooks        = 50
	defaultHeartbeat = time.Hour
)

func newHook(h hook) (hook, error) {
	if h.Name == "" || len(h.Name) > 255 {
		return h, invalid("The lifecycle hook's name must have 1 to 255 characters")
	}
	if h.Transition != launchingHook && h.Transition != terminatingHook {
		return h, invalid("Invalid lifecycle transition: %s", h.Transition)
	}
	if h.Default == "" {
		h.Default = resultAbandon
	}
	if h.Default != resultAbandon && h.Default != resultContinue {
		return h, invalid("Invalid default result %s: use CONTINUE or ABANDON", h.Default)
	}
	if h.Heartbeat == 0 {
		h.Heartbeat = defaultHeartbeat
	}
	if h.Heartbeat < 30*time.Second || h.Heartbeat > 7200*time.Second {
		return h, invalid("HeartbeatTimeout must be between 30 and 7200 seconds")
	}
	if len(h.Metadata) > 4000 {
		return h, invalid("NotificationMetadata must have at most 4000 characters")
	}
	return h, nil
}

func putHook(list []hook, h hook) []hook {
	out := slices.DeleteFunc(slices.Clone(list), func(x hook) bool { return x.Name == h.Name })
	out = append(out, h)
	slices.SortFunc(out, func(a, b hook) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// PutLifecycleHook creates a hook or changes one; instances that wait already
// go on as they began.
func (s *Service) PutLifecycleHook(_ context.Context, in *api.PutLifecycleHookType) (*api.PutLifecycleHookAnswer, error) {
	if in.NotificationTargetARN != "" {
		return nil, wire.Unrealised("notifications of lifecycle hooks (NotificationTargetARN)")
	}
	err := s.change(in.AutoScalingGroupName, func(_ *state.Tx, g *group, _ time.Time) error {
		h := hook{Name: in.LifecycleHookName}
		if i := slices.IndexFunc(g.Hooks, func(x hook) bool { return x.Name == in.LifecycleHookName }); i >= 0 {
			h = g.Hooks[i]
		}
		if in.LifecycleTransition != "" {
			h.Transition = in.LifecycleTransition
		}
		if in.DefaultResult != "" {
			h.Default = in.DefaultResult
		}
		if in.HeartbeatTimeout != nil {
			h.Heartbeat = seconds(in.HeartbeatTimeout)
		}
		if in.NotificationMetadata != "" {
			h.Metadata = in.NotificationMetadata
		}
		if in.RoleARN != "" {
			h.Role = in.RoleARN
		}
		h, err := newHook(h)
		if err != nil {
			return err
		}
		if g.Hooks = putHook(g.Hooks, h); len(g.Hooks) > mostHooks {
			return wire.Errorf("LimitExceeded", "The number of lifecycle hooks must not exceed %d", mostHooks)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.PutLifecycleHookAnswer{}, nil
}

// DeleteLifecycleHook removes a hook; who waits for it waits no more.
func (s *Service) DeleteLifecycleHook(_ context.Context, in *api.DeleteLifecycleHookType) (*api.DeleteLifecycleHookAnswer, error) {
	err := s.change(in.AutoScalingGroupName, func(tx *state.Tx, g *group, _ time.Time) error {
		n := len(g.Hooks)
		g.Hooks = slices.DeleteFunc(slices.Clone(g.Hooks), func(h hook) bool { return h.Name == in.LifecycleHookName })
		if len(g.Hooks) == n {
			return invalid("No Lifecycle Hook found with name: %s", in.LifecycleHookName)
		}
		for _, m := range s.members(tx, g.Name) {
			ws := slices.DeleteFunc(slices.Clone(m.Waits), func(w wait) bool { return w.Hook == in.LifecycleHookName })
			if len(ws) < len(m.Waits) { // outstanding actions complete with CONTINUE
				m.Waits = ws
				s.instances.Put(tx, m.ID, m)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteLifecycleHookAnswer{}, nil
}

// DescribeLifecycleHooks lists a group's hooks.
func (s *Service) DescribeLifecycleHooks(_ context.Context, in *api.DescribeLifecycleHooksType) (*api.DescribeLifecycleHooksAnswer, error) {
	g, err := s.group(in.AutoScalingGroupName)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeLifecycleHooksAnswer{LifecycleHooks: []*api.LifecycleHook{}}
	for _, h := range g.Hooks {
		if len(in.LifecycleHookNames) > 0 && !slices.Contains(in.LifecycleHookNames, h.Name) {
			continue
		}
		out.LifecycleHooks = append(out.LifecycleHooks, &api.LifecycleHook{
			AutoScalingGroupName: g.Name, LifecycleHookName: h.Name, LifecycleTransition: h.Transition, DefaultResult: h.Default,
			HeartbeatTimeout: new(int64(h.Heartbeat.Seconds())), GlobalTimeout: new(int64(globalTimeout(h.Heartbeat).Seconds())),
			NotificationMetadata: h.Metadata, NotificationTargetARN: h.Target, RoleARN: h.Role,
		})
	}
	return out, nil
}
