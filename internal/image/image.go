// Package image is the machine image as a noun: states, identity, channels.
// It does no I/O.
package image

import "time"

// State of an image.
type State string

const (
	Candidate   State = "candidate" // sealed and proven on fresh instances
	Verified    State = "verified"  // promoted
	Retired     State = "retired"
	Quarantined State = "quarantined" // never launched again
)

// Kind of the record; its name is that of the bake, <blueprint>-<first 16 hex digits of the inputs digest>.
const Kind = "image"

// Image is a sealed machine image that Dayfly made.
type Image struct {
	Name      string    `json:"name"`
	Blueprint string    `json:"blueprint"`
	Inputs    string    `json:"inputs"` // sha256:… over everything that matters
	AMI       string    `json:"ami"`
	Parent    string    `json:"parent"` // base AMI
	State     State     `json:"state"`
	Role      string    `json:"role"`
	Created   time.Time `json:"created"`
	Bake      string    `json:"bake"` // record that made it
	Checks    []Check   `json:"checks,omitempty"`
	By        string    `json:"by,omitempty"`
	Base      string    `json:"base,omitempty"`      // as the blueprint names it
	Refreshed time.Time `json:"refreshed,omitzero"`  // it was made anew from the same inputs, because of this date
	Resumed   string    `json:"resumed,omitempty"`   // the failed bake whose builder it was made on: not made from nothing
	Tries     int       `json:"tries,omitempty"`     // how often the bake was resumed
	Hands     int       `json:"hands,omitempty"`     // commands that people ran on the builder
	Canaries  []Canary  `json:"canaries,omitempty"`  // fresh instances that were compared
	Seconds   float64   `json:"seconds"`             // the bake took
	Why       string    `json:"why,omitempty"`       // of a quarantine
	Revoked   time.Time `json:"revoked,omitzero"`    // since then what runs from it is replaced
	Report    string    `json:"report,omitempty"`    // object key of Puppet's last report
	Inventory string    `json:"inventory,omitempty"` // object key of what was found on a canary
	SBOM      string    `json:"sbom,omitempty"`      // object key of the CycloneDX document
	// Attestation is the object key of the signed statement how it was made.
	Attestation string `json:"attestation,omitempty"`
	Op          string `json:"op,omitempty"` // the operation that it is part of, as in logs and events
}

// Launches tells whether instances may be launched from it.
func (i *Image) Launches() bool { return i.State != Quarantined && i.State != Retired }

// Canary is a fresh instance of an image and what made it that one.
type Canary struct {
	Instance string            `json:"instance"`
	Identity map[string]string `json:"identity,omitempty"`
}

// Check is one verify result.
type Check struct {
	Name   string `json:"name"`
	On     string `json:"on,omitempty"` // canary
	Passed bool   `json:"passed"`
	Output string `json:"output,omitempty"`
}

// ChannelKind is the kind of channel records, named <blueprint>/<channel>.
const ChannelKind = "channel"

// Channel is a named pointer to an image.
type Channel struct {
	Name  string    `json:"name"`
	Image string    `json:"image"`
	Moved time.Time `json:"moved"`
	By    string    `json:"by"`
	Why   string    `json:"why,omitempty"`
	Op    string    `json:"op,omitempty"` // the operation that it is part of, as in logs and events
	// Before is where it pointed before, the latest first.
	Before []Move `json:"before,omitempty"`
}
