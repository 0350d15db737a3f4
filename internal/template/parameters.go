package template

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Parameter is an entry of Parameters.
type Parameter struct {
	Name, Type, Description string
	At                      Pos
	Default                 *string
	NoEcho                  bool
	AllowedValues           []string
	AllowedPattern          string
	Constraint              string // ConstraintDescription
	MinLength, MaxLength    *int
	MinValue, MaxValue      *float64

	pattern *regexp.Regexp
}

var parameterKeys = []string{"Type", "Default", "Description", "NoEcho", "AllowedValues", "AllowedPattern", "ConstraintDescription", "MinLength", "MaxLength", "MinValue", "MaxValue"}

var awsParameterTypes = []string{
	"AWS::EC2::AvailabilityZone::Name", "AWS::EC2::Image::Id", "AWS::EC2::Instance::Id", "AWS::EC2::KeyPair::KeyName",
	"AWS::EC2::SecurityGroup::GroupName", "AWS::EC2::SecurityGroup::Id", "AWS::EC2::Subnet::Id", "AWS::EC2::Volume::Id",
	"AWS::EC2::VPC::Id", "AWS::Route53::HostedZone::Id",
}

const ssmValue = "AWS::SSM::Parameter::Value<"

// base strips an SSM reference: what the value is in the end.
func (p *Parameter) base() string {
	if s, ok := strings.CutPrefix(p.Type, ssmValue); ok {
		return strings.TrimSuffix(s, ">")
	}
	return p.Type
}

// SSM tells whether the parameter's value is the name of an SSM parameter.
func (p *Parameter) SSM() bool { return strings.HasPrefix(p.Type, ssmValue) }

// List tells whether a Ref to the parameter is a list.
func (p *Parameter) List() bool {
	return p.base() == "CommaDelimitedList" || strings.HasPrefix(p.base(), "List<")
}

func (p *Parameter) number() bool { return p.base() == "Number" || p.base() == "List<Number>" }

func knownType(t string) bool {
	if s, ok := strings.CutPrefix(t, ssmValue); ok {
		t = strings.TrimSuffix(s, ">")
		return strings.HasSuffix(s, ">") && t != "Number" && knownType(t) && !strings.HasPrefix(t, "AWS::SSM")
	}
	switch t {
	case "String", "Number", "List<Number>", "List<String>", "CommaDelimitedList", "AWS::SSM::Parameter::Name":
		return true
	}
	if s, ok := strings.CutPrefix(t, "List<"); ok {
		t = strings.TrimSuffix(s, ">")
	}
	return slices.Contains(awsParameterTypes, t)
}

func (r *reader) parameter(pair Pair) {
	p := &Parameter{Name: pair.Key, At: pair.At}
	n := pair.Value
	t := n.Get("Type")
	if n.Kind != Map || t == nil || t.Kind != String {
		r.problem(pair.At, "", "Template format error: Every Parameters object must contain a Type member.")
		return
	}
	p.Type = t.Text
	r.t.Parameters = append(r.t.Parameters, p)
	r.known(n, "parameter "+p.Name, parameterKeys)
	if !knownType(p.Type) {
		words := append([]string{"String", "Number", "List<Number>", "CommaDelimitedList", ssmValue + "String>"}, awsParameterTypes...)
		r.problem(t.Pos, didYouMean(p.Type, words), "Template format error: Unrecognized parameter type: %s", p.Type)
		return
	}
	str := func(key string) string {
		v := n.Get(key)
		if v == nil {
			return ""
		}
		if !v.Scalar() {
			r.problem(v.Pos, "", "Template format error: %s of parameter %s must be a string, not %s", key, p.Name, v.Kind)
		}
		return v.Text
	}
	p.Description, p.Constraint, p.AllowedPattern = str("Description"), str("ConstraintDescription"), str("AllowedPattern")
	p.NoEcho = strings.EqualFold(str("NoEcho"), "true")
	length := func(key string) *int {
		if n.Get(key) == nil {
			return nil
		}
		i, err := strconv.Atoi(str(key))
		if err != nil || i < 0 {
			r.problem(n.Get(key).Pos, "", "Template format error: %s of parameter %s must be a number", key, p.Name)
			return nil
		}
		return &i
	}
	p.MinLength, p.MaxLength = length("MinLength"), length("MaxLength")
	bound := func(key string) *float64 {
		if n.Get(key) == nil {
			return nil
		}
		f, err := strconv.ParseFloat(str(key), 64)
		if err != nil || math.IsNaN(f) {
			r.problem(n.Get(key).Pos, "", "Template format error: %s of parameter %s must be a number", key, p.Name)
			return nil
		}
		return &f
	}
	p.MinValue, p.MaxValue = bound("MinValue"), bound("MaxValue")
	if a := n.Get("AllowedValues"); a != nil {
		if a.Kind != List {
			r.problem(a.Pos, "", "Template format error: AllowedValues of parameter %s must be a list, not %s", p.Name, a.Kind)
		}
		for _, v := range a.Items {
			p.AllowedValues = append(p.AllowedValues, v.Text)
		}
	}
	if p.AllowedPattern != "" {
		re, err := regexp.Compile(`^(?:` + p.AllowedPattern + `)$`)
		if err != nil {
			r.local(n.Get("AllowedPattern").Pos, "look-around and back references are not there", "the local region cannot read the pattern of parameter %s: %v", p.Name, err)
		}
		p.pattern = re
	}
	if d := n.Get("Default"); d != nil {
		if !d.Scalar() {
			r.problem(d.Pos, "", "Template format error: Every Default member must be a string.")
			return
		}
		p.Default = &d.Text
		if !p.SSM() {
			if msg := p.check(d.Text); msg != "" {
				r.problem(d.Pos, "", "%s", msg)
			}
		}
	}
}

// check tells what is wrong with a value, in CloudFormation's words.
func (p *Parameter) check(v string) string {
	values := []string{v}
	if p.List() {
		values = splitList(v)
	}
	for _, v := range values {
		if msg := p.checkOne(v); msg != "" {
			if p.Constraint != "" {
				return fmt.Sprintf("Parameter %s failed to satisfy constraint: %s", p.Name, p.Constraint)
			}
			return msg
		}
	}
	return ""
}

func (p *Parameter) checkOne(v string) string {
	if p.number() {
		f, err := strconv.ParseFloat(v, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Sprintf("Parameter '%s' must be a number", p.Name)
		}
		if p.MinValue != nil && f < *p.MinValue {
			return fmt.Sprintf("Parameter '%s' must be a number not less than %s", p.Name, decimal(*p.MinValue))
		}
		if p.MaxValue != nil && f > *p.MaxValue {
			return fmt.Sprintf("Parameter '%s' must be a number not greater than %s", p.Name, decimal(*p.MaxValue))
		}
	}
	if n := len([]rune(v)); p.MinLength != nil && n < *p.MinLength {
		return fmt.Sprintf("Parameter '%s' must contain at least %d characters", p.Name, *p.MinLength)
	} else if p.MaxLength != nil && n > *p.MaxLength {
		return fmt.Sprintf("Parameter '%s' must contain at most %d characters", p.Name, *p.MaxLength)
	}
	if p.pattern != nil && !p.pattern.MatchString(v) {
		return fmt.Sprintf("Parameter '%s' must match pattern %s", p.Name, p.AllowedPattern)
	}
	if len(p.AllowedValues) > 0 && !slices.Contains(p.AllowedValues, v) {
		return fmt.Sprintf("Parameter '%s' must be one of AllowedValues", p.Name)
	}
	return ""
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func splitList(v string) []string {
	if v == "" {
		return []string{}
	}
	out := strings.Split(v, ",")
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	return out
}

// Values are the parameters' values by name, as they were given; for an SSM
// parameter its name.
type Values map[string]string

// Resolve takes the given values, adds defaults, and checks all of them.
// lookup reads an SSM parameter; nil leaves their values unknown. resolved
// holds what SSM parameters stand for.
func (t *Template) Resolve(given Values, lookup func(name string) (string, error)) (all, resolved Values, problems []Problem) {
	all, resolved = Values{}, Values{}
	names := make([]string, len(t.Parameters))
	var missing []string
	var at Pos
	for i, p := range t.Parameters {
		names[i] = p.Name
		v, ok := given[p.Name]
		if !ok && p.Default != nil {
			v, ok = *p.Default, true
		}
		if !ok {
			if missing = append(missing, p.Name); len(missing) == 1 {
				at = p.At
			}
			continue
		}
		all[p.Name] = v
		if p.SSM() {
			if lookup == nil {
				continue
			}
			r, err := lookup(v)
			if err != nil {
				problems = append(problems, t.problem(p.At, "", "Unable to fetch parameters [%s] from parameter store for this account.", v))
				continue
			}
			resolved[p.Name], v = r, r
		}
		if msg := p.check(v); msg != "" {
			problems = append(problems, t.problem(p.At, "", "%s", msg))
		}
	}
	if len(missing) > 0 {
		problems = append(problems, t.problem(at, "", "Parameters: [%s] must have values", strings.Join(missing, ", ")))
	}
	for _, name := range sortedKeys(given) {
		if !slices.Contains(names, name) {
			problems = append(problems, t.problem(Pos{}, didYouMean(name, names), "Parameters: [%s] do not exist in the template", name))
		}
	}
	return all, resolved, problems
}
