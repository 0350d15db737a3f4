package iam

import (
	"context"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/iamapi"
	"github.com/dayfly-infra/dayfly/internal/region/state"
)

func (s *Service) findProfile(tx *state.Tx, nameOrARN string) (profile, bool) {
	name := nameOrARN
	if strings.HasPrefix(nameOrARN, "arn:") {
		name = nameOrARN[strings.LastIndexByte(nameOrARN, '/')+1:]
	}
	p, ok := s.profiles.Get(tx, name)
	return p, ok && (name == nameOrARN || p.ARN == nameOrARN)
}

func (s *Service) profile(tx *state.Tx, name string) (profile, error) {
	p, ok := s.profiles.Get(tx, name)
	if !ok {
		return p, notFound("Instance Profile %s cannot be found.", name)
	}
	return p, nil
}

func (s *Service) profileView(tx *state.Tx, p profile) *iamapi.InstanceProfile {
	v := &iamapi.InstanceProfile{Arn: p.ARN, CreateDate: new(p.Created), InstanceProfileId: p.ID, InstanceProfileName: p.Name, Path: p.Path, Roles: []*iamapi.Role{}, Tags: tagList(p.Tags)}
	if r, ok := s.roles.Get(tx, p.Role); ok {
		rv := r.view()
		rv.Tags, rv.MaxSessionDuration = nil, nil
		v.Roles = append(v.Roles, rv)
	}
	return v
}

// CreateInstanceProfile makes an instance profile without a role.
func (s *Service) CreateInstanceProfile(ctx context.Context, in *iamapi.CreateInstanceProfileRequest) (*iamapi.CreateInstanceProfileResponse, error) {
	if err := checkName("instanceProfileName", in.InstanceProfileName, 128); err != nil {
		return nil, err
	}
	dir, err := cleanPath(in.Path)
	if err != nil {
		return nil, err
	}
	tags, err := tagsOf(ctx, nil, in.Tags)
	if err != nil {
		return nil, err
	}
	p := profile{Name: in.InstanceProfileName, ID: newID("AIPA"), ARN: s.arn("instance-profile", dir, in.InstanceProfileName), Path: dir, Tags: tags, Created: s.created()}
	out := &iamapi.CreateInstanceProfileResponse{}
	err = s.db.Update(func(tx *state.Tx) error {
		for _, other := range s.profiles.All(tx) {
			if strings.EqualFold(other.Name, p.Name) {
				return conflict("EntityAlreadyExists", "Instance Profile %s already exists.", other.Name)
			}
		}
		s.profiles.Put(tx, p.Name, p)
		out.InstanceProfile = s.profileView(tx, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// GetInstanceProfile tells about an instance profile.
func (s *Service) GetInstanceProfile(_ context.Context, in *iamapi.GetInstanceProfileRequest) (out *iamapi.GetInstanceProfileResponse, err error) {
	s.db.View(func(tx *state.Tx) {
		var p profile
		if p, err = s.profile(tx, in.InstanceProfileName); err == nil {
			out = &iamapi.GetInstanceProfileResponse{InstanceProfile: s.profileView(tx, p)}
		}
	})
	return out, err
}

// DeleteInstanceProfile deletes an instance profile that has no role.
func (s *Service) DeleteInstanceProfile(_ context.Context, in *iamapi.DeleteInstanceProfileRequest) error {
	return s.db.Update(func(tx *state.Tx) error {
		p, err := s.profile(tx, in.InstanceProfileName)
		if err != nil {
			return err
		}
		if p.Role != "" {
			return conflict("DeleteConflict", "Cannot delete entity, must remove roles from instance profile first.")
		}
		s.profiles.Delete(tx, p.Name)
		return nil
	})
}

// ListInstanceProfiles lists the instance profiles by name.
func (s *Service) ListInstanceProfiles(_ context.Context, in *iamapi.ListInstanceProfilesRequest) (*iamapi.ListInstanceProfilesResponse, error) {
	all := s.listProfiles(func(p profile) bool { return strings.HasPrefix(p.Path, in.PathPrefix) })
	out := &iamapi.ListInstanceProfilesResponse{}
	var err error
	out.InstanceProfiles, out.IsTruncated, out.Marker, err = page(all, profileName, in.Marker, in.MaxItems)
	return out, err
}

// ListInstanceProfilesForRole lists the instance profiles that have a role.
func (s *Service) ListInstanceProfilesForRole(_ context.Context, in *iamapi.ListInstanceProfilesForRoleRequest) (*iamapi.ListInstanceProfilesForRoleResponse, error) {
	var err error
	s.db.View(func(tx *state.Tx) { _, err = s.role(tx, in.RoleName) })
	if err != nil {
		return nil, err
	}
	all := s.listProfiles(func(p profile) bool { return p.Role == in.RoleName })
	out := &iamapi.ListInstanceProfilesForRoleResponse{}
	out.InstanceProfiles, out.IsTruncated, out.Marker, err = page(all, profileName, in.Marker, in.MaxItems)
	return out, err
}

func profileName(p *iamapi.InstanceProfile) string { return p.InstanceProfileName }

func (s *Service) listProfiles(want func(profile) bool) (all []*iamapi.InstanceProfile) {
	s.db.View(func(tx *state.Tx) {
		for _, p := range s.profiles.All(tx) {
			if want(p) {
				v := s.profileView(tx, p)
				v.Tags = nil // only GetInstanceProfile tells them
				all = append(all, v)
			}
		}
	})
	return all
}

// AddRoleToInstanceProfile puts a role into an instance profile, which can have one.
func (s *Service) AddRoleToInstanceProfile(_ context.Context, in *iamapi.AddRoleToInstanceProfileRequest) error {
	return s.db.Update(func(tx *state.Tx) error {
		p, err := s.profile(tx, in.InstanceProfileName)
		if err != nil {
			return err
		}
		if _, err := s.role(tx, in.RoleName); err != nil {
			return err
		}
		if p.Role != "" {
			return conflict("LimitExceeded", "Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1")
		}
		p.Role = in.RoleName
		s.profiles.Put(tx, p.Name, p)
		return nil
	})
}

// RemoveRoleFromInstanceProfile takes the role out of an instance profile.
func (s *Service) RemoveRoleFromInstanceProfile(_ context.Context, in *iamapi.RemoveRoleFromInstanceProfileRequest) error {
	return s.db.Update(func(tx *state.Tx) error {
		p, err := s.profile(tx, in.InstanceProfileName)
		if err != nil {
			return err
		}
		if p.Role != in.RoleName {
			return notFound("The role with name %s cannot be found.", in.RoleName)
		}
		p.Role = ""
		s.profiles.Put(tx, p.Name, p)
		return nil
	})
}
