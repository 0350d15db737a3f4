package environment

import (
	"strings"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(minute int, requests, errors int64) Figures {
		return Figures{At: noon.Add(time.Duration(minute) * time.Minute), Requests: requests, Errors: errors}
	}
	slow := func(requests int64, ms time.Duration) []Figures {
		f := at(1, requests, 0)
		f.Timed, f.Took = requests, time.Duration(requests)*ms*time.Millisecond
		return []Figures{f}
	}
	many := func(f ...Figures) []Figures { return f }
	since := noon.Add(30 * time.Second) // the first whole minute is 12:01, told by 12:04
	for _, c := range []struct {
		name       string
		now        time.Duration // after noon
		limit      time.Duration
		fresh, old []Figures
		bad, waits string
		note       string
	}{
		{name: "nothing is told yet", now: 3 * time.Minute, waits: "come by 12:04:00 UTC"},
		{name: "nobody asked anything", now: 4 * time.Minute, note: "0 requests lately"},
		{name: "too few, and more may come", now: 3 * time.Minute, fresh: many(at(1, 19, 19)), waits: "come by"},
		{name: "too few", now: 4 * time.Minute, fresh: many(at(1, 19, 19)), note: "19 requests lately"},
		{name: "just enough", now: 3 * time.Minute, fresh: many(at(1, 20, 2)), bad: "10 % of its 20 requests were answered with 5xx (max_error_rate: 1 %)"},
		{name: "one error alone", now: 3 * time.Minute, fresh: many(at(1, 20, 1)), note: "5 % of its requests failed"},
		{name: "at the limit", now: 3 * time.Minute, fresh: many(at(1, 200, 2)), note: "1 % of its requests failed"},
		{name: "above it", now: 3 * time.Minute, fresh: many(at(1, 199, 2)), bad: "1.01 %"},
		{name: "by the sum of what is there", now: 6 * time.Minute, fresh: many(at(1, 10, 1), at(4, 10, 1)), bad: "10 % of its 20"},
		{name: "before the traffic was set", now: 4 * time.Minute, fresh: many(at(0, 1000, 1000), at(1, 100, 0)), note: "0 % of its"},
		{name: "good for an hour, then bad", now: 60 * time.Minute, fresh: many(at(1, 100000, 0), at(57, 100, 100)), bad: "100 % of its 100"},
		{name: "bad an hour ago", now: 60 * time.Minute, fresh: many(at(1, 100, 100), at(57, 1000, 0)), note: "0 %"},
		{name: "what served fails alike", now: 3 * time.Minute, fresh: many(at(1, 100, 50)), old: many(at(1, 900, 430)), waits: "so were 48 % of those to what served before"},
		{name: "what served fails half as often", now: 3 * time.Minute, fresh: many(at(1, 100, 50)), old: many(at(1, 900, 200)), bad: "50 %"},
		{name: "what served fails within the limit", now: 3 * time.Minute, fresh: many(at(1, 200, 3)), old: many(at(1, 1800, 18)), bad: "1.5 %"},
		{name: "slow", now: 3 * time.Minute, limit: 100 * time.Millisecond, fresh: slow(200, 150), bad: "its answers to 200 requests took 150ms on average (max_latency: 100ms)"},
		{name: "as slow as may be", now: 3 * time.Minute, limit: 100 * time.Millisecond, fresh: slow(200, 100), note: "0 % of its requests failed lately, and answers took 100ms"},
		{name: "slow, and nobody minds", now: 3 * time.Minute, fresh: slow(200, 5000), note: "0 %"},
		{name: "what served is slow as well", now: 3 * time.Minute, limit: 100 * time.Millisecond, fresh: slow(200, 150), old: slow(1000, 120), waits: "and those of what served before 120ms"},
		{name: "what served is half as slow", now: 3 * time.Minute, limit: 100 * time.Millisecond, fresh: slow(200, 250), old: slow(1000, 120), bad: "took 250ms"},
		{name: "fails alike, and is slower", now: 3 * time.Minute, limit: 100 * time.Millisecond, fresh: append(slow(200, 150), at(2, 0, 100)), old: append(slow(200, 5), at(2, 0, 100)), bad: "took 150ms"},
		{name: "few whose time is known", now: 3 * time.Minute, limit: 100 * time.Millisecond, fresh: append(slow(19, 150), at(2, 100, 0)), note: "0 %"},
		{name: "what served was hardly asked", now: 3 * time.Minute, fresh: many(at(1, 100, 50)), old: many(at(1, 19, 19)), bad: "50 %"},
	} {
		v := Strategy{MaxErrors: 1, MaxLatency: c.limit}.Judge(c.fresh, c.old, since, noon.Add(c.now), time.Minute)
		for _, x := range []struct{ what, got, want string }{{"bad", v.Bad, c.bad}, {"waiting", v.Waiting, c.waits}, {"note", v.Note, c.note}} {
			if (x.got == "") != (x.want == "") || !strings.Contains(x.got, x.want) {
				t.Errorf("%s: %s %q, want %q", c.name, x.what, x.got, x.want)
			}
		}
	}
}

func TestWindow(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		since, now, period time.Duration
		from, told         time.Duration
	}{
		{0, 0, time.Minute, 0, 3 * time.Minute},
		{1, 0, time.Minute, time.Minute, 4 * time.Minute},
		{7 * time.Second, 8 * time.Second, 5 * time.Second, 10 * time.Second, 25 * time.Second},
		{0, 20*time.Minute + 9*time.Second, 5 * time.Second, 15*time.Minute + 5*time.Second, 15 * time.Second},
		{0, 2 * time.Hour, 5 * time.Minute, 95 * time.Minute, 15 * time.Minute}, // five periods
	} {
		from, told := Window(noon.Add(c.since), noon.Add(c.now), c.period)
		if !from.Equal(noon.Add(c.from)) || !told.Equal(noon.Add(c.told)) {
			t.Errorf("%+v: from %s, told by %s", c, from, told)
		}
	}
}

func TestTheSoakWaitsForTheFigures(t *testing.T) {
	gens := []Generation{{Number: 1, Phase: Serving, Size: 3, Healthy: 3, TargetGroups: []string{"tg1"}}, {Number: 2, Phase: Serving, Size: 3, Healthy: 3, TargetGroups: []string{"tg2"}}}
	now := time.Unix(1000, 0)
	e := Environment{Want: 2, Serving: 2, Strategy: Strategy{Replace: BlueGreen, Steps: []int{100}, MaxErrors: 1}, Shift: &Shift{From: 1, To: 2, Since: now, Soak: now}}
	o := Observed{Now: now, Generations: gens, Attached: map[string]int{"tg1": 0, "tg2": 100}, Verdict: Verdict{Waiting: "the figures come later"}}
	if d := Plan(e, o); d.Action != Wait || d.Rule != "analysis" {
		t.Errorf("%+v", d)
	}
	e.Shift.Back = true // nobody judges the way back
	if d := Plan(e, o); d.Action != Settle {
		t.Errorf("on the way back: %+v", d)
	}
}
