package chronicle

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/operation"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

type set struct {
	clock.Real
	now time.Time
}

func (s *set) Now() time.Time { return s.now }

func open(t *testing.T) (*Store, *set) {
	t.Helper()
	st, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	clk := &set{now: time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)}
	return New(st, clk, slog.New(slog.DiscardHandler), nil), clk
}

func told(t *testing.T, s store.Store) (reasons []string, all []event.Event) {
	t.Helper()
	all, err := store.List[event.Event](t.Context(), s, event.Kind, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		reasons = append(reasons, e.Reason)
	}
	return reasons, all
}

// The life of an instance is told, each step once, and a poll tells nothing.
func TestInstance(t *testing.T) {
	s, clk := open(t)
	in := instance.Instance{ID: "i-1", Environment: "shop-dev", Generation: 1, Zone: "a", State: instance.Launching, Launched: clk.now}
	if err := s.Apply(t.Context(), store.NoEpoch, store.Put(instance.Kind, in.Name(), 0, in)); err != nil {
		t.Fatal(err)
	}
	step := func(f func(*instance.Instance)) {
		t.Helper()
		clk.now = clk.now.Add(time.Minute)
		for range 3 { // the second and third time nothing changes
			if err := reconcile.Update(t.Context(), s, instance.Kind, in.Name(), func(i *instance.Instance) error { f(i); return nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	began := clk.now
	step(func(i *instance.Instance) { i.State, i.InService = instance.Serving, began.Add(time.Minute) })
	step(func(i *instance.Instance) { i.Address = "10.0.0.1" })
	step(func(i *instance.Instance) {
		i.State, i.Failing, i.Trouble = instance.Failing, began.Add(2*time.Minute), "it answers 500\nand more"
	})
	step(func(i *instance.Instance) { i.State, i.Failing = instance.Serving, time.Time{} })
	step(func(i *instance.Instance) { i.Touch = &instance.Touch{What: []string{"a login by ann"}} })
	step(func(i *instance.Instance) { i.Leave = &instance.Leave{Cause: instance.Touched, Why: "it was touched"} })
	step(func(i *instance.Instance) {
		i.State, i.Cause, i.Why = instance.Gone, instance.Touched, "it was touched"
	})
	reasons, all := told(t, s)
	want := []string{"InstanceLaunched", "InstanceInService", "InstanceFailing", "InstanceHealthy", "InstanceTouched", "InstanceReplacing", "InstanceGone"}
	if !slices.Equal(reasons, want) {
		t.Fatalf("told: %v", reasons)
	}
	if all[2].Message != "it answers 500" || all[2].Severity != event.Warning || all[1].Message != "in service 1m0s after its launch" {
		t.Errorf("%+v", all[1:3])
	}
}

// Going back is told once, by whoever wanted it.
func TestWentBack(t *testing.T) {
	s, clk := open(t)
	e := environment.Environment{Name: "shop-dev", Serving: 2}
	for _, back := range []*environment.Back{nil, {By: "ann", Why: "it is slow", At: clk.now, From: 2, To: 1}, {By: "ann", Why: "it is slow", At: clk.now, From: 2, To: 1, Done: clk.now}, {At: clk.now.Add(1), From: 3}} {
		e.LastBack = back
		if err := s.Apply(t.Context(), store.NoEpoch, store.Put(environment.Kind, e.Name, store.Any, e)); err != nil {
			t.Fatal(err)
		}
		clk.now = clk.now.Add(time.Minute)
	}
	reasons, all := told(t, s)
	var got []event.Event
	for i, r := range reasons {
		if r == "WentBack" {
			got = append(got, all[i])
		}
	}
	if len(got) != 2 || got[0].By != "ann" || got[0].Message != "it went back from generation 2 to generation 1: it is slow" || !strings.Contains(got[1].Message, "like those that were good") {
		t.Errorf("told: %+v", got)
	}
}

// An event is there if and only if the change is; what repeats is counted.
func TestTogether(t *testing.T) {
	s, clk := open(t)
	e := environment.Environment{Name: "e", Phase: environment.Pending}
	put := func(version int64) error {
		return s.Apply(t.Context(), store.NoEpoch, store.Put(environment.Kind, "e", version, e))
	}
	if err := put(0); err != nil {
		t.Fatal(err)
	}
	e.Error = "no"
	if err := put(7); !errors.Is(err, store.ErrConflict) {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), 99, store.Put(environment.Kind, "e", 1, e)); !errors.Is(err, store.ErrFenced) {
		t.Fatal(err)
	}
	if reasons, _ := told(t, s); len(reasons) != 0 {
		t.Fatalf("told of what was refused: %v", reasons)
	}
	for i := range int64(10) {
		e.Error = []string{"no", ""}[i%2]
		if err := put(i + 1); err != nil {
			t.Fatal(err)
		}
		clk.now = clk.now.Add(time.Minute)
	}
	if _, all := told(t, s); len(all) != 1 || all[0].Count != 5 || all[0].Severity != event.Error || !all[0].Last.After(all[0].At) {
		t.Errorf("%+v", all)
	}
	e.Blocker = &blocker.Blocker{Rule: "image-baking", On: "bake/x"}
	if err := put(11); err != nil {
		t.Fatal(err)
	}
	e.Blocker = &blocker.Blocker{Rule: "no-capacity", On: "group/x", Message: "there is no room"}
	if err := put(12); err != nil {
		t.Fatal(err)
	}
	e.Blocker = nil
	if err := put(13); err != nil {
		t.Fatal(err)
	}
	if reasons, _ := told(t, s); !slices.Equal(reasons, []string{"DeployFailed", "Blocked", "Unblocked"}) {
		t.Errorf("told: %v", reasons)
	}
}

// The operation of a request is on the record that it changes, on those that
// are made of it, and in their events; an instance keeps the one that is about it.
func TestOperation(t *testing.T) {
	s, _ := open(t)
	request := operation.With(access.With(t.Context(), access.Principal{Name: "ann"}), "request-1")
	e := environment.Environment{Name: "e", Next: &environment.Change{Size: 3, By: "ann", Asked: time.Unix(1, 0)}}
	if err := s.Apply(request, store.NoEpoch, store.Put(environment.Kind, "e", 0, e)); err != nil {
		t.Fatal(err)
	}
	loop := operation.With(t.Context(), "request-1")
	in := instance.Instance{ID: "i", Environment: "e", Generation: 1}
	if err := s.Apply(loop, store.NoEpoch, store.Put(environment.GenerationKind, "e/1", 0, environment.Generation{Environment: "e", Number: 1}), store.Put(instance.Kind, in.Name(), 0, in)); err != nil {
		t.Fatal(err)
	}
	second := operation.With(access.With(t.Context(), access.Principal{Name: "bob"}), "request-2")
	if err := reconcile.Update(second, s, instance.Kind, in.Name(), func(i *instance.Instance) error { i.Ask = &instance.Ask{By: "bob"}; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := reconcile.Update(loop, s, instance.Kind, in.Name(), func(i *instance.Instance) error { i.Leave = &instance.Leave{}; return nil }); err != nil {
		t.Fatal(err)
	}
	got, _, err := store.Get[instance.Instance](t.Context(), s, instance.Kind, in.Name())
	g, _, err2 := store.Get[environment.Generation](t.Context(), s, environment.GenerationKind, "e/1")
	if err != nil || err2 != nil || got.Op != "request-2" || g.Op != "request-1" {
		t.Errorf("instance %q, generation %q, %v, %v", got.Op, g.Op, err, err2)
	}
	_, all := told(t, s)
	var lines []string
	for _, e := range all {
		lines = append(lines, e.Reason+" "+e.Op+" "+e.By)
	}
	want := []string{"DeployRequested request-1 ann", "GenerationCreated request-1 ", "InstanceLaunched request-1 ", "ReplacementRequested request-2 bob", "InstanceReplacing request-2 "}
	if !slices.Equal(lines, want) {
		t.Errorf("told:\n%s", strings.Join(lines, "\n"))
	}
}
