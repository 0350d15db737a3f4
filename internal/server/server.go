// Package server is the HTTP API: OpenAPI from code, typed answers, problem
// details for errors. It must not decide anything: the backend does.
package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/inventory"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/release"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/sweep"
)

// maxPack is the largest packed blueprint that is taken, in bytes.
const maxPack = 80 << 20

// Backend carries out what the API is asked for.
type Backend interface {
	AddBlueprint(ctx context.Context, tar io.Reader) (Blueprint, error)
	Bake(ctx context.Context, b StartBake) (bake.Bake, error)
	ExecBake(ctx context.Context, name, on, command string) (bake.Executed, error)
	CancelBake(ctx context.Context, name string) (bake.Bake, error)
	Resolve(ctx context.Context, files string) (release.Release, error)
	Deploy(ctx context.Context, d Deploy) (environment.Environment, error)
	Destroy(ctx context.Context, name string) (environment.Environment, error)
	Test(ctx context.Context, t Test) (pipeline.Run, error)
	Cancel(ctx context.Context, run string) (pipeline.Run, error)
	Results(ctx context.Context, run, suite, file string) ([]byte, error)
	DeleteImage(ctx context.Context, name string) error
	Quarantine(ctx context.Context, name string, q Quarantine) (image.Image, error)
	SBOM(ctx context.Context, name string) ([]byte, error)
	ImageDiff(ctx context.Context, a, b string) (ImageDiff, error)
	Report(ctx context.Context, name string) ([]byte, error)
	Sweep(ctx context.Context, dry bool) (sweep.Report, error)
	Instances
	Why(ctx context.Context, object string) ([]Reason, error)
	Status(ctx context.Context) (Status, error)
}

// Blueprint is what the server says of a blueprint that it was sent.
type Blueprint struct {
	Digest       string   `json:"digest"`
	Name         string   `json:"name"`
	Environments []string `json:"environments"`
	Suites       []string `json:"suites"`
}

// StartBake asks for a blueprint's image.
type StartBake struct {
	Files  string `json:"files" doc:"digest of the blueprint, from POST /v1/blueprints" pattern:"^sha256:[0-9a-f]{64}$"`
	Resume bool   `json:"resume,omitempty" doc:"go on with the builder that a failed bake keeps"`
	From   string `json:"from,omitempty" doc:"that bake; default the blueprint's last" maxLength:"120"`
	By     string `json:"by,omitempty" maxLength:"100"`
}

// Quarantine begins or ends an image's quarantine.
type Quarantine struct {
	Quarantined bool   `json:"quarantined" doc:"false ends it"`
	Why         string `json:"why" minLength:"1" maxLength:"500"`
	By          string `json:"by,omitempty" maxLength:"100"`
}

// ImageDiff is what differs between two images.
type ImageDiff struct {
	From    string                 `json:"from"`
	To      string                 `json:"to"`
	Changes []inventory.Difference `json:"changes"`
}

// Deploy asks for an environment with the most recent release.
type Deploy struct {
	Files   string `json:"files" doc:"digest of the blueprint, from POST /v1/blueprints" pattern:"^sha256:[0-9a-f]{64}$"`
	Purpose string `json:"purpose" doc:"key in the blueprint's environments" maxLength:"32"`
	Name    string `json:"name,omitempty" doc:"the environment's name, default BLUEPRINT-PURPOSE" maxLength:"60" pattern:"^([a-z][a-z0-9-]*[a-z0-9])?$"`
	Size    int    `json:"size,omitempty" doc:"instances, default the blueprint's" minimum:"0" maximum:"1000"`
	By      string `json:"by,omitempty" maxLength:"100"`
}

// Test asks for a run of the blueprint's suites.
type Test struct {
	Files  string   `json:"files" pattern:"^sha256:[0-9a-f]{64}$"`
	Suites []string `json:"suites,omitempty" doc:"names, default all" maxItems:"200"`
	By     string   `json:"by,omitempty" maxLength:"100"`
}

// Reason is one blocker as a sentence.
type Reason struct {
	Object   string `json:"object"`
	Phase    string `json:"phase"`
	Sentence string `json:"sentence"`
}

// Status is the server's own.
type Status struct {
	Version  string `json:"version"`
	PID      int    `json:"pid"`
	Account  string `json:"account"`
	Region   string `json:"region"`
	Endpoint string `json:"endpoint,omitempty"`
	Owner    string `json:"owner"`
	Active   bool   `json:"active" doc:"this process owns the work"`
}

// New returns the API's handler.
func New(b Backend, s store.Store, version string) http.Handler {
	r := chi.NewRouter()
	cfg := huma.DefaultConfig("Dayfly", version)
	cfg.CreateHooks = nil // no $schema links in answers
	api := humachi.New(r, cfg)
	s2 := &surface{b, s}
	s2.blueprints(api)
	huma.Get(api, "/v1/status", func(ctx context.Context, _ *struct{}) (*out[Status], error) { return answer(b.Status(ctx)) })

	huma.Post(api, "/v1/bakes", func(ctx context.Context, in *body[StartBake]) (*out[bake.Bake], error) {
		return answer(b.Bake(ctx, in.Body))
	})
	huma.Post(api, "/v1/bakes/{name}/exec", func(ctx context.Context, in *struct {
		Name string `path:"name" maxLength:"120"`
		Body struct {
			Command string `json:"command" doc:"for a shell" minLength:"1" maxLength:"8000"`
			On      string `json:"on,omitempty" enum:"builder,canary-1,canary-2" doc:"default what failed"`
		}
	}) (*out[bake.Executed], error) {
		return answer(b.ExecBake(ctx, in.Name, in.Body.On, in.Body.Command))
	}, func(o *huma.Operation) { o.Summary = "Run a command on what a failed bake keeps" })
	huma.Delete(api, "/v1/bakes/{name}", func(ctx context.Context, in *named) (*out[bake.Bake], error) {
		return answer(b.CancelBake(ctx, in.Name))
	}, func(o *huma.Operation) { o.DefaultStatus = http.StatusOK })
	huma.Post(api, "/v1/releases", func(ctx context.Context, in *body[struct {
		Files string `json:"files" pattern:"^sha256:[0-9a-f]{64}$"`
	}]) (*out[release.Release], error) {
		return answer(b.Resolve(ctx, in.Body.Files))
	})
	huma.Post(api, "/v1/environments", func(ctx context.Context, in *body[Deploy]) (*out[environment.Environment], error) {
		return answer(b.Deploy(ctx, in.Body))
	})
	huma.Delete(api, "/v1/environments/{name}", func(ctx context.Context, in *named) (*out[environment.Environment], error) {
		return answer(b.Destroy(ctx, in.Name))
	}, func(o *huma.Operation) { o.DefaultStatus = http.StatusOK })
	huma.Delete(api, "/v1/images/{name}", func(ctx context.Context, in *named) (*struct{}, error) {
		return nil, problem(b.DeleteImage(ctx, in.Name))
	})
	huma.Post(api, "/v1/images/{name}/quarantine", func(ctx context.Context, in *struct {
		Name string `path:"name" maxLength:"120"`
		Body Quarantine
	}) (*out[image.Image], error) {
		return answer(b.Quarantine(ctx, in.Name, in.Body))
	}, func(o *huma.Operation) { o.Summary = "Begin or end an image's quarantine" })
	huma.Get(api, "/v1/images/{name}/report", func(ctx context.Context, in *named) (*struct {
		ContentType string `header:"Content-Type"`
		Body        []byte
	}, error) {
		raw, err := b.Report(ctx, in.Name)
		if err != nil {
			return nil, problem(err)
		}
		return &struct {
			ContentType string `header:"Content-Type"`
			Body        []byte
		}{"text/plain; charset=utf-8", raw}, nil
	}, func(o *huma.Operation) { o.Summary = "Puppet's last report of the bake" })
	huma.Get(api, "/v1/images/{name}/sbom", func(ctx context.Context, in *named) (*struct {
		ContentType string `header:"Content-Type"`
		Body        []byte
	}, error) {
		raw, err := b.SBOM(ctx, in.Name)
		if err != nil {
			return nil, problem(err)
		}
		return &struct {
			ContentType string `header:"Content-Type"`
			Body        []byte
		}{"application/vnd.cyclonedx+json", raw}, nil
	}, func(o *huma.Operation) { o.Summary = "The image's CycloneDX document" })
	huma.Get(api, "/v1/images/{name}/diff", func(ctx context.Context, in *struct {
		Name string `path:"name" maxLength:"120"`
		To   string `query:"to" required:"true" maxLength:"120" doc:"the other image"`
	}) (*out[ImageDiff], error) {
		return answer(b.ImageDiff(ctx, in.Name, in.To))
	}, func(o *huma.Operation) { o.Summary = "What differs between two images" })
	huma.Post(api, "/v1/runs", func(ctx context.Context, in *body[Test]) (*out[pipeline.Run], error) {
		return answer(b.Test(ctx, in.Body))
	})
	huma.Delete(api, "/v1/runs/{name}", func(ctx context.Context, in *named) (*out[pipeline.Run], error) {
		return answer(b.Cancel(ctx, in.Name))
	}, func(o *huma.Operation) { o.DefaultStatus = http.StatusOK })
	huma.Get(api, "/v1/runs/{name}/suites/{suite}/{file}", s2.results)
	huma.Post(api, "/v1/sweep", func(ctx context.Context, in *struct {
		DryRun bool `query:"dry_run"`
	}) (*out[sweep.Report], error) {
		return answer(b.Sweep(ctx, in.DryRun))
	})
	huma.Get(api, "/v1/why", func(ctx context.Context, in *struct {
		Object string `query:"object" maxLength:"200" doc:"kind/name or a name; empty: all that waits"`
	}) (*out[[]Reason], error) {
		return answer(b.Why(ctx, in.Object))
	})
	s2.instances(api)
	records[bake.Bake](api, s, "bakes", bake.Kind)
	records[image.Image](api, s, "images", image.Kind)
	records[image.Channel](api, s, "channels", image.ChannelKind)
	records[release.Release](api, s, "releases", release.Kind)
	records[environment.Environment](api, s, "environments", environment.Kind)
	records[environment.Generation](api, s, "generations", environment.GenerationKind)
	records[environment.Foundation](api, s, "foundations", environment.FoundationKind)
	records[pipeline.Run](api, s, "runs", pipeline.Kind)
	return r
}

type surface struct {
	backend Backend
	store   store.Store
}

type out[T any] struct{ Body T }

type body[T any] struct{ Body T }

type named struct {
	Name string `path:"name" maxLength:"120"`
}

func answer[T any](v T, err error) (*out[T], error) {
	if err != nil {
		return nil, problem(err)
	}
	return &out[T]{v}, nil
}

// records gives a kind's records: the list, and one by name in a query, since
// names may hold slashes.
func records[T any](api huma.API, s store.Store, path, kind string) {
	huma.Register(api, huma.Operation{OperationID: "list-" + path, Method: http.MethodGet, Path: "/v1/" + path}, func(ctx context.Context, in *struct {
		Prefix string `query:"prefix" maxLength:"120"`
		Name   string `query:"name" maxLength:"120" doc:"exactly this one"`
	}) (*out[[]T], error) {
		if in.Name != "" {
			v, _, err := store.Get[T](ctx, s, kind, in.Name)
			if errors.Is(err, store.ErrNotFound) {
				return nil, problem(&fault.Error{Kind: fault.NotFound, Object: kind + " " + in.Name, Message: "there is no such " + kind, Hint: "dayfly " + path + " lists them"})
			}
			return answer([]T{v}, err)
		}
		vs, err := store.List[T](ctx, s, kind, in.Prefix)
		return answer(vs, err)
	})
}

func (s *surface) blueprints(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "add-blueprint", Method: http.MethodPost, Path: "/v1/blueprints", MaxBodyBytes: maxPack,
		Summary: "Send a packed blueprint (a tar of the folder)",
	}, func(ctx context.Context, in *struct {
		RawBody []byte `contentType:"application/x-tar"`
	}) (*out[Blueprint], error) {
		return answer(s.backend.AddBlueprint(ctx, bytes.NewReader(in.RawBody)))
	})
}

func (s *surface) results(ctx context.Context, in *struct {
	Name  string `path:"name" maxLength:"120"`
	Suite string `path:"suite" maxLength:"60"`
	File  string `path:"file" enum:"junit.xml,log.txt"`
}) (*struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}, error) {
	raw, err := s.backend.Results(ctx, in.Name, in.Suite, in.File)
	if err != nil {
		return nil, problem(err)
	}
	o := &struct {
		ContentType string `header:"Content-Type"`
		Body        []byte
	}{ContentType: "text/plain; charset=utf-8", Body: raw}
	if in.File == "junit.xml" {
		o.ContentType = "application/xml"
	}
	return o, nil
}

// Problem is the API's error (RFC 9457) with what a person can do next.
type Problem struct {
	huma.ErrorModel
	Kind fault.Kind `json:"kind"`
	Hint string     `json:"hint,omitempty"`
}

func problem(err error) error {
	if err == nil {
		return nil
	}
	kind := fault.KindOf(err)
	status := map[fault.Kind]int{
		fault.Invalid: http.StatusUnprocessableEntity, fault.NotFound: http.StatusNotFound, fault.Conflict: http.StatusConflict,
		fault.Denied: http.StatusForbidden, fault.Unavailable: http.StatusServiceUnavailable, fault.Failed: http.StatusBadGateway,
	}[kind]
	if status == 0 {
		status = http.StatusInternalServerError
	}
	if fault.CodeOf(err) == store.CodeFull {
		status = http.StatusInsufficientStorage
	}
	return &Problem{ErrorModel: huma.ErrorModel{Status: status, Title: fmt.Sprintf("%s (%s)", http.StatusText(status), kind), Detail: err.Error()}, Kind: kind, Hint: fault.HintOf(err)}
}
