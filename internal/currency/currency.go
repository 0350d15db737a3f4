// Package currency decides which image each environment shall run, when it may
// go there, and when all of its instances will be of it. It is pure and must
// not know how a rollout is made.
package currency

import (
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/image"
)

// FreezeKind is the kind of freezes; a name is an environment's, or All.
const FreezeKind = "freeze"

// All is the name of the freeze of every environment.
const All = "all"

// Freeze keeps an environment as it is: no deploy, no rollout of an image.
// What dies is replaced, and going back is possible.
type Freeze struct {
	Name  string    `json:"name"` // of an environment, or All
	By    string    `json:"by"`
	Why   string    `json:"why"`
	At    time.Time `json:"at"`
	Until time.Time `json:"until,omitzero"` // zero: until somebody ends it
	Op    string    `json:"op,omitempty"`   // the operation that it is part of, as in logs and events
}

// Over tells whether a freeze has ended.
func (f Freeze) Over(now time.Time) bool { return !f.Until.IsZero() && !now.Before(f.Until) }

// Sentence says who froze it and why.
func (f Freeze) Sentence() string {
	s := "frozen"
	if f.Name == All {
		s = "everything is frozen"
	}
	if f.By != "" {
		s += " by " + f.By
	}
	return s + ": " + f.Why
}

// Estate is all that a decision needs.
type Estate struct {
	Now          time.Time
	Environments []environment.Environment
	Channels     map[string]image.Channel
	Images       map[string]image.Image
	Freezes      map[string]Freeze
	// Wanted is the image of the generation that an environment wants, and From
	// that of the one that it could go back to by a switch.
	Wanted, From map[string]string
	// Launched are the environments whose wanted generation has all of its
	// instances: what it still waits for launches nothing.
	Launched map[string]bool
	// Begun is since when an environment makes the generation that it wants.
	Begun map[string]time.Time
	// Usual is how long a generation of an environment takes from its record
	// until it is ready; 0 = not known.
	Usual map[string]time.Duration
	// Budget is how many instances may be launched for new images at once; 0 = as
	// many as want to. An environment that is larger goes alone.
	Budget int
}

// State of an environment's image.
type State string

const (
	Current State = "current"      // it runs the image that it shall run
	Moving  State = "moving"       // it is on its way there
	Due     State = "due"          // it may go now
	Waiting State = "waiting"      // a blocker says for what
	Ending  State = "ending"       // its lease is over before it must be there
	None    State = "follows-none" // nothing was said
)

// Step is what is to be done for an environment now.
type Step string

const (
	Nothing Step = ""
	Take    Step = "take"    // deploy Target with the release that it has
	GoBack  Step = "go-back" // what it runs, or was being taken to, was revoked, and what served before is still there
)

// Status is an environment and its image.
type Status struct {
	Environment string           `json:"environment"`
	Channel     string           `json:"channel,omitempty"` // that it follows
	Image       string           `json:"image"`             // that serves
	Target      string           `json:"target,omitempty"`  // that shall serve
	State       State            `json:"state"`
	Revoked     bool             `json:"revoked,omitempty"` // the image that serves was revoked
	Since       time.Time        `json:"since,omitzero"`    // when Target became the one
	Due         time.Time        `json:"due,omitzero"`      // when every instance shall be of it
	ETA         time.Time        `json:"eta,omitzero"`      // when it will be; zero = current, or nobody knows
	Late        bool             `json:"late,omitempty"`    // ETA is after Due, or Due is over
	Size        int              `json:"size"`
	Blocker     *blocker.Blocker `json:"blocker,omitempty"`
	Step        Step             `json:"-"`
	Why         string           `json:"-"` // of the step
	Leaves      int              `json:"-"` // of GoBack: the generation that is left
	// Again is when the answer may be another one without any record changing.
	Again time.Time `json:"-"`
}
