package autoscaling

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	api "github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const groupTag = "aws:autoscaling:groupName"

// templateCache keeps versions that are numbers: they never change.
type templateCache struct {
	mu   sync.Mutex
	m    map[string]template
	data map[string]*ec2api.ResponseLaunchTemplateData
}

// resolve finds a launch template's id, name and version as a number.
func (s *Service) resolve(ctx context.Context, t template) (template, *ec2api.ResponseLaunchTemplateData, error) {
	c := &s.templates
	key := t.ID + "/" + t.Version
	if t.ID != "" {
		c.mu.Lock()
		got, ok := c.m[key]
		data := c.data[key]
		c.mu.Unlock()
		if ok {
			return got, data, nil
		}
	}
	version := t.Version
	if version == "" {
		version = "$Default"
	}
	req := &ec2api.DescribeLaunchTemplateVersionsRequest{LaunchTemplateId: t.ID, Versions: []string{version}}
	if t.ID == "" {
		req.LaunchTemplateName = t.Name
	}
	res, err := wire.Call[ec2api.DescribeLaunchTemplateVersionsResult](ctx, s.c.Bus, "ec2", "DescribeLaunchTemplateVersions", req)
	if err != nil {
		return t, nil, err
	}
	if len(res.LaunchTemplateVersions) == 0 || res.LaunchTemplateVersions[0].VersionNumber == nil {
		return t, nil, wire.Errorf("InvalidLaunchTemplateId.VersionNotFound", "Could not find the specified version %s for the launch template with ID %s.", version, t.ID)
	}
	v := res.LaunchTemplateVersions[0]
	out := template{ID: v.LaunchTemplateId, Name: v.LaunchTemplateName, Version: strconv.FormatInt(*v.VersionNumber, 10)}
	if out.Version == t.Version && t.ID != "" {
		c.mu.Lock()
		if c.data == nil || len(c.m) > 1000 {
			c.m, c.data = map[string]template{}, map[string]*ec2api.ResponseLaunchTemplateData{}
		}
		c.m[key], c.data[key] = out, v.LaunchTemplateData
		c.mu.Unlock()
	}
	return out, v.LaunchTemplateData, nil
}

// runLaunch carries out a stored intent: the same call with the same client
// token however often it is repeated, until its answer is written down.
func (s *Service) runLaunch(ctx context.Context, g group, l launch) {
	t := l.Template
	if t.Version == "" {
		t = g.Template
	}
	resolved, data, err := s.resolve(ctx, t)
	if err != nil {
		s.launchFailed(g, l, err)
		return
	}
	if l.Template.Version == "" {
		l.Template = resolved
		if !s.pin(g.Name, l) {
			return
		}
	}
	res, err := wire.Call[ec2api.Reservation](ctx, s.c.Bus, "ec2", "RunInstances", runRequest(g.Name, l, data))
	switch {
	case ctx.Err() != nil: // the intent stays and is asked for again
	case err != nil:
		s.launchFailed(g, l, err)
	default:
		s.launched(g, l, res.Instances)
	}
}

// pin stores the resolved version with the intent before it is used.
func (s *Service) pin(name string, l launch) bool {
	err := s.c.DB.Update(func(tx *state.Tx) error {
		g, ok := s.groups.Get(tx, name)
		if !ok {
			return noGroup(name)
		}
		g.Launches = slices.Clone(g.Launches)
		for i := range g.Launches {
			if g.Launches[i].Token == l.Token {
				g.Launches[i].Template = l.Template
			}
		}
		s.groups.Put(tx, name, g)
		return nil
	})
	if err != nil {
		s.c.Log.Error("store a launch", "group", name, "err", err)
	}
	return err == nil
}

func runRequest(name string, l launch, data *ec2api.ResponseLaunchTemplateData) *ec2api.RunInstancesRequest {
	req := &ec2api.RunInstancesRequest{
		ClientToken: l.Token, MinCount: new(int64(1)), MaxCount: new(int64(l.Count)),
		LaunchTemplate: &ec2api.LaunchTemplateSpecification{LaunchTemplateId: l.Template.ID, Version: l.Template.Version},
	}
	tags := []*ec2api.Tag{}
	set := func(k, v string) {
		for _, t := range tags {
			if t.Key == k {
				t.Value = v
				return
			}
		}
		tags = append(tags, &ec2api.Tag{Key: k, Value: v})
	}
	if data != nil {
		for _, ts := range data.TagSpecifications { // the group's tags are added to the template's, not put in their place
			if ts.ResourceType != "instance" {
				req.TagSpecifications = append(req.TagSpecifications, &ec2api.TagSpecification{ResourceType: ts.ResourceType, Tags: ts.Tags})
				continue
			}
			for _, t := range ts.Tags {
				set(t.Key, t.Value)
			}
		}
	}
	for _, t := range l.Tags {
		set(t.Key, t.Value)
	}
	set(groupTag, name)
	set("aws:ec2launchtemplate:id", l.Template.ID)
	set("aws:ec2launchtemplate:version", l.Template.Version)
	req.TagSpecifications = append(req.TagSpecifications, &ec2api.TagSpecification{ResourceType: "instance", Tags: tags})
	if l.Place.Subnet == "" {
		req.Placement = &ec2api.Placement{AvailabilityZone: l.Place.Zone}
		return req
	}
	if data == nil || len(data.NetworkInterfaces) == 0 {
		req.SubnetId = l.Place.Subnet
		return req
	}
	// A template with interfaces takes no subnet beside them: it goes inside.
	for _, n := range data.NetworkInterfaces {
		req.NetworkInterfaces = append(req.NetworkInterfaces, &ec2api.InstanceNetworkInterfaceSpecification{
			AssociatePublicIpAddress: n.AssociatePublicIpAddress, DeleteOnTermination: n.DeleteOnTermination,
			Description: n.Description, DeviceIndex: n.DeviceIndex, Groups: n.Groups, InterfaceType: n.InterfaceType,
			Ipv6AddressCount: n.Ipv6AddressCount, SubnetId: l.Place.Subnet,
		})
	}
	return req
}

// launched writes the instances down and forgets the intent.
func (s *Service) launched(g group, l launch, list []*ec2api.Instance) {
	now := s.now()
	err := s.c.DB.Update(func(tx *state.Tx) error {
		g, ok := s.settle(tx, g.Name, l.Token)
		if !ok {
			return nil
		}
		for _, e := range list {
			if _, known := s.instances.Get(tx, e.InstanceId); known {
				continue
			}
			in := instance{ID: e.InstanceId, Group: g.Name, Zone: l.Place.Zone, Subnet: l.Place.Subnet,
				Type: e.InstanceType, Image: e.ImageId, Template: l.Template, State: pending, Health: healthy,
				Protected: l.Protect, Launched: now}
			if e.Placement != nil && e.Placement.AvailabilityZone != "" {
				in.Zone = e.Placement.AvailabilityZone
			}
			in.Activity = s.begin(tx, &g, in.ID, "Launching a new EC2 instance: "+in.ID, l.Cause, l.Place, "PreInService", l.At)
			s.instances.Put(tx, in.ID, in)
		}
		s.groups.Put(tx, g.Name, g)
		return nil
	})
	if err != nil {
		s.c.Log.Error("note a launch", "group", g.Name, "err", err)
	}
}

// settle takes an intent out of its group; ok is false if it is not there.
func (s *Service) settle(tx *state.Tx, name, token string) (group, bool) {
	g, ok := s.groups.Get(tx, name)
	if !ok {
		return g, false
	}
	n := len(g.Launches)
	g.Launches = slices.DeleteFunc(slices.Clone(g.Launches), func(l launch) bool { return l.Token == token })
	return g, len(g.Launches) < n
}

// noCapacity lists the errors that are one zone's: another may still launch.
var noCapacity = []string{
	"InsufficientInstanceCapacity", "InsufficientFreeAddressesInSubnet", "InsufficientHostCapacity",
	"InsufficientCapacity", "InsufficientAddressCapacity", "UnfulfillableCapacity", "Unsupported", "InvalidSubnetID.NotFound",
}

func (s *Service) launchFailed(g group, l launch, cause error) {
	now := s.now()
	if wire.CodeOf(cause) == "" {
		s.c.Log.Error("launch", "group", g.Name, "err", cause)
	}
	err := s.c.DB.Update(func(tx *state.Tx) error {
		g, ok := s.settle(tx, g.Name, l.Token)
		if !ok {
			return nil
		}
		id := s.begin(tx, &g, "", "Launching a new EC2 instance.  Status Reason: "+failure(cause), l.Cause, l.Place, "InProgress", l.At)
		s.endActivity(tx, id, "Failed", failure(cause), now)
		if slices.Contains(noCapacity, wire.CodeOf(cause)) {
			blocked := map[string]time.Time{}
			for z, t := range g.Blocked {
				if now.Before(t) {
					blocked[z] = t
				}
			}
			blocked[l.Place.Zone] = now.Add(zoneCooldown)
			g.Blocked = blocked
		} else {
			backOff(&g, now)
		}
		g.Replace += replaced(l)
		s.groups.Put(tx, g.Name, g)
		return nil
	})
	if err != nil {
		s.c.Log.Error("note a failed launch", "group", g.Name, "err", err)
	}
}

// replaced is how many unhealthy instances a launch was for.
func replaced(l launch) int {
	if strings.Contains(l.Cause, "unhealthy instance needing to be replaced") {
		return l.Count
	}
	return 0
}

func failure(err error) string { return messageOf(err) + " Launching EC2 instance failed." }

func specOut(t template) *api.LaunchTemplateSpecification {
	if t.ID == "" && t.Name == "" {
		return nil
	}
	return &api.LaunchTemplateSpecification{LaunchTemplateId: t.ID, LaunchTemplateName: t.Name, Version: t.Version}
}
