package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/currency"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

type set struct {
	clock.Real
	now time.Time
}

func (s *set) Now() time.Time { return s.now }

func scrape(t *testing.T, s *Set) string {
	t.Helper()
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	raw, _ := io.ReadAll(rec.Body)
	if rec.Code != 200 {
		t.Fatalf("%d: %s", rec.Code, raw)
	}
	return string(raw)
}

// Every name of the table is at /metrics, and every name there is in the table;
// the numbers are those of the records.
func TestScrape(t *testing.T) {
	st, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	clk := &set{now: time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)}
	ago := func(d time.Duration) time.Time { return clk.now.Add(-d) }
	ws := []store.Write{
		store.Put(bake.Kind, "b", 0, bake.Bake{Blocker: &blocker.Blocker{Rule: "no-capacity", Since: ago(time.Minute)}}),
		store.Put(bake.Kind, "c", 0, bake.Bake{Blocker: &blocker.Blocker{Rule: "no-capacity", Since: ago(time.Hour)}}),
		store.Put(image.Kind, "old", 0, image.Image{Name: "old", Created: ago(48 * time.Hour), State: image.Candidate}),
		store.Put(image.Kind, "new", 0, image.Image{Name: "new", Created: ago(time.Hour), State: image.Candidate}),
		store.Put(environment.Kind, "shop-dev", 0, environment.Environment{Name: "shop-dev", Blueprint: "shop", Phase: environment.Serving, Serving: 2, Deadline: clk.now.Add(2 * time.Hour)}),
		store.Put(environment.Kind, "shop-old", 0, environment.Environment{Name: "shop-old", Phase: environment.Gone}),
		store.Put(environment.GenerationKind, "shop-dev/2", 0, environment.Generation{Environment: "shop-dev", Number: 2, Size: 4, Healthy: 3, Ready: ago(10 * time.Minute)}),
	}
	for i, in := range []instance.Instance{
		{State: instance.Serving, Image: "new", Launched: ago(30 * time.Minute), InService: ago(29 * time.Minute)},
		{State: instance.Serving, Image: "new", Launched: ago(2 * time.Hour), InService: ago(time.Hour)},
		{State: instance.Failing, Image: "old", Launched: ago(30 * time.Hour), InService: ago(29 * time.Hour)},
		{State: instance.Launching, Image: "new", Launched: ago(time.Second)},
		{State: instance.Gone, Cause: instance.NeverReady, Image: "new", Launched: ago(time.Hour)},
	} {
		in.ID, in.Environment, in.Generation = fmt.Sprint("i-", i), "shop-dev", 2
		ws = append(ws, store.Put(instance.Kind, in.Name(), 0, in))
	}
	if err := st.Apply(t.Context(), store.NoEpoch, ws...); err != nil {
		t.Fatal(err)
	}
	s := New()
	s.Watch(Sources{
		Store: st, Clock: clk, Active: func() bool { return true }, Queue: func() map[string]int { return map[string]int{"bake": 3} },
		Limiter: func() map[string]Limited {
			return map[string]Limited{"ec2:RunInstances": {Waited: 90 * time.Second, Given: 2}}
		},
		Swept: func() (time.Time, int) { return ago(time.Minute), 7 },
		Currency: func(context.Context) ([]currency.Status, error) {
			return []currency.Status{{Environment: "shop-dev", Image: "old", Target: "new", Late: true}}, nil
		},
	})
	s.Request("GET", "/v1/status", 200, time.Millisecond)
	s.Request("HACK1", "", 405, time.Millisecond)
	s.Call("ec2:RunInstances", errors.New("no"), true, time.Second)
	s.Run("bake", time.Millisecond, nil)
	s.Write(nil, time.Millisecond)
	s.Forgot("run")
	for _, reason := range []string{"InstanceLaunched", "InstanceInService", "InstanceFailedToStart", "OrphanRemoved"} {
		s.Event(event.New("instance", "x", reason, event.Info, "x"))
	}
	text := scrape(t, s)
	for _, line := range []string{
		`dayfly_active 1`, `dayfly_up_to_date 1`, `dayfly_orphans 7`, `dayfly_sweep_age_seconds 60`,
		`dayfly_blocked{kind="bake",rule="no-capacity"} 2`, `dayfly_blocked_oldest_seconds{kind="bake",rule="no-capacity"} 3600`,
		`dayfly_instances{environment="shop-dev",state="serving"} 2`, `dayfly_instances{environment="shop-dev",state="launching"} 1`,
		`dayfly_instance_age_seconds_bucket{environment="shop-dev",le="3600"} 1`, `dayfly_instance_age_seconds_count{environment="shop-dev"} 3`,
		`dayfly_instance_failure_ratio 0.25`, `dayfly_environments{phase="serving"} 1`, `dayfly_environment_uptime_seconds{environment="shop-dev"} 600`,
		`dayfly_environment_healthy_ratio{environment="shop-dev"} 0.75`, `dayfly_lease_remaining_seconds{environment="shop-dev"} 7200`,
		`dayfly_image_late{environment="shop-dev"} 1`, `dayfly_image_current_ratio{environment="shop-dev"} 0.6666666666666666`, `dayfly_image_oldest_age_seconds{environment="shop-dev"} 172800`,
		`dayfly_records{kind="instance"} 5`, `dayfly_records{kind="release"} 0`, `dayfly_records_forgotten_total{kind="run"} 1`,
		`dayfly_loop_queue{loop="bake"} 3`, `dayfly_limiter_waited_seconds_total{operation="ec2:RunInstances"} 90`,
		`dayfly_cloud_requests_total{operation="ec2:RunInstances",outcome="throttled"} 1`, `dayfly_instances_failed_to_start_total 1`,
		`dayfly_http_requests_total{method="GET",route="/v1/status",status="200"} 1`, `dayfly_store_writes_total{outcome="ok"} 1`, `dayfly_http_requests_total{method="other",route="none",status="405"} 1`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("there is no line %q", line)
		}
	}
	there := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (dayfly_\S+) `).FindAllStringSubmatch(text, -1) {
		there[m[1]] = true
	}
	for _, m := range Names {
		if !there[m.Name] {
			t.Errorf("%s is in the table and not at /metrics", m.Name)
		}
		delete(there, m.Name)
	}
	if len(there) > 0 {
		t.Errorf("not in the table: %v", there)
	}
	if t.Failed() {
		t.Log(text)
	}
	st.Close()
	clk.now = clk.now.Add(time.Minute)
	if !strings.Contains(scrape(t, s), "\ndayfly_up_to_date 0\n") {
		t.Error("nothing says that the store does not answer")
	}
}
