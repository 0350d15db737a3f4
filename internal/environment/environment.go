// Package environment is the environment, its foundation and its generations
// as nouns, and the pure decisions about them. It does no I/O.
package environment

import (
	"strconv"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
)

// Kinds of records.
const (
	Kind           = "environment" // name: the environment's own, such as shop-dev
	FoundationKind = "foundation"  // name: the foundation's own
	GenerationKind = "generation"  // name: <environment>/<number>
	FormerKind     = "former"      // name: an environment's that was forgotten
)

// What becomes of instances that somebody changed.
const (
	Replace = "replace"
	Report  = "report"
)

// Phase is where an environment or a generation is.
type Phase string

const (
	Pending     Phase = "pending"
	Launching   Phase = "launching"
	Serving     Phase = "serving"
	Superseded  Phase = "superseded"
	Terminating Phase = "terminating"
	Failed      Phase = "failed"
	Gone        Phase = "gone" // everything is deleted and proven
)

// Environment is what a user wants and what is there.
type Environment struct {
	Name      string  `json:"name"`
	Blueprint string  `json:"blueprint"`
	Purpose   string  `json:"purpose"`         // key in the blueprint's environments, or suite
	Files     string  `json:"files"`           // digest of the packed blueprint
	Image     string  `json:"image"`           // image record
	Release   string  `json:"release"`         // release record
	Next      *Change `json:"next,omitempty"`  // a deploy that has no generation yet
	Want      int     `json:"want"`            // number of the generation that shall serve
	Serving   int     `json:"serving"`         // number of the one that does, 0 = none
	Size      int     `json:"size"`            //
	Run       string  `json:"run,omitempty"`   // test run that it belongs to
	Suite     string  `json:"suite,omitempty"` //

	Foundation string            `json:"foundation,omitempty"` // foundation record; "" = the fleet's stack holds everything
	Port       int               `json:"port,omitempty"`       // listener of its own on a shared foundation's balancer; 0 = the foundation's listener
	Listener   string            `json:"listener,omitempty"`   // ARN of the listener that it serves from
	Switched   time.Time         `json:"switched,omitzero"`    // all traffic has been where it is since then
	Moves      int               `json:"moves,omitempty"`      // how often its traffic was set: the same wish may come again
	Parameters map[string]string `json:"parameters,omitempty"`
	Created    time.Time         `json:"created"`
	Deadline   time.Time         `json:"deadline"` // lease
	Destroy    bool              `json:"destroy,omitempty"`

	MaxAge   time.Duration `json:"max_age,omitempty"`   // of an instance; 0 = as old as its generation
	Touched  string        `json:"touched,omitempty"`   // what becomes of instances that somebody changed: Replace (default) or Report
	LeaseMax time.Duration `json:"lease_max,omitempty"` // from Created: how far the lease may be extended
	Notice   string        `json:"notice,omitempty"`    // the end is near

	Strategy Strategy  `json:"strategy,omitzero"`
	Shift    *Shift    `json:"shift,omitempty"`    // traffic under way, and the soak
	Back     *Back     `json:"back,omitempty"`     // it shall go back to what served before
	LastBack *Back     `json:"went_back,omitzero"` // the last time that it did
	Good     []Version `json:"good,omitempty"`     // what came through its soak, the latest first
	Standing bool      `json:"standing,omitempty"` // its lease is renewed as long as nobody destroys it
	Follow   Follow    `json:"follow,omitzero"`    // which images it is taken to by itself
	Refused  []Refusal `json:"refused,omitempty"`  // images that did no good here, the latest first

	Phase   Phase            `json:"phase"`
	Address string           `json:"address,omitempty"` // URL that serves
	Blocker *blocker.Blocker `json:"blocker,omitempty"`
	Error   string           `json:"error,omitempty"`
	Op      string           `json:"op,omitempty"` // the operation that it is part of, as in logs and events
}

// Change is a deploy that was asked for. Its fields are filled in as they are
// decided, each once: a restart goes on with what was decided.
type Change struct {
	Files   string    `json:"files"`
	Bake    string    `json:"bake,omitempty"`    // bake record that gives the image
	Image   string    `json:"image,omitempty"`   // image record
	Release string    `json:"release,omitempty"` // release record
	Size    int       `json:"size"`
	By      string    `json:"by"`
	Why     string    `json:"why,omitempty"` // where Dayfly itself asked
	Asked   time.Time `json:"asked"`
	// Strategy is how it is carried out; Back that it goes back to a version
	// that was good.
	Strategy Strategy `json:"strategy,omitzero"`
	Back     *Back    `json:"back,omitempty"`
}

// Foundation is a long-lived stack that generations stand on.
type Foundation struct {
	Name      string            `json:"name"`
	Blueprint string            `json:"blueprint"`
	Files     string            `json:"files"`
	Stack     string            `json:"stack"`
	Shared    bool              `json:"shared"`
	Created   time.Time         `json:"created"`
	Deadline  time.Time         `json:"deadline"`
	Outputs   map[string]string `json:"outputs,omitempty"`
	Listener  string            `json:"listener,omitempty"` // ARN
	Balancer  string            `json:"balancer,omitempty"` // ARN
	Parameter map[string]string `json:"parameters,omitempty"`
	Destroy   bool              `json:"destroy,omitempty"`
	Phase     Phase             `json:"phase"`
	Blocker   *blocker.Blocker  `json:"blocker,omitempty"`
	Error     string            `json:"error,omitempty"`
	Op        string            `json:"op,omitempty"` // the operation that it is part of, as in logs and events
}

// Generation is one stack of fleets made from (image, release, parameters).
type Generation struct {
	Environment string    `json:"environment"`
	Number      int       `json:"number"`
	Stack       string    `json:"stack"`
	Image       string    `json:"image"`
	Release     string    `json:"release"`
	Files       string    `json:"files"`
	Size        int       `json:"size"`           // instances that shall serve now
	Full        int       `json:"full,omitempty"` // and when all traffic is its own; 0 = Size
	Phase       Phase     `json:"phase"`
	Created     time.Time `json:"created"`
	Asked       time.Time `json:"asked,omitzero"` // by somebody, or by a run; zero = by Dayfly itself
	Ready       time.Time `json:"ready,omitzero"`
	Deadline    time.Time `json:"deadline"`      // to be ready
	Expires     time.Time `json:"expires"`       // lease of the environment at its birth, for the tag
	Left        time.Time `json:"left,omitzero"` // it served, and no request came any more since then: those on their way may end

	Parameters   map[string]string `json:"parameters,omitempty"`
	Address      string            `json:"address,omitempty"`       // output of a fleet without foundation
	Groups       []string          `json:"groups,omitempty"`        // Auto Scaling groups
	TargetGroups []string          `json:"target_groups,omitempty"` // ARNs
	Suspended    string            `json:"suspended,omitempty"`     // why its groups launch nothing, not even for what dies
	// Switches counts how often its launches were to be suspended or resumed: odd
	// is suspended. Switched is the one that was carried out.
	Switches int              `json:"switches,omitempty"`
	Switched int              `json:"switched,omitempty"`
	Healthy  int              `json:"healthy"`
	Launched int              `json:"launched"`        // instances seen, dead ones too
	Lost     int              `json:"lost"`            // instances that were launched and never became healthy
	Fired    bool             `json:"fired,omitempty"` // it failed, and an instance had come as far as its deploy script
	Blocker  *blocker.Blocker `json:"blocker,omitempty"`
	Error    string           `json:"error,omitempty"`
	Op       string           `json:"op,omitempty"` // the operation that it is part of, as in logs and events
}

// BlamesImage tells whether a generation that was left for what served before
// speaks against its image. Where the release was new as well it does so only if
// no instance came as far as the deploy script: all else may be the release's
// fault, and shows when the image is tried with the release that served. A person
// who goes back means all of it.
func (g *Generation) BlamesImage(image, release string, person bool) bool {
	switch {
	case g.Image == "" || g.Image == image:
		return false
	case person || g.Release == release:
		return true
	}
	return g.Phase == Failed && g.Ready.IsZero() && !g.Fired
}

// Whole is the size with which a generation carries all traffic.
func (g *Generation) Whole() int {
	if g.Full != 0 {
		return g.Full
	}
	return g.Size
}

// Former is what is left of an environment that was forgotten: when it is
// deployed again its numbers go on, so that no name of a stack is used twice.
type Former struct {
	Name      string    `json:"name"`
	Last      int       `json:"last"` // number of its last generation
	Forgotten time.Time `json:"forgotten"`
}

// GenerationName is the record's name.
func GenerationName(env string, n int) string { return env + "/" + strconv.Itoa(n) }
