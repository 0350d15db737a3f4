package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/audit"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/operation"
	"github.com/dayfly-infra/dayfly/internal/token"
)

// What an operation may carry in its metadata.
const (
	metaTimeout = "timeout" // time.Duration instead of the usual one
	metaStream  = "stream"  // true: it goes on until the client leaves
	metaUpload  = "upload"  // true: its body is large
	metaSecret  = "secret"  // true: its answer is not kept for a repetition
)

type peerKey struct{}

// ConnContext is for http.Server: it notes who is at the other end of a unix
// socket. The socket's mode says who gets there at all.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	var got error
	if err := raw.Control(func(fd uintptr) { cred, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || got != nil {
		return ctx
	}
	uid := strconv.FormatUint(uint64(cred.Uid), 10)
	p := access.Principal{ID: "os:" + uid, Name: "uid " + uid, Role: access.Admin, From: "local"}
	if u, err := user.LookupId(uid); err == nil {
		p.Name = u.Username
	}
	return context.WithValue(ctx, peerKey{}, p)
}

// guard is what stands between a request and its operation: who asks, whether
// they may, how much and how often, and the audit log.
func (s *Server) guard(op *huma.Operation, w http.ResponseWriter, r *http.Request, next func(http.ResponseWriter, *http.Request)) {
	now := s.cfg.Clock.Now()
	p, r, ok := s.identify(op, w, r, now)
	if !ok {
		return
	}
	if need := access.Needs[op.OperationID]; !p.Role.Allows(need) {
		detail := fmt.Sprintf("%s needs the role %s, %s has %s", op.OperationID, need, p.Name, p.Role)
		if wait := s.asked.Take(p.ID, now); wait == 0 { // so that nobody floods the log
			s.denied(r, op, p, http.StatusForbidden, detail)
		}
		refuse(w, http.StatusForbidden, detail, "an admin makes a token with that role: dayfly token create --role "+string(need))
		return
	}
	if wait := s.asked.Take(p.ID, now); wait > 0 {
		later(w, http.StatusTooManyRequests, wait, fmt.Sprintf("%s asks more than %.0f times a second", p.Name, s.cfg.Limits.Rate))
		return
	}
	r = r.WithContext(access.With(r.Context(), p))
	if op.Metadata[metaStream] == true {
		if !s.streams.enter(p.ID) {
			later(w, http.StatusTooManyRequests, 5*time.Second, fmt.Sprintf("there are too many watches: %d for one, %d in all", s.streams.each, s.streams.all))
			return
		}
		defer s.streams.leave(p.ID)
		next(w, r)
		return
	}
	if !s.requests.enter(p.ID) {
		later(w, http.StatusServiceUnavailable, time.Second, fmt.Sprintf("there are too many requests at the same time: %d for one, %d in all", s.requests.each, s.requests.all))
		return
	}
	defer s.requests.leave(p.ID)
	if op.Metadata[metaUpload] == true {
		if !s.uploads.enter(p.ID) {
			later(w, http.StatusServiceUnavailable, 2*time.Second, "others send blueprints at this moment")
			return
		}
		defer s.uploads.leave(p.ID)
	}
	body, ok := s.receive(op, w, r)
	if !ok {
		return
	}
	timeout := s.cfg.Limits.Timeout
	if t, ok := op.Metadata[metaTimeout].(time.Duration); ok {
		timeout = t
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(timeout + 10*time.Second))
	r = r.WithContext(ctx)
	if op.Method == http.MethodGet {
		next(w, r)
		return
	}
	audited := func(w http.ResponseWriter, r *http.Request) { s.audited(op, p, body, w, r, next) }
	if key := r.Header.Get(keyHeader); key != "" && op.Method == http.MethodPost {
		s.once(op, p, key, body, w, r, audited)
		return
	}
	audited(w, r)
}

// identify says who asks; it has answered when it does not know.
func (s *Server) identify(op *huma.Operation, w http.ResponseWriter, r *http.Request, now time.Time) (access.Principal, *http.Request, bool) {
	secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	secret = strings.TrimSpace(secret)
	code := op.OperationID == signIn && access.CodeID(secret) != ""
	peer, local := r.Context().Value(peerKey{}).(access.Principal)
	if local && !code {
		return peer, r, true
	}
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		from = r.RemoteAddr
	}
	if local {
		from = peer.From
	}
	challenge := `Bearer realm="dayfly"`
	detail, hint := "this address needs a token (Authorization: Bearer "+access.Prefix+"...)", "on the server's machine: dayfly token create; then DAYFLY_TOKEN_FILE names the file that holds it"
	p := access.Principal{From: from}
	unknown := token.ErrUnknown
	if code {
		unknown = token.ErrCode
		var l access.Link
		l, err = s.tokens.CheckCode(r.Context(), secret)
		p.ID, p.Name, p.Role = "link:"+l.ID, l.Name, l.Role
		r = r.WithContext(context.WithValue(r.Context(), codeKey{}, secret))
	} else if ok {
		var t access.Token
		t, err = s.tokens.Check(r.Context(), secret)
		p.ID, p.Name, p.Role = "token:"+t.ID, t.Name, t.Role
	}
	if ok {
		challenge += `, error="invalid_token"`
		detail, hint = unknown.Message, unknown.Hint
	}
	if !ok || errors.Is(err, unknown) {
		// Only those who fail wait: a good token behind the same address goes on.
		// Who reads and says nothing at all, as each page of the console before
		// its sign-in, guesses nothing and need not wait.
		if ok || op.Method != http.MethodGet {
			if wait := s.mistaken.Take(from, now); wait > 0 {
				later(w, http.StatusTooManyRequests, wait, "there were too many requests without a good token from "+from)
				return access.Principal{}, r, false
			}
		}
		if op.Method != http.MethodGet {
			s.denied(r, op, access.Principal{ID: "none", Name: "nobody known", From: from}, http.StatusUnauthorized, detail)
		}
		w.Header().Set("WWW-Authenticate", challenge)
		refuse(w, http.StatusUnauthorized, detail, hint)
		return access.Principal{}, r, false
	}
	if err != nil {
		s.cfg.Log.Warn("tokens cannot be read", "error", err)
		later(w, http.StatusServiceUnavailable, time.Second, "the store does not answer")
		return access.Principal{}, r, false
	}
	return p, r, true
}

// receive reads the body, within its limits of size and time.
func (s *Server) receive(op *huma.Operation, w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	limit, patience := op.MaxBodyBytes, s.cfg.Limits.Body
	if limit <= 0 {
		limit = maxBody
	}
	if op.Metadata[metaUpload] == true {
		patience *= 10
	}
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		w.Header().Set("Connection", "close") // the rest is not waited for
	} else {
		// A deadline that is left would end the request while it is carried out.
		_ = c.SetReadDeadline(time.Time{})
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body has more than %d bytes", limit), "")
		return nil, false
	case err != nil:
		refuse(w, http.StatusRequestTimeout, fmt.Sprintf("the body was not received within %s", patience), "")
		return nil, false
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body, true
}

// maxBody is the largest body of an operation that says nothing else.
const maxBody = 256 << 10

// audited carries a call out between the two halves of its audit entry. What
// cannot be noted is not done.
func (s *Server) audited(op *huma.Operation, p access.Principal, body []byte, w http.ResponseWriter, r *http.Request, next func(http.ResponseWriter, *http.Request)) {
	e, err := s.audit.Begin(r.Context(), entry(r, op, p, about(r, body)))
	if err != nil {
		s.cfg.Log.Error("the audit log cannot be written", "error", err)
		later(w, http.StatusServiceUnavailable, time.Second, "the audit log cannot be written, so nothing is done")
		return
	}
	out := &recorder{ResponseWriter: w, keep: 4 << 10}
	defer func() {
		status, problem := out.status, ""
		if v := recover(); v != nil {
			status, problem = http.StatusInternalServerError, "panic"
			defer panic(v)
		} else if status >= 300 {
			var p Problem
			if json.Unmarshal(out.body, &p) == nil {
				problem = p.Detail
			}
		}
		end, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 5*time.Second)
		defer cancel()
		if err := s.audit.End(end, e, status, problem); err != nil {
			s.cfg.Log.Error("the result is not in the audit log", "entry", e.ID, "status", status, "error", err)
		}
		s.cfg.Log.Info("call", "request", e.Request, "who", e.Who, "from", e.From, "operation", e.Operation, "object", e.Object, "status", status, "error", problem)
	}()
	next(out, r)
}

func (s *Server) denied(r *http.Request, op *huma.Operation, p access.Principal, status int, detail string) {
	e, err := s.audit.Begin(r.Context(), entry(r, op, p, r.URL.Path))
	if err == nil {
		err = s.audit.End(r.Context(), e, status, detail)
	}
	s.cfg.Log.Warn("denied", "request", e.Request, "who", e.Who, "from", e.From, "operation", e.Operation, "object", e.Object, "audit_error", err)
}

func entry(r *http.Request, op *huma.Operation, p access.Principal, object string) audit.Entry {
	return audit.Entry{Who: p.Name, Principal: p.ID, Role: string(p.Role), From: p.From, Operation: op.OperationID, Object: object, Request: RequestID(r.Context()), Parent: operation.Parent(RequestID(r.Context()), r.Header.Get("Traceparent"))}
}

// about is what a call is about, from its path and the names in its body.
func about(r *http.Request, body []byte) string {
	out := r.URL.Path
	if r.URL.RawQuery != "" {
		out += "?" + r.URL.RawQuery
	}
	if len(body) == 0 || len(body) > maxBody || r.Header.Get("Content-Type") == "application/x-tar" {
		return out
	}
	var in map[string]any
	if json.Unmarshal(body, &in) != nil {
		return out
	}
	for _, k := range []string{"name", "purpose", "environment", "role", "size", "suites", "image", "files"} {
		if v, ok := in[k]; ok {
			out += fmt.Sprintf(" %s=%v", k, v)
		}
	}
	return out
}

// gauge counts who is inside.
type gauge struct {
	all, each int

	mu    sync.Mutex
	total int
	by    map[string]int
}

func (g *gauge) enter(who string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= g.all || g.by[who] >= g.each {
		return false
	}
	if g.by == nil {
		g.by = map[string]int{}
	}
	g.total++
	g.by[who]++
	return true
}

func (g *gauge) leave(who string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.by[who]--; g.by[who] == 0 {
		delete(g.by, who)
	}
}

// notFound is the answer about a record that is not there.
func notFound(kind, name, list string) error {
	return problem(&fault.Error{Kind: fault.NotFound, Object: kind + " " + name, Message: "there is no such " + kind, Hint: list})
}
