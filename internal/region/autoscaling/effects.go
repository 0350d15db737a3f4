package autoscaling

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// start runs an effect beside the loop, once at a time for each key.
func (s *Service) start(ctx context.Context, key string, f func(context.Context)) {
	s.busyMu.Lock()
	defer s.busyMu.Unlock()
	if s.busy[key] || ctx.Err() != nil {
		return
	}
	s.busy[key] = true
	s.work.Go(func() {
		defer func() {
			s.busyMu.Lock()
			delete(s.busy, key)
			s.busyMu.Unlock()
		}()
		f(ctx)
	})
}

// effects does what the records say and the world does not show yet. Every
// effect may be repeated: a crash between doing and noting does no harm.
func (s *Service) effects(ctx context.Context, snap snapshot, o observed) {
	var kill []string
	register, release := map[string][]string{}, map[string][]string{}
	for i := range snap.groups {
		g := &snap.groups[i]
		for _, l := range g.Launches {
			s.start(ctx, "launch/"+l.Token, func(ctx context.Context) { s.runLaunch(ctx, *g, l) })
		}
		list := snap.instances[g.Name]
		for j := range list {
			in := &list[j]
			if in.State == terminatingProceed {
				if m, known := o.EC2[in.ID]; !known || !m.ended() {
					kill = append(kill, in.ID)
				}
			}
			if leaving(in.State) || strings.HasPrefix(in.State, terminating) {
				for _, arn := range in.toDrain() {
					release[arn] = append(release[arn], in.ID)
				}
			}
			if in.State == inService {
				for _, tg := range g.TargetGroups {
					if !slices.Contains(in.Registered, tg.ARN) && !slices.Contains(in.Skip, tg.ARN) {
						register[tg.ARN] = append(register[tg.ARN], in.ID)
					}
				}
				for _, arn := range g.DetachTargets {
					if slices.Contains(in.Registered, arn) {
						release[arn] = append(release[arn], in.ID)
					}
				}
			}
		}
	}
	if len(kill) > 0 {
		s.start(ctx, "terminate", func(ctx context.Context) { s.terminate(ctx, kill) })
	}
	for arn, ids := range register {
		s.start(ctx, "targets/"+arn, func(ctx context.Context) { s.register(ctx, arn, ids) })
	}
	for arn, ids := range release {
		s.start(ctx, "targets/"+arn, func(ctx context.Context) { s.release(ctx, arn, ids) })
	}
}

// terminate ends many instances with one call. Where EC2 refuses the call
// because of one of them, the others must not suffer: they go one by one.
func (s *Service) terminate(ctx context.Context, ids []string) {
	call := func(ids []string) error {
		_, err := wire.Call[ec2api.TerminateInstancesResult](ctx, s.c.Bus, "ec2", "TerminateInstances", &ec2api.TerminateInstancesRequest{InstanceIds: ids})
		return err
	}
	err := call(ids)
	if err == nil {
		s.wake()
		return
	}
	s.c.Log.Warn("terminate instances", "count", len(ids), "err", err)
	if len(ids) > 1 {
		for _, id := range ids {
			if err := call([]string{id}); err != nil && wire.CodeOf(err) != "InvalidInstanceID.NotFound" {
				s.c.Log.Warn("terminate instance", "instance", id, "err", err)
			}
		}
	}
	s.pause(ctx)
}

// pause keeps an effect that failed from being repeated at once.
func (s *Service) pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-s.c.Clock.After(500 * time.Millisecond):
	}
}

func targetsOf(ids []string) []*elbv2api.TargetDescription {
	var out []*elbv2api.TargetDescription
	for _, id := range ids {
		out = append(out, &elbv2api.TargetDescription{Id: id})
	}
	return out
}

// note updates instances after an effect, those that are still in their group.
func (s *Service) note(ids []string, f func(*instance)) {
	err := s.c.DB.Update(func(tx *state.Tx) error {
		for _, id := range ids {
			if in, ok := s.instances.Get(tx, id); ok {
				f(&in)
				s.instances.Put(tx, id, in)
			}
		}
		return nil
	})
	if err != nil {
		s.c.Log.Error("note an effect", "err", err)
	}
}

func (s *Service) register(ctx context.Context, arn string, ids []string) {
	call := func(ids []string) error {
		_, err := wire.Call[elbv2api.RegisterTargetsOutput](ctx, s.c.Bus, "elbv2", "RegisterTargets", &elbv2api.RegisterTargetsInput{TargetGroupArn: arn, Targets: targetsOf(ids)})
		return err
	}
	err := call(ids)
	if err != nil && len(ids) > 1 && wire.CodeOf(err) != "TargetGroupNotFound" { // one bad instance refuses all
		ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return call([]string{id}) != nil })
		err = nil
	}
	if err != nil || len(ids) == 0 {
		s.c.Log.Warn("register targets", "targetGroup", arn, "err", err)
		s.pause(ctx)
		return
	}
	s.note(ids, func(in *instance) {
		in.Registered, in.Drained = with(in.Registered, arn), without(in.Drained, arn)
	})
}

// release deregisters instances; those that stay in service, because only
// the target group was detached, forget it at once.
func (s *Service) release(ctx context.Context, arn string, ids []string) {
	_, err := wire.Call[elbv2api.DeregisterTargetsOutput](ctx, s.c.Bus, "elbv2", "DeregisterTargets", &elbv2api.DeregisterTargetsInput{TargetGroupArn: arn, Targets: targetsOf(ids)})
	if err != nil && wire.CodeOf(err) != "TargetGroupNotFound" {
		s.c.Log.Warn("deregister targets", "targetGroup", arn, "err", err)
		s.pause(ctx)
		return
	}
	s.note(ids, func(in *instance) {
		if in.State == inService {
			in.Registered, in.Drained = without(in.Registered, arn), without(in.Drained, arn)
			return
		}
		in.Drained = with(in.Drained, arn)
	})
}
