package cloudtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

type stack struct {
	cloud.Stack
	in        cloud.StackInput
	plan      Plan
	changed   time.Time
	resources []cloud.StackResource
	events    []cloud.StackEvent
}

type listener struct {
	stack, balancer string // stack that it is of, "" = none
	port            int
	weights         []cloud.Weight
	since           map[string]time.Time // target groups in it
}

// CreateStack implements the driver's. What a template makes is told by its
// text: an Auto Scaling group with a target group, a load balancer with a
// listener, or a builder.
func (d *Driver) CreateStack(ctx context.Context, in cloud.Intent, s cloud.StackInput) (string, error) {
	input := s
	input.Tags = maps.Clone(s.Tags)
	delete(input.Tags, cloud.TagDeadline)
	return perform(ctx, d, in, "cloudformation:CreateStack", true, input, func() (string, error) {
		c := d.c
		if c.stacks[s.Name] != nil {
			return "", &fault.Error{Kind: fault.Conflict, Object: s.Name, Code: "AlreadyExistsException", Message: "a stack of this name is there already, and this step did not make it"}
		}
		st := &stack{in: s, changed: c.Clock.Now()}
		if c.Plan != nil {
			st.plan = c.Plan(s)
		}
		if st.plan.Took == 0 {
			st.plan.Took = 2 * time.Second
		}
		if st.plan.Boot == 0 {
			st.plan.Boot = time.Second
		}
		st.Stack = cloud.Stack{ID: c.id("arn:stack/"), Name: s.Name, Status: "CREATE_IN_PROGRESS", Tags: marked(in, s.Tags), Outputs: map[string]string{}, Created: st.changed}
		c.stacks[s.Name] = st
		return st.ID, nil
	})
}

// DeleteStack implements the driver's.
func (d *Driver) DeleteStack(ctx context.Context, in cloud.Intent, name string) error {
	_, err := perform(ctx, d, in, "cloudformation:DeleteStack", false, name, func() (bool, error) {
		if s := d.c.stacks[name]; s != nil && s.Status != "DELETE_IN_PROGRESS" {
			s.Status, s.Reason, s.changed = "DELETE_IN_PROGRESS", "", d.c.Clock.Now()
			for _, g := range d.c.groups {
				if g.stack == name && !g.protected {
					d.c.endGroup(g)
				}
			}
		}
		return true, nil
	})
	return err
}

// DropStack takes a stack away at once, as somebody behind our back does.
func (c *Cloud) DropStack(name string) {
	defer c.lock()()
	if s := c.stacks[name]; s != nil {
		for _, g := range c.groups {
			if g.stack == name {
				c.endGroup(g)
			}
		}
		c.dropped(s)
	}
}

func (c *Cloud) stack(name string) *stack {
	for _, s := range c.stacks {
		if s.Name == name || s.ID == name {
			return s
		}
	}
	return nil
}

// Stack implements the driver's.
func (d *Driver) Stack(ctx context.Context, name string) (cloud.Stack, error) {
	if err := ctx.Err(); err != nil {
		return cloud.Stack{}, err
	}
	defer d.c.lock()()
	s := d.c.stack(name)
	if s == nil {
		return cloud.Stack{}, Absent("cloudformation:DescribeStacks", name)
	}
	out := s.Stack
	out.Outputs, out.Tags = maps.Clone(s.Outputs), maps.Clone(s.Tags)
	return out, nil
}

// Stacks implements the driver's.
func (d *Driver) Stacks(context.Context) ([]cloud.Stack, error) {
	defer d.c.lock()()
	var out []cloud.Stack
	for _, s := range d.c.stacks {
		out = append(out, s.Stack)
	}
	return out, nil
}

// StackEvents implements the driver's.
func (d *Driver) StackEvents(_ context.Context, name string) ([]cloud.StackEvent, error) {
	defer d.c.lock()()
	if s := d.c.stack(name); s != nil {
		return slices.Clone(s.events), nil
	}
	return nil, Absent("cloudformation:DescribeStackEvents", name)
}

// StackResources implements the driver's.
func (d *Driver) StackResources(_ context.Context, name string) ([]cloud.StackResource, error) {
	defer d.c.lock()()
	if s := d.c.stack(name); s != nil {
		return slices.Clone(s.resources), nil
	}
	return nil, Absent("cloudformation:ListStackResources", name)
}

// StackParameter is what a stack was made with.
func (c *Cloud) StackParameter(stack, name string) string {
	defer c.lock()()
	return c.stack(stack).in.Parameters[name]
}

// pass takes everything to where it is at a time.
func (c *Cloud) pass(now time.Time) {
	c.count(now)
	for _, s := range c.stacks {
		switch {
		case s.Status == "CREATE_IN_PROGRESS" && s.plan.Hang:
		case s.Status == "CREATE_IN_PROGRESS" && now.Sub(s.changed) >= s.plan.Took:
			if s.plan.Fail != "" {
				s.Status, s.Reason, s.changed = "ROLLBACK_IN_PROGRESS", "a resource failed", now
				s.events = append(s.events, cloud.StackEvent{Time: now, Resource: "Thing", Type: "AWS::Test::Thing", Status: "CREATE_FAILED", Reason: s.plan.Fail})
			} else {
				s.Status, s.changed = "CREATE_COMPLETE", now
				c.make(s, now)
			}
		case s.Status == "ROLLBACK_IN_PROGRESS" && now.Sub(s.changed) >= time.Second:
			s.Status, s.changed = "ROLLBACK_COMPLETE", now
		case s.Status == "DELETE_IN_PROGRESS" && now.Sub(s.changed) >= time.Second:
			c.remove(s, now)
		}
	}
	for _, i := range c.instances {
		i.pass(now)
	}
	for _, g := range c.groups {
		c.passGroup(g, now)
	}
	for _, i := range c.images {
		if i.State == "pending" && now.Sub(i.Created) >= 2*time.Second {
			i.State = "available"
		}
	}
}

func (c *Cloud) make(s *stack, now time.Time) {
	add := func(logical, kind, physical string) string {
		s.resources = append(s.resources, cloud.StackResource{Logical: logical, Type: kind, Physical: physical, Status: "CREATE_COMPLETE"})
		return physical
	}
	has := func(kind string) bool { return strings.Contains(s.in.Template, kind) }
	if has("AWS::ElasticLoadBalancingV2::LoadBalancer") {
		lb := add("Balancer", "AWS::ElasticLoadBalancingV2::LoadBalancer", c.id("arn:balancer/"))
		arn := add("Listener", "AWS::ElasticLoadBalancingV2::Listener", c.id("arn:listener/"))
		c.listeners[arn] = &listener{stack: s.Name, balancer: lb, port: 80, since: map[string]time.Time{}}
		s.Outputs["Vpc"], s.Outputs["Address"] = c.id("vpc-"), "http://"+s.Name
	}
	if has("AWS::AutoScaling::AutoScalingGroup") {
		tg := add("Targets", "AWS::ElasticLoadBalancingV2::TargetGroup", c.id("arn:targets/"))
		g := &group{stack: s.Name, plan: &s.plan, image: s.in.Parameters["ImageId"], target: tg, protected: s.plan.Protected, params: s.in.Parameters}
		g.Name, g.Tags = c.id(s.Name+"-"), s.Tags
		fmt.Sscan(s.in.Parameters["Size"], &g.Desired)
		g.Min, g.Max, g.TargetGroups = g.Desired, g.Desired, []string{tg}
		fmt.Sscan(s.in.Parameters["MaxSize"], &g.Max)
		c.groups[g.Name] = g
		add("Fleet", "AWS::AutoScaling::AutoScalingGroup", g.Name)
	}
	if has("Builder:") {
		i := c.launch(s.in.Parameters["ImageId"], map[string]string{"aws:cloudformation:stack-name": s.Name}, now)
		s.Outputs["Builder"], s.Outputs["Subnet"], s.Outputs["Access"], s.Outputs["Profile"] = add("Builder", "AWS::EC2::Instance", i.ID), "subnet-1", "sg-1", "profile-1"
	}
}

// remove ends a deletion, well or not.
func (c *Cloud) remove(s *stack, now time.Time) {
	fail := func(why string) { s.Status, s.Reason, s.changed = "DELETE_FAILED", why, now }
	if s.plan.Undelete > 0 {
		s.plan.Undelete--
		fail("the same as always")
		return
	}
	for _, r := range s.resources {
		switch r.Type {
		case "AWS::AutoScaling::AutoScalingGroup":
			if c.groups[r.Physical] != nil {
				if g := c.groups[r.Physical]; g.protected && !g.Deleting {
					fail("its instances are protected from scale-in")
				}
				return // still ending
			}
		case "AWS::ElasticLoadBalancingV2::TargetGroup":
			for arn, l := range c.listeners {
				if _, in := l.since[r.Physical]; in {
					fail("target group " + r.Physical + " is in use by listener " + arn)
					return
				}
			}
		}
	}
	if vpc := s.Outputs["Vpc"]; vpc != "" {
		for _, other := range c.stacks {
			if other.in.Parameters["Vpc"] == vpc {
				fail("vpc has dependencies: " + other.Name)
				return
			}
		}
	}
	for _, i := range c.instances {
		if i.subnet != "" && i.State != "terminated" && s.Outputs["Builder"] != "" {
			fail("the subnet has dependencies: " + i.ID)
			return
		}
	}
	if i := c.instances[s.Outputs["Builder"]]; i != nil && i.State != "terminated" {
		i.end(now)
		return
	}
	c.dropped(s)
}

func (c *Cloud) dropped(s *stack) {
	for arn, l := range c.listeners {
		if l.stack == s.Name || slices.ContainsFunc(s.resources, func(r cloud.StackResource) bool { return r.Physical == l.balancer }) {
			delete(c.listeners, arn)
		}
	}
	delete(c.stacks, s.Name)
}

// SetListener implements the driver's.
func (d *Driver) SetListener(ctx context.Context, in cloud.Intent, arn string, ws []cloud.Weight) error {
	_, err := perform(ctx, d, in, "elasticloadbalancing:ModifyListener", false, []any{arn, ws}, func() (bool, error) {
		l := d.c.listeners[arn]
		if l == nil {
			return false, Absent("elasticloadbalancing:ModifyListener", arn)
		}
		l.set(ws, d.c.Clock.Now())
		return true, nil
	})
	return err
}

func (l *listener) set(ws []cloud.Weight, now time.Time) {
	since := map[string]time.Time{}
	for _, w := range ws {
		since[w.TargetGroup] = now
		if old, ok := l.since[w.TargetGroup]; ok {
			since[w.TargetGroup] = old
		}
	}
	l.weights, l.since = slices.Clone(ws), since
}

// Meddle sets a listener behind our back.
func (c *Cloud) Meddle(arn string, ws ...cloud.Weight) {
	defer c.lock()()
	c.listeners[arn].set(ws, c.Clock.Now())
}

// DropListener takes a listener away behind our back.
func (c *Cloud) DropListener(arn string) { defer c.lock()(); delete(c.listeners, arn) }

// ListenerWeights implements the driver's.
func (d *Driver) ListenerWeights(_ context.Context, arn string) ([]cloud.Weight, error) {
	defer d.c.lock()()
	l := d.c.listeners[arn]
	if l == nil {
		return nil, Absent("elasticloadbalancing:DescribeListeners", arn)
	}
	return slices.Clone(l.weights), nil
}

// EnsureListener implements the driver's.
func (d *Driver) EnsureListener(ctx context.Context, in cloud.Intent, balancer string, port int, _ cloud.Tags) (string, error) {
	return perform(ctx, d, in, "elasticloadbalancing:CreateListener", true, []any{balancer, port}, func() (string, error) {
		for _, l := range d.c.listeners {
			if l.balancer == balancer && l.port == port {
				return "", &fault.Error{Kind: fault.Conflict, Code: "DuplicateListener", Message: "the port is taken"}
			}
		}
		arn := d.c.id("arn:listener/")
		d.c.listeners[arn] = &listener{balancer: balancer, port: port, since: map[string]time.Time{}}
		return arn, nil
	})
}

// DeleteListener implements the driver's.
func (d *Driver) DeleteListener(ctx context.Context, in cloud.Intent, arn string) error {
	_, err := perform(ctx, d, in, "elasticloadbalancing:DeleteListener", false, arn, func() (bool, error) {
		delete(d.c.listeners, arn)
		return true, nil
	})
	return err
}
