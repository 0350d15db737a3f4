package control

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/handoff"
)

// fleets makes a plan for the fleets' stacks alone.
func fleets(p func(generation string) cloudtest.Plan) func(cloud.StackInput) cloudtest.Plan {
	return func(s cloud.StackInput) cloudtest.Plan {
		if g := s.Parameters["Generation"]; g != "" {
			return p(g)
		}
		return cloudtest.Plan{}
	}
}

func TestDeployAgainAndDestroy(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.mustDeploy()
		if err := w.deploy("dev"); fault.KindOf(err) != fault.Conflict {
			t.Errorf("a second deploy while the first is under way: %v", err)
		}
		w.serves(1)
		w.box.set(func(b *fakeBox) { b.body = "two" })
		w.mustDeploy()
		// The old one has traffic until the new one has it all.
		w.wait("generation 2 serves", func() bool {
			e, old := w.env(), w.gen(1)
			if e.Serving == 1 && old.Phase != environment.Serving {
				t.Fatalf("generation 1 is %s while it serves", old.Phase)
			}
			return e.Serving == 2
		})
		w.serves(2)
		w.wait("generation 1 is gone", func() bool { return w.gen(1).Phase == environment.Gone })
		if a, b := w.gen(1), w.gen(2); a.Release == b.Release || a.Image != b.Image {
			t.Errorf("releases %s and %s, images %s and %s", a.Release, b.Release, a.Image, b.Image)
		}
		w.destroy()
		w.nothingLeft()
		w.mustDeploy() // a name may live again; numbers go on, and the image is baked again
		w.serves(3)
		w.destroy()
		w.nothingLeft()
	})
}

func TestFailedGenerations(t *testing.T) {
	report, err := json.Marshal(handoff.Report{Reason: "the deploy script ended with exit code 3", Output: "one\nno such database"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		plan cloudtest.Plan
		want string
	}{
		{"stack rolls back", cloudtest.Plan{Fail: "You have reached your limit"}, "You have reached your limit"},
		{"hand-off fails", cloudtest.Plan{Broken: -1, Report: report}, "no such database"},
		{"instances hang", cloudtest.Plan{Stuck: true}, "only 0 of 3 instances were healthy when its time was over"},
		{"stack hangs", cloudtest.Plan{Hang: true}, "CREATE_IN_PROGRESS when its time was over"},
		{"stack hangs, protected, cannot be deleted at first", cloudtest.Plan{Stuck: true, Protected: true, Undelete: 3}, "its time was over"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				defer w.start(w.store)()
				bad := true
				w.cloud.Plan = fleets(func(string) cloudtest.Plan {
					if bad {
						return c.plan
					}
					return cloudtest.Plan{}
				})
				// The first one.
				w.mustDeploy()
				w.wait("the deploy fails", func() bool { return w.settled() })
				if e := w.env(); e.Phase != environment.Failed || !strings.Contains(e.Error, c.want) {
					t.Fatalf("%s: %s", e.Phase, e.Error)
				}
				w.wait("generation 1 is gone", func() bool { return w.gen(1).Phase == environment.Gone })
				// A good one has a number of its own.
				bad = false
				w.mustDeploy()
				w.serves(2)
				// A bad one does not touch it.
				bad = true
				w.mustDeploy()
				w.wait("the deploy fails", func() bool {
					if e := w.env(); e.Serving != 2 || w.gen(2).Phase != environment.Serving {
						t.Fatalf("what serves was touched: %+v", e)
					}
					return w.env().Error != ""
				})
				if e := w.env(); e.Phase != environment.Serving || !strings.Contains(e.Error, c.want) {
					t.Fatalf("%s: %s", e.Phase, e.Error)
				}
				w.wait("generation 3 is gone", func() bool { return w.gen(3).Phase == environment.Gone })
				bad = false
				w.mustDeploy()
				w.serves(4)
				w.destroy()
				w.nothingLeft()
			})
		})
	}
}

func TestBoxDown(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.box.set(func(b *fakeBox) { b.down = true })
		w.mustDeploy()
		w.wait("a blocker", func() bool { b := w.env().Blocker; return b != nil && b.Rule == "release-not-resolved" })
		time.Sleep(2 * time.Minute)
		w.box.set(func(b *fakeBox) { b.down = false })
		w.serves(1)
		w.box.set(func(b *fakeBox) { b.down = true })
		w.mustDeploy()
		w.wait("patience ends", func() bool { return w.settled() && w.env().Error != "" })
		if e := w.env(); e.Phase != environment.Serving || e.Serving != 1 || !strings.Contains(e.Error, "the box does not answer") {
			t.Errorf("%+v", e)
		}
		w.destroy()
		w.nothingLeft()
	})
}

func TestFoundationFails(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.cloud.Plan = func(s cloud.StackInput) cloudtest.Plan {
			if strings.HasSuffix(s.Name, "-foundation") {
				return cloudtest.Plan{Fail: "no address left"}
			}
			return cloudtest.Plan{}
		}
		w.mustDeploy()
		w.wait("the deploy fails", w.settled)
		if e := w.env(); e.Phase != environment.Failed || !strings.Contains(e.Error, "no address left") {
			t.Errorf("%+v", e)
		}
		w.destroy()
		w.cloud.Plan = nil
		w.mustDeploy()
		w.serves(1)
		w.destroy()
		w.nothingLeft()
	})
}

// What others do to the cloud is seen, said and, where it can be, put right.
func TestMeddling(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.mustDeploy()
		w.serves(1)
		l := get[environment.Foundation](w, environment.FoundationKind, "shop-dev").Listener
		right := cloud.Weight{TargetGroup: w.gen(1).TargetGroups[0], Weight: 100}
		for range 3 { // the same wrong twice is not once
			w.cloud.Meddle(l)
			w.wait("the traffic is back", func() bool {
				ws, _ := w.api.cloud.ListenerWeights(t.Context(), l)
				return len(ws) == 1 && ws[0] == right
			})
		}
		w.cloud.KillInstances(w.gen(1).Groups[0])
		w.wait("less capacity is said", func() bool { b := w.gen(1).Blocker; return b != nil && b.Rule == "instances-not-healthy" })
		w.wait("the group mends itself", func() bool { return w.gen(1).Blocker == nil })
		w.cloud.DropStack(w.gen(1).Stack)
		w.wait("the loss is said", func() bool {
			e := w.env()
			return e.Serving == 0 && e.Phase == environment.Failed && strings.Contains(e.Error, "somebody deleted it")
		})
		w.mustDeploy()
		w.serves(2)
		w.cloud.DropListener(l)
		w.wait("the loss is said", func() bool { b := w.env().Blocker; return b != nil && b.Rule == "listener-gone" })
		w.destroy()
		w.nothingLeft()
	})
}

func TestLeaseEnds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		if err := w.deploy("short"); err != nil {
			t.Fatal(err)
		}
		e := func() environment.Environment {
			return get[environment.Environment](w, environment.Kind, "shop-short")
		}
		w.wait("it serves", func() bool { return e().Phase == environment.Serving })
		time.Sleep(50 * time.Minute)
		if err := w.deploy("short"); err != nil { // another hour, for the foundation as well
			t.Fatal(err)
		}
		time.Sleep(50 * time.Minute)
		if e := e(); e.Serving != 2 || e.Destroy || get[environment.Foundation](w, environment.FoundationKind, "shop-short").Destroy {
			t.Errorf("the lease was extended: %+v", e)
		}
		w.wait("it is gone", func() bool { return e().Phase == environment.Gone })
		w.nothingLeft()
	})
}

// An environment can be destroyed at any moment, and what was being made goes.
func TestDestroyAnytime(t *testing.T) {
	for _, after := range []time.Duration{0, 100 * time.Millisecond, 5 * time.Second, 12 * time.Second, 15 * time.Second, 17 * time.Second, 18 * time.Second, 19 * time.Second, 21 * time.Second, 25 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				defer w.start(w.store)()
				w.mustDeploy()
				time.Sleep(after)
				w.destroy()
				w.wait("no bake runs", func() bool { return w.bakes() == 0 })
				w.nothingLeft()
			})
		})
	}
	for _, after := range []time.Duration{0, 50 * time.Millisecond, time.Second, 3 * time.Second, 4 * time.Second, 4500 * time.Millisecond} {
		t.Run("second "+after.String(), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				defer w.start(w.store)()
				w.mustDeploy()
				w.serves(1)
				w.mustDeploy()
				time.Sleep(after)
				w.destroy()
				w.nothingLeft()
			})
		})
	}
}

// Processes that die at their writes leak nothing and make nothing twice.
func TestKilledAtEveryWrite(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name   string
		before bool
		life   func() int64
	}{
		// A call is two writes, and an end is four that belong together: with
		// short lives alone nobody gets anywhere.
		{"after short lives", false, cycle(1, 2, 1, 3, 5)},
		{"after longer lives", false, cycle(5, 4, 2, 7, 1)},
		{"before short lives", true, cycle(2, 3, 2, 4, 6)},
		{"before longer lives", true, cycle(6, 5, 3, 8, 2)},
		{"after some writes", false, func() int64 { return 1 + rnd.Int64N(8) }},
		{"before some writes", true, func() int64 { return 2 + rnd.Int64N(8) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.limit = 10 * time.Minute
				stop := w.startMortal(c.before, c.life)
				w.mustDeploy()
				w.serves(1)
				w.box.set(func(b *fakeBox) { b.body = "two" })
				w.mustDeploy()
				w.serves(2)
				run := w.run()
				if r := w.ended(run); !r.Passed {
					t.Errorf("the run: %+v", r)
				}
				w.cloud.Plan = fleets(func(string) cloudtest.Plan { return cloudtest.Plan{Fail: "no room"} })
				w.mustDeploy()
				w.wait("the deploy fails", func() bool { return w.settled() && w.env().Error != "" })
				w.destroy()
				n := stop()
				w.nothingLeft()
				if n < 30 {
					t.Errorf("only %d deaths", n)
				}
				t.Logf("%d deaths", n)
			})
		})
	}
}

// cycle gives numbers in turn.
func cycle(n ...int64) func() int64 {
	i := 0
	return func() int64 { i++; return n[i%len(n)] }
}

// bakes counts those that are under way.
func (w *world) bakes() int {
	n := 0
	records, err := w.store.List(w.t.Context(), "bake", "")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range records {
		if !strings.Contains(string(r.Body), `"step":"done"`) {
			n++
		}
	}
	return n
}
