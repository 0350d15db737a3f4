package bake

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestDecide(t *testing.T) {
	denied := &fault.Error{Kind: fault.Denied, Message: "you may not"}
	for _, c := range []struct {
		name  string
		b     Bake
		f     finding
		err   error
		after time.Duration
		step  Step
		why   string
	}{
		{"nothing yet", Bake{Step: Builder}, finding{}, nil, time.Minute, Builder, ""},
		{"done", Bake{Step: Builder}, finding{done: true}, nil, time.Minute, Online, ""},
		{"done, though late", Bake{Step: Builder}, finding{done: true}, nil, 5 * time.Hour, Online, ""},
		{"the last", Bake{Step: Verify}, finding{done: true}, nil, 0, Clean, ""},
		{"late", Bake{Step: Builder}, finding{}, nil, 11 * time.Minute, Clean, "longer than 10m0s"},
		{"late, with an error", Bake{Step: Builder}, finding{}, errors.New("timeout"), 11 * time.Minute, Clean, "timeout"},
		{"an error that may pass", Bake{Step: Builder}, finding{}, errors.New("timeout"), time.Minute, Builder, ""},
		{"done and an error: not done", Bake{Step: Builder}, finding{done: true}, errors.New("timeout"), time.Minute, Builder, ""},
		{"an error that stays", Bake{Step: Builder}, finding{}, denied, 0, Clean, "you may not"},
		{"a write that lost", Bake{Step: Builder}, finding{}, &fault.Error{Kind: fault.Conflict, Err: store.ErrConflict}, 0, Builder, ""},
		{"failed", Bake{Step: Seal}, finding{why: "a key"}, nil, 0, Clean, "a key"},
		{"failed, to be kept", Bake{Step: Seal, Keep: time.Hour}, finding{why: "a key"}, nil, 0, Kept, "a key"},
		{"failed where there is nothing to see", Bake{Step: Builder, Keep: time.Hour}, finding{why: "no room"}, nil, 0, Clean, "no room"},
		{"failed with the builder", Bake{Step: Seal, Keep: time.Hour}, finding{why: "terminated", lost: true}, nil, 0, Clean, "terminated"},
		{"canceled", Bake{Step: Seal, Keep: time.Hour, Cancel: true}, finding{}, nil, 0, Clean, "canceled"},
		{"converges as long as it may", Bake{Step: Converge, Puppet: 2 * time.Hour}, finding{}, nil, 119 * time.Minute, Converge, ""},
		{"and no longer", Bake{Step: Converge, Puppet: 2 * time.Hour}, finding{}, nil, 121 * time.Minute, Clean, "2h0m0s"},
		{"kept", Bake{Step: Kept, Error: "x", Until: start.Add(time.Hour)}, finding{}, nil, 59 * time.Minute, Kept, "x"},
		{"kept long enough", Bake{Step: Kept, Error: "x", Until: start.Add(time.Hour)}, finding{}, nil, time.Hour, Clean, "x"},
		{"dropped", Bake{Step: Kept, Error: "x", Until: start.Add(time.Hour), Cancel: true}, finding{}, nil, 0, Clean, "x"},
		{"resumed", Bake{Step: Resume, FailedAt: Seal, To: Seal}, finding{done: true}, nil, 0, Seal, ""},
		{"resumed for nothing", Bake{Step: Resume, FailedAt: Seal, To: Seal, Keep: time.Hour}, finding{why: "gone", lost: true}, nil, 0, Clean, "gone"},
		{"cleaning is not decided here", Bake{Step: Clean}, finding{done: true, why: "x"}, denied, 0, Clean, ""},
		{"nor is the end", Bake{Step: Done}, finding{done: true, why: "x"}, denied, 0, Done, ""},
	} {
		c.b.Name, c.b.Since = "shop-1", start
		got := decide(c.b, c.f, c.err, start.Add(c.after))
		if got.Step != c.step || (c.why == "") != (got.Error == "") || !strings.Contains(got.Error, c.why) {
			t.Errorf("%s: %s, %q; want %s, %q", c.name, got.Step, got.Error, c.step, c.why)
		}
		if got.Step != c.b.Step && (got.Since != start.Add(c.after) || got.Blocker == nil || got.Sentence == "") {
			t.Errorf("%s: entered without saying since when and what: %+v", c.name, got)
		}
		if got.Step == Clean && got.Error != "" && c.b.FailedAt == "" && c.b.Step != Kept && got.FailedAt != c.b.Step {
			t.Errorf("%s: failed at %s, not at %s", c.name, got.FailedAt, c.b.Step)
		}
	}
}

// Whatever is found, a bake ends: it never goes back but by a try that somebody
// asked for, never leaves an end, and is late at some time.
func TestDecideEnds(t *testing.T) {
	rank := map[Step]int{Kept: len(order), Resume: len(order), Done: len(order) + 2}
	for i, s := range order {
		rank[s.step] = i
	}
	rank[Clean] = len(order) + 1
	rapid.Check(t, func(t *rapid.T) {
		b := Bake{Name: "x", Step: Inputs, Since: start, Keep: time.Duration(rapid.Int64Range(0, int64(3*time.Hour)).Draw(t, "keep"))}
		now := start
		for range 60 {
			var f finding
			var err error
			switch rapid.IntRange(0, 5).Draw(t, "found") {
			case 0:
				f.done = true
			case 1:
				f.why = "no"
			case 2:
				err = errors.New("timeout")
			}
			b.Cancel = b.Cancel || rapid.IntRange(0, 40).Draw(t, "cancel") == 0
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(30*time.Minute)).Draw(t, "pause")))
			next := decide(b, f, err, now)
			if rank[next.Step] < rank[b.Step] {
				t.Fatalf("from %s back to %s", b.Step, next.Step)
			}
			if next.Step == Clean && next.Error == "" && b.Step != Verify && b.Step != Clean {
				t.Fatalf("from %s to the end without a reason", b.Step)
			}
			if next.Step == Kept && (next.Until.IsZero() || next.Error == "") {
				t.Fatalf("kept without an end or a reason: %+v", next)
			}
			b = next
		}
		for range len(order) + 2 {
			now = now.Add(24 * time.Hour)
			b = decide(b, finding{}, nil, now)
		}
		if b.Step != Clean {
			t.Fatalf("it never ends: %+v", b)
		}
	})
}
