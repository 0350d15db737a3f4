package cloud

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

const (
	maxUserData = 16_384 // bytes, before base64
	pageSize    = 1000
	// EC2 takes at most 200 values in one filter.
	filterValues = 200
)

// RunInstances launches Count instances in one call, all or none.
func (d *Driver) RunInstances(ctx context.Context, in Intent, i InstanceInput) (ids []string, err error) {
	const op = "ec2:RunInstances"
	if len(i.UserData) > maxUserData {
		return nil, &fault.Error{Kind: fault.Invalid, Op: op, Object: in.Object, Message: fmt.Sprintf("the user data has %d bytes, EC2 takes %d", len(i.UserData), maxUserData)}
	}
	if i.Count < 1 {
		return nil, &fault.Error{Kind: fault.Invalid, Op: op, Object: in.Object, Message: fmt.Sprintf("%d instances", i.Count)}
	}
	digested := i
	digested.Tags = stable(i.Tags)
	return perform(ctx, d, in, action[[]string]{
		op: op, input: digested, count: i.Count,
		find: func(ctx context.Context, r *IntentRecord) ([]string, bool, error) {
			// Not only by the tag: both are set in the call, but only the
			// token is what EC2 itself compares.
			for _, f := range []map[string]string{{"client-token": r.Token}, {"tag:" + TagIntent: in.ID, "tag:" + TagOwner: d.cfg.Owner}} {
				found, err := d.Instances(ctx, f)
				if err != nil {
					return nil, false, err
				}
				var ids []string
				for _, i := range found {
					if i.Tags[TagIntent] == in.ID {
						ids = append(ids, i.ID)
					}
				}
				if len(ids) > 0 {
					return ids, true, nil
				}
			}
			return nil, false, nil
		},
		call: func(ctx context.Context, r *IntentRecord) ([]string, error) {
			tags := ec2Tags(d.marked(in, i.Tags))
			input := &ec2.RunInstancesInput{
				ImageId: &i.Image, MinCount: new(int32(i.Count)), MaxCount: new(int32(i.Count)), ClientToken: &r.Token,
				InstanceType: types.InstanceType(i.Type), SecurityGroupIds: i.Groups,
				TagSpecifications: []types.TagSpecification{
					{ResourceType: types.ResourceTypeInstance, Tags: tags}, {ResourceType: types.ResourceTypeVolume, Tags: tags},
				},
				MetadataOptions: &types.InstanceMetadataOptionsRequest{HttpTokens: types.HttpTokensStateRequired},
			}
			if i.Subnet != "" {
				input.SubnetId = &i.Subnet
			}
			if i.UserData != "" {
				input.UserData = new(base64.StdEncoding.EncodeToString([]byte(i.UserData)))
			}
			switch {
			case strings.HasPrefix(i.Profile, "arn:"):
				input.IamInstanceProfile = &types.IamInstanceProfileSpecification{Arn: &i.Profile}
			case i.Profile != "":
				input.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: &i.Profile}
			}
			out, err := d.ec2.RunInstances(ctx, input)
			if err != nil {
				return nil, translate(op, in.Object, err)
			}
			var ids []string
			for _, i := range out.Instances {
				ids = append(ids, aws.ToString(i.InstanceId))
			}
			return ids, nil
		},
	})
}

// TerminateInstances ends instances; those that are not there are a success.
// One that is not ours makes it refuse them all.
func (d *Driver) TerminateInstances(ctx context.Context, in Intent, ids ...string) error {
	const op = "ec2:TerminateInstances"
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	live := func(ctx context.Context) ([]string, error) {
		var out []string
		for some := range slices.Chunk(ids, filterValues) {
			// By filter: one id that is not there any more would fail a
			// request by ids as a whole.
			found, err := d.Instances(ctx, map[string]string{"instance-id": strings.Join(some, ",")})
			if err != nil {
				return nil, err
			}
			for _, i := range found {
				if i.State == "terminated" || i.State == "shutting-down" {
					continue
				}
				ours, err := d.ours(ctx, i.Tags)
				if err != nil {
					return nil, err
				}
				if !ours {
					return nil, notOurs(op, i.ID)
				}
				out = append(out, i.ID)
			}
		}
		return out, nil
	}
	_, err := perform(ctx, d, in, action[bool]{
		op: op, input: ids,
		find: func(ctx context.Context, _ *IntentRecord) (bool, bool, error) {
			left, err := live(ctx)
			return true, err == nil && len(left) == 0, err
		},
		call: func(ctx context.Context, _ *IntentRecord) (bool, error) {
			left, err := live(ctx)
			if err != nil {
				return false, err
			}
			for some := range slices.Chunk(left, pageSize) {
				if _, err := d.ec2.TerminateInstances(counted(ctx, len(some)), &ec2.TerminateInstancesInput{InstanceIds: some}); err != nil {
					return false, translate(op, strings.Join(some[:min(3, len(some))], " "), err)
				}
			}
			return true, nil
		},
	})
	return err
}

// StopInstance begins to stop an instance of ours.
func (d *Driver) StopInstance(ctx context.Context, in Intent, id string) error {
	return d.power(ctx, in, "ec2:StopInstances", id, [2]string{"stopping", "stopped"}, func(ctx context.Context) error {
		_, err := d.ec2.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{id}})
		return err
	})
}

// StartInstance boots a stopped instance of ours again, on its own disk.
func (d *Driver) StartInstance(ctx context.Context, in Intent, id string) error {
	return d.power(ctx, in, "ec2:StartInstances", id, [2]string{"pending", "running"}, func(ctx context.Context) error {
		_, err := d.ec2.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: []string{id}})
		return err
	})
}

// power carries out a call that takes an instance of ours to one of two states.
func (d *Driver) power(ctx context.Context, in Intent, op, id string, done [2]string, call func(context.Context) error) error {
	_, err := perform(ctx, d, in, action[bool]{
		op: op, input: id,
		find: func(ctx context.Context, _ *IntentRecord) (bool, bool, error) {
			i, err := d.Instance(ctx, id)
			return true, slices.Contains(done[:], i.State), err
		},
		call: func(ctx context.Context, _ *IntentRecord) (bool, error) {
			i, err := d.Instance(ctx, id)
			if err != nil {
				return false, err
			}
			ours, err := d.ours(ctx, i.Tags)
			if err != nil {
				return false, err
			}
			if !ours {
				return false, notOurs(op, id)
			}
			return true, translate(op, id, call(ctx))
		},
	})
	return err
}

// Instances reads all instances that match EC2's filters, such as "tag:…" or
// "instance-state-name"; a value may be several, separated by commas.
func (d *Driver) Instances(ctx context.Context, filter map[string]string) ([]Instance, error) {
	ctx, cancel := limit(ctx)
	defer cancel()
	var all []Instance
	for p := ec2.NewDescribeInstancesPaginator(d.ec2, &ec2.DescribeInstancesInput{Filters: ec2Filters(filter), MaxResults: new(int32(pageSize))}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, translate("ec2:DescribeInstances", "", err)
		}
		for _, r := range page.Reservations {
			for _, i := range r.Instances {
				all = append(all, instanceOf(i))
			}
		}
	}
	return all, nil
}

// Instance reads one.
func (d *Driver) Instance(ctx context.Context, id string) (Instance, error) {
	const op = "ec2:DescribeInstances"
	ctx, cancel := limit(ctx)
	defer cancel()
	out, err := d.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
	if err != nil {
		return Instance{}, translate(op, id, err)
	}
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			return instanceOf(i), nil
		}
	}
	return Instance{}, missing(op, id)
}

// Zones lists the zones that instances can be launched in, in order; those of
// other kinds, such as a city's, are not among them.
func (d *Driver) Zones(ctx context.Context) ([]string, error) {
	const op = "ec2:DescribeAvailabilityZones"
	ctx, cancel := limit(ctx)
	defer cancel()
	out, err := d.ec2.DescribeAvailabilityZones(ctx, &ec2.DescribeAvailabilityZonesInput{Filters: []types.Filter{
		{Name: new("zone-type"), Values: []string{"availability-zone"}}, {Name: new("state"), Values: []string{"available"}},
	}})
	if err != nil {
		return nil, translate(op, "", err)
	}
	var zones []string
	for _, z := range out.AvailabilityZones {
		zones = append(zones, aws.ToString(z.ZoneName))
	}
	slices.Sort(zones)
	return zones, nil
}

func instanceOf(i types.Instance) Instance {
	out := Instance{
		ID: aws.ToString(i.InstanceId), Image: aws.ToString(i.ImageId), Type: string(i.InstanceType), PrivateIP: aws.ToString(i.PrivateIpAddress),
		Launched: aws.ToTime(i.LaunchTime), Reason: aws.ToString(i.StateTransitionReason), Tags: tagsOf(i.Tags),
	}
	if i.Placement != nil {
		out.Zone = aws.ToString(i.Placement.AvailabilityZone)
	}
	if i.State != nil {
		out.State = string(i.State.Name)
	}
	if i.StateReason != nil && i.StateReason.Message != nil {
		out.Reason = *i.StateReason.Message
	}
	return out
}

// maxConsole is how much of a console is read, in bytes: what EC2 keeps.
const maxConsole = 64 << 10

// Console is the end of what the machine printed, "" where the cloud has not
// written anything down.
func (d *Driver) Console(ctx context.Context, id string) (string, error) {
	const op = "ec2:GetConsoleOutput"
	ctx, cancel := limit(ctx)
	defer cancel()
	out, err := d.ec2.GetConsoleOutput(ctx, &ec2.GetConsoleOutputInput{InstanceId: &id})
	if err != nil {
		return "", translate(op, id, err)
	}
	raw, err := base64.StdEncoding.DecodeString(aws.ToString(out.Output))
	if err != nil {
		return "", &fault.Error{Kind: fault.Failed, Op: op, Object: id, Message: "its answer is no base64"}
	}
	return strings.ToValidUTF8(string(raw[max(0, len(raw)-maxConsole):]), "?"), nil
}

func ec2Filters(filter map[string]string) []types.Filter {
	var out []types.Filter
	for _, k := range slices.Sorted(maps.Keys(filter)) {
		values := []string{filter[k]}
		if !strings.HasPrefix(k, "tag:") { // a tag's value may hold a comma
			values = strings.Split(filter[k], ",")
		}
		out = append(out, types.Filter{Name: &k, Values: values})
	}
	return out
}

func ec2Tags(tags Tags) []types.Tag {
	var out []types.Tag
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		out = append(out, types.Tag{Key: &k, Value: new(tags[k])})
	}
	return out
}

func tagsOf(tags []types.Tag) map[string]string {
	out := make(map[string]string, len(tags))
	for _, t := range tags {
		out[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return out
}
