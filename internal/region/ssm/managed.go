package ssm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	api "github.com/dayfly-infra/dayfly/internal/region/api/ssmapi"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// readyFor is how long a guest that answered is taken to be there.
const readyFor = 2 * time.Second

// node is an instance as Systems Manager sees it.
type node struct {
	id, name, ip, profile string
	launched              time.Time
}

// running returns the running instances that filters let through, by id.
func (s *Service) runningInstances(ctx context.Context, filters ...*ec2api.Filter) (map[string]node, error) {
	out := map[string]node{}
	req := &ec2api.DescribeInstancesRequest{MaxResults: new(int64(1000)),
		Filters: append([]*ec2api.Filter{{Name: "instance-state-name", Values: []string{"running"}}}, filters...)}
	for {
		res, err := wire.Call[ec2api.DescribeInstancesResult](ctx, s.c.Bus, "ec2", "DescribeInstances", req)
		if err != nil {
			return nil, fmt.Errorf("describe instances: %w", err)
		}
		for _, r := range res.Reservations {
			for _, e := range r.Instances {
				n := node{id: e.InstanceId, ip: e.PrivateIpAddress}
				if e.IamInstanceProfile != nil {
					n.profile = e.IamInstanceProfile.Arn
				}
				if e.LaunchTime != nil {
					n.launched = *e.LaunchTime
				}
				for _, t := range e.Tags {
					if t.Key == "Name" {
						n.name = t.Value
					}
				}
				out[n.id] = n
			}
		}
		if req.NextToken = res.NextToken; req.NextToken == "" {
			return out, nil
		}
	}
}

// managed keeps those whose role and guest make them managed instances.
func (s *Service) managed(ctx context.Context, all map[string]node) map[string]node {
	allowed := map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	out := map[string]node{}
	for id, n := range all {
		if n.profile == "" {
			continue
		}
		ok, known := allowed[n.profile]
		if !known {
			ok = s.c.Roles.RoleAllows(ctx, n.profile, "ssm:UpdateInstanceInformation", "*")
			allowed[n.profile] = ok
		}
		if !ok {
			continue
		}
		if s.recently(id) {
			mu.Lock()
			out[id] = n
			mu.Unlock()
			continue
		}
		wg.Go(func() {
			if s.c.Guest.Ready(ctx, id) != nil {
				return
			}
			s.answered(id)
			mu.Lock()
			out[id] = n
			mu.Unlock()
		})
	}
	wg.Wait()
	return out
}

func (s *Service) recently(id string) bool {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	t, ok := s.ready[id]
	return ok && s.now().Sub(t) < readyFor
}

func (s *Service) answered(id string) {
	now := s.now()
	s.readMu.Lock()
	defer s.readMu.Unlock()
	for k, t := range s.ready {
		if now.Sub(t) >= readyFor {
			delete(s.ready, k)
		}
	}
	s.ready[id] = now
}

// targets finds the instances of a SendCommand. Named instances must all be
// managed; of those that targets select, the managed ones are taken.
func (s *Service) targets(ctx context.Context, in *api.SendCommandRequest) ([]node, error) {
	if len(in.InstanceIds) > 0 && len(in.Targets) > 0 {
		return nil, invalid("InstanceIds and Targets cannot be specified at the same time")
	}
	if len(in.InstanceIds) == 0 && len(in.Targets) == 0 {
		return nil, invalid("Either InstanceIds or Targets must be specified")
	}
	ids := in.InstanceIds
	if len(ids) > mostInstances {
		return nil, invalid("InstanceIds may name at most %d instances", mostInstances)
	}
	var filters []*ec2api.Filter
	for _, t := range in.Targets {
		key, isTag := strings.CutPrefix(t.Key, "tag:")
		switch {
		case t.Key == "InstanceIds":
			ids = append(slices.Clone(ids), t.Values...)
		case isTag && key != "" && len(t.Values) > 0:
			filters = append(filters, &ec2api.Filter{Name: "tag:" + key, Values: t.Values})
		case t.Key == "tag-key" && len(t.Values) > 0:
			filters = append(filters, &ec2api.Filter{Name: "tag-key", Values: t.Values})
		default:
			return nil, wire.Unrealised("targets by " + t.Key)
		}
	}
	if len(ids) > 0 {
		filters = append(filters, &ec2api.Filter{Name: "instance-id", Values: ids})
	}
	all, err := s.runningInstances(ctx, filters...)
	if err != nil {
		return nil, err
	}
	have := s.managed(ctx, all)
	var out []node
	if len(ids) == 0 {
		for _, n := range have {
			out = append(out, n)
		}
		slices.SortFunc(out, func(a, b node) int { return strings.Compare(a.id, b.id) })
		return out, nil
	}
	var bad []string
	for _, id := range ids {
		n, ok := have[id]
		if !ok {
			bad = append(bad, id)
		} else if !slices.ContainsFunc(out, func(o node) bool { return o.id == id }) {
			out = append(out, n)
		}
	}
	if len(bad) > 0 {
		return nil, wire.Errorf("InvalidInstanceId", "Instances [[%s]] not in a valid state for account %s", strings.Join(bad, ", "), s.c.Account)
	}
	return out, nil
}

// DescribeInstanceInformation lists the managed instances.
func (s *Service) DescribeInstanceInformation(ctx context.Context, in *api.DescribeInstanceInformationRequest) (*api.DescribeInstanceInformationResult, error) {
	if len(in.Filters) > 0 && len(in.InstanceInformationFilterList) > 0 {
		return nil, invalid("Filters and InstanceInformationFilterList cannot be specified at the same time")
	}
	filters := in.Filters
	for _, f := range in.InstanceInformationFilterList {
		filters = append(slices.Clone(filters), &api.InstanceInformationStringFilter{Key: f.Key, Values: f.ValueSet})
	}
	var byEC2 []*ec2api.Filter
	for _, f := range filters {
		switch {
		case f.Key == "InstanceIds":
			byEC2 = append(byEC2, &ec2api.Filter{Name: "instance-id", Values: f.Values})
		case strings.HasPrefix(f.Key, "tag:"), f.Key == "tag-key":
			byEC2 = append(byEC2, &ec2api.Filter{Name: f.Key, Values: f.Values})
		case f.Key == "PingStatus", f.Key == "PlatformTypes", f.Key == "ResourceType", f.Key == "AgentVersion", f.Key == "IamRole":
		default:
			return nil, wire.Errorf("InvalidFilterKey", "The specified key isn't valid: %s", f.Key)
		}
	}
	ctx = s.internal(ctx)
	all, err := s.runningInstances(ctx, byEC2...)
	if err != nil {
		return nil, err
	}
	var list []*api.InstanceInformation
	for _, n := range s.managed(ctx, all) {
		i := &api.InstanceInformation{
			InstanceId: n.id, PingStatus: "Online", LastPingDateTime: new(s.now()), AgentVersion: "3.3.0.0", IsLatestVersion: new(true),
			PlatformType: "Linux", PlatformName: "Debian GNU/Linux", PlatformVersion: "12", ResourceType: "EC2Instance", SourceType: "AWS::EC2::Instance",
			SourceId: n.id, IPAddress: n.ip, ComputerName: "ip-" + strings.ReplaceAll(n.ip, ".", "-"), IamRole: n.profile[strings.LastIndexByte(n.profile, '/')+1:], RegistrationDate: new(n.launched),
		}
		values := map[string]string{"PingStatus": i.PingStatus, "PlatformTypes": i.PlatformType, "ResourceType": i.ResourceType, "AgentVersion": i.AgentVersion, "IamRole": i.IamRole}
		fits := true
		for _, f := range filters {
			if v, ok := values[f.Key]; ok && !slices.Contains(f.Values, v) {
				fits = false
			}
		}
		if fits {
			list = append(list, i)
		}
	}
	slices.SortFunc(list, func(a, b *api.InstanceInformation) int { return strings.Compare(a.InstanceId, b.InstanceId) })
	from, to, next, err := page(len(list), in.NextToken, in.MaxResults, 10, 50)
	if err != nil {
		return nil, err
	}
	return &api.DescribeInstanceInformationResult{InstanceInformationList: append([]*api.InstanceInformation{}, list[from:to]...), NextToken: next}, nil
}
