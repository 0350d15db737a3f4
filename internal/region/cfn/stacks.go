package cfn

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/cloudformationapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/ssmapi"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
	"github.com/dayfly-infra/dayfly/internal/template"
)

var stackName = regexp.MustCompile(`^[a-zA-Z][-a-zA-Z0-9]{0,127}$`)

// proposal is what a request wants a stack to be.
type proposal struct {
	name, body, url string
	parameters      []*cloudformationapi.Parameter
	tags            []*cloudformationapi.Tag
	capabilities    []string
	before          *revision // for UsePreviousTemplate and UsePreviousValue
}

// revision reads and checks a proposal, before anything is changed. The
// template's static checks, the parameters, conditions, references, types and
// properties must all be right.
func (s *Service) revision(ctx context.Context, st stack, p proposal) (revision, *template.Template, error) {
	rev := revision{Template: p.body, Capabilities: p.capabilities}
	if p.url != "" {
		return rev, nil, invalid("the local region reads templates from TemplateBody, not from TemplateURL")
	}
	if p.body == "" {
		return rev, nil, invalid("Either Template URL or Template Body must be specified.")
	}
	t, err := s.parse(p.body)
	if err != nil {
		return rev, nil, err
	}
	rev.Description = t.Description
	given := template.Values{}
	for _, x := range p.parameters {
		if x.UsePreviousValue != nil && *x.UsePreviousValue {
			if p.before == nil {
				return rev, nil, invalid("Parameter %s: there is no previous value to use", x.ParameterKey)
			}
			if t.Parameter(x.ParameterKey) == nil {
				return rev, nil, invalid("Parameters: [%s] do not exist in the template", x.ParameterKey)
			}
			if v, ok := p.before.Values[x.ParameterKey]; ok {
				given[x.ParameterKey] = v
			}
			continue
		}
		given[x.ParameterKey] = x.ParameterValue
	}
	var problems []template.Problem
	rev.Values, rev.Resolved, problems = t.Resolve(given, func(name string) (string, error) {
		out, err := wire.Call[ssmapi.GetParameterResult](s.internal(ctx), s.c.Bus, "ssm", "GetParameter", &ssmapi.GetParameterRequest{Name: name})
		if err != nil {
			return "", err
		}
		return out.Parameter.Value, nil
	})
	if len(problems) > 0 {
		return rev, nil, invalid("%s", say(problems))
	}
	for _, x := range t.Parameters {
		rev.Names = append(rev.Names, x.Name)
		if x.NoEcho {
			rev.NoEcho = append(rev.NoEcho, x.Name)
		}
	}
	if rev.Tags, err = readTags(p.tags); err != nil {
		return rev, nil, err
	}
	if p.tags == nil && p.before != nil {
		rev.Tags = p.before.Tags
	}
	if err := s.feasible(st, rev, t); err != nil {
		return rev, nil, err
	}
	return rev, t, capable(t, p.capabilities)
}

// parse reads a template and does all checks that need no values. What the
// local region alone lacks is judged later, for what is really made.
func (s *Service) parse(body string) (*template.Template, error) {
	t, problems := template.Parse("template", []byte(body))
	if t != nil {
		problems = append(problems, slices.DeleteFunc(template.Check(t), func(p template.Problem) bool { return p.Local })...)
	}
	if len(problems) > 0 {
		return nil, invalid("%s", say(problems))
	}
	return t, nil
}

// feasible evaluates what can be known before anything is made.
func (s *Service) feasible(st stack, rev revision, t *template.Template) error {
	needs, evaluated, err := s.dependencies(s.blank(st, rev, t))
	if err != nil {
		// What the region has not is said along with it.
		missing := slices.DeleteFunc(template.Check(t), func(p template.Problem) bool { return !p.Local })
		if p, ok := err.(template.Problem); ok && len(missing) > 0 {
			return invalid("%s", say(append([]template.Problem{p}, missing...)))
		}
		return asInvalid(err)
	}
	var problems []template.Problem
	for _, r := range t.Resources {
		if _, live := needs[r.Name]; !live {
			continue
		}
		n, ps := t.Properties(r, evaluated[r.Name])
		problems = append(problems, ps...)
		p, ok := s.lookup(r.Type)
		if len(ps) > 0 || !ok || p.Refuse == nil {
			continue
		}
		m, _ := n.Value().(map[string]any)
		if name, reason := p.Refuse(m); name != "" {
			at := r.At
			if pair := r.Properties.Pair(name); pair != nil {
				at = pair.At
			}
			problems = append(problems, template.Problem{Line: at.Line, Column: at.Column, Local: true, Message: fmt.Sprintf("%s.%s: %s", r.Name, name, reason)})
		}
	}
	if len(problems) > 0 {
		return invalid("%s", say(problems))
	}
	return nil
}

func asInvalid(err error) error {
	if p, ok := err.(template.Problem); ok {
		return invalid("%s", sayOne(p))
	}
	return invalid("%v", err)
}

// needed are the capabilities that a template asks for, with the types that do.
func needed(t *template.Template) (capability string, types []string) {
	for _, r := range t.Resources {
		if !strings.HasPrefix(r.Type, "AWS::IAM::") {
			continue
		}
		types = append(types, r.Type)
		named := r.Properties.Get("RoleName") != nil || r.Properties.Get("ManagedPolicyName") != nil || r.Properties.Get("InstanceProfileName") != nil
		if named {
			capability = "CAPABILITY_NAMED_IAM"
		} else if capability == "" {
			capability = "CAPABILITY_IAM"
		}
	}
	slices.Sort(types)
	return capability, slices.Compact(types)
}

func capable(t *template.Template, given []string) error {
	want, _ := needed(t)
	if want == "" || slices.Contains(given, "CAPABILITY_NAMED_IAM") || want == "CAPABILITY_IAM" && slices.Contains(given, want) {
		return nil
	}
	return wire.Errorf("InsufficientCapabilitiesException", "Requires capabilities : [%s]", want)
}

func readTags(in []*cloudformationapi.Tag) ([]tag, error) {
	if len(in) > 50 {
		return nil, invalid("A stack cannot have more than 50 tags")
	}
	var out []tag
	for _, t := range in {
		if strings.HasPrefix(strings.ToLower(t.Key), "aws:") {
			return nil, invalid("aws: prefixed tag key names are not allowed for external use.")
		}
		if slices.ContainsFunc(out, func(x tag) bool { return x.Key == t.Key }) {
			return nil, invalid("Duplicate tag key %s", t.Key)
		}
		out = append(out, tag{t.Key, t.Value})
	}
	return out, nil
}

// refused are what requests may carry and the local region does not do.
func refused(notifications []string, rollback *cloudformationapi.RollbackConfiguration, policy ...string) error {
	if len(notifications) > 0 {
		return invalid("the local region sends no notifications: NotificationARNs must be empty")
	}
	if rollback != nil && len(rollback.RollbackTriggers) > 0 {
		return invalid("the local region has no alarms: RollbackConfiguration must have no triggers")
	}
	for _, p := range policy {
		if p != "" {
			return invalid("the local region does not evaluate stack policies")
		}
	}
	return nil
}

func is(b *bool) bool { return b != nil && *b }

// digest tells whether two requests under one token ask for the same.
func digest(in any) string {
	b, err := json.Marshal(in)
	if err != nil { // requests are plain structs
		panic(fmt.Sprintf("cloudformation: %v", err))
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// find returns the live stack of a name, or any stack of an id.
func (s *Service) find(tx *state.Tx, nameOrID string) (stack, bool) {
	if strings.HasPrefix(nameOrID, "arn:") {
		return s.stacks.Get(tx, nameOrID)
	}
	for _, st := range s.stacks.All(tx) {
		if st.Name == nameOrID && st.live() {
			return st, true
		}
	}
	return stack{}, false
}

func missing(name string) error { return invalid("Stack with id %s does not exist", name) }

// CreateStack makes a stack.
func (s *Service) CreateStack(ctx context.Context, in *cloudformationapi.CreateStackInput) (*cloudformationapi.CreateStackOutput, error) {
	if !stackName.MatchString(in.StackName) {
		return nil, invalid("1 validation error detected: Value '%s' at 'stackName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*", in.StackName)
	}
	if err := refused(in.NotificationARNs, in.RollbackConfiguration, in.StackPolicyBody, in.StackPolicyURL); err != nil {
		return nil, err
	}
	if in.OnFailure != "" && in.DisableRollback != nil {
		return nil, invalid("You can specify either OnFailure or DisableRollback, but not both.")
	}
	if m := in.TimeoutInMinutes; m != nil && (*m < 1 || *m > 43200) {
		return nil, invalid("TimeoutInMinutes must be between 1 and 43200")
	}
	st := stack{
		Name: in.StackName, ID: s.arn("stack", in.StackName), Created: s.now(), Status: createInProgress, Reason: "User Initiated",
		Op: creating, OpNumber: 1, OnFailure: in.OnFailure, Protect: is(in.EnableTerminationProtection),
		RetainExceptOnCreate: is(in.RetainExceptOnCreate), RoleARN: in.RoleARN, Token: in.ClientRequestToken, Asked: digest(in),
	}
	if id, err := s.repeated(st.Name, st.Token, st.Asked); id != "" || err != nil {
		return &cloudformationapi.CreateStackOutput{StackId: id}, err
	}
	if st.OnFailure == "" {
		st.OnFailure = "ROLLBACK"
		if is(in.DisableRollback) {
			st.OnFailure = "DO_NOTHING"
		}
	}
	if in.TimeoutInMinutes != nil {
		st.Timeout = *in.TimeoutInMinutes
		st.Deadline = st.Created.Add(time.Duration(st.Timeout) * time.Minute)
	}
	rev, _, err := s.revision(ctx, st, proposal{name: in.StackName, body: in.TemplateBody, url: in.TemplateURL, parameters: in.Parameters, tags: in.Tags, capabilities: in.Capabilities})
	if err != nil {
		return nil, err
	}
	st.Now = rev
	err = s.c.DB.Update(func(tx *state.Tx) error {
		if old, ok := s.find(tx, st.Name); ok {
			if old.Token != "" && old.Token == st.Token && old.Asked == st.Asked { // the same request, at the same moment
				st.ID = old.ID
				return nil
			}
			return wire.Errorf("AlreadyExistsException", "Stack [%s] already exists", st.Name)
		}
		s.stackEvent(tx, st)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.wake()
	return &cloudformationapi.CreateStackOutput{StackId: st.ID}, nil
}

// repeated finds the stack that a request under the same token has made.
func (s *Service) repeated(name, token, asked string) (id string, err error) {
	if token == "" {
		return "", nil
	}
	s.c.DB.View(func(tx *state.Tx) {
		for _, st := range s.stacks.All(tx) {
			switch {
			case st.Token != token || !st.live():
			case st.Name == name && st.Asked == asked:
				id = st.ID
			default:
				err = wire.Errorf("TokenAlreadyExistsException", "A client request token already exists: %s", token)
			}
		}
	})
	if id != "" {
		err = nil
	}
	return id, err
}

// DeleteStack begins a stack's deletion. A stack that is not there is success.
func (s *Service) DeleteStack(_ context.Context, in *cloudformationapi.DeleteStackInput) error {
	force := in.DeletionMode == "FORCE_DELETE_STACK"
	if in.DeletionMode != "" && !force && in.DeletionMode != "STANDARD" {
		return invalid("DeletionMode must be STANDARD or FORCE_DELETE_STACK")
	}
	id := ""
	err := s.c.DB.Update(func(tx *state.Tx) error {
		st, ok := s.find(tx, in.StackName)
		if !ok || !st.live() || st.Op == deleting {
			return nil
		}
		if st.Op == updating || st.Op == reverting {
			return invalid("Stack [%s] cannot be deleted while in status %s", st.Name, st.Status)
		}
		if st.Protect {
			return invalid("Stack [%s] cannot be deleted while TerminationProtection is enabled", st.Name)
		}
		retain := slices.Clone(in.RetainResources)
		if len(retain) > 0 && st.Status != deleteFailed {
			return invalid("Invalid operation on stack [%s]. RetainResources can only be specified when the stack is in the DELETE_FAILED state.", st.ID)
		}
		for _, name := range retain {
			if _, ok := s.resources.Get(tx, st.ID+"/"+name); !ok {
				return invalid("The specified resources to retain do not belong to stack %s: [%s]", st.Name, name)
			}
		}
		if force && st.Status != deleteFailed {
			return invalid("Invalid operation on stack [%s]. FORCE_DELETE_STACK can only be specified when the stack is in the DELETE_FAILED state.", st.ID)
		}
		if force {
			for _, r := range s.resourcesOf(tx, st.ID) {
				if r.Status == deleteFailed {
					retain = append(retain, r.Logical)
				}
			}
		}
		for _, o := range st.Outputs {
			if users := s.importers(tx, o.Export, st.ID); o.Export != "" && len(users) > 0 {
				s.event(tx, st, event{Logical: st.Name, Physical: st.ID, Type: "AWS::CloudFormation::Stack", Status: st.Status,
					Reason: fmt.Sprintf("Delete canceled. Cannot delete export %s as it is in use by %s.", o.Export, strings.Join(users, ", "))})
				return nil
			}
		}
		st.Op, st.Status, st.Reason, st.Retain, st.Token = deleting, deleteInProgress, "User Initiated", retain, in.ClientRequestToken
		st.OpNumber++
		s.stackEvent(tx, st)
		id = st.ID
		return nil
	})
	if id != "" && err == nil {
		s.interrupt(id)
	}
	return err
}

// SignalResource gives a resource that waits for it a signal.
func (s *Service) SignalResource(_ context.Context, in *cloudformationapi.SignalResourceInput) error {
	return s.c.DB.Update(func(tx *state.Tx) error {
		st, ok := s.find(tx, in.StackName)
		if !ok {
			return missing(in.StackName)
		}
		r, ok := s.resources.Get(tx, st.ID+"/"+in.LogicalResourceId)
		if !ok {
			return invalid("Resource %s does not exist for stack %s", in.LogicalResourceId, st.Name)
		}
		if r.Status != createInProgress && r.Status != updateInProgress {
			return invalid("Signals are only accepted for resources in CREATE_IN_PROGRESS or UPDATE_IN_PROGRESS state: %s is in %s", r.Logical, r.Status)
		}
		if slices.ContainsFunc(r.Signals, func(x signal) bool { return x.ID == in.UniqueId }) {
			return nil // once only
		}
		if len(r.Signals) >= 1000 {
			return invalid("Resource %s has received too many signals", r.Logical)
		}
		r.Signals = append(slices.Clone(r.Signals), signal{in.UniqueId, in.Status == "SUCCESS"})
		s.resources.Put(tx, r.key(), r)
		s.event(tx, st, event{Logical: r.Logical, Physical: r.ID, Type: r.Type, Status: r.Status, Reason: fmt.Sprintf("Received %s signal with UniqueId %s", in.Status, in.UniqueId)})
		return nil
	})
}
