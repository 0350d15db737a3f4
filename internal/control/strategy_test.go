package control

import (
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/server"
)

const (
	blueGreen = "dev: { size: 3, lease: standing, replace: { strategy: blue-green, steps: [1, 10, 50, 100], pause: 1m, check: suites/api.sh }, soak: 10m }"
	rolling   = "dev: { size: 10, lease: 24h, replace: { strategy: rolling, steps: [20, 50, 100], pause: 1m }, soak: 5m }"
)

// as gives the blueprint's dev environment another strategy.
func (w *world) as(dev string) {
	w.t.Helper()
	w.files = w.pack(strings.Replace(description, "dev: { size: 3, lease: 24h }", dev, 1))
}

// weights are the shares of generations in the listener.
func (w *world) weights() map[int]int {
	w.t.Helper()
	out := map[int]int{}
	l := get[environment.Foundation](w, environment.FoundationKind, "shop-dev").Listener
	if l == "" {
		return out
	}
	ws, err := w.api.cloud.ListenerWeights(w.t.Context(), l)
	if err != nil {
		return out
	}
	for n := 1; ; n++ {
		g := w.gen(n)
		if g.Number == 0 {
			return out
		}
		for _, x := range ws {
			if len(g.TargetGroups) > 0 && g.TargetGroups[0] == x.TargetGroup {
				out[n] = x.Weight
			}
		}
	}
}

// capacity counts what can take traffic: healthy instances of generations that serve.
func (w *world) capacity() (n int) {
	for i := 1; ; i++ {
		g := w.gen(i)
		if g.Number == 0 {
			return n
		}
		if g.Phase != environment.Serving {
			continue
		}
		ts, err := w.api.cloud.Targets(w.t.Context(), g.TargetGroups[0])
		if err != nil {
			w.t.Fatal(err)
		}
		for _, t := range ts {
			if t.State == "healthy" {
				n++
			}
		}
	}
}

func (w *world) rollback() error {
	_, err := w.api.Rollback(w.t.Context(), "shop-dev", server.Rollback{Why: "it is slow"})
	return err
}

func TestBlueGreen(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.as(blueGreen)
		w.mustDeploy()
		w.serves(1)
		w.wait("it is settled", func() bool { return len(w.env().Good) == 1 })
		w.box.set(func(b *fakeBox) { b.body = "two" })
		w.mustDeploy()
		var steps []int
		var since []time.Time
		w.wait("generation 2 serves", func() bool {
			if n := w.weights()[2]; n > 0 && (len(steps) == 0 || steps[len(steps)-1] != n) {
				steps, since = append(steps, n), append(since, time.Now())
			}
			if old := w.gen(1); old.Phase != environment.Serving || old.Size != 3 {
				t.Fatalf("what served is %s with %d", old.Phase, old.Size)
			}
			return w.env().Serving == 2
		})
		if want := []int{1, 10, 50, 100}; len(steps) != 4 || steps[0] != 1 || steps[3] != 100 {
			t.Errorf("the traffic went by %v, want %v", steps, want)
		}
		for i := 1; i < len(since); i++ {
			if d := since[i].Sub(since[i-1]); d < 59*time.Second {
				t.Errorf("step %d lasted %s", steps[i-1], d)
			}
		}
		// Through the soak the old one stays, and going back launches nothing.
		time.Sleep(8 * time.Minute)
		if g := w.gen(1); g.Phase != environment.Serving || w.capacity() != 6 || w.env().Shift == nil {
			t.Fatalf("in the soak: %+v", g)
		}
		stacks := w.cloud.Calls("cloudformation:CreateStack")
		begun := time.Now()
		if err := w.rollback(); err != nil {
			t.Fatal(err)
		}
		w.wait("all traffic is back", func() bool { return w.weights()[1] == 100 })
		if d := time.Since(begun); d > 2*time.Second {
			t.Errorf("going back took %s", d)
		}
		w.wait("generation 2 is gone", func() bool { return w.gen(2).Phase == environment.Gone })
		if n := w.cloud.Calls("cloudformation:CreateStack"); n != stacks {
			t.Errorf("going back launched %d stacks", n-stacks)
		}
		e := w.env()
		if e.Serving != 1 || e.Release != w.gen(1).Release || e.LastBack == nil || e.LastBack.Why != "it is slow" {
			t.Errorf("%+v", e)
		}
		if err := w.rollback(); fault.KindOf(err) != fault.Conflict {
			t.Errorf("there is nothing else to go back to: %v", err)
		}
		w.destroy()
		w.nothingLeft()
	})
}

// After the soak the last good version is launched again, by its own names.
func TestRollbackAfterTheSoak(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.as(blueGreen)
		w.mustDeploy()
		w.serves(1)
		w.box.set(func(b *fakeBox) { b.body = "two" })
		w.mustDeploy()
		w.wait("the soak is over", func() bool {
			return w.gen(1).Phase == environment.Gone && w.env().Serving == 2 && w.env().Shift == nil
		})
		w.box.set(func(b *fakeBox) { b.body = "three" })
		if err := w.rollback(); err != nil {
			t.Fatal(err)
		}
		w.wait("generation 3 serves", func() bool { return w.env().Serving == 3 })
		if a, b := w.gen(1), w.gen(3); a.Image != b.Image || a.Release != b.Release || b.Release == w.gen(2).Release {
			t.Errorf("generation 3 has %s and %s, the good one %s and %s", b.Image, b.Release, a.Image, a.Release)
		}
		w.destroy()
		w.nothingLeft()
	})
}

// What is no good goes back by itself, whatever shows it.
func TestBackByItself(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *world)
		want string
	}{
		{"check", func(w *world) {
			w.fail["deploy"] = "orders are lost"
		}, "orders are lost"},
		{"check at half", func(w *world) {
			w.wait("half of the traffic", func() bool { return w.weights()[2] == 50 })
			w.fail["deploy"] = "orders are slow"
		}, "orders are slow"},
		{"instances die in the soak", func(w *world) {
			w.wait("the soak", func() bool { s := w.env().Shift; return s != nil && !s.Soak.IsZero() })
			for _, m := range w.members(2) {
				w.cloud.Sicken(m, true)
			}
		}, "of its 3 instances are healthy any more"},
		{"its stack is deleted", func(w *world) {
			w.wait("a tenth of the traffic", func() bool { return w.weights()[2] == 10 })
			w.cloud.DropStack(w.gen(2).Stack)
		}, "somebody deleted it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				defer w.start(w.store)()
				w.as(blueGreen)
				w.mustDeploy()
				w.serves(1)
				w.wait("it is settled", func() bool { return len(w.env().Good) == 1 })
				w.box.set(func(b *fakeBox) { b.body = "two" })
				w.mustDeploy()
				c.do(w)
				w.wait("it goes back", func() bool {
					e := w.env()
					return e.LastBack != nil && !e.LastBack.Done.IsZero()
				})
				if e := w.env(); e.Serving != 1 || e.Want != 1 || !strings.Contains(e.Error, c.want) || w.weights()[1] != 100 {
					t.Errorf("%+v", e)
				}
				w.wait("generation 2 is gone", func() bool { return w.gen(2).Phase == environment.Gone })
				if g := w.gen(1); g.Phase != environment.Serving || len(w.env().Good) != 1 {
					t.Errorf("what is good: %+v", w.env().Good)
				}
				w.fail["deploy"] = ""
				w.mustDeploy() // and the next one is an ordinary one
				w.wait("generation 3 serves", func() bool { return w.env().Serving == 3 && w.env().Error == "" })
				w.destroy()
				w.nothingLeft()
			})
		})
	}
}

func (w *world) members(n int) (ids []string) {
	gr, err := w.api.cloud.Group(w.t.Context(), w.gen(n).Groups[0])
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range gr.Members {
		ids = append(ids, m.Instance)
	}
	return ids
}

// The new generation grows while the old one shrinks, and together they are
// never less than what is wanted.
func TestRolling(t *testing.T) {
	for _, back := range []bool{false, true} {
		t.Run(map[bool]string{false: "through", true: "back"}[back], func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				defer w.start(w.store)()
				w.as(rolling)
				w.mustDeploy()
				w.serves(1)
				w.box.set(func(b *fakeBox) { b.body = "two" })
				w.mustDeploy()
				most, asked := 0, false
				w.wait("it is done", func() bool {
					n := w.capacity()
					if most = max(most, n); n < 10 {
						t.Fatalf("%d of 10 instances can take traffic; %v", n, w.weights())
					}
					if back && !asked && w.weights()[2] == 50 && w.gen(1).Size == 8 {
						if err := w.rollback(); err != nil {
							t.Fatal(err)
						}
						asked = true
					}
					return w.env().Shift == nil && w.gen(2).Number == 2 && w.env().Want == w.env().Serving && len(w.cloud.Left("")) > 0 && (w.gen(1).Phase == environment.Gone || w.gen(2).Phase == environment.Gone)
				})
				want := 2
				if back {
					want = 1
				}
				if e := w.env(); e.Serving != want || w.gen(want).Size != 10 || w.capacity() != 10 {
					t.Errorf("generation %d serves with %d: %+v", e.Serving, w.capacity(), e)
				}
				if most > 16 {
					t.Errorf("%d instances at once: no more than a step's are needed beside 10", most)
				}
				w.destroy()
				w.nothingLeft()
			})
		})
	}
}

// Who dies while traffic moves goes on where it was.
func TestBlueGreenKilledAtEveryWrite(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.startMortal(false, cycle(1, 2, 1, 3, 5))
		w.as(blueGreen)
		w.mustDeploy()
		w.wait("generation 1 serves", func() bool { return len(w.env().Good) == 1 })
		w.box.set(func(b *fakeBox) { b.body = "two" })
		w.mustDeploy()
		w.wait("the soak is over", func() bool { return len(w.env().Good) == 2 })
		w.cloud.Plan = fleets(func(string) cloudtest.Plan { return cloudtest.Plan{} })
		w.box.set(func(b *fakeBox) { b.body = "three" })
		w.mustDeploy()
		w.wait("the soak", func() bool { s := w.env().Shift; return s != nil && s.To == 3 && !s.Soak.IsZero() })
		if err := w.rollback(); err != nil {
			t.Fatal(err)
		}
		w.wait("generation 3 is gone", func() bool { return w.gen(3).Phase == environment.Gone && w.env().Serving == 2 })
		w.destroy()
		if n := stop(); n < 30 {
			t.Errorf("only %d deaths", n)
		}
		w.nothingLeft()
	})
}
