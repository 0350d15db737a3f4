package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
)

var launchTemplate = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.DescribeLaunchTemplatesResult](ctx, r, "ec2", "DescribeLaunchTemplates", &ec2api.DescribeLaunchTemplatesRequest{Filters: r.ours()})
		if err != nil {
			return "", err
		}
		var ids []string
		for _, v := range out.LaunchTemplates {
			ids = append(ids, v.LaunchTemplateId)
		}
		return r.pick(ids), nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		in := &ec2api.CreateLaunchTemplateRequest{ClientToken: r.Token(), LaunchTemplateName: r.custom("LaunchTemplateName", 128)}
		if err := fill(in, r.Properties, "LaunchTemplateName", "TagSpecifications"); err != nil {
			return "", err
		}
		tags := maps.Clone(r.Tags)
		for _, x := range list(r.Properties, "TagSpecifications") {
			if m, ok := x.(map[string]any); ok && text(m, "ResourceType") == "launch-template" {
				tags = tagsOf(m, tags)
			}
		}
		in.TagSpecifications = []*ec2api.TagSpecification{{ResourceType: "launch-template", Tags: ec2Tags(tags)}}
		out, err := call[ec2api.CreateLaunchTemplateResult](ctx, r, "ec2", "CreateLaunchTemplate", in)
		if err != nil {
			return "", err
		}
		return out.LaunchTemplate.LaunchTemplateId, nil
	},
	Update: func(ctx context.Context, r *Request) error {
		if r.changed("LaunchTemplateData", "VersionDescription") {
			in := &ec2api.CreateLaunchTemplateVersionRequest{LaunchTemplateId: r.ID}
			if err := fill(in, r.Properties, "LaunchTemplateName", "TagSpecifications"); err != nil {
				return err
			}
			body, err := json.Marshal([]any{r.Old, r.Properties})
			if err != nil {
				return err
			}
			h := sha256.Sum256(append([]byte(r.Token()), body...))
			in.ClientToken = hex.EncodeToString(h[:16])
			if err := do(ctx, r, "ec2", "CreateLaunchTemplateVersion", in); err != nil {
				return err
			}
		}
		return retag(ctx, r)
	},
	Mutable:  []string{"LaunchTemplateData", "VersionDescription"},
	Volatile: []string{"LatestVersionNumber", "DefaultVersionNumber"},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, "ec2", "DeleteLaunchTemplate", &ec2api.DeleteLaunchTemplateRequest{LaunchTemplateId: r.ID}))
	},
	Attributes: func(ctx context.Context, r *Request) (map[string]any, error) {
		out, err := call[ec2api.DescribeLaunchTemplatesResult](ctx, r, "ec2", "DescribeLaunchTemplates", &ec2api.DescribeLaunchTemplatesRequest{LaunchTemplateIds: []string{r.ID}})
		if err != nil {
			return nil, err
		}
		t, err := first(out.LaunchTemplates, "InvalidLaunchTemplateId", r.ID)
		if err != nil {
			return nil, err
		}
		a := map[string]any{"LaunchTemplateId": t.LaunchTemplateId}
		if t.LatestVersionNumber != nil {
			a["LatestVersionNumber"] = fmt.Sprint(*t.LatestVersionNumber)
		}
		if t.DefaultVersionNumber != nil {
			a["DefaultVersionNumber"] = fmt.Sprint(*t.DefaultVersionNumber)
		}
		return a, nil
	},
	Named: "LaunchTemplateName",
	Refuse: func(p map[string]any) (string, string) {
		// What is wrong with the data is seen before anything is made.
		if d := object(p, "LaunchTemplateData"); d != nil {
			if err := fill(&ec2api.RequestLaunchTemplateData{}, d); err != nil {
				return "LaunchTemplateData", err.Error()
			}
		}
		return "", ""
	},
}

var instance = &Provider{
	After: beforeBoot,
	Find: func(ctx context.Context, r *Request) (string, error) {
		out, err := call[ec2api.DescribeInstancesResult](ctx, r, "ec2", "DescribeInstances", &ec2api.DescribeInstancesRequest{Filters: r.ours()})
		if err != nil {
			return "", err
		}
		var ids []string
		for _, v := range out.Reservations {
			for _, i := range v.Instances {
				if i.State != nil && i.State.Name != "terminated" && i.State.Name != "shutting-down" {
					ids = append(ids, i.InstanceId)
				}
			}
		}
		return r.pick(ids), nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		in, err := runInstance(r)
		if err != nil {
			return "", err
		}
		out, err := call[ec2api.Reservation](ctx, r, "ec2", "RunInstances", in)
		if err != nil {
			return "", err
		}
		i, err := first(out.Instances, "InvalidInstanceID", "")
		if err != nil {
			return "", err
		}
		return i.InstanceId, nil
	},
	Ready: func(ctx context.Context, r *Request) (bool, error) {
		i, err := describeInstance(ctx, r)
		if err != nil || i.State == nil {
			return false, err
		}
		switch i.State.Name {
		case "running":
			return true, nil
		case "shutting-down", "terminated", "stopping", "stopped":
			why := i.StateTransitionReason
			if i.StateReason != nil {
				why = i.StateReason.Message
			}
			return false, fmt.Errorf("Instance %s failed to stabilize: it is %s. %s", r.ID, i.State.Name, why)
		}
		return false, nil
	},
	Update: func(ctx context.Context, r *Request) error {
		if r.changed("SecurityGroupIds") {
			if err := do(ctx, r, "ec2", "ModifyInstanceAttribute", &ec2api.ModifyInstanceAttributeRequest{InstanceId: r.ID, Groups: texts(r.Properties, "SecurityGroupIds")}); err != nil {
				return err
			}
		}
		if r.changed("DisableApiTermination") {
			v := flag(r.Properties, "DisableApiTermination")
			if v == nil {
				v = new(false)
			}
			if err := do(ctx, r, "ec2", "ModifyInstanceAttribute", &ec2api.ModifyInstanceAttributeRequest{InstanceId: r.ID, DisableApiTermination: boolean(v)}); err != nil {
				return err
			}
		}
		return retag(ctx, r)
	},
	Mutable: []string{"SecurityGroupIds", "DisableApiTermination", "Tags"},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, "ec2", "TerminateInstances", &ec2api.TerminateInstancesRequest{InstanceIds: []string{r.ID}}))
	},
	Gone: func(ctx context.Context, r *Request) (bool, error) {
		i, err := describeInstance(ctx, r)
		if NotFound(err) {
			return true, nil
		}
		return err == nil && i.State != nil && i.State.Name == "terminated", err
	},
	Attributes: func(ctx context.Context, r *Request) (map[string]any, error) {
		i, err := describeInstance(ctx, r)
		if err != nil {
			return nil, err
		}
		out := map[string]any{
			"InstanceId": r.ID, "PrivateIp": i.PrivateIpAddress, "PublicIp": i.PublicIpAddress,
			"PrivateDnsName": i.PrivateDnsName, "PublicDnsName": i.PublicDnsName, "VpcId": i.VpcId,
		}
		if i.Placement != nil {
			out["AvailabilityZone"] = i.Placement.AvailabilityZone
		}
		return out, nil
	},
}

// runInstance writes a template's instance as RunInstances wants it: some
// properties have other names there.
func runInstance(r *Request) (*ec2api.RunInstancesRequest, error) {
	p := maps.Clone(r.Properties)
	in := &ec2api.RunInstancesRequest{
		ClientToken: r.Token(), MinCount: new(int64(1)), MaxCount: new(int64(1)), TagSpecifications: r.specification("instance"),
	}
	if v := text(p, "IamInstanceProfile"); v != "" {
		in.IamInstanceProfile = &ec2api.IamInstanceProfileSpecification{Name: v}
	}
	if v := text(p, "AvailabilityZone"); v != "" {
		in.Placement = &ec2api.Placement{AvailabilityZone: v}
	}
	var nics []any
	for _, x := range list(p, "NetworkInterfaces") {
		m, _ := x.(map[string]any)
		m = maps.Clone(m)
		if g, ok := m["GroupSet"]; ok {
			m["Groups"] = g
			delete(m, "GroupSet")
		}
		nics = append(nics, m)
	}
	if nics != nil {
		p["NetworkInterfaces"] = nics
	}
	return in, fill(in, p, "Tags", "IamInstanceProfile", "AvailabilityZone")
}

func describeInstance(ctx context.Context, r *Request) (*ec2api.Instance, error) {
	out, err := call[ec2api.DescribeInstancesResult](ctx, r, "ec2", "DescribeInstances", &ec2api.DescribeInstancesRequest{InstanceIds: []string{r.ID}})
	if err != nil {
		return nil, err
	}
	for _, v := range out.Reservations {
		for _, i := range v.Instances {
			return i, nil
		}
	}
	return first([]*ec2api.Instance(nil), "InvalidInstanceID", r.ID)
}
