package iam

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/iamapi"
	"github.com/dayfly-infra/dayfly/internal/region/iam/policy"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const (
	maxInlineSize = 10240 // of all inline policies of a role together
	maxTrustSize  = 4096
	maxAttached   = 20
)

func (r role) view() *iamapi.Role {
	v := &iamapi.Role{
		Arn: r.ARN, AssumeRolePolicyDocument: encodeDocument(r.Trust), CreateDate: new(r.Created), Description: r.Description,
		MaxSessionDuration: new(r.MaxSession), Path: r.Path, RoleId: r.ID, RoleName: r.Name, Tags: tagList(r.Tags),
	}
	if r.Boundary != "" {
		v.PermissionsBoundary = &iamapi.AttachedPermissionsBoundary{PermissionsBoundaryArn: r.Boundary, PermissionsBoundaryType: "Policy"}
	}
	return v
}

func malformed(err error) error {
	return wire.Errorf("MalformedPolicyDocument", "The policy is malformed: %v", err)
}

func checkTrust(text string) error {
	if len(text) > maxTrustSize {
		return conflict("LimitExceeded", "Cannot exceed quota for ACLSizePerRole: %d", maxTrustSize)
	}
	if _, err := policy.ParseTrust(text); err != nil {
		return malformed(err)
	}
	return nil
}

// change runs f on a copy of the role and keeps what it made of it.
func (s *Service) change(name string, f func(tx *state.Tx, r *role) error) error {
	return s.db.Update(func(tx *state.Tx) error {
		r, err := s.role(tx, name)
		if err != nil {
			return err
		}
		r.Inline, r.Attached = maps.Clone(r.Inline), slices.Clone(r.Attached)
		if err := f(tx, &r); err != nil {
			return err
		}
		s.roles.Put(tx, name, r)
		return nil
	})
}

func (s *Service) role(tx *state.Tx, name string) (role, error) {
	r, ok := s.roles.Get(tx, name)
	if !ok {
		return r, notFound("The role with name %s cannot be found.", name)
	}
	return r, nil
}

// CreateRole makes a role with its trust policy.
func (s *Service) CreateRole(ctx context.Context, in *iamapi.CreateRoleRequest) (*iamapi.CreateRoleResponse, error) {
	if err := checkName("roleName", in.RoleName, 64); err != nil {
		return nil, err
	}
	p, err := cleanPath(in.Path)
	if err != nil {
		return nil, err
	}
	if err := checkTrust(in.AssumeRolePolicyDocument); err != nil {
		return nil, err
	}
	tags, err := tagsOf(ctx, nil, in.Tags)
	if err != nil {
		return nil, err
	}
	r := role{
		Name: in.RoleName, ID: newID("AROA"), ARN: s.arn("role", p, in.RoleName), Path: p, Trust: in.AssumeRolePolicyDocument,
		Description: in.Description, MaxSession: 3600, Boundary: in.PermissionsBoundary, Tags: tags, Created: s.created(),
	}
	if in.MaxSessionDuration != nil {
		r.MaxSession = *in.MaxSessionDuration
		if r.MaxSession < 3600 || r.MaxSession > 43200 {
			return nil, wire.Errorf("ValidationError", "1 validation error detected: Value '%d' at 'maxSessionDuration' failed to satisfy constraint: Member must have value between 3600 and 43200", r.MaxSession)
		}
	}
	err = s.db.Update(func(tx *state.Tx) error {
		for _, other := range s.roles.All(tx) {
			if strings.EqualFold(other.Name, r.Name) {
				return conflict("EntityAlreadyExists", "Role with name %s already exists.", other.Name)
			}
		}
		if r.Boundary != "" {
			if _, ok := s.findPolicy(tx, r.Boundary); !ok {
				return notFound("Scope ARN: %s does not exist or is not attachable.", r.Boundary)
			}
		}
		s.roles.Put(tx, r.Name, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iamapi.CreateRoleResponse{Role: r.view()}, nil
}

// GetRole tells about a role.
func (s *Service) GetRole(_ context.Context, in *iamapi.GetRoleRequest) (out *iamapi.GetRoleResponse, err error) {
	s.db.View(func(tx *state.Tx) {
		var r role
		if r, err = s.role(tx, in.RoleName); err == nil {
			out = &iamapi.GetRoleResponse{Role: r.view()}
		}
	})
	return out, err
}

// DeleteRole deletes a role that nothing uses and that has no policies.
func (s *Service) DeleteRole(_ context.Context, in *iamapi.DeleteRoleRequest) error {
	return s.db.Update(func(tx *state.Tx) error {
		r, err := s.role(tx, in.RoleName)
		if err != nil {
			return err
		}
		for _, p := range s.profiles.All(tx) {
			if p.Role == r.Name {
				return conflict("DeleteConflict", "Cannot delete entity, must remove roles from instance profile first.")
			}
		}
		if len(r.Attached) > 0 {
			return conflict("DeleteConflict", "Cannot delete entity, must detach all policies first.")
		}
		if len(r.Inline) > 0 {
			return conflict("DeleteConflict", "Cannot delete entity, must delete policies first.")
		}
		s.roles.Delete(tx, r.Name)
		return nil
	})
}

// ListRoles lists the roles by name.
func (s *Service) ListRoles(_ context.Context, in *iamapi.ListRolesRequest) (*iamapi.ListRolesResponse, error) {
	var all []*iamapi.Role
	s.db.View(func(tx *state.Tx) {
		for _, r := range s.roles.All(tx) {
			if strings.HasPrefix(r.Path, in.PathPrefix) {
				v := r.view()
				v.Tags, v.PermissionsBoundary = nil, nil // only GetRole tells them
				all = append(all, v)
			}
		}
	})
	out := &iamapi.ListRolesResponse{}
	var err error
	out.Roles, out.IsTruncated, out.Marker, err = page(all, func(r *iamapi.Role) string { return r.RoleName }, in.Marker, in.MaxItems)
	return out, err
}

// UpdateAssumeRolePolicy replaces a role's trust policy.
func (s *Service) UpdateAssumeRolePolicy(_ context.Context, in *iamapi.UpdateAssumeRolePolicyRequest) error {
	if err := checkTrust(in.PolicyDocument); err != nil {
		return err
	}
	return s.change(in.RoleName, func(_ *state.Tx, r *role) error {
		r.Trust = in.PolicyDocument
		return nil
	})
}

// PutRolePolicy puts an inline policy on a role.
func (s *Service) PutRolePolicy(_ context.Context, in *iamapi.PutRolePolicyRequest) error {
	if err := checkName("policyName", in.PolicyName, 128); err != nil {
		return err
	}
	if _, err := policy.Parse(in.PolicyDocument); err != nil {
		return malformed(err)
	}
	return s.change(in.RoleName, func(_ *state.Tx, r *role) error {
		if r.Inline == nil {
			r.Inline = map[string]string{}
		}
		r.Inline[in.PolicyName] = in.PolicyDocument
		size := 0
		for _, d := range r.Inline {
			size += len(strings.Join(strings.Fields(d), ""))
		}
		if size > maxInlineSize {
			return conflict("LimitExceeded", "Maximum policy size of %d bytes exceeded for role %s", maxInlineSize, r.Name)
		}
		return nil
	})
}

// GetRolePolicy gives an inline policy.
func (s *Service) GetRolePolicy(_ context.Context, in *iamapi.GetRolePolicyRequest) (out *iamapi.GetRolePolicyResponse, err error) {
	s.db.View(func(tx *state.Tx) {
		var r role
		if r, err = s.role(tx, in.RoleName); err != nil {
			return
		}
		doc, ok := r.Inline[in.PolicyName]
		if !ok {
			err = noInline(in.PolicyName)
			return
		}
		out = &iamapi.GetRolePolicyResponse{RoleName: r.Name, PolicyName: in.PolicyName, PolicyDocument: encodeDocument(doc)}
	})
	return out, err
}

func noInline(name string) error {
	return notFound("The role policy with name %s cannot be found.", name)
}

// DeleteRolePolicy takes an inline policy away.
func (s *Service) DeleteRolePolicy(_ context.Context, in *iamapi.DeleteRolePolicyRequest) error {
	return s.change(in.RoleName, func(_ *state.Tx, r *role) error {
		if _, ok := r.Inline[in.PolicyName]; !ok {
			return noInline(in.PolicyName)
		}
		delete(r.Inline, in.PolicyName)
		return nil
	})
}

// ListRolePolicies names the inline policies of a role.
func (s *Service) ListRolePolicies(_ context.Context, in *iamapi.ListRolePoliciesRequest) (*iamapi.ListRolePoliciesResponse, error) {
	var names []string
	var err error
	s.db.View(func(tx *state.Tx) {
		var r role
		if r, err = s.role(tx, in.RoleName); err == nil {
			names = slices.Collect(maps.Keys(r.Inline))
		}
	})
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListRolePoliciesResponse{}
	out.PolicyNames, out.IsTruncated, out.Marker, err = page(names, func(n string) string { return n }, in.Marker, in.MaxItems)
	return out, err
}

// TagRole sets tags of a role.
func (s *Service) TagRole(ctx context.Context, in *iamapi.TagRoleRequest) error {
	return s.change(in.RoleName, func(_ *state.Tx, r *role) (err error) {
		r.Tags, err = tagsOf(ctx, r.Tags, in.Tags)
		return err
	})
}

// UntagRole removes tags of a role.
func (s *Service) UntagRole(_ context.Context, in *iamapi.UntagRoleRequest) error {
	return s.change(in.RoleName, func(_ *state.Tx, r *role) error {
		r.Tags = maps.Clone(r.Tags)
		for _, k := range in.TagKeys {
			delete(r.Tags, k)
		}
		return nil
	})
}

// AttachRolePolicy attaches a managed policy to a role.
func (s *Service) AttachRolePolicy(_ context.Context, in *iamapi.AttachRolePolicyRequest) error {
	return s.change(in.RoleName, func(tx *state.Tx, r *role) error {
		if _, ok := s.findPolicy(tx, in.PolicyArn); !ok {
			return s.noPolicy(in.PolicyArn)
		}
		if slices.Contains(r.Attached, in.PolicyArn) {
			return nil
		}
		if len(r.Attached) >= maxAttached {
			return conflict("LimitExceeded", "Cannot exceed quota for PoliciesPerRole: %d", maxAttached)
		}
		r.Attached = append(r.Attached, in.PolicyArn)
		slices.Sort(r.Attached)
		return nil
	})
}

// DetachRolePolicy detaches a managed policy.
func (s *Service) DetachRolePolicy(_ context.Context, in *iamapi.DetachRolePolicyRequest) error {
	return s.change(in.RoleName, func(_ *state.Tx, r *role) error {
		i := slices.Index(r.Attached, in.PolicyArn)
		if i < 0 {
			return notFound("Policy %s was not found.", in.PolicyArn)
		}
		r.Attached = slices.Delete(r.Attached, i, i+1)
		return nil
	})
}

// ListAttachedRolePolicies lists the managed policies of a role.
func (s *Service) ListAttachedRolePolicies(_ context.Context, in *iamapi.ListAttachedRolePoliciesRequest) (*iamapi.ListAttachedRolePoliciesResponse, error) {
	var all []*iamapi.AttachedPolicy
	var err error
	s.db.View(func(tx *state.Tx) {
		var r role
		if r, err = s.role(tx, in.RoleName); err != nil {
			return
		}
		for _, arn := range r.Attached {
			if m, ok := s.findPolicy(tx, arn); ok && strings.HasPrefix(m.Path, in.PathPrefix) {
				all = append(all, &iamapi.AttachedPolicy{PolicyArn: arn, PolicyName: m.Name})
			}
		}
	})
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListAttachedRolePoliciesResponse{}
	out.AttachedPolicies, out.IsTruncated, out.Marker, err = page(all, func(p *iamapi.AttachedPolicy) string { return p.PolicyName + " " + p.PolicyArn }, in.Marker, in.MaxItems)
	return out, err
}
