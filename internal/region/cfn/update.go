package cfn

import (
	"context"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/region/api/cloudformationapi"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// updatable are the statuses from which a stack can be updated.
var updatable = []string{createComplete, updateComplete, revertComplete, updateFailed}

// UpdateStack changes a stack.
func (s *Service) UpdateStack(ctx context.Context, in *cloudformationapi.UpdateStackInput) (*cloudformationapi.UpdateStackOutput, error) {
	if err := refused(in.NotificationARNs, in.RollbackConfiguration, in.StackPolicyBody, in.StackPolicyURL, in.StackPolicyDuringUpdateBody, in.StackPolicyDuringUpdateURL); err != nil {
		return nil, err
	}
	st, err := s.one(in.StackName)
	if err != nil {
		return nil, err
	}
	asked := digest(in)
	if in.ClientRequestToken != "" && in.ClientRequestToken == st.Token {
		if st.Asked == asked {
			return &cloudformationapi.UpdateStackOutput{StackId: st.ID}, nil
		}
		return nil, wire.Errorf("TokenAlreadyExistsException", "A client request token already exists: %s", in.ClientRequestToken)
	}
	if st.Op != "" || !slices.Contains(updatable, st.Status) {
		return nil, invalid("Stack:%s is in %s state and can not be updated.", st.ID, st.Status)
	}
	p := proposal{name: st.Name, body: in.TemplateBody, url: in.TemplateURL, parameters: in.Parameters, tags: in.Tags, capabilities: in.Capabilities, before: &st.Now}
	if is(in.UsePreviousTemplate) {
		p.body = st.Now.Template
	}
	rev, t, err := s.revision(ctx, st, p)
	if err != nil {
		return nil, err
	}
	changes, err := s.plan(ctx, st, rev, t)
	if err != nil {
		return nil, err
	}
	if len(changes) == 0 && equal(rev.Tags, st.Now.Tags) && sameOutputs(st.Now.Template, rev.Template) {
		return nil, invalid("No updates are to be performed.")
	}
	err = s.begin(st, rev, in.ClientRequestToken, asked, func(_ *state.Tx, st *stack) {
		if in.RoleARN != "" {
			st.RoleARN = in.RoleARN
		}
		if in.DisableRollback != nil {
			st.OnFailure = map[bool]string{true: "DO_NOTHING", false: "ROLLBACK"}[*in.DisableRollback]
		}
	})
	if err != nil {
		return nil, err
	}
	return &cloudformationapi.UpdateStackOutput{StackId: st.ID}, nil
}

// sameOutputs: a template in which not even the text changed has no updates.
func sameOutputs(a, b string) bool { return a == b }

// begin starts an update of a stack that is still as it was looked at.
func (s *Service) begin(old stack, rev revision, token, asked string, f func(*state.Tx, *stack)) error {
	err := s.c.DB.Update(func(tx *state.Tx) error {
		st, ok := s.stacks.Get(tx, old.ID)
		if !ok || st.OpNumber != old.OpNumber || st.Op != "" {
			return invalid("Stack:%s is in %s state and can not be updated.", old.ID, st.Status)
		}
		st.Op, st.Status, st.Reason, st.Next, st.Updated, st.Token, st.Asked = updating, updateInProgress, "User Initiated", &rev, s.now(), token, asked
		st.OpNumber++
		if st.OnFailure == "DELETE" { // of the creation
			st.OnFailure = "ROLLBACK"
		}
		if f != nil {
			f(tx, &st)
		}
		s.stackEvent(tx, st)
		return nil
	})
	if err == nil {
		s.wake()
	}
	return err
}
