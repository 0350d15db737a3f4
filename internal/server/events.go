package server

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/dayfly-infra/dayfly/internal/audit"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// scanned is how many events a page looks through at most: where few match, the
// next page goes on.
const scanned = 10_000

type eventsInput struct {
	Object   string         `query:"object" maxLength:"200" pattern:"^[!-~]*$" doc:"kind/name, or a name: then everything of that name and below it"`
	Since    time.Time      `query:"since" doc:"not older than this"`
	Severity event.Severity `query:"severity" enum:"info,warning,error" doc:"as high as this, or higher"`
	Search   string         `query:"search" maxLength:"200" doc:"text in what is said"`
	Op       string         `query:"op" maxLength:"32" pattern:"^[!-~]*$" doc:"id of the operation that they are part of"`
	Cursor   string         `query:"cursor" maxLength:"1000" doc:"next of the page before"`
	Limit    int            `query:"limit" minimum:"1" maximum:"500" default:"100"`
}

func (s *Server) events() {
	get(s, "list-events", "/v1/events", "What happened, the newest first", func(ctx context.Context, in *eventsInput) (*out[Page[event.Event]], error) {
		return answer(s.eventPage(ctx, in))
	})
}

func (s *Server) eventPage(ctx context.Context, in *eventsInput) (Page[event.Event], error) {
	p := Page[event.Event]{Items: []event.Event{}}
	after, err := Paged{Cursor: in.Cursor}.after()
	if err != nil {
		return p, err
	}
	if p.Revision, err = s.cfg.Store.Revision(ctx); err != nil { // before the list: a watch from here misses nothing
		return p, err
	}
	f := event.Filter{Object: in.Object, Since: in.Since, Severity: in.Severity, Search: in.Search, Op: in.Op}
	oldest := ""
	if !in.Since.IsZero() { // one that was counted since then may have begun before
		oldest = audit.Name(in.Since.Add(-event.Chain))
	}
	for n := 0; n < scanned; {
		rs, err := s.cfg.Store.Page(ctx, event.Kind, store.Range{After: after, Limit: maxPage, Reverse: true})
		if err != nil {
			return p, err
		}
		for _, r := range rs {
			if r.Name < oldest {
				return p, nil
			}
			var e event.Event
			if err := json.Unmarshal(r.Body, &e); err != nil {
				return p, fmt.Errorf("record %s %s: %w", r.Kind, r.Name, err)
			}
			if f.Match(e) {
				if len(p.Items) == in.Limit {
					p.Next = cursor(after)
					return p, nil
				}
				p.Items = append(p.Items, e)
			}
			after = r.Name
		}
		n += len(rs)
		if len(rs) < maxPage {
			return p, nil
		}
	}
	p.Next = cursor(after)
	return p, nil
}
