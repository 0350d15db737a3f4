package throttle

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

func TestAllow(t *testing.T) {
	filtered := &ec2api.DescribeInstancesRequest{InstanceIds: []string{"i-1"}}
	for _, c := range []struct {
		service, op string
		in          any
		burst       int
		after       int // in the second after the burst
		code        string
		status      int
	}{
		{"ec2", "RunInstances", &ec2api.RunInstancesRequest{MaxCount: new(int64(1))}, 5, 2, "RequestLimitExceeded", 503},
		{"ec2", "RunInstances", &ec2api.RunInstancesRequest{MaxCount: new(int64(250))}, 4, 0, "RequestLimitExceeded", 503},
		{"ec2", "TerminateInstances", &ec2api.TerminateInstancesRequest{InstanceIds: make([]string, 20)}, 50, 1, "RequestLimitExceeded", 503},
		{"ec2", "DescribeInstances", filtered, 100, 20, "RequestLimitExceeded", 503},
		{"ec2", "DescribeInstances", &ec2api.DescribeInstancesRequest{}, 50, 10, "RequestLimitExceeded", 503},
		{"ec2", "CreateVpc", nil, 50, 5, "RequestLimitExceeded", 503},
		{"ec2", "CopyImage", nil, 100, 1, "RequestLimitExceeded", 503},
		{"autoscaling", "DeleteAutoScalingGroup", nil, 50, 5, "Throttling", 400},
		{"ssm", "SendCommand", nil, 50, 5, "ThrottlingException", 400},
		{"s3", "PUT", nil, 3500, 3500, "SlowDown", 503},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := New(clock.Real{})
			some := func() (n int, err error) {
				for n = 0; n < 10_000; n++ {
					if err = l.Allow(wire.Caller{}, c.service, c.op, c.in); err != nil {
						return n, err
					}
				}
				return n, nil
			}
			n, err := some()
			e, ok := errors.AsType[*wire.Error](err)
			if n != c.burst || !ok || e.Code != c.code || e.Status != c.status {
				t.Errorf("%s: %d at once, then %v", c.op, n, err)
			}
			time.Sleep(time.Second)
			if n, _ := some(); n != c.after {
				t.Errorf("%s: %d after a second, not %d", c.op, n, c.after)
			}
			if l.Refused() != 2 {
				t.Errorf("%d refused", l.Refused())
			}
		})
	}
}
