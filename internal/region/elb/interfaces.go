package elb

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

func description(arn string) string {
	return "ELB " + arn[strings.Index(arn, "loadbalancer/")+len("loadbalancer/"):]
}

// ensureInterfaces gives a load balancer the interfaces that it lacks. One that
// was made before a crash, and not written down, is found by its description.
func (s *Service) ensureInterfaces(ctx context.Context, arn string) (loadBalancer, error) {
	unlock, err := s.making.lock(ctx, arn)
	if err != nil {
		return loadBalancer{ARN: arn}, err
	}
	defer unlock()
	b, ok := s.balancer(arn)
	if !ok || b.Deleting {
		return loadBalancer{ARN: arn}, notFoundLB(arn)
	}
	var missing []string
	for _, z := range b.Subnets {
		if !slices.ContainsFunc(b.Interfaces, func(i iface) bool { return i.Subnet == z.Subnet }) {
			missing = append(missing, z.Subnet)
		}
	}
	if len(missing) == 0 {
		return b, nil
	}
	made, err := s.findInterfaces(ctx, arn)
	if err != nil {
		return b, err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	missing = slices.DeleteFunc(missing, func(sn string) bool { _, ok := made[sn]; return ok })
	for _, sn := range missing {
		wg.Go(func() {
			m, err := s.c.Interfaces.CreateManagedInterface(ctx, sn, b.Groups, description(arn), b.Scheme == "internet-facing")
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			made[sn] = iface{ID: m.ID, Subnet: sn, IP: m.IP, Public: m.Public}
		})
	}
	wg.Wait()
	err = s.c.DB.Update(func(tx *state.Tx) error {
		var ok bool
		if b, ok = s.balancers.Get(tx, arn); !ok {
			return notFoundLB(arn)
		}
		var list []iface
		for _, z := range b.Subnets { // in the subnets' order: the first is the address
			i := slices.IndexFunc(b.Interfaces, func(i iface) bool { return i.Subnet == z.Subnet })
			if i >= 0 {
				list = append(list, b.Interfaces[i])
			} else if m, ok := made[z.Subnet]; ok {
				list = append(list, m)
			}
		}
		b.Interfaces = list
		s.balancers.Put(tx, arn, b)
		return nil
	})
	if failed != nil {
		return b, fmt.Errorf("interface for %s: %w", arn, failed)
	}
	return b, err
}

func (s *Service) findInterfaces(ctx context.Context, arn string) (map[string]iface, error) {
	out := map[string]iface{}
	res, err := wire.Call[ec2api.DescribeNetworkInterfacesResult](ctx, s.c.Bus, "ec2", "DescribeNetworkInterfaces",
		&ec2api.DescribeNetworkInterfacesRequest{Filters: []*ec2api.Filter{{Name: "description", Values: []string{description(arn)}}}})
	if err != nil {
		return nil, fmt.Errorf("find the interfaces of %s: %w", arn, err)
	}
	for _, n := range res.NetworkInterfaces {
		if n.Description != description(arn) {
			continue
		}
		i := iface{ID: n.NetworkInterfaceId, Subnet: n.SubnetId}
		i.IP, _ = netip.ParseAddr(n.PrivateIpAddress)
		if n.Association != nil {
			i.Public, _ = netip.ParseAddr(n.Association.PublicIp)
		}
		out[n.SubnetId] = i
	}
	return out, nil
}
