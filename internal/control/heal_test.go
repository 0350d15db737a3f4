package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/operation"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// instances are the records of shop-dev's generation n.
func (w *world) instances(n int) (all []instance.Instance) {
	w.t.Helper()
	all, err := store.List[instance.Instance](w.t.Context(), w.store, instance.Kind, environment.GenerationName("shop-dev", n)+"/")
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// whole tells that so many serve, and nobody is on the way in or out.
func (w *world) whole(n, size int) bool {
	serving := 0
	for _, i := range w.instances(n) {
		switch i.State {
		case instance.Serving:
			serving++
		case instance.Gone, instance.Kept:
		default:
			return false
		}
	}
	return serving == size
}

// watch fails the test when fewer than size are healthy at any moment.
func (w *world) watch(n, size int) (stop func()) {
	done, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case <-done:
				return
			case <-time.After(300 * time.Millisecond):
			}
			healthy := 0
			for _, tg := range w.gen(n).TargetGroups {
				ts, err := w.api.cloud.Targets(w.t.Context(), tg)
				if err != nil {
					w.t.Error(err)
				}
				for _, x := range ts {
					if x.State == "healthy" {
						healthy++
					}
				}
			}
			if healthy < size {
				w.t.Errorf("only %d of %d are healthy", healthy, size)
				return
			}
		}
	}()
	return func() { close(done); <-over }
}

func (w *world) instance(name string) instance.Instance {
	return get[instance.Instance](w, instance.Kind, name)
}

// Whatever makes an instance go while it serves: another one serves first.
func TestReplaceOne(t *testing.T) {
	for _, c := range []struct {
		name  string
		cause instance.Cause
		do    func(w *world, i instance.Instance)
	}{
		{"asked", instance.Asked, func(w *world, i instance.Instance) {
			if _, err := w.api.ReplaceInstance(ann(w.t), server.ReplaceInstance{Name: i.ID}); err != nil {
				w.t.Fatal(err)
			}
		}},
		{"touched by a command", instance.Touched, func(w *world, i instance.Instance) { w.cloud.Command(i.ID, "quick fix") }},
		{"touched, as it says", instance.Touched, func(w *world, i instance.Instance) {
			raw, _ := json.Marshal(handoff.Condition{Instance: i.ID, Touched: []string{"/etc/passwd changed"}, At: time.Now()})
			w.cloud.Put(handoff.ConditionKey("shop-dev", "1", i.ID), raw)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				defer w.start(w.store)()
				w.mustDeploy()
				w.serves(1)
				w.wait("all are noted", func() bool { return w.whole(1, 3) })
				stop := w.watch(1, 3)
				old := w.instances(1)[1]
				c.do(w, old)
				w.wait("it is gone", func() bool { return w.instance(old.Name()).State == instance.Gone })
				w.wait("the fleet is whole", func() bool { return w.whole(1, 3) })
				stop()
				if i := w.instance(old.Name()); i.Cause != c.cause || i.Why == "" {
					t.Errorf("it went for %q: %s", i.Cause, i.Why)
				}
				heir := 0
				for _, i := range w.instances(1) {
					if i.Parent == old.ID {
						heir++
					}
				}
				if heir != 1 || len(w.instances(1)) != 4 {
					t.Errorf("%d successors, %d instances", heir, len(w.instances(1)))
				}
				w.destroy()
				w.nothingLeft()
			})
		})
	}
}

func TestReplaceUnhealthyAndDead(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.mustDeploy()
		w.serves(1)
		w.wait("all are noted", func() bool { return w.whole(1, 3) })
		sick, dead := w.instances(1)[0], w.instances(1)[1]
		w.cloud.Sicken(sick.ID, true)
		w.wait("the sick one is gone", func() bool { return w.instance(sick.Name()).State == instance.Gone })
		w.cloud.EndInstance(dead.ID)
		w.wait("the dead one is noted", func() bool { return w.instance(dead.Name()).State == instance.Gone })
		w.wait("the fleet is whole", func() bool { return w.whole(1, 3) })
		if a, b := w.instance(sick.Name()), w.instance(dead.Name()); a.Cause != instance.Unhealthy || b.Cause != instance.Died {
			t.Errorf("%s: %s; %s: %s", a.Cause, a.Why, b.Cause, b.Why)
		}
		w.destroy()
		w.nothingLeft()
	})
}

// What serves well is looked at by one loop, and a loss is noted by both at once.
func TestOneLook(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.mustDeploy()
		w.serves(1)
		w.wait("all are noted", func() bool { return w.whole(1, 3) })
		time.Sleep(2 * time.Minute)
		before := w.cloud.Calls("Group")
		time.Sleep(5 * time.Minute)
		if n := w.cloud.Calls("Group") - before; n < 25 || n > 40 {
			t.Errorf("its group was read %d times in five minutes, by loops that look every 10 s and every minute", n)
		}
		w.cloud.Sicken(w.instances(1)[0].ID, true)
		began := time.Now()
		w.wait("the generation says so", func() bool { return w.gen(1).Healthy < 3 })
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("that took %s", took)
		}
		w.wait("it is whole again", func() bool { g := w.gen(1); return g.Healthy == 3 && g.Blocker == nil })
		w.destroy()
		w.nothingLeft()
	})
}

// When all fail together, their health check may be what is wrong: as many go on
// running as shall serve.
func TestAllUnhealthy(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.mustDeploy()
		w.serves(1)
		w.wait("all are noted", func() bool { return w.whole(1, 3) })
		for _, i := range w.instances(1) {
			w.cloud.Sicken(i.ID, true)
		}
		w.wait("it says so", func() bool {
			why, _ := w.api.Why(t.Context(), "")
			return strings.Contains(fmt.Sprint(why), "instances-fail-together")
		})
		for range 600 {
			time.Sleep(time.Second)
			g, err := w.api.cloud.Group(t.Context(), w.gen(1).Groups[0])
			if err != nil {
				t.Fatal(err)
			}
			in := 0
			for _, m := range g.Members {
				if m.Lifecycle == "InService" {
					in++
				}
			}
			if in < 3 {
				t.Fatalf("only %d of 3 run", in)
			}
		}
		w.wait("new ones have taken their place", func() bool { return w.whole(1, 3) })
		w.destroy()
		w.nothingLeft()
	})
}

func TestKeepOne(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.mustDeploy()
		w.serves(1)
		w.wait("all are noted", func() bool { return w.whole(1, 3) })
		defer w.watch(1, 3)()
		i := w.instances(1)[2]
		if _, err := w.api.KeepInstance(ann(t), server.KeepInstance{Name: i.Name(), Minutes: 60}); err != nil {
			t.Fatal(err)
		}
		w.wait("it is kept", func() bool { return w.instance(i.Name()).State == instance.Kept })
		time.Sleep(50 * time.Minute)
		if s := w.instance(i.Name()).State; s != instance.Kept || !w.whole(1, 3) {
			t.Fatalf("it is %s", s)
		}
		w.wait("its lease is over", func() bool { return w.instance(i.Name()).State == instance.Gone })
		if g := w.instance(i.Name()); g.Cause != instance.Released || g.Ended.Sub(g.Keep.Until) > time.Minute {
			t.Errorf("%s at %s, kept until %s", g.Cause, g.Ended, g.Keep.Until)
		}
	})
}

// With a maximum age no instance gets older, and none of it is seen by users.
func TestMaximumAge(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.limit = 10 * time.Hour
		w.files = w.pack(strings.Replace(description, "dev: { size: 3, lease: 24h }", "dev: { size: 3, lease: 24h, max_age: 1h }", 1))
		defer w.start(w.store)()
		w.mustDeploy()
		w.serves(1)
		w.wait("all are noted", func() bool { return w.whole(1, 3) })
		defer w.watch(1, 3)()
		time.Sleep(5 * time.Hour)
		all, aged := w.instances(1), 0
		for _, i := range all {
			if i.State == instance.Gone {
				aged++
				if i.Cause != instance.Aged || i.Ended.Sub(i.Launched) > time.Hour {
					t.Errorf("%s lived %s: %s", i.ID, i.Ended.Sub(i.Launched), i.Cause)
				}
			} else if time.Since(i.Launched) > time.Hour {
				t.Errorf("%s is %s old", i.ID, time.Since(i.Launched))
			}
		}
		if aged < 3*5 {
			t.Errorf("only %d were replaced", aged)
		}
	})
}

// Those that are gone are forgotten after a day, with the intents that ended
// them, while their generation lives on.
func TestForgetInstances(t *testing.T) {
	if testing.Short() {
		t.Skip("a day of looks")
	}
	inWorld(t, func(t *testing.T, w *world) {
		w.files = w.pack(strings.Replace(description, "dev: { size: 3, lease: 24h }", "dev: { size: 1, lease: 48h }", 1))
		defer w.start(w.store)()
		w.mustDeploy()
		w.serves(1)
		w.wait("it is noted", func() bool { return w.whole(1, 1) })
		old := w.instances(1)[0]
		if _, err := w.api.ReplaceInstance(t.Context(), server.ReplaceInstance{Name: old.ID}); err != nil {
			t.Fatal(err)
		}
		w.wait("it is gone", func() bool { return w.instance(old.Name()).State == instance.Gone })
		intents := func() int {
			all, err := w.store.List(t.Context(), cloud.IntentKind, instance.Kind+"/"+old.Name())
			if err != nil {
				t.Fatal(err)
			}
			return len(all)
		}
		time.Sleep(23 * time.Hour)
		if w.instance(old.Name()).ID == "" || intents() == 0 {
			t.Error("it is forgotten too soon")
		}
		time.Sleep(90 * time.Minute)
		if got := w.instances(1); len(got) != 1 || got[0].ID == old.ID || intents() != 0 {
			t.Errorf("after a day: %d intents, %+v", intents(), got)
		}
		if w.env().Phase != environment.Serving {
			t.Errorf("its environment is %s", w.env().Phase)
		}
	})
}

// Instances that end before they say a word are their image's fault.
func TestQuarantine(t *testing.T) {
	for _, says := range []bool{false, true} {
		inWorld(t, func(t *testing.T, w *world) {
			defer w.start(w.store)()
			plan := cloudtest.Plan{Broken: -1, Boot: 20 * time.Second}
			if says {
				plan.Report, _ = json.Marshal(handoff.Report{Reason: "the deploy script ended with exit code 3"})
			}
			w.cloud.Plan = fleets(func(string) cloudtest.Plan { return plan })
			w.mustDeploy()
			w.wait("the deploy has failed", func() bool { return w.env().Error != "" })
			time.Sleep(time.Minute)
			if says { // a release that fails again and again, whose generations and reports are gone, is no image's fault
				for n := 2; n <= 3; n++ {
					w.mustDeploy()
					w.wait("the deploy has failed again", func() bool { return w.gen(n).Phase == environment.Gone })
				}
			}
			im := get[image.Image](w, image.Kind, w.gen(1).Image)
			if quarantined := im.State == image.Quarantined; quarantined == says {
				t.Errorf("instances reported: %v, and the image is %s: %s", says, im.State, im.Why)
			}
			if !says {
				_ = w.deploy("dev")
				w.wait("the next bake makes another", func() bool { return w.gen(2).Image != "" || w.env().Error != "" })
			}
		})
	}
}

func TestExtend(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.files = w.pack(strings.Replace(description, "dev: { size: 3, lease: 24h }", "dev: { size: 3, lease: 4h, lease_max: 8h }", 1))
		defer w.start(w.store)()
		w.mustDeploy()
		w.serves(1)
		begun := w.env().Created
		extend := func(d time.Duration) error {
			_, err := w.api.Extend(t.Context(), "shop-dev", server.Extend{Minutes: int(d / time.Minute)})
			return err
		}
		time.Sleep(3*time.Hour + 10*time.Minute)
		w.wait("it warns", func() bool { return w.env().Notice != "" })
		if err := extend(6 * time.Hour); fault.KindOf(err) != fault.Conflict {
			t.Errorf("longer than the policy: %v", err)
		}
		if err := extend(10 * time.Minute); fault.KindOf(err) != fault.Conflict {
			t.Errorf("shorter than it has: %v", err)
		}
		if err := extend(4 * time.Hour); err != nil {
			t.Fatal(err)
		}
		if w.env().Notice != "" {
			t.Error("it still warns")
		}
		time.Sleep(3 * time.Hour)
		if e := w.env(); e.Phase != environment.Serving {
			t.Fatalf("it is %s after %s", e.Phase, time.Since(begun))
		}
		w.gone()
		if age := time.Since(begun); age < 7*time.Hour || age > 8*time.Hour {
			t.Errorf("it lived %s", age)
		}
	})
}

// ann is who asks.
func ann(t *testing.T) context.Context {
	return access.With(t.Context(), access.Principal{ID: "token:ann", Name: "ann", Role: access.Operator})
}

// What happened to an environment is told in its order, within its operation,
// and nothing is told while nothing happens.
func TestEvents(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		if _, err := w.api.Deploy(operation.With(t.Context(), "request-1"), server.Deploy{Files: w.files, Purpose: "dev"}); err != nil {
			t.Fatal(err)
		}
		w.serves(1)
		w.wait("all are noted", func() bool { return w.whole(1, 3) })
		a := w.serve()
		ask := func(query string) (reasons []string, all []event.Event) {
			t.Helper()
			rec := a.ask(http.MethodGet, "/v1/events?limit=500&"+query, "", nil)
			var p server.Page[event.Event]
			if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || rec.Code != 200 {
				t.Fatalf("%d, %v: %s", rec.Code, err, rec.Body)
			}
			slices.Reverse(p.Items)
			for _, e := range p.Items {
				reasons = append(reasons, e.Reason)
			}
			return reasons, p.Items
		}
		got, all := ask("object=environment/shop-dev")
		want := []string{"DeployRequested", "ReleaseResolved", "ImageResolved", "GenerationRequested", "TrafficMoved", "Serving"}
		// Time is virtual and the two servers' events are of one moment.
		if slices.Index(got, "DeployRequested") > 1 || !slices.Equal(slices.Compact(slices.Sorted(slices.Values(got))), slices.Sorted(slices.Values(want))) {
			t.Errorf("told of the environment: %v", got)
		}
		id := all[0].Op
		if id != "request-1" {
			t.Fatalf("the deploy is part of %q", id)
		}
		got, _ = ask("op=" + id)
		for _, reason := range append(want, "FoundationReady", "GenerationReady", "InstanceInService", "BakeFinished", "ImageCreated") {
			if !slices.Contains(got, reason) {
				t.Errorf("%s is not told of in the operation: %v", reason, got)
			}
		}
		time.Sleep(time.Minute)
		before, _ := ask("object=shop-dev")
		time.Sleep(30 * time.Minute)
		if after, _ := ask("object=shop-dev"); len(after) != len(before) {
			t.Errorf("told at rest: %v", after[len(before):])
		}
		sick := w.instances(1)[0]
		w.cloud.Sicken(sick.ID, true)
		w.wait("the sick one is gone", func() bool { return w.instance(sick.Name()).State == instance.Gone })
		if got, _ := ask("object=" + sick.ID + "&severity=warning"); !slices.Equal(got, []string{"InstanceFailing", "InstanceReplacing"}) {
			t.Errorf("told of the sick one: %v", got)
		}
		if got, _ := ask("search=health%20check&since=" + time.Now().Add(-10*time.Minute).UTC().Format(time.RFC3339)); len(got) == 0 {
			t.Error("the health check is not found")
		}
		text := a.ask(http.MethodGet, "/metrics", "", nil).Body.String()
		for _, line := range []string{`dayfly_instances{environment="shop-dev",state="serving"} 3`, `dayfly_up_to_date 1`, `dayfly_environment_healthy_ratio{environment="shop-dev"} 1`, `dayfly_http_requests_total{method="GET",route="/v1/events",status="200"}`} {
			if !strings.Contains(text, "\n"+line) {
				t.Errorf("/metrics has no line %s", line)
			}
		}
		// Pages of one have the same as one page.
		_, all = ask("object=shop-dev")
		var paged []event.Event
		for cursor := ""; ; {
			rec := a.ask(http.MethodGet, "/v1/events?object=shop-dev&limit=1&cursor="+cursor, "", nil)
			var p server.Page[event.Event]
			if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || len(p.Items) > 1 {
				t.Fatal(err, rec.Body)
			}
			paged = append(paged, p.Items...)
			if cursor = p.Next; cursor == "" {
				break
			}
		}
		slices.Reverse(paged)
		if !reflect.DeepEqual(paged, all) {
			t.Errorf("%d events by pages of one, %d at once", len(paged), len(all))
		}
		w.destroy()
		w.nothingLeft()
	})
}
