package pipeline

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestCron(t *testing.T) {
	from := time.Date(2030, 1, 31, 12, 30, 15, 0, time.UTC) // a Thursday
	for _, c := range []struct{ cron, want string }{
		{"* * * * *", "2030-01-31 12:31"},
		{"0 3 * * *", "2030-02-01 03:00"},
		{"*/20 * * * *", "2030-01-31 12:40"},
		{"30 12 * * *", "2030-02-01 12:30"},
		{"0 0 1 * 1", "2030-02-01 00:00"},
		{"0 0 15 * 1", "2030-02-04 00:00"}, // the 15th, or a Monday
		{"0 0 29 2 *", "2032-02-29 00:00"},
		{"15,45 9-17/4 * * 1-5", "2030-01-31 13:15"},
		{"0 0 * * 7", "2030-02-03 00:00"},
		{"5/30 0 * * *", "2030-02-01 00:05"},
	} {
		p, err := ParseCron(c.cron)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.After(from); err != nil || got.Format("2006-01-02 15:04") != c.want {
			t.Errorf("%s: %s, %v", c.cron, got, err)
		}
	}
	for _, bad := range []string{"", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "a * * * *", "5-1 * * * *", "*/0 * * * *", "1- * * * *", "*/x * * * *"} {
		if _, err := ParseCron(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	p, err := ParseCron("0 0 31 2 *")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.After(from); err == nil {
		t.Error("the 31st of February came")
	}
}

// The next moment is after now, as the schedule says, and none before it is.
func TestDue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := noon.Add(time.Duration(rapid.IntRange(0, 1e8).Draw(t, "seconds")) * time.Second)
		every := time.Duration(rapid.IntRange(1, 1e5).Draw(t, "every")) * time.Second
		tr := Trigger{Every: every, Created: noon}
		at, err := tr.Due(now)
		if err != nil || !at.After(now) || at.Sub(now) > every || at.Sub(noon)%every != 0 {
			t.Errorf("%s after %s: %v", at, now, err)
		}
		c := Cron{minute: make([]bool, 60), hour: make([]bool, 24), day: make([]bool, 32), month: make([]bool, 13), weekday: make([]bool, 8), anyDay: true, anyWeekday: true}
		for i := range c.minute {
			c.minute[i] = rapid.Bool().Draw(t, "minute")
		}
		for _, s := range [][]bool{c.hour, c.day, c.month, c.weekday} {
			for i := range s {
				s[i] = true
			}
		}
		c.minute[rapid.IntRange(0, 59).Draw(t, "one at least")] = true
		at, err = c.After(now)
		if err != nil || !at.After(now) || !c.minute[at.Minute()] {
			t.Fatalf("%s after %s: %v", at, now, err)
		}
		for b := now.UTC().Truncate(time.Minute).Add(time.Minute); b.Before(at); b = b.Add(time.Minute) {
			if c.minute[b.Minute()] {
				t.Fatalf("%s was passed over for %s", b, at)
			}
		}
	})
}

func TestNotices(t *testing.T) {
	before := full()
	before.Notify = []Notify{{To: "chat", Format: "slack", On: []string{"gate", "failed"}}, {To: "board", Format: "json", On: []string{"passed", "manual"}}}
	after := before
	after.Stages, after.Suites = append([]Stage{}, before.Stages...), append([]Suite{}, before.Suites...)
	after.Stages[2].Phase = Running
	after.Suites[3].Phase = Waiting
	got := Notices(before, after)
	if len(got) != 2 || got["shop-r1/gate-2-0"].To != "chat" || got["shop-r1/manual-3-1"].To != "board" {
		t.Errorf("%+v", got)
	}
	if again := Notices(after, after); len(again) != 0 {
		t.Errorf("told twice: %+v", again)
	}
	over := after
	over.Phase, over.Error = Done, "no release"
	if got := Notices(after, over); len(got) != 1 || got["shop-r1/failed-run-0"].Text != "shop-r1 failed: no release" {
		t.Errorf("%+v", got)
	}
}
