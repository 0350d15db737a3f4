package ec2

import (
	"context"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/state"
)

var volumeFields = filter.Fields[*ec2api.Volume]{
	Tags: func(v *ec2api.Volume) []*ec2api.Tag { return v.Tags },
	By: map[string]func(*ec2api.Volume) []string{
		"volume-id":              func(v *ec2api.Volume) []string { return filter.One(v.VolumeId) },
		"status":                 func(v *ec2api.Volume) []string { return filter.One(v.State) },
		"volume-type":            func(v *ec2api.Volume) []string { return filter.One(v.VolumeType) },
		"snapshot-id":            func(v *ec2api.Volume) []string { return filter.One(v.SnapshotId) },
		"availability-zone":      func(v *ec2api.Volume) []string { return filter.One(v.AvailabilityZone) },
		"encrypted":              func(v *ec2api.Volume) []string { return filter.Bool(v.Encrypted) },
		"size":                   func(v *ec2api.Volume) []string { return number(v.Size) },
		"attachment.instance-id": func(v *ec2api.Volume) []string { return filter.One(v.Attachments[0].InstanceId) },
		"attachment.device":      func(v *ec2api.Volume) []string { return filter.One(v.Attachments[0].Device) },
		"attachment.status":      func(v *ec2api.Volume) []string { return filter.One(v.Attachments[0].State) },
		"attachment.delete-on-termination": func(v *ec2api.Volume) []string {
			return filter.Bool(v.Attachments[0].DeleteOnTermination)
		},
	},
}

// DescribeVolumes lists the root volumes of instances: there are no others.
func (s *Service) DescribeVolumes(ctx context.Context, in *ec2api.DescribeVolumesRequest) (*ec2api.DescribeVolumesResult, error) {
	out := &ec2api.DescribeVolumesResult{}
	q := query[ec2api.Volume]{ids: in.VolumeIds, filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: volumeFields,
		id: func(v *ec2api.Volume) string { return v.VolumeId }, missing: noVolume}
	var err error
	s.view(func(tx *state.Tx) {
		view := func(i instance) *ec2api.Volume {
			img, _ := s.images.Get(tx, i.Image)
			id := volumeID(i.ID)
			return &ec2api.Volume{VolumeId: id, VolumeArn: s.arn("volume", id), AvailabilityZone: i.Zone, AvailabilityZoneId: s.zoneID(i.Zone), CreateTime: new(i.Launched), Encrypted: new(false), MultiAttachEnabled: new(false),
				OwnerId: s.cfg.Account, Size: new(i.VolumeGiB), SnapshotId: img.Snapshot, State: "in-use", VolumeType: i.VolumeType, Tags: s.tagList(tx, id),
				Attachments: []*ec2api.VolumeAttachment{{AttachTime: new(i.Launched), DeleteOnTermination: new(true), Device: rootDevice, InstanceId: i.ID, State: "attached", VolumeId: id}}}
		}
		out.Volumes, out.NextToken, err = q.run(func(yield func(*ec2api.Volume) bool) {
			for _, i := range s.instances.All(tx) {
				if i.State != terminated && !yield(view(i)) {
					return
				}
			}
		}, func(id string) *ec2api.Volume {
			rest, ok := strings.CutPrefix(id, "vol-")
			i, found := s.instances.Get(tx, "i-"+rest)
			if !ok || !found || i.State == terminated {
				return nil
			}
			return view(i)
		})
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
