package control

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
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

// full refuses builders' stacks in zones as AWS does, and notes where they were asked for.
func (w *world) full(zones func(try int) bool) (asked *[]string) {
	asked = new([]string)
	w.cloud.Plan = func(s cloud.StackInput) cloudtest.Plan {
		if !strings.Contains(s.Name, "-bake-") {
			return cloudtest.Plan{}
		}
		zone := s.Parameters["Zone"]
		*asked = append(*asked, zone)
		if zone == "" {
			zone = "local-1a"
		}
		if zones(len(*asked)) {
			return cloudtest.Plan{Fail: "We currently do not have sufficient t3.medium capacity in the Availability Zone you requested (" + zone + "). You can currently get it by choosing another."}
		}
		return cloudtest.Plan{}
	}
	return asked
}

// A builder whose zone is full is made in the next one: as another stack, when
// the refused one is gone. When all are full it rests before the next round.
func TestBuilderWalksZones(t *testing.T) {
	for _, refusals := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(refusals), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				asked := w.full(func(try int) bool { return try <= refusals })
				b, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files})
				if err != nil {
					t.Fatal(err)
				}
				stop := w.start(w.store)
				defer stop()
				w.wait("it says why it waits", func() bool {
					now := get[bake.Bake](w, bake.Kind, b.Name)
					return now.Blocker != nil && now.Blocker.Rule == "no-capacity" && strings.Contains(now.Blocker.Message, "local-1a")
				})
				b = w.baked(b.Name)
				if b.Error != "" || len(b.Full) != refusals || b.Former != "" || b.Blocker != nil {
					t.Errorf("%+v", b)
				}
				want := []string{"", "local-1b", "local-1c", "local-1a", "local-1b"}[:refusals+1]
				if got := strings.Join(*asked, " "); got != strings.Join(want, " ") {
					t.Errorf("asked for %q, not %q", got, want)
				}
				var building float64
				for _, s := range b.Steps {
					if s.Step == bake.Builder {
						building = s.Seconds
					}
				}
				if rested := building > 60; rested != (refusals >= 3) {
					t.Errorf("the builder took %.0f s", building)
				}
				if b.Zone != want[refusals] {
					t.Errorf("zone %s", b.Zone)
				}
				if left := w.cloud.Left(kept...); len(left) != 1 || !strings.HasPrefix(left[0], "image ") {
					t.Errorf("left: %v", left)
				}
			})
		})
	}
}

// The search for room ends, as one failure with the reason, and nothing stays.
func TestBuilderFindsNoZone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		asked := w.full(func(int) bool { return true })
		b, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files})
		if err != nil {
			t.Fatal(err)
		}
		stop := w.start(w.store)
		defer stop()
		b = w.baked(b.Name)
		if !strings.Contains(b.Error, "room for the builder") || b.FailedAt != bake.Builder || len(*asked) < 9 {
			t.Errorf("%d tries: %+v", len(*asked), b)
		}
		if took := b.Ended.Sub(b.Created); took < 30*time.Minute || took > 35*time.Minute {
			t.Errorf("it took %s", took)
		}
		w.nothingLeft()
	})
}

// A process that is killed around each of its writes finds its way between the
// zones, makes no stack twice and leaves none.
func TestBuilderWalksZonesThroughKills(t *testing.T) {
	for n := range 6 {
		rnd := rand.New(rand.NewPCG(uint64(n), 1))
		inWorld(t, func(t *testing.T, w *world) {
			asked := w.full(func(try int) bool { return try <= 2 })
			b, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files})
			if err != nil {
				t.Fatal(err)
			}
			deaths := w.startMortal(n%2 == 0, func() int64 { return 2 + rnd.Int64N(6) })
			w.wait("the bake ends", func() bool { return get[bake.Bake](w, bake.Kind, b.Name).Step == bake.Done })
			if deaths() == 0 {
				t.Error("nobody died")
			}
			b = get[bake.Bake](w, bake.Kind, b.Name)
			if got := strings.Join(*asked, " "); b.Error != "" || got != " local-1b local-1c" {
				t.Errorf("asked for %q: %+v", got, b)
			}
			if left := w.cloud.Left(kept...); len(left) != 1 {
				t.Errorf("left: %v", left)
			}
		})
	}
}
