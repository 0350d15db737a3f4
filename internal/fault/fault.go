// Package fault is the error that people see: what failed, on which object,
// why, and what to do next. Adapters translate into it once, at their edge.
package fault

import (
	"errors"
	"strings"
)

// Kind is the class of a fault; exit codes and HTTP statuses follow from it.
type Kind string

const (
	Invalid     Kind = "invalid"     // the input is wrong: nothing was tried
	NotFound    Kind = "not-found"   //
	Conflict    Kind = "conflict"    // exists already, or changed meanwhile
	Denied      Kind = "denied"      // no rights
	Unavailable Kind = "unavailable" // try later: throttled, down, no capacity
	Failed      Kind = "failed"      // it was tried and failed
	Internal    Kind = "internal"    // a defect
)

// Error is a fault. Only Kind and Message are always set.
type Error struct {
	Kind    Kind
	Op      string // what was being done: "read dayfly.yaml", "ec2:RunInstances"
	Object  string // on what: a file:line:column, a record, a cloud id
	Message string // why, as a sentence without a full stop
	Hint    string // what a person can do next
	Code    string // code of the other side, such as AWS's, where there is one
	Err     error
}

func (e *Error) Error() string {
	var b strings.Builder
	for _, s := range []string{e.Op, e.Object} {
		if s != "" {
			b.WriteString(s + ": ")
		}
	}
	b.WriteString(e.Message)
	if e.Err != nil && !strings.Contains(e.Message, e.Err.Error()) {
		if e.Message != "" {
			b.WriteString(": ")
		}
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the first fault in err's tree, Internal without one.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// HintOf returns the first hint in err's tree.
func HintOf(err error) string {
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}

// CodeOf returns the other side's code of the first fault that has one.
func CodeOf(err error) string {
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return ""
		}
		if e.Code != "" {
			return e.Code
		}
		err = e.Err
	}
	return ""
}
