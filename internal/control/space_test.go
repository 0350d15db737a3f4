package control

import (
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// While the disk is nearly full nothing new begins, and what is there goes on
// and can end.
func TestNearlyFull(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start(w.store)
		defer stop()
		w.mustDeploy()
		w.serves(1)
		free := int64(10 << 20)
		w.api.cfg.free = func(string) (int64, error) { return free, nil }
		for name, err := range map[string]error{
			"deploy":  w.deploy("dev"),
			"bake":    second(w.api.Bake(t.Context(), server.StartBake{Files: w.files})),
			"pack":    second(w.api.AddBlueprint(t.Context(), strings.NewReader(""))),
			"release": second(w.api.Resolve(t.Context(), w.files)),
		} {
			if fault.CodeOf(err) != store.CodeFull || fault.HintOf(err) == "" || !strings.Contains(err.Error(), w.dir) {
				t.Errorf("%s: %v", name, err)
			}
		}
		why, err := w.api.Why(t.Context(), "")
		if err != nil || len(why) != 1 || !strings.Contains(why[0].Sentence, "10 MiB are free") {
			t.Errorf("%+v %v", why, err)
		}
		if e := w.env(); e.Phase != environment.Serving || e.Serving != 1 {
			t.Errorf("%+v", e)
		}
		w.destroy()
		free = reserve
		w.mustDeploy()
		w.serves(2)
		w.destroy()
	})
}

func second[T any](_ T, err error) error { return err }
