package control

import (
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// A deploy of another size that was given up leaves the size that serves: the
// next image is not taken with the size that nobody got.
func TestSizeOfADeployThatFailed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		_, second := w.images()
		w.cloud.Plan = func(cloud.StackInput) cloudtest.Plan { return cloudtest.Plan{Stuck: true} }
		if _, err := w.api.Deploy(t.Context(), server.Deploy{Files: w.files, Purpose: "dev", Size: 1}); err != nil {
			t.Fatal(err)
		}
		w.wait("it is given up", func() bool { e := w.named("shop-dev"); return e.Error != "" && e.Want == e.Serving && e.Next == nil })
		w.cloud.Plan = nil
		if e := w.named("shop-dev"); e.Size != 3 {
			t.Errorf("%d instances serve, the record says %d", w.gen(e.Serving).Size, e.Size)
		}
		time.Sleep(time.Minute)
		w.promote(second)
		w.onto("shop-dev", second)
		if e := w.named("shop-dev"); e.Size != 3 || w.gen(e.Serving).Size != 3 {
			t.Errorf("the new image serves with %d instances, %d did before", w.gen(e.Serving).Size, 3)
		}
		w.end()
	})
}

// What is revoked, released and revoked again launches when it is released again,
// whatever words were said, and whoever was killed in between.
func TestRevokedAgainAndAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start(w.store)
		defer func() { stop() }()
		w.mustDeploy()
		w.serves(1)
		im, group := w.env().Image, w.gen(1).Groups[0]
		suspended := func() bool {
			g, err := w.api.cloud.Group(t.Context(), group)
			if err != nil {
				t.Fatal(err)
			}
			return len(g.Suspended) > 0
		}
		revoke := func(yes bool) {
			t.Helper()
			var err error
			if yes {
				_, err = w.api.Revoke(t.Context(), im, server.Revoke{Why: "CVE-2026-1"})
			} else {
				_, err = w.api.Quarantine(t.Context(), im, server.Quarantine{Why: "false alarm"})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		w.limit = 5 * time.Minute
		for range 3 {
			revoke(true)
			w.wait("it launches nothing", suspended)
			time.Sleep(time.Second)
			revoke(false)
			w.wait("it launches again", func() bool { return !suspended() })
			time.Sleep(time.Second)
		}
		// Killed before and after each write of a suspension, and released while
		// nobody looked.
		for lives := range int64(12) {
			stop()
			revoke(true)
			for _, before := range []bool{true, false} {
				m := &mortal{Store: w.store, before: before}
				m.lives.Store(lives + 1)
				var dead func()
				m.die = func() {}
				dead = w.start(m)
				time.Sleep(3 * time.Second)
				m.dead.Store(true)
				dead()
			}
			revoke(false)
			stop = w.start(w.store)
			time.Sleep(3 * time.Second)
			if suspended() {
				t.Fatalf("killed at write %d it launches nothing for ever: %+v", lives, w.gen(1))
			}
		}
		w.destroy()
		w.nothingLeft()
	})
}

// A deploy that fails before it has a generation says nothing of what shall run:
// the image that the channel points to is taken all the same.
func TestDeployThatFailsAndTheChannel(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		_, second := w.images()
		if _, err := w.api.Freeze(t.Context(), "shop-prod", server.Freeze{Why: "audit", Until: time.Now().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		w.promote(second)
		w.onto("shop-dev", second)
		if _, err := w.api.Unfreeze(t.Context(), "shop-prod"); err != nil {
			t.Fatal(err)
		}
		w.box.set(func(b *fakeBox) { b.down = true })
		if err := w.deploy("prod"); err != nil {
			t.Fatal(err)
		}
		w.wait("it is given up", func() bool { e := w.named("shop-prod"); return e.Error != "" && e.Next == nil })
		if s := w.status("shop-prod"); s.Target != second {
			t.Errorf("it shall run the promoted image: %+v", s)
		}
		w.onto("shop-prod", second)
		w.end()
	})
}

// What is on its way to an image that is revoked turns round, whether it is
// launched yet or has traffic, and whether the environment follows a channel.
func TestRevokeOnTheWay(t *testing.T) {
	for _, what := range []string{"launching", "half the traffic", "frozen, half the traffic"} {
		inWorld(t, func(t *testing.T, w *world) {
			defer w.start(w.store)()
			first, second := w.images()
			if what == "launching" {
				w.cloud.Plan = func(cloud.StackInput) cloudtest.Plan { return cloudtest.Plan{Stuck: true} }
			}
			if what == "launching" {
				w.promote(second)
				w.wait("dev is on its way", func() bool { e := w.named("shop-dev"); return e.Want == 2 })
			} else {
				w.promote(second)
				w.wait("production is half there", func() bool { e := w.named("shop-prod"); return e.Shift != nil && !e.Shift.Since.IsZero() })
			}
			if what == "frozen, half the traffic" {
				if _, err := w.api.Freeze(t.Context(), "all", server.Freeze{Why: "audit"}); err != nil {
					t.Fatal(err)
				}
			}
			begun := time.Now()
			if _, err := w.api.Revoke(t.Context(), second, server.Revoke{Why: "CVE-2026-1"}); err != nil {
				t.Fatal(err)
			}
			w.cloud.Plan = nil
			env := map[bool]string{true: "shop-dev", false: "shop-prod"}[what == "launching"]
			w.wait("it is back", func() bool {
				e := w.named(env)
				if e.Image == second {
					t.Fatalf("%s: it was taken to the revoked image: %+v", what, e)
				}
				return e.Want == e.Serving && e.Image == first && e.Next == nil
			})
			if d := time.Since(begun); d > 30*time.Second {
				t.Errorf("%s: it took %s", what, d)
			}
			if what == "frozen, half the traffic" {
				if _, err := w.api.Unfreeze(t.Context(), "all"); err != nil {
					t.Fatal(err)
				}
			}
			w.onto("shop-dev", first)
			w.onto("shop-prod", first)
			w.end()
		})
	}
}

// Both images of a soak are revoked: nobody waits for its end.
func TestRevokeBothOfASoak(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		first, second := w.images()
		b, err := w.api.Bake(t.Context(), server.StartBake{Files: w.pack(strings.Replace(description, "/srv/shop", "/srv/third", 1))})
		if err != nil {
			t.Fatal(err)
		}
		third := w.baked(b.Name).Image
		w.promote(second)
		w.wait("production soaks", func() bool { e := w.named("shop-prod"); return e.Image == second && e.Shift != nil })
		w.promote(third)
		begun := time.Now()
		for _, im := range []string{first, second} {
			if _, err := w.api.Revoke(t.Context(), im, server.Revoke{Why: "CVE-2026-1"}); err != nil {
				t.Fatal(err)
			}
		}
		w.wait("production makes the third", func() bool { e := w.named("shop-prod"); return e.Want == 3 })
		if d := time.Since(begun); d > 30*time.Second {
			t.Errorf("it took %s", d)
		}
		w.onto("shop-prod", third)
		w.onto("shop-dev", third)
		w.end()
	})
}

// A way back is never to fewer instances than serve, and who calls off what
// Dayfly began by itself does not find it begun again.
func TestRollbackSizeAndWhatDayflyBegan(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		e := environment.Environment{Name: "shop-dev", Blueprint: "shop", Phase: environment.Serving, Image: "b", Release: "two", Want: 2, Serving: 2, Size: 45, Good: []environment.Version{
			{Image: "b", Release: "two", Size: 45}, {Image: "a", Release: "one", Size: 20},
		}}
		began := e
		began.Name, began.Next = "shop-short", &environment.Change{Image: "c", Release: "two", Why: "shop/stable points to it"}
		asked := e
		asked.Name, asked.Next = "shop-asked", &environment.Change{Image: "c", Release: "two"}
		ws := []store.Write{store.Put(image.Kind, "a", 0, image.Image{Name: "a"})}
		for _, v := range []environment.Environment{e, began, asked} {
			ws = append(ws, store.Put(environment.Kind, v.Name, 0, v))
		}
		if err := w.store.Apply(t.Context(), store.NoEpoch, ws...); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"shop-dev", "shop-short", "shop-asked"} {
			if _, err := w.api.Rollback(t.Context(), name, server.Rollback{Why: "x"}); err != nil {
				t.Fatal(err)
			}
		}
		if n := w.named("shop-dev").Next; n == nil || n.Image != "a" || n.Size != 45 {
			t.Errorf("%+v", n)
		}
		if v := w.named("shop-short"); v.Next != nil || v.Refusal("c", time.Now()) == nil {
			t.Errorf("%+v", v)
		}
		if v := w.named("shop-asked"); v.Next != nil || v.Refusal("c", time.Now()) != nil {
			t.Errorf("%+v", v)
		}
	})
}

// A deploy that was asked for before a freeze and has made nothing yet waits for
// its end.
func TestFreezeAndADeployThatWaits(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.mustDeploy()
		w.serves(1)
		w.files = w.pack(strings.Replace(description, "/srv/shop", "/srv/other", 1))
		w.mustDeploy() // its image is baked first
		if _, err := w.api.Freeze(t.Context(), "all", server.Freeze{Why: "audit"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if e := w.env(); e.Want != 1 || e.Next == nil || e.Next.Image == "" || e.Blocker == nil || e.Blocker.Rule != "frozen" || !strings.Contains(e.Blocker.Message, "audit") {
			t.Fatalf("%+v, waits for %+v", e, e.Blocker)
		}
		w.cloud.KillInstances(w.gen(1).Groups[0]) // what dies is replaced
		w.wait("all serve again", func() bool { return w.capacity() == 3 })
		if _, err := w.api.Unfreeze(t.Context(), "all"); err != nil {
			t.Fatal(err)
		}
		w.serves(2)
		if b := w.env().Blocker; b != nil {
			t.Errorf("%+v", b)
		}
		w.destroy()
		w.nothingLeft()
	})
}

// A stack that cannot be deleted says why, and is tried again, later and later.
func TestStackThatCannotBeDeleted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.mustDeploy()
		w.serves(1)
		w.cloud.Replan(w.gen(1).Stack, func(p *cloudtest.Plan) { p.Undelete = 1 << 30 })
		if _, err := w.api.Destroy(t.Context(), "shop-dev"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if b := w.gen(1).Blocker; b == nil || b.Rule != "stack-not-deleted" || !strings.Contains(b.Message, "the same as always") || time.Since(b.Since) < 50*time.Minute {
			t.Errorf("%+v", b)
		}
		if n := w.cloud.Calls("cloudformation:DeleteStack"); n < 10 || n > 60 {
			t.Errorf("it was tried %d times in an hour", n)
		}
		w.cloud.Replan(w.gen(1).Stack, func(p *cloudtest.Plan) { p.Undelete = 0 })
		begun := time.Now()
		w.gone()
		if d := time.Since(begun); d > 6*time.Minute {
			t.Errorf("it took %s more", d)
		}
		w.nothingLeft()
	})
}
