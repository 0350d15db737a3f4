// Package event is what happened, as a noun: to which object, when, for which
// reason. Events are made from the difference between two states of a record. It
// does no I/O and must not know the records.
package event

import (
	"fmt"
	"strings"
	"time"
)

// Kind of the records; their names sort by time.
const Kind = "event"

// Severity says who should look.
type Severity string

const (
	Info    Severity = "info"    // as it should be
	Warning Severity = "warning" // somebody may want to look
	Error   Severity = "error"   // something failed
)

// Severities from the least to the most.
var Severities = []Severity{Info, Warning, Error}

// AtLeast tells whether a severity is as high as another, or higher.
func (s Severity) AtLeast(least Severity) bool { return rank(s) >= rank(least) }

func rank(s Severity) int {
	for i, v := range Severities {
		if v == s {
			return i
		}
	}
	return 0
}

// Event is something that happened, once or, with the same words or in quick
// succession, several times.
type Event struct {
	ID       string    `json:"id"`
	At       time.Time `json:"at"`
	Last     time.Time `json:"last,omitzero" doc:"when it happened the last time, where it did more than once"`
	Count    int       `json:"count" doc:"how often"`
	Kind     string    `json:"kind" doc:"of the object: environment, instance, ..."`
	Name     string    `json:"name" doc:"of the object"`
	Reason   string    `json:"reason" doc:"a stable word, such as InstanceReplacing"`
	Message  string    `json:"message" doc:"a sentence"`
	Severity Severity  `json:"severity" enum:"info,warning,error"`
	Op       string    `json:"op,omitempty" doc:"id of the operation that it is part of, as in logs"`
	By       string    `json:"by,omitempty" doc:"who asked for it"`
}

// Object is kind/name.
func (e Event) Object() string { return e.Kind + "/" + e.Name }

// Bounds of what is kept, and of what an event may say.
const (
	Most    = 50_000
	Longest = 30 * 24 * time.Hour
	maxText = 1000
)

// Within these times the same object's same reason is counted and not said
// again: with the same words, and with others.
const (
	sameWords = 10 * time.Minute
	anyWords  = 30 * time.Second
	// Chain is how long an event is counted before a new one begins.
	Chain = time.Hour
)

// New makes an event; its text is cut where it is too long.
func New(kind, name, reason string, s Severity, format string, args ...any) Event {
	return Event{Kind: kind, Name: name, Reason: reason, Severity: s, Message: cut(strings.TrimSpace(fmt.Sprintf(format, args...)), maxText), Count: 1}
}

// Again merges an event into the last one of the same object and reason; ok is
// false when it is a new one.
func (e Event) Again(next Event) (merged Event, ok bool) {
	last := e.At
	if !e.Last.IsZero() {
		last = e.Last
	}
	since := next.At.Sub(last)
	if e.Kind != next.Kind || e.Name != next.Name || e.Reason != next.Reason || e.Op != next.Op ||
		since < 0 || since > sameWords || next.At.Sub(e.At) > Chain || (since > anyWords && e.Message != next.Message) {
		return e, false
	}
	e.Count++
	e.Last, e.Message, e.Severity, e.By = next.At, next.Message, next.Severity, next.By
	return e, true
}

// Filter chooses events.
type Filter struct {
	// Object is kind/name, or a name: then objects of every kind that have it,
	// or are below it as an instance is below its environment.
	Object   string
	Since    time.Time
	Severity Severity // at least
	Search   string   // in what is said, in any case
	Op       string
}

// Match tells whether an event is chosen.
func (f Filter) Match(e Event) bool {
	last := e.At
	if !e.Last.IsZero() {
		last = e.Last
	}
	switch {
	case !f.Since.IsZero() && last.Before(f.Since),
		f.Severity != "" && !e.Severity.AtLeast(f.Severity),
		f.Op != "" && e.Op != f.Op:
		return false
	}
	if f.Object != "" && f.Object != e.Object() && f.Object != e.Name && !strings.HasPrefix(e.Name, f.Object+"/") && !strings.HasSuffix(e.Name, "/"+f.Object) {
		return false
	}
	if f.Search == "" {
		return true
	}
	want := strings.ToLower(f.Search)
	return strings.Contains(strings.ToLower(strings.Join([]string{e.Kind, e.Name, e.Reason, e.Message, e.By}, "\n")), want)
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 { // not inside of a letter
		n--
	}
	return s[:n] + "…"
}
