package cloud

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Stray is a thing with our tag of a kind that stacks usually make.
type Stray struct {
	Kind, ID string
	Tags     map[string]string
}

// Kinds of strays.
const (
	Snapshot       = "snapshot"
	LaunchTemplate = "launch-template"
	SecurityGroup  = "security-group"
	LoadBalancer   = "load-balancer"
	Listener       = "listener"
	TargetGroup    = "target-group"
)

// maxTagged is how many things Elastic Load Balancing's DescribeTags takes.
const maxTagged = 20

// Strays reads all snapshots, launch templates, security groups, load balancers,
// listeners and target groups that are ours, in the order in which they can be
// deleted. What a stack made has the stack's tags, ours among them.
func (d *Driver) Strays(ctx context.Context) ([]Stray, error) {
	ctx, cancel := limit(ctx)
	defer cancel()
	out, err := d.balancing(ctx)
	if err != nil {
		return nil, err
	}
	add := func(kind string, id *string, tags []ec2types.Tag) {
		if t := tagsOf(tags); t[TagOwner] == d.cfg.Owner {
			out = append(out, Stray{kind, aws.ToString(id), t})
		}
	}
	ours := ec2Filters(map[string]string{"tag:" + TagOwner: d.cfg.Owner})
	for p := ec2.NewDescribeLaunchTemplatesPaginator(d.ec2, &ec2.DescribeLaunchTemplatesInput{Filters: ours, MaxResults: new(int32(200))}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, translate("ec2:DescribeLaunchTemplates", "", err)
		}
		for _, v := range page.LaunchTemplates {
			add(LaunchTemplate, v.LaunchTemplateId, v.Tags)
		}
	}
	for p := ec2.NewDescribeSecurityGroupsPaginator(d.ec2, &ec2.DescribeSecurityGroupsInput{Filters: ours, MaxResults: new(int32(pageSize))}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, translate("ec2:DescribeSecurityGroups", "", err)
		}
		for _, v := range page.SecurityGroups {
			add(SecurityGroup, v.GroupId, v.Tags)
		}
	}
	for p := ec2.NewDescribeSnapshotsPaginator(d.ec2, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}, Filters: ours, MaxResults: new(int32(pageSize))}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, translate("ec2:DescribeSnapshots", "", err)
		}
		for _, v := range page.Snapshots {
			add(Snapshot, v.SnapshotId, v.Tags)
		}
	}
	return out, nil
}

// balancing reads listeners, load balancers and target groups of ours. Elastic
// Load Balancing has no filter by tag.
func (d *Driver) balancing(ctx context.Context) ([]Stray, error) {
	var balancers, listeners, groups []string
	for p := elb.NewDescribeLoadBalancersPaginator(d.elb, &elb.DescribeLoadBalancersInput{}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, translate("elasticloadbalancing:DescribeLoadBalancers", "", err)
		}
		for _, v := range page.LoadBalancers {
			balancers = append(balancers, aws.ToString(v.LoadBalancerArn))
		}
	}
	for _, b := range balancers {
		for p := elb.NewDescribeListenersPaginator(d.elb, &elb.DescribeListenersInput{LoadBalancerArn: &b}); p.HasMorePages(); {
			page, err := p.NextPage(ctx)
			if err = translate("elasticloadbalancing:DescribeListeners", b, err); isNotFound(err) {
				break // it went meanwhile
			}
			if err != nil {
				return nil, err
			}
			for _, v := range page.Listeners {
				listeners = append(listeners, aws.ToString(v.ListenerArn))
			}
		}
	}
	for p := elb.NewDescribeTargetGroupsPaginator(d.elb, &elb.DescribeTargetGroupsInput{}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, translate("elasticloadbalancing:DescribeTargetGroups", "", err)
		}
		for _, v := range page.TargetGroups {
			groups = append(groups, aws.ToString(v.TargetGroupArn))
		}
	}
	var out []Stray
	for _, k := range []struct {
		kind string
		arns []string
	}{{Listener, listeners}, {LoadBalancer, balancers}, {TargetGroup, groups}} {
		tags, err := d.elbTags(ctx, k.arns)
		if err != nil {
			return nil, err
		}
		for _, arn := range k.arns {
			if t := tags[arn]; t[TagOwner] == d.cfg.Owner {
				out = append(out, Stray{k.kind, arn, t})
			}
		}
	}
	return out, nil
}

func (d *Driver) elbTags(ctx context.Context, arns []string) (map[string]map[string]string, error) {
	const op = "elasticloadbalancing:DescribeTags"
	out := map[string]map[string]string{}
	read := func(some []string) error {
		page, err := d.elb.DescribeTags(ctx, &elb.DescribeTagsInput{ResourceArns: some})
		if err != nil {
			return translate(op, some[0], err)
		}
		for _, v := range page.TagDescriptions {
			tags := map[string]string{}
			for _, t := range v.Tags {
				tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
			}
			out[aws.ToString(v.ResourceArn)] = tags
		}
		return nil
	}
	for some := range slices.Chunk(arns, maxTagged) {
		err := read(some)
		if isNotFound(err) { // one of them went meanwhile: one by one
			for _, one := range some {
				if err = read([]string{one}); err != nil && !isNotFound(err) {
					return nil, err
				}
			}
			err = nil
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// DeleteStray deletes one after a fresh look at its tag; one that is not there
// is a success.
func (d *Driver) DeleteStray(ctx context.Context, in Intent, kind, id string) error {
	ops := map[string]string{
		Snapshot: "ec2:DeleteSnapshot", LaunchTemplate: "ec2:DeleteLaunchTemplate", SecurityGroup: "ec2:DeleteSecurityGroup",
		LoadBalancer: "elasticloadbalancing:DeleteLoadBalancer", Listener: "elasticloadbalancing:DeleteListener", TargetGroup: "elasticloadbalancing:DeleteTargetGroup",
	}
	op := ops[kind]
	if op == "" {
		return &fault.Error{Kind: fault.Internal, Op: "delete a " + kind, Object: id, Message: "the driver does not know this kind"}
	}
	_, err := perform(ctx, d, in, action[bool]{
		op: op, input: id,
		find: func(context.Context, *IntentRecord) (bool, bool, error) { return false, false, nil },
		call: func(ctx context.Context, _ *IntentRecord) (bool, error) {
			tags, err := d.strayTags(ctx, kind, id)
			if isNotFound(err) {
				return true, nil
			}
			if err == nil && tags[TagOwner] != d.cfg.Owner {
				err = notOurs(op, id)
			}
			if err != nil {
				return false, err
			}
			switch kind {
			case Snapshot:
				_, err = d.ec2.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &id})
			case LaunchTemplate:
				_, err = d.ec2.DeleteLaunchTemplate(ctx, &ec2.DeleteLaunchTemplateInput{LaunchTemplateId: &id})
			case SecurityGroup:
				_, err = d.ec2.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: &id})
			case LoadBalancer:
				_, err = d.elb.DeleteLoadBalancer(ctx, &elb.DeleteLoadBalancerInput{LoadBalancerArn: &id})
			case Listener:
				_, err = d.elb.DeleteListener(ctx, &elb.DeleteListenerInput{ListenerArn: &id})
			case TargetGroup:
				_, err = d.elb.DeleteTargetGroup(ctx, &elb.DeleteTargetGroupInput{TargetGroupArn: &id})
			}
			if err = translate(op, id, err); isNotFound(err) {
				err = nil
			}
			return err == nil, err
		},
	})
	return err
}

// strayTags reads the tags of one, an ErrNotFound where it is not there.
func (d *Driver) strayTags(ctx context.Context, kind, id string) (map[string]string, error) {
	if strings.HasPrefix(id, "arn:") {
		all, err := d.elbTags(ctx, []string{id})
		if err == nil && all[id] == nil {
			err = missing("elasticloadbalancing:DescribeTags", id)
		}
		return all[id], err
	}
	one := func(n int, err error, op string) error {
		if err = translate(op, id, err); err == nil && n != 1 {
			err = missing(op, id)
		}
		return err
	}
	switch kind {
	case Snapshot:
		out, err := d.ec2.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}})
		if err != nil || len(out.Snapshots) != 1 {
			return nil, one(0, err, "ec2:DescribeSnapshots")
		}
		return tagsOf(out.Snapshots[0].Tags), nil
	case LaunchTemplate:
		out, err := d.ec2.DescribeLaunchTemplates(ctx, &ec2.DescribeLaunchTemplatesInput{LaunchTemplateIds: []string{id}})
		if err != nil || len(out.LaunchTemplates) != 1 {
			return nil, one(0, err, "ec2:DescribeLaunchTemplates")
		}
		return tagsOf(out.LaunchTemplates[0].Tags), nil
	case SecurityGroup:
		out, err := d.ec2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{id}})
		if err != nil || len(out.SecurityGroups) != 1 {
			return nil, one(0, err, "ec2:DescribeSecurityGroups")
		}
		return tagsOf(out.SecurityGroups[0].Tags), nil
	}
	return nil, errors.New("cloud: no tags of a " + kind)
}
