package server

import (
	"context"
	"mime"
	"net/http"
	"path"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-infra/dayfly/internal/pipeline"
)

// Runs carries out what people decide about runs.
type Runs interface {
	Decide(ctx context.Context, run, stage string, v Decision) (pipeline.Run, error)
	Judge(ctx context.Context, run, suite string, v Decision) (pipeline.Run, error)
	Attach(ctx context.Context, run, suite, file string, body []byte) (pipeline.Run, error)
	Artifacts(ctx context.Context, run, suite string) ([]string, error)
}

// Decision is what a person says of a gate or a manual suite.
type Decision struct {
	Passed   bool     `json:"passed" doc:"approve or pass; false rejects or fails"`
	Comment  string   `json:"comment,omitempty" maxLength:"4000"`
	Checked  []string `json:"checked,omitempty" doc:"points of a manual suite's checklist" maxItems:"50"`
	Override bool     `json:"override,omitempty" doc:"an administrator decides a gate that is for others"`
}

// TransformSchema implements huma.SchemaTransformer.
func (Decision) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return bound(s, "checked", 1000)
}

// SuitePath names a suite of a run.
type SuitePath struct {
	Name  string `path:"name" maxLength:"120" pattern:"^[!-~]+$"`
	Suite string `path:"suite" maxLength:"60" pattern:"^[!-~]+$"`
}

func (s *Server) runs() {
	b := s.cfg.Backend
	post(s, "decide-gate", "/v1/runs/{name}/stages/{stage}/verdict", "Approve or reject at a gate", func(ctx context.Context, in *struct {
		Name  string `path:"name" maxLength:"120" pattern:"^[!-~]+$"`
		Stage string `path:"stage" maxLength:"60"`
		Body  Decision
	}) (*out[pipeline.Run], error) {
		return answer(b.Decide(ctx, in.Name, in.Stage, in.Body))
	})
	post(s, "judge-suite", "/v1/runs/{name}/suites/{suite}/verdict", "Say how a manual suite went", func(ctx context.Context, in *struct {
		SuitePath
		Body Decision
	}) (*out[pipeline.Run], error) {
		return answer(b.Judge(ctx, in.Name, in.Suite, in.Body))
	})
	register(s, huma.Operation{
		OperationID: "attach", Method: http.MethodPut, Path: "/v1/runs/{name}/suites/{suite}/attachments/{file}", Summary: "Attach a file to a manual suite",
		MaxBodyBytes: pipeline.MaxAttachment, Metadata: map[string]any{metaUpload: true, metaTimeout: 2 * time.Minute},
	}, func(ctx context.Context, in *struct {
		SuitePath
		File    string `path:"file" maxLength:"120"`
		RawBody []byte `contentType:"application/octet-stream"`
	}) (*out[pipeline.Run], error) {
		return answer(b.Attach(ctx, in.Name, in.Suite, in.File, in.RawBody))
	})
	get(s, "list-artifacts", "/v1/runs/{name}/suites/{suite}/files", "What a suite left, by path", func(ctx context.Context, in *SuitePath) (*out[[]string], error) {
		return answer(b.Artifacts(ctx, in.Name, in.Suite))
	})
	register(s, huma.Operation{OperationID: "get-artifact", Method: http.MethodGet, Path: "/v1/runs/{name}/suites/{suite}/file", Summary: "A file that a suite left", Responses: anyFile}, func(ctx context.Context, in *struct {
		SuitePath
		Path string `query:"path" required:"true" maxLength:"500" doc:"as list-artifacts has it"`
	}) (*file, error) {
		raw, err := b.Results(ctx, in.Name, in.Suite, in.Path)
		if err != nil {
			return nil, problem(err)
		}
		return &file{
			Type: "application/octet-stream", Body: raw,
			Disposition: mime.FormatMediaType("attachment", map[string]string{"filename": path.Base(in.Path)}),
		}, nil
	})
	s.triggers()
}

var anyFile = map[string]*huma.Response{"200": {Description: "the file", Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}}}

// file is handed out to be kept, never to be shown: tests and testers made it.
type file struct {
	Type        string `header:"Content-Type"`
	Disposition string `header:"Content-Disposition"`
	Body        []byte
}
