package elb

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	api "github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const (
	mostGroups  = 3000
	mostTargets = 1000
)

func notFoundTG(arn string) error {
	return wire.Errorf("TargetGroupNotFound", "Target groups '%s' not found", arn)
}

// CreateTargetGroup makes a target group; the same call again answers with
// the same group, as on AWS.
func (s *Service) CreateTargetGroup(ctx context.Context, in *api.CreateTargetGroupInput) (*api.CreateTargetGroupOutput, error) {
	g := targetGroup{Name: in.Name, Protocol: in.Protocol, VPC: in.VpcId, Type: in.TargetType, Created: s.now()}
	if g.Type == "" {
		g.Type = "instance"
	}
	switch {
	case !nameForm.MatchString(in.Name):
		return nil, invalid("The target group name '%s' can contain only alphanumeric characters and hyphens, at most 32, and must not begin or end with a hyphen", in.Name)
	case g.Type != "instance" && g.Type != "ip":
		return nil, wire.Unrealised("target groups of type " + g.Type)
	case g.Protocol == "":
		return nil, invalid("A protocol must be specified")
	case g.Protocol != "HTTP" && g.Protocol != "TCP":
		return nil, wire.Unrealised("target groups with protocol " + g.Protocol)
	case in.ProtocolVersion != "" && in.ProtocolVersion != "HTTP1":
		return nil, wire.Unrealised("protocol version " + in.ProtocolVersion)
	case in.IpAddressType != "" && in.IpAddressType != "ipv4":
		return nil, wire.Unrealised("target groups with IpAddressType " + in.IpAddressType)
	case in.Port == nil:
		return nil, invalid("A port must be specified")
	case *in.Port < 1 || *in.Port > 65535:
		return nil, invalid("Port '%d' is not between 1 and 65535", *in.Port)
	case g.VPC == "":
		return nil, invalid("A VPC ID must be specified")
	case in.HealthCheckEnabled != nil && !*in.HealthCheckEnabled:
		return nil, invalid("Health check enabled must be true for target groups with target type '%s'", g.Type)
	case in.TargetControlPort != nil:
		return nil, wire.Unrealised("TargetControlPort")
	}
	g.Port = *in.Port
	var err error
	if g.Tags, err = mergeTags(ctx, nil, in.Tags); err != nil {
		return nil, err
	}
	g.Check = check{Protocol: g.Protocol, Port: "traffic-port", Interval: 30, Timeout: 5, Healthy: 5, Unfit: 2}
	if g.Protocol == "TCP" {
		g.Check.Timeout, g.Check.Unfit = 10, 2
	}
	if err := setCheck(&g.Check, g.Protocol, checkSettings{in.HealthCheckProtocol, in.HealthCheckPort, in.HealthCheckPath,
		in.HealthCheckIntervalSeconds, in.HealthCheckTimeoutSeconds, in.HealthyThresholdCount, in.UnhealthyThresholdCount, in.Matcher}); err != nil {
		return nil, err
	}
	if _, err := s.c.Bus.Invoke(s.internal(ctx), "ec2", "DescribeVpcs", &ec2api.DescribeVpcsRequest{VpcIds: []string{g.VPC}}); err != nil {
		if wire.CodeOf(err) != "" {
			return nil, invalid("The VPC ID '%s' is not found", g.VPC)
		}
		return nil, fmt.Errorf("describe vpc: %w", err)
	}
	g.ARN = s.arn("targetgroup/" + g.Name + "/" + s.ids.Hex(8))
	err = s.c.DB.Update(func(tx *state.Tx) error {
		if s.groups.Len(tx) >= mostGroups {
			return wire.Errorf("TooManyTargetGroups", "The maximum number of target groups is %d", mostGroups)
		}
		for _, old := range s.groups.All(tx) {
			if old.Name != g.Name {
				continue
			}
			if old.Protocol != g.Protocol || old.Port != g.Port || old.VPC != g.VPC || old.Type != g.Type || old.Check != g.Check {
				return wire.Errorf("DuplicateTargetGroupName", "A target group with the same name '%s' exists, but with different settings", g.Name)
			}
			g = old
			return nil
		}
		s.groups.Put(tx, g.ARN, g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateTargetGroupOutput{TargetGroups: []*api.TargetGroup{s.groupOut(g)}}, nil
}

var checkPath = regexp.MustCompile(`^/[\x21-\x7e]*$`)

type checkSettings struct {
	protocol, port, path              string
	interval, timeout, healthy, unfit *int64
	matcher                           *api.Matcher
}

// setCheck takes over and checks health check settings; what is absent stays.
func setCheck(c *check, protocol string, in checkSettings) error {
	if in.protocol != "" {
		if in.protocol != "HTTP" && in.protocol != "TCP" {
			return wire.Unrealised("health checks by " + in.protocol)
		}
		if protocol == "HTTP" && in.protocol == "TCP" {
			return invalid("Health check protocol 'TCP' is not supported for target groups with protocol 'HTTP'")
		}
		c.Protocol = in.protocol
	}
	if in.port != "" {
		if n, err := strconv.Atoi(in.port); in.port != "traffic-port" && (err != nil || n < 1 || n > 65535) {
			return invalid("Health check port '%s' must be 'traffic-port' or in range [1-65535]", in.port)
		}
		c.Port = in.port
	}
	if c.Protocol == "HTTP" {
		if in.path != "" {
			c.Path = in.path
		}
		if c.Path == "" {
			c.Path = "/"
		}
		if !checkPath.MatchString(c.Path) || len(c.Path) > 1024 {
			return invalid("Health check path '%s' must begin with '/' and have at most 1024 printable characters without spaces", c.Path)
		}
		if in.matcher != nil && in.matcher.GrpcCode != "" {
			return wire.Unrealised("gRPC health checks")
		}
		if in.matcher != nil && in.matcher.HttpCode != "" {
			if !validMatcher(in.matcher.HttpCode) {
				return invalid("Health check matcher HTTP code '%s' must be within '200-499', as codes and ranges separated by commas", in.matcher.HttpCode)
			}
			c.Matcher = in.matcher.HttpCode
		}
		if c.Matcher == "" {
			c.Matcher = "200"
		}
	} else {
		if in.path != "" || in.matcher != nil && in.matcher.HttpCode != "" {
			return invalid("Health check path and matcher are not supported for health checks with protocol '%s'", c.Protocol)
		}
		c.Path, c.Matcher = "", ""
	}
	for _, f := range []struct {
		name        string
		to, v       *int64
		least, most int64
	}{
		{"Health check interval", &c.Interval, in.interval, 5, 300},
		{"Health check timeout", &c.Timeout, in.timeout, 2, 120},
		{"Healthy threshold count", &c.Healthy, in.healthy, 2, 10},
		{"Unhealthy threshold count", &c.Unfit, in.unfit, 2, 10},
	} {
		if f.v == nil {
			continue
		}
		if *f.v < f.least || *f.v > f.most {
			return invalid("%s '%d' must be between %d and %d", f.name, *f.v, f.least, f.most)
		}
		*f.to = *f.v
	}
	if c.Timeout >= c.Interval {
		if in.timeout != nil {
			return invalid("Health check timeout '%d' must be smaller than the interval '%d'", c.Timeout, c.Interval)
		}
		c.Timeout = max(2, c.Interval-1) // the default gives way to a short interval
	}
	return nil
}

// validMatcher accepts "200", "200,302", "200-299" and mixtures.
func validMatcher(m string) bool {
	if len(m) > 200 {
		return false
	}
	for part := range strings.SplitSeq(m, ",") {
		from, to, ranged := strings.Cut(part, "-")
		a, err := strconv.Atoi(from)
		b := a
		if ranged && err == nil {
			b, err = strconv.Atoi(to)
		}
		if err != nil || len(from) != 3 || a < 200 || b > 499 || b < a {
			return false
		}
	}
	return true
}

func (s *Service) group(arn string) (g targetGroup, err error) {
	s.c.DB.View(func(tx *state.Tx) {
		var ok bool
		if g, ok = s.groups.Get(tx, arn); !ok {
			err = notFoundTG(arn)
		}
	})
	return g, err
}

func (s *Service) changeGroup(arn string, f func(*state.Tx, *targetGroup) error) error {
	return s.c.DB.Update(func(tx *state.Tx) error {
		g, ok := s.groups.Get(tx, arn)
		if !ok {
			return notFoundTG(arn)
		}
		if err := f(tx, &g); err != nil {
			return err
		}
		s.groups.Put(tx, arn, g)
		return nil
	})
}

// balancersOf maps each target group to the load balancers that use it.
func (s *Service) balancersOf(tx *state.Tx) map[string][]string {
	out := map[string][]string{}
	add := func(lb string, actions []*api.Action) {
		for _, tg := range uses(actions) {
			if !slices.Contains(out[tg], lb) {
				out[tg] = append(out[tg], lb)
			}
		}
	}
	lbs := map[string]string{}
	for arn, l := range s.listeners.All(tx) {
		lbs[arn] = l.LB
		add(l.LB, l.Actions)
	}
	for _, r := range s.rules.All(tx) {
		add(lbs[r.Listener], r.Actions)
	}
	return out
}

func (s *Service) groupOut(g targetGroup) *api.TargetGroup {
	out := &api.TargetGroup{
		TargetGroupArn: g.ARN, TargetGroupName: g.Name, Protocol: g.Protocol, Port: new(g.Port), VpcId: g.VPC, TargetType: g.Type,
		IpAddressType: "ipv4", HealthCheckEnabled: new(true), HealthCheckProtocol: g.Check.Protocol, HealthCheckPort: g.Check.Port,
		HealthCheckPath: g.Check.Path, HealthCheckIntervalSeconds: new(g.Check.Interval), HealthCheckTimeoutSeconds: new(g.Check.Timeout),
		HealthyThresholdCount: new(g.Check.Healthy), UnhealthyThresholdCount: new(g.Check.Unfit),
	}
	if g.Protocol == "HTTP" {
		out.ProtocolVersion = "HTTP1"
	}
	if g.Check.Matcher != "" {
		out.Matcher = &api.Matcher{HttpCode: g.Check.Matcher}
	}
	return out
}

// DescribeTargetGroups describes target groups.
func (s *Service) DescribeTargetGroups(_ context.Context, in *api.DescribeTargetGroupsInput) (*api.DescribeTargetGroupsOutput, error) {
	out := &api.DescribeTargetGroupsOutput{TargetGroups: []*api.TargetGroup{}}
	var err error
	s.c.DB.View(func(tx *state.Tx) {
		used := s.balancersOf(tx)
		var list []targetGroup
		for _, arn := range in.TargetGroupArns {
			g, ok := s.groups.Get(tx, arn)
			if !ok {
				err = notFoundTG(arn)
				return
			}
			list = append(list, g)
		}
		if len(in.TargetGroupArns) == 0 {
			for _, g := range s.groups.All(tx) {
				list = append(list, g)
			}
		}
		if len(in.Names) > 0 {
			var named []targetGroup
			for _, n := range in.Names {
				i := slices.IndexFunc(list, func(g targetGroup) bool { return g.Name == n })
				if i < 0 {
					err = wire.Errorf("TargetGroupNotFound", "One or more target groups not found")
					return
				}
				named = append(named, list[i])
			}
			list = named
		}
		if in.LoadBalancerArn != "" {
			if b, ok := s.balancers.Get(tx, in.LoadBalancerArn); !ok || b.Deleting {
				err = notFoundLB(in.LoadBalancerArn)
				return
			}
			list = slices.DeleteFunc(list, func(g targetGroup) bool { return !slices.Contains(used[g.ARN], in.LoadBalancerArn) })
		}
		from, to, next, e := page(len(list), in.Marker, in.PageSize)
		if err = e; err != nil {
			return
		}
		out.NextMarker = next
		for _, g := range list[from:to] {
			o := s.groupOut(g)
			o.LoadBalancerArns = append([]string{}, used[g.ARN]...)
			out.TargetGroups = append(out.TargetGroups, o)
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ModifyTargetGroup changes the health check.
func (s *Service) ModifyTargetGroup(_ context.Context, in *api.ModifyTargetGroupInput) (*api.ModifyTargetGroupOutput, error) {
	var out targetGroup
	err := s.changeGroup(in.TargetGroupArn, func(_ *state.Tx, g *targetGroup) error {
		if in.HealthCheckEnabled != nil && !*in.HealthCheckEnabled {
			return invalid("Health check enabled must be true for target groups with target type '%s'", g.Type)
		}
		err := setCheck(&g.Check, g.Protocol, checkSettings{in.HealthCheckProtocol, in.HealthCheckPort, in.HealthCheckPath,
			in.HealthCheckIntervalSeconds, in.HealthCheckTimeoutSeconds, in.HealthyThresholdCount, in.UnhealthyThresholdCount, in.Matcher})
		out = *g
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.ModifyTargetGroupOutput{TargetGroups: []*api.TargetGroup{s.groupOut(out)}}, nil
}

// DeleteTargetGroup deletes a target group that no listener uses.
func (s *Service) DeleteTargetGroup(_ context.Context, in *api.DeleteTargetGroupInput) (*api.DeleteTargetGroupOutput, error) {
	err := s.c.DB.Update(func(tx *state.Tx) error {
		if len(s.balancersOf(tx)[in.TargetGroupArn]) > 0 {
			return wire.Errorf("ResourceInUse", "Target group '%s' is currently in use by a listener or a rule", in.TargetGroupArn)
		}
		s.groups.Delete(tx, in.TargetGroupArn) // one that is not there is no error, as on AWS
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteTargetGroupOutput{}, nil
}
