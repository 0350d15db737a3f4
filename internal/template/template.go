package template

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Template is a template that was read. Its parts are in the file's order.
type Template struct {
	File        string
	Description string
	Root        *Node
	Metadata    *Node
	Parameters  []*Parameter
	Mappings    []Pair // the values are maps of maps
	Conditions  []Pair
	Resources   []*Resource
	Outputs     []*Output
	Transforms  []string
}

// Resource is an entry of Resources.
type Resource struct {
	Name                string
	At                  Pos
	Type                string
	TypeAt              Pos
	Properties          *Node // nil where there are none
	DependsOn           []*Node
	Condition           *Node
	DeletionPolicy      string
	UpdateReplacePolicy string
	CreationPolicy      *Node
	UpdatePolicy        *Node
	Metadata            *Node
}

// Output is an entry of Outputs.
type Output struct {
	Name        string
	At          Pos
	Description string
	Value       *Node
	Condition   *Node
	Export      *Node // its Name
}

var (
	logicalName  = regexp.MustCompile(`^[A-Za-z0-9]{1,255}$`)
	sections     = []string{"AWSTemplateFormatVersion", "Description", "Metadata", "Parameters", "Mappings", "Conditions", "Rules", "Transform", "Resources", "Outputs", "Hooks"}
	resourceKeys = []string{"Type", "Properties", "DependsOn", "Condition", "DeletionPolicy", "UpdateReplacePolicy", "CreationPolicy", "UpdatePolicy", "Metadata", "Version"}
	outputKeys   = []string{"Description", "Value", "Export", "Condition"}
)

// Parse reads a template. file is the name that positions carry. The template
// is nil where there are problems that leave nothing to look at.
func Parse(file string, src []byte) (*Template, []Problem) {
	r := &reader{t: &Template{File: file}}
	if len(src) > MaxBytes {
		return nil, []Problem{{File: file, Message: fmt.Sprintf("Template may not exceed %d bytes in size.", MaxBytes)}}
	}
	src = bytes.TrimPrefix(src, []byte("\ufeff"))
	var p *Problem
	if bytes.HasPrefix(bytes.TrimLeft(src, " \t\r\n"), []byte("{")) {
		r.t.Root, p = parseJSON(src)
	} else {
		r.t.Root, p = parseYAML(src)
	}
	if p != nil {
		p.File = file
		return nil, []Problem{*p}
	}
	if r.t.Root.Kind != Map {
		r.problem(r.t.Root.Pos, "", "Template format error: unsupported structure.")
		return nil, r.problems
	}
	r.template()
	return r.t, r.problems
}

// reader takes the sections apart and notes every problem.
type reader struct {
	t        *Template
	problems []Problem
}

func (r *reader) problem(at Pos, hint, format string, args ...any) {
	r.problems = append(r.problems, Problem{File: r.t.File, Line: at.Line, Column: at.Column, Hint: hint, Message: fmt.Sprintf(format, args...)})
}

func (r *reader) local(at Pos, hint, format string, args ...any) {
	r.problem(at, hint, format, args...)
	r.problems[len(r.problems)-1].Local = true
}

func (r *reader) template() {
	root := r.t.Root
	for _, p := range root.Pairs {
		if !slices.Contains(sections, p.Key) {
			r.problem(p.At, didYouMean(p.Key, sections), "Invalid template property or properties [%s]", p.Key)
		}
	}
	if v := root.Get("AWSTemplateFormatVersion"); v != nil && v.Text != "2010-09-09" {
		r.problem(v.Pos, "2010-09-09 is the only one", "Template format error: Template format version %q is not supported", v.Text)
	}
	if d := root.Get("Description"); d != nil {
		if d.Kind != String {
			r.problem(d.Pos, "", "Template format error: Description must be a string, not %s", d.Kind)
		} else if len(d.Text) > 1024 {
			r.problem(d.Pos, "", "Template format error: Description may not be longer than 1024 characters")
		}
		r.t.Description = d.Text
	}
	r.t.Metadata = root.Get("Metadata")
	if p := root.Pair("Transform"); p != nil {
		for _, n := range append([]*Node{p.Value}, p.Value.Items...) {
			if n.Kind == String {
				r.t.Transforms = append(r.t.Transforms, n.Text)
			}
		}
		r.local(p.At, "expand the template first, for instance with sam package", "the local region does not run transforms (%s)", strings.Join(r.t.Transforms, ", "))
	}
	for _, s := range []string{"Rules", "Hooks"} {
		if p := root.Pair(s); p != nil {
			r.local(p.At, "", "the local region does not evaluate %s", s)
		}
	}
	for _, p := range r.section("Parameters", maxNames) {
		r.parameter(p)
	}
	r.mappings()
	r.t.Conditions = r.section("Conditions", 0)
	for _, p := range r.section("Resources", MaxResources) {
		r.resource(p)
	}
	if n := root.Get("Resources"); n == nil || n.Kind == Map && len(n.Pairs) == 0 || n.Kind == Null {
		r.problem(Pos{1, 1}, "", "Template format error: At least one Resources member must be defined.")
	}
	for _, p := range r.section("Outputs", maxNames) {
		r.output(p)
	}
}

// section returns the entries of a section of named things.
func (r *reader) section(name string, limit int) []Pair {
	n := r.t.Root.Get(name)
	if n == nil || n.Kind == Null {
		return nil
	}
	if n.Kind != Map {
		r.problem(n.Pos, "", "Template format error: %s must be a map, not %s", name, n.Kind)
		return nil
	}
	if limit > 0 && len(n.Pairs) > limit {
		r.problem(n.Pos, "", "Template format error: Number of %s, %d, is greater than maximum allowed, %d", strings.ToLower(name), len(n.Pairs), limit)
		return nil
	}
	for _, p := range n.Pairs {
		if !logicalName.MatchString(p.Key) && name != "Mappings" {
			r.problem(p.At, "letters and digits only", "Template format error: %s name '%s' is non alphanumeric.", strings.TrimSuffix(name, "s"), p.Key)
		}
	}
	return n.Pairs
}

// known notes keys of n that are none of words.
func (r *reader) known(n *Node, what string, words []string) {
	for _, p := range n.Pairs {
		if !slices.Contains(words, p.Key) {
			r.problem(p.At, didYouMean(p.Key, words), "Invalid template property or properties [%s] of %s", p.Key, what)
		}
	}
}

func (r *reader) mappings() {
	for _, m := range r.section("Mappings", maxNames) {
		if name, _, ok := m.Value.Function(); ok {
			r.local(m.At, "", "the local region does not run %s in Mappings", name)
			continue
		}
		ok := m.Value.Kind == Map
		for _, top := range m.Value.Pairs {
			ok = ok && top.Value.Kind == Map
			for _, v := range top.Value.Pairs {
				ok = ok && (v.Value.Scalar() || v.Value.Kind == List)
			}
		}
		if !ok {
			r.problem(m.At, "", "Template format error: Every Mappings member %s must be a map of maps of strings or lists", m.Key)
			continue
		}
		r.t.Mappings = append(r.t.Mappings, m)
	}
}

func (r *reader) resource(p Pair) {
	res := &Resource{Name: p.Key, At: p.At}
	n := p.Value
	if n.Kind != Map {
		r.problem(p.At, "", "Template format error: Resource %s must be a map, not %s", p.Key, n.Kind)
		return
	}
	if name, _, ok := n.Function(); ok {
		r.local(p.At, "", "the local region does not run %s in Resources", name)
		return
	}
	r.known(n, "resource "+p.Key, resourceKeys)
	t := n.Get("Type")
	if t == nil || t.Kind != String {
		r.problem(p.At, "", "Template format error: [/Resources/%s] Every Resources object must contain a Type member.", p.Key)
		return
	}
	res.Type, res.TypeAt = t.Text, t.Pos
	if v := n.Get("Properties"); v != nil && v.Kind != Null {
		if v.Kind != Map {
			r.problem(v.Pos, "", "Template format error: [/Resources/%s/Properties] must be a map, not %s", p.Key, v.Kind)
		} else {
			res.Properties = v
		}
	}
	if v := n.Get("DependsOn"); v != nil {
		res.DependsOn = []*Node{v}
		if v.Kind == List {
			res.DependsOn = v.Items
		}
		for _, d := range res.DependsOn {
			if d.Kind != String {
				r.problem(d.Pos, "", "Template format error: DependsOn must be a string or list of strings.")
			}
		}
	}
	res.Condition = r.conditionName(n)
	res.DeletionPolicy = r.word(n, "DeletionPolicy", "Delete", "Retain", "Snapshot", "RetainExceptOnCreate")
	res.UpdateReplacePolicy = r.word(n, "UpdateReplacePolicy", "Delete", "Retain", "Snapshot")
	if res.DeletionPolicy == "Snapshot" || res.UpdateReplacePolicy == "Snapshot" {
		r.problem(p.At, "", "Template error: resource type %s does not support deletion policy Snapshot", res.Type)
	}
	res.CreationPolicy, res.UpdatePolicy, res.Metadata = n.Get("CreationPolicy"), n.Get("UpdatePolicy"), n.Get("Metadata")
	r.t.Resources = append(r.t.Resources, res)
}

func (r *reader) conditionName(n *Node) *Node {
	c := n.Get("Condition")
	if c != nil && c.Kind != String {
		r.problem(c.Pos, "", "Template format error: a Condition must be the name of a condition, not %s", c.Kind)
		return nil
	}
	return c
}

func (r *reader) word(n *Node, key string, words ...string) string {
	v := n.Get(key)
	if v == nil {
		return ""
	}
	if v.Kind != String || !slices.Contains(words, v.Text) {
		r.problem(v.Pos, "one of "+strings.Join(words, ", "), "Template format error: Unrecognized %s %s", key, v.Text)
		return ""
	}
	return v.Text
}

func (r *reader) output(p Pair) {
	n := p.Value
	if n.Kind != Map {
		r.problem(p.At, "", "Template format error: Output %s must be a map, not %s", p.Key, n.Kind)
		return
	}
	r.known(n, "output "+p.Key, outputKeys)
	o := &Output{Name: p.Key, At: p.At, Value: n.Get("Value"), Condition: r.conditionName(n)}
	if o.Value == nil {
		r.problem(p.At, "", "Template format error: Output %s is malformed. Every Outputs member must contain a Value object", p.Key)
		return
	}
	if d := n.Get("Description"); d != nil {
		o.Description = d.Text
	}
	if e := n.Get("Export"); e != nil {
		if o.Export = e.Get("Name"); o.Export == nil || len(e.Pairs) != 1 {
			r.problem(e.Pos, "", "Template format error: Output %s is malformed. Export must have the one member Name", p.Key)
		}
	}
	r.t.Outputs = append(r.t.Outputs, o)
}

// Resource returns the resource of that logical name, nil where there is none.
func (t *Template) Resource(name string) *Resource {
	for _, r := range t.Resources {
		if r.Name == name {
			return r
		}
	}
	return nil
}

// Parameter returns the parameter of that name, nil where there is none.
func (t *Template) Parameter(name string) *Parameter {
	for _, p := range t.Parameters {
		if p.Name == name {
			return p
		}
	}
	return nil
}

func (t *Template) problem(at Pos, hint, format string, args ...any) Problem {
	return Problem{File: t.File, Line: at.Line, Column: at.Column, Hint: hint, Message: fmt.Sprintf(format, args...)}
}

func pairOf(pairs []Pair, key string) *Pair {
	for i := range pairs {
		if pairs[i].Key == key {
			return &pairs[i]
		}
	}
	return nil
}

func keysOf(pairs []Pair) []string {
	out := make([]string, len(pairs))
	for i, p := range pairs {
		out[i] = p.Key
	}
	return out
}
