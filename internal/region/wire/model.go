// Package wire speaks the AWS protocols (EC2 query, AWS query, JSON 1.1) as
// the SDKs do: it authenticates a request (SigV4), decodes it into the typed
// input of an operation, calls the service's method of that name, and encodes
// the output or the error. It must not know what any operation does.
package wire

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Model is what the generated api packages say of a service.
type Model struct {
	Name       string // botocore's name: ec2, autoscaling, elbv2, cloudformation, ssm, iam, sts
	Signing    string // name in SigV4's credential scope
	Protocol   string // "ec2", "query" or "json"
	Version    string // API version, the Version parameter of query protocols
	Namespace  string // XML namespace of query answers
	Target     string // X-Amz-Target prefix of JSON protocols
	Operations map[string]Operation
	Known      []string // every operation of the service, implemented or not
}

// Operation gives fresh input and output values of one operation.
//
// The fields carry tags: q (query parameter), x (XML element), j (JSON key),
// i (list item's name), flat (list without a wrapper in query input),
// req (required), enum (allowed values, separated by |). Strings are plain,
// "" is absent; numbers, booleans and times are pointers, nil is absent.
type Operation struct {
	Input   func() any
	Output  func() any // nil: the answer has no body
	Wrapper string     // result element of the query protocol
}

// Error is an AWS error as a client sees it. Services return it; any other
// error reaches the client as InternalFailure and is logged.
type Error struct {
	Code    string // AWS's own code, such as InvalidInstanceID.NotFound
	Message string
	Status  int // HTTP status; 0 means 400
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Errorf makes a client error (HTTP 400) with AWS's code.
func Errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Status: http.StatusBadRequest}
}

// Caller is who makes a request; it travels in the context.
type Caller struct {
	Account   string
	ARN       string // arn:aws:iam::…:root, arn:aws:sts::…:assumed-role/ROLE/i-…
	Role      string // role name when the credentials are a role's, else ""
	Session   string // role session name; an instance id for instance credentials
	RequestID string
	Service   string // set on calls that a service of the region makes for its user, such as "cloudformation"
	Limits    string // session policies that narrow a role's rights further, in the authenticator's own form
}

type callerKey struct{}

// WithCaller returns a context that carries the caller.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerFrom returns the context's caller; ok is false where there is none.
func CallerFrom(ctx context.Context) (c Caller, ok bool) {
	c, ok = ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// Internal returns the context of a call that a service makes for its user or
// for itself; the request's id stays.
func Internal(ctx context.Context, account, service string) context.Context {
	c, _ := CallerFrom(ctx)
	return WithCaller(ctx, Caller{Account: account, ARN: "arn:aws:iam::" + account + ":root", RequestID: c.RequestID, Service: service})
}

// CodeOf is the AWS code of an error, "" where it has none.
func CodeOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

// Unrealised is the honest answer to a parameter that the region cannot keep.
func Unrealised(what string) *Error {
	return &Error{Code: "NotImplemented", Message: "the local region does not implement " + what, Status: http.StatusNotImplemented}
}
