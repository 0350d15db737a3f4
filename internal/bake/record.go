// Package bake makes machine images: a builder from a CloudFormation stack,
// Puppet by Run Command until a run changes nothing, the hand-off armed, sealed,
// CreateImage, and proof on two fresh instances. Its loop looks at one step at a
// time, and a pure function decides what follows from what it found; it can be
// killed at any instruction. It must not know environments.
package bake

import (
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/image"
)

// Kind of the record; its name is <blueprint>-<first 16 hex digits of the inputs digest>.
const Kind = "bake"

// Step of a bake; order has them in their order.
type Step string

const (
	Inputs   Step = "inputs"   // builder's files go to the bucket
	Builder  Step = "builder"  // its stack is being made
	Online   Step = "online"   // it boots until Run Command reaches it
	Fetch    Step = "fetch"    // it fetches its files
	Install  Step = "install"  // Puppet's agent
	Converge Step = "converge" // Puppet runs until nothing changes; the last stage arms the hand-off
	Seal     Step = "seal"     // identity, secrets and traces go
	Stop     Step = "stop"     // the builder stops
	Snapshot Step = "snapshot" // CreateImage
	Launch   Step = "launch"   // two canaries, fresh instances from it
	Verify   Step = "verify"   // the checks run on both, and they are compared
	Clean    Step = "clean"    // builder, canaries and files go away
	Done     Step = "done"

	Kept   Step = "kept"   // it failed, and its builder waits for a look or another try
	Resume Step = "resume" // another try: what is in the way goes, the builder comes up
)

// Bake is one making of an image.
type Bake struct {
	Name      string `json:"name"`
	Blueprint string `json:"blueprint"`
	Files     string `json:"files"`  // digest of the packed blueprint
	Inputs    string `json:"inputs"` // sha256:… over everything that matters
	// Plain is Inputs without the date of a refresh, Refreshed that date.
	Plain     string        `json:"plain,omitempty"`
	Refreshed time.Time     `json:"refreshed,omitzero"`
	Refresh   time.Duration `json:"refresh,omitempty"` // when the next one is due, after its end; 0 = never
	Base      string        `json:"base"`              // AMI
	Attempt   int           `json:"attempt"`
	Try       int           `json:"try,omitempty"` // how often this attempt was resumed
	By        string        `json:"by"`

	Step     Step             `json:"step"`
	Sentence string           `json:"sentence"` // what is going on, for people
	Blocker  *blocker.Blocker `json:"blocker,omitempty"`
	Error    string           `json:"error,omitempty"` // why it failed; set before Clean
	FailedAt Step             `json:"failed_at,omitempty"`
	Cancel   bool             `json:"cancel,omitempty"`

	Keep   time.Duration `json:"keep,omitempty"`  // how long a failure keeps the builder
	Until  time.Time     `json:"until,omitzero"`  // when that ends
	To     Step          `json:"to,omitempty"`    // where another try goes on
	From   string        `json:"from,omitempty"`  // the failed bake that the builder was taken from
	Heir   string        `json:"heir,omitempty"`  // the bake that took the builder
	Again  bool          `json:"again,omitempty"` // after its end comes another attempt
	Hands  int           `json:"hands,omitempty"` // commands that people ran on it
	Origin string        `json:"origin"`          // the bake that its builder is tagged with
	Prefix string        `json:"prefix"`          // of the builder's files: its role reads nothing else

	Stack    string            `json:"stack"`
	Zone     string            `json:"zone,omitempty"`     // of the builder, where the first had no room
	Full     []string          `json:"full,omitempty"`     // zones that had no room for it, in the order of the tries
	Former   string            `json:"former,omitempty"`   // stack of the last such try, until it is gone
	Rest     time.Time         `json:"rest,omitzero"`      // no next try before this
	Instance string            `json:"instance,omitempty"` // builder
	Subnet   string            `json:"subnet,omitempty"`
	Group    string            `json:"group,omitempty"`
	Profile  string            `json:"profile,omitempty"`
	Puppet   time.Duration     `json:"puppet"`          // for all runs of Puppet
	Runs     int               `json:"runs"`            // of Puppet that ended
	Claim    string            `json:"claim,omitempty"` // on a certificate of the Puppet server's CA; no secret
	TokenKey string            `json:"token_key,omitempty"`
	Wanted   string            `json:"wanted,omitempty"`   // version that the Puppet server's environment must have
	Catalog  string            `json:"catalog,omitempty"`  // version that the server said it has
	Identity map[string]string `json:"identity,omitempty"` // builder's, before it was sealed
	AMI      string            `json:"ami,omitempty"`
	Canaries []image.Canary    `json:"canaries,omitempty"` // fresh instances from it
	Refused  int               `json:"refused,omitempty"`  // launches of canaries that there was no capacity for
	Checks   []image.Check     `json:"checks,omitempty"`
	Image    string            `json:"image,omitempty"` // image record, when done well

	Created time.Time `json:"created"`
	Since   time.Time `json:"since"` // of the step
	Ended   time.Time `json:"ended,omitzero"`
	Steps   []Timing  `json:"steps,omitempty"`
	Op      string    `json:"op,omitempty"` // the operation that it is part of, as in logs and events
}

// Timing is how long a step took.
type Timing struct {
	Step    Step    `json:"step"`
	Seconds float64 `json:"seconds"`
}
