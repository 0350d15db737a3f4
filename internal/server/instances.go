package server

import (
	"context"
	"time"

	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/instance"
)

// Instances carries out what people ask for leases and single instances.
type Instances interface {
	Extend(ctx context.Context, environment string, e Extend) (environment.Environment, error)
	KeepInstance(ctx context.Context, k KeepInstance) (instance.Instance, error)
	ReleaseInstance(ctx context.Context, name string) (instance.Instance, error)
	ReplaceInstance(ctx context.Context, r ReplaceInstance) (instance.Instance, error)
	InstanceLogs(ctx context.Context, id string) (InstanceLogs, error)
}

// Extend asks for a longer lease.
type Extend struct {
	Minutes int `json:"minutes" doc:"from now" minimum:"1" maximum:"525600"`
}

// For is the time that is asked for.
func (e Extend) For() time.Duration { return time.Duration(e.Minutes) * time.Minute }

// KeepInstance asks that an instance is kept for a look, out of service.
type KeepInstance struct {
	Name    string `json:"name" doc:"environment/generation/instance, or the instance's id" maxLength:"200"`
	Minutes int    `json:"minutes" doc:"for so long" minimum:"1" maximum:"1440"`
	Why     string `json:"why,omitempty" maxLength:"300"`
}

// ReplaceInstance asks that an instance is replaced.
type ReplaceInstance struct {
	Name string `json:"name" doc:"environment/generation/instance, or the instance's id" maxLength:"200"`
	Why  string `json:"why,omitempty" maxLength:"300"`
}

func (s *Server) instances() {
	b := s.cfg.Backend
	post(s, "extend-lease", "/v1/environments/{name}/lease", "Let an environment live longer", func(ctx context.Context, in *struct {
		Name string `path:"name" maxLength:"120" pattern:"^[!-~]+$"`
		Body Extend
	}) (*out[environment.Environment], error) {
		return answer(b.Extend(ctx, in.Name, in.Body))
	})
	post(s, "keep-instance", "/v1/instances/keep", "Keep an instance for a look, out of service", func(ctx context.Context, in *body[KeepInstance]) (*out[instance.Instance], error) {
		return answer(b.KeepInstance(ctx, in.Body))
	})
	post(s, "release-instance", "/v1/instances/release", "End the keeping of an instance", func(ctx context.Context, in *body[ReleaseInstance]) (*out[instance.Instance], error) {
		return answer(b.ReleaseInstance(ctx, in.Body.Name))
	})
	post(s, "replace-instance", "/v1/instances/replace", "Have an instance replaced", func(ctx context.Context, in *body[ReplaceInstance]) (*out[instance.Instance], error) {
		return answer(b.ReplaceInstance(ctx, in.Body))
	})
	s.logs()
	records[instance.Instance](s, "instances", instance.Kind, "instance list")
	records[instance.Fleet](s, "fleets", instance.FleetKind, "why")
}

// ReleaseInstance ends the keeping of an instance.
type ReleaseInstance struct {
	Name string `json:"name" doc:"environment/generation/instance, or the instance's id" maxLength:"200"`
}
