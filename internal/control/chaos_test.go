package control

import (
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/chaos"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// An instance that is killed on purpose is replaced as one that died; nobody
// kills where it was not allowed, or what serves people and was not named.
func TestHarm(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.mustDeploy()
		w.serves(1)
		w.wait("all are noted", func() bool { return w.whole(1, 3) })
		victim := w.instances(1)[1]
		h := server.Harm{Act: chaos.Act{Kind: chaos.KillInstance, Environment: "shop-dev", Instance: victim.ID}, Why: "game day"}
		if _, err := w.api.Harm(ann(t), h); fault.KindOf(err) != fault.Denied {
			t.Fatalf("without --chaos: %v", err)
		}
		w.api.cfg.Chaos = true
		dry := h
		dry.Dry = true
		if _, err := w.api.Harm(ann(t), dry); err != nil {
			t.Fatal(err)
		}
		standing := func(v bool) {
			t.Helper()
			if err := reconcile.Update(t.Context(), w.store, environment.Kind, "shop-dev", func(e *environment.Environment) error { e.Standing = v; return nil }); err != nil {
				t.Fatal(err)
			}
		}
		standing(true)
		if _, err := w.api.Harm(ann(t), h); fault.KindOf(err) != fault.Denied || !strings.Contains(err.Error(), "production-like") {
			t.Fatalf("production-like and not named: %v", err)
		}
		h.Named = "shop-dev"
		if got := w.instance(victim.Name()); got.State != instance.Serving {
			t.Fatalf("it was killed all the same: %+v", got)
		}
		if _, err := w.api.Harm(ann(t), h); err != nil {
			t.Fatal(err)
		}
		standing(false)
		w.wait("it is gone", func() bool { return w.instance(victim.Name()).State == instance.Gone })
		w.wait("the fleet is whole", func() bool { return w.whole(1, 3) })
		if i := w.instance(victim.Name()); i.Cause != instance.Died {
			t.Errorf("it went for %q: %s", i.Cause, i.Why)
		}
		es, err := store.List[event.Event](t.Context(), w.store, event.Kind, "")
		if err != nil {
			t.Fatal(err)
		}
		told := 0
		for _, e := range es {
			if e.Reason == "Chaos" && e.Name == victim.Name() && strings.Contains(e.Message, "game day") {
				told++
			}
		}
		if told != 1 {
			t.Errorf("%d events tell of it", told)
		}
		w.destroy()
		w.nothingLeft()
	})
}
