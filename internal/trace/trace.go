// Package trace tells of a deploy as one trace, from the request to in service.
// It is made of what was written down, events and records, when the deploy is
// over: ids follow from the operation's id, so whoever carried which part out,
// and however often servers were restarted meanwhile, it is one trace. It must
// not know where events come from.
package trace

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"time"

	"github.com/dayfly-infra/dayfly/internal/audit"
	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/operation"
)

// Span is a part of a trace.
type Span struct {
	Trace, ID, Parent string // in hexadecimal digits; the root has no parent
	Name              string
	Start, End        time.Time
	Attributes        map[string]string
	Error             string
}

// Told is what is known of a deploy.
type Told struct {
	Op          string
	Environment string
	Events      []event.Event // of the operation, in their order
	Request     *audit.Entry
	Bake        *bake.Bake          // where one was made for it
	Instances   []instance.Instance // of the generation
	Reports     map[string]handoff.Report
}

// Deploy makes the trace of a deploy that is over; of one that is not there are
// no spans.
func Deploy(t Told) []Span {
	b := &builder{told: t}
	trace := operation.TraceID(t.Op)
	b.trace = hex.EncodeToString(trace[:])
	begin, asked := b.at("environment", "DeployRequested")
	end, served := b.at("environment", "Serving", "Switched")
	failed, broke := b.at("environment", "DeployFailed")
	if !asked || (!served && !broke) {
		return nil
	}
	problem := ""
	if !served {
		end, problem = failed, b.said("environment", "DeployFailed")
	}
	if t.Request != nil && t.Request.At.Before(begin) {
		begin = t.Request.At
	}
	caller := ""
	if t.Request != nil {
		caller = t.Request.Parent
	}
	root := b.span(caller, "deploy "+t.Environment, begin, end, map[string]string{"dayfly.environment": t.Environment, "dayfly.operation": t.Op})
	b.spans[0].Error = problem
	if r := t.Request; r != nil {
		b.span(root, "request "+r.Operation, r.At, r.At.Add(time.Duration(r.Millis)*time.Millisecond), map[string]string{"enduser.id": r.Who, "http.response.status_code": strconv.Itoa(r.Status)})
	}
	b.between(root, "resolve release", "environment", []string{"DeployRequested"}, []string{"ReleaseResolved"})
	if k := t.Bake; k != nil && !k.Ended.IsZero() && k.Op == t.Op {
		id := b.span(root, "bake", k.Created, k.Ended, map[string]string{"dayfly.image": k.Image})
		at := k.Created
		for _, s := range k.Steps {
			next := at.Add(time.Duration(s.Seconds * float64(time.Second)))
			b.span(id, "bake "+string(s.Step), at, next, nil)
			at = next
		}
	}
	b.between(root, "foundation", "foundation", []string{"FoundationCreated"}, []string{"FoundationReady", "FoundationFailed"})
	b.between(root, "stack", "generation", []string{"GenerationCreated"}, []string{"StackCreated", "GenerationFailed"})
	if id := b.between(root, "instances", "generation", []string{"StackCreated"}, []string{"GenerationReady", "GenerationFailed"}); id != "" {
		for _, i := range t.Instances {
			b.instance(id, i)
		}
	}
	// Attached with no weight, so that it is healthy before it gets traffic.
	if made, ok := b.at("generation", "StackCreated"); ok {
		if moved, ok := b.at("environment", "TrafficMoved"); ok && !moved.Before(made) && !moved.After(end) {
			b.span(root, "attach", made, moved, nil)
		}
	}
	if ready, ok := b.at("generation", "GenerationReady"); ok && served {
		b.span(root, "switch", ready, end, nil)
	}
	return b.spans
}

type builder struct {
	told  Told
	trace string
	spans []Span
}

func (b *builder) find(kind string, reasons ...string) (event.Event, bool) {
	i := slices.IndexFunc(b.told.Events, func(e event.Event) bool { return e.Kind == kind && slices.Contains(reasons, e.Reason) })
	if i < 0 {
		return event.Event{}, false
	}
	return b.told.Events[i], true
}

func (b *builder) at(kind string, reasons ...string) (time.Time, bool) {
	e, ok := b.find(kind, reasons...)
	return e.At, ok
}

func (b *builder) said(kind string, reasons ...string) string {
	e, _ := b.find(kind, reasons...)
	return e.Message
}

// between is a span from one event to another; "" where one is not there.
func (b *builder) between(parent, name, kind string, from, to []string) string {
	begin, ok := b.find(kind, from...)
	end, over := b.find(kind, to...)
	if !ok || !over {
		return ""
	}
	id := b.span(parent, name, begin.At, end.At, map[string]string{"dayfly.object": begin.Object()})
	if end.Severity == event.Error {
		b.spans[len(b.spans)-1].Error = end.Message
	}
	return id
}

func (b *builder) span(parent, name string, begin, end time.Time, attributes map[string]string) string {
	if end.Before(begin) {
		end = begin
	}
	sum := sha256.Sum256([]byte(b.trace + "\x00" + parent + "\x00" + name))
	s := Span{Trace: b.trace, ID: hex.EncodeToString(sum[:8]), Parent: parent, Name: name, Start: begin, End: end, Attributes: attributes}
	b.spans = append(b.spans, s)
	return s.ID
}

// instance is its boot, the phases of its hand-off as the agent reported them,
// and the wait until it was in service.
func (b *builder) instance(parent string, i instance.Instance) {
	end := cmp.Or(i.InService, i.Ended)
	if end.IsZero() {
		return
	}
	id := b.span(parent, "instance "+i.ID, i.Launched, end, map[string]string{"dayfly.instance": i.ID, "cloud.availability_zone": i.Zone})
	if i.Cause == instance.NeverReady {
		b.spans[len(b.spans)-1].Error = i.Why
	}
	r, ok := b.told.Reports[i.ID]
	if !ok {
		return
	}
	b.span(id, "boot", i.Launched, r.Started, nil)
	hand := b.span(id, "hand-off", r.Started, r.Ended, map[string]string{"dayfly.release.source": r.Source})
	if !r.OK {
		b.spans[len(b.spans)-1].Error = r.Reason
	}
	at := r.Started
	for _, p := range r.Phases {
		next := at.Add(time.Duration(p.Seconds * float64(time.Second)))
		b.span(hand, p.Name, at, next, nil)
		at = next
	}
	if r.OK && !i.InService.IsZero() {
		b.span(id, "readiness", r.Ended, i.InService, nil)
	}
}
