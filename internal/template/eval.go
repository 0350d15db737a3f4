package template

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// maxText bounds what Join, Sub and Base64 may make.
const maxText = 4 << 20

// Scope is what a template's functions are evaluated with.
type Scope struct {
	Template *Template
	// Values and Resolved are what Resolve returned.
	Values, Resolved Values
	// Pseudo are the pseudo parameters: AWS::Region and the like.
	Pseudo map[string]any
	// Zones are the region's availability zones.
	Zones []string
	// Ref and GetAtt give a resource's value; known is false while the
	// resource is not there yet. nil: no resource is there yet.
	Ref    func(name string) (v any, known bool, err error)
	GetAtt func(name, attribute string) (v any, known bool, err error)
	// Import gives another stack's export.
	Import func(name string) (string, error)
	// Used, if set, hears of every resource that is referred to.
	Used func(resource string)

	conditions map[string]bool
	open       []string // conditions under evaluation
}

// Eval evaluates all functions in n. Values that are not there yet become
// Unknown nodes. The error is a Problem with its position.
func (s *Scope) Eval(n *Node) (*Node, error) {
	out, err := s.eval(n)
	if err == nil && out.Kind == absent {
		out = &Node{Pos: n.Pos}
	}
	return out, err
}

func (s *Scope) fail(at Pos, format string, args ...any) error {
	return s.Template.problem(at, "", format, args...)
}

func (s *Scope) eval(n *Node) (*Node, error) {
	switch n.Kind {
	case List:
		out := &Node{Pos: n.Pos, Kind: List, Items: make([]*Node, 0, len(n.Items))}
		for _, x := range n.Items {
			v, err := s.eval(x)
			if err != nil {
				return nil, err
			}
			if v.Kind != absent {
				out.Items = append(out.Items, v)
			}
		}
		return out, nil
	case Map:
		if name, arg, ok := n.Function(); ok {
			return s.call(n.Pos, name, arg)
		}
		out := &Node{Pos: n.Pos, Kind: Map, Pairs: make([]Pair, 0, len(n.Pairs))}
		for _, p := range n.Pairs {
			v, err := s.eval(p.Value)
			if err != nil {
				return nil, err
			}
			if v.Kind != absent {
				out.Pairs = append(out.Pairs, Pair{p.Key, p.At, v})
			}
		}
		return out, nil
	}
	return n, nil
}

// call runs one function.
func (s *Scope) call(at Pos, name string, arg *Node) (*Node, error) {
	f, ok := functions[name]
	if !ok && name != "Ref" {
		return nil, s.fail(at, "Template error: %s is not a function", name)
	}
	switch name {
	case "Ref":
		if arg.Kind != String {
			return nil, s.fail(at, "Template error: every Ref object must have a single String value.")
		}
		return s.ref(at, arg.Text)
	case "Fn::GetAtt":
		return s.getAtt(at, arg)
	case "Fn::Sub":
		return s.sub(at, arg)
	case "Fn::If":
		return s.branch(at, arg)
	case "Fn::And", "Fn::Or", "Fn::Not", "Fn::Equals":
		return nil, s.fail(at, "Template error: %s can stand in Conditions only", name)
	}
	v, err := s.eval(arg)
	if err != nil {
		return nil, err
	}
	if f.run == nil {
		return nil, s.fail(at, "the local region does not run %s", name)
	}
	if v.Kind == Unknown {
		return unknown(at), nil
	}
	return f.run(s, at, v)
}

func (s *Scope) ref(at Pos, name string) (*Node, error) {
	if name == "AWS::NoValue" {
		return &Node{Pos: at, Kind: absent}, nil
	}
	if v, ok := s.Pseudo[name]; ok {
		return FromValue(at, v), nil
	}
	if p := s.Template.Parameter(name); p != nil {
		return s.parameter(at, p), nil
	}
	if s.Template.Resource(name) == nil {
		return nil, s.unresolved(at, name)
	}
	if s.Used != nil {
		s.Used(name)
	}
	if s.Ref == nil {
		return unknown(at), nil
	}
	v, known, err := s.Ref(name)
	if err != nil {
		return nil, s.fail(at, "%v", err)
	}
	if !known {
		return unknown(at), nil
	}
	return FromValue(at, v), nil
}

func (s *Scope) unresolved(at Pos, name string) error {
	p := s.Template.unresolved(at, name)
	return p
}

func (s *Scope) parameter(at Pos, p *Parameter) *Node {
	v, ok := s.Values[p.Name]
	if p.SSM() {
		v, ok = s.Resolved[p.Name]
	}
	if !ok {
		return unknown(at)
	}
	if p.List() {
		return FromValue(at, splitList(v))
	}
	return text(at, v)
}

// attribute takes the argument of GetAtt apart.
func (s *Scope) attribute(at Pos, arg *Node) (name, attr string, err error) {
	if arg.Kind == String {
		name, attr, _ = strings.Cut(arg.Text, ".")
	} else if arg.Kind == List && len(arg.Items) == 2 {
		v, err := s.eval(arg.Items[1])
		if err != nil {
			return "", "", err
		}
		if arg.Items[0].Kind == String && v.Kind == String {
			name, attr = arg.Items[0].Text, v.Text
		}
	}
	if name == "" || attr == "" {
		return "", "", s.fail(at, "Template error: every Fn::GetAtt object requires two non-empty parameters, the resource name and the resource attribute")
	}
	return name, attr, nil
}

func (s *Scope) getAtt(at Pos, arg *Node) (*Node, error) {
	name, attr, err := s.attribute(at, arg)
	if err != nil {
		return nil, err
	}
	if p := s.Template.checkAttribute(at, name, attr); p != nil {
		return nil, *p
	}
	if s.Used != nil {
		s.Used(name)
	}
	if s.GetAtt == nil {
		return unknown(at), nil
	}
	v, known, err := s.GetAtt(name, attr)
	if err != nil {
		return nil, s.fail(at, "%v", err)
	}
	if !known {
		return unknown(at), nil
	}
	return FromValue(at, v), nil
}

func (s *Scope) sub(at Pos, arg *Node) (*Node, error) {
	form, vars, ok := subParts(arg)
	if !ok {
		return nil, s.fail(at, "Template error: One or more Fn::Sub intrinsic functions don't specify expected arguments. Specify a string as first argument, and an optional second argument to specify a mapping of values to replace in the string")
	}
	var b strings.Builder
	known := true
	for _, part := range splitSub(form.Text) {
		if !part.variable {
			b.WriteString(part.text)
			continue
		}
		var v *Node
		var err error
		if x := vars.Get(part.text); x != nil {
			v, err = s.eval(x)
		} else if _, pseudo := s.Pseudo[part.text]; !pseudo && strings.Contains(part.text, ".") {
			v, err = s.getAtt(at, text(at, part.text))
		} else {
			v, err = s.ref(at, part.text)
		}
		switch {
		case err != nil:
			return nil, err
		case v.Kind == Unknown:
			known = false
		case !v.Scalar():
			return nil, s.fail(at, "Template error: variable %s in Fn::Sub expression does not resolve to a string", part.text)
		}
		if b.WriteString(v.Text); b.Len() > maxText {
			return nil, s.fail(at, "Template error: Fn::Sub makes more than %d bytes", maxText)
		}
	}
	if !known {
		return unknown(at), nil
	}
	return text(at, b.String()), nil
}

func (s *Scope) branch(at Pos, arg *Node) (*Node, error) {
	if arg.Kind != List || len(arg.Items) != 3 || arg.Items[0].Kind != String {
		return nil, s.fail(at, "Template error: Fn::If requires a list argument with three elements: the name of a condition and two values")
	}
	yes, err := s.Condition(arg.Items[0])
	if err != nil {
		return nil, err
	}
	if yes {
		return s.eval(arg.Items[1])
	}
	return s.eval(arg.Items[2])
}

func base64Text(s *Scope, at Pos, arg *Node) (*Node, error) {
	if !arg.Scalar() {
		return nil, s.fail(at, "Template error: every Fn::Base64 object must have a String-typed value.")
	}
	return text(at, base64.StdEncoding.EncodeToString([]byte(arg.Text))), nil
}

func anyUnknown(n *Node) bool {
	if n.Kind == Unknown {
		return true
	}
	for _, x := range n.Items {
		if anyUnknown(x) {
			return true
		}
	}
	for _, p := range n.Pairs {
		if anyUnknown(p.Value) {
			return true
		}
	}
	return false
}

func toJSON(s *Scope, at Pos, arg *Node) (*Node, error) {
	if anyUnknown(arg) {
		return unknown(at), nil
	}
	b, err := json.Marshal(arg.Value())
	if err != nil {
		return nil, s.fail(at, "Template error: Fn::ToJsonString cannot write this: %v", err)
	}
	return text(at, string(b)), nil
}

func length(s *Scope, at Pos, arg *Node) (*Node, error) {
	if arg.Kind != List {
		return nil, s.fail(at, "Template error: Fn::Length requires a list, not %s", arg.Kind)
	}
	return &Node{Pos: at, Kind: Number, Text: strconv.Itoa(len(arg.Items))}, nil
}

func importValue(s *Scope, at Pos, arg *Node) (*Node, error) {
	if !arg.Scalar() {
		return nil, s.fail(at, "Template error: the argument of Fn::ImportValue must be a string")
	}
	if s.Import == nil {
		return unknown(at), nil
	}
	v, err := s.Import(arg.Text)
	if err != nil {
		return nil, s.fail(at, "%v", err)
	}
	return text(at, v), nil
}

func zones(s *Scope, at Pos, arg *Node) (*Node, error) {
	region := fmt.Sprint(s.Pseudo["AWS::Region"])
	if arg.Kind != Null && (arg.Kind != String || arg.Text != "" && arg.Text != region) {
		return nil, s.fail(at, "Template error: Fn::GetAZs knows the zones of %s only, not of %q", region, arg.Text)
	}
	return FromValue(at, s.Zones), nil
}
