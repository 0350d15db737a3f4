package control

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/audit"
	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/release"
	"github.com/dayfly-infra/dayfly/internal/report"
	"github.com/dayfly-infra/dayfly/internal/retention"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// ahead is a clock that was set forward.
type ahead struct {
	clock.Clock
	by time.Duration
}

func (a ahead) Now() time.Time { return a.Clock.Now().Add(a.by) }

const aDay = 24 * time.Hour

// tidied forgets what is over so many days from now, with the last of each kept.
func (w *world) tidied(days int) {
	w.t.Helper()
	p, err := Config{}.policy()
	if err != nil {
		w.t.Fatal(err)
	}
	p.Last = 1
	w.api.clock = ahead{clock.Real{}, time.Duration(days) * aDay}
	defer func() { w.api.clock = clock.Real{} }()
	if err := w.api.forgetBy(w.t.Context(), p); err != nil {
		w.t.Fatal(err)
	}
}

// recordsWith are all records with a part in their names, but for the log of what was.
func (w *world) recordsWith(part string) (out []string) {
	w.t.Helper()
	if err := w.store.Dump(w.t.Context(), func(i store.Item) error {
		if r := i.Record; r != nil && r.Body != nil && !slices.Contains([]string{event.Kind, audit.Kind, report.TallyKind}, r.Kind) && strings.Contains(r.Name+"/", part) {
			out = append(out, r.Kind+" "+r.Name)
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func (w *world) objects(prefix string) int {
	w.t.Helper()
	keys, err := w.api.cloud.ListObjects(w.t.Context(), prefix)
	if err != nil {
		w.t.Fatal(err)
	}
	return len(keys)
}

// What is over is forgotten with everything that belongs to it, first what nobody
// counts, then the rest; what lives stays, and an environment that is made again
// goes on as if it was remembered.
func TestForget(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		began := time.Now()
		end := w.start(w.store)
		w.mustDeploy()
		w.serves(1)
		first := w.ended(w.run("api"))
		w.destroy()
		one := w.env().Release
		time.Sleep(time.Minute)
		w.box.set(func(b *fakeBox) { b.body = "two" })
		last := w.ended(w.run("web"))
		if err := w.deploy("short"); err != nil {
			t.Fatal(err)
		}
		short := func() environment.Environment { return get[environment.Environment](w, environment.Kind, "shop-short") }
		w.wait("shop-short serves", func() bool { return short().Serving == 1 && short().Phase == environment.Serving })
		w.wait("its instances are noted", func() bool {
			is, err := store.List[instance.Instance](t.Context(), w.store, instance.Kind, "shop-short/")
			return err == nil && len(is) == 2
		})
		two := short().Release
		// A later one, so that nothing but what lives keeps that of shop-short.
		time.Sleep(time.Minute)
		w.box.set(func(b *fakeBox) { b.body = "three" })
		if _, err := w.api.Resolve(t.Context(), w.files); err != nil {
			t.Fatal(err)
		}
		end()
		if !first.Passed || !last.Passed || one == two {
			t.Fatalf("%+v, %+v, %s, %s", first, last, one, two)
		}
		usage := func() report.Report {
			t.Helper()
			r, err := w.api.Usage(t.Context(), began, began.Add(aDay))
			if err != nil {
				t.Fatal(err)
			}
			hours := func(h *float64) { *h = math.Round(*h*1e6) / 1e6 } // their sum has no order
			hours(&r.Hours)
			for _, rows := range [][]report.Row{r.Environments, r.Teams} {
				for i := range rows {
					hours(&rows[i].Hours)
				}
			}
			return report.Report{Launches: r.Launches, Deploys: r.Deploys, Push: r.Push, Start: r.Start, Tests: r.Tests, Bakes: r.Bakes, Hours: r.Hours, Environments: r.Environments, Teams: r.Teams}
		}
		there := func(what string, want bool, kind, name string) {
			t.Helper()
			if _, err := w.store.Get(t.Context(), kind, name); (err == nil) != want {
				t.Errorf("%s: the %s %s: %v", what, kind, name, err)
			}
		}
		suite := first.Suites[0].Environment
		alive := w.recordsWith("shop-short/")
		w.api.tidyTallies(t.Context(), time.Now().Add(5*aDay))
		figures := usage()

		before, err := w.store.Revision(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.tidied(0)
		w.tidied(89)
		// The records of instances that are gone are another loop's to forget, which
		// does not run here: they are the first.
		if left := w.recordsWith(suite + "/"); !slices.Contains(left, "environment "+suite) || !slices.Contains(left, "generation "+suite+"/1") {
			t.Errorf("forgotten too early: %q", left)
		}
		if at, err := w.store.Revision(t.Context()); err != nil || at != before {
			t.Errorf("something was written after 89 days: %v", err)
		}

		w.tidied(92)
		if left := w.recordsWith(suite + "/"); len(left) != 0 {
			t.Errorf("of the suite is left: %q", left)
		}
		there("after 92 days", true, pipeline.Kind, first.Name)
		there("after 92 days", true, environment.Kind, "shop-dev")
		there("after 92 days", true, environment.GenerationKind, "shop-dev/1")
		there("after 92 days", false, environment.FoundationKind, first.Foundation)
		there("after 92 days", false, release.Kind, one)
		there("after 92 days", true, release.Kind, two)
		if w.objects(pipeline.ResultsOf(first.Name)) != 0 || w.objects(pipeline.ResultsOf(last.Name)) == 0 || w.objects("releases/shop/") != 2 {
			t.Errorf("results of %s %d, of %s %d, releases %d", first.Name, w.objects(pipeline.ResultsOf(first.Name)), last.Name, w.objects(pipeline.ResultsOf(last.Name)), w.objects("releases/shop/"))
		}
		if _, err := w.api.Results(t.Context(), first.Name, "api", "junit.xml"); fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), "was removed on") {
			t.Errorf("its results: %v", err)
		}
		if now := usage(); !reflect.DeepEqual(now, figures) {
			t.Errorf("the report was\n%+v, and is\n%+v", figures, now)
		}
		w.tidied(400)
		there("after 400 days", true, pipeline.Kind, first.Name)
		if now := usage(); !reflect.DeepEqual(now, figures) {
			t.Errorf("after 400 days the report was\n%+v, and is\n%+v", figures, now)
		}

		w.tidied(402)
		for _, part := range []string{first.Name + "/", first.Name + "-"} {
			if left := w.recordsWith(part); len(left) != 0 {
				t.Errorf("of the first run is left: %q", left)
			}
		}
		if left := w.recordsWith("shop-dev/"); !slices.Equal(left, []string{"former shop-dev"}) {
			t.Errorf("of shop-dev is left: %q", left)
		}
		there("the last run of its blueprint", true, pipeline.Kind, last.Name)
		there("how an image was made", true, bake.Kind, short().Image)
		there("how an image was made", true, image.Kind, short().Image)
		there("a release that lives", true, release.Kind, two)
		// How its traffic was set at first is not asked for again.
		alive = slices.DeleteFunc(alive, func(s string) bool { return strings.HasPrefix(s, "intent environment/shop-short/traffic/") })
		if now := w.recordsWith("shop-short/"); !slices.Equal(now, alive) {
			t.Errorf("of what lives is left %q, and was there %q", now, alive)
		}

		before, err = w.store.Revision(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.tidied(402)
		if at, err := w.store.Revision(t.Context()); err != nil || at != before {
			t.Errorf("a second time something was written: %v", err)
		}

		// The same name again, with the release that was forgotten.
		w.box.set(func(b *fakeBox) { b.body = "one" })
		defer w.start(w.store)()
		w.mustDeploy()
		w.wait("it serves, and its numbers went on", func() bool { return w.env().Serving == 2 && w.settled() && w.whole(2, 3) })
		if w.env().Release != one || w.objects("releases/shop/") != 3 {
			t.Errorf("%s, %d mirrors", w.env().Release, w.objects("releases/shop/"))
		}
		if next := w.ended(w.run("api")); next.Name != pipeline.RunName("shop", last.Number()+1) || !next.Passed {
			t.Errorf("%+v", next)
		}
		w.destroy()
		if twice := w.cloud.Twice(); len(twice) > 0 {
			t.Errorf("made more than once: %q", twice)
		}
	})
}

// A call whose end is not known keeps what it is for; who does not own the work
// removes nothing; one who is cut off anywhere leaves what the next one removes.
func TestForgetIsCutOff(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		end := w.start(w.store)
		first := w.ended(w.run("api"))
		w.box.set(func(b *fakeBox) { b.body = "two" })
		time.Sleep(time.Minute)
		w.ended(w.run("web"))
		end()
		suite := first.Suites[0].Environment
		open := cloud.IntentRecord{Op: "elasticloadbalancing:ModifyListener", Object: environment.Kind + "/" + suite}
		put := func(ws ...store.Write) {
			t.Helper()
			if err := w.store.Apply(t.Context(), store.NoEpoch, ws...); err != nil {
				t.Fatal(err)
			}
		}
		put(store.Put(cloud.IntentKind, open.Object+"/x/1", 0, open))
		w.tidied(500)
		if get[environment.Environment](w, environment.Kind, suite).Name == "" || w.runOf(first.Name).Name == "" {
			t.Error("a call for it may still have an effect, and it was forgotten")
		}
		put(store.Delete(cloud.IntentKind, open.Object+"/x/1", store.Any))

		all := len(w.recordsWith(""))
		p, err := Config{}.policy()
		if err != nil {
			t.Fatal(err)
		}
		p.Last = 1
		w.api.clock = ahead{clock.Real{}, 500 * aDay}
		defer func() { w.api.clock = clock.Real{} }()
		if err := w.api.forgetBy(reconcile.WithEpoch(t.Context(), 77), p); !errors.Is(err, store.ErrFenced) || len(w.recordsWith("")) != all {
			t.Errorf("%d records of %d: %v", len(w.recordsWith("")), all, err)
		}
		r := first.Release
		w.api.clock = clock.Real{}
		for n := int64(1); ; n++ {
			ctx, cancel := context.WithCancel(t.Context())
			m := &mortal{Store: w.store, before: n%2 == 0, die: cancel}
			m.lives.Store((n + 1) / 2)
			c := w.control(m)
			c.clock = ahead{clock.Real{}, 500 * aDay}
			err := c.forgetBy(ctx, p)
			cancel()
			if err == nil {
				break
			}
			if n > 50 {
				t.Fatal(err)
			}
		}
		if left := append(w.recordsWith(first.Name+"-"), w.recordsWith(first.Name+"/")...); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
		if _, err := w.store.Get(t.Context(), release.Kind, r); !errors.Is(err, store.ErrNotFound) || w.objects("releases/shop/") != 1 || w.objects(pipeline.ResultsOf(first.Name)) != 0 {
			t.Errorf("%v, %d releases, %d results", err, w.objects("releases/shop/"), w.objects(pipeline.ResultsOf(first.Name)))
		}
	})
}

// Many go in batches, and what lives again meanwhile keeps none of the others.
func TestForgetMany(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var groups [][]store.Write
		var puts []store.Write
		for i := range 1100 {
			name := fmt.Sprint("e", i)
			puts = append(puts, store.Put(environment.FoundationKind, name, 0, environment.Foundation{Name: name, Phase: environment.Gone}))
			groups = append(groups, []store.Write{store.Delete(environment.FoundationKind, name, 1)})
		}
		if err := w.store.Apply(t.Context(), store.NoEpoch, puts...); err != nil {
			t.Fatal(err)
		}
		groups[700][0].Version = 9 // it was written since it was read
		b := &batches{Store: w.store}
		w.api.store = b
		if err := w.api.forgetAll(t.Context(), groups); err != nil {
			t.Fatal(err)
		}
		left, err := w.store.List(t.Context(), environment.FoundationKind, "")
		if err != nil || len(left) != 1 || left[0].Name != "e700" || b.largest > mostForgotten {
			t.Errorf("%d are left, batches of %d: %v", len(left), b.largest, err)
		}
	})
}

// batches notes the largest one.
type batches struct {
	store.Store
	largest int
}

func (b *batches) Apply(ctx context.Context, epoch int64, ws ...store.Write) error {
	b.largest = max(b.largest, len(ws))
	return b.Store.Apply(ctx, epoch, ws...)
}

func TestKeep(t *testing.T) {
	for keep, want := range map[time.Duration]time.Duration{0: retention.Usual.Keep, 7 * aDay: 7 * aDay, 1000 * aDay: 1000 * aDay, time.Hour: 0, -time.Hour: 0} {
		p, err := Config{Keep: keep}.policy()
		if want == 0 {
			if fault.KindOf(err) != fault.Invalid || fault.HintOf(err) == "" {
				t.Errorf("%v: %v", keep, err)
			}
			continue
		}
		if err != nil || p.Keep != want || p.Reports <= report.KeepDays*aDay {
			t.Errorf("%v: %+v, %v", keep, p, err)
		}
	}
}
