package currency

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/image"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC) // a Monday

// estate is dev and prod on image a, whose channel points to b since an hour ago.
func estate(f func(o *Estate, dev, prod *environment.Environment)) Estate {
	env := func(name string, f environment.Follow) environment.Environment {
		f.Channel = "shop/stable"
		return environment.Environment{
			Name: name, Blueprint: "shop", Image: "a", Release: "r", Serving: 3, Want: 3, Size: 45, Phase: environment.Serving, Follow: f, Standing: true, Deadline: now.Add(12 * time.Hour),
			Good: []environment.Version{{Image: "a", Release: "r", At: now.Add(-48 * time.Hour)}, {Image: "z", Release: "q", At: now.Add(-96 * time.Hour)}},
		}
	}
	o := Estate{
		Now:          now,
		Environments: []environment.Environment{env("dev", environment.Follow{}), env("prod", environment.Follow{After: []string{"dev"}, Wait: time.Hour})},
		Channels:     map[string]image.Channel{"shop/stable": {Name: "shop/stable", Image: "b", Moved: now.Add(-time.Hour)}},
		Images:       map[string]image.Image{"a": {Name: "a", State: image.Verified}, "b": {Name: "b", State: image.Verified}, "z": {Name: "z", State: image.Verified}},
		Freezes:      map[string]Freeze{}, Wanted: map[string]string{}, From: map[string]string{}, Begun: map[string]time.Time{},
		Usual: map[string]time.Duration{"dev": 2 * time.Minute, "prod": 3 * time.Minute},
	}
	f(&o, &o.Environments[0], &o.Environments[1])
	return o
}

func revoke(o *Estate, name string) {
	i := o.Images[name]
	i.State, i.Revoked, i.Why = image.Quarantined, now.Add(-time.Minute), "CVE-2026-1"
	o.Images[name] = i
}

func TestPlan(t *testing.T) {
	at := func(d time.Duration) string { return now.Add(d).Format("02 15:04") }
	for _, c := range []struct {
		name string
		f    func(o *Estate, dev, prod *environment.Environment)
		dev  string // state, step, target, rule, ETA
		prod string
	}{
		{"development first", func(o *Estate, dev, prod *environment.Environment) {},
			"due take b " + at(2*time.Minute), "waiting b image-after " + at(time.Hour+5*time.Minute)},
		{"it is on its way", func(o *Estate, dev, prod *environment.Environment) {
			dev.Want, o.Wanted["dev"], o.Begun["dev"] = 4, "b", now.Add(-time.Minute)
		}, "moving b " + at(time.Minute), "waiting b image-after " + at(time.Hour+4*time.Minute)},
		{"it is asked for", func(o *Estate, dev, prod *environment.Environment) { dev.Next = &environment.Change{Image: "b"} },
			"moving b " + at(0), "waiting b image-after " + at(time.Hour+3*time.Minute)},
		{"another deploy", func(o *Estate, dev, prod *environment.Environment) { dev.Next = &environment.Change{Bake: "c"} },
			"waiting b deploy-under-way", "waiting b image-after"},
		{"it soaks in dev", func(o *Estate, dev, prod *environment.Environment) {
			dev.Image, dev.Shift = "b", &environment.Shift{From: 2, To: 3, Soak: now.Add(10 * time.Minute)}
		}, "current b", "waiting b image-after"},
		{"proved half an hour ago", func(o *Estate, dev, prod *environment.Environment) {
			dev.Image = "b"
			dev.Proved(environment.Version{Image: "b", At: now.Add(-30 * time.Minute)})
		}, "current b", "waiting b image-after " + at(33*time.Minute)},
		{"a run deployed what it tested since", func(o *Estate, dev, prod *environment.Environment) {
			dev.Follow.From, prod.Follow.From = now.Add(-2*time.Hour), now.Add(-time.Minute)
		}, "due take b " + at(2*time.Minute), "current a"},
		{"and that is revoked", func(o *Estate, dev, prod *environment.Environment) {
			revoke(o, "a")
			prod.Follow.From = now
		}, "due take b " + at(2*time.Minute), "due take b " + at(3*time.Minute)},
		{"a later release soaks in dev", func(o *Estate, dev, prod *environment.Environment) {
			dev.Image, dev.Shift = "b", &environment.Shift{From: 2, To: 3, Soak: now.Add(time.Hour)}
			o.From["dev"] = "b"
			dev.Proved(environment.Version{Image: "b", Release: "r", At: now.Add(-90 * time.Minute)})
		}, "current b", "due take b " + at(3*time.Minute)},
		{"it soaks in dev once more", func(o *Estate, dev, prod *environment.Environment) {
			dev.Image, dev.Shift = "b", &environment.Shift{From: 2, To: 3, Soak: now.Add(time.Hour)}
			o.From["dev"] = "a"
			dev.Proved(environment.Version{Image: "b", Release: "r", At: now.Add(-90 * time.Minute)})
		}, "current b", "waiting b image-after " + at(3*time.Minute)},
		{"a later release does not begin the wait anew", func(o *Estate, dev, prod *environment.Environment) {
			dev.Image = "b"
			dev.Proved(environment.Version{Image: "b", Release: "r", At: now.Add(-90 * time.Minute)})
			dev.Proved(environment.Version{Image: "b", Release: "s", At: now.Add(-time.Minute)})
		}, "current b", "due take b " + at(3*time.Minute)},
		{"dev left it", func(o *Estate, dev, prod *environment.Environment) { dev.Refuse("b", "errors", now) },
			"waiting b image-refused", "waiting b image-after"},
		{"there was no capacity in dev", func(o *Estate, dev, prod *environment.Environment) { dev.Postpone("b", "no capacity", now) },
			"waiting b image-refused " + at(32*time.Minute), "waiting b image-after " + at(95*time.Minute)},
		{"dev is gone", func(o *Estate, dev, prod *environment.Environment) { dev.Phase = environment.Gone },
			"", "waiting b image-after"},
		{"a window", func(o *Estate, dev, prod *environment.Environment) {
			dev.Follow.Windows = []string{"tue 09:00-10:00", "wed 09:00-10:00"}
		}, "waiting b window " + at(21*time.Hour+2*time.Minute), "waiting b image-after " + at(22*time.Hour+5*time.Minute)},
		{"frozen", func(o *Estate, dev, prod *environment.Environment) {
			o.Freezes["dev"] = Freeze{Name: "dev", Why: "audit", Until: now.Add(time.Hour)}
			o.Freezes["prod"] = Freeze{Name: "prod", Why: "audit", Until: now}
		}, "waiting b frozen " + at(time.Hour+2*time.Minute), "waiting b image-after " + at(2*time.Hour+5*time.Minute)},
		{"all frozen", func(o *Estate, dev, prod *environment.Environment) { o.Freezes[All] = Freeze{Name: All, Why: "audit"} },
			"waiting b frozen", "waiting b frozen"},
		{"it ends soon anyway", func(o *Estate, dev, prod *environment.Environment) {
			dev.Standing, dev.Deadline = false, now.Add(2*time.Hour)
		}, "ending b", "waiting b image-after"},
		{"the budget", func(o *Estate, dev, prod *environment.Environment) {
			prod.Follow.After, o.Budget = nil, 60
		}, "due take b " + at(2*time.Minute), "waiting b image-budget " + at(6*time.Minute)},
		{"the budget, and who waits with all of its instances there", func(o *Estate, dev, prod *environment.Environment) {
			prod.Follow.After, o.Budget = nil, 60
			dev.Want, o.Wanted["dev"], o.Begun["dev"], o.Launched = 4, "b", now.Add(-time.Hour), map[string]bool{"dev": true}
		}, "moving b " + at(0), "due take b " + at(3*time.Minute)},
		{"larger than the budget", func(o *Estate, dev, prod *environment.Environment) {
			prod.Phase, o.Budget = environment.Gone, 10
		}, "due take b " + at(2*time.Minute), ""},
		{"nothing is followed", func(o *Estate, dev, prod *environment.Environment) { dev.Follow.Channel = "" },
			"follows-none", "waiting b image-after"},
		{"quarantined", func(o *Estate, dev, prod *environment.Environment) {
			b := o.Images["b"]
			b.State = image.Quarantined
			o.Images["b"] = b
		}, "waiting image-quarantined", "waiting image-quarantined"},
		{"what runs was revoked: nobody waits for anybody", func(o *Estate, dev, prod *environment.Environment) {
			revoke(o, "a")
			prod.Follow.Windows = []string{"tue 09:00-10:00"}
		}, "due take b " + at(2*time.Minute), "due take b " + at(3*time.Minute)},
		{"revoked, and the channel is too", func(o *Estate, dev, prod *environment.Environment) {
			revoke(o, "a")
			revoke(o, "b")
		}, "due take z " + at(2*time.Minute), "due take z " + at(3*time.Minute)},
		{"revoked, and nothing else was good", func(o *Estate, dev, prod *environment.Environment) {
			revoke(o, "a")
			revoke(o, "b")
			dev.Good = nil
		}, "waiting image-revoked", "due take z " + at(3*time.Minute)},
		{"revoked in its soak", func(o *Estate, dev, prod *environment.Environment) {
			dev.Image, dev.Shift = "b", &environment.Shift{From: 2, To: 3, Soak: now.Add(10 * time.Minute)}
			o.From["dev"] = "a"
			revoke(o, "b")
			o.Channels["shop/stable"] = image.Channel{Name: "shop/stable", Image: "a", Moved: now}
		}, "due go-back a " + at(2*time.Minute), "current a"},
		{"revoked in its soak, and a deploy waits for that", func(o *Estate, dev, prod *environment.Environment) {
			dev.Image, dev.Shift, dev.Next = "b", &environment.Shift{From: 2, To: 3, Soak: now.Add(10 * time.Minute)}, &environment.Change{Image: "b"}
			o.From["dev"] = "z"
			revoke(o, "b")
			o.Channels["shop/stable"] = image.Channel{Name: "shop/stable", Image: "a", Moved: now}
		}, "due go-back a " + at(2*time.Minute), "current a"},
		{"revoked in its soak, and what served before too", func(o *Estate, dev, prod *environment.Environment) {
			dev.Image, dev.Shift = "a", &environment.Shift{From: 2, To: 3, Soak: now.Add(10 * time.Hour)}
			o.From["dev"] = "z"
			revoke(o, "a")
			revoke(o, "z")
		}, "due take b " + at(2*time.Minute), "due take b " + at(3*time.Minute)},
		{"revoked on its way there", func(o *Estate, dev, prod *environment.Environment) {
			dev.Want, o.Wanted["dev"] = 4, "b"
			revoke(o, "b")
			o.Channels["shop/stable"] = image.Channel{Name: "shop/stable", Image: "a", Moved: now}
			o.Freezes[All] = Freeze{Name: All, Why: "audit"}
		}, "due go-back a " + at(2*time.Minute), "current a"},
		{"revoked on its way there, and called off already", func(o *Estate, dev, prod *environment.Environment) {
			dev.Want, o.Wanted["dev"], dev.Back = 4, "b", &environment.Back{}
			revoke(o, "b")
			o.Channels["shop/stable"] = image.Channel{Name: "shop/stable", Image: "a", Moved: now}
		}, "current a", "current a"},
		{"revoked, and what the channel points to was left here", func(o *Estate, dev, prod *environment.Environment) {
			revoke(o, "a")
			dev.Refuse("b", "errors", now)
			prod.Postpone("b", "no capacity", now)
		}, "due take z " + at(2*time.Minute), "waiting b image-refused " + at(33*time.Minute)},
		{"revoked, but frozen", func(o *Estate, dev, prod *environment.Environment) {
			revoke(o, "a")
			o.Freezes[All] = Freeze{Name: All, Why: "audit"}
		}, "waiting b frozen", "waiting b frozen"},
		{"a suite's", func(o *Estate, dev, prod *environment.Environment) { dev.Run, prod.Follow.After = "shop-1", nil },
			"", "due take b " + at(3*time.Minute)},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := map[string]string{}
			for _, s := range Plan(estate(c.f)) {
				f := []string{string(s.State), string(s.Step), s.Target}
				if s.Blocker != nil {
					f = append(f, s.Blocker.Rule)
				}
				if !s.ETA.IsZero() {
					f = append(f, s.ETA.Format("02 15:04"))
				}
				got[s.Environment] = strings.Join(slices.DeleteFunc(f, func(s string) bool { return s == "" }), " ")
			}
			if got["dev"] != c.dev || got["prod"] != c.prod {
				t.Errorf("dev:  %s\nwant: %s\nprod: %s\nwant: %s", got["dev"], c.dev, got["prod"], c.prod)
			}
		})
	}
}

// Late is what its time is over for, or will be.
func TestLate(t *testing.T) {
	for hours, late := range map[int]bool{1: false, 2: false, 3: true, 5: true} { // prod needs 65 minutes more
		s := Plan(estate(func(o *Estate, dev, prod *environment.Environment) {
			ch := o.Channels["shop/stable"]
			ch.Moved = now.Add(-time.Duration(hours) * time.Hour)
			o.Channels["shop/stable"] = ch
		}))[1]
		if s.Late != late || !s.Due.Equal(now.Add(time.Duration(4-hours)*time.Hour)) {
			t.Errorf("promoted %d hours ago: due at %s, there at %s, late %t", hours, s.Due, s.ETA, s.Late)
		}
	}
}

// Whatever the estate: nothing is taken to an image that may not be launched or
// was left here, nothing that is frozen or on its way is touched, the budget
// holds, and the order in which environments are read is of no account.
func TestPlanHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		images := []string{"a", "b", "c", "d"}
		o := Estate{
			Now: now, Channels: map[string]image.Channel{}, Images: map[string]image.Image{}, Freezes: map[string]Freeze{}, Wanted: map[string]string{}, From: map[string]string{}, Begun: map[string]time.Time{}, Usual: map[string]time.Duration{},
			Budget: rapid.SampledFrom([]int{0, 0, 10, 50, 100}).Draw(t, "budget"),
		}
		for _, n := range images {
			i := image.Image{Name: n, State: rapid.SampledFrom([]image.State{image.Verified, image.Verified, image.Candidate, image.Quarantined, image.Retired}).Draw(t, "state")}
			if i.State == image.Quarantined && rapid.Bool().Draw(t, "revoked") {
				i.Revoked = now.Add(-time.Minute)
			}
			o.Images[n] = i
		}
		name := rapid.SampledFrom(images)
		for _, ch := range []string{"x/stable", "x/dev"} {
			o.Channels[ch] = image.Channel{Name: ch, Image: name.Draw(t, "points to"), Moved: now.Add(-time.Duration(rapid.IntRange(0, 10).Draw(t, "hours")) * time.Hour)}
		}
		n := rapid.IntRange(1, 6).Draw(t, "environments")
		for i := range n {
			e := environment.Environment{
				Name: fmt.Sprint("e", i), Image: name.Draw(t, "runs"), Serving: rapid.IntRange(0, 2).Draw(t, "serving"), Size: rapid.IntRange(1, 60).Draw(t, "size"),
				Standing: rapid.Bool().Draw(t, "standing"), Deadline: now.Add(time.Hour), Destroy: rapid.IntRange(0, 9).Draw(t, "destroy") == 0,
				Follow: environment.Follow{Channel: rapid.SampledFrom([]string{"", "x/stable", "x/dev", "x/none"}).Draw(t, "follows"), Wait: time.Hour},
			}
			e.Want = e.Serving + rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "more")
			if rapid.Bool().Draw(t, "after") {
				e.Follow.After = []string{fmt.Sprint("e", rapid.IntRange(0, n).Draw(t, "whom"))}
			}
			if rapid.Bool().Draw(t, "good") {
				e.Good = []environment.Version{{Image: name.Draw(t, "was good"), At: now.Add(-2 * time.Hour)}}
			}
			if rapid.Bool().Draw(t, "refuses") {
				e.Refuse(name.Draw(t, "refused"), "no", now)
			}
			if rapid.IntRange(0, 4).Draw(t, "soaks") == 0 {
				e.Shift = &environment.Shift{From: 1, To: 2, Soak: now.Add(time.Minute)}
				o.From[e.Name] = name.Draw(t, "from")
			}
			if rapid.IntRange(0, 4).Draw(t, "frozen") == 0 {
				o.Freezes[e.Name] = Freeze{Name: e.Name}
			}
			if e.Want != e.Serving {
				o.Wanted[e.Name] = name.Draw(t, "wanted")
			}
			o.Environments = append(o.Environments, e)
		}
		got := Plan(o)
		turned := o
		turned.Environments = slices.Clone(o.Environments)
		slices.Reverse(turned.Environments)
		if again := Plan(turned); !reflect.DeepEqual(got, again) {
			t.Fatalf("another order is another plan:\n%+v\n%+v", got, again)
		}
		moving, largest := 0, 0
		for _, s := range got {
			e := o.Environments[slices.IndexFunc(o.Environments, func(e environment.Environment) bool { return e.Name == s.Environment })]
			if s.State == Moving {
				moving += s.Size
			}
			if s.State == Waiting && s.Blocker == nil {
				t.Fatalf("%+v waits without a reason", s)
			}
			if s.Step == Nothing {
				continue
			}
			target, from, wanted := o.Images[s.Target], o.Images[o.From[e.Name]], o.Images[o.Wanted[e.Name]]
			_, frozen := o.Freezes[e.Name]
			if s.Step == GoBack {
				underway := e.Want != e.Serving && !wanted.Revoked.IsZero()
				soaks := e.Want == e.Serving && e.Shift != nil && s.Revoked && from.Launches() && !frozen
				if s.Leaves != e.Want || e.Serving == 0 || e.Destroy || !underway && !soaks {
					t.Fatalf("%+v of %+v", s, e)
				}
				continue
			}
			if s.Step == Take {
				moving, largest = moving+s.Size, max(largest, s.Size)
			}
			if !target.Launches() || s.Target == e.Image || e.Refusal(s.Target, now) != nil || frozen || e.Destroy || e.Serving == 0 || e.Want != e.Serving || e.Shift != nil && (!s.Revoked || from.Launches()) {
				t.Fatalf("%+v of %+v", s, e)
			}
		}
		if o.Budget > 0 && largest > 0 && moving > o.Budget && moving != largest {
			t.Fatalf("%d instances move, the budget is %d", moving, o.Budget)
		}
	})
}

// Each comes after all that are before it, or all after all: the times are found
// without going every way there is.
func TestManyAfterMany(t *testing.T) {
	for _, round := range []bool{false, true} {
		o := estate(func(o *Estate, dev, prod *environment.Environment) {})
		one := o.Environments[0]
		o.Environments, o.Usual = nil, map[string]time.Duration{}
		for i := range 40 {
			e := one
			e.Name, e.Follow.After, e.Follow.Wait = fmt.Sprintf("e%02d", i), nil, time.Minute
			for k := range 40 {
				if k < i || round && k != i {
					e.Follow.After = append(e.Follow.After, fmt.Sprintf("e%02d", k))
				}
			}
			o.Environments = append(o.Environments, e)
		}
		begun := time.Now()
		got := Plan(o)
		if d := time.Since(begun); d > 5*time.Second {
			t.Errorf("it took %s", d)
		}
		if last := got[39]; !round && !last.ETA.Equal(now.Add(39*time.Minute)) || round && !last.ETA.IsZero() {
			t.Errorf("all after all %t: %+v", round, last)
		}
	}
}
