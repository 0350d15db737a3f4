package server

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-infra/dayfly/internal/environment"
)

// Again deploys what the server has the blueprint of: one call, nothing sent.
type Again interface {
	DeployAgain(ctx context.Context, name string, d DeployAgain) (environment.Environment, error)
	Foresee(ctx context.Context, name string) (Foreseen, error)
}

// DeployAgain asks for an environment's blueprint with the most recent release.
type DeployAgain struct {
	Size     int  `json:"size,omitempty" doc:"instances, default as many as it has" minimum:"0" maximum:"1000"`
	Untested bool `json:"untested,omitempty" doc:"deploy past the pipeline whose stage deploys this environment"`
}

// Foreseen is what a deploy would do if it were asked for now.
type Foreseen struct {
	Environment string          `json:"environment"`
	Blueprint   string          `json:"blueprint"`
	Size        int             `json:"size"`
	Generation  int             `json:"generation" doc:"number of the one that would be made, if nothing else comes first"`
	Release     ForeseenRelease `json:"release"`
	Image       ForeseenImage   `json:"image"`
	Seconds     float64         `json:"seconds,omitempty" doc:"usual time of a launch until all are ready; absent when there was none"`
	Launches    int             `json:"launches" doc:"of how many launches that is the median"`
	Refused     string          `json:"refused,omitempty" doc:"why it would be refused now"`
	Hint        string          `json:"hint,omitempty" doc:"what a person can do about that"`
}

// ForeseenRelease is what the box gives now.
type ForeseenRelease struct {
	Artifact string `json:"artifact,omitempty" doc:"file in the box"`
	Name     string `json:"name,omitempty" doc:"its record, whether or not it was resolved before; absent where the box tells no digests"`
	Serves   bool   `json:"serves" doc:"the environment serves it already"`
}

// ForeseenImage is the image of the blueprint as the server has it.
type ForeseenImage struct {
	Name    string  `json:"name,omitempty"`
	There   bool    `json:"there" doc:"false: it is baked first"`
	Serves  bool    `json:"serves" doc:"the environment runs it already"`
	Seconds float64 `json:"seconds,omitempty" doc:"usual time of the blueprint's bakes, when it is baked first"`
}

func (s *Server) again() {
	b := s.cfg.Backend
	post(s, "deploy-again", "/v1/environments/{name}/deploy", "Deploy an environment's blueprint, which the server has, with the most recent release", func(ctx context.Context, in *struct {
		Name string `path:"name" maxLength:"120" pattern:"^[!-~]+$"`
		Body DeployAgain
	}) (*out[environment.Environment], error) {
		return answer(b.DeployAgain(ctx, in.Name, in.Body))
	})
	register(s, huma.Operation{
		OperationID: "foresee-deploy", Method: http.MethodGet, Path: "/v1/environments/{name}/deploy", Metadata: map[string]any{metaTimeout: 20 * time.Second},
		Summary: "What a deploy would do now: release, image, size and usual time. Nothing is begun",
	}, func(ctx context.Context, in *named) (*out[Foreseen], error) {
		return answer(b.Foresee(ctx, in.Name))
	})
}
