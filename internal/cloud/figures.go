package cloud

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Figures is what a load balancer counted of one target group in one period. Took
// is how long targets took until they began to answer, of all Timed together.
type Figures struct {
	TargetGroup      string // ARN
	At               time.Time
	Requests, Errors int64 // Errors: answers of 500 and more that targets gave
	Timed            int64 // requests whose time is known
	Took             time.Duration
}

// counters are the metrics of AWS/ApplicationELB that Figures is made of.
var counters = []struct {
	id, name, stat string
	add            func(*Figures, float64)
}{
	{"requests", "RequestCount", "Sum", func(f *Figures, v float64) { f.Requests += int64(v) }},
	{"errors", "HTTPCode_Target_5XX_Count", "Sum", func(f *Figures, v float64) { f.Errors += int64(v) }},
	{"timed", "TargetResponseTime", "SampleCount", func(f *Figures, v float64) { f.Timed += int64(v) }},
	{"took", "TargetResponseTime", "Sum", func(f *Figures, v float64) { f.Took += time.Duration(v * float64(time.Second)) }},
}

// FiguresPeriod is how long the periods are that Figures answers in: what was
// counted can be read when one is over, on AWS a minute or two later.
func (d *Driver) FiguresPeriod() time.Duration { return d.cfg.Figures }

// Figures reads from CloudWatch what a listener's load balancer counted of some
// target groups in the periods that begin in [from, to). A period in which
// nothing was counted is not there.
func (d *Driver) Figures(ctx context.Context, listener string, groups []string, from, to time.Time) ([]Figures, error) {
	const op = "cloudwatch:GetMetricData"
	_, id, ok := strings.Cut(listener, ":listener/")
	if cut := strings.LastIndexByte(id, '/'); ok && cut > 0 {
		id = id[:cut] // app/NAME/ID, without the listener's own
	} else {
		return nil, &fault.Error{Kind: fault.Internal, Op: op, Object: listener, Message: "it is not the ARN of a load balancer's listener"}
	}
	ctx, cancel := limit(ctx)
	defer cancel()
	in := &cloudwatch.GetMetricDataInput{StartTime: &from, EndTime: &to, ScanBy: types.ScanByTimestampAscending}
	for i, arn := range groups {
		for _, c := range counters {
			in.MetricDataQueries = append(in.MetricDataQueries, types.MetricDataQuery{Id: new(fmt.Sprintf("%s%d", c.id, i)), MetricStat: &types.MetricStat{
				Period: new(int32(d.cfg.Figures / time.Second)), Stat: &c.stat,
				Metric: &types.Metric{Namespace: new("AWS/ApplicationELB"), MetricName: &c.name, Dimensions: []types.Dimension{
					{Name: new("LoadBalancer"), Value: &id}, {Name: new("TargetGroup"), Value: new(arn[strings.LastIndexByte(arn, ':')+1:])}}},
			}})
		}
	}
	type key struct {
		group int
		at    time.Time
	}
	all := map[key]*Figures{}
	for p := cloudwatch.NewGetMetricDataPaginator(d.cw, in); p.HasMorePages(); {
		out, err := p.NextPage(ctx)
		if err != nil {
			return nil, translate(op, listener, err)
		}
		for _, r := range out.MetricDataResults {
			if s := r.StatusCode; s == types.StatusCodeForbidden || s == types.StatusCodeInternalError {
				return nil, &fault.Error{Kind: fault.Unavailable, Op: op, Object: listener, Message: "the answer is " + string(s)}
			}
			n := slices.IndexFunc(in.MetricDataQueries, func(q types.MetricDataQuery) bool { return *q.Id == aws.ToString(r.Id) })
			if n < 0 || len(r.Timestamps) != len(r.Values) {
				return nil, &fault.Error{Kind: fault.Internal, Op: op, Object: listener, Message: "the answer is not to what was asked"}
			}
			for i, at := range r.Timestamps {
				k := key{n / len(counters), at.UTC()}
				if all[k] == nil {
					all[k] = &Figures{TargetGroup: groups[k.group], At: k.at}
				}
				counters[n%len(counters)].add(all[k], r.Values[i])
			}
		}
	}
	var out []Figures
	for _, f := range all {
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b Figures) int {
		if c := a.At.Compare(b.At); c != 0 {
			return c
		}
		return strings.Compare(a.TargetGroup, b.TargetGroup)
	})
	return out, nil
}
