package ec2

import (
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	hypersim "github.com/dayfly-infra/dayfly/internal/region/hypervisor/sim"
)

// Two thousand instances, one by one and together, take seconds: nothing does
// work for each instance at each instance.
func TestTwoThousand(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	w := newWorld(t, func(c *Config, _ *hypersim.Config) { c.Parallel = 16 })
	x := w.site("10.0.0.0/16")
	big := must(w.s.CreateSubnet(w.ctx, &ec2api.CreateSubnetRequest{VpcId: x.vpc, CidrBlock: "10.0.16.0/20"}))(t).Subnet.SubnetId
	start := time.Now()
	ids := w.run(big, 1500, func(in *ec2api.RunInstancesRequest) { in.SecurityGroupIds = []string{x.group} })
	for range 500 {
		ids = append(ids, w.run(big, 1)...)
	}
	w.await(running, ids...)
	launched := time.Since(start)
	all := must(w.s.DescribeInstances(w.ctx, &ec2api.DescribeInstancesRequest{}))(t)
	n := 0
	for _, r := range all.Reservations {
		n += len(r.Instances)
	}
	described := time.Since(start) - launched
	w.terminate(ids...)
	ended := time.Since(start) - launched - described
	t.Logf("%d launched in %s, described in %s, terminated in %s", n, launched, described, ended)
	if n != 2000 || launched > 30*time.Second || described > 2*time.Second || ended > 30*time.Second {
		t.Error("that is too slow")
	}
	ok(t, w.s.DeleteSubnet(w.ctx, &ec2api.DeleteSubnetRequest{SubnetId: big}))
	w.raze(x)
	w.close()
}
