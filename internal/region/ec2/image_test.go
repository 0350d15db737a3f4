package ec2

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	hypersim "github.com/dayfly-infra/dayfly/internal/region/hypervisor/sim"
)

func (w *world) imageState(id string) string {
	out, err := w.s.DescribeImages(w.ctx, &ec2api.DescribeImagesRequest{ImageIds: []string{id}})
	if err != nil {
		return code(err)
	}
	return out.Images[0].State
}

func (w *world) disks() (ids []string) {
	for _, m := range must(w.hyper.Images(w.ctx))(w.t) {
		ids = append(ids, m.ID)
	}
	return ids
}

func TestImages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config, _ *hypersim.Config) { c.Hypervisor = &slowSnapshots{} })
		s, ctx := w.s, w.ctx
		x := w.site("10.0.0.0/16")
		id := w.run(x.public, 1)[0]
		w.await(running, id)
		spec := []*ec2api.TagSpecification{{ResourceType: "image", Tags: []*ec2api.Tag{{Key: "build", Value: "1"}}}, {ResourceType: "snapshot", Tags: []*ec2api.Tag{{Key: "build", Value: "1"}}}}
		a := must(s.CreateImage(ctx, &ec2api.CreateImageRequest{InstanceId: id, Name: "web-1", TagSpecifications: spec}))(t).ImageId
		if w.imageState(a) != pending {
			t.Errorf("at once it is %s", w.imageState(a))
		}
		if _, err := s.CreateImage(ctx, &ec2api.CreateImageRequest{InstanceId: id, Name: "web-1"}); code(err) != "InvalidAMIName.Duplicate" {
			t.Errorf("%v", err)
		}
		w.until("the image is available", func() bool { return w.imageState(a) == "available" })
		w.until("the instance runs again", func() bool { return w.hyper.Ready(ctx, id) == nil })
		if w.state(id) != running {
			t.Errorf("the instance is %s", w.state(id))
		}
		must(s.StopInstances(ctx, &ec2api.StopInstancesRequest{InstanceIds: []string{id}}))(t)
		w.await(stopped, id)
		b := must(s.CreateImage(ctx, &ec2api.CreateImageRequest{InstanceId: id, Name: "web-2", NoReboot: new(true)}))(t).ImageId
		w.until("the second is available", func() bool { return w.imageState(b) == "available" })
		if w.state(id) != stopped {
			t.Errorf("the stopped instance is %s", w.state(id))
		}
		for _, c := range []struct {
			in   *ec2api.DescribeImagesRequest
			want int
		}{
			{&ec2api.DescribeImagesRequest{}, 3},
			{&ec2api.DescribeImagesRequest{Owners: []string{"self"}}, 2},
			{&ec2api.DescribeImagesRequest{Owners: []string{"amazon"}}, 1},
			{&ec2api.DescribeImagesRequest{Owners: []string{"136693071363"}, Filters: []*ec2api.Filter{{Name: "name", Values: []string{"debian-*"}}}}, 1},
			{&ec2api.DescribeImagesRequest{Filters: []*ec2api.Filter{{Name: "tag:build", Values: []string{"1"}}}}, 1},
			{&ec2api.DescribeImagesRequest{Filters: []*ec2api.Filter{{Name: "is-public", Values: []string{"false"}}}}, 2},
		} {
			if got := must(s.DescribeImages(ctx, c.in))(t).Images; len(got) != c.want {
				t.Errorf("%+v: %d images", c.in, len(got))
			}
		}
		// A machine of the image, which outlives the image.
		child := w.run(x.private, 1, func(in *ec2api.RunInstancesRequest) { in.ImageId = a })[0]
		w.await(running, child)
		ok(t, s.ModifyImageAttribute(ctx, &ec2api.ModifyImageAttributeRequest{ImageId: b, ImdsSupport: &ec2api.AttributeValue{Value: "v2.0"}}))
		if v := must(s.DescribeImageAttribute(ctx, &ec2api.DescribeImageAttributeRequest{ImageId: b, Attribute: "imdsSupport"}))(t); v.ImdsSupport.Value != "v2.0" {
			t.Errorf("%+v", v)
		}
		strict := w.run(x.private, 1, func(in *ec2api.RunInstancesRequest) { in.ImageId = b })[0]
		if v, _ := s.Snapshot(strict); !v.Metadata.TokenRequired || v.Metadata.HopLimit != 2 {
			t.Errorf("%+v", v.Metadata)
		}
		snap := must(s.DescribeImages(ctx, &ec2api.DescribeImagesRequest{ImageIds: []string{a}}))(t).Images[0].BlockDeviceMappings[0].Ebs.SnapshotId
		if err := s.DeleteSnapshot(ctx, &ec2api.DeleteSnapshotRequest{SnapshotId: snap}); code(err) != "InvalidSnapshot.InUse" {
			t.Errorf("%v", err)
		}
		copied := must(s.CopyImage(ctx, &ec2api.CopyImageRequest{SourceImageId: a, SourceRegion: "local-1", Name: "web-1-copy"}))(t).ImageId
		must(s.DeregisterImage(ctx, &ec2api.DeregisterImageRequest{ImageId: a}))(t)
		ok(t, s.DeleteSnapshot(ctx, &ec2api.DeleteSnapshotRequest{SnapshotId: snap}))
		time.Sleep(2 * time.Second)
		if len(w.disks()) != 3 {
			t.Errorf("disks %v: the copy still needs the first's", w.disks())
		}
		again := must(s.RegisterImage(ctx, &ec2api.RegisterImageRequest{Name: "web-3", ImdsSupport: "v2.0", RootDeviceName: rootDevice, BlockDeviceMappings: []*ec2api.BlockDeviceMapping{{DeviceName: rootDevice,
			Ebs: &ec2api.EbsBlockDevice{SnapshotId: must(s.DescribeImages(ctx, &ec2api.DescribeImagesRequest{ImageIds: []string{b}}))(t).Images[0].BlockDeviceMappings[0].Ebs.SnapshotId}}}}))(t).ImageId
		for _, ami := range []string{copied, again, b} {
			must(s.DeregisterImage(ctx, &ec2api.DeregisterImageRequest{ImageId: ami, DeleteAssociatedSnapshots: new(true)}))(t)
		}
		if left := must(s.DescribeSnapshots(ctx, &ec2api.DescribeSnapshotsRequest{OwnerIds: []string{"self"}}))(t).Snapshots; len(left) != 0 {
			t.Errorf("%d snapshots are left", len(left))
		}
		w.await(running, child, strict)
		w.terminate(id, child, strict)
		w.until("the disks are gone", func() bool { return len(w.disks()) == 1 })
		w.raze(x)
		w.close()
	})
}

// An instance that is terminated while its image is made takes the image with
// it, not the service.
func TestImageOfADyingInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		x := w.site("10.0.0.0/16")
		id := w.run(x.public, 1)[0]
		w.await(running, id)
		w.stop() // nobody works meanwhile
		w.start()
		ami := must(w.s.CreateImage(w.ctx, &ec2api.CreateImageRequest{InstanceId: id, Name: "web"}))(t).ImageId
		w.terminate(id)
		synctest.Wait()
		if st := w.imageState(ami); st != "failed" && st != "available" {
			t.Errorf("the image is %s", st)
		}
		must(w.s.DeregisterImage(w.ctx, &ec2api.DeregisterImageRequest{ImageId: ami, DeleteAssociatedSnapshots: new(true)}))(t)
		w.until("the disks are gone", func() bool { return len(w.disks()) == 1 })
		w.raze(x)
		w.close()
	})
}
