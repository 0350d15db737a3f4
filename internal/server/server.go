// Package server is the HTTP API: OpenAPI from code, who may ask, limits, typed
// answers, problem details for errors, and changes as server-sent events. It
// must not decide what is done: the backend does.
package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/audit"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/operation"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/token"
)

// Config of a Server.
type Config struct {
	Backend Backend
	Store   store.Store
	Clock   clock.Clock
	Log     *slog.Logger
	Version string
	Limits  Limits
	Metrics http.Handler // at /metrics; nil: there are none
	// Answered is told of each request; nil tells nobody.
	Answered func(method, route string, status int, took time.Duration)
}

// Limits of what is taken. Zero values take the defaults.
type Limits struct {
	Rate       float64       // requests per second and principal
	Burst      float64       //
	Concurrent int           // requests at the same time
	Each       int           // of them for one principal
	Streams    int           // watches at the same time
	EachStream int           // of them for one principal
	Uploads    int           // blueprints that are being received
	Timeout    time.Duration // of a request
	Heartbeat  time.Duration // of a watch
	Body       time.Duration // to receive a request's body
}

// DefaultLimits are for a control plane that people and pipelines ask.
var DefaultLimits = Limits{
	Rate: 50, Burst: 200, Concurrent: 256, Each: 64, Streams: 256, EachStream: 16, Uploads: 4,
	Timeout: time.Minute, Heartbeat: 15 * time.Second, Body: 30 * time.Second,
}

// Server is the API's handler.
type Server struct {
	cfg    Config
	api    huma.API
	router chi.Router
	tokens *token.Tokens
	audit  *audit.Log

	asked    access.Buckets // by principal
	mistaken access.Buckets // failed authentications, by address
	requests gauge
	streams  gauge
	uploads  gauge

	drained sync.Once
	drain   chan struct{} // closed: streams end
}

// New returns the API's handler.
func New(cfg Config) *Server {
	adopt()
	if cfg.Limits == (Limits{}) {
		cfg.Limits = DefaultLimits
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	l := cfg.Limits
	s := &Server{
		cfg: cfg, router: chi.NewRouter(), drain: make(chan struct{}),
		tokens: &token.Tokens{Store: cfg.Store, Clock: cfg.Clock}, audit: &audit.Log{Store: cfg.Store, Clock: cfg.Clock},
		asked:    access.Buckets{Rate: l.Rate, Burst: l.Burst},
		mistaken: access.Buckets{Rate: 1.0 / 6, Burst: 10},
		requests: gauge{all: l.Concurrent, each: l.Each}, streams: gauge{all: l.Streams, each: l.EachStream}, uploads: gauge{all: l.Uploads, each: l.Uploads},
	}
	h := huma.DefaultConfig("Dayfly", cfg.Version)
	h.CreateHooks = nil                                   // no $schema links in answers
	h.OpenAPIPath, h.DocsPath, h.SchemasPath = "", "", "" // the document is an operation with a role
	h.RejectUnknownQueryParameters = true
	h.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	h.Info.Description = describe()
	h.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer", BearerFormat: access.Prefix + "ID_SECRET", Description: "made by dayfly token create; not needed on the server's unix socket"}}
	s.api = humachi.New(s.router, h)
	s.api.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) {
		r, w := humachi.Unwrap(ctx)
		op := ctx.Operation()
		s.guard(op, w, r, func(w http.ResponseWriter, r *http.Request) { next(humachi.NewContext(op, r, w)) })
	})
	s.router.NotFound(func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, "there is nothing at this path", "GET /openapi.json shows what there is")
	})
	s.router.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusMethodNotAllowed, r.Method+" is not for this path", "GET /openapi.json shows what there is")
	})
	s.operations()
	return s
}

// schemaName gives types of other packages their package's name, so that
// environment.Change and bake.Change are two.
func schemaName(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	name := huma.DefaultSchemaNamer(t, hint)
	pkg := path.Base(t.PkgPath())
	if t.Name() == "" || strings.Contains(t.Name(), "[") || pkg == "server" || strings.EqualFold(pkg, name) {
		return name
	}
	return strings.ToUpper(pkg[:1]) + pkg[1:] + name
}

// OpenAPI is the document.
func (s *Server) OpenAPI() *huma.OpenAPI { return s.api.OpenAPI() }

// Document is the OpenAPI document of a version, without a server.
func Document(version string) *huma.OpenAPI {
	return New(Config{Version: version, Backend: struct{ Backend }{}}).OpenAPI()
}

// Drain ends the streams, whose clients come again elsewhere; other requests
// go on to their end.
func (s *Server) Drain() { s.drained.Do(func() { close(s.drain) }) }

// RequestID is the id of the request that a context is of, and of the operation
// that it begins.
func RequestID(ctx context.Context) string { return operation.Of(ctx) }

// ServeHTTP gives each request an id, logs it, and survives its panic.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := operation.FromHeaders(r.Header.Get("X-Request-Id"), r.Header.Get("Traceparent"))
	began := s.cfg.Clock.Now()
	h := w.Header()
	h.Set("X-Request-Id", id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	out := &recorder{ResponseWriter: w}
	// Its own, so that the route is known when the request has ended.
	ctx := context.WithValue(operation.With(r.Context(), id), chi.RouteCtxKey, chi.NewRouteContext())
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.cfg.Log.Error("a request panicked", "request", id, "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			if out.status == 0 {
				refuse(out, http.StatusInternalServerError, "this is a defect of Dayfly; the server's log has it under the request "+id, "")
			}
		}
		took := s.cfg.Clock.Now().Sub(began)
		if s.cfg.Answered != nil {
			s.cfg.Answered(r.Method, chi.RouteContext(ctx).RoutePattern(), out.status, took)
		}
		level := slog.LevelDebug
		if out.status >= 500 {
			level = slog.LevelWarn
		}
		s.cfg.Log.Log(ctx, level, "request", "request", id, "method", r.Method, "path", r.URL.Path, "status", out.status, "millis", took.Milliseconds())
	}()
	s.router.ServeHTTP(out, r.WithContext(ctx))
}

// recorder knows what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	keep   int // bytes of the body that are kept
	body   []byte
	cut    bool
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	if len(r.body)+len(b) <= r.keep {
		r.body = append(r.body, b...)
	} else if r.keep > 0 {
		r.cut = true
	}
	return r.ResponseWriter.Write(b)
}

// Flush is for streams.
func (r *recorder) Flush() {
	_ = http.NewResponseController(r.ResponseWriter).Flush()
}
