package iam

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/iamapi"
	"github.com/dayfly-infra/dayfly/internal/region/iam/policy"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const maxManagedSize = 6144

// created is the time as IAM tells it, in whole seconds.
func (s *Service) created() time.Time { return s.now.Now().UTC().Truncate(time.Second) }

func (s *Service) findPolicy(tx *state.Tx, arn string) (managed, bool) {
	if m, ok := s.aws[arn]; ok {
		return m, true
	}
	return s.policies.Get(tx, arn)
}

// noPolicy says of AWS's own policies that the region does not have them:
// the name may be right.
func (s *Service) noPolicy(arn string) error {
	if strings.HasPrefix(arn, "arn:aws:iam::aws:policy/") {
		var have []string
		for _, m := range s.aws {
			have = append(have, m.Name)
		}
		slices.Sort(have)
		return notFound("Policy %s does not exist or is not attachable. The local region has these of AWS's policies: %s", arn, strings.Join(have, ", "))
	}
	return notFound("Policy %s does not exist or is not attachable.", arn)
}

func (s *Service) attachments(tx *state.Tx, arn string) int64 {
	var n int64
	for _, r := range s.roles.All(tx) {
		if slices.Contains(r.Attached, arn) {
			n++
		}
	}
	return n
}

func (s *Service) bounded(tx *state.Tx, arn string) int64 {
	var n int64
	for _, r := range s.roles.All(tx) {
		if r.Boundary == arn {
			n++
		}
	}
	return n
}

func (s *Service) policyView(tx *state.Tx, m managed) *iamapi.Policy {
	return &iamapi.Policy{
		Arn: m.ARN, AttachmentCount: new(s.attachments(tx, m.ARN)), CreateDate: new(m.Created), DefaultVersionId: "v1", Description: m.Description,
		IsAttachable: new(true), Path: m.Path, PermissionsBoundaryUsageCount: new(s.bounded(tx, m.ARN)), PolicyId: m.ID, PolicyName: m.Name, Tags: tagList(m.Tags), UpdateDate: new(m.Created),
	}
}

// CreatePolicy makes a managed policy of the account.
func (s *Service) CreatePolicy(ctx context.Context, in *iamapi.CreatePolicyRequest) (*iamapi.CreatePolicyResponse, error) {
	if err := checkName("policyName", in.PolicyName, 128); err != nil {
		return nil, err
	}
	p, err := cleanPath(in.Path)
	if err != nil {
		return nil, err
	}
	if len(strings.Join(strings.Fields(in.PolicyDocument), "")) > maxManagedSize {
		return nil, conflict("LimitExceeded", "Cannot exceed quota for PolicySize: %d", maxManagedSize)
	}
	if _, err := policy.Parse(in.PolicyDocument); err != nil {
		return nil, malformed(err)
	}
	tags, err := tagsOf(ctx, nil, in.Tags)
	if err != nil {
		return nil, err
	}
	m := managed{Name: in.PolicyName, ID: newID("ANPA"), ARN: s.arn("policy", p, in.PolicyName), Path: p, Description: in.Description, Document: in.PolicyDocument, Tags: tags, Created: s.created()}
	out := &iamapi.CreatePolicyResponse{}
	err = s.db.Update(func(tx *state.Tx) error {
		for _, other := range s.policies.All(tx) {
			if strings.EqualFold(other.Name, m.Name) {
				return conflict("EntityAlreadyExists", "A policy called %s already exists. Duplicate names are not allowed.", other.Name)
			}
		}
		s.policies.Put(tx, m.ARN, m)
		out.Policy = s.policyView(tx, m)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Service) policy(tx *state.Tx, arn string) (managed, error) {
	m, ok := s.findPolicy(tx, arn)
	if !ok {
		return m, notFound("Policy %s was not found.", arn)
	}
	return m, nil
}

// GetPolicy tells about a managed policy.
func (s *Service) GetPolicy(_ context.Context, in *iamapi.GetPolicyRequest) (out *iamapi.GetPolicyResponse, err error) {
	s.db.View(func(tx *state.Tx) {
		var m managed
		if m, err = s.policy(tx, in.PolicyArn); err == nil {
			out = &iamapi.GetPolicyResponse{Policy: s.policyView(tx, m)}
		}
	})
	return out, err
}

// GetPolicyVersion gives the document of a managed policy, whose only version is v1.
func (s *Service) GetPolicyVersion(_ context.Context, in *iamapi.GetPolicyVersionRequest) (out *iamapi.GetPolicyVersionResponse, err error) {
	s.db.View(func(tx *state.Tx) {
		var m managed
		if m, err = s.policy(tx, in.PolicyArn); err != nil {
			return
		}
		if in.VersionId != "v1" {
			err = notFound("Policy %s version %s does not exist.", in.PolicyArn, in.VersionId)
			return
		}
		out = &iamapi.GetPolicyVersionResponse{PolicyVersion: m.version()}
		out.PolicyVersion.Document = encodeDocument(m.Document)
	})
	return out, err
}

func (m managed) version() *iamapi.PolicyVersion {
	return &iamapi.PolicyVersion{CreateDate: new(m.Created), IsDefaultVersion: new(true), VersionId: "v1"}
}

// ListPolicyVersions lists the versions of a managed policy: one.
func (s *Service) ListPolicyVersions(_ context.Context, in *iamapi.ListPolicyVersionsRequest) (out *iamapi.ListPolicyVersionsResponse, err error) {
	s.db.View(func(tx *state.Tx) {
		var m managed
		if m, err = s.policy(tx, in.PolicyArn); err == nil {
			out = &iamapi.ListPolicyVersionsResponse{IsTruncated: new(false), Versions: []*iamapi.PolicyVersion{m.version()}}
		}
	})
	return out, err
}

// DeletePolicy deletes a managed policy that nothing uses.
func (s *Service) DeletePolicy(_ context.Context, in *iamapi.DeletePolicyRequest) error {
	return s.db.Update(func(tx *state.Tx) error {
		m, err := s.policy(tx, in.PolicyArn)
		if err != nil {
			return err
		}
		if _, ok := s.aws[m.ARN]; ok {
			return &wire.Error{Code: "AccessDenied", Message: "AWS managed policies cannot be deleted: " + m.ARN, Status: http.StatusForbidden}
		}
		if s.attachments(tx, m.ARN)+s.bounded(tx, m.ARN) > 0 {
			return conflict("DeleteConflict", "Cannot delete a policy attached to entities.")
		}
		s.policies.Delete(tx, m.ARN)
		return nil
	})
}

// ListPolicies lists AWS's and the account's managed policies.
func (s *Service) ListPolicies(_ context.Context, in *iamapi.ListPoliciesRequest) (*iamapi.ListPoliciesResponse, error) {
	var all []*iamapi.Policy
	s.db.View(func(tx *state.Tx) {
		add := func(m managed) {
			v := s.policyView(tx, m)
			v.Tags, v.Description = nil, ""
			switch {
			case !strings.HasPrefix(m.Path, in.PathPrefix),
				in.OnlyAttached != nil && *in.OnlyAttached && *v.AttachmentCount == 0,
				in.PolicyUsageFilter == "PermissionsBoundary" && *v.PermissionsBoundaryUsageCount == 0:
				return
			}
			all = append(all, v)
		}
		if in.Scope != "Local" {
			for _, m := range s.aws {
				add(m)
			}
		}
		if in.Scope != "AWS" {
			for _, m := range s.policies.All(tx) {
				add(m)
			}
		}
	})
	out := &iamapi.ListPoliciesResponse{}
	var err error
	out.Policies, out.IsTruncated, out.Marker, err = page(all, func(p *iamapi.Policy) string { return p.PolicyName + " " + p.Arn }, in.Marker, in.MaxItems)
	return out, err
}
