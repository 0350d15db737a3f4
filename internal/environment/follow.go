package environment

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // windows have time zones, and not every host knows them
)

// Follow is which images an environment is taken to by itself, and how soon.
type Follow struct {
	Channel string        `json:"channel,omitempty"` // record's name, such as shop/stable; "" = it follows none
	After   []string      `json:"after,omitempty"`   // environments that must run an image before
	Wait    time.Duration `json:"wait,omitempty"`    // so long, each of them, after its soak
	Within  time.Duration `json:"within,omitempty"`  // when all instances shall be of a new image; 0 = DefaultWithin
	Windows []string      `json:"windows,omitempty"` // when a rollout may begin, as ParseWindow reads them; none = at any time
	// From is when somebody, or a run that tested it, asked for what runs here:
	// where the channel pointed before does not count.
	From time.Time `json:"from,omitzero"`
}

// DefaultWithin is how soon an image is on every instance where nothing else
// is said.
const DefaultWithin = 4 * time.Hour

// Refusal is an image that did no good here.
type Refusal struct {
	Image string    `json:"image"`
	At    time.Time `json:"at"`
	Why   string    `json:"why"`
	Until time.Time `json:"until,omitzero"` // it may be tried again then; zero = when somebody deploys it
}

// keepRefused is how many images an environment remembers that did no good.
const keepRefused = 10

// Refuse remembers that an image was left for another: it is not taken again
// before somebody deploys it.
func (e *Environment) Refuse(image, why string, at time.Time) {
	e.refuse(Refusal{Image: image, At: at, Why: why})
}

// again is when an image is tried again that the cloud had no instances for.
const again = 30 * time.Minute

// Postpone remembers that an image could not be tried, by no fault of its own.
func (e *Environment) Postpone(image, why string, at time.Time) {
	e.refuse(Refusal{Image: image, At: at, Why: why, Until: at.Add(again)})
}

func (e *Environment) refuse(r Refusal) {
	e.Accept(r.Image)
	e.Refused = slices.Insert(e.Refused, 0, r)
	e.Refused = e.Refused[:min(len(e.Refused), keepRefused)]
}

// Accept forgets that an image did no good.
func (e *Environment) Accept(image string) {
	e.Refused = slices.DeleteFunc(e.Refused, func(r Refusal) bool { return r.Image == image })
}

// Refusal is why an image is not taken now, nil where nothing speaks against it.
func (e *Environment) Refusal(image string, now time.Time) *Refusal {
	for i := range e.Refused {
		if r := e.Refused[i]; r.Image == image && (r.Until.IsZero() || now.Before(r.Until)) {
			return &e.Refused[i]
		}
	}
	return nil
}

// MaintenanceWindow is a time of the week in which a rollout may begin.
type MaintenanceWindow struct {
	days     [7]bool
	from, to time.Duration // since midnight; to <= from: it ends on the next day
	zone     *time.Location
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// ParseWindow reads days, hours and a time zone, such as
// "mon-thu 09:00-16:00 Europe/Berlin", "sat,sun 22:00-04:00" (UTC) or
// "daily 02:00-05:00".
func ParseWindow(s string) (MaintenanceWindow, error) {
	w := MaintenanceWindow{zone: time.UTC}
	f := strings.Fields(s)
	if len(f) < 2 || len(f) > 3 {
		return w, fmt.Errorf("%q is not a window: write days, hours and, at need, a time zone", s)
	}
	if err := w.read(strings.ToLower(f[0])); err != nil {
		return w, err
	}
	from, to, ok := strings.Cut(f[1], "-")
	var err error
	if w.from, err = clockTime(from); err != nil || !ok {
		return w, fmt.Errorf("%q are no hours, such as 09:00-16:00", f[1])
	}
	if w.to, err = clockTime(to); err != nil {
		return w, fmt.Errorf("%q are no hours, such as 09:00-16:00", f[1])
	}
	if len(f) == 3 {
		if w.zone, err = time.LoadLocation(f[2]); err != nil || f[2] == "Local" {
			return w, fmt.Errorf("%q is no time zone, such as Europe/Berlin", f[2])
		}
	}
	return w, nil
}

// read takes a list of days and of ranges of days.
func (w *MaintenanceWindow) read(days string) error {
	if days == "daily" {
		days = "sun-sat"
	}
	for part := range strings.SplitSeq(days, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, b := slices.Index(weekdays, first), slices.Index(weekdays, last)
		if a < 0 || b < 0 {
			return fmt.Errorf("%q are no days, such as mon-fri, sat,sun or daily", days)
		}
		for d := a; ; d = (d + 1) % 7 {
			w.days[d] = true
			if d == b {
				break
			}
		}
	}
	return nil
}

func clockTime(s string) (time.Duration, error) {
	if s == "24:00" {
		return 24 * time.Hour, nil
	}
	t, err := time.Parse("15:04", s)
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, err
}

// span is the window that begins on the day of t, which is in its zone.
func (w MaintenanceWindow) span(t time.Time) (from, to time.Time) {
	at := func(day int, d time.Duration) time.Time {
		return time.Date(t.Year(), t.Month(), t.Day()+day, int(d/time.Hour), int(d%time.Hour/time.Minute), 0, 0, w.zone)
	}
	if w.to <= w.from {
		return at(0, w.from), at(1, w.to)
	}
	return at(0, w.from), at(0, w.to)
}

// Next is when the window is open for the first time from now on: now, while it
// is.
func (w MaintenanceWindow) Next(now time.Time) time.Time {
	local := now.In(w.zone)
	for day := -1; day <= 8; day++ {
		t := time.Date(local.Year(), local.Month(), local.Day()+day, 12, 0, 0, 0, w.zone)
		from, to := w.span(t)
		switch {
		case !w.days[t.Weekday()] || !now.Before(to):
		case now.Before(from):
			return from
		default:
			return now
		}
	}
	return time.Time{} // no day is in it, which ParseWindow does not give
}

// Opens is when a rollout may begin from now on: now, where no window is named.
// What cannot be read is no window.
func (f Follow) Opens(now time.Time) time.Time {
	var first time.Time
	for _, s := range f.Windows {
		w, err := ParseWindow(s)
		if err != nil {
			continue
		}
		if n := w.Next(now); first.IsZero() || n.Before(first) {
			first = n
		}
	}
	if first.IsZero() {
		return now
	}
	return first
}
