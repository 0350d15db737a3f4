// Package access says who may do what: roles, the table of what each operation
// of the API needs, and what a token is. It does no I/O: package token keeps
// tokens, package server asks both.
package access

import (
	"context"
	"slices"
)

// Role is what somebody may do; each may do what those before it may.
type Role string

const (
	Viewer   Role = "viewer"   // looks
	Deployer Role = "deployer" // bakes, deploys, tests
	Operator Role = "operator" // cleans up, reads the audit log
	Admin    Role = "admin"    // makes and revokes tokens
)

// Roles from the least to the most.
var Roles = []Role{Viewer, Deployer, Operator, Admin}

// Allows tells whether a role may do what needs another.
func (r Role) Allows(need Role) bool {
	have, want := slices.Index(Roles, r), slices.Index(Roles, need)
	return have >= 0 && want >= 0 && have >= want
}

// Needs is the one table of the API's operations and the least role for each.
// An operation that is not in it cannot be registered.
var Needs = map[string]Role{
	"get-status":        Viewer,
	"get-openapi":       Viewer,
	"explain":           Viewer,
	"watch":             Viewer,
	"list-bakes":        Viewer,
	"list-images":       Viewer,
	"list-channels":     Viewer,
	"list-refreshes":    Viewer,
	"list-releases":     Viewer,
	"list-environments": Viewer,
	"list-generations":  Viewer,
	"list-foundations":  Viewer,
	"list-runs":         Viewer,
	"get-result":        Viewer,
	"list-artifacts":    Viewer,
	"list-triggers":     Viewer,
	"get-artifact":      Viewer,
	"whoami":            Viewer,
	"list-instances":    Viewer,
	"list-fleets":       Viewer,
	"list-currency":     Viewer,
	"list-freezes":      Viewer,
	"get-usage":         Viewer,
	"get-instance-logs": Viewer,
	"list-events":       Viewer,
	"get-metrics":       Viewer,
	"diff-images":       Viewer,
	"get-lineage":       Viewer,
	"get-report":        Viewer,
	"get-sbom":          Viewer,
	"get-attestation":   Viewer,
	"get-inventory":     Viewer,

	"add-blueprint":       Deployer,
	"start-bake":          Deployer,
	"cancel-bake":         Deployer,
	"resolve-release":     Deployer,
	"deploy":              Deployer,
	"deploy-again":        Deployer,
	"foresee-deploy":      Deployer, // it asks the box
	"destroy-environment": Deployer,
	"roll-back":           Deployer,
	"promote-image":       Deployer,
	"start-run":           Deployer,
	"cancel-run":          Deployer,
	"decide-gate":         Viewer, // the gate says who may, by name or group
	"judge-suite":         Deployer,
	"attach":              Deployer,

	"extend-lease":     Deployer,
	"replace-instance": Deployer,

	"keep-instance":    Operator, // people look into it
	"release-instance": Operator,
	"exec-bake":        Operator,
	"quarantine-image": Operator,
	"revoke-image":     Operator,
	"freeze":           Operator,
	"unfreeze":         Operator,

	"set-trigger":    Operator, // names secrets of the server
	"delete-trigger": Operator,

	"delete-image": Operator,
	"harm":         Operator,
	"sweep":        Operator,
	"list-audit":   Operator,

	"create-link": Viewer, // for a role that its maker has
	"sign-in":     Viewer, // by the code of a link alone
	"sign-out":    Viewer,

	"create-token": Admin,
	"list-tokens":  Admin,
	"revoke-token": Admin,
}

// Principal is who asks.
type Principal struct {
	// ID is unique: "os:1000" for a user of this machine, "token:ID".
	ID string
	// Name is for people, and what records carry as "by".
	Name string
	Role Role
	// Groups that the token is of.
	Groups []string
	// From is where the request came from: an address, or "local".
	From string
}

type principalKey struct{}

// With returns a context that carries who asks.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// Of is who asks, without a role when nobody is known.
func Of(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}
