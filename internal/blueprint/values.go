package blueprint

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/template"
)

// use is one way in which the templates are launched.
type use struct {
	what       string // an environment or a suite
	where      string // its parameters in dayfly.yaml
	parameters map[string]string
	foundation bool // they reach the foundation as well
}

// uses are the environments, and the suites that have environments of their
// own on a shared foundation.
func (c *checker) uses() []use {
	var out []use
	for _, name := range slices.Sorted(maps.Keys(c.b.Environments)) {
		out = append(out, use{"the environment " + name, "environments." + name + ".parameters", c.b.Environments[name].Parameters, true})
	}
	for i, s := range c.b.Pipeline {
		for j, u := range s.Suites {
			out = append(out, use{"the suite " + u.Name, fmt.Sprintf("pipeline[%d].suites[%d].parameters", i, j), u.Parameters, false})
		}
	}
	return out
}

// passed is a value that Dayfly passes to the fleet's template.
type passed struct{ key, name, typ string }

func (n ParameterNames) all() []passed {
	return []passed{
		{"image", n.Image, `"AWS::EC2::Image::Id"`}, {"release_url", n.ReleaseURL, "String"}, {"release_mirror", n.ReleaseMirror, "String"},
		{"release_digest", n.ReleaseDigest, "String"}, {"size", n.Size, "Number"}, {"max_size", n.MaxSize, "Number"},
		{"environment", n.Environment, "String"}, {"generation", n.Generation, "String"}, {"bucket", n.Bucket, "String"},
	}
}

// parameters looks whether the templates take what they are given, and whether
// somebody gives a value for everything that they ask for.
func (c *checker) parameters(t, foundation *template.Template) {
	given := []string{}
	for _, p := range c.b.Parameters.all() {
		given = append(given, p.name)
		_, renamed := c.r.at["parameters."+p.key]
		hint := p.name + ": { Type: " + p.typ + " }"
		switch needed := p.key == "image" || p.key == "release_digest" || p.key == "size"; {
		case t.Parameter(p.name) != nil:
			if needed && !refersTo(t.Root.Get("Resources"), p.name) {
				c.add(t, t.Parameter(p.name).At, false, "!Ref "+p.name, "nothing in the template uses the parameter %s, in which Dayfly passes %s", p.name, p.key)
			}
		case renamed && (p.key != "environment" || foundation == nil || foundation.Parameter(p.name) == nil):
			c.r.problem(c.r.at["parameters."+p.key], near(p.name, t), "parameters.%s: %s has no parameter %s", p.key, t.File, p.name)
		case needed:
			c.add(t, section(t, "Parameters"), false, "add to Parameters:\n  "+hint+"\nor name yours in dayfly.yaml:\n  parameters: { "+p.key+": NAME }", "the template has no parameter %s, in which Dayfly passes its value", p.name)
		}
	}
	base := []string{c.b.Parameters.Environment}
	if foundation != nil {
		for _, o := range foundation.Outputs {
			given = append(given, o.Name)
		}
		c.missing(foundation, base)
	}
	c.missing(t, given)
	c.unknown(t, foundation)
}

// missing reports the parameters that get no value in one of the uses.
func (c *checker) missing(t *template.Template, given []string) {
	foundation := t.File == c.b.Foundation
	for _, p := range t.Parameters {
		if p.Default != nil || slices.Contains(given, p.Name) {
			continue
		}
		for _, u := range c.uses() {
			if foundation && !u.foundation {
				u.what, u.where, u.parameters = u.what+", which stands on a foundation that is shared", "", nil
			}
			if _, ok := u.parameters[p.Name]; ok {
				continue
			}
			hint := "give it a Default"
			if u.where != "" {
				hint += ", or a value in " + u.where
			}
			if n := template.Nearest(p.Name, given); n != "" {
				hint = "did you mean " + n + "?"
			}
			whence := "and no parameter of dayfly.yaml has this name"
			if !foundation {
				whence = "no output of the foundation " + whence
			}
			c.add(t, p.At, false, hint, "nobody gives the parameter %s a value in %s: it has no Default, %s", p.Name, u.what, whence)
			break
		}
	}
}

// unknown reports values in dayfly.yaml that no template asks for.
func (c *checker) unknown(t, foundation *template.Template) {
	for _, u := range c.uses() {
		for _, name := range slices.Sorted(maps.Keys(u.parameters)) {
			if t.Parameter(name) != nil || foundation != nil && u.foundation && foundation.Parameter(name) != nil {
				continue
			}
			before := len(c.r.problems)
			c.r.problem(c.r.at[u.where+"."+name], near(name, t, foundation), "%s.%s: no template has this parameter, so it does nothing", u.where, name)
			c.r.problems[before].Warning = true
		}
	}
}

// near suggests a parameter.
func near(name string, ts ...*template.Template) string {
	var words []string
	for _, t := range ts {
		if t != nil {
			for _, p := range t.Parameters {
				words = append(words, p.Name)
			}
		}
	}
	if n := template.Nearest(name, words); n != "" {
		return "did you mean " + n + "?"
	}
	return ""
}

// refersTo tells whether n refers to a parameter or resource.
func refersTo(n *template.Node, name string) bool {
	if n == nil {
		return false
	}
	if f, arg, ok := n.Function(); ok {
		switch {
		case f == "Ref" && arg.Text == name:
			return true
		case f == "Fn::GetAtt" && (strings.HasPrefix(arg.Text, name+".") || len(arg.Items) > 0 && arg.Items[0].Text == name):
			return true
		case f == "Fn::Sub":
			form := arg
			if len(arg.Items) > 0 {
				form = arg.Items[0]
			}
			if strings.Contains(form.Text, "${"+name+"}") || strings.Contains(form.Text, "${"+name+".") {
				return true
			}
		}
	}
	for _, x := range n.Items {
		if refersTo(x, name) {
			return true
		}
	}
	for _, p := range n.Pairs {
		if refersTo(p.Value, name) {
			return true
		}
	}
	return false
}
