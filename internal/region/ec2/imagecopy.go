package ec2

import (
	"context"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// CopyImage makes a second image of the same disk; it is there at once,
// because nothing is copied.
func (s *Service) CopyImage(ctx context.Context, in *ec2api.CopyImageRequest) (*ec2api.CopyImageResult, error) {
	switch {
	case in.SourceRegion != "" && in.SourceRegion != s.cfg.Region:
		return nil, unsupported("images of the region %.32s", in.SourceRegion)
	case yes(in.Encrypted) || in.KmsKeyId != "":
		return nil, unsupported("encrypted images")
	case in.DestinationOutpostArn != "" || in.DestinationAvailabilityZone != "" || in.DestinationAvailabilityZoneId != "":
		return nil, unsupported("images outside the region")
	}
	tags, err := tagSpecs(ctx, in.TagSpecifications, "image", "snapshot")
	if err != nil {
		return nil, err
	}
	hash := hashOf(in)
	out := &ec2api.CopyImageResult{}
	return out, s.update(func(tx *state.Tx) error {
		ids, err := s.once(tx, "copy-image", in.ClientToken, hash)
		if err != nil {
			return err
		}
		if ids != nil {
			out.ImageId = ids[0]
			return nil
		}
		src, ok := s.images.Get(tx, in.SourceImageId)
		if !ok {
			return noImage(in.SourceImageId)
		}
		if src.State != "available" {
			return wire.Errorf("InvalidAMIID.Unavailable", "The image id '[%s]' is not available: it is %s", src.ID, src.State)
		}
		if err := s.nameFree(tx, in.Name); err != nil {
			return err
		}
		old, _ := s.snapshots.Get(tx, src.Snapshot)
		now := s.now()
		img := src
		img.ID, img.Name, img.Description, img.Owner, img.Public, img.Created = s.newID("ami"), in.Name, in.Description, s.cfg.Account, false, now
		img.Source, img.SourceInstance, img.Snapshot = src.ID, "", s.newID("snap")
		s.images.Put(tx, img.ID, img)
		s.snapshots.Put(tx, img.Snapshot, snapshot{ID: img.Snapshot, Owner: s.cfg.Account, Disk: src.Disk, GiB: old.GiB, Bytes: old.Bytes, State: "completed", Started: now, Completed: now,
			Description: "Copied for DestinationAmi " + img.ID + " from SourceAmi " + src.ID})
		t := tags["image"]
		if yes(in.CopyImageTags) && src.Owner == s.cfg.Account {
			have, _ := s.tagsOf.Get(tx, src.ID)
			m := map[string]string{}
			for k, v := range have.Tags {
				if !reserved(k) {
					m[k] = v
				}
			}
			for k, v := range t {
				m[k] = v
			}
			t = m
		}
		s.putTags(tx, "image", img.ID, t)
		s.putTags(tx, "snapshot", img.Snapshot, tags["snapshot"])
		s.remember(tx, "copy-image", in.ClientToken, hash, img.ID)
		out.ImageId = img.ID
		return dry(in.DryRun)
	})
}

// RegisterImage makes an image of a snapshot that is there.
func (s *Service) RegisterImage(ctx context.Context, in *ec2api.RegisterImageRequest) (*ec2api.RegisterImageResult, error) {
	tags, err := tagSpecs(ctx, in.TagSpecifications, "image", "snapshot")
	if err != nil {
		return nil, err
	}
	switch {
	case in.ImageLocation != "" || in.KernelId != "" || in.RamdiskId != "" || in.UefiData != "" || in.TpmSupport != "" || len(in.BillingProducts) > 0:
		return nil, unsupported("images of anything but a snapshot of a root volume")
	case in.Architecture != "" && in.Architecture != "x86_64":
		return nil, unsupported("images for %.20s", in.Architecture)
	case in.VirtualizationType != "" && in.VirtualizationType != "hvm":
		return nil, unsupported("images for virtualization %.20s", in.VirtualizationType)
	case in.BootMode != "" && in.BootMode != "legacy-bios" && in.BootMode != "uefi-preferred":
		return nil, unsupported("images for boot mode %.20s", in.BootMode)
	case in.RootDeviceName != "" && in.RootDeviceName != rootDevice:
		return nil, unsupported("images with the root device %.40s instead of %s", in.RootDeviceName, rootDevice)
	case in.ImdsSupport != "" && in.ImdsSupport != "v2.0":
		return nil, wire.Errorf("InvalidParameterValue", "Value (%.20s) for parameter imdsSupport is invalid", in.ImdsSupport)
	case len(in.BlockDeviceMappings) != 1 || in.BlockDeviceMappings[0] == nil || in.BlockDeviceMappings[0].Ebs == nil || in.BlockDeviceMappings[0].DeviceName != rootDevice:
		return nil, unsupported("images without exactly one block device, %s with a snapshot", rootDevice)
	}
	e := in.BlockDeviceMappings[0].Ebs
	out := &ec2api.RegisterImageResult{}
	return out, s.update(func(tx *state.Tx) error {
		sn, ok := s.snapshots.Get(tx, e.SnapshotId)
		if !ok || sn.Owner != s.cfg.Account {
			return noSnapshot(e.SnapshotId)
		}
		if sn.State != "completed" {
			return wire.Errorf("IncorrectState", "The snapshot %s is %s", sn.ID, sn.State)
		}
		if err := s.nameFree(tx, in.Name); err != nil {
			return err
		}
		img := image{ID: s.newID("ami"), Name: in.Name, Description: in.Description, Owner: s.cfg.Account, State: "available", Disk: sn.Disk, Snapshot: sn.ID, Arch: "amd64",
			GiB: sn.GiB, IMDS: in.ImdsSupport, Created: s.now(), VolumeType: "gp3"}
		if e.VolumeSize != nil {
			img.GiB = max(img.GiB, *e.VolumeSize)
		}
		s.images.Put(tx, img.ID, img)
		s.putTags(tx, "image", img.ID, tags["image"])
		out.ImageId = img.ID
		return dry(in.DryRun)
	})
}
