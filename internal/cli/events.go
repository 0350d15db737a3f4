package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

type eventsCmd struct {
	Object   string `help:"KIND/NAME, or a name: then everything of that name and below it, such as an environment's instances."`
	Since    string `help:"How far back, such as 1h or 7d; at most 30 days are kept." default:"24h" placeholder:"TIME"`
	Severity string `help:"As high as this, or higher." enum:"info,warning,error" default:"info"`
	Search   string `help:"Text in what is said." placeholder:"TEXT"`
	Op       string `help:"The operation that they are part of: the id that logs and records have." placeholder:"ID"`
	Limit    int    `help:"At most so many, the newest." default:"200"`
	Follow   bool   `short:"f" help:"Go on until interrupted."`
}

func (c *eventsCmd) Help() string {
	return "For example:\n\n  dayfly events --object shop-dev --since 1h\n  dayfly events --severity warning --follow"
}

func (c *eventsCmd) Run(ctx context.Context, a *app) error {
	back, err := days(c.Since)
	if err != nil {
		return err
	}
	if c.Limit < 1 || c.Limit > event.Most {
		return &fault.Error{Kind: fault.Invalid, Object: "--limit", Message: fmt.Sprintf("between 1 and %d", event.Most)}
	}
	since := time.Now().Add(-back)
	q := url.Values{"severity": {c.Severity}}
	for k, v := range map[string]string{"object": c.Object, "search": c.Search, "op": c.Op} {
		if v != "" {
			q.Set(k, v)
		}
	}
	read := func() ([]event.Event, error) {
		q.Set("since", since.UTC().Format(time.RFC3339Nano))
		q.Del("cursor")
		return events(ctx, a, q, c.Limit)
	}
	es, err := read()
	if err != nil {
		return err
	}
	if !c.Follow {
		return a.print(es, func(w io.Writer) { showEvents(w, es, true) })
	}
	// A follower gets a line for each, also as JSON: a list would have no end.
	seen := map[string]int{}
	for {
		for _, e := range es {
			if seen[e.ID] == e.Count {
				continue
			}
			seen[e.ID] = e.Count
			if a.Output == "json" {
				if err := json.NewEncoder(a.out).Encode(e); err != nil {
					return err
				}
				continue
			}
			showEvents(a.out, []event.Event{e}, true)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
		if n := len(es); n > 0 { // a little back: clocks of servers differ
			since = last(es[n-1]).Add(-10 * time.Second)
		}
		next, err := read()
		if err != nil {
			return err
		}
		if len(next) > 0 {
			es = next
		}
	}
}

// events reads events, the oldest first.
func events(ctx context.Context, a *app, q url.Values, most int) ([]event.Event, error) {
	es, err := client.Some[event.Event](ctx, a.client, "events", q, most)
	slices.Reverse(es)
	return es, err
}

func last(e event.Event) time.Time {
	if e.Last.IsZero() {
		return e.At
	}
	return e.Last
}

// showEvents writes a line for each; with names, or for one object's life.
func showEvents(w io.Writer, es []event.Event, names bool) {
	for _, e := range es {
		var b strings.Builder
		fmt.Fprintf(&b, "  %s  ", last(e).Local().Format("2006-01-02 15:04:05"))
		if names {
			b.Reset()
			fmt.Fprintf(&b, "%s  %-7s  %s  ", last(e).Local().Format("2006-01-02 15:04:05"), e.Severity, e.Object())
		}
		fmt.Fprintf(&b, "%s: %s", e.Reason, e.Message)
		if e.Count > 1 {
			fmt.Fprintf(&b, " (%d times since %s)", e.Count, e.At.Local().Format("15:04:05"))
		}
		if e.By != "" {
			fmt.Fprintf(&b, " [%s]", e.By)
		}
		fmt.Fprintln(w, b.String())
	}
}
