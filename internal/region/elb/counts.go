package elb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/balancer"
	"github.com/dayfly-infra/dayfly/internal/region/state"
)

// Count is what a target group got since it was made, by the names that
// CloudWatch's dimensions have.
type Count struct {
	LoadBalancer string // "app/name/id"
	TargetGroup  string // "targetgroup/name/id"
	VPC          string
	balancer.Stats
}

// Counts asks the balancers. Those that do not answer are left out and named
// in the error.
func (s *Service) Counts(ctx context.Context) ([]Count, error) {
	names := map[string]Count{} // by pool
	vpcs := map[string]bool{}
	s.c.DB.View(func(tx *state.Tx) {
		used := s.balancersOf(tx)
		for arn, g := range s.groups.All(tx) {
			if g.Protocol != "HTTP" || len(used[arn]) == 0 {
				continue
			}
			_, lb, _ := strings.Cut(slices.Min(used[arn]), ":loadbalancer/")
			names[g.pool()] = Count{LoadBalancer: lb, TargetGroup: arn[strings.LastIndexByte(arn, ':')+1:], VPC: g.VPC}
			vpcs[g.VPC] = true
		}
	})
	var out []Count
	var failed error
	for vpc := range vpcs {
		s.applyMu.Lock()
		serving := len(s.applied[vpc].Frontends) > 0
		s.applyMu.Unlock()
		if !serving {
			continue
		}
		list, err := s.c.Balancer.Stats(ctx, vpc)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("counts of %s: %w", vpc, err))
			continue
		}
		for _, n := range list {
			if c, ok := names[n.Pool]; ok && c.VPC == vpc {
				c.Stats = n
				out = append(out, c)
			}
		}
	}
	return out, failed
}
