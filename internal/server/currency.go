package server

import (
	"context"
	"time"

	"github.com/dayfly-infra/dayfly/internal/currency"
)

// Currency is about the images that environments run, and shall run.
type Currency interface {
	Revoke(ctx context.Context, image string, r Revoke) (Revoked, error)
	Currency(ctx context.Context) ([]currency.Status, error)
	Freezes(ctx context.Context) ([]currency.Freeze, error)
	Freeze(ctx context.Context, name string, f Freeze) (currency.Freeze, error)
	Unfreeze(ctx context.Context, name string) (currency.Freeze, error)
}

// Revoke is why an image is revoked.
type Revoke struct {
	Why string `json:"why" minLength:"1" maxLength:"300"`
}

// Revoked is what follows from a revocation.
type Revoked struct {
	Image string `json:"image"`
	// Channels went back to the image that they pointed to before.
	Channels map[string]string `json:"channels" doc:"channels that were moved, and the image that they point to now; empty: there is none"`
	// Environments run it and are replaced.
	Environments []string `json:"environments" doc:"environments that run it"`
	// Runs test it, and end.
	Runs []string `json:"runs" doc:"pipeline runs under way that test it: they end as failed"`
}

// Freeze keeps an environment as it is.
type Freeze struct {
	Why   string    `json:"why" minLength:"1" maxLength:"300"`
	Until time.Time `json:"until,omitzero" doc:"when it ends by itself; none: when somebody ends it"`
}

func (s *Server) currency() {
	b := s.cfg.Backend
	get(s, "list-currency", "/v1/currency", "Which image each environment runs and shall run, when it will, and what it waits for", func(ctx context.Context, _ *struct{}) (*out[[]currency.Status], error) {
		return answer(b.Currency(ctx))
	})
	get(s, "list-freezes", "/v1/freezes", "What is frozen", func(ctx context.Context, _ *struct{}) (*out[[]currency.Freeze], error) {
		return answer(b.Freezes(ctx))
	})
	post(s, "freeze", "/v1/freezes/{name}", "Keep an environment, or all, as it is", func(ctx context.Context, in *struct {
		Name string `path:"name" maxLength:"64" pattern:"^[a-z0-9-]+$" doc:"an environment, or all"`
		Body Freeze
	}) (*out[currency.Freeze], error) {
		return answer(b.Freeze(ctx, in.Name, in.Body))
	})
	post(s, "unfreeze", "/v1/freezes/{name}/end", "End a freeze", func(ctx context.Context, in *named) (*out[currency.Freeze], error) {
		return answer(b.Unfreeze(ctx, in.Name))
	})
}
