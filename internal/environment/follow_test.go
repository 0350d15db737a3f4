package environment

import (
	"testing"
	"time"
)

func TestMaintenanceWindow(t *testing.T) {
	for _, c := range []struct{ window, now, next string }{ // times are UTC; 2026-11-23 is a Monday
		{"mon-fri 09:00-16:00", "2026-11-23T08:59:59Z", "2026-11-23T09:00:00Z"},
		{"mon-fri 09:00-16:00", "2026-11-23T09:00:00Z", "2026-11-23T09:00:00Z"},
		{"mon-fri 09:00-16:00", "2026-11-23T16:00:00Z", "2026-11-24T09:00:00Z"},
		{"mon-fri 09:00-16:00", "2026-11-27T17:00:00Z", "2026-11-30T09:00:00Z"},
		{"fri-mon 09:00-16:00", "2026-11-24T09:00:00Z", "2026-11-27T09:00:00Z"},
		{"sat,sun 22:00-04:00", "2026-11-23T03:59:00Z", "2026-11-23T03:59:00Z"}, // Sunday's
		{"sat,sun 22:00-04:00", "2026-11-23T04:00:00Z", "2026-11-28T22:00:00Z"},
		{"daily 00:00-24:00", "2026-11-23T23:59:59Z", "2026-11-23T23:59:59Z"},
		{"mon 09:00-10:00 Europe/Berlin", "2026-11-23T08:30:00Z", "2026-11-23T08:30:00Z"},
		{"mon 09:00-10:00 America/New_York", "2026-11-23T08:30:00Z", "2026-11-23T14:00:00Z"},
		// Clocks go forward on 2027-03-28 at 01:00 UTC: nine o'clock is an hour earlier.
		{"sun 09:00-10:00 Europe/Berlin", "2027-03-28T00:00:00Z", "2027-03-28T07:00:00Z"},
	} {
		w, err := ParseWindow(c.window)
		if err != nil {
			t.Fatal(err)
		}
		now, _ := time.Parse(time.RFC3339, c.now)
		if got := w.Next(now).UTC().Format(time.RFC3339); got != c.next {
			t.Errorf("%s at %s opens at %s, not %s", c.window, c.now, got, c.next)
		}
	}
	for _, s := range []string{"", "mon", "mon 9-16", "fun 09:00-16:00", "mon 09:00-25:00", "mon 09:00-16:00 Mars/Base", "mon 09:00-16:00 Local", "mon 09:00 -16:00 UTC", "mon- 09:00-16:00"} {
		if _, err := ParseWindow(s); err == nil {
			t.Errorf("%q is read", s)
		}
	}
}

func FuzzMaintenanceWindow(f *testing.F) {
	f.Add("mon-thu 09:00-16:00 Europe/Berlin", int64(0))
	f.Fuzz(func(t *testing.T, s string, at int64) {
		w, err := ParseWindow(s)
		if err != nil {
			return
		}
		now := time.Unix(at%4e9, 0)
		next := w.Next(now)
		if next.Before(now) || next.Sub(now) > 9*24*time.Hour {
			t.Errorf("%q at %s opens at %s", s, now, next)
		}
		if again := w.Next(next); !again.Equal(next) {
			t.Errorf("%q opens at %s and is not open then", s, next)
		}
	})
}

func TestRefuse(t *testing.T) {
	var e Environment
	at := time.Unix(0, 0)
	for i := range 30 {
		e.Refuse(string(rune('a'+i%12)), "it is slow", at.Add(time.Duration(i)))
	}
	if len(e.Refused) != keepRefused || e.Refusal("f", at) == nil || e.Refusal("f", at).At != at.Add(29) {
		t.Errorf("%+v", e.Refused)
	}
	e.Accept("f")
	if e.Refusal("f", at) != nil {
		t.Error("it is still refused")
	}
	e.Postpone("f", "no capacity", at)
	if e.Refusal("f", at.Add(again-1)) == nil || e.Refusal("f", at.Add(again)) != nil {
		t.Errorf("%+v", e.Refused[0])
	}
}

func TestBlamesImage(t *testing.T) {
	at := time.Unix(1, 0)
	for _, c := range []struct {
		name   string
		tried  Generation
		person bool
		want   bool
	}{
		{"nothing is known of it", Generation{Phase: Failed}, false, false},
		{"the image serves already", Generation{Image: "a", Release: "2", Phase: Failed}, false, false},
		{"the image serves already, somebody goes back", Generation{Image: "a", Release: "2", Phase: Serving}, true, false},
		{"only the image is new: no instance boots", Generation{Image: "b", Release: "1", Phase: Failed}, false, true},
		{"only the image is new: the hand-off fails", Generation{Image: "b", Release: "1", Phase: Failed, Fired: true}, false, true},
		{"only the image is new: it answers with errors", Generation{Image: "b", Release: "1", Phase: Serving, Ready: at}, false, true},
		{"both are new: no instance boots", Generation{Image: "b", Release: "2", Phase: Failed}, false, true},
		{"both are new: the hand-off fails", Generation{Image: "b", Release: "2", Phase: Failed, Fired: true}, false, false},
		{"both are new: it answers with errors", Generation{Image: "b", Release: "2", Phase: Serving, Ready: at}, false, false},
		{"both are new: it was ready, and failed", Generation{Image: "b", Release: "2", Phase: Failed, Ready: at}, false, false},
		{"both are new: it was called off by Dayfly before it was ready", Generation{Image: "b", Release: "2", Phase: Launching}, false, false},
		{"both are new: somebody goes back", Generation{Image: "b", Release: "2", Phase: Serving, Ready: at}, true, true},
	} {
		if got := c.tried.BlamesImage("a", "1", c.person); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	var nobody *Back
	for b, want := range map[*Back]bool{nobody: false, {By: Dayfly}: false, {By: "ann"}: true, {}: true} {
		if b.Person() != want {
			t.Errorf("%+v", b)
		}
	}
}
