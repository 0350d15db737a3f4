package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Event is what a watch tells.
type Event struct {
	// Type is change, heartbeat (nothing was missed up to the revision) or reset
	// (deletions since the last one are not known: list again).
	Type     string          `json:"type"`
	Revision int64           `json:"revision"`
	Kind     string          `json:"kind,omitempty"`
	Name     string          `json:"name,omitempty"`
	Deleted  bool            `json:"deleted,omitempty"`
	Record   json.RawMessage `json:"record,omitempty"`
}

const (
	// Now as a revision: only what comes.
	Now = int64(-1)
	// silence is how long a stream may say nothing: three heartbeats.
	silence = 45 * time.Second
	// maxEvent bounds one line of a stream.
	maxEvent = 16 << 20

	soon, patience = 200 * time.Millisecond, 5 * time.Second
)

// endedError is why who watches does not want more.
type endedError struct{ error }

// Watch calls f with every change since a revision, in order, until ctx ends, f
// fails, or the server refuses. A connection that breaks, or says nothing, is
// made again from the last event, so that nothing is missed: over a restart of
// the server, or at another replica behind the same address.
func (c *Client) Watch(ctx context.Context, kinds []string, since int64, f func(Event) error) error {
	began, wait := false, soon
	for {
		before := since
		err := c.stream(ctx, kinds, &since, &began, f)
		var ended endedError
		switch kind := fault.KindOf(err); {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &ended):
			return ended.error
		case !began, kind == fault.Denied, kind == fault.Invalid, kind == fault.NotFound:
			return err
		}
		if since != before {
			wait = soon
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait/2 + rand.N(wait)): // not all at once, after a restart
		}
		wait = min(2*wait, patience)
	}
}

// stream is one connection of a watch.
func (c *Client) stream(ctx context.Context, kinds []string, since *int64, began *bool, f func(Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q := url.Values{"since": {strconv.FormatInt(*since, 10)}}
	if len(kinds) > 0 {
		q.Set("kinds", strings.Join(kinds, ","))
	}
	req, err := c.request(ctx, http.MethodGet, "/v1/watch", q, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	if *since >= 0 {
		req.Header.Set("Last-Event-ID", strconv.FormatInt(*since, 10))
	}
	watchdog := time.AfterFunc(silence, cancel)
	defer watchdog.Stop()
	res, err := c.http.Do(req)
	if err != nil {
		return c.unreached(ctx, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		raw, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		return refusal(res.StatusCode, raw)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 0, 64<<10), maxEvent)
	var kind, data string
	for lines.Scan() {
		watchdog.Reset(silence)
		line := lines.Text()
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case field == "event":
			kind = value
		case field == "data":
			data += value
		case line == "" && data != "":
			e := Event{}
			if err := json.Unmarshal([]byte(data), &e); err != nil {
				return fmt.Errorf("read the server's event: %w", err)
			}
			if e.Type = kind; kind == "" {
				e.Type = "change" // the first of those that the server has
			}
			if err := f(e); err != nil {
				return endedError{err}
			}
			*since, *began = e.Revision, true
			kind, data = "", ""
		}
	}
	return c.down("the connection broke", lines.Err())
}
