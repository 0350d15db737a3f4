package wire

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

func (x *exchange) serveOperation() error {
	r := x.r
	var s *service
	for _, c := range x.bus.services {
		if c.model.Signing == x.sig.service {
			s = c
			break
		}
	}
	if s != nil {
		x.protocol, x.service = s.model.Protocol, s.model.Name
		// CloudWatch speaks query and JSON; the header tells which.
		if s.model.Target != "" && r.Header.Get("X-Amz-Target") != "" {
			x.protocol = "json"
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(x.w, r.Body, maxBody))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return err
		}
		return Errorf("IncompleteBody", "the body could not be read")
	}
	sum := hashHex(body)
	if h := r.Header.Get("X-Amz-Content-Sha256"); h != "" && h != unsignedPayload && h != sum {
		return errHash
	} else if h == unsignedPayload && x.sig.presigned {
		sum = unsignedPayload
	}
	if err := x.authenticate(sum); err != nil {
		return err
	}
	if s == nil {
		return &Error{Code: "NotImplemented", Message: "the local region does not implement the service " + x.sig.service, Status: http.StatusNotImplemented}
	}
	if x.Region != "" && x.sig.region != x.Region && s.model.Name != "iam" && s.model.Name != "sts" {
		return &Error{Code: "InvalidCredentialScope", Message: fmt.Sprintf("Credential should be scoped to a valid region, not '%s'; this one is '%s'.", x.sig.region, x.Region), Status: http.StatusForbidden}
	}
	in, spec, err := x.decode(s, body)
	if err != nil {
		return err
	}
	ctx := WithCaller(r.Context(), x.caller)
	if x.Limiter != nil {
		if err := x.Limiter.Allow(x.caller, s.model.Name, x.op, in); err != nil {
			return err
		}
	}
	if err := x.authorize(ctx, s, in); err != nil {
		return err
	}
	out, err := s.handlers[x.op](ctx, in)
	if err != nil {
		return err
	}
	return x.answer(s, spec, out)
}

// decode finds the operation and reads its input.
func (x *exchange) decode(s *service, body []byte) (any, Operation, error) {
	var form url.Values
	if x.protocol == "json" {
		target, op, _ := strings.Cut(x.r.Header.Get("X-Amz-Target"), ".")
		if target != s.model.Target {
			return nil, Operation{}, Errorf("InvalidAction", "X-Amz-Target must begin with %s", s.model.Target)
		}
		x.op = op
	} else {
		var err error
		if form, err = x.form(body); err != nil {
			return nil, Operation{}, err
		}
		x.op = form.Get("Action")
		if x.op == "" {
			return nil, Operation{}, Errorf("MissingAction", "The request is missing an action parameter")
		}
		if v := form.Get("Version"); v != s.model.Version {
			return nil, Operation{}, Errorf("NoSuchVersion", "The requested version (%s) of service %s does not exist, use %s", v, s.model.Name, s.model.Version)
		}
	}
	spec, ok := s.model.Operations[x.op]
	if !ok || s.handlers[x.op] == nil {
		return nil, Operation{}, s.missing(x.op)
	}
	in := spec.Input()
	if x.protocol == "json" {
		return in, spec, decodeJSON(body, in)
	}
	return in, spec, decodeQuery(form, in, x.protocol == "ec2")
}

// form is the parameters of the body and of the address.
func (x *exchange) form(body []byte) (url.Values, error) {
	malformed := Errorf("MalformedQueryString", "the parameters are malformed")
	t, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if len(body) > 0 && (err != nil || t != "application/x-www-form-urlencoded") {
		return nil, Errorf("MalformedQueryString", "the content type must be application/x-www-form-urlencoded")
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, malformed
	}
	for k, v := range x.query {
		form[k] = append(form[k], v...)
	}
	return form, nil
}

func (x *exchange) authorize(ctx context.Context, s *service, in any) error {
	if x.policy == nil {
		return &Error{Code: "AccessDenied", Message: "the region has no policies", Status: http.StatusForbidden}
	}
	needs := []Need{{Action: x.op, Resources: []string{"*"}}}
	if n, ok := x.policy.(Needer); ok {
		needs = n.Needs(ctx, x.caller, s.model.Signing, x.op, in)
	}
	if len(needs) == 0 {
		return nil
	}
	base := x.conditions()
	for _, n := range needs {
		cond := base
		if len(n.Conditions) > 0 {
			cond = maps.Clone(base)
			maps.Copy(cond, n.Conditions)
		}
		if err := x.policy.Authorize(ctx, x.caller, cmp.Or(n.Service, s.model.Signing), n.Action, n.Resources, cond); err != nil {
			return err
		}
	}
	return nil
}

// conditions are the context keys that every request has.
func (x *exchange) conditions() map[string]string {
	now := x.now.Now().UTC()
	c := map[string]string{
		"aws:RequestedRegion": x.sig.region,
		"aws:SecureTransport": strconv.FormatBool(x.r.TLS != nil),
		"aws:CurrentTime":     now.Format(time.RFC3339),
		"aws:EpochTime":       strconv.FormatInt(now.Unix(), 10),
	}
	if ua := x.r.UserAgent(); ua != "" {
		c["aws:UserAgent"] = ua
	}
	if host, _, err := net.SplitHostPort(x.r.RemoteAddr); err == nil {
		c["aws:SourceIp"] = host
	}
	return c
}

func (x *exchange) answer(s *service, spec Operation, out any) error {
	var body []byte
	var err error
	h := x.w.Header()
	if x.protocol == "json" {
		body, err = encodeJSON(spec, out)
		h.Set("Content-Type", "application/x-amz-json-1.1")
	} else {
		body, err = encodeXML(&s.model, x.op, spec, out, x.id)
		h.Set("Content-Type", "text/xml;charset=UTF-8")
	}
	if err != nil {
		return err
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.w.WriteHeader(http.StatusOK)
	io.Copy(x.w, bytes.NewReader(body)) // a client that went away needs no answer
	return nil
}
