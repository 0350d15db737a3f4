package control

import (
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/server"
)

// Where one type has no capacity the canaries have the next.
func TestCanariesWalkTypes(t *testing.T) {

	inWorld(t, func(t *testing.T, w *world) {
		refused := 0
		w.cloud.Fail = func(op, object string) error {
			if op == "ec2:RunInstances" && strings.HasPrefix(object, bake.Kind) && refused < 4 { // the first of the second round, too
				refused++
				return &fault.Error{Kind: fault.Unavailable, Op: op, Message: "no capacity", Err: cloud.ErrCapacity}
			}
			return nil
		}
		b, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files})
		if err != nil {
			t.Fatal(err)
		}
		stop := w.start(w.store)
		defer stop()
		w.wait("the bake ends", func() bool { return get[bake.Bake](w, bake.Kind, b.Name).Step == bake.Done })
		if b = get[bake.Bake](w, bake.Kind, b.Name); b.Error != "" || b.Refused != 4 || len(b.Canaries) != 2 {
			t.Errorf("%+v", b)
		}
	})
}
