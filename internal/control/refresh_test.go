package control

import (
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/image"
)

// The newest inputs are baked anew when their time has come, an environment that
// follows bakes is taken to what they gave, and a deploy takes it at once.
func TestRefresh(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start(w.store)
		defer func() { stop() }()
		d := strings.Replace(description, "dev: { size: 3, lease: 24h }", "dev: { size: 3, lease: standing, image: shop/candidate }", 1)
		d = strings.Replace(d, "keep_failed: 0s", "keep_failed: 0s\n  refresh: 1h", 1)
		w.files = w.pack(d)
		w.mustDeploy()
		w.serves(1)
		first := w.env().Image
		schedule := func() bake.Refresh { return get[bake.Refresh](w, bake.RefreshKind, first) }
		if r := schedule(); r.Every != time.Hour || time.Until(r.Next) < 58*time.Minute || !r.Date.IsZero() {
			t.Fatalf("%+v", r)
		}
		time.Sleep(55 * time.Minute)
		if e := w.env(); e.Image != first {
			t.Fatalf("too early: %s", e.Image)
		}
		// It fails at first, and the server is killed meanwhile.
		w.mu.Lock()
		w.fail["seal"] = "no space"
		w.mu.Unlock()
		w.wait("a refresh was begun", func() bool { return schedule().Bake != first })
		time.Sleep(10 * time.Minute)
		stop()
		stop = w.start(w.store)
		if e := w.env(); e.Image != first || get[image.Channel](w, image.ChannelKind, "shop/candidate").Image != first {
			t.Fatalf("a failed bake: %+v", e)
		}
		w.mu.Lock()
		delete(w.fail, "seal")
		w.mu.Unlock()
		w.wait("it is baked anew", func() bool { return !schedule().Date.IsZero() })
		second := get[image.Channel](w, image.ChannelKind, "shop/candidate").Image
		im := get[image.Image](w, image.Kind, second)
		if second == first || im.Refreshed.IsZero() || im.Inputs == get[image.Image](w, image.Kind, first).Inputs {
			t.Fatalf("%+v", im)
		}
		w.onto("shop-dev", second)
		bakes := w.runs("seal")
		w.mustDeploy()
		w.onto("shop-dev", second)
		if n := w.runs("seal"); n != bakes || w.env().Serving != 3 {
			t.Errorf("a deploy baked again (%d, %d), or did not deploy: %+v", bakes, n, w.env())
		}
		if r := schedule(); time.Until(r.Next) < 30*time.Minute || r.Error != "" || !r.Trying.IsZero() {
			t.Errorf("%+v", r)
		}
		w.destroy()
		for _, i := range []string{first, second} {
			if err := w.api.DeleteImage(t.Context(), i); err != nil {
				t.Error(err)
			}
		}
	})
}

// Another base image makes other inputs: those are baked, and theirs is the
// schedule that counts from then on.
func TestRefreshOfTheBase(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cloud.SetParameter("/corp/base", "ami-base")
		stop := w.start(w.store)
		defer stop()
		d := strings.Replace(description, "dev: { size: 3, lease: 24h }", "dev: { size: 3, lease: standing, image: shop/candidate }", 1)
		d = strings.Replace(d, "base: ami-base", "base: /corp/base\n  refresh: 1h", 1)
		w.files = w.pack(d)
		w.mustDeploy()
		w.serves(1)
		first := w.env().Image
		w.cloud.SetParameter("/corp/base", "ami-other")
		time.Sleep(time.Hour)
		w.wait("it runs another image", func() bool { return w.env().Image != first })
		second := w.env().Image
		if im := get[image.Image](w, image.Kind, second); im.Parent != "ami-other" || !im.Refreshed.IsZero() {
			t.Errorf("%+v", im)
		}
		time.Sleep(time.Hour)
		w.wait("the new inputs are baked anew", func() bool { return !get[bake.Refresh](w, bake.RefreshKind, second).Date.IsZero() })
		if r := get[bake.Refresh](w, bake.RefreshKind, first); !r.Date.IsZero() {
			t.Errorf("the old inputs were baked anew: %+v", r)
		}
		w.destroy()
	})
}
