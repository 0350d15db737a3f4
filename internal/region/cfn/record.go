package cfn

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/dayfly-infra/dayfly/internal/template"
)

// operation is what is being done to a stack; "" is nothing.
type operation string

const (
	creating    operation = "create"
	rollingBack operation = "rollback" // of a creation
	deleting    operation = "delete"
	updating    operation = "update"
	reverting   operation = "revert" // of an update
)

// revision is one version of what a stack is to be.
type revision struct {
	Template         string
	Description      string
	Values, Resolved template.Values
	Names            []string // of the parameters, in the template's order
	NoEcho           []string
	Tags             []tag
	Capabilities     []string
}

type tag struct{ Key, Value string }

func (r revision) tagMap() map[string]string {
	out := map[string]string{}
	for _, t := range r.Tags {
		out[t.Key] = t.Value
	}
	return out
}

// stack is the record of a stack.
type stack struct {
	ID, Name         string
	Created          time.Time
	Updated, Deleted time.Time
	Status, Reason   string
	Now              revision
	Next             *revision // of an update under way

	Op                   operation
	OpNumber             int       // counts operations; what was begun by an older one is void
	Deadline             time.Time // of a creation
	OnFailure            string    // ROLLBACK, DELETE, DO_NOTHING
	Timeout              int64     // minutes
	Protect              bool
	RetainExceptOnCreate bool
	Retain               []string // logical ids that the deletion leaves
	RoleARN              string
	Token                string // client token of the running or last operation
	Asked                string // what was asked under it
	ChangeSet            string

	Outputs []output
	Imports []string
}

type output struct{ Key, Value, Description, Export string }

func (s stack) live() bool { return s.Status != deleteComplete }

// properties are a resource's properties as they were evaluated.
type properties map[string]any

// UnmarshalJSON keeps whole numbers whole.
func (p *properties) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		return err
	}
	*p, _ = whole(m).(map[string]any)
	return nil
}

func whole(x any) any {
	switch v := x.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = whole(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = whole(v[k])
		}
	}
	return x
}

// resource is the record of a stack's resource. Its key is stack id/logical id.
type resource struct {
	Stack, Logical, Type string
	ID                   string // physical
	Status, Reason       string
	Changed              time.Time
	Needs                []string // resources that must outlive this one

	// Begun: a call to create it may have been made. It is on disk before the
	// call, and its result is looked for before the call is made again.
	Begun      bool
	Generation int
	Last       int // the highest generation that there ever was
	Properties properties
	Tags       map[string]string
	// Attempt is what an update that failed or is under way tried to make of it.
	Attempt     properties
	AttemptTags map[string]string
	Former      []former // replaced, until they are deleted
	OpNumber    int      // of the operation that touched it last

	Deletion, Replacement string // DeletionPolicy, UpdateReplacePolicy
	Signals               []signal
	Since                 time.Time // signals are waited for
}

// former is a physical resource that another one took the place of.
type former struct {
	ID, Type   string
	Begun      bool
	Generation int
	Properties properties
	Tags       map[string]string
	Needs      []string
	OpNumber   int  // of the update that replaced it
	Dead       bool // made by an update that was undone: never to be kept
}

type signal struct {
	ID      string
	Success bool
}

func (r resource) key() string { return r.Stack + "/" + r.Logical }

// there tells whether the resource can be referred to.
func (r resource) there() bool {
	switch r.Status {
	case createComplete, updateComplete, updateInProgress, updateFailed, deleteFailed:
		return r.ID != ""
	}
	return false
}

// event is one line of a stack's history.
type event struct {
	ID, Stack, StackName    string
	Logical, Physical, Type string
	Status, Reason, Token   string
	Time                    time.Time
	Properties              properties
}

// changeSet is a planned change.
type changeSet struct {
	ID, Name, Stack, StackName, Description string
	Kind                                    string // CREATE or UPDATE
	Created                                 time.Time
	Status, Reason, Execution               string
	Next                                    revision
	Changes                                 []change
	OnFailure                               string
	RoleARN                                 string
	Token, Asked                            string
}

// Statuses, in AWS's words.
const (
	reviewInProgress   = "REVIEW_IN_PROGRESS"
	createInProgress   = "CREATE_IN_PROGRESS"
	createFailed       = "CREATE_FAILED"
	createComplete     = "CREATE_COMPLETE"
	rollbackInProgress = "ROLLBACK_IN_PROGRESS"
	rollbackFailed     = "ROLLBACK_FAILED"
	rollbackComplete   = "ROLLBACK_COMPLETE"
	deleteInProgress   = "DELETE_IN_PROGRESS"
	deleteFailed       = "DELETE_FAILED"
	deleteComplete     = "DELETE_COMPLETE"
	deleteSkipped      = "DELETE_SKIPPED"
	updateInProgress   = "UPDATE_IN_PROGRESS"
	updateFailed       = "UPDATE_FAILED"
	updateComplete     = "UPDATE_COMPLETE"
	updateCleanup      = "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"
	revertInProgress   = "UPDATE_ROLLBACK_IN_PROGRESS"
	revertCleanup      = "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS"
	revertComplete     = "UPDATE_ROLLBACK_COMPLETE"
	revertFailed       = "UPDATE_ROLLBACK_FAILED"
)

// equal compares what JSON makes of two values.
func equal(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// differing are the names of the properties that differ.
func differing(a, b map[string]any) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if !equal(a[k], b[k]) {
			out = append(out, k)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[k]; !ok {
			out = append(out, k)
		}
	}
	return out
}
