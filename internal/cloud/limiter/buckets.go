package limiter

import (
	"strings"

	"github.com/dayfly-infra/dayfly/internal/cloud"
)

// Bucket is how many tokens an account has at once, and how many come back in
// a second.
type Bucket struct{ Burst, Rate float64 }

// Buckets of an operation. AWS has one of each per operation, account and
// region; Things is zero where only requests count.
type Buckets struct{ Requests, Things Bucket }

// EC2 publishes its buckets, S3 the rates of a prefix, Systems Manager those of
// its Parameter Store, CloudWatch those of GetMetricData. For the others nothing is published: what stands here
// is what accounts are known to have, and the answers correct it.
var (
	special = map[string]Buckets{
		"ec2:RunInstances":                {Bucket{5, 2}, Bucket{1000, 2}},
		"ec2:TerminateInstances":          {Bucket{100, 5}, Bucket{1000, 20}},
		"ec2:StartInstances":              {Bucket{5, 2}, Bucket{1000, 2}},
		"ec2:StopInstances":               {Bucket{50, 5}, Bucket{1000, 20}},
		"ec2:CreateTags":                  {Requests: Bucket{100, 10}},
		"ec2:DeleteTags":                  {Requests: Bucket{100, 10}},
		"ec2:CreateLaunchTemplateVersion": {Requests: Bucket{100, 5}},
		"ec2:DeregisterImage":             {Requests: Bucket{100, 5}},
		"ec2:DeleteSnapshot":              {Requests: Bucket{100, 5}},
		"ec2:CopyImage":                   {Requests: Bucket{100, 1}},
		"ssm:GetParameter":                {Requests: Bucket{40, 40}},
		"ssm:SendCommand":                 {Requests: Bucket{40, 5}},
	}
	reads = map[string]Bucket{
		"ec2": {100, 20}, "cloudformation": {100, 20}, "autoscaling": {100, 20}, "elasticloadbalancing": {100, 20},
		"ssm": {100, 20}, "s3": {5500, 5500}, "sts": {100, 50},
		"cloudwatch": {50, 50},
	}
	writes = map[string]Bucket{
		"ec2": {50, 5}, "cloudformation": {50, 5}, "autoscaling": {50, 5}, "elasticloadbalancing": {50, 5},
		"ssm": {40, 5}, "s3": {3500, 3500},
	}
	wholeReads = Bucket{50, 10} // of EC2, neither filtered nor by pages
	unknown    = Bucket{50, 5}
)

// BucketsOf returns the buckets of an operation, such as "ec2:RunInstances".
func BucketsOf(op string) Buckets {
	if b, ok := special[op]; ok {
		return b
	}
	service, name, _ := strings.Cut(op, ":")
	of := writes
	for _, r := range []string{"Describe", "Get", "List", "Head"} {
		if strings.HasPrefix(name, r) {
			of = reads
		}
	}
	if service == "ec2" && strings.HasSuffix(name, cloud.Unfiltered) {
		return Buckets{Requests: wholeReads}
	}
	if b, ok := of[service]; ok {
		return Buckets{Requests: b}
	}
	return Buckets{Requests: unknown}
}
