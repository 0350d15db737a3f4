package chaos

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func worlds(t *rapid.T) World {
	w := World{
		Now:  time.Date(2026, 1, 1, rapid.IntRange(0, 23).Draw(t, "hour"), 0, 0, 0, time.UTC),
		Done: rapid.IntRange(0, 20).Draw(t, "done"), Lost: rapid.IntRange(0, 1).Draw(t, "lost"),
		Zones: []string{"a", "b", "c"}, Box: rapid.Bool().Draw(t, "box"), Region: rapid.Bool().Draw(t, "region"),
		Replicas: rapid.SliceOfN(rapid.SampledFrom([]string{"/one", "/two"}), 0, 2).Draw(t, "replicas"),
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "environments") {
		e := Target{Name: fmt.Sprintf("env-%d", i), Production: rapid.Bool().Draw(t, "production"), Floor: rapid.IntRange(0, 5).Draw(t, "floor")}
		for k := range rapid.IntRange(0, 6).Draw(t, "serving") {
			e.Serving = append(e.Serving, fmt.Sprintf("i-%d-%d", i, k))
		}
		w.Targets = append(w.Targets, e)
	}
	return w
}

// Whatever the seed and the world, no act leaves the leash, and the server
// would allow it.
func TestTheLeashHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := worlds(t)
		l := Leash{
			Environments: rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"env-0", "env-1", "env-2", "env-3"}), 0, 4, rapid.ID).Draw(t, "named"),
			Kinds:        rapid.SliceOfNDistinct(rapid.SampledFrom(Kinds), 1, len(Kinds), rapid.ID).Draw(t, "kinds"),
			From:         rapid.IntRange(0, 23).Draw(t, "from"), To: rapid.IntRange(0, 23).Draw(t, "to"),
			Most: rapid.IntRange(0, 20).Draw(t, "most"), For: 20 * time.Second,
		}
		seed := rapid.Uint64().Draw(t, "seed")
		for range 30 {
			seed++
			holds(t, seed, l, w)
		}
	})
}

// Where everything is there and on the leash, every kind comes in time.
func TestEveryKindHasItsTurn(t *testing.T) {
	w := World{
		Zones: []string{"a", "b", "c"}, Box: true, Region: true, Replicas: []string{"/one", "/two"},
		Targets: []Target{{Name: "env-0", Floor: 1, Serving: []string{"i-0", "i-1"}}},
	}
	l := Leash{Environments: []string{"env-0"}, Kinds: Kinds, Most: 1, For: 20 * time.Second}
	done := map[Kind]bool{}
	for seed := range uint64(200) {
		a, why := Next(seed, l, w)
		if a.Kind == "" {
			t.Fatalf("seed %d: nothing is done: %s", seed, why)
		}
		done[a.Kind] = true
	}
	for _, k := range Kinds {
		if !done[k] {
			t.Errorf("%s never came in 200 acts", k)
		}
	}
}

// holds checks one act.
func holds(t *rapid.T, seed uint64, l Leash, w World) {
	a, why := Next(seed, l, w)
	if again, _ := Next(seed, l, w); again != a {
		t.Fatalf("the same seed does %s and then %s", a, again)
	}
	if a.Kind == "" {
		if why == "" {
			t.Fatal("nothing is done, and nobody says why")
		}
		return
	}
	h := w.Now.Hour()
	switch {
	case w.Done >= l.Most:
		t.Fatalf("%s after %d acts of %d", a, w.Done, l.Most)
	case l.From < l.To && (h < l.From || h >= l.To), l.From > l.To && h < l.From && h >= l.To:
		t.Fatalf("%s at %d o'clock", a, h)
	case !slices.Contains(l.Kinds, a.Kind):
		t.Fatalf("%s was not asked for", a)
	case a.Kind == LoseZone && w.Lost > 0:
		t.Fatal("a second zone is lost")
	}
	for _, e := range w.Targets {
		touched := a.Kind != KillInstance || a.Environment == e.Name
		named := slices.Contains(l.Environments, e.Name)
		if touched && (e.Production && !named || len(l.Environments) > 0 && !named) {
			t.Fatalf("%s touches %s", a, e.Name)
		}
		if a.Environment == e.Name && (len(e.Serving) <= e.Floor || !slices.Contains(e.Serving, a.Instance)) {
			t.Fatalf("%s leaves fewer than %d of %v", a, e.Floor, e.Serving)
		}
	}
	if err := Allow(a, l.Environments, w.Targets); err != nil {
		t.Fatalf("the server refuses it: %v", err)
	}
}

func TestAllow(t *testing.T) {
	ts := []Target{{Name: "shop-dev"}, {Name: "shop-production", Production: true}}
	kill := func(env string) Act { return Act{Kind: KillInstance, Environment: env, Instance: "i-1"} }
	for _, c := range []struct {
		a     Act
		named []string
		ok    bool
	}{
		{kill("shop-dev"), nil, true},
		{kill("shop-production"), nil, false},
		{kill("shop-production"), []string{"shop-production"}, true},
		{kill("shop-other"), nil, false},
		{Act{Kind: LoseZone, Zone: "a"}, nil, false},
		{Act{Kind: LoseZone, Zone: "a"}, []string{"shop-production"}, true},
		{Act{Kind: FreezeAPI, For: time.Hour}, []string{"shop-production"}, false},
		{Act{Kind: "burn"}, nil, false},
	} {
		if err := Allow(c.a, c.named, ts); (err == nil) != c.ok {
			t.Errorf("%s, named %v: %v", c.a, c.named, err)
		}
	}
	if !ProductionLike("shop-production", "production", false) || !ProductionLike("shop-dev", "dev", true) || ProductionLike("shop-dev", "dev", false) {
		t.Error("what is production-like")
	}
}
