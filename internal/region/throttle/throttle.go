// Package throttle refuses requests to the region that come faster than AWS
// takes them: a token bucket per operation for requests and, where EC2 counts
// them, for instances, each error in the words of its service. It knows what is
// asked and not what becomes of it.
package throttle

import (
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

type size struct{ burst, rate float64 }

// As AWS publishes them for EC2. For other services it publishes nothing but
// S3's rates: those of theirs that are here are as generous as accounts know
// them to be.
var (
	requests = map[string]size{
		"ec2:RunInstances": {5, 2}, "ec2:StartInstances": {5, 2}, "ec2:TerminateInstances": {100, 5},
		"ec2:CreateTags": {100, 10}, "ec2:DeleteTags": {100, 10},
		"ec2:CreateLaunchTemplateVersion": {100, 5}, "ec2:DeregisterImage": {100, 5}, "ec2:DeleteSnapshot": {100, 5}, "ec2:CopyImage": {100, 1},
		"ssm:GetParameter": {40, 40},
	}
	things = map[string]size{
		"ec2:RunInstances": {1000, 2}, "ec2:StartInstances": {1000, 2},
		"ec2:TerminateInstances": {1000, 20}, "ec2:StopInstances": {1000, 20},
	}
	wholeRead = size{50, 10}
	reads     = map[string]size{"s3": {5500, 5500}, "": {100, 20}}
	writes    = map[string]size{"s3": {3500, 3500}, "": {50, 5}}
)

// Limiter implements wire.Limiter for one account.
type Limiter struct {
	clock clock.Clock

	mu      sync.Mutex // for all below
	buckets map[string]*bucket
	refused int
}

type bucket struct {
	size
	tokens float64
	at     time.Time
}

// New makes a limiter with full buckets.
func New(c clock.Clock) *Limiter { return &Limiter{clock: c, buckets: map[string]*bucket{}} }

// Refused is how many requests were refused so far.
func (l *Limiter) Refused() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

// Allow implements wire.Limiter.
func (l *Limiter) Allow(_ wire.Caller, service, op string, in any) error {
	if service == "iam" || service == "sts" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	key := service + ":" + op
	s, reading := sizeOf(service, op)
	if service == "ec2" && reading && whole(in) {
		key, s = key+" of all", wholeRead
	}
	first := l.bucket(key, s)
	var second *bucket
	n := 0.0
	if t, ok := things[key]; ok {
		second, n = l.bucket(key+" things", t), float64(count(in))
	}
	if first.tokens < 1 || second != nil && second.tokens < n {
		l.refused++
		return refusal(service)
	}
	first.tokens--
	if second != nil {
		second.tokens -= n
	}
	return nil
}

func (l *Limiter) bucket(key string, s size) *bucket {
	now := l.clock.Now()
	b := l.buckets[key]
	if b == nil {
		b = &bucket{size: s, tokens: s.burst, at: now}
		l.buckets[key] = b
	}
	b.tokens = min(b.tokens+b.rate*now.Sub(b.at).Seconds(), b.burst)
	b.at = now
	return b
}

func sizeOf(service, op string) (s size, reading bool) {
	of := writes
	for _, p := range []string{"Describe", "Get", "List", "Head", "GET", "HEAD"} {
		if strings.HasPrefix(op, p) {
			of, reading = reads, true
		}
	}
	if s, ok := requests[service+":"+op]; ok {
		return s, reading
	}
	if s, ok := of[service]; ok {
		return s, reading
	}
	return of[""], reading
}

// whole tells whether a read names nothing, no filter and no page.
func whole(in any) bool {
	v := reflect.Indirect(reflect.ValueOf(in))
	if v.Kind() != reflect.Struct {
		return false
	}
	for i := range v.NumField() {
		name, f := v.Type().Field(i).Name, v.Field(i)
		if (name == "MaxResults" || name == "NextToken" || f.Kind() == reflect.Slice) && !f.IsZero() {
			return false
		}
	}
	return true
}

// count is how many instances a request is about.
func count(in any) int {
	switch in := in.(type) {
	case *ec2api.RunInstancesRequest:
		if in.MaxCount != nil {
			return int(*in.MaxCount)
		}
	case *ec2api.TerminateInstancesRequest:
		return len(in.InstanceIds)
	case *ec2api.StopInstancesRequest:
		return len(in.InstanceIds)
	case *ec2api.StartInstancesRequest:
		return len(in.InstanceIds)
	}
	return 1
}

func refusal(service string) error {
	switch service {
	case "ec2":
		return &wire.Error{Code: "RequestLimitExceeded", Message: "Request limit exceeded.", Status: http.StatusServiceUnavailable}
	case "ssm":
		return &wire.Error{Code: "ThrottlingException", Message: "Rate exceeded", Status: http.StatusBadRequest}
	case "s3":
		return &wire.Error{Code: "SlowDown", Message: "Please reduce your request rate.", Status: http.StatusServiceUnavailable}
	}
	return &wire.Error{Code: "Throttling", Message: "Rate exceeded", Status: http.StatusBadRequest}
}
