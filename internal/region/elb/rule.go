package elb

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"

	api "github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

var (
	pathForm = regexp.MustCompile(`^[A-Za-z0-9_.$/~"'@:+&*?-]{1,128}$`)
	hostForm = regexp.MustCompile(`^[A-Za-z0-9.*?-]{1,128}$`)
)

// patterns are a condition's values, given in either of AWS's two ways.
func patterns(c *api.RuleCondition) []string {
	switch {
	case c.Field == "path-pattern" && c.PathPatternConfig != nil && len(c.PathPatternConfig.Values) > 0:
		return c.PathPatternConfig.Values
	case c.Field == "host-header" && c.HostHeaderConfig != nil && len(c.HostHeaderConfig.Values) > 0:
		return c.HostHeaderConfig.Values
	}
	return c.Values
}

func checkConditions(list []*api.RuleCondition) error {
	if len(list) == 0 {
		return invalid("A condition must be specified")
	}
	total, wild := 0, 0
	var seen []string
	for _, c := range list {
		form := pathForm
		switch c.Field {
		case "path-pattern":
		case "host-header":
			form = hostForm
		case "http-header", "http-request-method", "query-string", "source-ip":
			return wire.Unrealised("rule conditions on " + c.Field)
		default:
			return invalid("Condition field '%s' must be one of '[path-pattern, host-header]'", c.Field)
		}
		if len(c.RegexValues) > 0 || c.PathPatternConfig != nil && len(c.PathPatternConfig.RegexValues) > 0 || c.HostHeaderConfig != nil && len(c.HostHeaderConfig.RegexValues) > 0 {
			return wire.Unrealised("regular expressions in rule conditions")
		}
		if slices.Contains(seen, c.Field) {
			return wire.Unrealised("two conditions on " + c.Field + " in one rule")
		}
		seen = append(seen, c.Field)
		vals := patterns(c)
		if len(vals) == 0 {
			return invalid("A condition value must be specified")
		}
		for _, v := range vals {
			if !form.MatchString(v) {
				return invalid("The condition value '%s' contains a character that is not valid", v)
			}
			total++
			wild += strings.Count(v, "*") + strings.Count(v, "?")
		}
	}
	if total > 5 || wild > 6 {
		return invalid("A rule may have 5 condition values and 6 wildcards")
	}
	return nil
}

func ruleOut(r rule) *api.Rule {
	return &api.Rule{RuleArn: r.ARN, Priority: strconv.FormatInt(r.Priority, 10), Conditions: r.Conditions, Actions: actionsOut(r.Actions), IsDefault: new(false)}
}

func defaultRule(l listener) *api.Rule {
	return &api.Rule{RuleArn: strings.Replace(l.ARN, ":listener/", ":listener-rule/", 1) + "/" + tail(l.ARN), Priority: "default", Conditions: []*api.RuleCondition{}, Actions: actionsOut(l.Actions), IsDefault: new(true)}
}

// rulesOf are a listener's rules by priority.
func (s *Service) rulesOf(tx *state.Tx, arn string) []rule {
	var out []rule
	for _, r := range s.rules.All(tx) {
		if r.Listener == arn {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b rule) int { return cmp.Compare(a.Priority, b.Priority) })
	return out
}

func checkPriority(p *int64) error {
	if p == nil || *p < 1 || *p > 50000 {
		return invalid("Priority must be between 1 and 50000")
	}
	return nil
}

// CreateRule adds a rule to an HTTP listener.
func (s *Service) CreateRule(ctx context.Context, in *api.CreateRuleInput) (*api.CreateRuleOutput, error) {
	if err := checkPriority(in.Priority); err != nil {
		return nil, err
	}
	if err := checkConditions(in.Conditions); err != nil {
		return nil, err
	}
	if len(in.Transforms) > 0 {
		return nil, wire.Unrealised("rule transforms")
	}
	tags, err := mergeTags(ctx, nil, in.Tags)
	if err != nil {
		return nil, err
	}
	r := rule{Listener: in.ListenerArn, Priority: *in.Priority, Conditions: in.Conditions, Actions: in.Actions, Tags: tags}
	r.ARN = strings.Replace(in.ListenerArn, ":listener/", ":listener-rule/", 1) + "/" + s.ids.Hex(8)
	err = s.c.DB.Update(func(tx *state.Tx) error {
		l, ok := s.listeners.Get(tx, in.ListenerArn)
		if !ok {
			return notFoundListener()
		}
		b, _ := s.balancers.Get(tx, l.LB)
		if b.Type == "network" {
			return wire.Errorf("UnsupportedOperation", "Rules are not supported by Network Load Balancers")
		}
		have := s.rulesOf(tx, l.ARN)
		if len(have) >= mostRules {
			return wire.Errorf("TooManyRules", "The maximum number of rules is %d", mostRules)
		}
		if slices.ContainsFunc(have, func(o rule) bool { return o.Priority == r.Priority }) {
			return wire.Errorf("PriorityInUse", "Priority '%d' is currently in use", r.Priority)
		}
		if err := s.checkActions(tx, b, r.Actions); err != nil {
			return err
		}
		s.rules.Put(tx, r.ARN, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateRuleOutput{Rules: []*api.Rule{ruleOut(r)}}, nil
}

// ModifyRule replaces conditions or actions.
func (s *Service) ModifyRule(_ context.Context, in *api.ModifyRuleInput) (*api.ModifyRuleOutput, error) {
	if len(in.Transforms) > 0 {
		return nil, wire.Unrealised("rule transforms")
	}
	if len(in.Conditions) > 0 {
		if err := checkConditions(in.Conditions); err != nil {
			return nil, err
		}
	}
	var r rule
	err := s.c.DB.Update(func(tx *state.Tx) error {
		var ok bool
		if r, ok = s.rules.Get(tx, in.RuleArn); !ok {
			return notFoundRule()
		}
		if len(in.Conditions) > 0 {
			r.Conditions = in.Conditions
		}
		if len(in.Actions) > 0 {
			l, _ := s.listeners.Get(tx, r.Listener)
			b, _ := s.balancers.Get(tx, l.LB)
			if err := s.checkActions(tx, b, in.Actions); err != nil {
				return err
			}
			r.Actions = in.Actions
		}
		s.rules.Put(tx, r.ARN, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.ModifyRuleOutput{Rules: []*api.Rule{ruleOut(r)}}, nil
}

// DeleteRule removes a rule.
func (s *Service) DeleteRule(_ context.Context, in *api.DeleteRuleInput) (*api.DeleteRuleOutput, error) {
	err := s.c.DB.Update(func(tx *state.Tx) error {
		if _, ok := s.rules.Get(tx, in.RuleArn); !ok {
			for _, l := range s.listeners.All(tx) {
				if defaultRule(l).RuleArn == in.RuleArn {
					return wire.Errorf("OperationNotPermitted", "Default rule '%s' cannot be deleted", in.RuleArn)
				}
			}
			return notFoundRule()
		}
		s.rules.Delete(tx, in.RuleArn)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteRuleOutput{}, nil
}

// DescribeRules describes a listener's rules, the default one last, or rules by ARN.
func (s *Service) DescribeRules(_ context.Context, in *api.DescribeRulesInput) (*api.DescribeRulesOutput, error) {
	if (in.ListenerArn == "") == (len(in.RuleArns) == 0) {
		return nil, invalid("You must specify either listener rule ARNs or a listener ARN")
	}
	var list []*api.Rule
	var err error
	s.c.DB.View(func(tx *state.Tx) {
		if in.ListenerArn != "" {
			l, ok := s.listeners.Get(tx, in.ListenerArn)
			if !ok {
				err = notFoundListener()
				return
			}
			for _, r := range s.rulesOf(tx, l.ARN) {
				list = append(list, ruleOut(r))
			}
			list = append(list, defaultRule(l))
			return
		}
		for _, arn := range in.RuleArns {
			if r, ok := s.rules.Get(tx, arn); ok {
				list = append(list, ruleOut(r))
				continue
			}
			hit := false
			for _, l := range s.listeners.All(tx) {
				if d := defaultRule(l); d.RuleArn == arn {
					list, hit = append(list, d), true
				}
			}
			if !hit {
				err = notFoundRule()
				return
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
	return &api.DescribeRulesOutput{Rules: append([]*api.Rule{}, list[from:to]...), NextMarker: next}, nil
}

// SetRulePriorities moves rules of a listener.
func (s *Service) SetRulePriorities(_ context.Context, in *api.SetRulePrioritiesInput) (*api.SetRulePrioritiesOutput, error) {
	out := &api.SetRulePrioritiesOutput{Rules: []*api.Rule{}}
	err := s.c.DB.Update(func(tx *state.Tx) error {
		listeners := map[string]bool{}
		for _, p := range in.RulePriorities {
			if err := checkPriority(p.Priority); err != nil {
				return err
			}
			r, ok := s.rules.Get(tx, p.RuleArn)
			if !ok {
				return notFoundRule()
			}
			r.Priority = *p.Priority
			listeners[r.Listener] = true
			s.rules.Put(tx, r.ARN, r)
			out.Rules = append(out.Rules, ruleOut(r))
		}
		for l := range listeners {
			list := s.rulesOf(tx, l)
			for i := 1; i < len(list); i++ {
				if list[i].Priority == list[i-1].Priority {
					return wire.Errorf("PriorityInUse", "Priority '%d' is currently in use", list[i].Priority)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
