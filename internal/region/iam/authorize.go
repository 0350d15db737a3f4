package iam

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/iam/policy"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// limits are the session policies of AssumeRole.
type limits struct {
	Policy string   `json:"p,omitempty"`
	ARNs   []string `json:"a,omitempty"`
}

// rights are the policies that count for a role: each set must allow.
type rights [][]*policy.Document

func (s *Service) rightsOf(name, limit string) (rights, bool) {
	var out rights
	var ok bool
	s.db.View(func(tx *state.Tx) {
		var r role
		if r, ok = s.roles.Get(tx, name); !ok {
			return
		}
		var docs []*policy.Document
		for _, text := range r.Inline {
			docs = appendDoc(docs, text)
		}
		for _, arn := range r.Attached {
			if m, found := s.findPolicy(tx, arn); found {
				docs = appendDoc(docs, m.Document)
			}
		}
		out = append(out, docs)
		if r.Boundary != "" {
			m, _ := s.findPolicy(tx, r.Boundary)
			out = append(out, appendDoc(nil, m.Document))
		}
		if limit != "" {
			var l limits
			var docs []*policy.Document
			if json.Unmarshal([]byte(limit), &l) == nil { // else nothing is allowed
				if l.Policy != "" {
					docs = appendDoc(docs, l.Policy)
				}
				for _, arn := range l.ARNs {
					m, _ := s.findPolicy(tx, arn)
					docs = appendDoc(docs, m.Document)
				}
			}
			out = append(out, docs)
		}
	})
	return out, ok
}

// appendDoc leaves out what does not parse: nothing enters the tables
// unparsed, and a missing document allows nothing.
func appendDoc(docs []*policy.Document, text string) []*policy.Document {
	if d, err := policy.Parse(text); err == nil {
		docs = append(docs, d)
	}
	return docs
}

func (r rights) decide(req policy.Request) policy.Decision {
	out := policy.Allow
	for _, docs := range r {
		switch policy.Decide(docs, req) {
		case policy.ExplicitDeny:
			return policy.ExplicitDeny
		case policy.ImplicitDeny:
			out = policy.ImplicitDeny
		}
	}
	return out
}

// Authorize implements wire.Authorizer: the account's root may do everything,
// a role what its policies allow, nobody else anything.
func (s *Service) Authorize(_ context.Context, c wire.Caller, service, action string, resources []string, conditions map[string]string) error {
	if c.ARN == s.rootARN() {
		return nil
	}
	var r rights
	if c.Role != "" {
		r, _ = s.rightsOf(c.Role, c.Limits)
	}
	ctx := maps.Clone(conditions)
	if ctx == nil {
		ctx = map[string]string{}
	}
	ctx["aws:PrincipalAccount"] = s.cfg.Account
	ctx["aws:PrincipalType"] = "AssumedRole"
	ctx["aws:PrincipalArn"] = s.roleARN(c.Role)
	ctx["aws:userid"] = s.UserID(c)
	if len(resources) == 0 {
		resources = []string{"*"}
	}
	full := service + ":" + action
	for _, res := range resources {
		d := policy.ImplicitDeny
		if len(r) > 0 {
			d = r.decide(policy.Request{Action: full, Resource: res, Context: ctx})
		}
		if d == policy.Allow {
			continue
		}
		why := fmt.Sprintf("because no identity-based policy allows the %s action", full)
		if d == policy.ExplicitDeny {
			why = "with an explicit deny in an identity-based policy"
		}
		return &wire.Error{Code: "AccessDenied", Status: http.StatusForbidden, Message: fmt.Sprintf("User: %s is not authorized to perform: %s on resource: %s %s", c.ARN, full, res, why)}
	}
	return nil
}

func (s *Service) roleARN(name string) string {
	var r role
	s.db.View(func(tx *state.Tx) { r, _ = s.roles.Get(tx, name) })
	return r.ARN
}

// RoleAllows tells whether the role of an instance profile may do the action
// (such as ssm:UpdateInstanceInformation) on the resource.
func (s *Service) RoleAllows(_ context.Context, profileNameOrARN, action, resource string) bool {
	r, err := s.profileRole(profileNameOrARN)
	if err != nil {
		return false
	}
	rs, ok := s.rightsOf(r.Name, "")
	ctx := map[string]string{"aws:PrincipalArn": r.ARN, "aws:PrincipalAccount": s.cfg.Account, "aws:RequestedRegion": s.cfg.Region, "aws:PrincipalType": "AssumedRole"}
	return ok && rs.decide(policy.Request{Action: action, Resource: resource, Context: ctx}) == policy.Allow
}

// trusts tells whether a role may be assumed by a principal, which has several names.
func trusts(r role, kind string, ctx map[string]string, names ...string) bool {
	d, err := policy.ParseTrust(r.Trust)
	if err != nil {
		return false
	}
	return policy.Decide([]*policy.Document{d}, policy.Request{Action: "sts:AssumeRole", Context: ctx, PrincipalType: kind, Principals: names}) == policy.Allow
}

// UserID is the unique id of a caller, as GetCallerIdentity tells it.
func (s *Service) UserID(c wire.Caller) string {
	if c.Role == "" {
		return c.Account
	}
	var r role
	s.db.View(func(tx *state.Tx) { r, _ = s.roles.Get(tx, c.Role) })
	return strings.TrimSuffix(r.ID+":"+c.Session, ":")
}
