// Package instance is the short life of one machine of a fleet as a noun, and
// the pure decisions about who is replaced, when, and in which order. It does
// no I/O and must not know stores or clouds.
package instance

import (
	"path"
	"strconv"
	"time"
)

// Kind of the records; they are named <environment>/<generation>/<instance id>.
const Kind = "instance"

// State is where an instance is in its life.
type State string

const (
	Launching State = "launching" // it boots, or its hand-off is under way
	Serving   State = "serving"   // in service, and healthy for those who ask it
	Failing   State = "failing"   // in service, and not healthy
	Leaving   State = "leaving"   // its replacement is on its way, or it drains
	Kept      State = "kept"      // out of service for a look, until its lease ends
	Gone      State = "gone"
)

// Cause is why an instance goes, or went.
type Cause string

const (
	Died       Cause = "died"       // it ended by itself; the group replaces it
	NeverReady Cause = "not-ready"  // it was launched and never came into service
	Unhealthy  Cause = "unhealthy"  // it failed its health check, or said so itself
	Aged       Cause = "aged"       // its time was over
	Touched    Cause = "touched"    // somebody or something changed it
	Asked      Cause = "asked"      // a person asked for it
	Ended      Cause = "superseded" // its generation ended
	Released   Cause = "released"   // it was kept, and its lease is over
)

// Instance is one machine. The loop that heals writes it; the API writes what
// people ask for: Keep and Replace.
type Instance struct {
	ID          string `json:"id"`
	Environment string `json:"environment"`
	Generation  int    `json:"generation"`
	Group       string `json:"group"`
	Image       string `json:"image"`   // image record
	Release     string `json:"release"` // release record
	Zone        string `json:"zone"`
	Type        string `json:"type,omitempty"`
	Address     string `json:"address,omitempty"` // private

	State     State     `json:"state"`
	Launched  time.Time `json:"launched"`
	InService time.Time `json:"in_service,omitzero"`
	Failing   time.Time `json:"failing,omitzero"` // since when
	Trouble   string    `json:"trouble,omitempty"`
	Due       time.Time `json:"due,omitzero"`      // its replacement begins, jittered at birth
	Deadline  time.Time `json:"deadline,omitzero"` // it may not be older than this
	Parent    string    `json:"parent,omitempty"`  // id of the one that it replaces
	Failures  int       `json:"failures"`          // of its ancestors, in a row

	Leave *Leave    `json:"leave,omitempty"`
	Touch *Touch    `json:"touch,omitempty"`
	Keep  *Keep     `json:"keep,omitempty"`
	Ask   *Ask      `json:"ask,omitempty"`
	Ended time.Time `json:"ended,omitzero"`
	Why   string    `json:"why,omitempty"` // it went, in a sentence
	Cause Cause     `json:"cause,omitempty"`
	// Silent: it ended before it reported a hand-off, well or not.
	Silent bool `json:"silent,omitempty"`
	// Said is the end of what its deploy script, or its service, printed before it
	// was given up: its logs go with its generation, this stays with the record.
	Said string `json:"said,omitempty"`

	Steps []Timeline `json:"steps,omitempty"`
	Op    string     `json:"op,omitempty"` // the operation that it is part of, as in logs and events
}

// Leave is the decision that an instance is replaced.
type Leave struct {
	Cause Cause     `json:"cause"`
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
}

// Touch says that an instance is not what its image made any more.
type Touch struct {
	What []string  `json:"what"`         // paths, logins, commands
	By   string    `json:"by,omitempty"` // as far as it is known
	At   time.Time `json:"at"`
}

// Keep holds an instance out of service for a look.
type Keep struct {
	Until time.Time `json:"until"`
	By    string    `json:"by"`
	Why   string    `json:"why,omitempty"`
}

// Ask is a person's wish that an instance is replaced.
type Ask struct {
	By  string    `json:"by"`
	Why string    `json:"why,omitempty"`
	At  time.Time `json:"at"`
}

// Timeline is one step of an instance's life.
type Timeline struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
}

// Name is the record's name.
func Name(environment string, generation int, id string) string {
	return path.Join(environment, strconv.Itoa(generation), id)
}

// Name is the name of the instance's own record.
func (i Instance) Name() string { return Name(i.Environment, i.Generation, i.ID) }

// SaidLimit is how many of the last bytes of it are kept.
const SaidLimit = 2 << 10

// Step notes a step of its life down; the first and the last ones are kept.
func (i *Instance) Step(at time.Time, what string) {
	const most = 24
	if n := len(i.Steps); n > 0 && i.Steps[n-1].What == what {
		return
	}
	if len(i.Steps) >= most {
		i.Steps = append(i.Steps[:most/2], i.Steps[most/2+1:]...)
	}
	i.Steps = append(i.Steps, Timeline{At: at, What: what})
}
