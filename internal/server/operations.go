package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/audit"
	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/release"
	"github.com/dayfly-infra/dayfly/internal/sweep"
)

// maxPack is the largest packed blueprint that is taken, in bytes.
const maxPack = 80 << 20

type out[T any] struct{ Body T }

type body[T any] struct{ Body T }

type named struct {
	Name string `path:"name" maxLength:"120" pattern:"^[!-~]+$"`
}

func answer[T any](v T, err error) (*out[T], error) {
	if err != nil {
		return nil, problem(err)
	}
	return &out[T]{v}, nil
}

// register adds an operation. It must be in access.Needs.
func register[I, O any](s *Server, op huma.Operation, h func(context.Context, *I) (*O, error)) {
	s.describe(&op)
	huma.Register(s.api, op, h)
}

// describe completes an operation: role, limits, the parameters that every one has.
func (s *Server) describe(op *huma.Operation) {
	need, ok := access.Needs[op.OperationID]
	if !ok {
		panic("server: " + op.OperationID + " is not in access.Needs: say there which role it needs")
	}
	op.Description = strings.TrimSpace(op.Description + "\n\nNeeds the role " + string(need) + ".")
	op.Security = []map[string][]string{{"token": {string(need)}}}
	op.BodyReadTimeout = -1 // guard has read the body
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = maxBody
	}
	if op.Method == http.MethodPost {
		most := 128
		op.Parameters = append(op.Parameters, &huma.Param{Name: keyHeader, In: "header", Schema: &huma.Schema{Type: "string", Pattern: keyForm.String(), MaxLength: &most},
			Description: "for 24 hours the same key gives the same answer and does nothing again; with another request it is refused"})
	}
}

func describe() string {
	return "The control plane of Dayfly. Errors are problem details (RFC 9457). On the server's unix socket who asks is its user, with the role admin; " +
		"elsewhere a token is needed. Roles, each with all of those before it: viewer, deployer, operator, admin."
}

// get, post and remove are short for the usual operations.
func get[I, O any](s *Server, id, path, summary string, h func(context.Context, *I) (*out[O], error)) {
	register(s, huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Summary: summary}, h)
}

func post[I, O any](s *Server, id, path, summary string, h func(context.Context, *I) (*out[O], error)) {
	register(s, huma.Operation{OperationID: id, Method: http.MethodPost, Path: path, Summary: summary}, h)
}

func remove[I, O any](s *Server, id, path, summary string, h func(context.Context, *I) (*out[O], error)) {
	register(s, huma.Operation{OperationID: id, Method: http.MethodDelete, Path: path, Summary: summary, DefaultStatus: http.StatusOK}, h)
}

func (s *Server) operations() {
	b := s.cfg.Backend
	s.open()
	s.watch()
	get(s, "get-status", "/v1/status", "The server's own state", func(ctx context.Context, _ *struct{}) (*out[Status], error) { return answer(b.Status(ctx)) })
	get(s, "whoami", "/v1/whoami", "Who asks", func(ctx context.Context, _ *struct{}) (*out[Who], error) {
		p := access.Of(ctx)
		return answer(Who{p.ID, p.Name, p.Role, p.From}, nil)
	})
	get(s, "explain", "/v1/why", "Why things wait", func(ctx context.Context, in *struct {
		Object string `query:"object" maxLength:"200" doc:"kind/name or a name; empty: all that waits"`
	}) (*out[[]Reason], error) {
		return answer(b.Why(ctx, in.Object))
	})

	register(s, huma.Operation{
		OperationID: "add-blueprint", Method: http.MethodPost, Path: "/v1/blueprints", MaxBodyBytes: maxPack, Metadata: map[string]any{metaUpload: true, metaTimeout: 2 * time.Minute},
		Summary: "Send a packed blueprint (a tar of the folder)",
	}, func(ctx context.Context, in *struct {
		RawBody []byte `contentType:"application/x-tar"`
	}) (*out[Blueprint], error) {
		return answer(b.AddBlueprint(ctx, bytes.NewReader(in.RawBody)))
	})
	post(s, "start-bake", "/v1/bakes", "Make the blueprint's image, or find it", func(ctx context.Context, in *body[StartBake]) (*out[bake.Bake], error) {
		return answer(b.Bake(ctx, in.Body))
	})
	register(s, huma.Operation{OperationID: "exec-bake", Method: http.MethodPost, Path: "/v1/bakes/{name}/exec", Summary: "Run a command on what a failed bake keeps", Metadata: map[string]any{metaTimeout: 10 * time.Minute}}, func(ctx context.Context, in *struct {
		Name string `path:"name" maxLength:"120" pattern:"^[!-~]+$"`
		Body struct {
			Command string `json:"command" doc:"for a shell" minLength:"1" maxLength:"8000"`
			On      string `json:"on,omitempty" enum:"builder,canary-1,canary-2" doc:"default what failed"`
		}
	}) (*out[bake.Executed], error) {
		return answer(b.ExecBake(ctx, in.Name, in.Body.On, in.Body.Command))
	})
	remove(s, "cancel-bake", "/v1/bakes/{name}", "End a bake", func(ctx context.Context, in *named) (*out[bake.Bake], error) {
		return answer(b.CancelBake(ctx, in.Name))
	})
	register(s, huma.Operation{OperationID: "resolve-release", Method: http.MethodPost, Path: "/v1/releases", Summary: "Resolve the most recent release in the box, and mirror it", Metadata: map[string]any{metaTimeout: 10 * time.Minute}},
		func(ctx context.Context, in *body[Files]) (*out[release.Release], error) {
			return answer(b.Resolve(ctx, in.Body.Files))
		})
	post(s, "deploy", "/v1/environments", "Launch an environment, or a new generation of it", func(ctx context.Context, in *body[Deploy]) (*out[environment.Environment], error) {
		return answer(b.Deploy(ctx, in.Body))
	})
	remove(s, "destroy-environment", "/v1/environments/{name}", "Terminate an environment and everything of it", func(ctx context.Context, in *named) (*out[environment.Environment], error) {
		return answer(b.Destroy(ctx, in.Name))
	})
	post(s, "roll-back", "/v1/environments/{name}/rollback", "Go back to what served before: a switch of traffic while that is kept, else a deploy of the last good image and release", func(ctx context.Context, in *struct {
		Name string `path:"name" maxLength:"120" pattern:"^[!-~]+$"`
		Body Rollback
	}) (*out[environment.Environment], error) {
		return answer(b.Rollback(ctx, in.Name, in.Body))
	})
	register(s, huma.Operation{OperationID: "delete-image", Method: http.MethodDelete, Path: "/v1/images/{name}", Summary: "Remove an image that nothing uses"}, func(ctx context.Context, in *named) (*struct{}, error) {
		return nil, problem(b.DeleteImage(ctx, in.Name))
	})
	post(s, "start-run", "/v1/runs", "Run the pipeline, or suites of it", func(ctx context.Context, in *body[Test]) (*out[pipeline.Run], error) {
		return answer(b.Test(ctx, in.Body))
	})
	remove(s, "cancel-run", "/v1/runs/{name}", "End a run and all that it launched", func(ctx context.Context, in *named) (*out[pipeline.Run], error) {
		return answer(b.Cancel(ctx, in.Name))
	})
	register(s, huma.Operation{OperationID: "get-result", Method: http.MethodGet, Path: "/v1/runs/{name}/suites/{suite}/{file}", Summary: "A suite's results", Responses: results}, s.result)
	register(s, huma.Operation{OperationID: "sweep", Method: http.MethodPost, Path: "/v1/sweep", Summary: "Find, and remove, what belongs to nothing", Metadata: map[string]any{metaTimeout: 10 * time.Minute}}, func(ctx context.Context, in *struct {
		DryRun bool `query:"dry_run"`
	}) (*out[sweep.Report], error) {
		return answer(b.Sweep(ctx, in.DryRun))
	})

	s.runs()
	s.again()
	s.images()
	s.instances()
	s.chaos()
	s.currency()
	s.usage()
	records[bake.Bake](s, "bakes", bake.Kind, "why")
	records[image.Image](s, "images", image.Kind, "images")
	records[image.Channel](s, "channels", image.ChannelKind, "images")
	records[bake.Refresh](s, "refreshes", bake.RefreshKind, "bakes")
	records[release.Release](s, "releases", release.Kind, "release list")
	records[environment.Environment](s, "environments", environment.Kind, "env list")
	records[environment.Generation](s, "generations", environment.GenerationKind, "env show")
	records[environment.Foundation](s, "foundations", environment.FoundationKind, "env list")
	records[pipeline.Run](s, "runs", pipeline.Kind, "run list")

	get(s, "list-audit", "/v1/audit", "Who did what, the newest first", func(ctx context.Context, in *struct {
		Cursor string `query:"cursor" maxLength:"1000" doc:"next of the page before"`
		Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"100"`
	}) (*out[Page[audit.Entry]], error) {
		return page[audit.Entry](ctx, s.cfg.Store, audit.Kind, "audit", Paged{Cursor: in.Cursor, Limit: in.Limit}, true)
	})
	s.events()
	s.tokenOperations()
	s.sessionOperations()
}

// Who is who asks.
type Who struct {
	Principal string      `json:"principal" doc:"os:UID, token:ID, or link:ID while signing in"`
	Name      string      `json:"name"`
	Role      access.Role `json:"role"`
	From      string      `json:"from"`
}

// Token is what is shown of a token.
type Token struct {
	ID      string      `json:"id"`
	Name    string      `json:"name"`
	Role    access.Role `json:"role" enum:"viewer,deployer,operator,admin"`
	By      string      `json:"by"`
	Created time.Time   `json:"created"`
	Expires time.Time   `json:"expires"`
	Used    time.Time   `json:"used,omitzero" doc:"last, to the minute"`
	Session bool        `json:"session,omitempty" doc:"a browser's, made by a sign-in link"`
}

// NewToken asks for a token.
type NewToken struct {
	Name    string      `json:"name" minLength:"1" maxLength:"60" pattern:"^[!-~]+$" doc:"for people: what it is for"`
	Role    access.Role `json:"role" enum:"viewer,deployer,operator,admin"`
	Expires time.Time   `json:"expires,omitzero" doc:"default in 90 days, at most in 366"`
}

// Minted is a new token with its secret, which is not kept.
type Minted struct {
	Token
	Secret string `json:"secret"`
}

func shown(t access.Token) Token {
	return Token{t.ID, t.Name, t.Role, t.By, t.Created, t.Expires, t.Used, t.Session}
}

func (s *Server) tokenOperations() {
	register(s, huma.Operation{OperationID: "create-token", Method: http.MethodPost, Path: "/v1/tokens", Summary: "Make a token; its secret is in this answer alone", Metadata: map[string]any{metaSecret: true}}, func(ctx context.Context, in *body[NewToken]) (*out[Minted], error) {
		t, secret, err := s.tokens.Create(ctx, access.Of(ctx).Name, in.Body.Name, in.Body.Role, in.Body.Expires)
		return answer(Minted{shown(t), secret}, err)
	})
	get(s, "list-tokens", "/v1/tokens", "List tokens, by id", func(ctx context.Context, in *struct{ Paged }) (*out[Page[Token]], error) {
		p, err := page[access.Token](ctx, s.cfg.Store, access.TokenKind, "token list", in.Paged, false)
		if err != nil {
			return nil, err
		}
		q := Page[Token]{Items: []Token{}, Next: p.Body.Next, Revision: p.Body.Revision}
		for _, t := range p.Body.Items {
			q.Items = append(q.Items, shown(t))
		}
		return answer(q, nil)
	})
	remove(s, "revoke-token", "/v1/tokens/{name}", "End a token at once", func(ctx context.Context, in *struct {
		ID string `path:"name" maxLength:"40" pattern:"^[!-~]+$" doc:"the token's id"`
	}) (*out[Token], error) {
		t, err := s.tokens.Revoke(ctx, in.ID)
		return answer(shown(t), err)
	})
}

var results = map[string]*huma.Response{"200": {Description: "the file", Content: map[string]*huma.MediaType{
	"text/plain": {Schema: &huma.Schema{Type: "string"}}, "application/xml": {Schema: &huma.Schema{Type: "string"}},
}}}

func (s *Server) result(ctx context.Context, in *struct {
	Name  string `path:"name" maxLength:"120" pattern:"^[!-~]+$"`
	Suite string `path:"suite" maxLength:"60" pattern:"^[!-~]+$"`
	File  string `path:"file" enum:"junit.xml,log.txt"`
}) (*struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}, error) {
	raw, err := s.cfg.Backend.Results(ctx, in.Name, in.Suite, in.File)
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

// open are the paths that are not operations of huma: the document itself, and
// what load balancers and monitors ask without a token.
func (s *Server) open() {
	s.router.Get("/openapi.json", func(w http.ResponseWriter, r *http.Request) {
		s.guard(&huma.Operation{OperationID: "get-openapi", Method: http.MethodGet}, w, r, func(w http.ResponseWriter, r *http.Request) {
			raw, err := json.Marshal(s.api.OpenAPI())
			if err != nil {
				refuse(w, http.StatusInternalServerError, err.Error(), "")
				return
			}
			w.Header().Set("Content-Type", "application/openapi+json")
			_, _ = w.Write(raw)
		})
	})
	if s.cfg.Metrics != nil {
		s.router.Get("/metrics", func(w http.ResponseWriter, r *http.Request) {
			s.guard(&huma.Operation{OperationID: "get-metrics", Method: http.MethodGet}, w, r, s.cfg.Metrics.ServeHTTP)
		})
	}
	s.router.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	s.router.Get("/readyz", s.ready)
}

// ready answers whether this process can serve: the store is reached. Whether
// it owns the work or stands by is told, and is no reason not to be asked.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	select {
	case <-s.drain:
		later(w, http.StatusServiceUnavailable, time.Second, "the server is being stopped")
		return
	default:
	}
	ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
	defer cancel()
	if _, err := s.cfg.Store.Revision(ctx); err != nil {
		s.storeDown(w, err)
		return
	}
	state := "standing by"
	if s.cfg.Backend.Active() {
		state = "active"
	}
	fmt.Fprintln(w, state)
}

// OperationIDs are all operations, for the test that the table is whole.
func (s *Server) OperationIDs() []string {
	ids := []string{"get-metrics", "get-openapi"}
	for _, p := range s.api.OpenAPI().Paths {
		for _, op := range []*huma.Operation{p.Get, p.Post, p.Delete, p.Put, p.Patch} {
			if op != nil {
				ids = append(ids, op.OperationID)
			}
		}
	}
	slices.Sort(ids)
	return ids
}
