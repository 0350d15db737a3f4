// Package client speaks to the Dayfly server's API, over its unix socket or its
// address with a token. It must not decide anything.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Client is a connection to a server. It is safe for concurrent use.
type Client struct {
	base   string // URL without a path
	object string // what errors name
	hint   string
	token  string
	http   *http.Client
	fail   error // instead of asking
}

// Failing returns a client that gives an error to whoever asks: many commands
// never do.
func Failing(err error) *Client { return &Client{fail: err} }

// New returns a client for the server that listens on the socket.
func New(socket string) *Client {
	d := net.Dialer{Timeout: 5 * time.Second}
	return &Client{base: "http://dayfly", object: socket, hint: "dayfly server start", http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
	}}}
}

// NewRemote returns a client for the server at an address, such as
// https://dayfly.example:8443. The token must not go over a network in plain.
func NewRemote(address, token string) (*Client, error) {
	u, err := url.Parse(address)
	bad := func(why, hint string) (*Client, error) {
		return nil, &fault.Error{Kind: fault.Invalid, Op: "reach the Dayfly server", Object: address, Message: why, Hint: hint}
	}
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.RawQuery != "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
		return bad("this is not the address of a server", "for example --server https://dayfly.example:8443")
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return bad("plain http would show the token to the network", "use https://")
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	return &Client{base: u.Scheme + "://" + u.Host, object: address, hint: "is its address right, and does it run? dayfly server status on its machine says so", token: token, http: &http.Client{Transport: t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
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

// Put sends a file and reads v.
func (c *Client) Put(ctx context.Context, path string, raw []byte, v any) error {
	return c.do(ctx, http.MethodPut, path, nil, bytes.NewReader(raw), "application/octet-stream", v)
}

// Delete asks for the end of something and reads v.
func (c *Client) Delete(ctx context.Context, path string, v any) error {
	return c.do(ctx, http.MethodDelete, path, nil, nil, "", v)
}

// page is a part of a list.
type page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next"`
}

// List reads the records of a collection, such as "environments", page by page.
func List[T any](ctx context.Context, c *Client, collection, prefix string) ([]T, error) {
	return Some[T](ctx, c, collection, url.Values{"prefix": {prefix}}, 0)
}

// Some reads a list until there are enough; 0 is all.
func Some[T any](ctx context.Context, c *Client, collection string, query url.Values, most int) ([]T, error) {
	out := []T{}
	for {
		query.Set("limit", "500")
		if most > 0 {
			query.Set("limit", fmt.Sprint(min(most-len(out), 500)))
		}
		var p page[T]
		if err := c.Get(ctx, "/v1/"+collection, query, &p); err != nil {
			return nil, err
		}
		out = append(out, p.Items...)
		if p.Next == "" || (most > 0 && len(out) >= most) {
			return out, nil
		}
		query.Set("cursor", p.Next)
	}
}

// One reads one record.
func One[T any](ctx context.Context, c *Client, collection, name string) (T, error) {
	var p page[T]
	err := c.Get(ctx, "/v1/"+collection, url.Values{"name": {name}}, &p)
	if err != nil || len(p.Items) == 0 {
		var zero T
		return zero, err
	}
	return p.Items[0], nil
}

// do asks; what may be repeated without doing it twice is asked once more when
// the answer was lost on its way.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body io.Reader, typ string, v any) error {
	key := ""
	if method == http.MethodPost {
		key = newKey()
	}
	again, _ := body.(io.Seeker)
	raw, err := c.once(ctx, method, path, query, body, typ, key)
	var lost *lostError
	if errors.As(err, &lost) && ctx.Err() == nil && (body == nil || again != nil) {
		if again != nil {
			if _, err := again.Seek(0, io.SeekStart); err != nil {
				return err
			}
		}
		raw, err = c.once(ctx, method, path, query, body, typ, key)
	}
	if err != nil {
		return err
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

// newKey names a request, so that the server carries it out once.
func newKey() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// lostError says that the request may have arrived and its answer did not.
type lostError struct{ error }

func (l *lostError) Unwrap() error { return l.error }

func (c *Client) request(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Request, error) {
	if c.fail != nil {
		return nil, c.fail
	}
	u := c.base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	if body != nil {
		body = io.NopCloser(body) // the transport must not close what is sent again
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

func (c *Client) once(ctx context.Context, method, path string, query url.Values, body io.Reader, typ, key string) ([]byte, error) {
	req, err := c.request(ctx, method, path, query, body)
	if err != nil {
		return nil, err
	}
	if typ != "" {
		req.Header.Set("Content-Type", typ)
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreached(ctx, err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &lostError{c.down("the connection broke", err)}
	}
	if res.StatusCode >= 300 {
		return nil, refusal(res.StatusCode, raw)
	}
	return raw, nil
}

func (c *Client) down(message string, err error) error {
	return &fault.Error{Kind: fault.Unavailable, Op: "reach the Dayfly server", Object: c.object, Message: message, Hint: c.hint, Err: err}
}

// unreached says why there is no answer.
func (c *Client) unreached(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return c.down("nobody answers there", dial.Err)
	}
	var tls *tls.CertificateVerificationError
	if errors.As(err, &tls) {
		return &fault.Error{Kind: fault.Denied, Op: "reach the Dayfly server", Object: c.object, Message: "its certificate is not trusted", Hint: "SSL_CERT_FILE names a file with the certificates to trust", Err: tls.Err}
	}
	return &lostError{c.down("the connection broke", errors.Unwrap(err))}
}

// refusal makes a problem document the fault that it was in the server.
func refusal(status int, raw []byte) error {
	var p struct {
		Detail string     `json:"detail"`
		Kind   fault.Kind `json:"kind"`
		Hint   string     `json:"hint"`
		Errors []struct {
			Detail    string `json:"detail"`
			Pointer   string `json:"pointer"`
			Parameter string `json:"parameter"`
		} `json:"errors"`
	}
	if json.Unmarshal(raw, &p) != nil || p.Detail == "" {
		return &fault.Error{Kind: fault.Internal, Message: fmt.Sprintf("the server answered %d", status)}
	}
	if p.Kind == "" {
		p.Kind = fault.Invalid
	}
	for _, e := range p.Errors {
		p.Detail += "; " + strings.TrimPrefix(e.Pointer+e.Parameter+": "+e.Detail, ": ")
	}
	return &fault.Error{Kind: p.Kind, Message: p.Detail, Hint: p.Hint}
}
