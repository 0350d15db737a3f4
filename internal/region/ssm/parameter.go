package ssm

import (
	"context"
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/dayfly-infra/dayfly/internal/region/api/ssmapi"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const (
	mostParameters = 10000
	mostVersions   = 100
	mostStandard   = 4 << 10
	mostAdvanced   = 8 << 10
	mostLevels     = 15
	mostName       = 1011
	sealKey        = "alias/aws/ssm"
)

// parameter is the record of a parameter, by name.
type parameter struct {
	Name, Type, Description, Pattern, DataType, Tier string
	Public                                           bool
	User                                             string
	Tags                                             map[string]string
	Versions                                         []version // oldest first
}

// version is one value; that of a SecureString is sealed.
type version struct {
	N      int64
	Value  string
	Sealed bool
	At     time.Time
}

func (p *parameter) last() version { return p.Versions[len(p.Versions)-1] }

var parameterName = regexp.MustCompile(`^[A-Za-z0-9_.\-/]+$`)

// checkName refuses names that AWS refuses to users.
func checkName(name string) error {
	switch {
	case len(name) > mostName || !parameterName.MatchString(name):
		return invalid("Parameter name: can't be empty or longer than 1011, and only a mix of letters, numbers and the following 4 symbols .-_/ is allowed: '%s'", name)
	case strings.Contains(name, "/") && name[0] != '/':
		return invalid("Parameter name must be a fully qualified name: it must begin with '/' when it holds one.")
	case strings.Contains(name, "//") || strings.HasSuffix(name, "/"):
		return invalid("Parameter name '%s' has an empty level.", name)
	case strings.Count(name, "/") > mostLevels:
		return wire.Errorf("HierarchyLevelLimitExceededException", "A hierarchy can have a maximum of %d levels.", mostLevels)
	}
	first, _, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(name, "/")), "/")
	if strings.HasPrefix(first, "aws") {
		return wire.Errorf("AccessDeniedException", "No access to reserved parameter name: %s.", name)
	}
	if strings.HasPrefix(first, "ssm") {
		return invalid("Parameter name: can't be prefixed with \"ssm\" (case-insensitive). If formed as a path, it can consist of sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and the following 3 symbols .-_")
	}
	return nil
}

// PutParameter makes a parameter, or a new version of one with Overwrite.
func (s *Service) PutParameter(ctx context.Context, in *api.PutParameterRequest) (*api.PutParameterResult, error) {
	if err := checkName(in.Name); err != nil {
		return nil, err
	}
	caller, _ := wire.CallerFrom(ctx)
	overwrite := in.Overwrite != nil && *in.Overwrite
	tier := in.Tier
	if tier == "" {
		tier = "Standard"
	}
	most := mostAdvanced
	if tier == "Standard" {
		most = mostStandard
	}
	switch {
	case in.Policies != "" && in.Policies != "[]" && in.Policies != "{}":
		return nil, wire.Unrealised("parameter policies")
	case !slices.Contains([]string{"", "String", "StringList", "SecureString"}, in.Type):
		return nil, wire.Errorf("UnsupportedParameterType", "The parameter type %s isn't supported.", in.Type)
	case in.DataType != "" && in.DataType != "text":
		return nil, wire.Unrealised("parameters of data type " + in.DataType)
	case in.Value == "":
		return nil, invalid("1 validation error detected: Value at 'value' failed to satisfy constraint: Member must have length greater than or equal to 1.")
	case len(in.Value) > most:
		return nil, invalid("%s tier parameters support a maximum parameter value of %d characters.", tier, most)
	case len(in.Description) > 1024 || len(in.AllowedPattern) > 1024:
		return nil, invalid("Description and AllowedPattern may have 1024 characters.")
	case overwrite && len(in.Tags) > 0:
		return nil, invalid("Invalid request: tags and overwrite can't be used together. To create a parameter with tags, please remove overwrite flag.")
	case len(in.Tags) > 50:
		return nil, wire.Errorf("TooManyTagsError", "A parameter may have 50 tags.")
	case in.KeyId != "" && in.KeyId != sealKey:
		return nil, wire.Errorf("InvalidKeyId", "The local region has the key %s alone.", sealKey)
	}
	if in.AllowedPattern != "" {
		re, err := regexp.Compile("^(?:" + in.AllowedPattern + ")$")
		if err != nil {
			return nil, wire.Errorf("InvalidAllowedPatternException", "The pattern '%s' is not valid: %s", in.AllowedPattern, err)
		}
		if !re.MatchString(in.Value) {
			return nil, wire.Errorf("ParameterPatternMismatchException", "Parameter value, cannot be validated against allowedPattern: %s", in.AllowedPattern)
		}
	}
	tags := map[string]string{}
	for _, t := range in.Tags {
		if strings.HasPrefix(strings.ToLower(t.Key), "aws:") && caller.Service == "" {
			return nil, invalid("aws: prefixed tag key names are not allowed for external use.")
		}
		tags[t.Key] = t.Value
	}
	out := &api.PutParameterResult{Tier: tier}
	err := s.c.DB.Update(func(tx *state.Tx) error {
		p, ok := s.parameters.Get(tx, in.Name)
		switch {
		case ok && !overwrite:
			return wire.Errorf("ParameterAlreadyExists", "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.")
		case !ok && in.Type == "":
			return invalid("A parameter type is required when you create a parameter.")
		case !ok && s.parameters.Len(tx) >= mostParameters:
			return wire.Errorf("ParameterLimitExceeded", "The number of parameters must not exceed %d.", mostParameters)
		case !ok:
			p = parameter{Name: in.Name, Type: in.Type, Tags: tags}
		case in.Type != "" && in.Type != p.Type && (in.Type == "SecureString") != (p.Type == "SecureString"):
			return wire.Errorf("HierarchyTypeMismatchException", "Parameter Store doesn't support changing a parameter type in a hierarchy. For example, you can't change a parameter from a String type to a SecureString type. You must create a new, unique parameter.")
		case in.Type != "":
			p.Type = in.Type
		}
		p.Description, p.Pattern, p.DataType, p.Tier, p.User = in.Description, in.AllowedPattern, "text", tier, caller.ARN
		v, err := s.sealed(p.Name, p.Type, in.Value)
		if err != nil {
			return err
		}
		s.add(&p, v)
		out.Version = new(p.last().N)
		s.parameters.Put(tx, p.Name, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// add appends a version and forgets the oldest beyond the limit.
func (s *Service) add(p *parameter, v version) {
	v.N, v.At = 1, s.now()
	if len(p.Versions) > 0 {
		v.N = p.last().N + 1
	}
	p.Versions = append(slices.Clone(p.Versions), v)
	if n := len(p.Versions); n > mostVersions {
		p.Versions = p.Versions[n-mostVersions:]
	}
}

func (s *Service) sealed(name, kind, value string) (version, error) {
	if kind != "SecureString" {
		return version{Value: value}, nil
	}
	if s.seal == nil {
		return version{}, wire.Unrealised("SecureString parameters without a key file")
	}
	nonce := make([]byte, s.seal.NonceSize())
	s.ids.Fill(nonce)
	// The name is bound to the value: one parameter's bytes are no other's.
	return version{Value: base64.StdEncoding.EncodeToString(s.seal.Seal(nonce, nonce, []byte(value), []byte(name))), Sealed: true}, nil
}

func (s *Service) reveal(name string, v version) (string, error) {
	if !v.Sealed {
		return v.Value, nil
	}
	raw, err := base64.StdEncoding.DecodeString(v.Value)
	if err != nil || s.seal == nil || len(raw) < s.seal.NonceSize() {
		return "", wire.Errorf("InvalidKeyId", "The value of %s cannot be decrypted: the region's key file is missing or another one.", name)
	}
	n := s.seal.NonceSize()
	plain, err := s.seal.Open(nil, raw[:n], raw[n:], []byte(name))
	if err != nil {
		return "", wire.Errorf("InvalidKeyId", "The value of %s cannot be decrypted: the region's key file is another one.", name)
	}
	return string(plain), nil
}

// SetPublic sets a parameter that the region itself publishes below /aws.
func (s *Service) SetPublic(_ context.Context, name, value string) error {
	if !strings.HasPrefix(name, "/aws/") || len(name) > mostName || !parameterName.MatchString(name) || value == "" {
		return fmt.Errorf("ssm: %q is not the name of a public parameter, or has no value", name)
	}
	return s.c.DB.Update(func(tx *state.Tx) error {
		p, ok := s.parameters.Get(tx, name)
		if ok && p.last().Value == value {
			return nil
		}
		if !ok {
			p = parameter{Name: name, Type: "String", DataType: "text", Tier: "Standard", Public: true}
		}
		s.add(&p, version{Value: value})
		s.parameters.Put(tx, name, p)
		return nil
	})
}

func (s *Service) parameterARN(p parameter) string {
	account := s.c.Account
	if p.Public {
		account = ""
	}
	return "arn:aws:ssm:" + s.c.Region + ":" + account + ":parameter/" + strings.TrimPrefix(p.Name, "/")
}

func (s *Service) parameterOut(p parameter, v version, selector string, decrypt bool) (*api.Parameter, error) {
	out := &api.Parameter{ARN: s.parameterARN(p), Name: p.Name, Type: p.Type, DataType: p.DataType, LastModifiedDate: new(v.At), Version: new(v.N), Selector: selector, Value: v.Value}
	if decrypt {
		var err error
		if out.Value, err = s.reveal(p.Name, v); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// find reads "name" or "name:version".
func (s *Service) find(tx *state.Tx, ref string, decrypt bool) (*api.Parameter, error) {
	if strings.HasPrefix(ref, "arn:") { // …:parameter/a/b stands for /a/b, or for a
		_, rest, _ := strings.Cut(ref, ":parameter")
		if ref = rest; strings.Count(rest, "/") == 1 {
			if _, ok := s.parameters.Get(tx, rest); !ok {
				ref = strings.TrimPrefix(rest, "/")
			}
		}
	}
	name, sel, selected := strings.Cut(ref, ":")
	p, ok := s.parameters.Get(tx, name)
	if !ok {
		return nil, wire.Errorf("ParameterNotFound", "Parameter %s not found.", ref)
	}
	if !selected {
		return s.parameterOut(p, p.last(), "", decrypt)
	}
	n, err := strconv.ParseInt(sel, 10, 64)
	if err != nil {
		return nil, wire.Unrealised("parameter labels")
	}
	for _, v := range p.Versions {
		if v.N == n {
			return s.parameterOut(p, v, ":"+sel, decrypt)
		}
	}
	return nil, wire.Errorf("ParameterVersionNotFound", "Systems Manager could not find version %d of %s.", n, name)
}

func yes(b *bool) bool { return b != nil && *b }

// GetParameter reads a parameter.
func (s *Service) GetParameter(_ context.Context, in *api.GetParameterRequest) (*api.GetParameterResult, error) {
	var p *api.Parameter
	var err error
	s.c.DB.View(func(tx *state.Tx) { p, err = s.find(tx, in.Name, yes(in.WithDecryption)) })
	if err != nil {
		return nil, err
	}
	return &api.GetParameterResult{Parameter: p}, nil
}

// GetParameters reads up to ten; names that are not there are listed.
func (s *Service) GetParameters(_ context.Context, in *api.GetParametersRequest) (*api.GetParametersResult, error) {
	if len(in.Names) == 0 || len(in.Names) > 10 {
		return nil, invalid("Between 1 and 10 names are required.")
	}
	out := &api.GetParametersResult{Parameters: []*api.Parameter{}, InvalidParameters: []string{}}
	var err error
	s.c.DB.View(func(tx *state.Tx) {
		for _, name := range in.Names {
			p, e := s.find(tx, name, yes(in.WithDecryption))
			switch {
			case e == nil:
				out.Parameters = append(out.Parameters, p)
			case strings.HasPrefix(wire.CodeOf(e), "Parameter"):
				out.InvalidParameters = append(out.InvalidParameters, name)
			default:
				err = e
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// GetParametersByPath reads the parameters below a path.
func (s *Service) GetParametersByPath(_ context.Context, in *api.GetParametersByPathRequest) (*api.GetParametersByPathResult, error) {
	if !strings.HasPrefix(in.Path, "/") {
		return nil, invalid("The parameter doesn't meet the parameter name requirements. The parameter name must begin with a forward slash \"/\".")
	}
	filters := append(slices.Clone(in.ParameterFilters), &api.ParameterStringFilter{Key: "Path", Values: []string{in.Path}, Option: map[bool]string{true: "Recursive", false: "OneLevel"}[yes(in.Recursive)]})
	for _, f := range in.ParameterFilters {
		if f.Key != "Type" && f.Key != "KeyId" {
			return nil, wire.Errorf("InvalidFilterKey", "The following filter key is not valid: %s. Valid filter keys include: [Type, KeyId].", f.Key)
		}
	}
	list, err := s.filtered(filters)
	if err != nil {
		return nil, err
	}
	from, to, next, err := page(len(list), in.NextToken, in.MaxResults, 10, 10)
	if err != nil {
		return nil, err
	}
	out := &api.GetParametersByPathResult{Parameters: []*api.Parameter{}, NextToken: next}
	for _, p := range list[from:to] {
		o, err := s.parameterOut(p, p.last(), "", yes(in.WithDecryption))
		if err != nil {
			return nil, err
		}
		out.Parameters = append(out.Parameters, o)
	}
	return out, nil
}

func (s *Service) filtered(filters []*api.ParameterStringFilter) ([]parameter, error) {
	var list []parameter
	var err error
	s.c.DB.View(func(tx *state.Tx) {
		for _, p := range s.parameters.All(tx) {
			ok := true
			for _, f := range filters {
				hit, e := passes(p, f)
				if e != nil {
					err = e
					return
				}
				ok = ok && hit
			}
			if ok {
				list = append(list, p)
			}
		}
	})
	return list, err
}

func passes(p parameter, f *api.ParameterStringFilter) (bool, error) {
	var value string
	switch {
	case f.Key == "Path":
		return slices.ContainsFunc(f.Values, func(path string) bool {
			rest, below := strings.CutPrefix(p.Name, strings.TrimSuffix(path, "/")+"/")
			return below && (f.Option == "Recursive" || !strings.Contains(rest, "/"))
		}), nil
	case f.Key == "Name":
		value = p.Name
	case f.Key == "Type":
		value = p.Type
	case f.Key == "Tier":
		value = p.Tier
	case f.Key == "DataType":
		value = p.DataType
	case f.Key == "KeyId":
		if p.Type == "SecureString" {
			value = sealKey
		}
	case strings.HasPrefix(f.Key, "tag:"):
		v, ok := p.Tags[strings.TrimPrefix(f.Key, "tag:")]
		if !ok || len(f.Values) == 0 {
			return ok, nil
		}
		value = v
	default:
		return false, wire.Errorf("InvalidFilterKey", "The following filter key is not valid: %s. Valid filter keys include: [Path, Name, Type, KeyId, Tier, DataType].", f.Key)
	}
	test := func(a, b string) bool { return a == b }
	switch f.Option {
	case "", "Equals":
	case "BeginsWith":
		test = strings.HasPrefix
	case "Contains":
		test = strings.Contains
	default:
		return false, wire.Errorf("InvalidFilterOption", "The following filter option is not valid: %s. Valid options include: [BeginsWith, Equals, Contains].", f.Option)
	}
	return slices.ContainsFunc(f.Values, func(v string) bool {
		return test(value, v) || f.Key == "Name" && f.Option == "BeginsWith" && strings.HasPrefix(value, "/"+v)
	}), nil
}

// DescribeParameters lists parameters without their values; the public ones
// are not the account's.
func (s *Service) DescribeParameters(_ context.Context, in *api.DescribeParametersRequest) (*api.DescribeParametersResult, error) {
	if len(in.Filters) > 0 && len(in.ParameterFilters) > 0 {
		return nil, invalid("You can use either Filters or ParameterFilters in a single request.")
	}
	if in.Shared != nil && *in.Shared {
		return nil, wire.Unrealised("shared parameters")
	}
	filters := in.ParameterFilters
	for _, f := range in.Filters {
		filters = append(slices.Clone(filters), &api.ParameterStringFilter{Key: f.Key, Values: f.Values})
	}
	list, err := s.filtered(filters)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(p parameter) bool { return p.Public })
	from, to, next, err := page(len(list), in.NextToken, in.MaxResults, 10, 50)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeParametersResult{Parameters: []*api.ParameterMetadata{}, NextToken: next}
	for _, p := range list[from:to] {
		m := &api.ParameterMetadata{ARN: s.parameterARN(p), Name: p.Name, Type: p.Type, Description: p.Description, AllowedPattern: p.Pattern, DataType: p.DataType,
			Tier: p.Tier, LastModifiedDate: new(p.last().At), LastModifiedUser: p.User, Version: new(p.last().N)}
		if p.Type == "SecureString" {
			m.KeyId = sealKey
		}
		out.Parameters = append(out.Parameters, m)
	}
	return out, nil
}

// DeleteParameter deletes a parameter of the account.
func (s *Service) DeleteParameter(_ context.Context, in *api.DeleteParameterRequest) (*api.DeleteParameterResult, error) {
	err := s.c.DB.Update(func(tx *state.Tx) error {
		p, ok := s.parameters.Get(tx, in.Name)
		switch {
		case !ok:
			return wire.Errorf("ParameterNotFound", "Parameter %s not found.", in.Name)
		case p.Public:
			return wire.Errorf("AccessDeniedException", "No access to reserved parameter name: %s.", in.Name)
		}
		s.parameters.Delete(tx, in.Name)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteParameterResult{}, nil
}
