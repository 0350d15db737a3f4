package blueprint

import (
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/template"
)

// Check is Load and a look at the templates: what CloudFormation would refuse,
// and what a fleet lacks to be launched by Dayfly, with the lines to add.
func Check(fsys fs.FS) []Problem {
	b, problems, err := Load(fsys)
	if err != nil {
		return append(problems, Problem{File: File, Message: err.Error()})
	}
	if b == nil {
		return problems
	}
	c := &checker{problems: problems}
	foundation := c.read(fsys, b.Foundation)
	fleet := c.read(fsys, b.Fleet)
	if fleet != nil {
		c.fleet(b, fleet, foundation)
	}
	if foundation != nil {
		c.foundation(foundation)
	}
	return c.problems
}

type checker struct{ problems []Problem }

// add notes a problem of a template at a position; the zero position is the
// whole file.
func (c *checker) add(t *template.Template, at template.Pos, warning bool, hint, format string, args ...any) {
	c.problems = append(c.problems, Problem{File: t.File, Line: at.Line, Column: at.Column, Message: fmt.Sprintf(format, args...), Hint: hint, Warning: warning})
}

// read parses and checks a template; nil where there is nothing to look at.
func (c *checker) read(fsys fs.FS, name string) *template.Template {
	if name == "" {
		return nil
	}
	name = path.Clean(name)
	src, err := fs.ReadFile(fsys, name)
	if err != nil {
		c.problems = append(c.problems, Problem{File: name, Message: err.Error()})
		return nil
	}
	t, ps := template.Parse(name, src)
	if t != nil && len(ps) == 0 {
		ps = template.Check(t)
	}
	for _, p := range ps {
		// What only the local region lacks is no fault of the template.
		c.problems = append(c.problems, Problem{File: p.File, Line: p.Line, Column: p.Column, Message: p.Message, Hint: p.Hint, Warning: p.Local})
	}
	return t
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

const hookLines = `add to the group's Properties:
  LifecycleHookSpecificationList:
    - LifecycleHookName: launch
      LifecycleTransition: autoscaling:EC2_INSTANCE_LAUNCHING
      DefaultResult: ABANDON
      HeartbeatTimeout: 900`

// fleet looks for what a launch needs beside valid CloudFormation.
func (c *checker) fleet(b *Blueprint, t, foundation *template.Template) {
	groups := of(t, "AWS::AutoScaling::AutoScalingGroup")
	if len(groups) == 0 {
		c.add(t, template.Pos{}, false, "a fleet is an AWS::AutoScaling::AutoScalingGroup", "the template makes no Auto Scaling group")
	}
	for _, h := range of(t, "AWS::AutoScaling::LifecycleHook") {
		c.add(t, h.TypeAt, true, "put it into the group's own LifecycleHookSpecificationList", "a hook that is a resource of its own misses the group's first instances")
	}
	for _, g := range groups {
		c.group(t, g)
	}
	for _, l := range of(t, "AWS::EC2::LaunchTemplate") {
		c.launch(t, l)
	}
	// A network load balancer's target group may be the foundation's: fleets join it.
	if foundation != nil && len(of(t, "AWS::ElasticLoadBalancingV2::TargetGroup")) == 0 && len(of(foundation, "AWS::ElasticLoadBalancingV2::TargetGroup")) == 0 {
		c.add(t, template.Pos{}, false, "add an AWS::ElasticLoadBalancingV2::TargetGroup and name it in the group's TargetGroupARNs", "each generation needs a target group of its own, and the template makes none")
	}
	c.parameters(b, t, foundation)
}

func (c *checker) group(t *template.Template, g *template.Resource) {
	hooks := g.Properties.Get("LifecycleHookSpecificationList")
	launch := false
	if hooks != nil {
		for _, h := range hooks.Items {
			if tr := h.Get("LifecycleTransition"); tr == nil || tr.Text != "autoscaling:EC2_INSTANCE_LAUNCHING" {
				continue
			}
			launch = true
			if d := h.Get("DefaultResult"); d == nil || d.Text != "ABANDON" {
				at := h.Pos
				if d != nil {
					at = d.Pos
				}
				c.add(t, at, false, "DefaultResult: ABANDON", "an instance whose hand-off says nothing must not come into service")
			}
		}
	}
	if !launch {
		c.add(t, g.TypeAt, false, hookLines, "the group %s has no launch hook: its instances would be in service before their hand-off", g.Name)
	}
	if h := g.Properties.Get("HealthCheckType"); h != nil && h.Text == "ELB" {
		c.add(t, h.Pos, true, "HealthCheckType: EC2", "load balancer health checks alone can empty a fleet when they are wrong")
	}
	if g.Properties.Get("LaunchTemplate") == nil {
		c.add(t, g.TypeAt, false, "LaunchTemplate: { LaunchTemplateId: !Ref Launch, Version: !GetAtt Launch.LatestVersionNumber }", "the group %s has no launch template", g.Name)
	}
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
	if data.Get("UserData") == nil {
		c.add(t, l.TypeAt, false, "UserData begins with the line #dayfly and has DAYFLY_RELEASE_DIGEST=${ReleaseDigest} and the like; dayfly init shows them all", "the launch template %s has no UserData: its instances would not know their release", l.Name)
	}
}

// parameters looks whether somebody gives a value for every parameter.
func (c *checker) parameters(b *Blueprint, t, foundation *template.Template) {
	n := b.Parameters
	for _, need := range []string{n.Image, n.ReleaseDigest, n.Size} {
		if t.Parameter(need) == nil {
			c.add(t, template.Pos{}, false, "Parameters: { "+need+": { Type: String } }; other names are given in parameters of dayfly.yaml", "the template has no parameter %s, in which Dayfly passes its value", need)
		}
	}
	given := []string{n.Image, n.ReleaseURL, n.ReleaseMirror, n.ReleaseDigest, n.Size, n.MaxSize, n.Environment, n.Generation, n.Bucket, n.Operation}
	if foundation != nil {
		for _, o := range foundation.Outputs {
			given = append(given, o.Name)
		}
	}
	for _, p := range t.Parameters {
		if p.Default != nil || slices.Contains(given, p.Name) {
			continue
		}
		for name, e := range b.Environments {
			if _, ok := e.Parameters[p.Name]; !ok {
				hint := "give it a Default, or a value in environments." + name + ".parameters"
				if near := template.Nearest(p.Name, given); near != "" {
					hint = "did you mean " + near + "?"
				}
				c.add(t, p.At, false, hint, "nobody gives the parameter %s a value in the environment %s: it has no Default, and no output of the foundation and no parameter of the environment has this name", p.Name, name)
				break
			}
		}
	}
}

func (c *checker) foundation(t *template.Template) {
	for _, typ := range []string{"AWS::ElasticLoadBalancingV2::LoadBalancer", "AWS::ElasticLoadBalancingV2::Listener"} {
		if len(of(t, typ)) == 0 {
			c.add(t, template.Pos{}, false, "generations stand behind the foundation's load balancer", "the foundation makes no %s", typ)
		}
	}
	if !slices.ContainsFunc(t.Outputs, func(o *template.Output) bool { return o.Name == "Address" }) {
		c.add(t, template.Pos{}, false, `Outputs: { Address: { Value: !Sub "http://${Balancer.DNSName}" } }`, "the foundation has no output Address, by which people and suites reach what serves")
	}
	for _, typ := range []string{"AWS::AutoScaling::AutoScalingGroup", "AWS::EC2::Instance"} {
		for _, r := range of(t, typ) {
			c.add(t, r.TypeAt, false, "move it to the fleet's template", "a foundation holds no instances: it is updated, and they never are")
		}
	}
}
