package template

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/template/schema"
)

// Properties checks a resource's properties against its type's schema and
// coerces them: "80" becomes 80 where a number belongs. n may be evaluated or
// not; functions and unknown values in it count as right where they can be.
// The type must be one that the region has.
func (t *Template) Properties(r *Resource, n *Node) (*Node, []Problem) {
	v := &validator{t: t, r: r}
	if n == nil {
		n = &Node{Pos: r.At, Kind: Map}
	}
	d, ok := schema.Lookup(r.Type)
	if !ok {
		return n, []Problem{*t.resourceType(r)}
	}
	if _, arg, fn := n.Function(); fn { // Properties: !If
		for _, x := range arg.Items[min(1, len(arg.Items)):] {
			if x.Kind == Map {
				v.object(x, d, "")
			}
		}
		return n, v.problems
	}
	return v.object(n, d, ""), v.problems
}

type validator struct {
	t        *Template
	r        *Resource
	problems []Problem
}

func (v *validator) add(at Pos, hint, format string, args ...any) {
	v.problems = append(v.problems, v.t.problem(at, hint, format, args...))
}

func (v *validator) object(n *Node, d *schema.Definition, path string) *Node {
	out := &Node{Pos: n.Pos, Kind: Map, Pairs: make([]Pair, 0, len(n.Pairs))}
	for _, p := range n.Pairs {
		prop, ok := d.Properties[p.Key]
		if !ok {
			v.add(p.At, didYouMean(p.Key, sortedKeys(d.Properties)), "Encountered unsupported property %s", path+p.Key)
			continue
		}
		if ref, arg, fn := p.Value.Function(); fn && ref == "Ref" && arg.isText("AWS::NoValue") || p.Value.Kind == Null {
			if p.Value.Kind == Null {
				v.add(p.At, "", "[/Resources/%s/Properties/%s] 'null' values are not allowed in templates", v.r.Name, strings.ReplaceAll(path+p.Key, ".", "/"))
			}
			continue
		}
		if d.Realised != nil && !slices.Contains(d.Realised, p.Key) {
			v.add(p.At, "", "the local region does not realise the property %s of %s", p.Key, v.r.Type)
			v.problems[len(v.problems)-1].Local = true
			continue
		}
		out.Pairs = append(out.Pairs, Pair{p.Key, p.At, v.value(p.Value, prop.Type, path+p.Key)})
	}
	for _, name := range sortedKeys(d.Properties) {
		if d.Properties[name].Required && n.Pair(name) == nil {
			at := n.Pos
			if path == "" {
				at = v.r.At
			}
			v.add(at, "", "Property %s cannot be empty.", path+name)
		}
	}
	return out
}

// value checks n against a type and returns it coerced.
func (v *validator) value(n *Node, t schema.Type, path string) *Node {
	if n.Kind == Unknown {
		return n
	}
	if name, arg, ok := n.Function(); ok && t.Kind() != schema.JSON {
		v.function(n, name, arg, t, path)
		return n
	}
	wrong := func() *Node {
		v.add(n.Pos, "", "Value of property %s must be of type %s", path, words(t))
		return n
	}
	switch t.Kind() {
	case schema.String, schema.Scalar:
		if !n.Scalar() {
			return wrong()
		}
		return text(n.Pos, n.Text)
	case schema.Integer, schema.Number:
		if !n.Scalar() || n.Kind == Bool {
			return wrong()
		}
		s := strings.TrimSpace(n.Text)
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || t.Kind() == schema.Integer && f != float64(int64(f)) {
			return wrong()
		}
		if t.Kind() == schema.Integer {
			if i, err := strconv.ParseInt(s, 10, 64); err == nil {
				s = strconv.FormatInt(i, 10)
			} else {
				s = strconv.FormatInt(int64(f), 10)
			}
		}
		return &Node{Pos: n.Pos, Kind: Number, Text: s}
	case schema.Boolean:
		if s := strings.ToLower(n.Text); n.Scalar() && (s == "true" || s == "false") {
			return &Node{Pos: n.Pos, Kind: Bool, Text: s}
		}
		return wrong()
	case schema.JSON:
		return v.document(n, path)
	case schema.List:
		if n.Kind != List {
			return wrong()
		}
		out := &Node{Pos: n.Pos, Kind: List, Items: make([]*Node, len(n.Items))}
		for i, x := range n.Items {
			out.Items[i] = v.value(x, t.Elem(), path)
		}
		return out
	case schema.Map:
		if n.Kind != Map {
			return wrong()
		}
		out := &Node{Pos: n.Pos, Kind: Map}
		for _, p := range n.Pairs {
			out.Pairs = append(out.Pairs, Pair{p.Key, p.At, v.value(p.Value, t.Elem(), path+"."+p.Key)})
		}
		return out
	}
	if n.Kind != Map {
		return wrong()
	}
	return v.object(n, t.Object(), path+".")
}

func words(t schema.Type) string {
	if t.Kind() == schema.Object || t.Kind() == schema.Tag {
		return "Object"
	}
	return t.Words()
}

// document takes a JSON document as a map or as its text.
func (v *validator) document(n *Node, path string) *Node {
	if n.Kind != String {
		return n
	}
	var x any
	if err := json.Unmarshal([]byte(n.Text), &x); err != nil {
		v.add(n.Pos, "", "Value of property %s must be an object", path)
		return n
	}
	return FromValue(n.Pos, x)
}

// function checks that what a function gives can be of the type.
func (v *validator) function(n *Node, name string, arg *Node, t schema.Type, path string) {
	if name == "Fn::If" {
		if arg.Kind == List && len(arg.Items) == 3 {
			for _, x := range arg.Items[1:] {
				if f, a, ok := x.Function(); ok && f == "Ref" && a.isText("AWS::NoValue") {
					continue
				}
				v.value(x, t, path)
			}
		}
		return
	}
	gives := functions[name].gives
	switch {
	case name == "Ref" && arg.Kind == String:
		if p := v.t.Parameter(arg.Text); p != nil && p.List() || arg.Text == "AWS::NotificationARNs" {
			gives = List
		} else {
			gives = String
		}
	case name == "Fn::GetAtt":
		gives = v.attribute(arg)
	}
	list := t.Kind() == schema.List
	if gives == List && !list || gives == String && list || gives == String && t.Object() != nil {
		v.add(n.Pos, "", "Value of property %s must be of type %s", path, words(t))
	}
}

func (v *validator) attribute(arg *Node) Kind {
	name, attr, _ := strings.Cut(arg.Text, ".")
	if arg.Kind == List && len(arg.Items) == 2 {
		name, attr = arg.Items[0].Text, arg.Items[1].Text
	}
	r := v.t.Resource(name)
	if r == nil {
		return Unknown
	}
	d, ok := schema.Lookup(r.Type)
	if !ok {
		return Unknown
	}
	switch t := d.Attributes[attr]; t.Kind() {
	case schema.List:
		return List
	case schema.String, schema.Integer, schema.Boolean, schema.Number:
		return String
	}
	return Unknown
}
