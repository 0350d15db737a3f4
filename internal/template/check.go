package template

import (
	"regexp"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/template/schema"
)

var pseudoParameters = []string{"AWS::AccountId", "AWS::NotificationARNs", "AWS::NoValue", "AWS::Partition", "AWS::Region", "AWS::StackId", "AWS::StackName", "AWS::URLSuffix"}

var subVariable = regexp.MustCompile(`^[A-Za-z0-9_:.]+$`)

// Check looks at everything that can be known without parameter values:
// references, functions, types and properties, circles. What AWS takes and the
// local region alone does not is marked Local.
func Check(t *Template) []Problem {
	c := &checker{t: t}
	for _, x := range t.Conditions {
		c.condition(x.Value)
	}
	c.conditionCircles()
	g := newGraph(t)
	for _, r := range t.Resources {
		c.from, c.graph = r.Name, g
		c.resource(r)
	}
	c.from, c.graph = "", nil
	for _, o := range t.Outputs {
		c.named(o.Condition)
		for _, n := range []*Node{o.Value, o.Export} {
			if n != nil {
				c.walk(n, false)
			}
		}
	}
	if cycle := g.cycle(); cycle != nil {
		c.problems = append(c.problems, t.circle(cycle))
	}
	slices.SortStableFunc(c.problems, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return slices.CompactFunc(c.problems, func(a, b Problem) bool { return a == b })
}

type checker struct {
	t        *Template
	problems []Problem
	from     string // the resource under check
	graph    *graph
}

func (c *checker) add(at Pos, hint, format string, args ...any) {
	c.problems = append(c.problems, c.t.problem(at, hint, format, args...))
}

func (c *checker) local(at Pos, hint, format string, args ...any) {
	c.add(at, hint, format, args...)
	c.problems[len(c.problems)-1].Local = true
}

func (c *checker) resource(r *Resource) {
	c.named(r.Condition)
	for _, d := range r.DependsOn {
		if d.Kind != String {
			continue
		}
		if c.t.Resource(d.Text) == nil {
			c.problems = append(c.problems, c.t.unresolved(d.Pos, d.Text))
			continue
		}
		c.graph.add(r.Name, d.Text, d.Pos)
	}
	if r.Properties != nil {
		c.walk(r.Properties, false)
	}
	for _, n := range []*Node{r.CreationPolicy, r.UpdatePolicy} {
		if n != nil {
			c.walk(n, false)
		}
	}
	c.policies(r)
	p := c.t.resourceType(r)
	if p != nil {
		c.problems = append(c.problems, *p)
		return
	}
	_, problems := c.t.Properties(r, r.Properties)
	c.problems = append(c.problems, problems...)
}

// resourceType tells what is wrong with a resource's type.
func (t *Template) resourceType(r *Resource) *Problem {
	if _, ok := schema.Lookup(r.Type); ok {
		return nil
	}
	var p Problem
	switch {
	case strings.HasPrefix(r.Type, "Custom::") || r.Type == "AWS::CloudFormation::CustomResource":
		p = t.problem(r.TypeAt, "", "the local region does not run custom resources (%s)", r.Type)
		p.Local = true
	case schema.Exists(r.Type):
		p = t.problem(r.TypeAt, didHave(r.Type), "the local region does not have the resource type %s", r.Type)
		p.Local = true
	default:
		p = t.problem(r.TypeAt, didYouMean(r.Type, schema.Names()), "Template format error: Unrecognized resource types: [%s]", r.Type)
	}
	return &p
}

// didHave names what takes an older type's place.
func didHave(typ string) string {
	switch {
	case strings.HasPrefix(typ, "AWS::ElasticLoadBalancing::"):
		return "use AWS::ElasticLoadBalancingV2::LoadBalancer"
	case typ == "AWS::AutoScaling::LaunchConfiguration":
		return "use AWS::EC2::LaunchTemplate"
	}
	return ""
}

func (c *checker) policies(r *Resource) {
	group, instance := r.Type == "AWS::AutoScaling::AutoScalingGroup", r.Type == "AWS::EC2::Instance"
	if n := r.CreationPolicy; n != nil {
		if n.Kind != Map || !group && !instance {
			c.local(n.Pos, "", "the local region has CreationPolicy for AWS::AutoScaling::AutoScalingGroup and AWS::EC2::Instance only")
		}
		for _, p := range n.Pairs {
			if p.Key != "ResourceSignal" && p.Key != "AutoScalingCreationPolicy" {
				c.local(p.At, didYouMean(p.Key, []string{"ResourceSignal", "AutoScalingCreationPolicy"}), "the local region does not know the creation policy %s", p.Key)
			}
		}
		if _, err := ParseCreationPolicy(n); err != nil {
			c.add(n.Pos, "", "%v", err)
		}
	}
}

// named checks the name of a condition.
func (c *checker) named(n *Node) {
	if n != nil && pairOf(c.t.Conditions, n.Text) == nil {
		c.add(n.Pos, didYouMean(n.Text, keysOf(c.t.Conditions)), "Template format error: Unresolved condition dependency %s", n.Text)
	}
}

func (c *checker) condition(n *Node) {
	if n.Kind == Map && len(n.Pairs) == 1 {
		arg := n.Pairs[0].Value
		switch name := n.Pairs[0].Key; name {
		case "Condition":
			if arg.Kind == String {
				c.named(arg)
				return
			}
		case "Fn::Equals":
			if arg.Kind != List || len(arg.Items) != 2 {
				c.add(n.Pos, "", "Template error: every Fn::Equals object requires a list of 2 string parameters")
				return
			}
			for _, x := range arg.Items {
				c.conditionValue(x)
			}
			return
		case "Fn::Not", "Fn::And", "Fn::Or":
			if p := c.t.logicArity(n.Pos, name, arg); p != nil {
				c.problems = append(c.problems, *p)
				return
			}
			for _, x := range arg.Items {
				c.condition(x)
			}
			return
		}
	}
	c.add(n.Pos, "", "Template format error: Every Conditions member must be one of Fn::Equals, Fn::And, Fn::Or, Fn::Not or Condition")
}

// conditionValue checks what a condition compares: it cannot see resources.
func (c *checker) conditionValue(n *Node) {
	before := len(c.problems)
	c.walk(n, false)
	if len(c.problems) > before {
		return
	}
	c.t.references(n, func(at Pos, name string) {
		if c.t.Resource(name) != nil {
			c.add(at, "conditions can use parameters, mappings and pseudo parameters", "Template error: conditions cannot refer to resources, such as %s", name)
		}
	})
}

func (c *checker) conditionCircles() {
	g := &graph{edges: map[string][]edge{}}
	for _, x := range c.t.Conditions {
		g.order = append(g.order, x.Key)
	}
	for _, x := range c.t.Conditions {
		eachNode(x.Value, func(n *Node) {
			if p := n.Pair("Condition"); p != nil && len(n.Pairs) == 1 && p.Value.Kind == String {
				g.add(x.Key, p.Value.Text, p.Value.Pos)
			}
			if name, arg, ok := n.Function(); ok && name == "Fn::If" && len(arg.Items) > 0 {
				g.add(x.Key, arg.Items[0].Text, arg.Items[0].Pos)
			}
		})
	}
	if e := g.cycle(); e != nil {
		c.add(e[0].at, "", "Template format error: Circular dependencies for conditions: %s", path(e))
	}
}

// walk checks all functions in n. guarded: it is in a branch of Fn::If, so
// whether its references count depends on parameters.
func (c *checker) walk(n *Node, guarded bool) {
	name, arg, ok := n.Function()
	if !ok {
		for _, x := range n.Items {
			c.walk(x, guarded)
		}
		for _, p := range n.Pairs {
			c.walk(p.Value, guarded)
		}
		return
	}
	f, known := functions[name]
	switch {
	case name == "Ref":
		if arg.Kind != String {
			c.add(n.Pos, "", "Template error: every Ref object must have a single String value.")
			return
		}
		c.ref(n.Pos, arg.Text, guarded)
		return
	case !known && !strings.HasPrefix(name, "Fn::ForEach"):
		c.add(n.Pos, didYouMean(name, sortedKeys(functions)), "Template error: %s is not a function", name)
		return
	case !f.here:
		c.local(n.Pos, "", "the local region does not run %s", name)
		return
	}
	switch name {
	case "Fn::GetAtt":
		c.getAtt(n.Pos, arg, guarded)
		return
	case "Fn::Sub":
		c.sub(n.Pos, arg, guarded)
		return
	case "Fn::If":
		if arg.Kind != List || len(arg.Items) != 3 || arg.Items[0].Kind != String {
			c.add(n.Pos, "", "Template error: Fn::If requires a list argument with three elements: the name of a condition and two values")
			return
		}
		c.named(arg.Items[0])
		c.walk(arg.Items[1], true)
		c.walk(arg.Items[2], true)
		return
	case "Fn::And", "Fn::Or", "Fn::Not", "Fn::Equals":
		c.add(n.Pos, "", "Template error: %s can stand in Conditions only", name)
		return
	}
	c.walk(arg, guarded)
	c.arity(n.Pos, name, arg)
}

// arity runs a function on unknown values: only its usage can then be wrong.
func (c *checker) arity(at Pos, name string, arg *Node) {
	if arg.Kind != List {
		if name == "Fn::Join" || name == "Fn::Split" || name == "Fn::Select" || name == "Fn::FindInMap" || name == "Fn::Cidr" {
			if _, _, fn := arg.Function(); !fn {
				if _, err := functions[name].run(&Scope{Template: c.t}, at, arg); err != nil {
					c.problems = append(c.problems, err.(Problem))
				}
			}
		}
		return
	}
	shape := &Node{Pos: arg.Pos, Kind: List}
	for _, x := range arg.Items {
		if _, _, fn := x.Function(); fn {
			x = unknown(x.Pos)
		} else if x.Kind == List {
			l := &Node{Pos: x.Pos, Kind: List}
			for _, y := range x.Items {
				if _, _, fn := y.Function(); fn {
					y = unknown(y.Pos)
				}
				l.Items = append(l.Items, y)
			}
			x = l
		}
		shape.Items = append(shape.Items, x)
	}
	if f := functions[name]; f.run != nil && name != "Fn::GetAZs" && name != "Fn::ImportValue" {
		if _, err := f.run(&Scope{Template: c.t}, at, shape); err != nil {
			c.problems = append(c.problems, err.(Problem))
		}
	}
}

func (c *checker) ref(at Pos, name string, guarded bool) {
	if slices.Contains(pseudoParameters, name) || c.t.Parameter(name) != nil {
		return
	}
	if c.t.Resource(name) == nil {
		c.problems = append(c.problems, c.t.unresolved(at, name))
		return
	}
	if c.graph != nil && !guarded {
		c.graph.add(c.from, name, at)
	}
}

func (c *checker) getAtt(at Pos, arg *Node, guarded bool) {
	var name, attr string
	fixed := true
	if arg.Kind == String {
		name, attr, _ = strings.Cut(arg.Text, ".")
	} else if arg.Kind == List && len(arg.Items) == 2 && arg.Items[0].Kind == String {
		name, attr = arg.Items[0].Text, arg.Items[1].Text
		if _, _, ok := arg.Items[1].Function(); ok {
			fixed = false
			c.walk(arg.Items[1], guarded)
		}
	}
	if name == "" || attr == "" && fixed {
		c.add(at, "", "Template error: every Fn::GetAtt object requires two non-empty parameters, the resource name and the resource attribute")
		return
	}
	if c.t.Resource(name) == nil || fixed {
		if p := c.t.checkAttribute(at, name, attr); p != nil {
			c.problems = append(c.problems, *p)
			return
		}
	}
	if c.graph != nil && !guarded {
		c.graph.add(c.from, name, at)
	}
}

func (c *checker) sub(at Pos, arg *Node, guarded bool) {
	form, vars, ok := subParts(arg)
	if !ok {
		c.add(at, "", "Template error: One or more Fn::Sub intrinsic functions don't specify expected arguments. Specify a string as first argument, and an optional second argument to specify a mapping of values to replace in the string")
		return
	}
	if vars != nil {
		c.walk(vars, guarded)
	}
	for _, p := range splitSub(form.Text) {
		switch {
		case !p.variable || vars.Get(p.text) != nil:
		case !subVariable.MatchString(p.text):
			c.add(at, "write ${!"+p.text+"} for the text itself", "Template error: variable names in Fn::Sub syntax must contain only alphanumeric characters, underscores, periods, and colons: ${%s}", p.text)
		case strings.Contains(p.text, ".") && !strings.HasPrefix(p.text, "AWS::"):
			c.getAtt(at, text(at, p.text), guarded)
		default:
			c.ref(at, p.text, guarded)
		}
	}
}
