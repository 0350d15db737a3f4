// Package blocker says why something waits (law 5).
package blocker

import (
	"fmt"
	"time"
)

// Blocker is why an object waits: which rule, on which object, since when,
// until when at the latest, and what a person can do.
type Blocker struct {
	Rule    string    `json:"rule"`             // a stable word: "image-baking", "instances-not-healthy"
	On      string    `json:"on"`               // the object that is waited for, kind/name
	Message string    `json:"message"`          // a sentence
	Since   time.Time `json:"since"`            //
	Until   time.Time `json:"until,omitzero"`   // deadline or expected end
	Action  string    `json:"action,omitempty"` // what a person can do
}

// Sentence is the blocker for people.
func (b Blocker) Sentence(now time.Time) string {
	s := fmt.Sprintf("%s (%s, on %s, for %s", b.Message, b.Rule, b.On, now.Sub(b.Since).Round(time.Second))
	if !b.Until.IsZero() {
		s += fmt.Sprintf(", at most %s more", b.Until.Sub(now).Round(time.Second))
	}
	s += ")"
	if b.Action != "" {
		s += ": " + b.Action
	}
	return s
}

// Carry returns next with since kept where the same rule on the same object
// already waited.
func Carry(old *Blocker, next Blocker) *Blocker {
	if old != nil && old.Rule == next.Rule && old.On == next.On {
		next.Since = old.Since
	}
	return &next
}
