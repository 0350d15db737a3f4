package control

import (
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/release"
	"github.com/dayfly-infra/dayfly/internal/server"
)

// What is foreseen is what then happens, and foreseeing begins nothing.
func TestForeseen(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		foresee := func() server.Foreseen {
			t.Helper()
			quiet, before := w.settled(), w.count(bake.Kind)+w.count(release.Kind)
			f, err := w.api.Foresee(t.Context(), "shop-dev")
			if err != nil {
				t.Fatal(err)
			}
			if quiet && w.count(bake.Kind)+w.count(release.Kind) != before {
				t.Errorf("something was begun for %+v", f)
			}
			return f
		}
		if _, err := w.api.Foresee(t.Context(), "nothing"); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%v", err)
		}
		if _, err := w.api.DeployAgain(t.Context(), "nothing", server.DeployAgain{}); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%v", err)
		}
		w.mustDeploy()
		if f := foresee(); !strings.Contains(f.Refused, "under way") || f.Hint == "" || f.Launches != 0 {
			t.Errorf("while it is being deployed: %+v", f)
		}
		w.serves(1)
		f := foresee()
		if f.Refused != "" || f.Size != 3 || f.Generation != 2 || f.Launches != 1 || f.Seconds <= 0 || !f.Release.Serves || !f.Image.There || !f.Image.Serves || f.Image.Seconds != 0 {
			t.Errorf("nothing is new: %+v", f)
		}

		// New code: the same image, another release.
		w.box.set(func(b *fakeBox) { b.body = "two" })
		f = foresee()
		if f.Release.Serves || f.Release.Artifact != "shop.tar.gz" || !f.Image.There {
			t.Errorf("a release is new: %+v", f)
		}
		if _, err := w.api.DeployAgain(t.Context(), "shop-dev", server.DeployAgain{}); err != nil {
			t.Fatal(err)
		}
		w.serves(2)
		if g := w.gen(2); g.Release != f.Release.Name || g.Image != f.Image.Name || g.Size != f.Size || g.Number != f.Generation {
			t.Errorf("%+v was foreseen, and this is: %+v", f, g)
		}

		// An image that may not be launched, and a box that is down.
		if _, err := w.api.Quarantine(t.Context(), w.env().Image, server.Quarantine{Quarantined: true, Why: "to see"}); err != nil {
			t.Fatal(err)
		}
		w.box.set(func(b *fakeBox) { b.down = true })
		if f = foresee(); !strings.Contains(f.Refused, "quarantined: to see") || f.Release.Name != "" {
			t.Errorf("quarantined: %+v", f)
		}
		if _, err := w.api.DeployAgain(t.Context(), "shop-dev", server.DeployAgain{}); err == nil || !strings.Contains(err.Error(), "quarantined") {
			t.Errorf("%v", err)
		}
		if _, err := w.api.Quarantine(t.Context(), w.env().Image, server.Quarantine{Why: "seen"}); err != nil {
			t.Fatal(err)
		}
		if f = foresee(); !strings.Contains(f.Refused, "box does not answer") {
			t.Errorf("the box is down: %+v", f)
		}
		w.box.set(func(b *fakeBox) { b.down = false })

		// Gone, it comes back by one call as it was.
		w.destroy()
		if f = foresee(); f.Refused != "" || f.Release.Serves || f.Image.Serves || f.Generation != 3 {
			t.Errorf("it is gone: %+v", f)
		}
		if _, err := w.api.DeployAgain(t.Context(), "shop-dev", server.DeployAgain{Size: 2}); err != nil {
			t.Fatal(err)
		}
		w.serves(3)
		if e := w.env(); e.Size != 2 {
			t.Errorf("%+v", e)
		}
		w.destroy()
		w.nothingLeft()
	})
}

// A blueprint whose image is not there yet says how long its bakes take.
func TestForeseenBake(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.mustDeploy()
		w.serves(1)
		im := w.env().Image
		w.files = w.pack(strings.Replace(description, "/srv/shop", "/srv/other", 1))
		if err := w.deploy("dev"); err != nil { // the next deploy has other files, and no image yet
			t.Fatal(err)
		}
		f, err := w.api.Foresee(t.Context(), "shop-dev")
		if err != nil || f.Image.There || f.Image.Name == im || f.Image.Seconds <= 0 {
			t.Errorf("%+v %v", f, err)
		}
		w.serves(2)
		w.destroy()
		w.nothingLeft()
	})
}

// count is how many records of a kind there are.
func (w *world) count(kind string) int {
	w.t.Helper()
	rs, err := w.store.List(w.t.Context(), kind, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return len(rs)
}
