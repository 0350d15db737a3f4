package ec2

import (
	"testing"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
)

func TestAZoneWithoutRoom(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	x := w.site("10.0.0.0/16")
	in := func(kind string) *ec2api.RunInstancesRequest {
		return &ec2api.RunInstancesRequest{ImageId: baseAMI, InstanceType: kind, SubnetId: x.public, MinCount: new(int64(1)), MaxCount: new(int64(2))}
	}
	zone := must(w.s.DescribeSubnets(w.ctx, &ec2api.DescribeSubnetsRequest{SubnetIds: []string{x.public}}))(t).Subnets[0].AvailabilityZone
	w.s.SetCapacity(zone, "t3.micro", false)
	if _, err := w.s.RunInstances(w.ctx, in("t3.micro")); code(err) != "InsufficientInstanceCapacity" {
		t.Errorf("a type without room: %v", err)
	}
	if _, err := w.s.RunInstances(w.ctx, in("t3.small")); err != nil {
		t.Errorf("another type: %v", err)
	}
	w.s.SetCapacity(zone, "", false)
	if _, err := w.s.RunInstances(w.ctx, in("t3.small")); code(err) != "InsufficientInstanceCapacity" {
		t.Errorf("a zone without room: %v", err)
	}
	w.s.SetCapacity(zone, "", true)
	w.s.SetCapacity(zone, "t3.micro", true)
	if _, err := w.s.RunInstances(w.ctx, in("t3.micro")); err != nil {
		t.Errorf("room again: %v", err)
	}
}
