package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"github.com/dayfly-infra/dayfly/internal/audit"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/hook"
	"github.com/dayfly-infra/dayfly/internal/operation"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
)

// Triggers carries out what people want of triggers, and takes hooks.
type Triggers interface {
	SetTrigger(ctx context.Context, name string, t SetTrigger) (pipeline.Trigger, error)
	DeleteTrigger(ctx context.Context, name string) error
	// Hook takes a delivery. When its signature is good it calls signed, and does
	// nothing where that fails.
	Hook(ctx context.Context, trigger string, h http.Header, body []byte, signed func() error) (Hooked, error)
}

// SetTrigger says when runs of a blueprint's pipeline begin. Secrets are names
// of files in the server's folder secrets.
type SetTrigger struct {
	Files   string `json:"files" doc:"digest of the blueprint, from POST /v1/blueprints" pattern:"^sha256:[0-9a-f]{64}$" maxLength:"71"`
	Seconds int    `json:"seconds,omitempty" doc:"so often" minimum:"0" maximum:"31536000"`
	Cron    string `json:"cron,omitempty" doc:"minute hour day month weekday, in UTC" maxLength:"200"`
	Hook    string `json:"hook,omitempty" enum:"github,gitlab,hmac" doc:"whose hooks are taken at /hooks/NAME"`
	Secret  string `json:"secret,omitempty" doc:"file with the hook's secret" maxLength:"60" pattern:"^([a-z][a-z0-9-]*)?$"`
	Repo    string `json:"repo,omitempty" doc:"only pushes to it" maxLength:"200"`
	Branch  string `json:"branch,omitempty" doc:"only pushes to it" maxLength:"200"`

	StatusForge string `json:"status_forge,omitempty" enum:"github,gitlab" doc:"where the commit's status is set"`
	StatusAPI   string `json:"status_api,omitempty" doc:"default the forge's own" maxLength:"300"`
	StatusToken string `json:"status_token,omitempty" doc:"file with the forge's token" maxLength:"60" pattern:"^([a-z][a-z0-9-]*)?$"`
}

// Hooked is what became of a hook.
type Hooked struct {
	Run string `json:"run,omitempty"`
	Why string `json:"why,omitempty"` // nothing was started
}

func (s *Server) triggers() {
	b := s.cfg.Backend
	post(s, "set-trigger", "/v1/triggers/{name}", "Say when runs of a pipeline begin", func(ctx context.Context, in *struct {
		Name string `path:"name" maxLength:"32" pattern:"^[a-z][a-z0-9-]*[a-z0-9]$"`
		Body SetTrigger
	}) (*out[pipeline.Trigger], error) {
		return answer(b.SetTrigger(ctx, in.Name, in.Body))
	})
	register(s, huma.Operation{OperationID: "delete-trigger", Method: http.MethodDelete, Path: "/v1/triggers/{name}", Summary: "Remove a trigger"}, func(ctx context.Context, in *named) (*struct{}, error) {
		return nil, problem(b.DeleteTrigger(ctx, in.Name))
	})
	records[pipeline.Trigger](s, "triggers", pipeline.TriggerKind, "trigger list")
	s.router.Post("/hooks/{trigger}", s.hook)
}

// hook takes what a forge sends. It has no token: its signature says who it is.
func (s *Server) hook(w http.ResponseWriter, r *http.Request) {
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		from = r.RemoteAddr
	}
	who := "hook:" + from
	now := s.cfg.Clock.Now()
	if wait := s.asked.Take(who, now); wait > 0 {
		later(w, http.StatusTooManyRequests, wait, "there are too many hooks from "+from)
		return
	}
	if !s.requests.enter(who) {
		later(w, http.StatusServiceUnavailable, s.cfg.Limits.Heartbeat, "there are too many requests at the same time")
		return
	}
	defer s.requests.leave(who)
	_ = http.NewResponseController(w).SetReadDeadline(now.Add(s.cfg.Limits.Body))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, hook.MaxBody))
	if err != nil {
		refuse(w, http.StatusRequestEntityTooLarge, "the body cannot be read, or is too large", "")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.Limits.Timeout)
	defer cancel()
	note := s.noted(ctx, r, from)
	done, err := s.cfg.Backend.Hook(ctx, chi.URLParam(r, "trigger"), r.Header, body, note.begin)
	if h, ok := errors.AsType[*hook.Error](err); ok {
		if h.Status == http.StatusUnauthorized {
			if wait := s.mistaken.Take(from, now); wait > 0 { // and nobody floods the audit log
				later(w, http.StatusTooManyRequests, wait, "there were too many hooks that are not signed as they should be")
				return
			}
		}
		note.end(h.Status, h.Why, "")
		refuse(w, h.Status, h.Why, "")
		return
	}
	if err != nil {
		status := http.StatusInternalServerError
		if fault.KindOf(err) == fault.Unavailable {
			status = http.StatusServiceUnavailable
		}
		s.cfg.Log.ErrorContext(ctx, "a hook failed", "error", err)
		note.end(status, err.Error(), "")
		refuse(w, status, "the run could not be started; the server's log says why", "")
		return
	}
	status := http.StatusOK
	if done.Run != "" {
		status = http.StatusAccepted
	}
	note.end(status, done.Why, done.Run)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(done)
}

// note is the audit entry of a hook: begun when its signature is good, before
// anything is done, or when it was refused. Nothing that the sender said is in
// it but the trigger's name.
type note struct {
	s     *Server
	ctx   context.Context
	entry audit.Entry
	begun bool
}

func (s *Server) noted(ctx context.Context, r *http.Request, from string) *note {
	return &note{s: s, ctx: context.WithoutCancel(ctx), entry: audit.Entry{
		Who: "hook", Principal: "hook:" + from, From: from, Operation: "hook", Object: r.URL.Path, Request: RequestID(ctx),
		Parent: operation.Parent(RequestID(ctx), r.Header.Get("Traceparent")),
	}}
}

func (n *note) begin() (err error) {
	if n.entry, err = n.s.audit.Begin(n.ctx, n.entry); err != nil {
		return &fault.Error{Kind: fault.Unavailable, Op: "take the hook", Message: "the audit log cannot be written, so nothing is done", Err: err}
	}
	n.begun = true
	return nil
}

func (n *note) end(status int, problem, run string) {
	ctx, cancel := context.WithTimeout(n.ctx, 5*time.Second)
	defer cancel()
	n.ctx = ctx
	var err error
	if !n.begun {
		err = n.begin()
	}
	if run != "" {
		n.entry.Object += " run=" + run
	}
	if err == nil {
		err = n.s.audit.End(ctx, n.entry, status, problem)
	}
	if err != nil {
		n.s.cfg.Log.Error("a hook's result is not in the audit log", "status", status, "error", err)
	}
}
