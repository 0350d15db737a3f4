package blueprint

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/dayfly-infra/dayfly/internal/template"
)

// Types of resources that Dayfly itself looks at.
const (
	groupType    = "AWS::AutoScaling::AutoScalingGroup"
	hookType     = "AWS::AutoScaling::LifecycleHook"
	launchType   = "AWS::EC2::LaunchTemplate"
	instanceType = "AWS::EC2::Instance"
	balancerType = "AWS::ElasticLoadBalancingV2::LoadBalancer"
	listenerType = "AWS::ElasticLoadBalancingV2::Listener"
	targetsType  = "AWS::ElasticLoadBalancingV2::TargetGroup"
)

// Check is Load and a look at the templates: what CloudFormation would refuse,
// and what a fleet lacks to be launched by Dayfly, with the lines to add.
func Check(fsys fs.FS) []Problem {
	r := &reader{file: File, at: map[string]ast.Node{}}
	b, err := r.load(fsys)
	if err != nil {
		return append(r.problems, Problem{File: File, Message: err.Error()})
	}
	if b == nil {
		return r.problems
	}
	c := &checker{r: r, b: b, source: map[string][]string{}}
	foundation, fine := c.read(fsys, b.Foundation)
	fleet, fineToo := c.read(fsys, b.Fleet)
	if fleet != nil {
		c.fleet(fleet, foundation)
	}
	if foundation != nil {
		c.foundation(foundation)
	}
	// Of templates that are broken, nothing is said about what they lack.
	if fine && fineToo {
		c.parameters(fleet, foundation)
	}
	return append(r.problems, c.problems...)
}

type checker struct {
	r        *reader // of dayfly.yaml, for its positions
	b        *Blueprint
	source   map[string][]string // lines of the templates
	problems []Problem
}

// add notes a problem of a template at a position; the zero position is the
// whole file.
func (c *checker) add(t *template.Template, at template.Pos, warning bool, hint, format string, args ...any) {
	c.problems = append(c.problems, Problem{File: t.File, Line: at.Line, Column: at.Column, Message: fmt.Sprintf(format, args...), Hint: hint, Warning: warning})
}

// read parses and checks a template; nil where there is nothing to look at.
func (c *checker) read(fsys fs.FS, name string) (t *template.Template, fine bool) {
	if name == "" {
		return nil, true
	}
	name = path.Clean(name)
	src, err := fs.ReadFile(fsys, name)
	if err != nil {
		c.problems = append(c.problems, Problem{File: name, Message: err.Error()})
		return nil, false
	}
	c.source[name] = strings.Split(string(src), "\n")
	t, ps := template.Parse(name, src)
	if t != nil && len(ps) == 0 {
		ps = template.Check(t)
	}
	fine = t != nil
	for _, p := range ps {
		// What only the local region lacks is no fault of the template.
		c.problems = append(c.problems, Problem{File: p.File, Line: p.Line, Column: p.Column, Message: p.Message, Hint: p.Hint, Warning: p.Local})
		fine = fine && p.Local
	}
	return t, fine
}

func of(t *template.Template, typ string) []*template.Resource {
	var out []*template.Resource
	for _, r := range t.Resources {
		if r.Type == typ {
			out = append(out, r)
		}
	}
	return out
}

// section is where something is to be added: a template's Resources, Outputs
// or Parameters.
func section(t *template.Template, name string) template.Pos {
	if p := t.Root.Pair(name); p != nil {
		return p.At
	}
	return template.Pos{}
}

func hasOutput(t *template.Template, name string) bool {
	return slices.ContainsFunc(t.Outputs, func(o *template.Output) bool { return o.Name == name })
}

const hookLines = `add to the group's Properties:
  LifecycleHookSpecificationList:
    - LifecycleHookName: launch
      LifecycleTransition: autoscaling:EC2_INSTANCE_LAUNCHING
      DefaultResult: ABANDON
      HeartbeatTimeout: 900`

const targetLines = `add to Resources, and TargetGroupARNs: [!Ref Targets] to the group:
  Targets:
    Type: AWS::ElasticLoadBalancingV2::TargetGroup
    Properties:
      VpcId: !Ref Vpc
      Protocol: HTTP
      Port: 8080
      TargetType: instance
      HealthCheckPath: /healthz`

// fleet looks for what a launch needs beside valid CloudFormation.
func (c *checker) fleet(t, foundation *template.Template) {
	groups := of(t, groupType)
	if len(groups) == 0 {
		c.add(t, section(t, "Resources"), false, "a fleet is an "+groupType, "the template makes no Auto Scaling group")
	}
	for _, h := range of(t, hookType) {
		c.add(t, h.TypeAt, true, "put it into the group's own LifecycleHookSpecificationList", "a hook that is a resource of its own misses the group's first instances")
	}
	for _, g := range groups {
		c.group(t, g)
	}
	for _, l := range of(t, launchType) {
		c.launch(t, l)
	}
	if foundation != nil {
		c.targets(t, groups)
		return
	}
	// One template holds everything: each generation has its own address.
	if !hasOutput(t, "Address") {
		c.add(t, section(t, "Outputs"), true, addressLines, "without a foundation the fleet's template is the whole stack, and it has no output Address, by which people and suites reach what serves")
	}
}

const addressLines = `Outputs: { Address: { Value: !Sub "http://${Balancer.DNSName}" } }`

func (c *checker) group(t *template.Template, g *template.Resource) {
	if !c.hook(t, g) {
		c.add(t, g.TypeAt, false, hookLines, "the group %s has no launch hook: its instances would be in service before their hand-off", g.Name)
	}
	if h := g.Properties.Get("HealthCheckType"); h != nil && strings.Contains(h.Text, "ELB") {
		c.add(t, h.Pos, true, "HealthCheckType: EC2", "load balancer health checks alone can empty a fleet when they are wrong")
	}
	if launchOf(g) == nil {
		c.add(t, g.TypeAt, false, "LaunchTemplate: { LaunchTemplateId: !Ref Launch, Version: !GetAtt Launch.LatestVersionNumber }", "the group %s has no launch template", g.Name)
	}
}

// launchOf is what a group says of its launch template.
func launchOf(g *template.Resource) *template.Node {
	if l := g.Properties.Get("LaunchTemplate"); l != nil {
		return l
	}
	return g.Properties.Get("MixedInstancesPolicy").Get("LaunchTemplate").Get("LaunchTemplateSpecification")
}

// hook looks at a group's launch hooks and tells whether there is one.
func (c *checker) hook(t *template.Template, g *template.Resource) bool {
	hooks := g.Properties.Get("LifecycleHookSpecificationList")
	if hooks == nil {
		return false
	}
	if _, _, computed := hooks.Function(); computed {
		return true // it cannot be judged before it is launched
	}
	found := false
	for _, h := range hooks.Items {
		if tr := h.Get("LifecycleTransition"); tr == nil || tr.Text != "autoscaling:EC2_INSTANCE_LAUNCHING" {
			continue
		}
		found = true
		at := h.Pos
		if p := h.Pair("DefaultResult"); p == nil || p.Value.Text != "ABANDON" {
			if p != nil {
				at = p.Value.Pos
			}
			c.add(t, at, false, "DefaultResult: ABANDON", "an instance whose hand-off says nothing must not come into service")
		}
		if b := h.Get("HeartbeatTimeout"); b != nil {
			var seconds int
			if _, err := fmt.Sscan(b.Text, &seconds); err == nil && float64(seconds) < c.b.Handoff.Deadline.Seconds() {
				c.add(t, b.Pos, true, fmt.Sprintf("HeartbeatTimeout: %.0f", c.b.Handoff.Deadline.Seconds()+60), "the hook gives up after %d s, before handoff.deadline, %s", seconds, short(c.b.Handoff.Deadline))
			}
		}
	}
	return found
}

func (c *checker) launch(t *template.Template, l *template.Resource) {
	data := l.Properties.Get("LaunchTemplateData")
	if data == nil {
		return // the schema has said so
	}
	meta := data.Get("MetadataOptions")
	for _, want := range [][2]string{{"HttpTokens", "required"}, {"InstanceMetadataTags", "enabled"}} {
		if v := meta.Get(want[0]); v == nil || v.Text != want[1] {
			at := l.TypeAt
			if v != nil {
				at = v.Pos
			} else if meta != nil {
				at = meta.Pos
			}
			c.add(t, at, false, "MetadataOptions: { HttpTokens: required, InstanceMetadataTags: enabled }", "the launch template %s needs %s: %s", l.Name, want[0], want[1])
		}
	}
	c.userData(t, l, data)
}

// targets looks whether each generation brings a target group of its own, and
// whether it is clear which one the listener gets.
func (c *checker) targets(t *template.Template, groups []*template.Resource) {
	made := of(t, targetsType)
	if len(made) == 0 {
		c.add(t, section(t, "Resources"), false, targetLines, "each generation needs a target group of its own, and the template makes none")
		return
	}
	attached := false
	for _, g := range groups {
		arns := g.Properties.Get("TargetGroupARNs")
		for _, m := range made {
			attached = attached || refersTo(arns, m.Name)
		}
	}
	if !attached && len(groups) > 0 {
		at := groups[0].TypeAt
		if p := groups[0].Properties.Pair("TargetGroupARNs"); p != nil {
			at = p.At
		}
		c.add(t, at, false, "TargetGroupARNs: [!Ref "+made[0].Name+"]", "no group is attached to the template's target group %s: its instances would get no traffic", made[0].Name)
	}
	if len(made) > 1 && !hasOutput(t, "TargetGroup") {
		c.add(t, made[1].At, true, "Outputs: { TargetGroup: { Value: !Ref "+made[0].Name+" } }", "the template makes %d target groups and no output TargetGroup says which one the foundation's listener gets", len(made))
	}
}

func (c *checker) foundation(t *template.Template) {
	for _, typ := range []string{balancerType, listenerType} {
		if len(of(t, typ)) == 0 {
			c.add(t, section(t, "Resources"), false, "generations stand behind the foundation's load balancer", "the foundation makes no %s", typ)
		}
	}
	if !hasOutput(t, "Address") {
		c.add(t, section(t, "Outputs"), false, addressLines, "the foundation has no output Address, by which people and suites reach what serves")
	}
	for _, typ := range []string{groupType, instanceType} {
		for _, r := range of(t, typ) {
			c.add(t, r.TypeAt, false, "move it to the fleet's template", "a foundation holds no instances: it is updated, and they never are")
		}
	}
}
