package ec2

import (
	"context"
	"slices"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

var byUser = reason{"Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown"}

// transition is AWS's text of when a user asked for something.
func transition(now time.Time) string {
	return "User initiated (" + now.UTC().Format("2006-01-02 15:04:05") + " GMT)"
}

// each changes instances all together, or none where one of the ids is bad.
// apply changes one; the ids that it changed are then worked on.
func (s *Service) each(ids []string, dryRun *bool, apply func(i *instance) (changed bool, err error)) ([]*ec2api.InstanceStateChange, error) {
	if len(ids) == 0 {
		return nil, wire.Errorf("MissingParameter", "The request must contain the parameter InstanceId")
	}
	if len(ids) > maxLaunch {
		return nil, wire.Errorf("InvalidParameterValue", "At most %d instances may be named in one call", maxLaunch)
	}
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	var out []*ec2api.InstanceStateChange
	var todo []string
	err := s.update(func(tx *state.Tx) error {
		out, todo = nil, nil
		var changed []instance
		for _, id := range ids {
			i, ok := s.instances.Get(tx, id)
			if !ok {
				return noInstance(id)
			}
			x := &ec2api.InstanceStateChange{InstanceId: id, PreviousState: stateView(i.State)}
			again, err := apply(&i)
			if err != nil {
				return err
			}
			if again {
				changed, todo = append(changed, i), append(todo, id)
			}
			x.CurrentState = stateView(i.State)
			out = append(out, x)
		}
		for _, i := range changed {
			s.putInstance(tx, i)
		}
		return dry(dryRun)
	})
	if err != nil {
		return nil, err
	}
	s.work.add(todo...)
	return out, nil
}

// TerminateInstances ends instances for good. One bad id, or one protected
// instance, and none is touched.
func (s *Service) TerminateInstances(ctx context.Context, in *ec2api.TerminateInstancesRequest) (*ec2api.TerminateInstancesResult, error) {
	now := s.now()
	changes, err := s.each(in.InstanceIds, in.DryRun, func(i *instance) (bool, error) {
		if i.NoTerminate && i.State != terminated {
			return false, wire.Errorf("OperationNotPermitted", "The instance '%s' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.", i.ID)
		}
		if !i.become(shuttingDown) {
			return false, nil // it is on its way, or gone
		}
		i.Reason, i.Transition = byUser, transition(now)
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	return &ec2api.TerminateInstancesResult{TerminatingInstances: changes}, nil
}

func wrongState(i *instance, action string) error {
	return wire.Errorf("IncorrectInstanceState", "The instance '%s' is not in a state from which it can be %s.", i.ID, action)
}

// StopInstances stops instances; their disks stay.
func (s *Service) StopInstances(ctx context.Context, in *ec2api.StopInstancesRequest) (*ec2api.StopInstancesResult, error) {
	if yes(in.Hibernate) {
		return nil, wire.Errorf("UnsupportedHibernationConfiguration", "The local region cannot hibernate instances")
	}
	now := s.now()
	changes, err := s.each(in.InstanceIds, in.DryRun, func(i *instance) (bool, error) {
		switch {
		case i.State == stopped || i.State == stopping:
			return false, nil
		case i.NoStop:
			return false, wire.Errorf("OperationNotPermitted", "The instance '%s' may not be stopped. Modify its 'disableApiStop' instance attribute and try again.", i.ID)
		case i.State == pending && !i.Booted:
			return false, wrongState(i, "stopped")
		case !i.become(stopping):
			return false, wrongState(i, "stopped")
		}
		i.Reason, i.Transition, i.Force = byUser, transition(now), yes(in.Force) || yes(in.SkipOsShutdown)
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	return &ec2api.StopInstancesResult{StoppingInstances: changes}, nil
}

// StartInstances boots stopped instances again, on their own disks.
func (s *Service) StartInstances(ctx context.Context, in *ec2api.StartInstancesRequest) (*ec2api.StartInstancesResult, error) {
	now := s.now()
	changes, err := s.each(in.InstanceIds, in.DryRun, func(i *instance) (bool, error) {
		if i.State == running || i.State == pending {
			return false, nil
		}
		if !i.become(pending) {
			return false, wrongState(i, "started")
		}
		i.Reason, i.Transition, i.Launched = reason{}, "", now
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	return &ec2api.StartInstancesResult{StartingInstances: changes}, nil
}

// RebootInstances stops and starts running instances, which count as running
// all the while.
func (s *Service) RebootInstances(ctx context.Context, in *ec2api.RebootInstancesRequest) error {
	_, err := s.each(in.InstanceIds, in.DryRun, func(i *instance) (bool, error) {
		if i.State != running {
			return false, wrongState(i, "rebooted")
		}
		i.Reboot = true
		i.Epoch++
		return true, nil
	})
	return err
}
