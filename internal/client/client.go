// Package client speaks to the Dayfly server's API over its unix socket. It
// must not decide anything.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Client is a connection to a server. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// New returns a client for the server that listens on the socket.
func New(socket string) *Client {
	d := net.Dialer{Timeout: 5 * time.Second}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
	}}}
}

// Get reads a path into v.
func (c *Client) Get(ctx context.Context, path string, query url.Values, v any) error {
	return c.do(ctx, http.MethodGet, path, query, nil, "", v)
}

// Post sends in as JSON, or as it is when it is an io.Reader, and reads v.
func (c *Client) Post(ctx context.Context, path string, query url.Values, in, v any) error {
	if r, ok := in.(io.Reader); ok {
		return c.do(ctx, http.MethodPost, path, query, r, "application/x-tar", v)
	}
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	return c.do(ctx, http.MethodPost, path, query, body, "application/json", v)
}

// Delete asks for the end of something and reads v.
func (c *Client) Delete(ctx context.Context, path string, v any) error {
	return c.do(ctx, http.MethodDelete, path, nil, nil, "", v)
}

// List reads the records of a collection, such as "environments".
func List[T any](ctx context.Context, c *Client, collection, prefix string) ([]T, error) {
	var out []T
	err := c.Get(ctx, "/v1/"+collection, url.Values{"prefix": {prefix}}, &out)
	return out, err
}

// One reads one record.
func One[T any](ctx context.Context, c *Client, collection, name string) (T, error) {
	var out []T
	err := c.Get(ctx, "/v1/"+collection, url.Values{"name": {name}}, &out)
	if err != nil || len(out) == 0 {
		var zero T
		return zero, err
	}
	return out[0], nil
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, body io.Reader, typ string, v any) error {
	u := "http://dayfly" + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return err
	}
	if typ != "" {
		req.Header.Set("Content-Type", typ)
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &fault.Error{Kind: fault.Unavailable, Op: "reach the Dayfly server", Object: c.socket, Message: "nobody answers there", Hint: "dayfly server start", Err: errors.Unwrap(err)}
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	if res.StatusCode >= 300 {
		return refusal(res.StatusCode, raw)
	}
	switch v := v.(type) {
	case nil:
	case *[]byte:
		*v = raw
	default:
		if len(raw) == 0 {
			return nil
		}
		if err := json.Unmarshal(raw, v); err != nil {
			return fmt.Errorf("read the server's answer: %w", err)
		}
	}
	return nil
}

// refusal makes a problem document the fault that it was in the server.
func refusal(status int, raw []byte) error {
	var p struct {
		Detail string     `json:"detail"`
		Kind   fault.Kind `json:"kind"`
		Hint   string     `json:"hint"`
		Errors []struct {
			Message  string `json:"message"`
			Location string `json:"location"`
		} `json:"errors"`
	}
	if json.Unmarshal(raw, &p) != nil || p.Detail == "" {
		return &fault.Error{Kind: fault.Internal, Message: fmt.Sprintf("the server answered %d", status)}
	}
	if p.Kind == "" {
		p.Kind = fault.Invalid
	}
	for _, e := range p.Errors {
		p.Detail += fmt.Sprintf("; %s: %s", e.Location, e.Message)
	}
	return &fault.Error{Kind: p.Kind, Message: p.Detail, Hint: p.Hint}
}
