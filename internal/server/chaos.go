package server

import (
	"context"

	"github.com/dayfly-infra/dayfly/internal/chaos"
)

// Chaos lets things go wrong on purpose, where the server was told to.
type Chaos interface {
	// Harm kills an instance, or notes down and allows what is done elsewhere.
	Harm(ctx context.Context, h Harm) (chaos.Act, error)
}

// Harm asks that something goes wrong.
type Harm struct {
	Act   chaos.Act `json:"act"`
	Named string    `json:"named,omitempty" doc:"environments that are meant although they are production-like, with commas between" maxLength:"2000"`
	Why   string    `json:"why,omitempty" maxLength:"300"`
	Dry   bool      `json:"dry,omitempty" doc:"only say whether it would be allowed"`
}

func (s *Server) chaos() {
	b := s.cfg.Backend
	post(s, "harm", "/v1/chaos", "Let something go wrong on purpose: an instance is killed here, what the command line does is allowed and noted down", func(ctx context.Context, in *body[Harm]) (*out[chaos.Act], error) {
		return answer(b.Harm(ctx, in.Body))
	})
}
