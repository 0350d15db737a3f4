package pipeline

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// TriggerKind is the kind of triggers' records.
const TriggerKind = "trigger"

// Trigger starts runs of a blueprint: by time, by a forge's hook, or both.
type Trigger struct {
	Name      string        `json:"name"`
	Blueprint string        `json:"blueprint"`
	Files     string        `json:"files"`
	Every     time.Duration `json:"every,omitempty"`
	Cron      string        `json:"cron,omitempty"`   // in UTC
	Hook      string        `json:"hook,omitempty"`   // github, gitlab, hmac
	Secret    string        `json:"secret,omitempty"` // name of the file that holds it
	Repo      string        `json:"repo,omitempty"`   // only pushes to it
	Branch    string        `json:"branch,omitempty"` // only pushes to it
	Status    *Status       `json:"status,omitempty"` // tell the forge how the run goes
	By        string        `json:"by"`
	Created   time.Time     `json:"created"`
	Next      time.Time     `json:"next,omitzero"` // by schedule
	Last      *Fired        `json:"last,omitempty"`
}

// Status is how a forge hears of a commit's run.
type Status struct {
	Forge string `json:"forge"` // github or gitlab
	API   string `json:"api"`   // such as https://api.github.com or https://gitlab.example/api/v4
	Token string `json:"token"` // name of the file that holds it
}

// Fired is the last time that a trigger went off.
type Fired struct {
	At    time.Time `json:"at"`
	Run   string    `json:"run,omitempty"`
	Error string    `json:"error,omitempty"`
}

// DeliveryKind is the kind of the records of deliveries that were taken: the
// same one twice is a replay.
const DeliveryKind = "delivery"

// Delivery is one that was taken.
type Delivery struct {
	At  time.Time `json:"at"`
	Run string    `json:"run"`
}

// Due is when the trigger goes off by its schedule after a moment, zero where
// it has none. What was missed is not made up for.
func (t Trigger) Due(after time.Time) (time.Time, error) {
	switch {
	case t.Every > 0:
		n := max(after.Sub(t.Created)/t.Every, 0)
		return t.Created.Add((n + 1) * t.Every), nil
	case t.Cron != "":
		c, err := ParseCron(t.Cron)
		if err != nil {
			return time.Time{}, err
		}
		return c.After(after)
	}
	return time.Time{}, nil
}

// Cron is a schedule of five fields: minute, hour, day of the month, month, day
// of the week (0 and 7 are Sunday), each *, a number, a range, a list, with /N
// for every N-th. As in cron, a day is meant when either of its fields says so,
// where both are given.
type Cron struct {
	minute, hour, day, month, weekday []bool
	anyDay, anyWeekday                bool
}

// ParseCron reads a schedule.
func ParseCron(s string) (Cron, error) {
	f := strings.Fields(s)
	if len(f) != 5 {
		return Cron{}, fmt.Errorf("a schedule has 5 fields (minute hour day month weekday), and %q has %d", s, len(f))
	}
	c := Cron{anyDay: strings.HasPrefix(f[2], "*"), anyWeekday: strings.HasPrefix(f[4], "*")}
	for i, x := range []struct {
		to        *[]bool
		name      string
		low, high int
	}{{&c.minute, "minute", 0, 59}, {&c.hour, "hour", 0, 23}, {&c.day, "day", 1, 31}, {&c.month, "month", 1, 12}, {&c.weekday, "weekday", 0, 7}} {
		set, err := cronField(f[i], x.low, x.high)
		if err != nil {
			return Cron{}, fmt.Errorf("the %s of the schedule %q: %w", x.name, s, err)
		}
		*x.to = set
	}
	c.weekday[0] = c.weekday[0] || c.weekday[7]
	return c, nil
}

func cronField(s string, low, high int) ([]bool, error) {
	set := make([]bool, high+1)
	for _, part := range strings.Split(s, ",") {
		span, step, stepped := strings.Cut(part, "/")
		n := 1
		if stepped {
			var err error
			if n, err = strconv.Atoi(step); err != nil || n < 1 || n > high {
				return nil, fmt.Errorf("%q is no step", step)
			}
		}
		from, to := low, high
		if span != "*" {
			a, b, isRange := strings.Cut(span, "-")
			var err error
			if from, err = strconv.Atoi(a); err != nil {
				return nil, fmt.Errorf("%q is no number", a)
			}
			if to = from; stepped {
				to = high
			}
			if isRange {
				if to, err = strconv.Atoi(b); err != nil {
					return nil, fmt.Errorf("%q is no number", b)
				}
			}
			if from < low || to > high || from > to {
				return nil, fmt.Errorf("%q is not within %d to %d", span, low, high)
			}
		}
		for i := from; i <= to; i += n {
			set[i] = true
		}
	}
	return set, nil
}

// After is the first moment after t, in UTC.
func (c Cron) After(t time.Time) (time.Time, error) {
	t = t.UTC().Truncate(time.Minute).Add(time.Minute)
	for end := t.AddDate(5, 0, 0); t.Before(end); {
		day, week := c.day[t.Day()], c.weekday[t.Weekday()]
		meant := day && week
		if !c.anyDay && !c.anyWeekday {
			meant = day || week
		}
		switch {
		case !c.month[t.Month()]:
			t = time.Date(t.Year(), t.Month()+1, 1, 0, 0, 0, 0, time.UTC)
		case !meant:
			t = time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, time.UTC)
		case !c.hour[t.Hour()]:
			t = t.Truncate(time.Hour).Add(time.Hour)
		case !c.minute[t.Minute()]:
			t = t.Add(time.Minute)
		default:
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("the schedule never comes within five years")
}

// NoticeKind is the kind of the records of what has to be told to others.
const NoticeKind = "notice"

// Notify is somewhere that hears of a run.
type Notify struct {
	To     string   `json:"to"` // name of the file that holds the address
	Format string   `json:"format"`
	On     []string `json:"on"`
}

// Notice is something that has to be told once, or a commit's status, which is
// told again whenever it changes. Its name begins with the run's and a slash.
type Notice struct {
	Run    string    `json:"run"`
	To     string    `json:"to,omitempty"` // name of a secret; "" is the commit's status
	Format string    `json:"format,omitempty"`
	Event  string    `json:"event,omitempty"` // passed, failed, gate, manual
	Text   string    `json:"text,omitempty"`
	Sent   string    `json:"sent,omitempty"` // the status that the forge knows
	Tries  int       `json:"tries,omitempty"`
	Again  time.Time `json:"again,omitzero"`
	Done   bool      `json:"done,omitempty"`
	Error  string    `json:"error,omitempty"` // of the last try
}

// StatusName is the name of the notice of a run's commit status.
func StatusName(run string) string { return run + "/status" }

// Notices are what a step of a run has to tell, by the records' names.
func Notices(before, after Run) map[string]Notice {
	out := map[string]Notice{}
	say := func(event, about, text string) {
		for i, n := range after.Notify {
			if slices.Contains(n.On, event) {
				out[fmt.Sprintf("%s/%s-%s-%d", after.Name, event, about, i)] = Notice{Run: after.Name, To: n.To, Format: n.Format, Event: event, Text: text}
			}
		}
	}
	for i, s := range after.Stages {
		if s.Gate != nil && len(s.Gate.By) > 0 && s.Phase == Running && before.Stages[i].Phase == Pending {
			message, action := s.Gate.waits(after.Name, s.Name)
			say("gate", fmt.Sprint(i), after.Name+": "+message+" ("+action+")")
		}
	}
	for i, s := range after.Suites {
		if s.Phase == Waiting && before.Suites[i].Phase != Waiting {
			say("manual", fmt.Sprint(i), fmt.Sprintf("%s: the suite %s waits for a tester at %s until %s", after.Name, s.Name, s.Address, s.Manual.Until.UTC().Format(time.RFC3339)))
		}
	}
	if after.Phase == Done && before.Phase != Done {
		event, text := "passed", after.Name+" passed"
		if !after.Passed {
			event, text = "failed", after.Name+" failed: "+after.why()
		}
		say(event, "run", text)
	}
	return out
}

// why is the reason of a run that did not pass.
func (r Run) why() string {
	if r.Error != "" {
		return r.Error
	}
	for _, s := range r.Stages {
		if s.Result != Passed && s.Required {
			return "the stage " + s.Name + " is " + string(s.Result) + ": " + s.Why
		}
	}
	return "it was canceled"
}

// State is a run's state in the words of both forges.
func (r Run) State() (github, gitlab, description string) {
	switch {
	case r.Phase != Done && r.Blocker != nil:
		return "pending", "running", r.Blocker.Message
	case r.Phase != Done:
		return "pending", "running", "it has begun"
	case r.Passed:
		return "success", "success", fmt.Sprintf("%d suites passed", len(r.Suites))
	case r.Cancel:
		return "error", "canceled", r.why()
	case r.Error != "":
		return "error", "failed", r.why()
	}
	return "failure", "failed", r.why()
}
