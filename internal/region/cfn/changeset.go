package cfn

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/cloudformationapi"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

var changeSetName = regexp.MustCompile(`^[a-zA-Z][-a-zA-Z0-9]{0,127}$`)

const noChanges = "The submitted information didn't contain changes. Submit different information to create a change set."

// CreateChangeSet plans the creation or the update of a stack.
func (s *Service) CreateChangeSet(ctx context.Context, in *cloudformationapi.CreateChangeSetInput) (*cloudformationapi.CreateChangeSetOutput, error) {
	if err := refused(in.NotificationARNs, in.RollbackConfiguration); err != nil {
		return nil, err
	}
	if !changeSetName.MatchString(in.ChangeSetName) {
		return nil, invalid("1 validation error detected: Value '%s' at 'changeSetName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*", in.ChangeSetName)
	}
	if in.ChangeSetType == "IMPORT" || len(in.ResourcesToImport) > 0 || is(in.ImportExistingResources) {
		return nil, invalid("the local region does not import resources into stacks")
	}
	if is(in.IncludeNestedStacks) {
		return nil, invalid("the local region has no nested stacks")
	}
	create := in.ChangeSetType == "CREATE"
	var st stack
	found := false
	s.c.DB.View(func(tx *state.Tx) { st, found = s.find(tx, in.StackName) })
	switch {
	case create && found && st.Status != reviewInProgress:
		return nil, invalid("Stack [%s] already exists and cannot be created again with the changeSet [%s].", in.StackName, in.ChangeSetName)
	case create && !found:
		if !stackName.MatchString(in.StackName) {
			return nil, invalid("1 validation error detected: Value '%s' at 'stackName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*", in.StackName)
		}
		st = stack{Name: in.StackName, ID: s.arn("stack", in.StackName), Created: s.now(), Status: reviewInProgress, Reason: "User Initiated"}
	case !create && !found:
		return nil, invalid("Stack [%s] does not exist", in.StackName)
	case !create && (st.Op != "" || !slices.Contains(updatable, st.Status)):
		return nil, invalid("Stack:%s is in %s state and can not be updated.", st.ID, st.Status)
	}
	p := proposal{name: st.Name, body: in.TemplateBody, url: in.TemplateURL, parameters: in.Parameters, tags: in.Tags, capabilities: in.Capabilities}
	if !create {
		p.before = &st.Now
		if is(in.UsePreviousTemplate) {
			p.body = st.Now.Template
		}
	}
	rev, t, err := s.revision(ctx, st, p)
	if err != nil {
		return nil, err
	}
	c := changeSet{
		ID: s.arn("changeSet", in.ChangeSetName), Name: in.ChangeSetName, Stack: st.ID, StackName: st.Name, Description: in.Description,
		Kind: "UPDATE", Created: s.now(), Status: createComplete, Execution: "AVAILABLE", Next: rev, OnFailure: in.OnStackFailure,
		RoleARN: in.RoleARN, Token: in.ClientToken, Asked: digest(in),
	}
	if create {
		c.Kind = "CREATE"
	}
	if c.Changes, err = s.plan(ctx, st, rev, t); err != nil {
		return nil, err
	}
	if len(c.Changes) == 0 && equal(rev.Tags, st.Now.Tags) && sameOutputs(st.Now.Template, rev.Template) {
		c.Status, c.Reason, c.Execution = "FAILED", noChanges, "UNAVAILABLE"
	}
	err = s.c.DB.Update(func(tx *state.Tx) error {
		if now, ok := s.find(tx, in.StackName); ok && now.ID != st.ID { // made at the same moment
			return wire.Errorf("AlreadyExistsException", "Stack [%s] already exists", in.StackName)
		}
		for _, old := range s.sets.All(tx) {
			if old.Stack != st.ID || old.Name != c.Name {
				continue
			}
			if old.Token != "" && old.Token == c.Token && old.Asked == c.Asked {
				c.ID = old.ID
				return nil
			}
			return wire.Errorf("AlreadyExistsException", "ChangeSet %s already exists", c.Name)
		}
		if !found {
			s.stackEvent(tx, st)
		}
		s.sets.Put(tx, c.ID, c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &cloudformationapi.CreateChangeSetOutput{Id: c.ID, StackId: st.ID}, nil
}

// changeSet finds a change set by its id, or by its name and its stack's.
func (s *Service) changeSet(stackName, name string) (c changeSet, err error) {
	ok := false
	s.c.DB.View(func(tx *state.Tx) {
		if strings.HasPrefix(name, "arn:") {
			c, ok = s.sets.Get(tx, name)
			return
		}
		for _, x := range s.sets.All(tx) {
			if x.Name == name && (x.StackName == stackName || x.Stack == stackName) {
				c, ok = x, true
			}
		}
	})
	switch {
	case !ok && stackName == "" && !strings.HasPrefix(name, "arn:"):
		return c, invalid("StackName must be specified if ChangeSetName is not specified as an ARN.")
	case !ok:
		return c, wire.Errorf("ChangeSetNotFound", "ChangeSet [%s] does not exist", name)
	}
	return c, nil
}

// DescribeChangeSet tells what a change set would do.
func (s *Service) DescribeChangeSet(_ context.Context, in *cloudformationapi.DescribeChangeSetInput) (*cloudformationapi.DescribeChangeSetOutput, error) {
	c, err := s.changeSet(in.StackName, in.ChangeSetName)
	if err != nil {
		return nil, err
	}
	part, next, err := page(c.Changes, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &cloudformationapi.DescribeChangeSetOutput{
		ChangeSetId: c.ID, ChangeSetName: c.Name, StackId: c.Stack, StackName: c.StackName, Description: c.Description,
		CreationTime: when(c.Created), Status: c.Status, StatusReason: c.Reason, ExecutionStatus: c.Execution, NextToken: next,
		Capabilities: c.Next.Capabilities, Parameters: parametersOf(c.Next), Tags: tagsOf(c.Next.Tags), OnStackFailure: c.OnFailure,
	}
	for _, x := range part {
		out.Changes = append(out.Changes, &cloudformationapi.Change{Type: "Resource", ResourceChange: shapeChange(x)})
	}
	return out, nil
}

func shapeChange(c change) *cloudformationapi.ResourceChange {
	out := &cloudformationapi.ResourceChange{
		Action: c.Action, LogicalResourceId: c.Logical, PhysicalResourceId: c.Physical, ResourceType: c.Type, Replacement: c.Replacement,
	}
	add := func(scope string) {
		if !slices.Contains(out.Scope, scope) {
			out.Scope = append(out.Scope, scope)
		}
	}
	for _, d := range c.Details {
		x := &cloudformationapi.ResourceChangeDetail{
			Evaluation: "Static", ChangeSource: "DirectModification", CausingEntity: d.Cause,
			Target: &cloudformationapi.ResourceTargetDefinition{Attribute: "Properties", Name: d.Property, RequiresRecreation: d.Recreate},
		}
		if d.Property == "" || d.Property == "Tags" {
			x.Target.Attribute, x.Target.Name = "Tags", ""
		}
		if d.Dynamic {
			x.Evaluation = "Dynamic"
		}
		switch {
		case strings.Contains(d.Cause, "."):
			x.ChangeSource = "ResourceAttribute"
		case d.Cause != "" && d.Dynamic:
			x.ChangeSource = "ResourceReference"
		case d.Cause != "":
			x.ChangeSource = "ParameterReference"
		}
		add(x.Target.Attribute)
		out.Details = append(out.Details, x)
	}
	return out
}

// ListChangeSets lists a stack's change sets.
func (s *Service) ListChangeSets(_ context.Context, in *cloudformationapi.ListChangeSetsInput) (*cloudformationapi.ListChangeSetsOutput, error) {
	st, err := s.one(in.StackName)
	if err != nil {
		return nil, err
	}
	var all []changeSet
	s.c.DB.View(func(tx *state.Tx) {
		for _, c := range s.sets.All(tx) {
			if c.Stack == st.ID {
				all = append(all, c)
			}
		}
	})
	part, next, err := page(all, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &cloudformationapi.ListChangeSetsOutput{NextToken: next}
	for _, c := range part {
		out.Summaries = append(out.Summaries, &cloudformationapi.ChangeSetSummary{
			ChangeSetId: c.ID, ChangeSetName: c.Name, StackId: c.Stack, StackName: c.StackName, Description: c.Description,
			CreationTime: when(c.Created), Status: c.Status, StatusReason: c.Reason, ExecutionStatus: c.Execution,
		})
	}
	return out, nil
}

// DeleteChangeSet forgets a change set; one that is not there is success.
func (s *Service) DeleteChangeSet(_ context.Context, in *cloudformationapi.DeleteChangeSetInput) (*cloudformationapi.DeleteChangeSetOutput, error) {
	c, err := s.changeSet(in.StackName, in.ChangeSetName)
	if e, ok := err.(*wire.Error); ok && e.Code == "ChangeSetNotFound" {
		return &cloudformationapi.DeleteChangeSetOutput{}, nil
	}
	if err != nil {
		return nil, err
	}
	return &cloudformationapi.DeleteChangeSetOutput{}, s.c.DB.Update(func(tx *state.Tx) error {
		s.sets.Delete(tx, c.ID)
		return nil
	})
}

// ExecuteChangeSet does what a change set says, if the stack is still as it was.
func (s *Service) ExecuteChangeSet(ctx context.Context, in *cloudformationapi.ExecuteChangeSetInput) (*cloudformationapi.ExecuteChangeSetOutput, error) {
	c, err := s.changeSet(in.StackName, in.ChangeSetName)
	if err != nil {
		return nil, err
	}
	out := &cloudformationapi.ExecuteChangeSetOutput{}
	st, err := s.one(c.Stack)
	if err != nil {
		return nil, err
	}
	if in.ClientRequestToken != "" && in.ClientRequestToken == st.Token && st.ChangeSet == c.ID {
		return out, nil
	}
	if c.Execution != "AVAILABLE" {
		return nil, wire.Errorf("InvalidChangeSetStatus", "ChangeSet [%s] cannot be executed in its current execution status of [%s]", c.ID, c.Execution)
	}
	if c.Kind == "CREATE" {
		err = s.c.DB.Update(func(tx *state.Tx) error {
			now, ok := s.stacks.Get(tx, st.ID)
			if !ok || now.Status != reviewInProgress {
				return wire.Errorf("InvalidChangeSetStatus", "ChangeSet [%s] cannot be executed: the stack is in %s", c.ID, now.Status)
			}
			now.Now, now.Op, now.Status, now.Reason, now.Token, now.ChangeSet, now.RoleARN = c.Next, creating, createInProgress, "User Initiated", in.ClientRequestToken, c.ID, c.RoleARN
			now.OpNumber++
			now.OnFailure = "ROLLBACK"
			if c.OnFailure != "" {
				now.OnFailure = c.OnFailure
			}
			if is(in.DisableRollback) {
				now.OnFailure = "DO_NOTHING"
			}
			now.RetainExceptOnCreate = is(in.RetainExceptOnCreate)
			s.executed(tx, c)
			s.stackEvent(tx, now)
			return nil
		})
		s.wake()
		return out, err
	}
	// The stack may have changed since: what is not possible any more is said
	// before anything is done.
	t, err := s.parse(c.Next.Template)
	if err != nil {
		return nil, err
	}
	if _, err := s.plan(ctx, st, c.Next, t); err != nil {
		return nil, err
	}
	if st.Op != "" || !slices.Contains(updatable, st.Status) {
		return nil, invalid("Stack:%s is in %s state and can not be updated.", st.ID, st.Status)
	}
	return out, s.begin(st, c.Next, in.ClientRequestToken, "", func(tx *state.Tx, st *stack) {
		s.executed(tx, c)
		st.ChangeSet = c.ID
		if is(in.DisableRollback) {
			st.OnFailure = "DO_NOTHING"
		}
	})
}

// executed marks a change set as done; the stack's others are worth nothing now.
func (s *Service) executed(tx *state.Tx, c changeSet) {
	for id, x := range s.sets.All(tx) {
		if x.Stack == c.Stack && id != c.ID {
			s.sets.Delete(tx, id)
		}
	}
	c.Execution = "EXECUTE_COMPLETE"
	s.sets.Put(tx, c.ID, c)
}
