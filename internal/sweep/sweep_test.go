package sweep

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
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
		if why, orphan := Judge(Thing{"stack", "s", tags}, live, now); orphan != c.orphan || orphan != (why != "") {
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
			if _, err := d.CreateStack(t.Context(), cloud.Intent{ID: object, Object: object}, cloud.StackInput{Name: strings.ReplaceAll(object, "/", "-")}); err != nil {
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
