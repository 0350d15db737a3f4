package cloud_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/fault"
	cw "github.com/dayfly-infra/dayfly/internal/region/api/cloudwatchapi"
	"github.com/dayfly-infra/dayfly/internal/region/cloudwatch"
	"github.com/dayfly-infra/dayfly/internal/region/iam"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

// source counts, and is a clock that stands.
type source struct {
	now  time.Time
	list []cloudwatch.Count
}

func (s *source) Counts(context.Context) ([]cloudwatch.Count, error) { return s.list, nil }
func (s *source) Now() time.Time                                     { return s.now }
func (s *source) After(time.Duration) <-chan time.Time               { return nil }

const (
	figuresListener = "arn:aws:elasticloadbalancing:local-1:123456789012:listener/app/web/0123456789abcdef/fedcba9876543210"
	blueTargets     = "arn:aws:elasticloadbalancing:local-1:123456789012:targetgroup/blue/0123456789abcdef"
	greenTargets    = "arn:aws:elasticloadbalancing:local-1:123456789012:targetgroup/green/0123456789abcdef"
)

// The driver against the region's own CloudWatch, by the query protocol.
func TestFigures(t *testing.T) {
	db, err := state.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	who, err := iam.New(iam.Config{Account: "123456789012", Region: "local-1", AccessKeyID: "AKIATEST", SecretAccessKey: "sesame"}, db, clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now().UTC().Truncate(time.Minute).Add(-time.Minute)
	src := &source{now: begun}
	s := cloudwatch.New(cloudwatch.Config{Source: src, Clock: src})
	sample := func(blue, blueBad, green int64) {
		src.now = src.now.Add(5 * time.Second)
		src.list = []cloudwatch.Count{
			{LoadBalancer: "app/web/0123456789abcdef", TargetGroup: "targetgroup/blue/0123456789abcdef", Source: "vpc-1", Values: [cloudwatch.Metrics]int64{blue, blue - blueBad, 0, 0, blueBad, 0, blue * 250_000}},
			{LoadBalancer: "app/web/0123456789abcdef", TargetGroup: "targetgroup/green/0123456789abcdef", Source: "vpc-1", Values: [cloudwatch.Metrics]int64{green, green, 0, 0, 0, 0, 0}},
		}
		s.Sample(t.Context())
	}
	sample(0, 0, 0)
	sample(100, 10, 7) // :05
	sample(100, 10, 7) // :10, nothing
	sample(150, 10, 9) // :15
	bus := wire.NewBus()
	bus.Register(cw.Model, s)
	server := httptest.NewServer(wire.NewServer(bus, who, who, slog.New(slog.DiscardHandler), clock.Real{}))
	t.Cleanup(server.Close)
	st, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	cfg := cloud.Config{Region: "local-1", Endpoint: server.URL, Credentials: credentials.NewStaticCredentialsProvider("AKIATEST", "sesame", ""), Owner: "me", Store: st, Figures: 5 * time.Second}
	d, err := cloud.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	groups := []string{blueTargets, greenTargets}
	got, err := d.Figures(t.Context(), figuresListener, groups, begun, begun.Add(time.Minute))
	at := func(s int) time.Time { return begun.Add(time.Duration(s) * time.Second) }
	want := []cloud.Figures{
		{TargetGroup: blueTargets, At: at(5), Requests: 100, Errors: 10, Timed: 100, Took: 25 * time.Second}, {TargetGroup: greenTargets, At: at(5), Requests: 7, Timed: 7},
		{TargetGroup: blueTargets, At: at(15), Requests: 50, Timed: 50, Took: 12500 * time.Millisecond}, {TargetGroup: greenTargets, At: at(15), Requests: 2, Timed: 2},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
	if got, err := d.Figures(t.Context(), figuresListener, groups[1:], at(10), at(15)); err != nil || len(got) != 0 {
		t.Errorf("where nothing was counted: %+v, %v", got, err)
	}
	if _, err := d.Figures(t.Context(), blueTargets, groups, begun, at(15)); fault.KindOf(err) != fault.Internal {
		t.Errorf("no listener: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Figures(ctx, figuresListener, groups, begun, at(15)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// AWS's own resolution is what a driver asks for that was told nothing else.
	cfg.Figures = 0
	if d, err = cloud.New(t.Context(), cfg); err != nil || d.FiguresPeriod() != time.Minute {
		t.Fatal(err, d.FiguresPeriod())
	}
	if got, err = d.Figures(t.Context(), figuresListener, groups[:1], begun, begun.Add(time.Minute)); err != nil || len(got) != 1 || got[0] != (cloud.Figures{TargetGroup: blueTargets, At: begun, Requests: 150, Errors: 10, Timed: 150, Took: 37500 * time.Millisecond}) {
		t.Errorf("by the minute: %+v, %v", got, err)
	}
	cfg.Figures = 7 * time.Second
	if _, err := cloud.New(t.Context(), cfg); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a period of 7 s: %v", err)
	}
}
