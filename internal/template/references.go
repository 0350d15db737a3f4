package template

import (
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/template/schema"
)

func eachNode(n *Node, f func(*Node)) {
	f(n)
	for _, x := range n.Items {
		eachNode(x, f)
	}
	for _, p := range n.Pairs {
		eachNode(p.Value, f)
	}
}

// references calls f with every name that n refers to by Ref, GetAtt or Sub.
func (t *Template) references(n *Node, f func(at Pos, name string)) {
	eachNode(n, func(n *Node) {
		name, arg, ok := n.Function()
		if !ok {
			return
		}
		switch name {
		case "Ref":
			f(n.Pos, arg.Text)
		case "Fn::GetAtt":
			if arg.Kind == List && len(arg.Items) > 0 {
				arg = arg.Items[0]
			}
			resource, _, _ := strings.Cut(arg.Text, ".")
			f(n.Pos, resource)
		case "Fn::Sub":
			form, vars, ok := subParts(arg)
			if !ok {
				return
			}
			for _, p := range splitSub(form.Text) {
				if p.variable && vars.Get(p.text) == nil {
					resource := p.text
					if !strings.HasPrefix(resource, "AWS::") {
						resource, _, _ = strings.Cut(resource, ".")
					}
					f(n.Pos, resource)
				}
			}
		}
	})
}

// unresolved is the error for a name that is neither parameter nor resource.
func (t *Template) unresolved(at Pos, name string) Problem {
	words := slices.Clone(pseudoParameters)
	for _, p := range t.Parameters {
		words = append(words, p.Name)
	}
	for _, r := range t.Resources {
		words = append(words, r.Name)
	}
	return t.problem(at, didYouMean(name, words), "Template format error: Unresolved resource dependencies [%s] in the Resources block of the template", name)
}

// checkAttribute tells what is wrong with a GetAtt.
func (t *Template) checkAttribute(at Pos, name, attr string) *Problem {
	r := t.Resource(name)
	if r == nil {
		var words []string
		for _, r := range t.Resources {
			words = append(words, r.Name)
		}
		return new(t.problem(at, didYouMean(name, words), "Template error: instance of Fn::GetAtt references undefined resource %s", name))
	}
	d, ok := schema.Lookup(r.Type)
	if !ok {
		return nil // the type itself is the problem
	}
	if _, ok := d.Attributes[attr]; ok {
		return nil
	}
	return new(t.problem(at, didYouMean(attr, sortedKeys(d.Attributes)), "Template error: resource %s does not support attribute type %s in Fn::GetAtt", name, attr))
}
