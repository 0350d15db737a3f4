// Package sts is the region's Security Token Service: who am I, and the
// credentials of a role for whom it trusts. It must not know how credentials
// are made; what issues them is handed in.
package sts

import (
	"context"
	"errors"

	"github.com/dayfly-infra/dayfly/internal/region/api/stsapi"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// Issuer knows roles and makes their credentials.
type Issuer interface {
	AssumeRole(ctx context.Context, in *stsapi.AssumeRoleRequest) (*stsapi.AssumeRoleResponse, error)
	UserID(c wire.Caller) string
}

// Service has STS's operations.
type Service struct{ issuer Issuer }

// New returns the service.
func New(issuer Issuer) *Service { return &Service{issuer: issuer} }

// GetCallerIdentity needs no permission.
func (s *Service) GetCallerIdentity(ctx context.Context, _ *stsapi.GetCallerIdentityRequest) (*stsapi.GetCallerIdentityResponse, error) {
	c, ok := wire.CallerFrom(ctx)
	if !ok {
		return nil, errors.New("GetCallerIdentity without a caller")
	}
	return &stsapi.GetCallerIdentityResponse{Account: c.Account, Arn: c.ARN, UserId: s.issuer.UserID(c)}, nil
}

// AssumeRole gives a role's credentials.
func (s *Service) AssumeRole(ctx context.Context, in *stsapi.AssumeRoleRequest) (*stsapi.AssumeRoleResponse, error) {
	return s.issuer.AssumeRole(ctx, in)
}
