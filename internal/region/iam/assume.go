package iam

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/stsapi"
	"github.com/dayfly-infra/dayfly/internal/region/iam/policy"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

var sessionForm = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)

// AssumeRole gives a role's credentials to a caller that the role trusts. A
// trust policy that names the caller itself is enough; one that names the
// account leaves it to the caller's own policies, as on AWS.
func (s *Service) AssumeRole(ctx context.Context, in *stsapi.AssumeRoleRequest) (*stsapi.AssumeRoleResponse, error) {
	c, ok := wire.CallerFrom(ctx)
	if !ok {
		return nil, fmt.Errorf("AssumeRole of %s without a caller", in.RoleArn)
	}
	if !sessionForm.MatchString(in.RoleSessionName) {
		return nil, wire.Errorf("ValidationError", "1 validation error detected: Value '%s' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*", in.RoleSessionName)
	}
	if len(in.Tags)+len(in.TransitiveTagKeys)+len(in.ProvidedContexts) > 0 || in.SourceIdentity != "" || in.SerialNumber != "" || in.TokenCode != "" {
		return nil, &wire.Error{Code: "NotImplemented", Message: "the local region's AssumeRole has no session tags, source identity, contexts and MFA", Status: http.StatusNotImplemented}
	}
	var r role
	s.db.View(func(tx *state.Tx) {
		_, name, _ := strings.Cut(in.RoleArn, ":role/")
		r, ok = s.roles.Get(tx, name[strings.LastIndexByte(name, '/')+1:])
	})
	ok = ok && r.ARN == in.RoleArn
	cond := map[string]string{"aws:PrincipalAccount": s.cfg.Account, "aws:PrincipalArn": c.ARN}
	if c.Role != "" {
		cond["aws:PrincipalArn"] = s.roleARN(c.Role)
	}
	if in.ExternalId != "" {
		cond["sts:ExternalId"] = in.ExternalId
	}
	switch {
	case ok && c.ARN != s.rootARN() && trusts(r, "AWS", cond, c.ARN, s.roleARN(c.Role)):
	case ok && trusts(r, "AWS", cond, s.rootARN(), s.cfg.Account, c.ARN):
		if err := s.Authorize(ctx, c, "sts", "AssumeRole", []string{in.RoleArn}, nil); err != nil {
			return nil, err
		}
	default: // whether the role exists is nobody's business
		return nil, &wire.Error{Code: "AccessDenied", Status: http.StatusForbidden, Message: fmt.Sprintf("User: %s is not authorized to perform: sts:AssumeRole on resource: %s", c.ARN, in.RoleArn)}
	}
	d, err := duration(in.DurationSeconds, r, c)
	if err != nil {
		return nil, err
	}
	lim, err := s.sessionLimits(in)
	if err != nil {
		return nil, err
	}
	cr := s.assumed(r, in.RoleSessionName, lim, d)
	return &stsapi.AssumeRoleResponse{
		AssumedRoleUser: &stsapi.AssumedRoleUser{Arn: s.sessionARN(r.Name, in.RoleSessionName), AssumedRoleId: r.ID + ":" + in.RoleSessionName},
		Credentials:     &stsapi.Credentials{AccessKeyId: cr.AccessKeyID, SecretAccessKey: cr.SecretAccessKey, SessionToken: cr.SessionToken, Expiration: new(cr.Expiration)},
	}, nil
}

func duration(asked *int64, r role, c wire.Caller) (time.Duration, error) {
	sec := int64(3600)
	if asked != nil {
		sec = *asked
	}
	if sec < 900 || sec > 43200 {
		return 0, wire.Errorf("ValidationError", "1 validation error detected: Value '%d' at 'durationSeconds' failed to satisfy constraint: Member must have value between 900 and 43200", sec)
	}
	if sec > r.MaxSession {
		return 0, wire.Errorf("ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	if c.Role != "" && sec > 3600 {
		return 0, wire.Errorf("ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	}
	return time.Duration(sec) * time.Second, nil
}

func (s *Service) sessionLimits(in *stsapi.AssumeRoleRequest) (string, error) {
	if in.Policy == "" && len(in.PolicyArns) == 0 {
		return "", nil
	}
	l := limits{Policy: in.Policy}
	if in.Policy != "" {
		if len(in.Policy) > 2048 {
			return "", wire.Errorf("PackedPolicyTooLarge", "The session policy has more than 2048 characters")
		}
		if _, err := policy.Parse(in.Policy); err != nil {
			return "", wire.Errorf("MalformedPolicyDocument", "The session policy is malformed: %v", err)
		}
	}
	if len(in.PolicyArns) > 10 {
		return "", wire.Errorf("ValidationError", "At most 10 session policies may be given by ARN")
	}
	var err error
	s.db.View(func(tx *state.Tx) {
		for _, p := range in.PolicyArns {
			if _, ok := s.findPolicy(tx, p.Arn); !ok {
				err = s.noPolicy(p.Arn)
				return
			}
			l.ARNs = append(l.ARNs, p.Arn)
		}
	})
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(l)
	return string(b), err
}
