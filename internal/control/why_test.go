package control

import (
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Of every kind of object: by name, by kind and name, by the cloud's id; what
// waits, what has ended, what is well; its parts with it; and who is not there.
func TestWhy(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		now := time.Now()
		wait := func(rule string) *blocker.Blocker {
			return &blocker.Blocker{Rule: rule, On: "x/y", Message: "it waits for " + rule, Since: now, Until: now.Add(time.Minute), Action: "have patience"}
		}
		in := func(s instance.Instance) instance.Instance {
			s.Environment, s.Generation, s.Launched = "shop-dev", 2, now
			return s
		}
		put := func(kind, name string, v any) store.Write { return store.Put(kind, name, 0, v) }
		ws := []store.Write{
			put(bake.Kind, "shop-b1", bake.Bake{Name: "shop-b1", Step: bake.Install, Blocker: wait("rule-bake")}),
			put(bake.Kind, "shop-b2", bake.Bake{Name: "shop-b2", Step: bake.Done, Error: "no room for it"}),
			put(image.Kind, "shop-i1", image.Image{Name: "shop-i1", AMI: "ami-1", State: image.Quarantined, Why: "CVE-1"}),
			put(image.Kind, "shop-i2", image.Image{Name: "shop-i2", AMI: "ami-2", State: image.Candidate}),
			put(environment.FoundationKind, "shop-f", environment.Foundation{Name: "shop-f", Phase: environment.Launching, Blocker: wait("rule-foundation")}),
			put(environment.Kind, "shop-dev", environment.Environment{Name: "shop-dev", Phase: environment.Launching, Blocker: wait("rule-environment")}),
			put(environment.Kind, "shop-old", environment.Environment{Name: "shop-old", Phase: environment.Gone}),
			put(environment.GenerationKind, environment.GenerationName("shop-dev", 2), environment.Generation{Environment: "shop-dev", Number: 2, Phase: environment.Launching, Blocker: wait("rule-generation")}),
			put(instance.FleetKind, "shop-dev/2/asg-1", instance.Fleet{Name: "shop-dev/2/asg-1", Group: "asg-1", Environment: "shop-dev", Generation: 2, Size: 3, Serving: 2, Blocker: wait("rule-fleet")}),
			put(pipeline.Kind, "shop-run-1", pipeline.Run{Name: "shop-run-1", Phase: "testing", Blocker: wait("rule-run")}),
		}
		for _, i := range []instance.Instance{
			{ID: "i-gone", State: instance.Gone, Why: "it was too old"},
			{ID: "i-kept", State: instance.Kept, Keep: &instance.Keep{By: "ann", Until: now.Add(time.Hour)}},
			{ID: "i-leaving", State: instance.Leaving, Leave: &instance.Leave{Cause: instance.Aged, Why: "its time is over", Since: now}, Touch: &instance.Touch{What: []string{"/etc/passwd"}, By: "bob"}},
			{ID: "i-failing", State: instance.Failing, Failing: now.Add(-time.Minute), Trouble: "503"},
			{ID: "i-launching", State: instance.Launching},
			{ID: "i-serving", State: instance.Serving, Due: now.Add(time.Hour)},
			{ID: "i-touched", State: instance.Serving, Touch: &instance.Touch{What: []string{"a login"}}},
			{ID: "i-asked", State: instance.Serving, Ask: &instance.Ask{By: "ann"}},
		} {
			i = in(i)
			ws = append(ws, put(instance.Kind, i.Name(), i))
		}
		if err := w.store.Apply(t.Context(), store.NoEpoch, ws...); err != nil {
			t.Fatal(err)
		}
		say := func(object string) (string, error) {
			rs, err := w.api.Why(t.Context(), object)
			var b strings.Builder
			for _, r := range rs {
				if r.Sentence == "" || r.Phase == "" {
					t.Errorf("%s: %+v", object, r)
				}
				b.WriteString(r.Object + " (" + r.Phase + "): " + r.Sentence + "\n")
			}
			return b.String(), err
		}
		const parts = "bake/shop-b1 environment/shop-dev generation/shop-dev/2 fleet/shop-dev/2/asg-1 run/shop-run-1 foundation/shop-f"
		for object, want := range map[string][2]string{ // its sentence, what else is said
			"shop-b1":                       {"bake/shop-b1 (install): it waits for rule-bake (rule-bake, on x/y, for 0s, at most 1m0s more): have patience", ""},
			"bake/shop-b2":                  {"no room for it", ""},
			"image/shop-i1":                 {"nothing is launched from it: CVE-1", ""},
			"ami-1":                         {"image/shop-i1 (quarantined)", ""},
			"shop-i2":                       {"it waits for nothing", ""},
			"shop-f":                        {"rule-foundation", ""},
			"foundation/shop-f":             {"rule-foundation", ""},
			"shop-dev":                      {"rule-environment", "rule-generation rule-fleet i-kept i-leaving i-failing i-launching i-touched i-asked"},
			"shop-old":                      {"environment/shop-old (gone): it waits for nothing", ""},
			"shop-dev/2":                    {"rule-generation", "rule-fleet i-failing"},
			"asg-1":                         {"fleet/shop-dev/2/asg-1 (2 of 3 serve): it waits for rule-fleet", ""},
			"shop-run-1":                    {"rule-run", ""},
			"i-gone":                        {"it was too old", ""},
			"i-kept":                        {"ann keeps it for a look until", ""},
			"i-leaving":                     {"its time is over; it was touched by bob: /etc/passwd", ""},
			"instance/shop-dev/2/i-leaving": {"its time is over", ""},
			"i-failing":                     {"it does not serve, for 1m0s: 503", ""},
			"i-launching":                   {"its hand-off is under way", ""},
			"i-serving":                     {"its replacement begins at", ""},
			"i-touched":                     {"a login; it will be replaced", ""},
			"i-asked":                       {"ann asked", ""},
			"":                              {"rule-bake", parts},
		} {
			got, err := say(object)
			if err != nil || !strings.Contains(got, want[0]) {
				t.Errorf("why %q: %v, %s", object, err, got)
			}
			lines := strings.Count(got, "\n")
			for _, word := range strings.Fields(want[1]) {
				if !strings.Contains(got, word) {
					t.Errorf("why %q says nothing of %s: %s", object, word, got)
				}
			}
			if want[1] == "" && lines != 1 {
				t.Errorf("why %q says %d things: %s", object, lines, got)
			}
			if object == "" && lines != len(strings.Fields(parts)) {
				t.Errorf("%d things wait: %s", lines, got)
			}
		}
		for object, near := range map[string]string{
			"shop-dve": "environment/shop-dev", "enviroment/shop-dev": "environment/shop-dev", "shop-i3": "image/shop-i1", "i-keptt": "instance/shop-dev/2/i-kept", "run-1": "run/shop-run-1", "shop-b1x": "bake/shop-b1",
			"completely different": "dayfly env list",
		} {
			if out, err := say(object); fault.KindOf(err) != fault.NotFound || !strings.Contains(fault.HintOf(err), near) {
				t.Errorf("why %q: %v (%s): %s", object, err, fault.HintOf(err), out)
			}
		}
	})
}
