package template

import (
	"encoding/json"
	"slices"
	"strings"
)

// Condition evaluates the condition that n names; a nil n is true.
func (s *Scope) Condition(n *Node) (bool, error) {
	if n == nil {
		return true, nil
	}
	if v, ok := s.conditions[n.Text]; ok {
		return v, nil
	}
	c := pairOf(s.Template.Conditions, n.Text)
	if c == nil {
		return false, s.Template.problem(n.Pos, didYouMean(n.Text, keysOf(s.Template.Conditions)), "Template format error: Unresolved condition dependency %s", n.Text)
	}
	if slices.Contains(s.open, n.Text) {
		return false, s.fail(n.Pos, "Template format error: Circular dependencies for conditions: %s", strings.Join(append(s.open, n.Text), " -> "))
	}
	s.open = append(s.open, n.Text)
	v, err := s.logic(c.Value)
	s.open = s.open[:len(s.open)-1]
	if err != nil {
		return false, err
	}
	if s.conditions == nil {
		s.conditions = map[string]bool{}
	}
	s.conditions[n.Text] = v
	return v, nil
}

func (s *Scope) logic(n *Node) (bool, error) {
	if n.Kind == Map && len(n.Pairs) == 1 {
		arg := n.Pairs[0].Value
		switch name := n.Pairs[0].Key; name {
		case "Condition":
			if arg.Kind == String {
				return s.Condition(arg)
			}
		case "Fn::Equals":
			return s.equals(n.Pos, arg)
		case "Fn::Not", "Fn::And", "Fn::Or":
			if p := s.Template.logicArity(n.Pos, name, arg); p != nil {
				return false, *p
			}
			result := name == "Fn::And"
			for _, x := range arg.Items {
				v, err := s.logic(x)
				if err != nil {
					return false, err
				}
				switch name {
				case "Fn::Not":
					result = !v
				case "Fn::And":
					result = result && v
				default:
					result = result || v
				}
			}
			return result, nil
		}
	}
	return false, s.fail(n.Pos, "Template format error: Every Conditions member must be one of Fn::Equals, Fn::And, Fn::Or, Fn::Not or Condition")
}

func (t *Template) logicArity(at Pos, name string, arg *Node) *Problem {
	switch {
	case arg.Kind == List && name == "Fn::Not" && len(arg.Items) == 1:
	case arg.Kind == List && name != "Fn::Not" && len(arg.Items) >= 2 && len(arg.Items) <= 10:
	case name == "Fn::Not":
		return new(t.problem(at, "", "Template error: every Fn::Not object requires one boolean parameter"))
	default:
		return new(t.problem(at, "", "Template error: every %s object requires a list of at least 2 and at most 10 boolean parameters", name))
	}
	return nil
}

func (s *Scope) equals(at Pos, arg *Node) (bool, error) {
	if arg.Kind != List || len(arg.Items) != 2 {
		return false, s.fail(at, "Template error: every Fn::Equals object requires a list of 2 string parameters")
	}
	var side [2]string
	for i, x := range arg.Items {
		v, err := s.eval(x)
		if err != nil {
			return false, err
		}
		switch {
		case v.Kind == Unknown:
			return false, s.fail(at, "Template error: a condition can only use parameters and mappings")
		case v.Scalar():
			side[i] = v.Text
		default:
			b, err := json.Marshal(v.Value())
			if err != nil {
				return false, s.fail(at, "Template error: Fn::Equals cannot compare this: %v", err)
			}
			side[i] = string(b)
		}
	}
	return side[0] == side[1], nil
}
