package control

import (
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
	"github.com/dayfly-infra/dayfly/internal/server"

	"github.com/dayfly-infra/dayfly/internal/cloud"
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
