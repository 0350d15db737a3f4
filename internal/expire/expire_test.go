package expire

import (
	"log/slog"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

type set struct {
	clock.Real
	now time.Time
}

func (s *set) Now() time.Time { return s.now }

// One look at a clock ends nothing: it may have been set for a moment.
func TestTwoLooks(t *testing.T) {
	st, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	clk := &set{now: start}
	deadline := start.Add(time.Hour)
	if err := st.Apply(t.Context(), store.NoEpoch, store.Put(environment.Kind, "e", 0, environment.Environment{Name: "e", Deadline: deadline, Phase: environment.Serving})); err != nil {
		t.Fatal(err)
	}
	l := Environments(st, clk, slog.New(slog.DiscardHandler))
	run := func(at time.Time, destroyed bool) time.Duration {
		t.Helper()
		clk.now = at
		d, err := l.Reconcile(t.Context(), "e")
		if err != nil {
			t.Fatal(err)
		}
		e, _, err := store.Get[environment.Environment](t.Context(), st, environment.Kind, "e")
		if err != nil || e.Destroy != destroyed {
			t.Fatalf("at %s destroy is %v, %v", at, e.Destroy, err)
		}
		return d
	}
	if d := run(start, false); d != longest {
		t.Errorf("it waits %s", d)
	}
	if d := run(start.Add(48*time.Hour), false); d != again { // the clock is wrong
		t.Errorf("it looks again after %s", d)
	}
	run(start.Add(time.Minute), false)    // and right again
	run(deadline.Add(time.Second), false) // the first look counts anew
	run(deadline.Add(time.Second+again/2), false)
	run(deadline.Add(2*time.Second+again), true)
}

// What stands is renewed until somebody ends it, also by a server that was away.
func TestStanding(t *testing.T) {
	st, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	clk := &set{now: start}
	if err := st.Apply(t.Context(), store.NoEpoch, store.Put(environment.Kind, "e", 0, environment.Environment{Name: "e", Deadline: start.Add(standing), Standing: true, Phase: environment.Serving})); err != nil {
		t.Fatal(err)
	}
	l := Environments(st, clk, slog.New(slog.DiscardHandler))
	for _, c := range []struct{ at, want time.Duration }{{0, standing}, {standing/2 + time.Minute, standing/2 + time.Minute + standing}, {72 * time.Hour, 96 * time.Hour}, {72*time.Hour + again, 96 * time.Hour}} {
		clk.now = start.Add(c.at)
		if _, err := l.Reconcile(t.Context(), "e"); err != nil {
			t.Fatal(err)
		}
		e, _, err := store.Get[environment.Environment](t.Context(), st, environment.Kind, "e")
		if err != nil || e.Destroy || !e.Deadline.Equal(start.Add(c.want)) || e.Notice != "" {
			t.Fatalf("after %s: %+v, %v", c.at, e, err)
		}
	}
}
