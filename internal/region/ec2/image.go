package ec2

import (
	"context"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

func (s *Service) imageView(tx *state.Tx) func(image) *ec2api.Image {
	return func(i image) *ec2api.Image {
		o := &ec2api.Image{
			ImageId: i.ID, Name: i.Name, Description: i.Description, OwnerId: i.Owner, Public: new(i.Public), State: i.State, Architecture: "x86_64", CreationDate: i.Created.Format(timeForm),
			ImageLocation: i.Owner + "/" + i.Name, ImageType: "machine", RootDeviceName: rootDevice, RootDeviceType: "ebs", VirtualizationType: "hvm", Hypervisor: "xen", EnaSupport: new(true),
			PlatformDetails: "Linux/UNIX", UsageOperation: "RunInstances", ImdsSupport: i.IMDS, SourceInstanceId: i.SourceInstance, SourceImageId: i.Source, BootMode: "legacy-bios", Tags: s.tagList(tx, i.ID),
			BlockDeviceMappings: []*ec2api.BlockDeviceMapping{{DeviceName: rootDevice, Ebs: &ec2api.EbsBlockDevice{DeleteOnTermination: new(true), Encrypted: new(false), SnapshotId: i.Snapshot, VolumeSize: new(i.GiB), VolumeType: i.VolumeType}}},
		}
		if i.Source != "" {
			o.SourceImageRegion = s.cfg.Region
		}
		if i.Owner == baseOwner {
			o.ImageOwnerAlias = "amazon"
		}
		if i.Reason.Code != "" {
			o.StateReason = &ec2api.StateReason{Code: i.Reason.Code, Message: i.Reason.Message}
		}
		return o
	}
}

var imageFields = filter.Fields[*ec2api.Image]{
	Tags: func(v *ec2api.Image) []*ec2api.Tag { return v.Tags },
	By: map[string]func(*ec2api.Image) []string{
		"image-id":            func(v *ec2api.Image) []string { return filter.One(v.ImageId) },
		"name":                func(v *ec2api.Image) []string { return filter.One(v.Name) },
		"description":         func(v *ec2api.Image) []string { return filter.One(v.Description) },
		"architecture":        func(v *ec2api.Image) []string { return filter.One(v.Architecture) },
		"creation-date":       func(v *ec2api.Image) []string { return filter.One(v.CreationDate) },
		"state":               func(v *ec2api.Image) []string { return filter.One(v.State) },
		"owner-id":            func(v *ec2api.Image) []string { return filter.One(v.OwnerId) },
		"owner-alias":         func(v *ec2api.Image) []string { return filter.One(v.ImageOwnerAlias) },
		"is-public":           func(v *ec2api.Image) []string { return filter.Bool(v.Public) },
		"image-type":          func(v *ec2api.Image) []string { return filter.One(v.ImageType) },
		"imds-support":        func(v *ec2api.Image) []string { return filter.One(v.ImdsSupport) },
		"hypervisor":          func(v *ec2api.Image) []string { return filter.One(v.Hypervisor) },
		"ena-support":         func(v *ec2api.Image) []string { return filter.Bool(v.EnaSupport) },
		"manifest-location":   func(v *ec2api.Image) []string { return filter.One(v.ImageLocation) },
		"platform":            func(v *ec2api.Image) []string { return filter.One(v.Platform) },
		"root-device-name":    func(v *ec2api.Image) []string { return filter.One(v.RootDeviceName) },
		"root-device-type":    func(v *ec2api.Image) []string { return filter.One(v.RootDeviceType) },
		"source-image-id":     func(v *ec2api.Image) []string { return filter.One(v.SourceImageId) },
		"source-instance-id":  func(v *ec2api.Image) []string { return filter.One(v.SourceInstanceId) },
		"virtualization-type": func(v *ec2api.Image) []string { return filter.One(v.VirtualizationType) },
		"block-device-mapping.snapshot-id": func(v *ec2api.Image) []string {
			return filter.One(v.BlockDeviceMappings[0].Ebs.SnapshotId)
		},
		"block-device-mapping.volume-size": func(v *ec2api.Image) []string { return number(v.BlockDeviceMappings[0].Ebs.VolumeSize) },
		"block-device-mapping.volume-type": func(v *ec2api.Image) []string {
			return filter.One(v.BlockDeviceMappings[0].Ebs.VolumeType)
		},
		"block-device-mapping.device-name": func(v *ec2api.Image) []string { return filter.One(v.BlockDeviceMappings[0].DeviceName) },
	},
}

// DescribeImages lists the account's images and the public ones.
func (s *Service) DescribeImages(ctx context.Context, in *ec2api.DescribeImagesRequest) (*ec2api.DescribeImagesResult, error) {
	owned := func(i image) bool {
		return len(in.Owners) == 0 || slices.ContainsFunc(in.Owners, func(o string) bool {
			return o == i.Owner || o == "self" && i.Owner == s.cfg.Account || o == "amazon" && i.Owner == baseOwner
		})
	}
	runs := func(i image) bool {
		return len(in.ExecutableUsers) == 0 || slices.ContainsFunc(in.ExecutableUsers, func(u string) bool {
			return u == "all" && i.Public // explicit launch permissions there are none
		})
	}
	out := &ec2api.DescribeImagesResult{}
	q := query[ec2api.Image]{ids: in.ImageIds, filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, least: 1, fields: imageFields,
		id: func(v *ec2api.Image) string { return v.ImageId }, missing: noImage}
	var err error
	s.view(func(tx *state.Tx) {
		if len(in.ImageIds) == 0 {
			out.Images, out.NextToken, err = q.run(func(yield func(*ec2api.Image) bool) {
				view := s.imageView(tx)
				for _, i := range s.images.All(tx) {
					if owned(i) && runs(i) && !yield(view(i)) {
						return
					}
				}
			}, nil)
			return
		}
		out.Images, out.NextToken, err = list(tx, q, s.images, s.imageView(tx))
		out.Images = slices.DeleteFunc(out.Images, func(v *ec2api.Image) bool {
			i, _ := s.images.Get(tx, v.ImageId)
			return !owned(i) || !runs(i)
		})
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DescribeImageAttribute tells one attribute of an image.
func (s *Service) DescribeImageAttribute(ctx context.Context, in *ec2api.DescribeImageAttributeRequest) (*ec2api.ImageAttribute, error) {
	var i image
	var ok bool
	var view *ec2api.Image
	s.view(func(tx *state.Tx) {
		if i, ok = s.images.Get(tx, in.ImageId); ok {
			view = s.imageView(tx)(i)
		}
	})
	if !ok {
		return nil, noImage(in.ImageId)
	}
	if i.Owner != s.cfg.Account {
		return nil, wire.Errorf("AuthFailure", "Not authorized for image:%s", i.ID)
	}
	if err := dry(in.DryRun); err != nil {
		return nil, err
	}
	out := &ec2api.ImageAttribute{ImageId: i.ID}
	switch in.Attribute {
	case "description":
		out.Description = &ec2api.AttributeValue{Value: i.Description}
	case "imdsSupport":
		out.ImdsSupport = &ec2api.AttributeValue{Value: i.IMDS}
	case "bootMode":
		out.BootMode = &ec2api.AttributeValue{Value: view.BootMode}
	case "blockDeviceMapping":
		out.BlockDeviceMappings = view.BlockDeviceMappings
	case "launchPermission", "productCodes", "kernel", "ramdisk", "sriovNetSupport", "tpmSupport", "uefiData", "lastLaunchedTime", "deregistrationProtection": // none
	default:
		return nil, wire.Errorf("InvalidParameterValue", "Value (%.64s) for parameter attribute is invalid. Unknown attribute.", in.Attribute)
	}
	return out, nil
}

// ModifyImageAttribute changes an image's description, or sets IMDSv2, which
// cannot be taken back.
func (s *Service) ModifyImageAttribute(ctx context.Context, in *ec2api.ModifyImageAttributeRequest) error {
	if in.LaunchPermission != nil || len(in.UserIds) > 0 || len(in.UserGroups) > 0 || len(in.OrganizationArns) > 0 || len(in.OrganizationalUnitArns) > 0 || in.Attribute == "launchPermission" {
		return unsupported("launch permissions: there is a single account")
	}
	if len(in.ProductCodes) > 0 {
		return unsupported("product codes")
	}
	desc, imds := in.Description, in.ImdsSupport
	switch in.Attribute {
	case "":
	case "description":
		if desc == nil {
			desc = &ec2api.AttributeValue{Value: in.Value}
		}
	case "imdsSupport":
		if imds == nil {
			imds = &ec2api.AttributeValue{Value: in.Value}
		}
	default:
		return unsupported("changing the attribute %.64q of an image", in.Attribute)
	}
	if (desc == nil) == (imds == nil) {
		return wire.Errorf("InvalidParameterCombination", "Exactly one attribute must be given")
	}
	return s.update(func(tx *state.Tx) error {
		i, ok := s.images.Get(tx, in.ImageId)
		if !ok {
			return noImage(in.ImageId)
		}
		if i.Owner != s.cfg.Account {
			return wire.Errorf("AuthFailure", "Not authorized for image:%s", i.ID)
		}
		if desc != nil {
			if len(desc.Value) > 255 {
				return wire.Errorf("InvalidParameterValue", "The description of an image can be up to 255 characters")
			}
			i.Description = desc.Value
		}
		if imds != nil {
			if imds.Value != "v2.0" {
				return wire.Errorf("InvalidParameterValue", "Value (%.20s) for parameter imdsSupport is invalid", imds.Value)
			}
			i.IMDS = imds.Value
		}
		s.images.Put(tx, i.ID, i)
		return dry(in.DryRun)
	})
}
