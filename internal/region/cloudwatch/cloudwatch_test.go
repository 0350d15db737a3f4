package cloudwatch_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/dayfly-infra/dayfly/internal/clock"
	api "github.com/dayfly-infra/dayfly/internal/region/api/cloudwatchapi"
	"github.com/dayfly-infra/dayfly/internal/region/cloudwatch"
	"github.com/dayfly-infra/dayfly/internal/region/iam"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const (
	lb   = "app/web/0123456789abcdef"
	blue = "targetgroup/blue/0123456789abcdef"
	grn  = "targetgroup/green/0123456789abcdef"
)

// ground counts, and is a clock that stands.
type ground struct {
	mu   sync.Mutex
	now  time.Time
	list []cloudwatch.Count
	err  error
}

func (g *ground) Counts(context.Context) ([]cloudwatch.Count, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]cloudwatch.Count(nil), g.list...), g.err
}
func (g *ground) Now() time.Time                       { g.mu.Lock(); defer g.mu.Unlock(); return g.now }
func (g *ground) After(time.Duration) <-chan time.Time { return nil }

func count(group string, requests, ok, bad int64) cloudwatch.Count {
	return cloudwatch.Count{LoadBalancer: lb, TargetGroup: group, Source: "vpc-1", Values: [cloudwatch.Metrics]int64{requests, ok, 0, 0, bad, 0, requests * 2000}}
}

// tell lets a step pass and is what the counts are then.
func (g *ground) tell(t *testing.T, s *cloudwatch.Service, list ...cloudwatch.Count) {
	t.Helper()
	g.mu.Lock()
	g.now = g.now.Add(5 * time.Second)
	g.list = list
	g.mu.Unlock()
	s.Sample(t.Context())
}

func sum(t *testing.T, s *cloudwatch.Service, metric, group string, from, to time.Time, period int64) map[string]float64 {
	t.Helper()
	dims := []*api.Dimension{{Name: "LoadBalancer", Value: lb}}
	if group != "" {
		dims = append(dims, &api.Dimension{Name: "TargetGroup", Value: group})
	}
	out, err := s.GetMetricData(t.Context(), &api.GetMetricDataInput{StartTime: &from, EndTime: &to, MetricDataQueries: []*api.MetricDataQuery{
		{Id: "a", MetricStat: &api.MetricStat{Metric: &api.Metric{Namespace: "AWS/ApplicationELB", MetricName: metric, Dimensions: dims}, Period: &period, Stat: "Sum"}}}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for i, at := range out.MetricDataResults[0].Timestamps {
		got[at.Format("15:04:05")] = out.MetricDataResults[0].Values[i]
	}
	return got
}

func same(t *testing.T, what string, got map[string]float64, want map[string]float64) {
	t.Helper()
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	if string(a) != string(b) {
		t.Errorf("%s: %s, want %s", what, a, b)
	}
}

func TestCounts(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	g := &ground{now: start}
	s := cloudwatch.New(cloudwatch.Config{Source: g, Clock: g})
	g.tell(t, s, count(blue, 1000, 990, 10))                       // :05 counted before anybody looked
	g.tell(t, s, count(blue, 1100, 1085, 15))                      // :10
	g.tell(t, s, count(blue, 1150, 1130, 20), count(grn, 7, 0, 7)) // :15 a new group of a balancer that is known
	g.err = errors.New("no answer")
	g.tell(t, s) // :20
	g.err = nil
	g.tell(t, s, count(blue, 1250, 1230, 20), count(grn, 7, 0, 7)) // :25
	g.tell(t, s, count(blue, 3, 3, 0), count(grn, 7, 0, 7))        // :30 began anew
	end := start.Add(2 * time.Minute)
	same(t, "requests", sum(t, s, "RequestCount", blue, start, end, 5), map[string]float64{"12:00:05": 100, "12:00:10": 50, "12:00:20": 100, "12:00:25": 3})
	same(t, "errors", sum(t, s, "HTTPCode_Target_5XX_Count", blue, start, end, 5), map[string]float64{"12:00:05": 5, "12:00:10": 5})
	same(t, "a new group", sum(t, s, "HTTPCode_Target_5XX_Count", grn, start, end, 60), map[string]float64{"12:00:00": 7})
	same(t, "the balancer", sum(t, s, "RequestCount", "", start, end, 60), map[string]float64{"12:00:00": 260})
	same(t, "from a time", sum(t, s, "RequestCount", blue, start.Add(10*time.Second), start.Add(20*time.Second), 10), map[string]float64{"12:00:10": 50})
	same(t, "another", sum(t, s, "RequestCount", "targetgroup/x/1", start, end, 60), map[string]float64{})
	g.mu.Lock()
	g.now = start.Add(4 * time.Hour)
	g.mu.Unlock()
	g.tell(t, s, count(blue, 3, 3, 0))
	same(t, "after three hours", sum(t, s, "RequestCount", blue, start, end, 60), map[string]float64{})
}

func TestResponseTimes(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	g := &ground{now: start}
	s := cloudwatch.New(cloudwatch.Config{Source: g, Clock: g})
	timed := func(requests, micros int64) cloudwatch.Count {
		c := count(blue, requests, requests, 0)
		c.Values[6] = micros
		return c
	}
	g.tell(t, s, timed(1000, 9_000_000))         // :05 before anybody looked
	g.tell(t, s, timed(1010, 9_000_000+500_000)) // :10 ten of 50 ms
	g.tell(t, s, timed(1040, 9_000_000+800_000)) // :15 thirty of 10 ms
	g.tell(t, s, timed(1042, 9_000_000+800_000)) // :20 two that took no time
	g.tell(t, s, timed(1042, 9_000_000+800_000)) // :25 none
	for _, c := range []struct {
		stat   string
		period int64
		want   map[string]float64
	}{
		{"Average", 5, map[string]float64{"12:00:05": 0.05, "12:00:10": 0.01, "12:00:15": 0}},
		{"Sum", 60, map[string]float64{"12:00:00": 0.8}},
		{"SampleCount", 60, map[string]float64{"12:00:00": 42}},
	} {
		dims := []*api.Dimension{{Name: "LoadBalancer", Value: lb}, {Name: "TargetGroup", Value: blue}}
		out, err := s.GetMetricData(t.Context(), &api.GetMetricDataInput{StartTime: &start, EndTime: new(start.Add(time.Minute)), MetricDataQueries: []*api.MetricDataQuery{
			{Id: "a", MetricStat: &api.MetricStat{Metric: &api.Metric{Namespace: "AWS/ApplicationELB", MetricName: "TargetResponseTime", Dimensions: dims}, Period: &c.period, Stat: c.stat, Unit: "Seconds"}}}})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for i, at := range out.MetricDataResults[0].Timestamps {
			got[at.Format("15:04:05")] = out.MetricDataResults[0].Values[i]
		}
		same(t, c.stat, got, c.want)
	}
	in := &api.GetMetricStatisticsInput{Namespace: "AWS/ApplicationELB", MetricName: "TargetResponseTime", Dimensions: []*api.Dimension{{Name: "LoadBalancer", Value: lb}}, StartTime: &start, EndTime: new(start.Add(time.Minute)), Period: new(int64(60)), Statistics: []string{"Average", "SampleCount"}}
	out, err := s.GetMetricStatistics(t.Context(), in)
	if err != nil || len(out.Datapoints) != 1 || *out.Datapoints[0].SampleCount != 42 || *out.Datapoints[0].Average != 0.8/42 || out.Datapoints[0].Sum != nil || out.Datapoints[0].Unit != "Seconds" {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestRefused(t *testing.T) {
	s := cloudwatch.New(cloudwatch.Config{Source: &ground{}})
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		what, want string
		change     func(q *api.MetricDataQuery, in *api.GetMetricDataInput)
	}{
		{"none", "", func(*api.MetricDataQuery, *api.GetMetricDataInput) {}},
		{"percentile", "NotImplemented", func(q *api.MetricDataQuery, _ *api.GetMetricDataInput) {
			q.MetricStat.Metric.MetricName, q.MetricStat.Stat = "TargetResponseTime", "p99"
		}},
		{"new connections", "NotImplemented", func(q *api.MetricDataQuery, _ *api.GetMetricDataInput) {
			q.MetricStat.Metric.MetricName = "NewConnectionCount"
		}},
		{"namespace", "NotImplemented", func(q *api.MetricDataQuery, _ *api.GetMetricDataInput) { q.MetricStat.Metric.Namespace = "AWS/EC2" }},
		{"average", "NotImplemented", func(q *api.MetricDataQuery, _ *api.GetMetricDataInput) { q.MetricStat.Stat = "Average" }},
		{"expression", "NotImplemented", func(q *api.MetricDataQuery, _ *api.GetMetricDataInput) { q.MetricStat, q.Expression = nil, "a/b" }},
		{"zone", "NotImplemented", func(q *api.MetricDataQuery, _ *api.GetMetricDataInput) {
			q.MetricStat.Metric.Dimensions[0].Name = "AvailabilityZone"
		}},
		{"period", "InvalidParameterValue", func(q *api.MetricDataQuery, _ *api.GetMetricDataInput) { q.MetricStat.Period = new(int64(7)) }},
		{"backwards", "InvalidParameterValue", func(_ *api.MetricDataQuery, in *api.GetMetricDataInput) { in.EndTime = in.StartTime }},
		{"too much", "InvalidParameterValue", func(q *api.MetricDataQuery, in *api.GetMetricDataInput) {
			q.MetricStat.Period, in.EndTime = new(int64(5)), new(start.AddDate(1, 0, 0))
		}},
		{"twice", "ValidationError", func(q *api.MetricDataQuery, in *api.GetMetricDataInput) {
			in.MetricDataQueries = append(in.MetricDataQueries, q)
		}},
	} {
		q := &api.MetricDataQuery{Id: "a", MetricStat: &api.MetricStat{Period: new(int64(60)), Stat: "Sum",
			Metric: &api.Metric{Namespace: "AWS/ApplicationELB", MetricName: "RequestCount", Dimensions: []*api.Dimension{{Name: "LoadBalancer", Value: lb}}}}}
		in := &api.GetMetricDataInput{StartTime: &start, EndTime: new(start.Add(time.Hour)), MetricDataQueries: []*api.MetricDataQuery{q}}
		tt.change(q, in)
		if _, err := s.GetMetricData(t.Context(), in); wire.CodeOf(err) != tt.want {
			t.Errorf("%s: %v, want %q", tt.what, err, tt.want)
		}
	}
}

// serve is a region with nothing but IAM's signatures and CloudWatch.
func serve(t *testing.T) string {
	t.Helper()
	db, err := state.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	who, err := iam.New(iam.Config{Account: "123456789012", Region: "local-1", AccessKeyID: "AKIATEST", SecretAccessKey: "sesame"}, db, clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	g := &ground{now: time.Now().Add(-10 * time.Second)}
	s := cloudwatch.New(cloudwatch.Config{Source: g, Clock: g})
	g.tell(t, s, count(blue, 0, 0, 0))
	g.tell(t, s, count(blue, 200, 180, 20))
	bus := wire.NewBus()
	bus.Register(api.Model, s)
	srv := httptest.NewServer(wire.NewServer(bus, who, who, slog.New(slog.DiscardHandler), clock.Real{}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// Clients speak the query protocol or JSON, by what they know.
func TestProtocols(t *testing.T) {
	addr := serve(t)
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Minute)
	form := url.Values{"Action": {"GetMetricStatistics"}, "Version": {"2010-08-01"}, "Namespace": {"AWS/ApplicationELB"}, "MetricName": {"HTTPCode_Target_5XX_Count"},
		"Dimensions.member.1.Name": {"LoadBalancer"}, "Dimensions.member.1.Value": {lb}, "Period": {"3600"}, "Statistics.member.1": {"Sum"},
		"StartTime": {from.UTC().Format(time.RFC3339)}, "EndTime": {to.UTC().Format(time.RFC3339)}}
	body, _ := json.Marshal(map[string]any{"StartTime": from.Unix(), "EndTime": to.Unix(), "MetricDataQueries": []any{map[string]any{"Id": "a", "MetricStat": map[string]any{"Period": 3600, "Stat": "Sum",
		"Metric": map[string]any{"Namespace": "AWS/ApplicationELB", "MetricName": "RequestCount", "Dimensions": []any{map[string]any{"Name": "LoadBalancer", "Value": lb}, map[string]any{"Name": "TargetGroup", "Value": blue}}}}}}})
	for _, tt := range []struct{ kind, target, body, want string }{
		{"application/x-www-form-urlencoded", "", form.Encode(), "<Sum>20</Sum>"},
		{"application/x-amz-json-1.0", "GraniteServiceVersion20100801.GetMetricData", string(body), `"Values":[200]`},
		{"application/x-amz-json-1.0", "GraniteServiceVersion20100801.PutMetricData", "{}", "NotImplemented"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", addr, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", tt.kind)
		if tt.target != "" {
			r.Header.Set("X-Amz-Target", tt.target)
		}
		h := sha256.Sum256([]byte(tt.body))
		if err := v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: "AKIATEST", SecretAccessKey: "sesame"}, r, hex.EncodeToString(h[:]), "monitoring", "local-1", time.Now()); err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if !strings.Contains(string(got), tt.want) {
			t.Errorf("%s %s: want %s in %s", tt.kind, tt.target, tt.want, got)
		}
	}
}

// The AWS command line is another implementation of the protocol.
func TestAWSCommandLine(t *testing.T) {
	cli, err := exec.LookPath("aws")
	if err != nil || testing.Short() {
		t.Skip("the AWS command line is not installed, or the test is to be short")
	}
	addr, dir := serve(t), t.TempDir()
	run := func(want string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), cli, append(args, "--output", "json")...)
		cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+addr, "AWS_REGION=local-1", "AWS_DEFAULT_REGION=local-1", "AWS_ACCESS_KEY_ID=AKIATEST", "AWS_SECRET_ACCESS_KEY=sesame",
			"AWS_CONFIG_FILE="+dir+"/config", "AWS_SHARED_CREDENTIALS_FILE="+dir+"/credentials", "AWS_EC2_METADATA_DISABLED=true")
		out, _ := cmd.CombinedOutput()
		if !strings.Contains(string(out), want) {
			t.Errorf("aws %v: want %q in %s", args, want, out)
		}
	}
	from, to := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), time.Now().Add(time.Minute).UTC().Format(time.RFC3339)
	run(`"Value": "`+blue+`"`, "cloudwatch", "list-metrics", "--namespace", "AWS/ApplicationELB", "--metric-name", "RequestCount")
	run(`"Sum": 20`, "cloudwatch", "get-metric-statistics", "--namespace", "AWS/ApplicationELB", "--metric-name", "HTTPCode_Target_5XX_Count", "--statistics", "Sum",
		"--dimensions", "Name=LoadBalancer,Value="+lb, "Name=TargetGroup,Value="+blue, "--period", "3600", "--start-time", from, "--end-time", to)
	run(" 200", "cloudwatch", "get-metric-data", "--start-time", from, "--end-time", to, "--metric-data-queries",
		`[{"Id":"a","MetricStat":{"Metric":{"Namespace":"AWS/ApplicationELB","MetricName":"RequestCount","Dimensions":[{"Name":"LoadBalancer","Value":"`+lb+`"}]},"Period":3600,"Stat":"Sum"}}]`)
	run("NotImplemented", "cloudwatch", "describe-alarms")
}
