package control

import (
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/environment"
)

// What served before goes when the requests that were on their way to it had
// their time, however short the soak; who destroys all does not wait for them.
func TestDrained(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.cloud.Drain = 40 * time.Second
		w.mustDeploy()
		w.serves(1)
		w.mustDeploy()
		w.serves(2)
		switched := w.env().Switched
		if switched.IsZero() {
			t.Fatal("nobody knows since when it serves")
		}
		left := w.gen(1).Groups[0]
		for time.Since(switched) < 38*time.Second {
			if _, err := w.api.cloud.Group(t.Context(), left); err != nil {
				t.Fatalf("%s after its traffic left: %v", time.Since(switched), err)
			}
			if g := w.gen(1); time.Since(switched) > 5*time.Second && (g.Blocker == nil || g.Blocker.Rule != "generation-draining") {
				t.Fatalf("it is %s and says %+v", g.Phase, g.Blocker)
			}
			time.Sleep(time.Second)
		}
		w.limit = 10 * time.Second
		w.wait("it is gone", func() bool { return w.gen(1).Phase == environment.Gone })

		w.limit = 5 * time.Minute
		w.mustDeploy()
		w.serves(3)
		w.wait("2 drains", func() bool { return w.gen(2).Phase == environment.Terminating })
		begun := time.Now()
		if _, err := w.api.Destroy(t.Context(), "shop-dev"); err != nil {
			t.Fatal(err)
		}
		w.gone()
		if took := time.Since(begun); took > 30*time.Second {
			t.Errorf("the environment's end took %s", took)
		}
	})
}
