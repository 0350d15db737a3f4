// Package policy parses IAM policy documents and decides by them. It must not
// know who has which policy, nor any service or operation.
package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// MaxSize is the length that a document may have.
const MaxSize = 20 << 10

// Document is a parsed policy.
type Document struct {
	Version    string
	Statements []Statement
}

// Statement is one rule of a policy.
type Statement struct {
	Sid          string
	Deny         bool
	Actions      []string
	NotActions   []string
	Resources    []string
	NotResources []string
	Principals   map[string][]string // by type: AWS, Service, Federated; "*" for everyone
	Conditions   []condition
}

// list is a string or a list of strings (or of booleans and numbers, in conditions).
type list []string

func (l *list) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return err
	}
	vs, ok := v.([]any)
	if !ok {
		vs = []any{v}
	}
	*l = list{}
	for _, v := range vs {
		switch v := v.(type) {
		case string:
			*l = append(*l, v)
		case json.Number:
			*l = append(*l, v.String())
		case bool:
			*l = append(*l, fmt.Sprint(v))
		default:
			return errors.New("expected a string or a list of strings")
		}
	}
	return nil
}

type rawStatement struct {
	Sid          string
	Effect       string
	Action       list
	NotAction    list
	Resource     list
	NotResource  list
	Principal    json.RawMessage
	NotPrincipal json.RawMessage
	Condition    map[string]map[string]list
}

// Parse reads an identity policy: actions and resources, no principals.
func Parse(text string) (*Document, error) {
	d, err := parse(text)
	if err != nil {
		return nil, err
	}
	for i, s := range d.Statements {
		if s.Principals != nil {
			return nil, fmt.Errorf("statement %d: a policy of a role must not have a Principal", i+1)
		}
		if len(s.Resources) == 0 && len(s.NotResources) == 0 {
			return nil, fmt.Errorf("statement %d: Resource is missing", i+1)
		}
		for _, r := range slices.Concat(s.Resources, s.NotResources) {
			if r != "*" && !strings.HasPrefix(r, "arn:") && !strings.HasPrefix(r, "*") {
				return nil, fmt.Errorf("statement %d: Resource %s must be an ARN or *", i+1, r)
			}
		}
	}
	return d, nil
}

// ParseTrust reads a role's trust policy: principals and actions, no resources.
func ParseTrust(text string) (*Document, error) {
	d, err := parse(text)
	if err != nil {
		return nil, err
	}
	for i, s := range d.Statements {
		if s.Principals == nil {
			return nil, fmt.Errorf("statement %d: Principal is missing", i+1)
		}
		if len(s.Resources)+len(s.NotResources) > 0 {
			return nil, fmt.Errorf("statement %d: a trust policy must not have a Resource", i+1)
		}
		for _, a := range slices.Concat(s.Actions, s.NotActions) {
			if a != "*" && !strings.HasPrefix(strings.ToLower(a), "sts:") {
				return nil, fmt.Errorf("statement %d: a trust policy may only have actions of sts", i+1)
			}
		}
	}
	return d, nil
}

func parse(text string) (*Document, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("the policy has more than %d bytes", MaxSize)
	}
	var raw struct {
		Version   string
		ID        string `json:"Id"`
		Statement json.RawMessage
	}
	if err := strict([]byte(text), &raw); err != nil {
		return nil, err
	}
	if raw.Version != "" && raw.Version != "2012-10-17" && raw.Version != "2008-10-17" {
		return nil, fmt.Errorf("the Version %s is not one of 2012-10-17 and 2008-10-17", raw.Version)
	}
	var sts []rawStatement
	if b := bytes.TrimSpace(raw.Statement); len(b) > 0 && b[0] == '{' {
		sts = make([]rawStatement, 1)
		if err := strict(b, &sts[0]); err != nil {
			return nil, err
		}
	} else if err := strict(b, &sts); err != nil {
		return nil, err
	}
	if len(sts) == 0 {
		return nil, errors.New("Statement is missing")
	}
	d := &Document{Version: raw.Version}
	for i, r := range sts {
		s, err := r.statement()
		if err != nil {
			return nil, fmt.Errorf("statement %d: %w", i+1, err)
		}
		d.Statements = append(d.Statements, s)
	}
	return d, nil
}

func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("Statement is missing")
		}
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the end of the JSON value")
	}
	return nil
}

func (r rawStatement) statement() (Statement, error) {
	s := Statement{Sid: r.Sid, Actions: r.Action, NotActions: r.NotAction, Resources: r.Resource, NotResources: r.NotResource}
	switch r.Effect {
	case "Allow":
	case "Deny":
		s.Deny = true
	default:
		return s, fmt.Errorf("Effect must be Allow or Deny, not %q", r.Effect)
	}
	if (len(s.Actions) > 0) == (len(s.NotActions) > 0) {
		return s, errors.New("exactly one of Action and NotAction must be given")
	}
	if len(s.Resources) > 0 && len(s.NotResources) > 0 {
		return s, errors.New("only one of Resource and NotResource may be given")
	}
	for _, a := range slices.Concat(s.Actions, s.NotActions) {
		if svc, name, ok := strings.Cut(a, ":"); a != "*" && (!ok || svc == "" || name == "") {
			return s, fmt.Errorf("the action %q must have the form service:Name", a)
		}
	}
	if r.NotPrincipal != nil {
		return s, errors.New("NotPrincipal is not supported by the local region")
	}
	if r.Principal != nil {
		s.Principals = map[string][]string{}
		var all string
		if json.Unmarshal(r.Principal, &all) == nil {
			if all != "*" {
				return s, errors.New("Principal must be * or an object")
			}
			s.Principals["AWS"] = []string{"*"}
		} else {
			var m map[string]list
			if err := json.Unmarshal(r.Principal, &m); err != nil {
				return s, fmt.Errorf("Principal: %w", err)
			}
			for k, v := range m {
				if !slices.Contains([]string{"AWS", "Service", "Federated", "CanonicalUser"}, k) {
					return s, fmt.Errorf("Principal has the unknown type %s", k)
				}
				s.Principals[k] = v
			}
		}
	}
	for op, keys := range r.Condition {
		for key, vals := range keys {
			s.Conditions = append(s.Conditions, newCondition(op, key, vals))
		}
	}
	return s, nil
}
