package sweep

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

func TestJudge(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	past, future := now.Add(-time.Second).Format(time.RFC3339), now.Add(time.Hour).Format(time.RFC3339)
	live := map[string]bool{"generation/a/1": true, "generation/a/2": false, "": true}
	for _, c := range []struct {
		name, object, deadline string
		orphan                 bool
	}{
		{"wanted", "generation/a/1", "", false},
		{"wanted, deadline passed: its loop ends it", "generation/a/1", past, false},
		{"its record has ended", "generation/a/2", "", true},
		{"its record has ended before the deadline", "generation/a/2", future, true},
		{"record unknown, no deadline", "generation/a/3", "", false},
		{"record unknown, deadline in the future", "generation/a/3", future, false},
		{"record unknown, deadline passed", "generation/a/3", past, true},
		{"no record named, no deadline", "", "", false},
		{"no record named, deadline in the future", "", future, false},
		{"no record named, deadline now", "", now.Format(time.RFC3339), true},
		{"no record named, deadline passed", "", past, true},
		{"a deadline that cannot be read", "", "yesterday", false},
	} {
		tags := map[string]string{cloud.TagOwner: "me"}
		for k, v := range map[string]string{cloud.TagObject: c.object, cloud.TagDeadline: c.deadline} {
			if v != "" {
				tags[k] = v
			}
		}
		if why, orphan := Judge(Thing{"stack", "s", tags}, live, now); orphan != c.orphan || why == "" {
			t.Errorf("%s: %v %q", c.name, orphan, why)
		}
	}
}

// partial is a cloud of which one list cannot be read.
type partial struct{ *cloudtest.Driver }

func (partial) Images(context.Context) ([]cloud.Image, error) {
	return nil, errors.New("throttled")
}

func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		c := cloudtest.New(clock.Real{})
		d := c.Driver(st)
		s := &Sweeper{Store: st, Cloud: d, Clock: clock.Real{}, Live: func(context.Context) (map[string]bool, error) {
			return map[string]bool{"a/1": false, "b/1": true}, nil
		}}
		for _, object := range []string{"a/1", "b/1"} {
			if _, err := d.CreateStack(t.Context(), cloud.Intent{ID: object + "/create", Object: object}, cloud.StackInput{Name: strings.ReplaceAll(object, "/", "-")}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		look := func(dry bool) Report {
			t.Helper()
			r, err := s.Sweep(t.Context(), dry)
			if err != nil || len(r.Orphans) != 1 || r.Orphans[0].ID != "a-1" || r.Seen != 2 {
				t.Fatalf("%+v %v", r, err)
			}
			return r
		}
		look(true) // is no sighting
		time.Sleep(2 * Patience)
		look(false)
		time.Sleep(Patience - time.Second)
		if look(false).Orphans[0].Removed || look(true).Orphans[0].Removed {
			t.Error("removed too soon")
		}
		time.Sleep(time.Second)
		if look(true).Orphans[0].Removed {
			t.Error("a dry sweep removes nothing")
		}
		s.Cloud = partial{d} // only a complete read proves anything
		if r, err := s.Sweep(t.Context(), false); err == nil {
			t.Errorf("%+v", r)
		}
		s.Cloud = d
		c.Fail = func(op, _ string) error { return errors.New("not now") }
		if o := look(false).Orphans[0]; o.Removed || !strings.Contains(o.Why, "not now") {
			t.Errorf("%+v", o)
		}
		c.Fail = nil
		time.Sleep(time.Second)
		if !look(false).Orphans[0].Removed {
			t.Error("not removed")
		}
		time.Sleep(5 * time.Second)
		if left := c.Left(); len(left) != 1 || !strings.Contains(left[0], "b-1") {
			t.Errorf("left: %v", left)
		}
	})
}

func TestObjectOf(t *testing.T) {
	for key, want := range map[string]string{
		"bake/shop-1/2/inputs.tar": "bake/shop-1", "handoff/shop-dev/3/i-1.json": "generation/shop-dev/3",
		"releases/shop/abc/shop.tar.gz": "", "results/shop-r1/api/junit.xml": "", "reports/shop-1.yaml": "", "bake/x": "", "": "",
	} {
		if got := objectOf(key); got != want {
			t.Errorf("%s: %q", key, got)
		}
	}
}

// What is judged an orphan has proof, and what has proof is judged an orphan,
// whatever else is known.
func TestJudgeNeedsProof(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	rapid.Check(t, func(rt *rapid.T) {
		names := rapid.SampledFrom([]string{"", "bake/a", "generation/b/1", "image/c"})
		live := rapid.MapOf(names, rapid.Bool()).Draw(rt, "live")
		tags := map[string]string{}
		if o := names.Draw(rt, "object"); o != "" {
			tags[cloud.TagObject] = o
		}
		after := rapid.IntRange(-3, 3).Draw(rt, "deadline")
		switch end := now.Add(time.Duration(after) * time.Hour); rapid.IntRange(0, 2).Draw(rt, "form") {
		case 0:
			tags[cloud.TagDeadline] = end.Format(time.RFC3339)
		case 1:
			tags[cloud.TagDeadline] = "soon"
			after = 1
		case 2:
			after = 1
		}
		wanted, known := live[tags[cloud.TagObject]]
		known = known && tags[cloud.TagObject] != ""
		proof := known && !wanted || !known && after <= 0
		if why, orphan := Judge(Thing{"stack", "s", tags}, live, now); orphan != proof || why == "" {
			rt.Fatalf("%v: %v %q", tags, orphan, why)
		}
	})
}

// elsewhere is the same cloud under another account.
type elsewhere struct{ *cloudtest.Driver }

func (elsewhere) Identity(context.Context) (string, string, error) {
	return "999999999999", "arn:aws:iam::999999999999:root", nil
}

func TestSweepsAtHomeOnly(t *testing.T) {
	st, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	d := cloudtest.New(clock.Real{}).Driver(st)
	s := &Sweeper{Store: st, Cloud: d, Clock: clock.Real{}, Live: func(context.Context) (map[string]bool, error) { return nil, nil }}
	if err := s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(t.Context(), false); err != nil {
		t.Error(err)
	}
	s.Cloud = elsewhere{d}
	if _, err := s.Sweep(t.Context(), true); fault.KindOf(err) != fault.Denied {
		t.Errorf("swept in another account: %v", err)
	}
}

// certificates is a source outside of the cloud.
type certificates map[string]bool

func (c certificates) Things(context.Context) ([]Thing, error) {
	var out []Thing
	for name := range c {
		out = append(out, Thing{"certificate", name, map[string]string{cloud.TagObject: "a/1"}})
	}
	return out, nil
}

func (c certificates) Remove(_ context.Context, _ cloud.Intent, t Thing) error {
	if t.Kind != "certificate" {
		return ErrNotMine
	}
	delete(c, t.ID)
	return nil
}

func TestEveryKindGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		c := cloudtest.New(clock.Real{})
		ours := func(object string) map[string]string {
			return map[string]string{cloud.TagOwner: "test", cloud.TagObject: object}
		}
		for _, kind := range []string{cloud.Snapshot, cloud.LaunchTemplate, cloud.SecurityGroup, cloud.LoadBalancer, cloud.Listener, cloud.TargetGroup} {
			c.Stray(cloud.Stray{Kind: kind, ID: "orphan-" + kind, Tags: ours("a/1")})
			c.Stray(cloud.Stray{Kind: kind, ID: "wanted-" + kind, Tags: ours("b/1")})
		}
		for _, k := range []string{"bake/done/1/inputs.tar", "bake/busy/1/inputs.tar", "bake/unknown/1/inputs.tar", "handoff/a/1/i-1.json", "releases/shop/x"} {
			c.Put(k, []byte("x"))
		}
		ca := certificates{"old": true}
		s := &Sweeper{Store: st, Cloud: c.Driver(st), Clock: clock.Real{}, Sources: []Source{ca}, Live: func(context.Context) (map[string]bool, error) {
			return map[string]bool{"a/1": false, "b/1": true, "bake/done": false, "bake/busy": true, "generation/a/1": false}, nil
		}}
		dry, err := s.Sweep(t.Context(), true)
		if err != nil || len(dry.Orphans) != 9 || len(dry.Kept) != 8 {
			t.Fatalf("%+v %v", dry, err)
		}
		for i, removed := range []int{0, 9, 0} {
			r, err := s.Sweep(t.Context(), false)
			n := 0
			for _, o := range r.Orphans {
				if o.Removed {
					n++
				} else if i > 0 {
					t.Errorf("%+v", o)
				}
			}
			if err != nil || n != removed {
				t.Errorf("sweep %d: %+v %v", i, r, err)
			}
			time.Sleep(Patience)
		}
		keys, _ := s.Cloud.Objects(t.Context(), "")
		strays, _ := s.Cloud.Strays(t.Context())
		if len(keys) != 3 || len(strays) != 6 || len(ca) != 0 {
			t.Errorf("%v %v %v", keys, strays, ca)
		}
	})
}

// An object whose record is gone goes when the longest lease that it can have
// is over, and nothing in the cloud names the record.
func TestObjectsWithoutRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		c := cloudtest.New(clock.Real{})
		d := c.Driver(st)
		s := &Sweeper{Store: st, Cloud: d, Clock: clock.Real{}, Live: func(context.Context) (map[string]bool, error) {
			return map[string]bool{"bake/busy": true}, nil
		}}
		for _, k := range []string{"bake/gone/1/inputs.tar", "bake/named/1/inputs.tar", "bake/busy/1/inputs.tar", "handoff/gone/1/i-1.json", "releases/shop/x"} {
			c.Put(k, []byte("x"))
		}
		if _, err := d.CreateStack(t.Context(), cloud.Intent{ID: "bake/named/create", Object: "bake/named"}, cloud.StackInput{Name: "named", Tags: cloud.Tags{cloud.TagObject: "bake/named"}}); err != nil {
			t.Fatal(err)
		}
		removed := func() (gone string) {
			t.Helper()
			for range 2 {
				dry, err := s.Sweep(t.Context(), true)
				if err != nil {
					t.Fatal(err)
				}
				r, err := s.Sweep(t.Context(), false)
				if err != nil || len(r.Orphans) != len(dry.Orphans) {
					t.Fatalf("%+v %+v %v", r, dry, err)
				}
				for _, o := range r.Orphans {
					if o.Removed {
						gone += o.ID + " "
					}
				}
				time.Sleep(Patience)
			}
			return gone
		}
		time.Sleep(bakeLease - 5*time.Minute)
		if gone := removed(); gone != "" {
			t.Errorf("removed before its deadline: %s", gone)
		}
		time.Sleep(5 * time.Minute)
		if gone := removed(); gone != "bake/gone/1/inputs.tar " {
			t.Errorf("removed: %s", gone)
		}
		time.Sleep(handoffLease)
		if gone := removed(); gone != "handoff/gone/1/i-1.json " {
			t.Errorf("removed: %s", gone)
		}
		if keys, _ := d.ListObjects(t.Context(), ""); len(keys) != 3 {
			t.Errorf("left: %v", keys)
		}
	})
}
