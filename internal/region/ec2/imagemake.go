package ec2

import (
	"context"
	"errors"
	"regexp"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// baseOwner owns the images that come with the region: Debian's account.
const baseOwner = "136693071363"

var imageName = regexp.MustCompile(`^[a-zA-Z0-9()\[\] ./\-'@_]{3,128}$`)

func gib(bytes int64) int64 { return max(8, (bytes+1<<30-1)>>30) }

// RegisterBase makes an image of the hypervisor a public AMI. It may be called
// again at every start.
func (s *Service) RegisterBase(ctx context.Context, name, id string, hyper hypervisor.Image) error {
	if !imageForm.MatchString(id) {
		return wire.Errorf("InvalidAMIID.Malformed", "Invalid id: \"%.64s\"", id)
	}
	return s.update(func(tx *state.Tx) error {
		if old, ok := s.images.Get(tx, id); ok {
			if old.Disk == hyper.ID && old.Name == name {
				return nil
			}
			if old.Owner != baseOwner {
				return wire.Errorf("InvalidAMIID.Duplicate", "%s is an image of the account", id)
			}
			s.snapshots.Delete(tx, old.Snapshot)
		}
		now := s.now()
		sn := snapshot{ID: s.newID("snap"), Owner: baseOwner, Disk: hyper.ID, GiB: gib(hyper.Bytes), Bytes: hyper.Bytes, State: "completed", Started: now, Completed: now, Description: "base image " + name}
		s.snapshots.Put(tx, sn.ID, sn)
		s.images.Put(tx, id, image{ID: id, Name: name, Description: name, Owner: baseOwner, Public: true, State: "available", Disk: hyper.ID, Snapshot: sn.ID,
			Arch: hyper.Arch, GiB: sn.GiB, Created: now, VolumeType: "gp3"})
		return nil
	})
}

// nameFree checks the name of a new image: unique among the account's own.
func (s *Service) nameFree(tx *state.Tx, name string) error {
	if !imageName.MatchString(name) {
		return wire.Errorf("InvalidAMIName.Malformed", "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, '(', ')', '[', ']', ' ', '.', '/', '-', ''', '@' and '_'")
	}
	for _, o := range s.images.All(tx) {
		if o.Name == name && o.Owner == s.cfg.Account && o.State != "failed" {
			return wire.Errorf("InvalidAMIName.Duplicate", "AMI name %s is already in use by AMI %s", name, o.ID)
		}
	}
	return nil
}

// CreateImage has an image made of an instance's disk: of a stopped one as it
// is, a running one is stopped for it and started again.
func (s *Service) CreateImage(ctx context.Context, in *ec2api.CreateImageRequest) (*ec2api.CreateImageResult, error) {
	if in.SnapshotLocation == "local" {
		return nil, unsupported("local snapshots")
	}
	x := &spec{}
	if err := x.disk(in.BlockDeviceMappings); err != nil {
		return nil, err
	}
	if x.device != "" && x.device != rootDevice {
		return nil, unsupported("volumes beside the root volume %s", rootDevice)
	}
	if len(in.Description) > 255 {
		return nil, wire.Errorf("InvalidParameterValue", "The description of an image can be up to 255 characters")
	}
	tags, err := tagSpecs(ctx, in.TagSpecifications, "image", "snapshot")
	if err != nil {
		return nil, err
	}
	img := image{ID: s.newID("ami"), Name: in.Name, Description: in.Description, Owner: s.cfg.Account, State: "pending", Snapshot: s.newID("snap"), Created: s.now()}
	img.Disk = img.ID
	err = s.update(func(tx *state.Tx) error {
		i, ok := s.instances.Get(tx, in.InstanceId)
		if !ok {
			return noInstance(in.InstanceId)
		}
		if i.State != running && i.State != stopped && i.State != stopping {
			return wire.Errorf("IncorrectInstanceState", "Instance '%s' is not in state 'running' or 'stopped'", i.ID)
		}
		if i.State == running && yes(in.NoReboot) {
			return unsupported("an image of a running instance without a reboot (NoReboot): the disk would not be consistent. Stop the instance first")
		}
		if err := s.nameFree(tx, in.Name); err != nil {
			return err
		}
		src, _ := s.images.Get(tx, i.Image)
		img.Arch, img.IMDS, img.SourceInstance, img.Source = i.Arch, src.IMDS, i.ID, i.Image
		img.GiB, img.VolumeType = max(i.VolumeGiB, x.volumeGiB), i.VolumeType
		s.images.Put(tx, img.ID, img)
		s.snapshots.Put(tx, img.Snapshot, snapshot{ID: img.Snapshot, Owner: s.cfg.Account, Disk: img.Disk, Volume: volumeID(i.ID), GiB: img.GiB, State: "pending", Started: img.Created,
			Description: "Created by CreateImage(" + i.ID + ") for " + img.ID})
		s.putTags(tx, "image", img.ID, tags["image"])
		s.putTags(tx, "snapshot", img.Snapshot, tags["snapshot"])
		i.Imaging = append(slices.Clone(i.Imaging), img.ID)
		i.Epoch++
		s.putInstance(tx, i)
		return dry(in.DryRun)
	})
	if err != nil {
		return nil, err
	}
	s.work.add(in.InstanceId)
	return &ec2api.CreateImageResult{ImageId: img.ID}, nil
}

// makeImages makes the images that an instance owes. They count as made when
// the snapshot is there; the instance owes them until it runs again, so that a
// crash in between is not taken for its end.
func (r *run) makeImages(i instance) error {
	was := i.State
	if was == running {
		if err := r.with(r.stops, func() error { return r.hyper.Stop(r.ctx, i.ID, r.cfg.StopGrace) }); err != nil {
			return r.giveUp(i, err)
		}
	}
	done := map[string]bool{}
	for _, ami := range i.Imaging {
		var img image
		var ok bool
		r.view(func(tx *state.Tx) { img, ok = r.images.Get(tx, ami) })
		done[ami] = true
		if !ok || img.State != "pending" {
			continue
		}
		var made hypervisor.Image
		err := r.with(r.slots, func() (err error) {
			made, err = r.hyper.Snapshot(r.ctx, i.ID, img.Disk)
			return err
		})
		if err != nil && (r.ctx.Err() != nil || r.work.failures(i.ID) < 2 && !errors.Is(err, hypervisor.ErrNoInstance)) {
			return err
		}
		if err := r.imageMade(ami, made, err); err != nil {
			return err
		}
	}
	if was == running {
		if err := r.again(i); err != nil {
			return r.giveUp(i, err)
		}
	}
	return r.change(i.ID, func(_ *state.Tx, i *instance) bool {
		i.Imaging = slices.DeleteFunc(slices.Clone(i.Imaging), func(a string) bool { return done[a] })
		i.Epoch++
		return true
	})
}

func (r *run) imageMade(ami string, made hypervisor.Image, failure error) error {
	return r.save.do(func(tx *state.Tx) {
		if failure != nil {
			r.failImage(tx, ami, failure.Error())
			return
		}
		img, ok := r.images.Get(tx, ami)
		if !ok { // deregistered while it was made; the disk goes with the last snapshot
			return
		}
		img.State = "available"
		r.images.Put(tx, img.ID, img)
		if sn, ok := r.snapshots.Get(tx, img.Snapshot); ok {
			sn.State, sn.Bytes, sn.Completed = "completed", made.Bytes, r.now()
			r.snapshots.Put(tx, sn.ID, sn)
		}
	})
}

func (s *Service) failImage(tx *state.Tx, ami, why string) {
	img, ok := s.images.Get(tx, ami)
	if !ok || img.State != "pending" {
		return
	}
	img.State, img.Reason = "failed", internalReason(why)
	s.images.Put(tx, ami, img)
	if sn, ok := s.snapshots.Get(tx, img.Snapshot); ok {
		sn.State = "error"
		s.snapshots.Put(tx, sn.ID, sn)
	}
}
