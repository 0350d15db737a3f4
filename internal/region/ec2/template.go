package ec2

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

var templateName = regexp.MustCompile(`^[a-zA-Z0-9()./_-]{3,128}$`)

func noTemplateID(id string) error {
	return wire.Errorf("InvalidLaunchTemplateId.NotFound", "The specified launch template, with template ID %.64s, does not exist.", id)
}

func noTemplateName(name string) error {
	return wire.Errorf("InvalidLaunchTemplateName.NotFoundException", "The specified launch template, with template name %.128s, does not exist.", name)
}

func versionKey(id string, n int64) string { return fmt.Sprintf("%s:%012d", id, n) }

// findTemplate finds a template by id or name; exactly one must be given.
func (s *Service) findTemplate(tx *state.Tx, id, name string) (template, error) {
	switch {
	case id != "" && name != "":
		return template{}, wire.Errorf("InvalidParameterCombination", "Either launchTemplateId or launchTemplateName may be given, not both")
	case id != "":
		t, ok := s.templates.Get(tx, id)
		if !ok {
			return t, noTemplateID(id)
		}
		return t, nil
	case name != "":
		for _, t := range s.templates.All(tx) {
			if t.Name == name {
				return t, nil
			}
		}
		return template{}, noTemplateName(name)
	}
	return template{}, wire.Errorf("MissingParameter", "The request must contain the parameter launchTemplateId or launchTemplateName")
}

// findVersion finds a version by number, $Default or $Latest; "" is $Default.
func (s *Service) findVersion(tx *state.Tx, t template, version string) (templateVersion, error) {
	n := t.Default
	switch version {
	case "", "$Default":
	case "$Latest": // the highest that was not deleted; numbers are not given out twice
		for n = t.Latest; n > t.Default; n-- {
			if _, ok := s.versions.Get(tx, versionKey(t.ID, n)); ok {
				break
			}
		}
	default:
		var err error
		if n, err = strconv.ParseInt(version, 10, 64); err != nil || n < 1 {
			return templateVersion{}, wire.Errorf("InvalidLaunchTemplateId.VersionMalformed", "The specified launch template version %.32s is malformed", version)
		}
	}
	v, ok := s.versions.Get(tx, versionKey(t.ID, n))
	if !ok {
		return v, wire.Errorf("InvalidLaunchTemplateId.VersionNotFound", "Could not find the specified version %d for the launch template with ID %s.", n, t.ID)
	}
	return v, nil
}

// convert carries a value from one generated type to another whose fields have
// the same names, as the request's and the answer's forms of template data do.
func convert[Out any](in any) *Out {
	raw, err := json.Marshal(in)
	out := new(Out)
	if err == nil {
		err = json.Unmarshal(raw, out)
	}
	if err != nil {
		panic(fmt.Sprintf("ec2: %T is not like %T: %v", in, out, err)) // both are generated
	}
	return out
}

// checkData refuses template data that no launch could use.
func (s *Service) checkData(ctx context.Context, d *ec2api.RequestLaunchTemplateData) error {
	if d == nil {
		return wire.Errorf("MissingParameter", "The request must contain the parameter LaunchTemplateData")
	}
	if err := checkUserData(d.UserData); err != nil {
		return err
	}
	for _, sp := range d.TagSpecifications {
		if sp == nil {
			continue
		}
		if !slices.Contains(launchTagKinds, sp.ResourceType) {
			return wire.Errorf("InvalidParameterValue", "'%.64s' is not a valid taggable resource type for this operation.", sp.ResourceType)
		}
		if _, err := tagsIn(ctx, sp.Tags); err != nil {
			return err
		}
	}
	return nil
}

const maxUserData = 16 << 10

func checkUserData(s string) error {
	if s == "" {
		return nil
	}
	if len(s) > base64.StdEncoding.EncodedLen(maxUserData)+64 {
		return wire.Errorf("InvalidParameterValue", "User data is limited to %d bytes", maxUserData)
	}
	raw, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return wire.Errorf("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
	}
	if len(raw) > maxUserData {
		return wire.Errorf("InvalidParameterValue", "User data is limited to %d bytes", maxUserData)
	}
	return nil
}

func callerARN(ctx context.Context) string {
	c, _ := wire.CallerFrom(ctx)
	return c.ARN
}

// CreateLaunchTemplate makes a template with its first version.
func (s *Service) CreateLaunchTemplate(ctx context.Context, in *ec2api.CreateLaunchTemplateRequest) (*ec2api.CreateLaunchTemplateResult, error) {
	if !templateName.MatchString(in.LaunchTemplateName) {
		return nil, wire.Errorf("InvalidLaunchTemplateName.MalformedException", "Launch template names must be between 3 and 128 characters in length, and may contain letters, numbers, and the following characters: - ( ) . / _.")
	}
	if err := s.checkData(ctx, in.LaunchTemplateData); err != nil {
		return nil, err
	}
	tags, err := tagSpecs(ctx, in.TagSpecifications, "launch-template")
	if err != nil {
		return nil, err
	}
	out := &ec2api.CreateLaunchTemplateResult{}
	hash := hashOf(in)
	return out, s.update(func(tx *state.Tx) error {
		ids, err := s.once(tx, "launch-template", in.ClientToken, hash)
		if err != nil {
			return err
		}
		if ids != nil {
			if t, ok := s.templates.Get(tx, ids[0]); ok {
				out.LaunchTemplate = s.templateView(tx)(t)
				return nil
			}
		}
		if _, err := s.findTemplate(tx, "", in.LaunchTemplateName); err == nil {
			return wire.Errorf("InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use.")
		}
		t := template{ID: s.newID("lt"), Name: in.LaunchTemplateName, CreatedBy: callerARN(ctx), Created: s.now(), Default: 1, Latest: 1}
		s.templates.Put(tx, t.ID, t)
		s.versions.Put(tx, versionKey(t.ID, 1), templateVersion{Template: t.ID, Number: 1, Description: in.VersionDescription, CreatedBy: t.CreatedBy, Created: t.Created, Data: in.LaunchTemplateData})
		s.putTags(tx, "launch-template", t.ID, tags["launch-template"])
		s.remember(tx, "launch-template", in.ClientToken, hash, t.ID)
		out.LaunchTemplate = s.templateView(tx)(t)
		return dry(in.DryRun)
	})
}

// CreateLaunchTemplateVersion makes a further version, on its own or on top of
// an older one.
func (s *Service) CreateLaunchTemplateVersion(ctx context.Context, in *ec2api.CreateLaunchTemplateVersionRequest) (*ec2api.CreateLaunchTemplateVersionResult, error) {
	if err := s.checkData(ctx, in.LaunchTemplateData); err != nil {
		return nil, err
	}
	out := &ec2api.CreateLaunchTemplateVersionResult{}
	hash := hashOf(in)
	return out, s.update(func(tx *state.Tx) error {
		t, err := s.findTemplate(tx, in.LaunchTemplateId, in.LaunchTemplateName)
		if err != nil {
			return err
		}
		ids, err := s.once(tx, "launch-template-version:"+t.ID, in.ClientToken, hash)
		if err != nil {
			return err
		}
		if ids != nil {
			if v, ok := s.versions.Get(tx, ids[0]); ok {
				out.LaunchTemplateVersion = versionView(t, v)
				return nil
			}
		}
		data := in.LaunchTemplateData
		if in.SourceVersion != "" {
			src, err := s.findVersion(tx, t, in.SourceVersion)
			if err != nil {
				return err
			}
			merged := *src.Data
			overlay(&merged, data)
			data = &merged
		}
		t.Latest++
		v := templateVersion{Template: t.ID, Number: t.Latest, Description: in.VersionDescription, CreatedBy: callerARN(ctx), Created: s.now(), Data: data}
		s.templates.Put(tx, t.ID, t)
		s.versions.Put(tx, versionKey(t.ID, v.Number), v)
		s.remember(tx, "launch-template-version:"+t.ID, in.ClientToken, hash, versionKey(t.ID, v.Number))
		out.LaunchTemplateVersion = versionView(t, v)
		return dry(in.DryRun)
	})
}

// overlay sets every field of base that over has.
func overlay[T any](base, over *T) {
	b, o := reflect.ValueOf(base).Elem(), reflect.ValueOf(over).Elem()
	for i := range o.NumField() {
		if f := o.Field(i); !f.IsZero() {
			b.Field(i).Set(f)
		}
	}
}

// ModifyLaunchTemplate chooses the default version.
func (s *Service) ModifyLaunchTemplate(ctx context.Context, in *ec2api.ModifyLaunchTemplateRequest) (*ec2api.ModifyLaunchTemplateResult, error) {
	out := &ec2api.ModifyLaunchTemplateResult{}
	return out, s.update(func(tx *state.Tx) error {
		t, err := s.findTemplate(tx, in.LaunchTemplateId, in.LaunchTemplateName)
		if err != nil {
			return err
		}
		if in.DefaultVersion != "" {
			v, err := s.findVersion(tx, t, in.DefaultVersion)
			if err != nil {
				return err
			}
			t.Default = v.Number
			s.templates.Put(tx, t.ID, t)
		}
		out.LaunchTemplate = s.templateView(tx)(t)
		return dry(in.DryRun)
	})
}

// DeleteLaunchTemplate deletes a template with all versions.
func (s *Service) DeleteLaunchTemplate(ctx context.Context, in *ec2api.DeleteLaunchTemplateRequest) (*ec2api.DeleteLaunchTemplateResult, error) {
	out := &ec2api.DeleteLaunchTemplateResult{}
	return out, s.update(func(tx *state.Tx) error {
		t, err := s.findTemplate(tx, in.LaunchTemplateId, in.LaunchTemplateName)
		if err != nil {
			return err
		}
		out.LaunchTemplate = s.templateView(tx)(t)
		s.templates.Delete(tx, t.ID)
		for n := int64(1); n <= t.Latest; n++ {
			s.versions.Delete(tx, versionKey(t.ID, n))
		}
		s.tagsOf.Delete(tx, t.ID)
		return dry(in.DryRun)
	})
}

// DeleteLaunchTemplateVersions deletes versions; each has its own outcome.
func (s *Service) DeleteLaunchTemplateVersions(ctx context.Context, in *ec2api.DeleteLaunchTemplateVersionsRequest) (*ec2api.DeleteLaunchTemplateVersionsResult, error) {
	out := &ec2api.DeleteLaunchTemplateVersionsResult{}
	if len(in.Versions) > 200 {
		return nil, wire.Errorf("InvalidParameterValue", "At most 200 versions may be deleted in one call")
	}
	return out, s.update(func(tx *state.Tx) error {
		t, err := s.findTemplate(tx, in.LaunchTemplateId, in.LaunchTemplateName)
		if err != nil {
			return err
		}
		for _, x := range in.Versions {
			n, err := strconv.ParseInt(x, 10, 64)
			if err != nil {
				return wire.Errorf("InvalidLaunchTemplateId.VersionMalformed", "The specified launch template version %.32s is malformed", x)
			}
			fail := func(code, msg string) {
				out.UnsuccessfullyDeletedLaunchTemplateVersions = append(out.UnsuccessfullyDeletedLaunchTemplateVersions, &ec2api.DeleteLaunchTemplateVersionsResponseErrorItem{
					LaunchTemplateId: t.ID, LaunchTemplateName: t.Name, VersionNumber: new(n), ResponseError: &ec2api.ResponseError{Code: code, Message: msg}})
			}
			_, ok := s.versions.Get(tx, versionKey(t.ID, n))
			switch {
			case n == t.Default:
				fail("unexpectedError", "The default version of a launch template cannot be deleted")
			case !ok:
				fail("launchTemplateVersionDoesNotExist", "The version does not exist")
			default:
				s.versions.Delete(tx, versionKey(t.ID, n))
				out.SuccessfullyDeletedLaunchTemplateVersions = append(out.SuccessfullyDeletedLaunchTemplateVersions, &ec2api.DeleteLaunchTemplateVersionsResponseSuccessItem{LaunchTemplateId: t.ID, LaunchTemplateName: t.Name, VersionNumber: new(n)})
			}
		}
		return dry(in.DryRun)
	})
}
