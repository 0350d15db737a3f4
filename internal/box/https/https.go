// Package https is a box behind a web server.
package https

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/box"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Box is a folder of a web server.
type Box struct {
	base   string
	client *http.Client
}

// New returns the box at an http:// or https:// address. The client gives up a
// box that does not answer, and has no limit for a whole release.
func New(address string, client *http.Client) *Box {
	return &Box{strings.TrimRight(address, "/"), client}
}

// Resolve implements box.Box.
func (b *Box) Resolve(ctx context.Context, follow string) (box.Artifact, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	a, err := box.Find(ctx, b.base, follow, func(ctx context.Context, name string) ([]byte, bool, error) {
		body, err := b.get(ctx, "resolve the release", name)
		if fault.KindOf(err) == fault.NotFound {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		defer body.Close()
		raw, err := io.ReadAll(io.LimitReader(body, box.MaxIndex))
		if err != nil {
			return nil, false, b.down("resolve the release", err)
		}
		return raw, true, nil
	})
	if err == nil {
		a.URL = b.base + "/" + url.PathEscape(a.Name)
	}
	return a, err
}

// Open implements box.Box.
func (b *Box) Open(ctx context.Context, a box.Artifact) (io.ReadCloser, error) {
	return b.get(ctx, "fetch the release", a.Name)
}

func (b *Box) get(ctx context.Context, op, name string) (io.ReadCloser, error) {
	u := b.base + "/" + url.PathEscape(name)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, &fault.Error{Kind: fault.Invalid, Op: op, Object: b.base, Message: "this is not an address", Err: err}
	}
	res, err := b.client.Do(req)
	if err != nil {
		return nil, b.down(op, err)
	}
	switch {
	case res.StatusCode == http.StatusOK:
		return res.Body, nil
	case res.StatusCode == http.StatusNotFound:
		err = &fault.Error{Kind: fault.NotFound, Op: op, Object: u, Message: "the box answers 404: it has no " + name, Hint: "copy the artifact there before LATEST and SHA256SUMS name it"}
	case res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden:
		err = &fault.Error{Kind: fault.Denied, Op: op, Object: u, Message: "the box answers " + res.Status, Hint: "the box must let the Dayfly server and the instances read it"}
	case res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests:
		err = &fault.Error{Kind: fault.Unavailable, Op: op, Object: u, Message: "the box answers " + res.Status, Hint: "look at the box's own log"}
	default:
		err = &fault.Error{Kind: fault.Failed, Op: op, Object: u, Message: "the box answers " + res.Status}
	}
	res.Body.Close()
	return nil, err
}

func (b *Box) down(op string, err error) error {
	if fault.KindOf(err) == fault.Denied { // by the client: nobody was asked
		return &fault.Error{Kind: fault.Denied, Op: op, Object: b.base, Message: "the server may not ask this box", Hint: fault.HintOf(err), Err: err}
	}
	return &fault.Error{Kind: fault.Unavailable, Op: op, Object: b.base, Message: "the box does not answer", Hint: fmt.Sprintf("is it up? curl -sf %s/%s", b.base, box.Latest), Err: err}
}
