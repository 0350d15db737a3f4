// Package pipeline is the run as a noun: stages in order, suites side by side
// in environments of their own, gates and deploys, all from one image and one
// release, and the pure decisions about them. It does no I/O.
package pipeline

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
)

// Kind of the record; its name is <blueprint>-r<number>.
const Kind = "run"

// Phase of a run, a stage or a suite.
type Phase string

const (
	Pending   Phase = "pending"   // not begun
	Queued    Phase = "queued"    // a suite waits for its share of instances
	Launching Phase = "launching" // a suite's environment is being made
	Running   Phase = "running"
	Waiting   Phase = "waiting"  // a person does a manual suite
	Retrying  Phase = "retrying" // a suite failed and will be tried again
	Ending    Phase = "ending"   // results are in, what was launched is being terminated
	Done      Phase = "done"
	Skipped   Phase = "skipped"
)

// Result of a stage or a suite, "" while there is none.
type Result string

const (
	Passed     Result = "passed"
	Failed     Result = "failed"
	Canceled   Result = "canceled"
	NotReached Result = "skipped"
)

// Run is one execution of a blueprint's pipeline, or of some of its suites.
type Run struct {
	Name       string    `json:"name"`
	Blueprint  string    `json:"blueprint"`
	Files      string    `json:"files"`
	Bake       string    `json:"bake,omitempty"`
	Image      string    `json:"image,omitempty"`
	Release    string    `json:"release,omitempty"`
	Foundation string    `json:"foundation"`          // shared by its suites
	Founded    bool      `json:"founded,omitempty"`   // its record was written
	Full       bool      `json:"full,omitempty"`      // the whole pipeline, with gates and deploys
	Team       string    `json:"team,omitempty"`      // whose share of the quota it takes
	AtOnce     int       `json:"at_once,omitempty"`   // instances at once, 0 = as many as the server allows
	Supersede  bool      `json:"supersede,omitempty"` // it canceled earlier ones, and later ones cancel it
	Stages     []Stage   `json:"stages"`
	Suites     []Suite   `json:"suites"`
	Phase      Phase     `json:"phase"`
	Passed     bool      `json:"passed"` // meaningful when done: every required stage passed
	By         string    `json:"by"`
	Cause      *Cause    `json:"cause,omitempty"`  // what started it, where it was no person
	Status     *Status   `json:"status,omitempty"` // where its commit's status is told
	Notify     []Notify  `json:"notify,omitempty"`
	Created    time.Time `json:"created"`
	Ended      time.Time `json:"ended,omitzero"`
	Deadline   time.Time `json:"deadline"` // lease
	Cancel     bool      `json:"cancel,omitempty"`
	CancelWhy  string    `json:"cancel_why,omitempty"`
	Clean      *Clean    `json:"clean,omitempty"`  // the proof that nothing of it is left
	Emptied    time.Time `json:"emptied,omitzero"` // what its suites left in the bucket is forgotten since then

	Blocker *blocker.Blocker `json:"blocker,omitempty"`
	Error   string           `json:"error,omitempty"`
	Op      string           `json:"op,omitempty"` // the operation that it is part of, as in logs and events
}

// Cause is what started a run.
type Cause struct {
	Kind     string `json:"kind"`               // schedule, github, gitlab, hmac
	Trigger  string `json:"trigger"`            // record
	Delivery string `json:"delivery,omitempty"` // the forge's id of the event
	Repo     string `json:"repo,omitempty"`     // owner/name, or GitLab's project
	Ref      string `json:"ref,omitempty"`
	Commit   string `json:"commit,omitempty"`
}

// Stage is one of a run's stages. Exactly one of suites (those that name it),
// Gate and Deploy is in it.
type Stage struct {
	Name     string       `json:"name"`
	Required bool         `json:"required"` // the run stops where it fails
	Phase    Phase        `json:"phase"`
	Result   Result       `json:"result,omitempty"`
	Why      string       `json:"why,omitempty"` // of its result
	Gate     *Gate        `json:"gate,omitempty"`
	Deploy   *DeployStage `json:"deploy,omitempty"`
	Started  time.Time    `json:"started,omitzero"`
	Ended    time.Time    `json:"ended,omitzero"`
}

// Gate is what a stage waits for.
type Gate struct {
	By       []string      `json:"by,omitempty"` // persons or groups
	Results  *Limits       `json:"results,omitempty"`
	Metric   *Metric       `json:"metric,omitempty"`
	Command  *Command      `json:"command,omitempty"`
	Timeout  time.Duration `json:"timeout"`
	Until    time.Time     `json:"until,omitzero"`
	Measured string        `json:"measured,omitempty"` // the last number, or why there is none
	Verdict  *Verdict      `json:"verdict,omitempty"`
}

// Limits are what the results before a gate must keep to; -1 is none.
type Limits struct {
	MinPassed  int `json:"min_passed"`
	MaxFailed  int `json:"max_failed"`
	MaxFlaky   int `json:"max_flaky"`
	MaxSkipped int `json:"max_skipped"`
}

// Metric is a number that somebody measures.
type Metric struct {
	URL   string   `json:"url"`
	Path  string   `json:"path,omitempty"`
	Above *float64 `json:"above,omitempty"`
	Below *float64 `json:"below,omitempty"`
}

// Command is the team's own command that decides a gate, and its run on an
// instance of the environment that a stage before deployed.
type Command struct {
	Run         string    `json:"run"` // path in the blueprint
	Environment string    `json:"environment,omitempty"`
	Instance    string    `json:"instance,omitempty"`
	CommandID   string    `json:"command_id,omitempty"`
	Try         int       `json:"try,omitempty"` // from 1: another instance is asked when one goes
	Sent        time.Time `json:"sent,omitzero"`
	Waits       string    `json:"waits,omitempty"`
	Exit        *int      `json:"exit,omitempty"`   // of the command that ended
	Output      string    `json:"output,omitempty"` // the end of it
}

// Verdict is a person's.
type Verdict struct {
	Passed   bool      `json:"passed"`
	By       string    `json:"by"`
	Comment  string    `json:"comment,omitempty"`
	At       time.Time `json:"at"`
	Override bool      `json:"override,omitempty"` // an administrator, whom the gate does not name
	Checked  []string  `json:"checked,omitempty"`  // points of the checklist
}

// DeployStage is a stage that takes what was tested to an environment.
type DeployStage struct {
	Purpose     string    `json:"purpose"`
	Environment string    `json:"environment,omitempty"` // record
	Asked       time.Time `json:"asked,omitzero"`
}

// Suite is a suite of a run, or a shard of one, and its result.
type Suite struct {
	Name        string            `json:"name"`
	Stage       string            `json:"stage,omitempty"`
	Command     string            `json:"command,omitempty"` // path in the blueprint
	Manual      *Manual           `json:"manual,omitempty"`
	Size        int               `json:"size"`
	Timeout     time.Duration     `json:"timeout"`
	Parameters  map[string]string `json:"parameters,omitempty"`
	Credentials map[string]string `json:"credentials,omitempty"` // variable: SSM parameter
	Suite       string            `json:"suite,omitempty"`       // name in the blueprint, where it is a shard
	Shard       int               `json:"shard,omitempty"`       // from 1
	Shards      int               `json:"shards,omitempty"`
	Retries     int               `json:"retries,omitempty"` // how often it may be tried again

	Phase       Phase     `json:"phase"`
	Result      Result    `json:"result,omitempty"`
	Waits       string    `json:"waits,omitempty"`       // for what, as a sentence
	Queued      time.Time `json:"queued,omitzero"`       // since when it waits for its share
	Environment string    `json:"environment,omitempty"` // environment record
	Port        int       `json:"port,omitempty"`        // on the shared balancer
	Address     string    `json:"address,omitempty"`
	Image       string    `json:"image,omitempty"`   // what its environment really ran
	Release     string    `json:"release,omitempty"` //
	Instance    string    `json:"instance,omitempty"`
	CommandID   string    `json:"command_id,omitempty"`
	Passed      int       `json:"passed"` // test cases
	Failed      int       `json:"failed"`
	Skipped     int       `json:"skipped"`
	Failures    []Failure `json:"failures,omitempty"`
	Error       string    `json:"error,omitempty"` // it could not be run
	Try         int       `json:"try,omitempty"`   // from 1
	Tries       []Try     `json:"tries,omitempty"` // the failed ones before
	Flaky       bool      `json:"flaky,omitempty"` // it passed, and not at the first try
	Started     time.Time `json:"started,omitzero"`
	Ended       time.Time `json:"ended,omitzero"`    // results are in
	Results     string    `json:"results,omitempty"` // object prefix of junit.xml, log.txt
	Launched    int       `json:"launched"`
	Lost        int       `json:"lost"`
}

// Manual is a suite that a person does.
type Manual struct {
	Steps       []string      `json:"steps"`
	Checklist   []string      `json:"checklist,omitempty"`
	Lease       time.Duration `json:"lease"`
	LeaseMax    time.Duration `json:"lease_max"`
	Until       time.Time     `json:"until,omitzero"`   // end of the lease
	Notice      string        `json:"notice,omitempty"` // the end is near
	Verdict     *Verdict      `json:"verdict,omitempty"`
	Attachments []Attachment  `json:"attachments,omitempty"`
}

// Attachment is a file that a tester gave.
type Attachment struct {
	Name string    `json:"name"`
	Size int64     `json:"size"`
	By   string    `json:"by"`
	At   time.Time `json:"at"`
}

// Limits of what a tester may give.
const (
	MaxAttachments = 20
	MaxAttachment  = 16 << 20
	MaxComment     = 4000
)

// Try is a try that failed and was followed by another.
type Try struct {
	Environment string    `json:"environment"`
	Error       string    `json:"error,omitempty"`
	Failed      int       `json:"failed"`
	Failures    []Failure `json:"failures,omitempty"`
	Results     string    `json:"results,omitempty"`
	Started     time.Time `json:"started,omitzero"`
	Ended       time.Time `json:"ended,omitzero"`
}

// Failure is a test case that failed.
type Failure struct {
	Case    string `json:"case"`
	Message string `json:"message"`
}

// Clean is what a complete look at the cloud found of an ended run.
type Clean struct {
	At    time.Time `json:"at"`
	Seen  int       `json:"seen"` // things of ours that were looked at
	Left  int       `json:"left"`
	Names []string  `json:"names,omitempty"`
}

var environmentName = regexp.MustCompile(`^(.+-r[0-9]+)-.+$`)

// RunName is the name of a blueprint's n-th run.
func RunName(blueprint string, n int) string { return blueprint + "-r" + strconv.Itoa(n) }

// Number is a run's among those of its blueprint.
func (r Run) Number() int {
	n, err := strconv.Atoi(strings.TrimPrefix(r.Name, r.Blueprint+"-r"))
	if err != nil {
		return 0
	}
	return n
}

// NextNumber is that of a blueprint's next run. Runs are forgotten, their numbers
// are not used again: the last one stays.
func NextNumber(blueprint string, there []Run) int {
	n := 0
	for _, r := range there {
		if r.Blueprint == blueprint {
			n = max(n, r.Number())
		}
	}
	return n + 1
}

// ResultsOf is where the suites of a run leave what they leave.
func ResultsOf(run string) string { return "results/" + run + "/" }

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
	if s.Result != "" {
		return s.Result == Passed
	}
	return s.cases() == Passed && !s.Ended.IsZero() // a record of an earlier version
}

// cases is the result of a suite whose test cases are counted.
func (s Suite) cases() Result {
	if s.Error == "" && s.Failed == 0 && s.Passed > 0 {
		return Passed
	}
	return Failed
}

// Open counts suites that have no result yet.
func (r Run) Open() int {
	n := 0
	for _, s := range r.Suites {
		if s.Ended.IsZero() && s.Phase != Skipped {
			n++
		}
	}
	return n
}

// Stage returns the stage of that name, nil where there is none.
func (r *Run) Stage(name string) *Stage {
	for i := range r.Stages {
		if r.Stages[i].Name == name {
			return &r.Stages[i]
		}
	}
	return nil
}

// Suite returns the suite of that name, nil where there is none.
func (r *Run) Suite(name string) *Suite {
	for i := range r.Suites {
		if r.Suites[i].Name == name {
			return &r.Suites[i]
		}
	}
	return nil
}

// Over tells whether the stage has its result.
func (s Stage) Over() bool { return s.Result != "" }
