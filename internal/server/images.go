package server

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-infra/dayfly/internal/image"
)

// document is a file that is handed on as it is.
type document struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

func (s *Server) images() {
	b := s.cfg.Backend
	post(s, "quarantine-image", "/v1/images/{name}/quarantine", "Begin or end an image's quarantine", func(ctx context.Context, in *struct {
		Name string `path:"name" maxLength:"120" pattern:"^[!-~]+$"`
		Body Quarantine
	}) (*out[image.Image], error) {
		return answer(b.Quarantine(ctx, in.Name, in.Body))
	})
	post(s, "revoke-image", "/v1/images/{name}/revoke", "Let nothing be launched from an image any more, and replace what runs from it", func(ctx context.Context, in *struct {
		Name string `path:"name" maxLength:"120" pattern:"^[!-~]+$"`
		Body Revoke
	}) (*out[Revoked], error) {
		return answer(b.Revoke(ctx, in.Name, in.Body))
	})
	post(s, "promote-image", "/v1/images/{name}/promote", "Point a channel to an image", func(ctx context.Context, in *struct {
		Name string `path:"name" maxLength:"120" pattern:"^[!-~]+$"`
		Body Promote
	}) (*out[image.Channel], error) {
		return answer(b.Promote(ctx, in.Name, in.Body))
	})
	get(s, "get-lineage", "/v1/images/{name}/lineage", "What an image comes from, what was made from it, and who runs it", func(ctx context.Context, in *named) (*out[Lineage], error) {
		return answer(b.Lineage(ctx, in.Name))
	})
	get(s, "diff-images", "/v1/images/{name}/diff", "What differs between two images", func(ctx context.Context, in *struct {
		Name string `path:"name" maxLength:"120" pattern:"^[!-~]+$"`
		To   string `query:"to" required:"true" maxLength:"120" doc:"the other image"`
	}) (*out[ImageDiff], error) {
		return answer(b.ImageDiff(ctx, in.Name, in.To))
	})
	s.file("get-report", "/v1/images/{name}/report", "Puppet's last report of the bake", "text/plain; charset=utf-8", b.Report)
	s.file("get-sbom", "/v1/images/{name}/sbom", "The image's CycloneDX document", "application/vnd.cyclonedx+json", b.SBOM)
	s.file("get-attestation", "/v1/images/{name}/attestation", "The signed statement how the image was made: in-toto and SLSA in a DSSE envelope", "application/vnd.dsse.envelope.v1+json", b.Attestation)
	s.file("get-inventory", "/v1/images/{name}/inventory", "What was found on a fresh instance of the image", "application/json", b.Inventory)
}

func (s *Server) file(id, path, summary, kind string, read func(ctx context.Context, name string) ([]byte, error)) {
	media, _, _ := strings.Cut(kind, ";")
	schema := &huma.Schema{Type: huma.TypeString}
	if strings.HasSuffix(media, "json") {
		schema.Type = huma.TypeObject
	}
	register(s, huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Summary: summary, Responses: map[string]*huma.Response{
		"200": {Description: "the file", Content: map[string]*huma.MediaType{media: {Schema: schema}}},
	}}, func(ctx context.Context, in *named) (*document, error) {
		raw, err := read(ctx, in.Name)
		if err != nil {
			return nil, problem(err)
		}
		return &document{kind, raw}, nil
	})
}
