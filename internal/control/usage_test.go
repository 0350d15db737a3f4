package control

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/report"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// What instances cost is known when their records are forgotten, and no second
// of it is counted twice on the way.
func TestUsage(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.api.cfg.Report = report.Config{Currency: "EUR", Prices: map[string]float64{"unknown": 2, "m7g.large": 2, "t3.micro": 2}}
		began := time.Now()
		end := w.start(w.store)
		w.mustDeploy()
		w.serves(1)
		w.wait("all are noted", func() bool { return w.whole(1, 3) })
		old := w.instances(1)[0]
		if _, err := w.api.ReplaceInstance(t.Context(), server.ReplaceInstance{Name: old.ID}); err != nil {
			t.Fatal(err)
		}
		w.wait("it is gone", func() bool { return w.instance(old.Name()).State == instance.Gone && w.whole(1, 3) })
		usage := func() report.Report {
			t.Helper()
			r, err := w.api.Usage(t.Context(), began, time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		// All are remembered still: so many hours were lived.
		check := func(when string) {
			t.Helper()
			var want float64
			all, err := store.List[instance.Instance](t.Context(), w.store, instance.Kind, "")
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range all {
				end := time.Now()
				if i.State == instance.Gone {
					end = i.Ended
				}
				want += end.Sub(i.Launched).Hours()
			}
			r := usage()
			if len(all) != 4 || r.Launches.Launched != 4 || r.Launches.Failed != 0 || math.Abs(r.Hours-want) > 0.001 || r.Cost == nil || math.Abs(*r.Cost-2*r.Hours) > 0.001 {
				t.Errorf("%s: %d records, %+v, %v hours and not %v, cost %v, unpriced %q", when, len(all), r.Launches, r.Hours, want, r.Cost, r.Unpriced)
			}
		}
		check("while it serves")
		w.destroy()
		w.wait("all are noted down as gone", func() bool { return w.whole(1, 0) })
		check("when it is gone")
		r := usage()
		if r.Deploys.Begun != 1 || r.Deploys.Ready != 1 || r.Deploys.Rollbacks != 0 || *r.Deploys.Took.Median <= 0 {
			t.Errorf("%+v", r.Deploys)
		}
		if len(r.Environments) != 1 || r.Environments[0].Name != "shop-dev" || r.Environments[0].Team != "shop" {
			t.Fatalf("%+v", r.Environments)
		}
		if u := r.Environments[0].Uptime; u == nil || u.Share != 1 || u.Watched <= 0 || u.Watched > time.Since(began).Seconds() {
			t.Errorf("it was up %+v", u)
		}
		// Four days later nobody remembers them.
		end()
		records, err := w.store.List(t.Context(), instance.Kind, "")
		for _, rec := range records {
			if err == nil {
				err = w.store.Apply(t.Context(), store.NoEpoch, store.Delete(rec.Kind, rec.Name, rec.Version))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := w.api.tidyTallies(t.Context(), time.Now().Add(4*24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		later := usage()
		if later.Launches.Launched != 4 || math.Abs(later.Hours-r.Hours) > 1e-9 {
			t.Errorf("%v hours and %+v, and they were %v and %+v", later.Hours, later.Launches, r.Hours, r.Launches)
		}
		tallies, err := store.List[report.Tally](t.Context(), w.store, report.TallyKind, "")
		if err != nil || len(tallies) != 1 || tallies[0].Generation != 0 {
			t.Errorf("after tidying: %+v, %v", tallies, err)
		}
		if _, err := w.api.Usage(t.Context(), time.Now().Add(time.Hour), time.Time{}); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "ends before it begins") {
			t.Errorf("a period of nothing: %v", err)
		}
	})
}
