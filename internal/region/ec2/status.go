package ec2

import (
	"context"
	"encoding/base64"
	"errors"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/state"
)

const (
	readyFor    = 10 * time.Second // how long an answer of the guest counts
	readyWithin = 2 * time.Second  // how long the guest has to answer
	readyAtOnce = 16
)

// readiness remembers which guests have answered lately.
type readiness struct {
	mu sync.Mutex
	m  map[string]time.Time
}

func (r *readiness) known(id string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.m[id]
	return ok && now.Sub(t) < readyFor
}

func (r *readiness) put(id string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil {
		r.m = map[string]time.Time{}
	}
	r.m[id] = now
}

func (r *readiness) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.m, id)
}

// answering asks the guests of running instances whether they are up, those
// that have not answered lately.
func (s *Service) answering(ctx context.Context, ids []string) map[string]bool {
	now := s.clock.Now()
	out := map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, readyAtOnce)
	for _, id := range ids {
		if s.ready.known(id, now) {
			mu.Lock()
			out[id] = true
			mu.Unlock()
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, readyWithin)
			defer cancel()
			if s.hyper.Ready(ctx, id) == nil {
				s.ready.put(id, now)
				mu.Lock()
				out[id] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return out
}

var statusFields = filter.Fields[*ec2api.InstanceStatus]{
	By: map[string]func(*ec2api.InstanceStatus) []string{
		"instance-state-name":          func(v *ec2api.InstanceStatus) []string { return filter.One(v.InstanceState.Name) },
		"instance-state-code":          func(v *ec2api.InstanceStatus) []string { return number(v.InstanceState.Code) },
		"instance-status.status":       func(v *ec2api.InstanceStatus) []string { return filter.One(v.InstanceStatus.Status) },
		"system-status.status":         func(v *ec2api.InstanceStatus) []string { return filter.One(v.SystemStatus.Status) },
		"instance-status.reachability": func(v *ec2api.InstanceStatus) []string { return reachability(v.InstanceStatus) },
		"system-status.reachability":   func(v *ec2api.InstanceStatus) []string { return reachability(v.SystemStatus) },
		"availability-zone":            func(v *ec2api.InstanceStatus) []string { return filter.One(v.AvailabilityZone) },
		"event.code":                   func(*ec2api.InstanceStatus) []string { return nil },
	},
}

func reachability(v *ec2api.InstanceStatusSummary) (o []string) {
	for _, d := range v.Details {
		o = append(o, d.Status)
	}
	return o
}

func summary(status string) *ec2api.InstanceStatusSummary {
	o := &ec2api.InstanceStatusSummary{Status: status}
	switch status {
	case "ok":
		o.Details = []*ec2api.InstanceStatusDetails{{Name: "reachability", Status: "passed"}}
	case "initializing":
		o.Details = []*ec2api.InstanceStatusDetails{{Name: "reachability", Status: "initializing"}}
	}
	return o
}

// DescribeInstanceStatus tells the states of running instances, or of all. The
// checks of an instance are passed when the guest in it answers.
func (s *Service) DescribeInstanceStatus(ctx context.Context, in *ec2api.DescribeInstanceStatusRequest) (*ec2api.DescribeInstanceStatusResult, error) {
	all := yes(in.IncludeAllInstances)
	var up []string
	s.view(func(tx *state.Tx) {
		if len(in.InstanceIds) > 0 {
			for _, id := range in.InstanceIds {
				if i, ok := s.instances.Get(tx, id); ok && i.State == running {
					up = append(up, id)
				}
			}
			return
		}
		for id, i := range s.instances.All(tx) {
			if i.State == running {
				up = append(up, id)
			}
		}
	})
	answers := s.answering(ctx, up)
	out := &ec2api.DescribeInstanceStatusResult{}
	q := query[ec2api.InstanceStatus]{filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: statusFields,
		id: func(v *ec2api.InstanceStatus) string { return v.InstanceId }}
	var err error
	s.view(func(tx *state.Tx) {
		named := map[string]bool{}
		for _, id := range in.InstanceIds {
			if _, ok := s.instances.Get(tx, id); !ok {
				err = noInstance(id)
				return
			}
			named[id] = true
		}
		out.InstanceStatuses, out.NextToken, err = q.run(func(yield func(*ec2api.InstanceStatus) bool) {
			for id, i := range s.instances.All(tx) {
				if len(named) > 0 && !named[id] || !all && i.State != running {
					continue
				}
				status := "not-applicable"
				if i.State == running {
					status = "initializing"
					if answers[id] {
						status = "ok"
					}
				}
				if !yield(&ec2api.InstanceStatus{InstanceId: id, AvailabilityZone: i.Zone, AvailabilityZoneId: s.zoneID(i.Zone), InstanceState: stateView(i.State), InstanceStatus: summary(status), SystemStatus: summary(status)}) {
					return
				}
			}
		}, nil)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// maxConsole is what AWS keeps of an instance's console.
const maxConsole = 64 << 10

// GetConsoleOutput tells the end of what the instance's PID 1 has printed.
func (s *Service) GetConsoleOutput(ctx context.Context, in *ec2api.GetConsoleOutputRequest) (*ec2api.GetConsoleOutputResult, error) {
	i, ok := s.record(in.InstanceId)
	if !ok {
		return nil, noInstance(in.InstanceId)
	}
	if err := dry(in.DryRun); err != nil {
		return nil, err
	}
	out := &ec2api.GetConsoleOutputResult{InstanceId: i.ID, Timestamp: new(s.now())}
	if !i.Booted || i.State == terminated {
		return out, nil
	}
	text, err := s.hyper.Console(ctx, i.ID, maxConsole)
	if errors.Is(err, hypervisor.ErrNoInstance) {
		return out, nil // it is being destroyed
	}
	if err != nil {
		return nil, internal(err)
	}
	out.Output = base64.StdEncoding.EncodeToString(text)
	return out, nil
}
