package elb

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	api "github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const mostBalancers = 200

var nameForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?$`)

// CreateLoadBalancer makes a load balancer with an interface in each subnet.
// The same call again answers with the same load balancer, as on AWS.
func (s *Service) CreateLoadBalancer(ctx context.Context, in *api.CreateLoadBalancerInput) (*api.CreateLoadBalancerOutput, error) {
	b := loadBalancer{Name: in.Name, Type: in.Type, Scheme: in.Scheme, Created: s.now()}
	if b.Type == "" {
		b.Type = "application"
	}
	if b.Scheme == "" {
		b.Scheme = "internet-facing"
	}
	switch {
	case !nameForm.MatchString(in.Name):
		return nil, invalid("The load balancer name '%s' can contain only alphanumeric characters and hyphens, at most 32, and must not begin or end with a hyphen", in.Name)
	case strings.HasPrefix(in.Name, "internal-"):
		return nil, invalid("The load balancer name '%s' cannot begin with 'internal-'", in.Name)
	case b.Type != "application" && b.Type != "network":
		return nil, wire.Unrealised("load balancers of type " + b.Type)
	case in.IpAddressType != "" && in.IpAddressType != "ipv4":
		return nil, wire.Unrealised("load balancers with IpAddressType " + in.IpAddressType)
	case in.CustomerOwnedIpv4Pool != "" || in.IpamPools != nil:
		return nil, wire.Unrealised("address pools of load balancers")
	}
	var err error
	if b.Tags, err = mergeTags(ctx, nil, in.Tags); err != nil {
		return nil, err
	}
	if b.VPC, b.Subnets, err = s.subnets(ctx, b.Type, in.Subnets, in.SubnetMappings); err != nil {
		return nil, err
	}
	if b.Groups, err = s.securityGroups(ctx, b, in.SecurityGroups); err != nil {
		return nil, err
	}
	kind := "app"
	if b.Type == "network" {
		kind = "net"
	}
	b.ARN = s.arn("loadbalancer/" + kind + "/" + b.Name + "/" + s.ids.Hex(8))
	b.Attributes = map[string]string{}
	err = s.c.DB.Update(func(tx *state.Tx) error {
		if s.balancers.Len(tx) >= mostBalancers {
			return wire.Errorf("TooManyLoadBalancers", "The maximum number of load balancers is %d", mostBalancers)
		}
		for _, old := range s.balancers.All(tx) {
			if old.Name != b.Name || old.Deleting {
				continue
			}
			if old.Type != b.Type || old.Scheme != b.Scheme || !slices.Equal(old.Subnets, b.Subnets) || !slices.Equal(old.Groups, b.Groups) {
				return wire.Errorf("DuplicateLoadBalancerName", "A load balancer with the same name '%s' exists, but with different settings", b.Name)
			}
			b = old
			return nil
		}
		s.balancers.Put(tx, b.ARN, b) // the intent: from here on it is found again
		return nil
	})
	if err != nil {
		return nil, err
	}
	if b, err = s.ensureInterfaces(s.internal(ctx), b.ARN); err != nil {
		if rerr := s.remove(s.internal(context.WithoutCancel(ctx)), b.ARN); rerr != nil {
			s.c.Log.Error("remove a load balancer that could not be made", "arn", b.ARN, "err", rerr)
		}
		return nil, err
	}
	return &api.CreateLoadBalancerOutput{LoadBalancers: []*api.LoadBalancer{s.balancerOut(b)}}, nil
}

// subnets finds VPC and zones; one subnet a zone.
func (s *Service) subnets(ctx context.Context, kind string, ids []string, maps []*api.SubnetMapping) (string, []zoneSubnet, error) {
	if len(ids) > 0 && len(maps) > 0 {
		return "", nil, invalid("You can specify either Subnets or SubnetMappings, but not both")
	}
	for _, m := range maps {
		if m.AllocationId != "" || m.PrivateIPv4Address != "" || m.IPv6Address != "" {
			return "", nil, wire.Unrealised("addresses in SubnetMappings")
		}
		ids = append(slices.Clone(ids), m.SubnetId)
	}
	if len(ids) == 0 {
		return "", nil, invalid("You must specify subnets")
	}
	res, err := wire.Call[ec2api.DescribeSubnetsResult](s.internal(ctx), s.c.Bus, "ec2", "DescribeSubnets", &ec2api.DescribeSubnetsRequest{SubnetIds: ids})
	if wire.CodeOf(err) != "" {
		return "", nil, wire.Errorf("SubnetNotFound", "The subnet ID '%s' does not exist", strings.Join(ids, "', '"))
	}
	if err != nil {
		return "", nil, fmt.Errorf("describe subnets: %w", err)
	}
	var out []zoneSubnet
	vpc := ""
	for _, id := range ids {
		i := slices.IndexFunc(res.Subnets, func(sn *ec2api.Subnet) bool { return sn.SubnetId == id })
		if i < 0 {
			return "", nil, wire.Errorf("SubnetNotFound", "The subnet ID '%s' does not exist", id)
		}
		sn := res.Subnets[i]
		if vpc != "" && sn.VpcId != vpc {
			return "", nil, wire.Errorf("InvalidConfigurationRequest", "All subnets must belong to the same VPC: '%s'", vpc)
		}
		vpc = sn.VpcId
		if slices.ContainsFunc(out, func(z zoneSubnet) bool { return z.Zone == sn.AvailabilityZone }) {
			return "", nil, wire.Errorf("InvalidConfigurationRequest", "A load balancer cannot be attached to multiple subnets in the same Availability Zone")
		}
		out = append(out, zoneSubnet{id, sn.AvailabilityZone})
	}
	if kind == "application" && len(out) < 2 {
		return "", nil, invalid("At least two subnets in two different Availability Zones must be specified")
	}
	return vpc, out, nil
}

// securityGroups checks the groups; an application load balancer without any
// gets the VPC's default group.
func (s *Service) securityGroups(ctx context.Context, b loadBalancer, ids []string) ([]string, error) {
	if len(ids) == 0 && b.Type == "network" {
		return nil, nil
	}
	req := &ec2api.DescribeSecurityGroupsRequest{GroupIds: ids}
	if len(ids) == 0 {
		req.Filters = []*ec2api.Filter{{Name: "vpc-id", Values: []string{b.VPC}}, {Name: "group-name", Values: []string{"default"}}}
	}
	res, err := wire.Call[ec2api.DescribeSecurityGroupsResult](s.internal(ctx), s.c.Bus, "ec2", "DescribeSecurityGroups", req)
	if wire.CodeOf(err) != "" {
		return nil, wire.Errorf("InvalidSecurityGroup", "One or more security groups are invalid")
	}
	if err != nil {
		return nil, fmt.Errorf("describe security groups: %w", err)
	}
	var out []string
	for _, g := range res.SecurityGroups {
		if g.VpcId != b.VPC {
			return nil, wire.Errorf("InvalidConfigurationRequest", "One or more security groups are not in the VPC '%s'", b.VPC)
		}
		out = append(out, g.GroupId)
	}
	if len(ids) > 0 {
		if len(out) < len(ids) {
			return nil, wire.Errorf("InvalidSecurityGroup", "One or more security groups are invalid")
		}
		return ids, nil
	}
	return out, nil
}

func notFoundLB(arn string) error {
	return wire.Errorf("LoadBalancerNotFound", "Load balancers '[%s]' not found", arn)
}

func (s *Service) balancer(arn string) (b loadBalancer, ok bool) {
	s.c.DB.View(func(tx *state.Tx) { b, ok = s.balancers.Get(tx, arn) })
	return b, ok
}

// DeleteLoadBalancer deletes a load balancer with its listeners, rules and
// interfaces. One that is not there is no error.
func (s *Service) DeleteLoadBalancer(ctx context.Context, in *api.DeleteLoadBalancerInput) (*api.DeleteLoadBalancerOutput, error) {
	if !strings.Contains(in.LoadBalancerArn, ":loadbalancer/") {
		return nil, invalid("'%s' is not a valid load balancer ARN", in.LoadBalancerArn)
	}
	b, ok := s.balancer(in.LoadBalancerArn)
	if !ok || b.Deleting {
		return &api.DeleteLoadBalancerOutput{}, nil
	}
	if b.Attributes["deletion_protection.enabled"] == "true" {
		return nil, wire.Errorf("OperationNotPermitted", "Load balancer '%s' cannot be deleted because deletion protection is enabled", b.ARN)
	}
	if err := s.remove(s.internal(ctx), b.ARN); err != nil {
		// It is marked: the loop goes on with it.
		s.c.Log.Warn("delete load balancer", "arn", b.ARN, "err", err)
	}
	return &api.DeleteLoadBalancerOutput{}, nil
}

// remove takes a load balancer out of the balancer first, then its interfaces
// and its record. It may be repeated from any point.
func (s *Service) remove(ctx context.Context, arn string) error {
	unlock, err := s.making.lock(ctx, arn)
	if err != nil {
		return err
	}
	defer unlock()
	var b loadBalancer
	err = s.c.DB.Update(func(tx *state.Tx) error {
		var ok bool
		if b, ok = s.balancers.Get(tx, arn); !ok {
			return nil
		}
		if !b.Deleting {
			b.Deleting = true
			s.balancers.Put(tx, arn, b)
		}
		for id, l := range s.listeners.All(tx) {
			if l.LB == arn {
				s.deleteListener(tx, id)
			}
		}
		return nil
	})
	if err != nil || b.ARN == "" {
		return err
	}
	if err := s.serve(ctx, b.VPC); err != nil {
		return err
	}
	made, err := s.findInterfaces(ctx, arn)
	if err != nil {
		return err
	}
	for _, i := range b.Interfaces {
		made[i.Subnet] = i
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, i := range made {
		wg.Go(func() {
			if e := s.c.Interfaces.DeleteManagedInterface(ctx, i.ID); e != nil {
				mu.Lock()
				err = e
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err != nil {
		return fmt.Errorf("delete an interface of %s: %w", arn, err)
	}
	return s.c.DB.Update(func(tx *state.Tx) error { s.balancers.Delete(tx, arn); return nil })
}

func (s *Service) balancerOut(b loadBalancer) *api.LoadBalancer {
	out := &api.LoadBalancer{
		LoadBalancerArn: b.ARN, LoadBalancerName: b.Name, Type: b.Type, Scheme: b.Scheme, VpcId: b.VPC, IpAddressType: "ipv4",
		CreatedTime: new(b.Created), DNSName: b.address(), SecurityGroups: b.Groups, CanonicalHostedZoneId: "Z00000000000000000000",
		State: &api.LoadBalancerState{Code: "provisioning"},
	}
	if b.Active {
		out.State.Code = "active"
	}
	for _, z := range b.Subnets {
		az := &api.AvailabilityZone{SubnetId: z.Subnet, ZoneName: z.Zone}
		if b.Type == "network" {
			for _, i := range b.Interfaces {
				if i.Subnet != z.Subnet {
					continue
				}
				a := &api.LoadBalancerAddress{PrivateIPv4Address: i.IP.String()}
				if i.Public.IsValid() {
					a = &api.LoadBalancerAddress{IpAddress: i.Public.String()}
				}
				az.LoadBalancerAddresses = append(az.LoadBalancerAddresses, a)
			}
		}
		out.AvailabilityZones = append(out.AvailabilityZones, az)
	}
	return out
}

// DescribeLoadBalancers describes load balancers by ARN or name, or all.
func (s *Service) DescribeLoadBalancers(_ context.Context, in *api.DescribeLoadBalancersInput) (*api.DescribeLoadBalancersOutput, error) {
	if len(in.LoadBalancerArns) > 0 && len(in.Names) > 0 {
		return nil, invalid("Load balancer names and load balancer ARNs cannot be specified at the same time")
	}
	var list []loadBalancer
	s.c.DB.View(func(tx *state.Tx) {
		for _, b := range s.balancers.All(tx) {
			if !b.Deleting {
				list = append(list, b)
			}
		}
	})
	pick := func(want []string, of func(loadBalancer) string) error {
		var out []loadBalancer
		for _, w := range want {
			i := slices.IndexFunc(list, func(b loadBalancer) bool { return of(b) == w })
			if i < 0 {
				return notFoundLB(w)
			}
			out = append(out, list[i])
		}
		list = out
		return nil
	}
	var err error
	if len(in.LoadBalancerArns) > 0 {
		err = pick(in.LoadBalancerArns, func(b loadBalancer) string { return b.ARN })
	} else if len(in.Names) > 0 {
		err = pick(in.Names, func(b loadBalancer) string { return b.Name })
	}
	if err != nil {
		return nil, err
	}
	from, to, next, err := page(len(list), in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeLoadBalancersOutput{LoadBalancers: []*api.LoadBalancer{}, NextMarker: next}
	for _, b := range list[from:to] {
		out.LoadBalancers = append(out.LoadBalancers, s.balancerOut(b))
	}
	return out, nil
}

// SetSecurityGroups replaces a load balancer's security groups.
func (s *Service) SetSecurityGroups(ctx context.Context, in *api.SetSecurityGroupsInput) (*api.SetSecurityGroupsOutput, error) {
	b, ok := s.balancer(in.LoadBalancerArn)
	if !ok || b.Deleting {
		return nil, notFoundLB(in.LoadBalancerArn)
	}
	if b.Type == "network" && len(b.Groups) == 0 {
		return nil, wire.Errorf("InvalidConfigurationRequest", "Security groups cannot be set on a Network Load Balancer that was created without one")
	}
	groups, err := s.securityGroups(ctx, b, in.SecurityGroups)
	if err != nil {
		return nil, err
	}
	for _, i := range b.Interfaces {
		if err := s.c.Interfaces.SetManagedInterfaceGroups(s.internal(ctx), i.ID, groups); err != nil {
			return nil, fmt.Errorf("security groups of %s: %w", b.ARN, err)
		}
	}
	err = s.change(b.ARN, func(b *loadBalancer) error { b.Groups = groups; return nil })
	if err != nil {
		return nil, err
	}
	return &api.SetSecurityGroupsOutput{SecurityGroupIds: groups}, nil
}

func (s *Service) change(arn string, f func(*loadBalancer) error) error {
	return s.c.DB.Update(func(tx *state.Tx) error {
		b, ok := s.balancers.Get(tx, arn)
		if !ok || b.Deleting {
			return notFoundLB(arn)
		}
		if err := f(&b); err != nil {
			return err
		}
		s.balancers.Put(tx, arn, b)
		return nil
	})
}

// SetSubnets moves a load balancer to other subnets of its VPC. The first
// subnet's address is its name, so that subnet stays.
func (s *Service) SetSubnets(ctx context.Context, in *api.SetSubnetsInput) (*api.SetSubnetsOutput, error) {
	b, ok := s.balancer(in.LoadBalancerArn)
	if !ok || b.Deleting {
		return nil, notFoundLB(in.LoadBalancerArn)
	}
	vpc, list, err := s.subnets(ctx, b.Type, in.Subnets, in.SubnetMappings)
	if err != nil {
		return nil, err
	}
	if vpc != b.VPC {
		return nil, wire.Errorf("InvalidSubnet", "The subnets are not in the load balancer's VPC '%s'", b.VPC)
	}
	i := slices.IndexFunc(list, func(z zoneSubnet) bool { return z == b.Subnets[0] })
	if i < 0 {
		return nil, wire.Unrealised("taking the first subnet from a load balancer (its address is the load balancer's DNSName)")
	}
	list[0], list[i] = list[i], list[0]
	var drop []iface
	err = s.change(b.ARN, func(b *loadBalancer) error {
		b.Subnets = list
		keep := []iface{}
		for _, f := range b.Interfaces {
			if slices.ContainsFunc(list, func(z zoneSubnet) bool { return z.Subnet == f.Subnet }) {
				keep = append(keep, f)
			} else {
				drop = append(drop, f)
			}
		}
		b.Interfaces = keep
		return nil
	})
	if err != nil {
		return nil, err
	}
	ctx = s.internal(ctx)
	if b, err = s.ensureInterfaces(ctx, b.ARN); err != nil {
		return nil, err
	}
	if err := s.serve(ctx, b.VPC); err != nil {
		return nil, err
	}
	for _, f := range drop {
		if err := s.c.Interfaces.DeleteManagedInterface(ctx, f.ID); err != nil {
			return nil, fmt.Errorf("delete interface %s: %w", f.ID, err)
		}
	}
	return &api.SetSubnetsOutput{AvailabilityZones: s.balancerOut(b).AvailabilityZones, IpAddressType: "ipv4"}, nil
}
