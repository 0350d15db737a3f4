package instance

import (
	"testing"
	"time"
)

// Where a group has no room for a replacement beside what is there, a health
// check that fails for all ends one, and the next when the one before runs again.
func TestPlanWithoutRoomAndAllFail(t *testing.T) {
	for _, size := range []int{1, 2, 12} {
		p := Policy{Size: size, Takes: 30 * time.Second, Grace: 10 * time.Second}
		f := newFleet(size, 0, 0, p.Takes)
		f.duds = 1000
		for k := range f.view.Members {
			f.view.Members[k].Healthy, f.view.Members[k].Failing = false, f.now
		}
		ended := 0
		for range 120 { // two minutes
			d := Plan(p, f.view, f.now)
			for _, a := range d.Actions {
				if a.Verb == End {
					ended++
				}
			}
			f.act(p, d)
			running := 0
			for _, m := range f.view.Members {
				if m.Lifecycle == "InService" {
					running++
				}
			}
			if running < size-1 {
				t.Fatalf("%d of %d run: %s", running, size, f)
			}
			f.pass(time.Second)
		}
		if ended == 0 || ended > 5 {
			t.Errorf("%d of %d were ended in two minutes", ended, size)
		}
	}
}
