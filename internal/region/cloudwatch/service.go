// Package cloudwatch is the region's CloudWatch, as far as somebody reads what
// load balancers counted: the requests and statuses of target groups and of
// load balancers, in AWS/ApplicationELB. It must not know where the counts come
// from, nor what is done about them.
//
// Deviations from AWS, on purpose: a value can be read seconds after it came and
// not minutes; periods of 5, 10 and 30 s are answered as well; values are kept
// for three hours, in memory, so that a new daemon begins with none (the counts
// of the time in which there was no daemon are not told to anybody); an answer of
// the balancer itself, for want of a healthy target, counts as its group's 5XX.
// TargetResponseTime has Average, Sum and SampleCount and no percentiles: what
// the balancer tells is the average of a group's last requests (of HAProxy some
// hundreds, in whole milliseconds), so it follows slowly where few requests come.
// Other metrics, other namespaces, metric math and counts' statistics other than
// Sum are refused with NotImplemented.
package cloudwatch

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
)

// Metrics is how many a target group has, in the order of names.
const Metrics = 7

var names = [Metrics]string{"RequestCount", "HTTPCode_Target_2XX_Count", "HTTPCode_Target_3XX_Count", "HTTPCode_Target_4XX_Count", "HTTPCode_Target_5XX_Count", "TargetConnectionErrorCount", responseTime}

// responseTime is kept in microseconds of all requests together.
const responseTime = "TargetResponseTime"

const (
	namespace = "AWS/ApplicationELB"
	keep      = 3 * time.Hour
)

// Step is the shortest period that can be asked for.
const Step = 5 * time.Second

// Count is what a target group got since its beginning.
type Count struct {
	LoadBalancer, TargetGroup string // dimensions' values
	Source                    string // who counted: its counts come together or not at all
	Values                    [Metrics]int64
}

// Source counts. What did not answer is left out.
type Source interface {
	Counts(ctx context.Context) ([]Count, error)
}

// Config is what the service needs. Clock and Log may be nil.
type Config struct {
	Source Source
	Clock  clock.Clock
	Log    *slog.Logger
}

// Service implements the operations of CloudWatch as methods.
type Service struct {
	c Config

	mu     sync.Mutex // for all below
	series map[key]*series
	known  map[string]time.Time // when a source told its counts last
}

type key struct{ balancer, group string }

type series struct {
	last   [Metrics]int64
	seen   time.Time
	values []value // by time, those alone in which something came
}

type value struct {
	at     time.Time
	counts [Metrics]int64
}

// New makes the service; Run fills it.
func New(c Config) *Service {
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{c: c, series: map[key]*series{}, known: map[string]time.Time{}}
}

// Run reads the counts until the context ends.
func (s *Service) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		s.Sample(ctx)
		now := s.c.Clock.Now()
		select {
		case <-ctx.Done():
		case <-s.c.Clock.After(now.Truncate(Step).Add(Step).Sub(now)):
		}
	}
	return nil
}

// Sample reads the counts once. What came since the last time belongs to the
// step before now.
func (s *Service) Sample(ctx context.Context) {
	list, err := s.c.Source.Counts(ctx)
	if err != nil && ctx.Err() == nil {
		s.c.Log.Warn("load balancers that could not be asked for their counts", "err", err)
	}
	now := s.c.Clock.Now()
	at := now.Add(-time.Millisecond).Truncate(Step).UTC() // a sample on the border ends the step before it
	s.mu.Lock()
	defer s.mu.Unlock()
	told := map[string]bool{}
	for _, c := range list {
		told[c.Source] = true
		_, known := s.known[c.Source]
		k := key{c.LoadBalancer, c.TargetGroup}
		x := s.series[k]
		if x == nil {
			x = &series{}
			if !known { // what it counted before belongs to no step that we know
				x.last = c.Values
			}
			s.series[k] = x
		}
		x.seen = now
		x.add(at, c.Values)
	}
	for src := range told {
		s.known[src] = now
	}
	for src, t := range s.known {
		if now.Sub(t) > keep {
			delete(s.known, src)
		}
	}
	for k, x := range s.series {
		x.forget(now.Add(-keep))
		if len(x.values) == 0 && now.Sub(x.seen) > keep {
			delete(s.series, k)
		}
	}
}

func (x *series) add(at time.Time, now [Metrics]int64) {
	var d [Metrics]int64
	some := false
	for i := range now {
		d[i] = now[i] - x.last[i]
		if d[i] < 0 { // it began anew
			d[i] = now[i]
		}
		some = some || d[i] > 0
	}
	x.last = now
	if !some {
		return
	}
	if n := len(x.values); n > 0 && x.values[n-1].at.Equal(at) {
		for i := range d {
			x.values[n-1].counts[i] += d[i]
		}
		return
	}
	x.values = append(x.values, value{at, d})
}

func (x *series) forget(before time.Time) {
	n := 0
	for n < len(x.values) && x.values[n].at.Before(before) {
		n++
	}
	x.values = append(x.values[:0:0], x.values[n:]...)
}
