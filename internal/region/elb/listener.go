package elb

import (
	"context"
	"slices"
	"strconv"
	"strings"

	api "github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const (
	mostListeners = 50
	mostRules     = 100 // of one listener
)

func notFoundListener() error {
	return wire.Errorf("ListenerNotFound", "One or more listeners not found")
}

func notFoundRule() error { return wire.Errorf("RuleNotFound", "One or more rules not found") }

// checkActions refuses what is wrong, and what the region cannot realise.
func (s *Service) checkActions(tx *state.Tx, b loadBalancer, actions []*api.Action) error {
	if len(actions) != 1 {
		if len(actions) == 0 {
			return invalid("At least one action must be specified")
		}
		return wire.Unrealised("several actions in one listener or rule")
	}
	a := actions[0]
	switch a.Type {
	case "forward":
		return s.checkForward(tx, b, a)
	case "fixed-response":
		if b.Type == "network" {
			return invalid("Action type 'fixed-response' is not valid with Network Load Balancers")
		}
		f := a.FixedResponseConfig
		if f == nil || len(f.StatusCode) != 3 || !strings.Contains("245", f.StatusCode[:1]) {
			return invalid("A fixed-response action needs a FixedResponseConfig with a StatusCode 2XX, 4XX or 5XX")
		}
		if _, err := strconv.Atoi(f.StatusCode); err != nil || len(f.MessageBody) > 1024 || strings.ContainsRune(f.MessageBody, 0) {
			return invalid("The StatusCode must be a number, the MessageBody may have 1024 characters")
		}
		if f.ContentType != "" && !slices.Contains([]string{"text/plain", "text/css", "text/html", "application/javascript", "application/json"}, f.ContentType) {
			return invalid("The content type '%s' is not valid", f.ContentType)
		}
		return nil
	case "redirect", "authenticate-oidc", "authenticate-cognito", "jwt-validation":
		return wire.Unrealised("listener actions of type " + a.Type)
	}
	return invalid("Action type '%s' is not valid", a.Type)
}

func (s *Service) checkForward(tx *state.Tx, b loadBalancer, a *api.Action) error {
	list, _ := shares(a)
	if a.TargetGroupArn != "" && a.ForwardConfig != nil && len(a.ForwardConfig.TargetGroups) == 1 && list[0].TargetGroupArn != a.TargetGroupArn {
		return invalid("TargetGroupArn and ForwardConfig must name the same target group")
	}
	if a.ForwardConfig != nil && a.ForwardConfig.TargetGroupStickinessConfig != nil && a.ForwardConfig.TargetGroupStickinessConfig.Enabled != nil && *a.ForwardConfig.TargetGroupStickinessConfig.Enabled {
		return wire.Unrealised("target group stickiness")
	}
	if len(list) > 5 {
		return invalid("A forward action may name at most 5 target groups")
	}
	used := s.balancersOf(tx)
	seen := map[string]bool{}
	for _, t := range list {
		g, ok := s.groups.Get(tx, t.TargetGroupArn)
		switch {
		case t.TargetGroupArn == "":
			return invalid("A forward action needs a target group ARN")
		case !ok:
			return notFoundTG(t.TargetGroupArn)
		case seen[g.ARN]:
			return invalid("The target group '%s' is named twice", g.ARN)
		case g.VPC != b.VPC:
			return wire.Errorf("InvalidConfigurationRequest", "The target group '%s' is not in the load balancer's VPC '%s'", g.ARN, b.VPC)
		case (g.Protocol == "HTTP") != (b.Type == "application"):
			return wire.Errorf("IncompatibleProtocols", "The protocol '%s' of the target group '%s' is not compatible with the listener's", g.Protocol, g.ARN)
		case t.Weight != nil && (*t.Weight < 0 || *t.Weight > 999):
			return invalid("The weight '%d' is not between 0 and 999", *t.Weight)
		}
		seen[g.ARN] = true
		for _, lb := range used[g.ARN] {
			if lb != b.ARN {
				return wire.Errorf("TargetGroupAssociationLimit", "The following target groups cannot be associated with more than one load balancer: %s", g.ARN)
			}
		}
	}
	return nil
}

// actionsOut completes actions as AWS shows them: forwards in both forms.
func actionsOut(actions []*api.Action) []*api.Action {
	var out []*api.Action
	for i, a := range actions {
		c := *a
		if c.Order == nil && len(actions) > 1 {
			c.Order = new(int64(i + 1))
		}
		if list, ok := shares(a); ok {
			var full []*api.TargetGroupTuple
			for _, t := range list {
				w := int64(1)
				if t.Weight != nil {
					w = *t.Weight
				}
				full = append(full, &api.TargetGroupTuple{TargetGroupArn: t.TargetGroupArn, Weight: new(w)})
			}
			c.ForwardConfig = &api.ForwardActionConfig{TargetGroups: full, TargetGroupStickinessConfig: &api.TargetGroupStickinessConfig{Enabled: new(false)}}
			c.TargetGroupArn = ""
			if len(full) == 1 {
				c.TargetGroupArn = full[0].TargetGroupArn
			}
		}
		out = append(out, &c)
	}
	return out
}

func listenerOut(l listener) *api.Listener {
	return &api.Listener{ListenerArn: l.ARN, LoadBalancerArn: l.LB, Port: new(l.Port), Protocol: l.Protocol, DefaultActions: actionsOut(l.Actions)}
}

func checkProtocol(b loadBalancer, protocol string, certificates []*api.Certificate, policy string, alpn []string, mutual *api.MutualAuthenticationAttributes) error {
	if len(certificates) > 0 || policy != "" || len(alpn) > 0 || mutual != nil && mutual.Mode != "off" && mutual.Mode != "" {
		return wire.Unrealised("listeners with certificates or TLS settings")
	}
	want := "HTTP"
	if b.Type == "network" {
		want = "TCP"
	}
	switch protocol {
	case want:
		return nil
	case "HTTPS", "TLS", "UDP", "TCP_UDP", "GENEVE", "QUIC", "TCP_QUIC":
		return wire.Unrealised("listeners with protocol " + protocol)
	}
	return wire.Errorf("UnsupportedProtocol", "Protocol '%s' is not supported by load balancers of type '%s'", protocol, b.Type)
}

// CreateListener adds a listener to a load balancer.
func (s *Service) CreateListener(ctx context.Context, in *api.CreateListenerInput) (*api.CreateListenerOutput, error) {
	tags, err := mergeTags(ctx, nil, in.Tags)
	if err != nil {
		return nil, err
	}
	if in.Port == nil || *in.Port < 1 || *in.Port > 65535 {
		return nil, invalid("A port between 1 and 65535 must be specified")
	}
	l := listener{LB: in.LoadBalancerArn, Protocol: in.Protocol, Port: *in.Port, Actions: in.DefaultActions, Tags: tags, Created: s.now()}
	id := s.ids.Hex(8)
	err = s.c.DB.Update(func(tx *state.Tx) error {
		b, ok := s.balancers.Get(tx, in.LoadBalancerArn)
		if !ok || b.Deleting {
			return notFoundLB(in.LoadBalancerArn)
		}
		if l.Protocol == "" {
			l.Protocol = "HTTP"
			if b.Type == "network" {
				l.Protocol = "TCP"
			}
		}
		if err := checkProtocol(b, l.Protocol, in.Certificates, in.SslPolicy, in.AlpnPolicy, in.MutualAuthentication); err != nil {
			return err
		}
		n := 0
		for _, old := range s.listeners.All(tx) {
			if old.LB != b.ARN {
				continue
			}
			n++
			if old.Port == l.Port {
				return wire.Errorf("DuplicateListener", "A listener already exists on this port for this load balancer '%s'", b.ARN)
			}
		}
		if n >= mostListeners {
			return wire.Errorf("TooManyListeners", "The maximum number of listeners is %d", mostListeners)
		}
		if err := s.checkActions(tx, b, l.Actions); err != nil {
			return err
		}
		l.ARN = strings.Replace(b.ARN, ":loadbalancer/", ":listener/", 1) + "/" + id
		s.listeners.Put(tx, l.ARN, l)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateListenerOutput{Listeners: []*api.Listener{listenerOut(l)}}, nil
}

// ModifyListener changes port, protocol or default actions: this is how
// traffic moves from one target group to another.
func (s *Service) ModifyListener(ctx context.Context, in *api.ModifyListenerInput) (*api.ModifyListenerOutput, error) {
	var l listener
	err := s.c.DB.Update(func(tx *state.Tx) error {
		var ok bool
		if l, ok = s.listeners.Get(tx, in.ListenerArn); !ok {
			return notFoundListener()
		}
		b, ok := s.balancers.Get(tx, l.LB)
		if !ok || b.Deleting {
			return notFoundListener()
		}
		if in.Protocol != "" {
			l.Protocol = in.Protocol
		}
		if err := checkProtocol(b, l.Protocol, in.Certificates, in.SslPolicy, in.AlpnPolicy, in.MutualAuthentication); err != nil {
			return err
		}
		if in.Port != nil {
			if *in.Port < 1 || *in.Port > 65535 {
				return invalid("Port '%d' is not between 1 and 65535", *in.Port)
			}
			for arn, old := range s.listeners.All(tx) {
				if old.LB == l.LB && old.Port == *in.Port && arn != l.ARN {
					return wire.Errorf("DuplicateListener", "A listener already exists on this port for this load balancer '%s'", b.ARN)
				}
			}
			l.Port = *in.Port
		}
		if len(in.DefaultActions) > 0 {
			if err := s.checkActions(tx, b, in.DefaultActions); err != nil {
				return err
			}
			l.Actions = in.DefaultActions
		}
		s.listeners.Put(tx, l.ARN, l)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.settle(ctx, l.LB)
	return &api.ModifyListenerOutput{Listeners: []*api.Listener{listenerOut(l)}}, nil
}

// deleteListener removes a listener with its rules.
func (s *Service) deleteListener(tx *state.Tx, arn string) {
	for id, r := range s.rules.All(tx) {
		if r.Listener == arn {
			s.rules.Delete(tx, id)
		}
	}
	s.listeners.Delete(tx, arn)
}

// DeleteListener removes a listener with its rules.
func (s *Service) DeleteListener(_ context.Context, in *api.DeleteListenerInput) (*api.DeleteListenerOutput, error) {
	err := s.c.DB.Update(func(tx *state.Tx) error {
		if _, ok := s.listeners.Get(tx, in.ListenerArn); !ok {
			return notFoundListener()
		}
		s.deleteListener(tx, in.ListenerArn)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteListenerOutput{}, nil
}

// DescribeListeners describes listeners by ARN or of a load balancer.
func (s *Service) DescribeListeners(_ context.Context, in *api.DescribeListenersInput) (*api.DescribeListenersOutput, error) {
	if in.LoadBalancerArn == "" && len(in.ListenerArns) == 0 {
		return nil, invalid("You must specify either listener ARNs or a load balancer ARN")
	}
	var list []listener
	var err error
	s.c.DB.View(func(tx *state.Tx) {
		if in.LoadBalancerArn != "" {
			if b, ok := s.balancers.Get(tx, in.LoadBalancerArn); !ok || b.Deleting {
				err = notFoundLB(in.LoadBalancerArn)
				return
			}
		}
		if len(in.ListenerArns) > 0 {
			for _, arn := range in.ListenerArns {
				l, ok := s.listeners.Get(tx, arn)
				if !ok || in.LoadBalancerArn != "" && l.LB != in.LoadBalancerArn {
					err = notFoundListener()
					return
				}
				list = append(list, l)
			}
			return
		}
		for _, l := range s.listeners.All(tx) {
			if l.LB == in.LoadBalancerArn {
				list = append(list, l)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	from, to, next, err := page(len(list), in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeListenersOutput{Listeners: []*api.Listener{}, NextMarker: next}
	for _, l := range list[from:to] {
		out.Listeners = append(out.Listeners, listenerOut(l))
	}
	return out, nil
}
