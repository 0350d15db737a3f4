// Package operation is the one id under which a request is found again: in the
// records that it changed, the logs of every loop that works on them, the
// intents of their cloud calls, and on the instances. It must not know requests,
// records or instances.
package operation

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"regexp"
	"strings"
	"sync"
)

// Key is the attribute of an operation's id in logs.
const Key = "op"

// Variable has the id in the environment of commands on instances.
const Variable = "DAYFLY_OPERATION"

var form = regexp.MustCompile(`^[A-Za-z0-9-]{8,32}$`)

// Valid tells whether a text may be an id.
func Valid(id string) bool { return form.MatchString(id) }

// New makes an id.
func New() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

var parent = regexp.MustCompile(`^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$`)

// FromHeaders takes the id of a request from its X-Request-Id, or from its
// traceparent (the trace's id), or makes a new one.
func FromHeaders(requestID, traceparent string) string {
	if Valid(requestID) {
		return requestID
	}
	if m := parent.FindStringSubmatch(strings.TrimSpace(traceparent)); m != nil && strings.Trim(m[1], "0") != "" {
		return m[1]
	}
	return New()
}

// Parent is the caller's span in a traceparent, where the operation id is part of
// the caller's trace; otherwise "".
func Parent(id, traceparent string) string {
	m := parent.FindStringSubmatch(strings.TrimSpace(traceparent))
	if m == nil || m[1] != id || strings.Trim(m[2], "0") == "" {
		return ""
	}
	return m[2]
}

// TraceID is the id of an operation's trace: the id itself where it is one.
func TraceID(id string) (t [16]byte) {
	if raw, err := hex.DecodeString(id); err == nil && len(raw) == 16 {
		copy(t[:], raw)
		return t
	}
	sum := sha256.Sum256([]byte(id))
	copy(t[:], sum[:])
	return t
}

type contextKey struct{}

// With returns a context of an operation.
func With(ctx context.Context, id string) context.Context {
	return Lazy(ctx, func() string { return id })
}

// Lazy returns a context of an operation whose id is asked for once, and only if
// somebody wants to know.
func Lazy(ctx context.Context, id func() string) context.Context {
	return context.WithValue(ctx, contextKey{}, sync.OnceValue(id))
}

// Of is the id of the operation that a context is of, "" without one.
func Of(ctx context.Context) string {
	f, _ := ctx.Value(contextKey{}).(func() string)
	if f == nil {
		return ""
	}
	return f()
}

// Handler adds the operation of the context to each line of a log.
func Handler(h slog.Handler) slog.Handler { return handler{h} }

type handler struct{ slog.Handler }

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if id := Of(ctx); id != "" {
		r = r.Clone()
		r.AddAttrs(slog.String(Key, id))
	}
	return h.Handler.Handle(ctx, r)
}

func (h handler) WithAttrs(as []slog.Attr) slog.Handler { return handler{h.Handler.WithAttrs(as)} }
func (h handler) WithGroup(name string) slog.Handler    { return handler{h.Handler.WithGroup(name)} }
