package cloudwatch

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/dayfly-infra/dayfly/internal/region/api/cloudwatchapi"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// As AWS has them.
const (
	maxQueries    = 500
	maxPoints     = 100_800 // of one GetMetricData
	maxStatistics = 1_440   // of one GetMetricStatistics
	pageOfMetrics = 500
)

func invalid(format string, args ...any) error {
	return wire.Errorf("InvalidParameterValue", format, args...)
}

// question is one metric over a time.
type question struct {
	metric int
	key
	from, to time.Time
	period   time.Duration
}

// ask checks a question; limit is how many points the answer may have.
func ask(ns, name string, dims []*api.Dimension, from, to time.Time, seconds int64, limit int64) (question, error) {
	q := question{metric: slices.Index(names[:], name), period: time.Duration(seconds) * time.Second}
	if ns != namespace {
		return q, wire.Unrealised("metrics of " + ns + ", those of " + namespace + " alone")
	}
	if q.metric < 0 {
		return q, wire.Unrealised("the metric " + name + ", those of " + namespace + " are " + strings.Join(names[:], ", "))
	}
	for _, d := range dims {
		switch d.Name {
		case "LoadBalancer":
			q.balancer = d.Value
		case "TargetGroup":
			q.group = d.Value
		default:
			return q, wire.Unrealised("the dimension " + d.Name)
		}
	}
	if q.balancer == "" {
		return q, wire.Unrealised("metrics without the dimension LoadBalancer")
	}
	if seconds != 5 && seconds != 10 && seconds != 30 && (seconds < 60 || seconds%60 != 0) || seconds > 86_400 {
		return q, invalid("The parameter Period must be 5, 10, 30, or a multiple of 60 up to 86400")
	}
	if !from.Before(to) {
		return q, invalid("The parameter StartTime must be less than the parameter EndTime")
	}
	q.from, q.to = from.UTC().Truncate(q.period), to.UTC()
	if n := int64(q.to.Sub(q.from) / q.period); n > limit {
		return q, invalid("You have requested up to %d datapoints, which exceeds the limit of %d. You may reduce the datapoints requested by increasing Period, or decreasing the time range.", n, limit)
	}
	return q, nil
}

// point is a period's sum, and of how many requests it is.
type point struct {
	at         time.Time
	sum, count float64
}

func (p point) stat(name string) float64 {
	switch name {
	case "Average":
		return p.sum / p.count
	case "SampleCount":
		return p.count
	}
	return p.sum
}

// stats checks the statistics of a metric and returns its unit.
func stats(metric string, names ...string) (unit string, err error) {
	unit, has := "Count", []string{"Sum"}
	if metric == responseTime {
		unit, has = "Seconds", []string{"Average", "Sum", "SampleCount"}
	}
	for _, n := range names {
		if !slices.Contains(has, n) {
			return "", wire.Unrealised("the statistic " + n + ", " + metric + " has " + strings.Join(has, ", "))
		}
	}
	return unit, nil
}

// points are in the order of time; periods in which nothing came have none.
func (s *Service) points(q question) []point {
	sums := map[time.Time]point{}
	s.mu.Lock()
	for k, x := range s.series {
		if k.balancer != q.balancer || q.group != "" && k.group != q.group {
			continue
		}
		for _, v := range x.values {
			if v.at.Before(q.from) || !v.at.Before(q.to) || !v.has(q.metric) {
				continue
			}
			p := sums[v.at.Truncate(q.period)]
			p.sum += float64(v.counts[q.metric])
			p.count += float64(v.counts[0])
			sums[v.at.Truncate(q.period)] = p
		}
	}
	s.mu.Unlock()
	var out []point
	for at, p := range sums {
		p.at = at
		if names[q.metric] == responseTime {
			p.sum /= 1e6
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b point) int { return a.at.Compare(b.at) })
	return out
}

// has tells whether a metric has something there: times have what requests have.
func (v value) has(metric int) bool {
	if names[metric] == responseTime {
		metric = 0
	}
	return v.counts[metric] > 0
}

// GetMetricData answers several questions at once, the newest value first.
func (s *Service) GetMetricData(_ context.Context, in *api.GetMetricDataInput) (*api.GetMetricDataOutput, error) {
	if n := len(in.MetricDataQueries); n == 0 || n > maxQueries {
		return nil, invalid("MetricDataQueries must have 1 to %d members", maxQueries)
	}
	if in.NextToken != "" {
		return nil, wire.Errorf("InvalidNextToken", "Invalid token '%s'", in.NextToken)
	}
	out := &api.GetMetricDataOutput{}
	left := int64(maxPoints)
	if in.MaxDatapoints != nil && *in.MaxDatapoints < left {
		return nil, wire.Unrealised("MaxDatapoints, all of up to 100800 come at once")
	}
	seen := map[string]bool{}
	for _, q := range in.MetricDataQueries {
		if seen[q.Id] {
			return nil, wire.Errorf("ValidationError", "The values for parameter id in MetricDataQueries are not unique.")
		}
		seen[q.Id] = true
		if q.MetricStat == nil || q.Expression != "" {
			return nil, wire.Unrealised("expressions")
		}
		m := q.MetricStat
		unit, err := stats(m.Metric.MetricName, m.Stat)
		if err != nil {
			return nil, err
		}
		if m.Unit != "" && m.Unit != unit {
			return nil, wire.Unrealised("the unit " + m.Unit)
		}
		ask, err := ask(m.Metric.Namespace, m.Metric.MetricName, m.Metric.Dimensions, *in.StartTime, *in.EndTime, *m.Period, left)
		if err != nil {
			return nil, err
		}
		left -= int64(ask.to.Sub(ask.from) / ask.period)
		if q.ReturnData != nil && !*q.ReturnData {
			continue
		}
		r := &api.MetricDataResult{Id: q.Id, Label: cmp.Or(q.Label, m.Metric.MetricName), StatusCode: "Complete"}
		list := s.points(ask)
		if in.ScanBy != "TimestampAscending" {
			slices.Reverse(list)
		}
		for _, p := range list {
			r.Timestamps, r.Values = append(r.Timestamps, p.at), append(r.Values, p.stat(m.Stat))
		}
		out.MetricDataResults = append(out.MetricDataResults, r)
	}
	return out, nil
}

// GetMetricStatistics answers one question.
func (s *Service) GetMetricStatistics(_ context.Context, in *api.GetMetricStatisticsInput) (*api.GetMetricStatisticsOutput, error) {
	if len(in.ExtendedStatistics) > 0 {
		return nil, wire.Unrealised("percentiles")
	}
	if len(in.Statistics) == 0 {
		return nil, invalid("At least one of the parameters Statistics and ExtendedStatistics must be specified")
	}
	unit, err := stats(in.MetricName, in.Statistics...)
	if err != nil {
		return nil, err
	}
	if in.Unit != "" && in.Unit != unit {
		return nil, wire.Unrealised("the unit " + in.Unit)
	}
	q, err := ask(in.Namespace, in.MetricName, in.Dimensions, *in.StartTime, *in.EndTime, *in.Period, maxStatistics)
	if err != nil {
		return nil, err
	}
	out := &api.GetMetricStatisticsOutput{Label: in.MetricName}
	for _, p := range s.points(q) {
		d := &api.Datapoint{Timestamp: new(p.at), Unit: unit}
		for _, name := range in.Statistics {
			*map[string]**float64{"Sum": &d.Sum, "Average": &d.Average, "SampleCount": &d.SampleCount}[name] = new(p.stat(name))
		}
		out.Datapoints = append(out.Datapoints, d)
	}
	return out, nil
}

// ListMetrics lists those that have a value.
func (s *Service) ListMetrics(_ context.Context, in *api.ListMetricsInput) (*api.ListMetricsOutput, error) {
	found := map[string]*api.Metric{}
	add := func(name string, dims ...*api.Dimension) {
		if in.Namespace != "" && in.Namespace != namespace || in.MetricName != "" && in.MetricName != name {
			return
		}
		id := name
		for _, d := range dims {
			id += " " + d.Value
		}
		for _, f := range in.Dimensions {
			if !slices.ContainsFunc(dims, func(d *api.Dimension) bool { return d.Name == f.Name && (f.Value == "" || f.Value == d.Value) }) {
				return
			}
		}
		found[id] = &api.Metric{Namespace: namespace, MetricName: name, Dimensions: dims}
	}
	s.mu.Lock()
	for k, x := range s.series {
		for i, name := range names {
			if slices.ContainsFunc(x.values, func(v value) bool { return v.has(i) }) {
				lb := &api.Dimension{Name: "LoadBalancer", Value: k.balancer}
				add(name, lb)
				add(name, &api.Dimension{Name: "TargetGroup", Value: k.group}, lb)
			}
		}
	}
	s.mu.Unlock()
	ids := slices.Sorted(maps.Keys(found))
	from := 0
	if in.NextToken != "" {
		var err error
		if from, err = strconv.Atoi(in.NextToken); err != nil || from < 0 || from > len(ids) {
			return nil, invalid("Invalid NextToken")
		}
	}
	to := min(from+pageOfMetrics, len(ids))
	out := &api.ListMetricsOutput{}
	for _, id := range ids[from:to] {
		out.Metrics = append(out.Metrics, found[id])
	}
	if to < len(ids) {
		out.NextToken = fmt.Sprint(to)
	}
	return out, nil
}
