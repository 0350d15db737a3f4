package cloudtest

import (
	"bytes"
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/handoff"
)

type instance struct {
	cloud.Instance
	subnet  string
	changed time.Time
	sick    bool // its target fails
}

func (i *instance) pass(now time.Time) {
	next := map[string]string{"pending": "running", "shutting-down": "terminated", "stopping": "stopped"}[i.State]
	if next != "" && now.Sub(i.changed) >= 500*time.Millisecond {
		i.State, i.changed = next, now
	}
}

func (i *instance) end(now time.Time) {
	if i.State != "terminated" && i.State != "shutting-down" {
		i.State, i.changed = "shutting-down", now
	}
}

func (c *Cloud) launch(ami string, tags map[string]string, now time.Time) *instance {
	i := &instance{changed: now}
	i.Instance = cloud.Instance{ID: c.id("i-"), Image: ami, State: "pending", Launched: now, Tags: maps.Clone(tags)}
	c.instances[i.ID] = i
	return i
}

type group struct {
	cloud.Group
	stack, image, target string
	protected            bool
	plan                 *Plan
	params               map[string]string
}

func (c *Cloud) endGroup(g *group) {
	g.Deleting, g.Desired = true, 0
	for _, m := range g.Members {
		c.instances[m.Instance].end(c.Clock.Now())
	}
}

func (c *Cloud) passGroup(g *group, now time.Time) {
	g.Members = slices.DeleteFunc(g.Members, func(m cloud.Member) bool {
		s := c.instances[m.Instance].State
		return s == "terminated" || s == "shutting-down"
	})
	if g.Deleting {
		left := false
		for _, i := range c.instances {
			left = left || i.Tags["aws:autoscaling:groupName"] == g.Name && i.State != "terminated"
		}
		if !left {
			delete(c.groups, g.Name)
		}
		return
	}
	for k := range g.Members {
		m := &g.Members[k]
		i := c.instances[m.Instance]
		if m.Lifecycle != "Pending:Wait" || g.plan.Stuck || now.Sub(i.Launched) < g.plan.Boot {
			continue
		}
		if g.plan.Broken != 0 { // the hand-off fails and abandons the launch
			g.plan.Broken--
			i.Reason = "the lifecycle action was abandoned"
			i.end(now)
			if g.plan.Report != nil {
				c.write(handoff.ReportKey(g.params["Environment"], g.params["Generation"], i.ID), g.plan.Report)
			}
			continue
		}
		m.Lifecycle = "InService"
	}
	live := 0
	for _, m := range g.Members {
		if m.Lifecycle != "Standby" {
			live++
		}
	}
	for ; live < g.Desired && len(g.Suspended) == 0 && c.Launches.take(now); live++ {
		i := c.launch(g.image, map[string]string{"aws:autoscaling:groupName": g.Name, "aws:cloudformation:stack-name": g.stack}, now)
		g.Members = append(g.Members, cloud.Member{Instance: i.ID, Lifecycle: "Pending:Wait", Healthy: true, Protected: g.protected})
	}
}

// KillInstances ends all instances of a group, as a crash does.
func (c *Cloud) KillInstances(group string) {
	defer c.lock()()
	for _, m := range c.groups[group].Members {
		c.instances[m.Instance].end(c.Clock.Now())
	}
}

// Group implements the driver's.
func (d *Driver) Group(_ context.Context, name string) (cloud.Group, error) {
	defer d.c.lock()()
	d.c.calls["Group"]++
	g := d.c.groups[name]
	if g == nil {
		return cloud.Group{}, Absent("autoscaling:DescribeAutoScalingGroups", name)
	}
	out := g.Group
	out.Members = slices.Clone(g.Members)
	return out, nil
}

// Groups implements the driver's.
func (d *Driver) Groups(context.Context) ([]cloud.Group, error) {
	defer d.c.lock()()
	var out []cloud.Group
	for _, g := range d.c.groups {
		v := g.Group
		v.Tags = maps.Clone(g.Tags)
		v.Tags["aws:cloudformation:stack-name"] = g.stack
		out = append(out, v)
	}
	return out, nil
}

// Activities implements the driver's.
func (*Driver) Activities(context.Context, string) ([]cloud.Activity, error) { return nil, nil }

// DeleteGroup implements the driver's.
func (d *Driver) DeleteGroup(ctx context.Context, in cloud.Intent, name string) error {
	_, err := perform(ctx, d, in, "autoscaling:DeleteAutoScalingGroup", false, name, func() (bool, error) {
		if g := d.c.groups[name]; g != nil {
			d.c.endGroup(g)
		}
		return true, nil
	})
	return err
}

// DrainDelay implements the driver's.
func (d *Driver) DrainDelay(context.Context, string) (time.Duration, error) {
	defer d.c.lock()()
	return d.c.Drain, nil
}

// Targets implements the driver's: a target is checked only while a listener
// has its group.
func (d *Driver) Targets(_ context.Context, tg string) ([]cloud.Target, error) {
	defer d.c.lock()()
	var since time.Time
	for _, l := range d.c.listeners {
		if t, ok := l.since[tg]; ok {
			since = t
		}
	}
	var out []cloud.Target
	for _, g := range d.c.groups {
		for _, m := range g.Members {
			if g.target != tg || m.Lifecycle != "InService" {
				continue
			}
			t := cloud.Target{Instance: m.Instance, State: "healthy"}
			switch {
			case since.IsZero():
				t.State = "unused"
			case d.c.instances[m.Instance].sick:
				t.State, t.Reason = "unhealthy", "Target.Timeout"
			case d.c.Clock.Now().Sub(since) < time.Second:
				t.State = "initial"
			}
			out = append(out, t)
		}
	}
	return out, nil
}

// Instances implements the driver's, for the filters that the loops use.
func (d *Driver) Instances(ctx context.Context, filter map[string]string) ([]cloud.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	defer d.c.lock()()
	var out []cloud.Instance
	for _, i := range d.c.instances {
		ok := true
		for k, v := range filter {
			if tag, is := strings.CutPrefix(k, "tag:"); is {
				ok = ok && i.Tags[tag] == v
			} else if k == "instance-state-name" {
				ok = ok && slices.Contains(strings.Split(v, ","), i.State)
			} else {
				return nil, &fault.Error{Kind: fault.Invalid, Message: "filter " + k}
			}
		}
		if ok {
			out = append(out, i.Instance)
		}
	}
	return out, nil
}

// Instance implements the driver's.
func (d *Driver) Instance(_ context.Context, id string) (cloud.Instance, error) {
	defer d.c.lock()()
	if i := d.c.instances[id]; i != nil {
		return i.Instance, nil
	}
	return cloud.Instance{}, Absent("ec2:DescribeInstances", id)
}

// RunInstances implements the driver's.
func (d *Driver) RunInstances(ctx context.Context, in cloud.Intent, i cloud.InstanceInput) ([]string, error) {
	input := i
	input.Tags = nil
	return perform(ctx, d, in, "ec2:RunInstances", true, input, func() ([]string, error) {
		var ids []string
		for range i.Count {
			one := d.c.launch(i.Image, marked(in, i.Tags), d.c.Clock.Now())
			one.subnet = i.Subnet
			ids = append(ids, one.ID)
		}
		return ids, nil
	})
}

// Zones implements the driver's.
func (*Driver) Zones(context.Context) ([]string, error) {
	return []string{"local-1a", "local-1b", "local-1c"}, nil
}

// TerminateInstances implements the driver's.
func (d *Driver) TerminateInstances(ctx context.Context, in cloud.Intent, ids ...string) error {
	_, err := perform(ctx, d, in, "ec2:TerminateInstances", false, ids, func() (bool, error) {
		for _, id := range ids {
			if i := d.c.instances[id]; i != nil {
				i.end(d.c.Clock.Now())
			}
		}
		return true, nil
	})
	return err
}

// StopInstance implements the driver's.
func (d *Driver) StopInstance(ctx context.Context, in cloud.Intent, id string) error {
	_, err := perform(ctx, d, in, "ec2:StopInstances", false, id, func() (bool, error) {
		i := d.c.instances[id]
		if i == nil {
			return false, Absent("ec2:StopInstances", id)
		}
		if i.State == "running" {
			i.State, i.changed = "stopping", d.c.Clock.Now()
		}
		return true, nil
	})
	return err
}

// StartInstance implements the driver's.
func (d *Driver) StartInstance(ctx context.Context, in cloud.Intent, id string) error {
	_, err := perform(ctx, d, in, "ec2:StartInstances", false, id, func() (bool, error) {
		i := d.c.instances[id]
		if i == nil {
			return false, Absent("ec2:StartInstances", id)
		}
		switch i.State {
		case "stopped":
			i.State, i.changed = "pending", d.c.Clock.Now()
		case "pending", "running":
		default:
			return false, &fault.Error{Kind: fault.Failed, Code: "IncorrectInstanceState", Message: "it is " + i.State}
		}
		return true, nil
	})
	return err
}

// EndInstance ends an instance behind our back.
func (c *Cloud) EndInstance(id string) { defer c.lock()(); c.instances[id].end(c.Clock.Now()) }

type image struct{ cloud.Image }

// CreateImage implements the driver's.
func (d *Driver) CreateImage(ctx context.Context, in cloud.Intent, id, name string, tags cloud.Tags) (string, error) {
	return perform(ctx, d, in, "ec2:CreateImage", true, []string{id, name}, func() (string, error) {
		for _, i := range d.c.images {
			if i.Name == name {
				return "", &fault.Error{Kind: fault.Conflict, Code: "InvalidAMIName.Duplicate", Message: "the name is taken"}
			}
		}
		if i := d.c.instances[id]; i == nil || i.State != "stopped" {
			return "", &fault.Error{Kind: fault.Failed, Code: "IncorrectInstanceState", Message: "it is not stopped"}
		}
		im := &image{cloud.Image{ID: d.c.id("ami-"), Name: name, State: "pending", Tags: marked(in, tags), Created: d.c.Clock.Now()}}
		d.c.images[im.ID] = im
		return im.ID, nil
	})
}

// DeleteImage implements the driver's.
func (d *Driver) DeleteImage(ctx context.Context, in cloud.Intent, id string) error {
	_, err := perform(ctx, d, in, "ec2:DeregisterImage", false, id, func() (bool, error) {
		delete(d.c.images, id)
		return true, nil
	})
	return err
}

// AddImage publishes an image of somebody else's.
func (c *Cloud) AddImage(id string) {
	defer c.lock()()
	c.images[id] = &image{cloud.Image{ID: id, Name: id, State: "available", Created: c.Clock.Now()}}
}

// DropImage takes an image away behind our back.
func (c *Cloud) DropImage(id string) { defer c.lock()(); delete(c.images, id) }

// Image implements the driver's.
func (d *Driver) Image(_ context.Context, id string) (cloud.Image, error) {
	defer d.c.lock()()
	if i := d.c.images[id]; i != nil {
		return i.Image, nil
	}
	return cloud.Image{}, Absent("ec2:DescribeImages", id)
}

// Images implements the driver's.
func (d *Driver) Images(context.Context) ([]cloud.Image, error) {
	defer d.c.lock()()
	var out []cloud.Image
	for _, i := range d.c.images {
		if i.Tags[cloud.TagOwner] == owner {
			out = append(out, i.Image)
		}
	}
	return out, nil
}

type command struct {
	cloud.CommandResult
	instance string
	ends     time.Time
}

// SendCommand implements the driver's.
func (d *Driver) SendCommand(ctx context.Context, in cloud.Intent, cmd cloud.Command) (string, error) {
	return perform(ctx, d, in, "ssm:SendCommand", true, cmd, func() (string, error) {
		if i := d.c.instances[cmd.Instance]; i == nil || i.State != "running" {
			return "", &fault.Error{Kind: fault.Unavailable, Code: "InvalidInstanceId", Message: cmd.Instance + " is not in a valid state"}
		}
		r, took := cloud.CommandResult{Status: "Success"}, time.Duration(0)
		if d.c.Exec != nil {
			r, took = d.c.Exec(d.c, cmd)
		}
		r.ID = d.c.id("command-")
		d.c.commands[r.ID] = &command{CommandResult: r, instance: cmd.Instance, ends: d.c.Clock.Now().Add(took)}
		return r.ID, nil
	})
}

// Object sets an object from within Exec.
func (c *Cloud) Object(key string, body []byte) { c.write(key, body) }

func (c *Cloud) write(key string, body []byte) {
	c.objects[key], c.written[key] = body, c.Clock.Now()
}

// Console implements the driver's.
func (d *Driver) Console(_ context.Context, id string) (string, error) {
	defer d.c.lock()()
	if d.c.instances[id] == nil {
		return "", Absent("ec2:GetConsoleOutput", id)
	}
	return "booted " + id + "\n", nil
}

// CommandResult implements the driver's.
func (d *Driver) CommandResult(_ context.Context, instance, id string) (cloud.CommandResult, error) {
	defer d.c.lock()()
	r := d.c.commands[id]
	switch {
	case r == nil || r.instance != instance:
		return cloud.CommandResult{}, Absent("ssm:GetCommandInvocation", id)
	case d.c.Clock.Now().Before(r.ends):
		if s := d.c.instances[instance].State; s == "terminated" && !d.c.Silent {
			return cloud.CommandResult{ID: id, Status: "Failed", ExitCode: -1, Stderr: "the instance ended while the command ran"}, nil
		}
		return cloud.CommandResult{ID: id, Status: "InProgress"}, nil
	}
	return r.CommandResult, nil
}

// CommandReady implements the driver's.
func (d *Driver) CommandReady(_ context.Context, id string) (bool, error) {
	defer d.c.lock()()
	i := d.c.instances[id]
	return i != nil && i.State == "running", nil
}

// Parameter implements the driver's.
func (d *Driver) Parameter(_ context.Context, name string) (string, error) {
	defer d.c.lock()()
	if v, ok := d.c.parameters[name]; ok {
		return v, nil
	}
	return "", Absent("ssm:GetParameter", name)
}

// PutObject implements the driver's.
func (d *Driver) PutObject(ctx context.Context, in cloud.Intent, key string, body io.ReadSeeker, size int64) error {
	_, err := perform(ctx, d, in, "s3:PutObject", false, []any{key, size}, func() (bool, error) {
		var b bytes.Buffer
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return false, err
		}
		_, err := io.Copy(&b, body)
		d.c.write(key, b.Bytes())
		return true, err
	})
	return err
}

// Object implements the driver's.
func (d *Driver) Object(_ context.Context, key string, limit int64) ([]byte, error) {
	defer d.c.lock()()
	if b, ok := d.c.objects[key]; ok {
		return append([]byte{}, b[:min(len(b), int(limit))]...), nil
	}
	return nil, Absent("s3:GetObject", key)
}

// ListObjects implements the driver's.
func (d *Driver) ListObjects(_ context.Context, prefix string) ([]string, error) {
	defer d.c.lock()()
	var out []string
	for k := range d.c.objects {
		if strings.HasPrefix(k, prefix) {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Objects implements the driver's.
func (d *Driver) Objects(ctx context.Context, prefix string) (out []cloud.Object, err error) {
	keys, err := d.ListObjects(ctx, prefix)
	defer d.c.lock()()
	for _, k := range keys {
		out = append(out, cloud.Object{Key: k, Modified: d.c.written[k]})
	}
	return out, err
}

// DeletePrefix implements the driver's.
func (d *Driver) DeletePrefix(ctx context.Context, in cloud.Intent, prefix string) error {
	_, err := perform(ctx, d, in, "s3:DeleteObjects", false, prefix, func() (bool, error) {
		maps.DeleteFunc(d.c.objects, func(k string, _ []byte) bool { return strings.HasPrefix(k, prefix) })
		return true, nil
	})
	return err
}
