// Package pipeline is the test run as a noun: suites side by side, each in an
// environment of its own, from one image and one release. It does no I/O.
package pipeline

import (
	"regexp"
	"strconv"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
)

// Kind of the record; its name is <blueprint>-r<number>.
const Kind = "run"

// Phase of a run or a suite.
type Phase string

const (
	Pending  Phase = "pending"
	Running  Phase = "running"
	Ending   Phase = "ending" // results are in, its environment is being terminated
	Done     Phase = "done"
	Canceled Phase = "canceled"
)

// Run is one execution of a blueprint's suites.
type Run struct {
	Name       string    `json:"name"`
	Blueprint  string    `json:"blueprint"`
	Files      string    `json:"files"`
	Bake       string    `json:"bake,omitempty"`
	Image      string    `json:"image,omitempty"`
	Release    string    `json:"release,omitempty"`
	Foundation string    `json:"foundation"` // shared by its suites
	Suites     []Suite   `json:"suites"`
	Phase      Phase     `json:"phase"`
	Passed     bool      `json:"passed"` // meaningful when done: every suite passed
	By         string    `json:"by"`
	Created    time.Time `json:"created"`
	Ended      time.Time `json:"ended,omitzero"`
	Deadline   time.Time `json:"deadline"` // lease
	Cancel     bool      `json:"cancel,omitempty"`

	Blocker *blocker.Blocker `json:"blocker,omitempty"`
	Error   string           `json:"error,omitempty"`
	Op      string           `json:"op,omitempty"` // the operation that it is part of, as in logs and events
}

// Suite is a suite of a run and its result.
type Suite struct {
	Name        string            `json:"name"`
	Command     string            `json:"command"` // path in the blueprint
	Size        int               `json:"size"`
	Timeout     time.Duration     `json:"timeout"`
	Parameters  map[string]string `json:"parameters,omitempty"`
	Environment string            `json:"environment"` // environment record
	Instance    string            `json:"instance,omitempty"`
	CommandID   string            `json:"command_id,omitempty"`
	Phase       Phase             `json:"phase"`
	Passed      int               `json:"passed"` // test cases
	Failed      int               `json:"failed"`
	Skipped     int               `json:"skipped"`
	Failures    []Failure         `json:"failures,omitempty"`
	Error       string            `json:"error,omitempty"` // it could not be run
	Started     time.Time         `json:"started,omitzero"`
	Ended       time.Time         `json:"ended,omitzero"`    // results are in
	Results     string            `json:"results,omitempty"` // object prefix of junit.xml, log.txt
	Launched    int               `json:"launched"`
	Lost        int               `json:"lost"`
}

// Failure is a test case that failed.
type Failure struct {
	Case    string `json:"case"`
	Message string `json:"message"`
}

var environmentName = regexp.MustCompile(`^(.+-r[0-9]+)-.+$`)

// RunName is the name of a blueprint's n-th run.
func RunName(blueprint string, n int) string { return blueprint + "-r" + strconv.Itoa(n) }

// RunOf is the run that an environment of that name belongs to, "" for one that
// belongs to none.
func RunOf(environment string) string {
	if m := environmentName.FindStringSubmatch(environment); m != nil {
		return m[1]
	}
	return ""
}

// OK tells whether a suite ended and passed.
func (s Suite) OK() bool {
	return s.Error == "" && s.Failed == 0 && s.Passed > 0 && !s.Ended.IsZero()
}

// Open counts suites that have no result yet.
func (r Run) Open() int {
	n := 0
	for _, s := range r.Suites {
		if s.Ended.IsZero() {
			n++
		}
	}
	return n
}
