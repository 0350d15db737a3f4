package limiter_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/cloud/limiter"
	ec2 "github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/iam"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/throttle"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

type launches struct{}

func (launches) RunInstances(context.Context, *ec2.RunInstancesRequest) (*ec2.Reservation, error) {
	return &ec2.Reservation{Instances: []*ec2.Instance{{InstanceId: "i-1"}}}, nil
}

// The driver with the limiter against the region's own buckets, which know
// nothing of each other.
func TestAgainstTheRegionsBuckets(t *testing.T) {
	run := func(with bool) (refused int, took time.Duration, stats limiter.Stats) {
		db, err := state.Open(filepath.Join(t.TempDir(), "region.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		identities, err := iam.New(iam.Config{Account: "123456789012", Region: "local-1", AccessKeyID: "AKIATEST", SecretAccessKey: "sesame"}, db, clock.Real{})
		if err != nil {
			t.Fatal(err)
		}
		bus := wire.NewBus()
		bus.Register(ec2.Model, launches{})
		w := wire.NewServer(bus, identities, identities, slog.New(slog.DiscardHandler), clock.Real{})
		gate := throttle.New(clock.Real{})
		w.Limiter = gate
		server := httptest.NewServer(w)
		defer server.Close()
		st, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		cfg := cloud.Config{Region: "local-1", Endpoint: server.URL, Credentials: credentials.NewStaticCredentialsProvider("AKIATEST", "sesame", ""), Owner: "me", Store: st}
		l := limiter.New(clock.Real{}, nil)
		if with {
			cfg.Limiter = l
		}
		d, err := cloud.New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 9 {
			wg.Go(func() {
				in := cloud.Intent{ID: fmt.Sprintf("bake/%d", i), Object: "bake"}
				if _, err := d.RunInstances(t.Context(), in, cloud.InstanceInput{Image: "ami-1", Type: "t3.small", Count: 3}); err != nil && with {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		return gate.Refused(), time.Since(start), l.Stats()["ec2:RunInstances"]
	}
	if refused, took, stats := run(true); refused != 0 || stats.Granted != 9 || stats.Throttled != 0 || took < 1900*time.Millisecond {
		t.Errorf("%d refused in %s: %+v", refused, took, stats)
	}
	if refused, _, _ := run(false); refused == 0 {
		t.Error("the region refuses nothing, so this test shows nothing")
	}
}
