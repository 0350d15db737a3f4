package event

import (
	"strings"
	"testing"
	"time"
)

func TestAgain(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(after time.Duration, message string) Event {
		e := New("instance", "e/1/i", "InstanceFailing", Warning, "%s", message)
		e.At = start.Add(after)
		return e
	}
	e := at(0, "one")
	for i, c := range []struct {
		next  Event
		again bool
	}{
		{at(time.Second, "one"), true},
		{at(2*time.Second, "two"), true},                       // others, but at once
		{at(8*time.Minute, "two"), true},                       // the same, later
		{at(10*time.Minute, "one"), false},                     // others
		{at(30*time.Minute, "two"), false},                     // too late
		{New("instance", "e/1/j", "x", Warning, "two"), false}, // of another
	} {
		got, ok := e.Again(c.next)
		if ok != c.again {
			t.Errorf("%d: merged: %v", i, ok)
		}
		if ok {
			if got.Count != e.Count+1 || got.Message != c.next.Message || !got.At.Equal(start) || !got.Last.Equal(c.next.At) {
				t.Errorf("%d: %+v", i, got)
			}
			e = got
		}
	}
}

func TestFilter(t *testing.T) {
	e := New("instance", "shop-dev/1/i-1", "InstanceTouched", Warning, "Somebody logged in")
	e.At, e.Op = time.Unix(1000, 0), "op-1"
	for _, c := range []struct {
		f    Filter
		want bool
	}{
		{Filter{}, true},
		{Filter{Object: "instance/shop-dev/1/i-1"}, true},
		{Filter{Object: "shop-dev"}, true},
		{Filter{Object: "shop-dev/1"}, true},
		{Filter{Object: "i-1"}, true},
		{Filter{Object: "shop"}, false},
		{Filter{Object: "environment/shop-dev"}, false},
		{Filter{Severity: Info}, true},
		{Filter{Severity: Error}, false},
		{Filter{Search: "LOGGED"}, true},
		{Filter{Search: "touched"}, true},
		{Filter{Search: "nothing"}, false},
		{Filter{Since: time.Unix(1000, 0)}, true},
		{Filter{Since: time.Unix(1001, 0)}, false},
		{Filter{Op: "op-2"}, false},
	} {
		if c.f.Match(e) != c.want {
			t.Errorf("%+v: %v", c.f, !c.want)
		}
	}
	if long := New("a", "b", "C", Info, "%s", strings.Repeat("ä", 5000)); len(long.Message) > maxText+5 || !strings.HasSuffix(long.Message, "ä…") {
		t.Errorf("%d bytes", len(long.Message))
	}
}
