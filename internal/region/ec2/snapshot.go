package ec2

import (
	"context"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

func (s *Service) snapshotView(tx *state.Tx) func(snapshot) *ec2api.Snapshot {
	return func(v snapshot) *ec2api.Snapshot {
		o := &ec2api.Snapshot{SnapshotId: v.ID, OwnerId: v.Owner, Description: v.Description, Encrypted: new(false), State: v.State, Progress: "0%", StartTime: new(v.Started), StorageTier: "standard",
			VolumeId: v.Volume, VolumeSize: new(v.GiB), Tags: s.tagList(tx, v.ID)}
		if v.Owner == baseOwner {
			o.OwnerAlias = "amazon"
		}
		if v.Volume == "" {
			o.VolumeId = "vol-ffffffff" // AWS's for snapshots that were copied
		}
		if v.State == "completed" {
			o.Progress, o.CompletionTime, o.FullSnapshotSizeInBytes = "100%", new(v.Completed), new(v.Bytes)
		}
		return o
	}
}

var snapshotFields = filter.Fields[*ec2api.Snapshot]{
	Tags: func(v *ec2api.Snapshot) []*ec2api.Tag { return v.Tags },
	By: map[string]func(*ec2api.Snapshot) []string{
		"snapshot-id":  func(v *ec2api.Snapshot) []string { return filter.One(v.SnapshotId) },
		"description":  func(v *ec2api.Snapshot) []string { return filter.One(v.Description) },
		"encrypted":    func(v *ec2api.Snapshot) []string { return filter.Bool(v.Encrypted) },
		"owner-id":     func(v *ec2api.Snapshot) []string { return filter.One(v.OwnerId) },
		"owner-alias":  func(v *ec2api.Snapshot) []string { return filter.One(v.OwnerAlias) },
		"progress":     func(v *ec2api.Snapshot) []string { return filter.One(v.Progress) },
		"start-time":   func(v *ec2api.Snapshot) []string { return []string{v.StartTime.Format(timeForm)} },
		"status":       func(v *ec2api.Snapshot) []string { return filter.One(v.State) },
		"storage-tier": func(v *ec2api.Snapshot) []string { return filter.One(v.StorageTier) },
		"volume-id":    func(v *ec2api.Snapshot) []string { return filter.One(v.VolumeId) },
		"volume-size":  func(v *ec2api.Snapshot) []string { return number(v.VolumeSize) },
	},
}

// DescribeSnapshots lists the account's snapshots, and those of the public
// images.
func (s *Service) DescribeSnapshots(ctx context.Context, in *ec2api.DescribeSnapshotsRequest) (*ec2api.DescribeSnapshotsResult, error) {
	out := &ec2api.DescribeSnapshotsResult{}
	q := query[ec2api.Snapshot]{ids: in.SnapshotIds, filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: snapshotFields,
		id: func(v *ec2api.Snapshot) string { return v.SnapshotId }, missing: noSnapshot}
	if len(in.OwnerIds) > 0 {
		f := &ec2api.Filter{Name: "owner-id"}
		for _, o := range in.OwnerIds {
			switch o {
			case "self":
				o = s.cfg.Account
			case "amazon":
				o = baseOwner
			}
			f.Values = append(f.Values, o)
		}
		q.filters = append(slices.Clone(q.filters), f)
	}
	var err error
	s.view(func(tx *state.Tx) { out.Snapshots, out.NextToken, err = list(tx, q, s.snapshots, s.snapshotView(tx)) })
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DeleteSnapshot deletes a snapshot that no image uses, and with the last one
// the disk that it stands for.
func (s *Service) DeleteSnapshot(ctx context.Context, in *ec2api.DeleteSnapshotRequest) error {
	err := s.update(func(tx *state.Tx) error {
		sn, ok := s.snapshots.Get(tx, in.SnapshotId)
		if !ok || sn.Owner != s.cfg.Account {
			return noSnapshot(in.SnapshotId)
		}
		if ami := s.snapshotUsed(tx, sn.ID); ami != "" {
			return wire.Errorf("InvalidSnapshot.InUse", "The snapshot %s is currently in use by %s", sn.ID, ami)
		}
		s.dropSnapshot(tx, sn.ID)
		return dry(in.DryRun)
	})
	if err != nil {
		return err
	}
	s.collectSoon()
	return nil
}
