package ec2

import (
	"context"
	"errors"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// DeregisterImage forgets an image; its snapshots stay unless told otherwise.
// Instances that were made of it go on.
func (s *Service) DeregisterImage(ctx context.Context, in *ec2api.DeregisterImageRequest) (*ec2api.DeregisterImageResult, error) {
	out := &ec2api.DeregisterImageResult{Return: new(true)}
	err := s.update(func(tx *state.Tx) error {
		img, ok := s.images.Get(tx, in.ImageId)
		if !ok {
			return noImage(in.ImageId)
		}
		if img.Owner != s.cfg.Account {
			return wire.Errorf("AuthFailure", "Not authorized for image:%s", img.ID)
		}
		s.images.Delete(tx, img.ID)
		s.tagsOf.Delete(tx, img.ID)
		if yes(in.DeleteAssociatedSnapshots) {
			code := "success"
			if s.snapshotUsed(tx, img.Snapshot) != "" {
				code = "skipped"
			} else {
				s.dropSnapshot(tx, img.Snapshot)
			}
			out.DeleteSnapshotResults = append(out.DeleteSnapshotResults, &ec2api.DeleteSnapshotReturnCode{SnapshotId: img.Snapshot, ReturnCode: code})
		}
		s.discard(tx, img.Disk)
		return dry(in.DryRun)
	})
	if err != nil {
		return nil, err
	}
	s.collectSoon()
	return out, nil
}

func (s *Service) snapshotUsed(tx *state.Tx, id string) (ami string) {
	for _, o := range s.images.All(tx) {
		if o.Snapshot == id {
			return o.ID
		}
	}
	return ""
}

func (s *Service) dropSnapshot(tx *state.Tx, id string) {
	sn, ok := s.snapshots.Get(tx, id)
	if ok {
		s.snapshots.Delete(tx, id)
		s.tagsOf.Delete(tx, id)
		s.discard(tx, sn.Disk)
	}
}

// discard marks a hypervisor's image for deletion where nothing refers to it
// any more.
func (s *Service) discard(tx *state.Tx, disk string) {
	if !s.diskUsed(tx, disk) {
		s.garbage.Put(tx, disk, garbage{Disk: disk})
	}
}

func (s *Service) diskUsed(tx *state.Tx, disk string) bool {
	for _, o := range s.images.All(tx) {
		if o.Disk == disk {
			return true
		}
	}
	for _, o := range s.snapshots.All(tx) {
		if o.Disk == disk {
			return true
		}
	}
	return false
}

// collect deletes the hypervisor's images that nothing refers to and that no
// instance uses: as long as one does, the hypervisor says so, or it is still
// to be created.
func (s *Service) collect(ctx context.Context) {
	var todo []string
	s.view(func(tx *state.Tx) {
		if s.garbage.Len(tx) == 0 {
			return
		}
		coming := map[string]bool{}
		for _, i := range s.instances.All(tx) {
			if i.State == pending && !i.Booted || len(i.Imaging) > 0 {
				coming[i.Disk] = true
			}
			for _, ami := range i.Imaging {
				coming[ami] = true
			}
		}
		for disk := range s.garbage.All(tx) {
			if !coming[disk] && !s.diskUsed(tx, disk) {
				todo = append(todo, disk)
			}
		}
	})
	for _, disk := range todo {
		err := s.hyper.DeleteImage(ctx, disk)
		if errors.Is(err, hypervisor.ErrInUse) {
			continue
		}
		if err == nil {
			err = s.update(func(tx *state.Tx) error { s.garbage.Delete(tx, disk); return nil })
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("an image that nothing refers to was not deleted", "image", disk, "error", err)
		}
	}
}

// collectSoon has Run collect now rather than at its next tick.
func (s *Service) collectSoon() {
	select {
	case s.litter <- struct{}{}:
	default:
	}
}
