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
