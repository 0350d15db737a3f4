package cloud

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// CreateImage begins an image of a stopped instance and returns its id without
// waiting for it. The name is for ever: it is how the image is found again.
func (d *Driver) CreateImage(ctx context.Context, in Intent, instance, name string, tags Tags) (id string, err error) {
	const op = "ec2:CreateImage"
	find := func(ctx context.Context) (string, bool, error) {
		images, err := d.images(ctx, map[string]string{"name": name})
		if err != nil || len(images) == 0 {
			return "", false, err
		}
		if i := images[0]; i.Tags[TagOwner] == d.cfg.Owner && i.Tags[TagIntent] == in.ID {
			return i.ID, true, nil
		}
		return "", false, &fault.Error{Kind: fault.Conflict, Op: op, Object: name, Code: "InvalidAMIName.Duplicate", Message: "an image of this name is there already, and this step did not make it"}
	}
	return perform(ctx, d, in, action[string]{
		op: op, input: []any{instance, name, stable(tags)},
		find: func(ctx context.Context, _ *IntentRecord) (string, bool, error) { return find(ctx) },
		call: func(ctx context.Context, _ *IntentRecord) (string, error) {
			t := ec2Tags(d.marked(in, tags))
			out, err := d.ec2.CreateImage(ctx, &ec2.CreateImageInput{
				InstanceId: &instance, Name: &name, NoReboot: new(true),
				TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeImage, Tags: t}, {ResourceType: types.ResourceTypeSnapshot, Tags: t}},
			})
			if err == nil {
				return aws.ToString(out.ImageId), nil
			}
			err = translate(op, instance, err)
			if fault.CodeOf(err) == "InvalidAMIName.Duplicate" {
				if id, found, ferr := find(ctx); found || ferr != nil {
					return id, ferr
				}
			}
			return "", err
		},
	})
}

// DeleteImage deregisters an image of ours and deletes its snapshots; one that
// is not there is a success.
func (d *Driver) DeleteImage(ctx context.Context, in Intent, id string) error {
	const op = "ec2:DeregisterImage"
	type plan struct {
		Registered bool     `json:"registered"`
		Snapshots  []string `json:"snapshots"`
	}
	_, err := perform(ctx, d, in, action[bool]{
		op: op, input: id,
		// The snapshots are known through the image only, so they are kept
		// before it goes.
		plan: func(ctx context.Context) (any, error) {
			i, err := d.Image(ctx, id)
			if isNotFound(err) {
				return plan{}, nil
			}
			if err == nil && i.Tags[TagOwner] != d.cfg.Owner {
				err = notOurs(op, id)
			}
			return plan{true, i.Snapshots}, err
		},
		find: func(context.Context, *IntentRecord) (bool, bool, error) { return false, false, nil },
		call: func(ctx context.Context, r *IntentRecord) (bool, error) {
			var p plan
			if err := json.Unmarshal(r.Plan, &p); err != nil {
				return false, fmt.Errorf("intent %s: %w", in.ID, err)
			}
			if !p.Registered {
				return true, nil
			}
			_, err := d.ec2.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: &id})
			if err := translate(op, id, err); err != nil && !isNotFound(err) {
				return false, err
			}
			for _, s := range p.Snapshots {
				_, err := d.ec2.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &s})
				if err := translate("ec2:DeleteSnapshot", s, err); err != nil && !isNotFound(err) {
					return false, err
				}
			}
			return true, nil
		},
	})
	return err
}

// Image reads one, whoever owns it.
func (d *Driver) Image(ctx context.Context, id string) (Image, error) {
	const op = "ec2:DescribeImages"
	ctx, cancel := limit(ctx)
	defer cancel()
	out, err := d.ec2.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{id}})
	if err != nil {
		return Image{}, translate(op, id, err)
	}
	if len(out.Images) == 0 {
		return Image{}, missing(op, id)
	}
	return imageOf(out.Images[0]), nil
}

// Images reads all that are ours.
func (d *Driver) Images(ctx context.Context) ([]Image, error) {
	return d.images(ctx, map[string]string{"tag:" + TagOwner: d.cfg.Owner})
}

func (d *Driver) images(ctx context.Context, filter map[string]string) ([]Image, error) {
	ctx, cancel := limit(ctx)
	defer cancel()
	var all []Image
	for p := ec2.NewDescribeImagesPaginator(d.ec2, &ec2.DescribeImagesInput{Owners: []string{"self"}, Filters: ec2Filters(filter), MaxResults: new(int32(pageSize))}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, translate("ec2:DescribeImages", "", err)
		}
		for _, i := range page.Images {
			all = append(all, imageOf(i))
		}
	}
	return all, nil
}

func imageOf(i types.Image) Image {
	out := Image{ID: aws.ToString(i.ImageId), Name: aws.ToString(i.Name), State: string(i.State), Tags: tagsOf(i.Tags)}
	if i.StateReason != nil {
		out.Reason = aws.ToString(i.StateReason.Message)
	}
	for _, b := range i.BlockDeviceMappings {
		if b.Ebs != nil && aws.ToString(b.Ebs.SnapshotId) != "" {
			out.Snapshots = append(out.Snapshots, *b.Ebs.SnapshotId)
		}
	}
	if t, err := time.Parse(time.RFC3339, aws.ToString(i.CreationDate)); err == nil {
		out.Created = t
	}
	return out
}
