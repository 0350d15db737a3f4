package pipeline

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Suites are a blueprint's suite as a run has it: one, or one for each shard.
func Suites(stage string, u blueprint.Suite) []Suite {
	s := Suite{
		Name: u.Name, Stage: stage, Command: u.Run, Size: u.Size, Timeout: u.Timeout, Retries: u.Retries,
		Parameters: u.Parameters, Credentials: u.Credentials, Phase: Pending,
	}
	if u.IsManual() {
		s.Manual = &Manual{Steps: u.Manual, Checklist: u.Checklist, Lease: u.Lease, LeaseMax: u.LeaseMax}
	}
	if u.Shards <= 1 {
		return []Suite{s}
	}
	var out []Suite
	for i := range u.Shards {
		s.Name, s.Suite, s.Shard, s.Shards = blueprint.ShardName(u.Name, i+1), u.Name, i+1, u.Shards
		out = append(out, s)
	}
	return out
}

// GateOf is a blueprint's gate as a run has it.
func GateOf(g blueprint.Gate) *Gate {
	out := &Gate{By: g.By, Timeout: g.Timeout}
	if l := g.Results; l != nil {
		out.Results = &Limits{MinPassed: l.MinPassed, MaxFailed: l.MaxFailed, MaxFlaky: l.MaxFlaky, MaxSkipped: l.MaxSkipped}
	}
	if m := g.Metric; m != nil {
		out.Metric = &Metric{URL: m.URL, Path: m.Path, Above: m.Above, Below: m.Below}
	}
	if g.Command != "" {
		out.Command = &Command{Run: g.Command}
	}
	return out
}

// SupersededBy tells whether a later run cancels this one. What is being
// deployed is not called back.
func (r Run) SupersededBy(by Run) bool {
	for _, s := range r.Stages {
		if s.Deploy != nil && s.Phase == Running {
			return false
		}
	}
	return r.Blueprint == by.Blueprint && r.Name != by.Name && r.Phase != Done && !r.Cancel && r.Supersede && r.Full == by.Full
}

// Owns tells whether an object that things are tagged with, kind/name, is of
// the run.
func Owns(run, object string) bool {
	kind, name, _ := strings.Cut(object, "/")
	switch kind {
	case Kind, "foundation":
		return name == run
	case "environment", "generation":
		env, _, _ := strings.Cut(name, "/")
		return RunOf(env) == run
	}
	return false
}

func refuse(kind fault.Kind, op, object, message, hint string) error {
	return &fault.Error{Kind: kind, Op: op, Object: object, Message: message, Hint: hint}
}

// Decide notes what a person decided about a gate. An administrator whom the
// gate does not name has to say that they override it.
func (r *Run) Decide(stage string, v Verdict, groups []string, admin bool) error {
	op := "reject"
	if v.Passed {
		op = "approve"
	}
	s := r.Stage(stage)
	switch {
	case s == nil:
		var names []string
		for _, s := range r.Stages {
			names = append(names, s.Name)
		}
		return refuse(fault.NotFound, op, r.Name, fmt.Sprintf("it has no stage %q", stage), "it has "+strings.Join(names, ", "))
	case s.Gate == nil:
		return refuse(fault.Invalid, op, r.Name, "the stage "+stage+" is no gate", "")
	case len(s.Gate.By) == 0:
		return refuse(fault.Invalid, op, r.Name, "the gate "+stage+" is automatic: nobody decides", "")
	case s.Over() || s.Gate.Verdict != nil:
		return refuse(fault.Conflict, op, r.Name, "the gate "+stage+" is decided: "+cmp.Or(s.Why, "by "+verdictBy(s.Gate.Verdict)), "")
	case s.Phase != Running:
		return refuse(fault.Conflict, op, r.Name, "the run has not come to the gate "+stage+" yet", "dayfly run show "+r.Name)
	case r.Cancel:
		return refuse(fault.Conflict, op, r.Name, "the run is being canceled", "")
	case s.Gate.Names(v.By, groups):
		v.Override = false
	case !admin:
		return refuse(fault.Denied, op, r.Name, fmt.Sprintf("the gate %s is for %s, and %s is none of them", stage, strings.Join(s.Gate.By, ", "), v.By), "ask one of them")
	case !v.Override:
		return refuse(fault.Denied, op, r.Name, fmt.Sprintf("the gate %s is for %s, and %s is none of them", stage, strings.Join(s.Gate.By, ", "), v.By), "an administrator may decide with --override, which stays on record")
	}
	g := *s.Gate
	g.Verdict = &v
	s.Gate = &g
	return nil
}

func verdictBy(v *Verdict) string {
	if v == nil {
		return ""
	}
	return v.By
}

// manual is the suite that a tester works on.
func (r *Run) manual(op, suite string) (*Suite, error) {
	s := r.Suite(suite)
	switch {
	case s == nil:
		return nil, refuse(fault.NotFound, op, r.Name, fmt.Sprintf("it has no suite %q", suite), "dayfly run show "+r.Name)
	case s.Manual == nil:
		return nil, refuse(fault.Invalid, op, r.Name, "the suite "+suite+" is automated: its command decides", "")
	case s.Result != "" || s.Manual.Verdict != nil:
		return nil, refuse(fault.Conflict, op, r.Name, "the suite "+suite+" has its result", "")
	case s.Phase != Waiting:
		return nil, refuse(fault.Conflict, op, r.Name, "the environment of the suite "+suite+" is not up", "dayfly why "+r.Name)
	}
	m := *s.Manual
	s.Manual = &m
	return s, nil
}

// Judge notes how a manual suite went. Passing takes the whole checklist;
// failing takes a reason.
func (r *Run) Judge(suite string, v Verdict) error {
	op := "fail"
	if v.Passed {
		op = "pass"
	}
	s, err := r.manual(op, suite)
	if err != nil {
		return err
	}
	for _, c := range v.Checked {
		if !slices.Contains(s.Manual.Checklist, c) {
			return refuse(fault.Invalid, op, suite, fmt.Sprintf("the checklist has no point %q", c), "dayfly run show "+r.Name+" shows it")
		}
	}
	for _, c := range s.Manual.Checklist {
		if v.Passed && !slices.Contains(v.Checked, c) {
			return refuse(fault.Invalid, op, suite, fmt.Sprintf("the point %q of the checklist is not checked", c), "--checked names a point; --checked all has them all")
		}
	}
	if !v.Passed && v.Comment == "" {
		return refuse(fault.Invalid, op, suite, "a suite that failed needs a comment: what did not work", "--comment")
	}
	if len(v.Comment) > MaxComment {
		return refuse(fault.Invalid, op, suite, fmt.Sprintf("the comment has more than %d bytes", MaxComment), "")
	}
	s.Manual.Verdict = &v
	return nil
}

// Attach notes a file that a tester gave; one of the same name takes its place.
func (r *Run) Attach(suite string, a Attachment) error {
	s, err := r.manual("attach", suite)
	if err != nil {
		return err
	}
	if !fs.ValidPath(a.Name) || strings.Contains(a.Name, "/") || strings.HasPrefix(a.Name, ".") || len(a.Name) > 120 || strings.ContainsFunc(a.Name, func(c rune) bool { return c < ' ' || c == '\\' || c == 0x7f }) {
		return refuse(fault.Invalid, "attach", suite, fmt.Sprintf("%q is no plain file name", a.Name), "")
	}
	if a.Size > MaxAttachment {
		return refuse(fault.Invalid, "attach", suite, fmt.Sprintf("%s has %d bytes, and may have %d", a.Name, a.Size, MaxAttachment), "")
	}
	as := slices.DeleteFunc(slices.Clone(s.Manual.Attachments), func(o Attachment) bool { return o.Name == a.Name })
	if len(as) >= MaxAttachments {
		return refuse(fault.Invalid, "attach", suite, fmt.Sprintf("it has %d attachments, which is the limit", MaxAttachments), "")
	}
	s.Manual.Attachments = append(as, a)
	return nil
}

// ReadMetric finds the number in an answer: the answer itself, or what a path
// such as data.result.0.value.1 leads to in its JSON.
func ReadMetric(raw []byte, path string) (float64, error) {
	var v any
	if path == "" {
		v = strings.TrimSpace(string(raw))
	} else {
		if err := json.Unmarshal(raw, &v); err != nil {
			return 0, fmt.Errorf("the metric's answer is no JSON: %w", err)
		}
		for _, k := range strings.Split(path, ".") {
			switch at := v.(type) {
			case map[string]any:
				v = at[k]
			case []any:
				i, err := strconv.Atoi(k)
				if err != nil || i < 0 || i >= len(at) {
					return 0, fmt.Errorf("the metric's answer has nothing at %s of %s", k, path)
				}
				v = at[i]
			default:
				return 0, fmt.Errorf("the metric's answer has nothing at %s of %s", k, path)
			}
		}
	}
	f := math.NaN()
	switch n := v.(type) {
	case float64:
		f = n
	case string:
		if p, err := strconv.ParseFloat(n, 64); err == nil {
			f = p
		}
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, fmt.Errorf("the metric's answer is no number")
	}
	return f, nil
}
