package cfn

import (
	"context"
	"fmt"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/region/cfn/provider"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/template"
	"github.com/dayfly-infra/dayfly/internal/template/schema"
)

// change is what an update does to one resource.
type change struct {
	Logical, Type, Physical string
	Action                  string // Add, Modify, Remove
	Replacement             string // True, False, Conditional; of a Modify
	Details                 []detail
}

// detail is one property that changes.
type detail struct {
	Property string // "" for tags of the stack
	Recreate string // Never, Conditionally, Always
	Dynamic  bool   // whether it does is known when it is done
	Cause    string // the parameter or resource that it comes from
}

// order sorts resources so that each stands behind what it needs.
func order(t *template.Template, needs map[string][]string) []string {
	var out []string
	var visit func(string)
	visit = func(n string) {
		if slices.Contains(out, n) {
			return
		}
		for _, b := range needs[n] {
			visit(b)
		}
		out = append(out, n)
	}
	for _, r := range t.Resources {
		if _, live := needs[r.Name]; live {
			visit(r.Name)
		}
	}
	return out
}

// plan compares a stack with what it is to be. What cannot be done is an error
// that names property, line and column; nothing is changed by asking.
func (s *Service) plan(ctx context.Context, st stack, rev revision, t *template.Template) ([]change, error) {
	ctx = s.internal(ctx)
	have := map[string]resource{}
	s.c.DB.View(func(tx *state.Tx) {
		for _, r := range s.resourcesOf(tx, st.ID) {
			if r.Status != deleteComplete && r.Status != deleteSkipped && r.ID != "" {
				have[r.Logical] = r
			}
		}
	})
	needs, _, err := s.dependencies(s.blank(st, rev, t))
	if err != nil {
		return nil, asInvalid(err)
	}
	replaced, modified := map[string]bool{}, map[string]bool{}
	sc := s.blank(st, rev, t)
	sc.Ref = func(name string) (any, bool, error) {
		r, ok := have[name]
		if !ok || replaced[name] {
			return nil, false, nil
		}
		return s.ref(st, r)
	}
	sc.GetAtt = func(name, attr string) (any, bool, error) {
		r, ok := have[name]
		if !ok || replaced[name] {
			return nil, false, nil
		}
		if p, ok := s.lookup(r.Type); ok && modified[name] && slices.Contains(p.Volatile, attr) {
			return nil, false, nil
		}
		return s.attribute(ctx, st, r, attr)
	}
	var changes []change
	var problems []template.Problem
	for _, name := range order(t, needs) {
		def := t.Resource(name)
		r, ok := have[name]
		if !ok {
			changes = append(changes, change{Logical: name, Type: def.Type, Action: "Add"})
			continue
		}
		p := &planner{s: s, t: t, def: def, have: r, rev: rev}
		c, ps, err := p.compare(sc)
		if err != nil {
			return nil, asInvalid(err)
		}
		problems = append(problems, ps...)
		if c != nil {
			changes = append(changes, *c)
			modified[name], replaced[name] = true, c.Replacement == "True"
		}
	}
	if len(problems) > 0 {
		return nil, invalid("%s", say(problems))
	}
	for _, name := range slices.Sorted(keysOf(have)) {
		if _, live := needs[name]; !live {
			changes = append(changes, change{Logical: name, Type: have[name].Type, Physical: have[name].ID, Action: "Remove"})
		}
	}
	return changes, nil
}

func keysOf[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// planner compares one resource.
type planner struct {
	s    *Service
	t    *template.Template
	def  *template.Resource
	have resource
	rev  revision
}

func (p *planner) compare(sc *template.Scope) (*change, []template.Problem, error) {
	n := p.def.Properties
	if n == nil {
		n = &template.Node{Kind: template.Map, Pos: p.def.At}
	}
	n, err := sc.Eval(n)
	if err != nil {
		return nil, nil, err
	}
	n, problems := p.t.Properties(p.def, n)
	if len(problems) > 0 {
		return nil, problems, nil
	}
	c := &change{Logical: p.def.Name, Type: p.def.Type, Physical: p.have.ID, Action: "Modify", Replacement: "False"}
	if p.def.Type != p.have.Type {
		c.Replacement = "True"
		c.Details = []detail{{Property: "Type", Recreate: "Always"}}
		return c, nil, nil
	}
	want, _ := n.Value().(map[string]any)
	for _, name := range differing(want, p.have.Properties) {
		d := detail{Property: name, Recreate: "Never", Dynamic: hasUnknown(n.Get(name)), Cause: p.cause(name)}
		at := p.def.At
		if pair := p.def.Properties.Pair(name); pair != nil {
			at = pair.At
		}
		how, problem := p.effect(name)
		switch {
		case problem != "":
			problems = append(problems, template.Problem{Line: at.Line, Column: at.Column, Local: true, Message: problem})
			continue
		case how == schema.Always && d.Dynamic:
			d.Recreate = "Always"
			if c.Replacement == "False" {
				c.Replacement = "Conditional"
			}
		case how == schema.Always:
			d.Recreate, c.Replacement = "Always", "True"
		}
		c.Details = append(c.Details, d)
	}
	if c.Replacement == "True" {
		if named := p.customName(want); named != "" {
			problems = append(problems, template.Problem{Line: p.def.At.Line, Column: p.def.At.Column,
				Message: fmt.Sprintf("CloudFormation cannot update a stack when a custom-named resource requires replacing. Rename %s and update the stack again.", named)})
		}
	}
	if !equal(p.rev.tagMap(), userTags(p.have.Tags)) {
		c.Details = append(c.Details, detail{Recreate: "Never"})
	}
	if len(c.Details) == 0 || len(problems) > 0 {
		return nil, problems, nil
	}
	return c, nil, nil
}

// effect is what a change of a property does, or why it cannot be done.
func (p *planner) effect(name string) (schema.Replacement, string) {
	d, _ := schema.Lookup(p.def.Type)
	pr, ok := p.s.lookup(p.def.Type)
	if !ok {
		return "", "the local region does not have the resource type " + p.def.Type
	}
	if p.def.UpdatePolicy != nil {
		for _, x := range p.def.UpdatePolicy.Pairs {
			if x.Key == "AutoScalingRollingUpdate" || x.Key == "AutoScalingReplacingUpdate" {
				return "", fmt.Sprintf("the local region does not do the %s of %s: launch a new stack and switch instead", x.Key, p.def.Name)
			}
		}
	}
	if d.Properties[name].Replacement == schema.Always {
		return schema.Always, ""
	}
	if !slices.Contains(pr.Mutable, name) {
		return "", fmt.Sprintf("the local region cannot change the property %s of the %s %s in place", name, p.def.Type, p.def.Name)
	}
	return schema.Never, ""
}

// customName is the user's name of the resource, if it stays the same.
func (p *planner) customName(want map[string]any) string {
	pr, ok := p.s.lookup(p.def.Type)
	if !ok || pr.Named == "" {
		return ""
	}
	name, _ := want[pr.Named].(string)
	if name != "" && equal(name, p.have.Properties[pr.Named]) {
		return name
	}
	return ""
}

// cause is the parameter or resource that a property comes from.
func (p *planner) cause(name string) string {
	found := ""
	if n := p.def.Properties.Get(name); n != nil {
		if f, arg, ok := n.Function(); ok && (f == "Ref" || f == "Fn::GetAtt") && arg.Kind == template.String {
			found = arg.Text
		}
	}
	return found
}

func hasUnknown(n *template.Node) bool {
	if n == nil {
		return false
	}
	if n.Kind == template.Unknown || slices.ContainsFunc(n.Items, hasUnknown) {
		return true
	}
	return slices.ContainsFunc(n.Pairs, func(p template.Pair) bool { return hasUnknown(p.Value) })
}

// userTags are a stack's own tags among a resource's.
func userTags(m map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		if k != provider.TagStackID && k != provider.TagStackName && k != provider.TagLogicalID {
			out[k] = v
		}
	}
	return out
}
