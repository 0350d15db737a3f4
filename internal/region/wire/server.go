package wire

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/clock"
)

// Authorizer decides what a caller may do: nil or the error AccessDenied with
// AWS's own words. Service is the name in SigV4's scope, action is without it.
type Authorizer interface {
	Authorize(ctx context.Context, c Caller, service, action string, resources []string, conditions map[string]string) error
}

// Need is a right that a request takes.
type Need struct {
	Service    string // "" is the service that was called
	Action     string
	Resources  []string // all of them are needed
	Conditions map[string]string
}

// Needer is an Authorizer that knows which rights, on which resources, an
// operation with this input takes; without it a request takes the right of
// the operation's own name on "*".
type Needer interface {
	Needs(ctx context.Context, c Caller, service, op string, in any) []Need
}

// Limiter refuses calls that come too fast, with the service's own error; in is
// the operation's input, nil for objects, where op is the HTTP method.
type Limiter interface {
	Allow(caller Caller, service, op string, in any) error
}

// Server is the region's endpoint for all services.
type Server struct {
	// Objects serves requests that are signed for "s3"; the caller is in the
	// context and the body is already verified and free of aws-chunked.
	Objects http.Handler
	// Limiter may be nil.
	Limiter Limiter
	// Region, where set, is the only one that regional services may be called in.
	Region string

	bus    *Bus
	auth   Authenticator
	policy Authorizer
	log    *slog.Logger
	now    clock.Clock
}

// NewServer returns the endpoint; all services must be on the bus before the
// first request.
func NewServer(bus *Bus, auth Authenticator, policy Authorizer, log *slog.Logger, now clock.Clock) *Server {
	return &Server{bus: bus, auth: auth, policy: policy, log: log, now: now}
}

// exchange is one request on its way.
type exchange struct {
	*Server
	w        *statusWriter
	r        *http.Request
	id       string
	protocol string
	service  string
	op       string
	caller   Caller
	sig      *signature
	query    url.Values
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(code int) {
	if w.status == 0 {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap gives http.ResponseController the writer below.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func newRequestID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// ServeHTTP serves one request of any service.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := s.now.Now()
	x := &exchange{Server: s, w: &statusWriter{ResponseWriter: w}, r: r, id: newRequestID(), protocol: "query"}
	x.w.Header().Set("X-Amzn-Requestid", x.id)
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.log.Error("a handler panicked", "service", x.service, "operation", x.op, "request", x.id, "panic", p, "stack", string(debug.Stack()))
			if x.w.status != 0 { // half an answer is out: cut it off
				panic(http.ErrAbortHandler)
			}
			WriteError(x.w, r, x.protocol, x.id, internal())
		}
		s.log.Debug("served", "service", x.service, "operation", x.op, "caller", x.caller.ARN, "status", x.w.status, "request", x.id, "took", s.now.Now().Sub(start))
	}()
	if err := x.serve(); err != nil {
		x.fail(err)
	}
}

func internal() *Error {
	return &Error{Code: "InternalFailure", Message: "An internal error has occurred", Status: http.StatusInternalServerError}
}

func (x *exchange) fail(err error) {
	e, ok := errors.AsType[*Error](err)
	switch {
	case errors.Is(x.r.Context().Err(), context.Canceled):
		e = &Error{Code: "RequestCanceled", Message: "the client went away", Status: 499}
	case !ok:
		x.log.Error("an operation failed", "service", x.service, "operation", x.op, "request", x.id, "error", err)
		e = internal()
	case e.Status >= http.StatusInternalServerError && e.Status != http.StatusNotImplemented:
		x.log.Warn("an operation failed", "service", x.service, "operation", x.op, "request", x.id, "error", err)
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		e = &Error{Code: "RequestEntityTooLarge", Message: fmt.Sprintf("the body has more than %d bytes", tooLarge.Limit), Status: http.StatusRequestEntityTooLarge}
	}
	WriteError(x.w, x.r, x.protocol, x.id, e)
}

func (x *exchange) serve() error {
	r := x.r
	var err error
	if x.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		return Errorf("MalformedQueryString", "the query string is malformed")
	}
	guess := x.guess()
	x.protocol = guess
	if x.sig, err = parseSignature(r, x.query); err != nil {
		return err
	}
	if x.sig.service == "s3" {
		x.protocol = ProtocolS3
		return x.serveObjects()
	}
	return x.serveOperation()
}

// guess is the protocol of a request whose signature says nothing of it.
func (x *exchange) guess() string {
	t, _, _ := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	switch {
	case x.r.Header.Get("X-Amz-Target") != "":
		return "json"
	case t == "application/x-www-form-urlencoded" || x.query.Has("Action"):
		return "query"
	}
	return ProtocolS3
}

func (x *exchange) authenticate(bodyHash string) error {
	secret, caller, err := x.auth.Secret(x.r.Context(), x.sig.keyID, x.sig.token)
	if err != nil {
		return err
	}
	if err := x.sig.verify(x.r, secret, bodyHash); err != nil {
		return err
	}
	// After the signature: only then is the date the key owner's own.
	if err := x.sig.inTime(x.now.Now()); err != nil {
		return err
	}
	caller.RequestID = x.id
	caller.Service = "" // nobody becomes a service over the network
	x.caller = caller
	return nil
}

func (x *exchange) serveObjects() error {
	x.service = "s3"
	r := x.r
	form := r.Header.Get("X-Amz-Content-Sha256")
	if x.sig.presigned {
		form = cmp.Or(form, x.query.Get("X-Amz-Content-Sha256"), unsignedPayload)
	}
	if form == "" {
		return &Error{Code: "InvalidRequest", Message: "Missing required header for this request: x-amz-content-sha256", Status: http.StatusBadRequest}
	}
	if err := x.authenticate(form); err != nil {
		return err
	}
	if x.Objects == nil {
		return &Error{Code: "NotImplemented", Message: "the region has no service s3", Status: http.StatusNotImplemented}
	}
	if x.Limiter != nil {
		if err := x.Limiter.Allow(x.caller, "s3", r.Method, nil); err != nil {
			return err
		}
	}
	r = r.WithContext(WithCaller(r.Context(), x.caller))
	switch {
	case form == unsignedPayload:
	case strings.HasPrefix(form, streamPrefix):
		body, err := newChunkedBody(r, x.sig, form)
		if err != nil {
			return err
		}
		r.Body, r.ContentLength, r.Trailer = body, body.want, body.trailer
		r.Header = r.Header.Clone()
		enc := strings.TrimPrefix(strings.TrimPrefix(r.Header.Get("Content-Encoding"), "aws-chunked"), ",")
		if enc == "" {
			r.Header.Del("Content-Encoding")
		} else {
			r.Header.Set("Content-Encoding", strings.TrimSpace(enc))
		}
	case r.ContentLength == 0:
		if form != emptyHash {
			return errHash
		}
	default:
		r.Body = newHashedBody(r.Body, form)
	}
	x.w.Header().Set("X-Amz-Request-Id", x.id)
	x.Objects.ServeHTTP(x.w, r)
	return nil
}
