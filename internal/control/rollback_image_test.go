package control

import (
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// The image that an environment would go back to cannot be removed; with the
// environment it can.
func TestLastGoodImageStays(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		e := environment.Environment{Name: "shop-dev", Blueprint: "shop", Phase: environment.Serving, Image: "shop-new", Good: []environment.Version{{Image: "shop-new"}, {Image: "shop-old"}, {Image: "shop-older"}}}
		w.cloud.AddImage("ami-older")
		if err := w.store.Apply(t.Context(), store.NoEpoch, store.Put(environment.Kind, e.Name, store.Any, e),
			store.Put(image.Kind, "shop-old", 0, image.Image{Name: "shop-old", Blueprint: "shop", AMI: "ami-other"}),
			store.Put(image.Kind, "shop-older", 0, image.Image{Name: "shop-older", Blueprint: "shop", AMI: "ami-older"})); err != nil {
			t.Fatal(err)
		}
		err := w.api.DeleteImage(t.Context(), "shop-old")
		if fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "last good one of the environment shop-dev") || !strings.Contains(fault.HintOf(err), "dayfly env destroy shop-dev") {
			t.Errorf("%v; %s", err, fault.HintOf(err))
		}
		if err := w.api.DeleteImage(t.Context(), "shop-older"); err != nil {
			t.Error(err)
		}
		e.Phase = environment.Gone
		if err := w.store.Apply(t.Context(), store.NoEpoch, store.Put(environment.Kind, e.Name, store.Any, e)); err != nil {
			t.Fatal(err)
		}
		if err := w.api.DeleteImage(t.Context(), "shop-old"); err != nil {
			t.Error(err)
		}
	})
}
