package control

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// promotion is how long it takes from a promotion until all instances of some
// environments are of the new image, in virtual time, as a ratio to the least
// that the cloud allows: EC2 gives two launches a second back (its bucket is
// empty at the promotion), and an instance boots for a minute.
func promotion(t *testing.T, environments, size, budget int) (ratio float64, failed int) {
	const rate, boot = 2, time.Minute
	inWorld(t, func(t *testing.T, w *world) {
		w.budget, w.limit = budget, 6*time.Hour
		defer w.start(w.store)()
		var b strings.Builder
		for i := range environments {
			fmt.Fprintf(&b, "e%02d: { size: %d, lease: standing, image: shop/stable }\n  ", i, size)
		}
		d := strings.Replace(description, "dev: { size: 3, lease: 24h }", strings.TrimSpace(b.String()), 1)
		bake := func(description string) string {
			k, err := w.api.Bake(t.Context(), server.StartBake{Files: w.pack(description)})
			if err != nil {
				t.Fatal(err)
			}
			return w.baked(k.Name).Image
		}
		w.files = w.pack(d)
		first, second := bake(d), bake(strings.Replace(d, "/srv/shop", "/srv/other", 1))
		w.promote(first)
		for i := range environments {
			if err := w.deploy(fmt.Sprintf("e%02d", i)); err != nil {
				t.Fatal(err)
			}
		}
		on := func(image string) func() bool {
			return func() bool {
				es, err := store.List[environment.Environment](t.Context(), w.store, environment.Kind, "")
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range es {
					if e.Image != image || e.Serving != e.Want || e.Next != nil || e.Shift != nil {
						return false
					}
				}
				return true
			}
		}
		w.wait("all run the first image", on(first))
		w.cloud.Plan = func(cloud.StackInput) cloudtest.Plan { return cloudtest.Plan{Boot: boot} }
		w.cloud.Launches = &cloudtest.Bucket{Burst: 1000, Rate: rate}
		begun := time.Now()
		w.promote(second)
		limit := begun.Add(2 * time.Hour)
		for !on(second)() && time.Now().Before(limit) {
			time.Sleep(time.Second)
		}
		took := time.Since(begun)
		least := time.Duration(environments*size)*time.Second/rate + boot
		gs, err := store.List[environment.Generation](t.Context(), w.store, environment.GenerationKind, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range gs {
			if g.Error != "" {
				failed++
			}
		}
		ratio = float64(took) / float64(least)
		t.Logf("%d environments of %d, budget %d: %s, at least %s: %.2f; %d generations failed", environments, size, budget, took.Round(time.Second), least, ratio, failed)
	})
	return ratio, failed
}

func TestPromotion(t *testing.T) {
	if os.Getenv("DAYFLY_FIGURES") == "" {
		if r, failed := promotion(t, 4, 12, 36); r > 2 || failed > 0 {
			t.Errorf("the ratio is %.2f, and %d generations failed", r, failed)
		}
		return
	}
	r, failed := promotion(t, 20, 45, 200)
	if failed > 0 {
		t.Errorf("%d generations failed", failed)
	}
	fmt.Printf("figure promote-20x45 x %.4g\n", r)
	all, _ := promotion(t, 20, 45, 0)
	fmt.Printf("figure promote-20x45-all x %.4g\n", all)
}
