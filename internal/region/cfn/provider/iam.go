package provider

import (
	"context"
	"maps"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/region/api/iamapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/ssmapi"
)

func iamTags(m map[string]string) []*iamapi.Tag {
	var out []*iamapi.Tag
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, &iamapi.Tag{Key: k, Value: m[k]})
	}
	return out
}

// owns tells whether tags say that this stack made the thing: names can be
// somebody else's.
func (r *Request) owns(tags []*iamapi.Tag) bool {
	return slices.ContainsFunc(tags, func(t *iamapi.Tag) bool { return t.Key == TagStackID && t.Value == r.StackID })
}

var role = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		name := r.custom("RoleName", 64)
		out, err := call[iamapi.GetRoleResponse](ctx, r, "iam", "GetRole", &iamapi.GetRoleRequest{RoleName: name})
		if err != nil || !r.owns(out.Role.Tags) {
			return "", gone(err)
		}
		return name, nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		in := &iamapi.CreateRoleRequest{Tags: iamTags(r.tags())}
		if err := fill(in, r.Properties, "Tags", "RoleName", "ManagedPolicyArns", "Policies"); err != nil {
			return "", err
		}
		in.RoleName = r.custom("RoleName", 64)
		return in.RoleName, do(ctx, r, "iam", "CreateRole", in)
	},
	Configure: rolePolicies,
	Update: func(ctx context.Context, r *Request) error {
		if r.changed("AssumeRolePolicyDocument") {
			if err := do(ctx, r, "iam", "UpdateAssumeRolePolicy", &iamapi.UpdateAssumeRolePolicyRequest{RoleName: r.ID, PolicyDocument: text(r.Properties, "AssumeRolePolicyDocument")}); err != nil {
				return err
			}
		}
		if err := rolePolicies(ctx, r); err != nil {
			return err
		}
		put, remove := r.tagChanges()
		if len(put) > 0 {
			if err := do(ctx, r, "iam", "TagRole", &iamapi.TagRoleRequest{RoleName: r.ID, Tags: iamTags(put)}); err != nil {
				return err
			}
		}
		if len(remove) > 0 {
			return do(ctx, r, "iam", "UntagRole", &iamapi.UntagRoleRequest{RoleName: r.ID, TagKeys: remove})
		}
		return nil
	},
	Mutable: []string{"AssumeRolePolicyDocument", "ManagedPolicyArns", "Policies", "Tags"},
	Remove: func(ctx context.Context, r *Request) error {
		empty := *r
		empty.Old, empty.Properties = r.Properties, map[string]any{}
		if err := gone(rolePolicies(ctx, &empty)); err != nil {
			return err
		}
		return gone(do(ctx, r, "iam", "DeleteRole", &iamapi.DeleteRoleRequest{RoleName: r.ID}))
	},
	Attributes: func(ctx context.Context, r *Request) (map[string]any, error) {
		out, err := call[iamapi.GetRoleResponse](ctx, r, "iam", "GetRole", &iamapi.GetRoleRequest{RoleName: r.ID})
		if err != nil {
			return nil, err
		}
		return map[string]any{"Arn": out.Role.Arn, "RoleId": out.Role.RoleId}, nil
	},
	Named: "RoleName",
}

// rolePolicies makes a role's policies those of the template.
func rolePolicies(ctx context.Context, r *Request) error {
	add, remove := difference(texts(r.Properties, "ManagedPolicyArns"), texts(r.Old, "ManagedPolicyArns"))
	for _, arn := range add {
		if err := do(ctx, r, "iam", "AttachRolePolicy", &iamapi.AttachRolePolicyRequest{RoleName: r.ID, PolicyArn: arn}); err != nil {
			return err
		}
	}
	for _, arn := range remove {
		if err := gone(do(ctx, r, "iam", "DetachRolePolicy", &iamapi.DetachRolePolicyRequest{RoleName: r.ID, PolicyArn: arn})); err != nil {
			return err
		}
	}
	var names []string
	for _, x := range list(r.Properties, "Policies") {
		m, _ := x.(map[string]any)
		n := text(m, "PolicyName")
		names = append(names, n)
		if err := do(ctx, r, "iam", "PutRolePolicy", &iamapi.PutRolePolicyRequest{RoleName: r.ID, PolicyName: n, PolicyDocument: text(m, "PolicyDocument")}); err != nil {
			return err
		}
	}
	for _, x := range list(r.Old, "Policies") {
		m, _ := x.(map[string]any)
		if n := text(m, "PolicyName"); !slices.Contains(names, n) {
			if err := gone(do(ctx, r, "iam", "DeleteRolePolicy", &iamapi.DeleteRolePolicyRequest{RoleName: r.ID, PolicyName: n})); err != nil {
				return err
			}
		}
	}
	return nil
}

var instanceProfile = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		name := r.custom("InstanceProfileName", 128)
		out, err := call[iamapi.GetInstanceProfileResponse](ctx, r, "iam", "GetInstanceProfile", &iamapi.GetInstanceProfileRequest{InstanceProfileName: name})
		if err != nil || !r.owns(out.InstanceProfile.Tags) {
			return "", gone(err)
		}
		return name, nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		name := r.custom("InstanceProfileName", 128)
		return name, do(ctx, r, "iam", "CreateInstanceProfile", &iamapi.CreateInstanceProfileRequest{InstanceProfileName: name, Path: text(r.Properties, "Path"), Tags: iamTags(r.tags())})
	},
	Configure: profileRoles,
	Update:    profileRoles,
	Mutable:   []string{"Roles"},
	Remove: func(ctx context.Context, r *Request) error {
		empty := *r
		empty.Properties = map[string]any{}
		if err := gone(profileRoles(ctx, &empty)); err != nil {
			return err
		}
		return gone(do(ctx, r, "iam", "DeleteInstanceProfile", &iamapi.DeleteInstanceProfileRequest{InstanceProfileName: r.ID}))
	},
	Attributes: func(ctx context.Context, r *Request) (map[string]any, error) {
		out, err := call[iamapi.GetInstanceProfileResponse](ctx, r, "iam", "GetInstanceProfile", &iamapi.GetInstanceProfileRequest{InstanceProfileName: r.ID})
		if err != nil {
			return nil, err
		}
		return map[string]any{"Arn": out.InstanceProfile.Arn}, nil
	},
	Named: "InstanceProfileName",
}

// profileRoles makes a profile's role that of the template: what is in it now
// is asked for, so that it can be repeated.
func profileRoles(ctx context.Context, r *Request) error {
	out, err := call[iamapi.GetInstanceProfileResponse](ctx, r, "iam", "GetInstanceProfile", &iamapi.GetInstanceProfileRequest{InstanceProfileName: r.ID})
	if err != nil {
		return err
	}
	var have []string
	for _, x := range out.InstanceProfile.Roles {
		have = append(have, x.RoleName)
	}
	add, remove := difference(texts(r.Properties, "Roles"), have)
	for _, n := range remove {
		if err := gone(do(ctx, r, "iam", "RemoveRoleFromInstanceProfile", &iamapi.RemoveRoleFromInstanceProfileRequest{InstanceProfileName: r.ID, RoleName: n})); err != nil {
			return err
		}
	}
	for _, n := range add {
		if err := do(ctx, r, "iam", "AddRoleToInstanceProfile", &iamapi.AddRoleToInstanceProfileRequest{InstanceProfileName: r.ID, RoleName: n}); err != nil {
			return err
		}
	}
	return nil
}

// An inline policy has no id of its own; putting it twice is putting it once.
var policy = &Provider{
	Find:      func(context.Context, *Request) (string, error) { return "", nil },
	Create:    func(_ context.Context, r *Request) (string, error) { return r.Name(128), nil },
	Configure: putPolicy,
	Update: func(ctx context.Context, r *Request) error {
		if err := putPolicy(ctx, r); err != nil {
			return err
		}
		_, left := difference(texts(r.Properties, "Roles"), texts(r.Old, "Roles"))
		if r.changed("PolicyName") {
			left = texts(r.Old, "Roles")
		}
		return dropPolicy(ctx, r, text(r.Old, "PolicyName"), left)
	},
	Mutable: []string{"PolicyDocument", "PolicyName", "Roles"},
	Remove: func(ctx context.Context, r *Request) error {
		return dropPolicy(ctx, r, text(r.Properties, "PolicyName"), texts(r.Properties, "Roles"))
	},
	Attributes: idAttribute("Id"),
	Refuse: func(p map[string]any) (string, string) {
		if _, ok := p["Roles"]; !ok {
			return "PolicyName", "the local region puts policies on roles only: Roles is missing"
		}
		return "", ""
	},
}

func putPolicy(ctx context.Context, r *Request) error {
	for _, n := range texts(r.Properties, "Roles") {
		if err := do(ctx, r, "iam", "PutRolePolicy", &iamapi.PutRolePolicyRequest{RoleName: n, PolicyName: text(r.Properties, "PolicyName"), PolicyDocument: text(r.Properties, "PolicyDocument")}); err != nil {
			return err
		}
	}
	return nil
}

func dropPolicy(ctx context.Context, r *Request, name string, roles []string) error {
	for _, n := range roles {
		if err := gone(do(ctx, r, "iam", "DeleteRolePolicy", &iamapi.DeleteRolePolicyRequest{RoleName: n, PolicyName: name})); err != nil {
			return err
		}
	}
	return nil
}

var managedPolicy = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		path := text(r.Properties, "Path")
		if path == "" {
			path = "/"
		}
		arn := "arn:aws:iam::" + r.Account + ":policy" + path + r.custom("ManagedPolicyName", 128)
		out, err := call[iamapi.GetPolicyResponse](ctx, r, "iam", "GetPolicy", &iamapi.GetPolicyRequest{PolicyArn: arn})
		if err != nil || !r.owns(out.Policy.Tags) {
			return "", gone(err)
		}
		return arn, nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		in := &iamapi.CreatePolicyRequest{PolicyName: r.custom("ManagedPolicyName", 128), Tags: iamTags(r.tags())}
		if err := fill(in, r.Properties, "ManagedPolicyName", "Roles"); err != nil {
			return "", err
		}
		out, err := call[iamapi.CreatePolicyResponse](ctx, r, "iam", "CreatePolicy", in)
		if err != nil {
			return "", err
		}
		return out.Policy.Arn, nil
	},
	Configure: policyRoles,
	Update:    policyRoles,
	Mutable:   []string{"Roles"},
	Remove: func(ctx context.Context, r *Request) error {
		empty := *r
		empty.Old, empty.Properties = r.Properties, map[string]any{}
		if err := policyRoles(ctx, &empty); err != nil {
			return err
		}
		return gone(do(ctx, r, "iam", "DeletePolicy", &iamapi.DeletePolicyRequest{PolicyArn: r.ID}))
	},
	Attributes: func(ctx context.Context, r *Request) (map[string]any, error) {
		out, err := call[iamapi.GetPolicyResponse](ctx, r, "iam", "GetPolicy", &iamapi.GetPolicyRequest{PolicyArn: r.ID})
		if err != nil {
			return nil, err
		}
		a := map[string]any{"PolicyArn": r.ID, "PolicyId": out.Policy.PolicyId, "DefaultVersionId": out.Policy.DefaultVersionId}
		if out.Policy.AttachmentCount != nil {
			a["AttachmentCount"] = *out.Policy.AttachmentCount
		}
		return a, nil
	},
	Named: "ManagedPolicyName",
}

func policyRoles(ctx context.Context, r *Request) error {
	add, remove := difference(texts(r.Properties, "Roles"), texts(r.Old, "Roles"))
	for _, n := range add {
		if err := do(ctx, r, "iam", "AttachRolePolicy", &iamapi.AttachRolePolicyRequest{RoleName: n, PolicyArn: r.ID}); err != nil {
			return err
		}
	}
	for _, n := range remove {
		if err := gone(do(ctx, r, "iam", "DetachRolePolicy", &iamapi.DetachRolePolicyRequest{RoleName: n, PolicyArn: r.ID})); err != nil {
			return err
		}
	}
	return nil
}

// A parameter's tags cannot be asked for, so an interrupted creation is known
// by its value: the same value under the same name is what was to be.
var parameter = &Provider{
	Find: func(ctx context.Context, r *Request) (string, error) {
		name := r.custom("Name", 1011)
		out, err := call[ssmapi.GetParameterResult](ctx, r, "ssm", "GetParameter", &ssmapi.GetParameterRequest{Name: name})
		if err != nil || out.Parameter.Value != text(r.Properties, "Value") {
			return "", gone(err)
		}
		return name, nil
	},
	Create: func(ctx context.Context, r *Request) (string, error) {
		name := r.custom("Name", 1011)
		return name, putParameter(ctx, r, name, false)
	},
	Update:   func(ctx context.Context, r *Request) error { return putParameter(ctx, r, r.ID, true) },
	Mutable:  []string{"AllowedPattern", "DataType", "Description", "Tier", "Type", "Value"},
	Volatile: []string{"Type", "Value"},
	Remove: func(ctx context.Context, r *Request) error {
		return gone(do(ctx, r, "ssm", "DeleteParameter", &ssmapi.DeleteParameterRequest{Name: r.ID}))
	},
	Attributes: func(ctx context.Context, r *Request) (map[string]any, error) {
		out, err := call[ssmapi.GetParameterResult](ctx, r, "ssm", "GetParameter", &ssmapi.GetParameterRequest{Name: r.ID})
		if err != nil {
			return nil, err
		}
		return map[string]any{"Type": out.Parameter.Type, "Value": out.Parameter.Value, "Arn": out.Parameter.ARN}, nil
	},
	Named: "Name",
}

func putParameter(ctx context.Context, r *Request, name string, overwrite bool) error {
	in := &ssmapi.PutParameterRequest{Overwrite: &overwrite}
	if err := fill(in, r.Properties, "Name", "Tags"); err != nil {
		return err
	}
	in.Name = name
	if !overwrite { // AWS takes tags in the first call only
		tags := r.tags()
		for _, k := range slices.Sorted(maps.Keys(tags)) {
			in.Tags = append(in.Tags, &ssmapi.Tag{Key: k, Value: tags[k]})
		}
	}
	return do(ctx, r, "ssm", "PutParameter", in)
}
