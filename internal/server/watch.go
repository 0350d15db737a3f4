package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/sse"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/release"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// watched are the kinds that a watch may show.
var watched = []string{bake.Kind, image.Kind, image.ChannelKind, release.Kind, environment.Kind, environment.GenerationKind, environment.FoundationKind, pipeline.Kind, instance.Kind, instance.FleetKind, event.Kind}

// Change is a record that was written. A reader that is slow sees a record's
// last state only.
type Change struct {
	Kind     string          `json:"kind"`
	Name     string          `json:"name"`
	Revision int64           `json:"revision"`
	Deleted  bool            `json:"deleted,omitempty"`
	Record   json.RawMessage `json:"record,omitempty" doc:"as the list of its kind has it"`
}

// Heartbeat says that nothing was missed up to its revision.
type Heartbeat struct {
	Revision int64 `json:"revision"`
}

// Reset says that deletions since the revision that was asked for are not known
// any more: the client lists again, and watches from that list's revision.
type Reset struct {
	Revision int64 `json:"revision"`
}

func (s *Server) watch() {
	op := huma.Operation{
		OperationID: "watch", Method: http.MethodGet, Path: "/v1/watch", Summary: "Changes of records as server-sent events",
		Description: "Each event's id is a revision. A client that comes again with Last-Event-ID, or since=REVISION, misses nothing; without either it begins now. " +
			"When the deletions since then are not known any more, the event is reset: list again and watch from the list's revision. A heartbeat comes every 15 seconds.",
		Metadata: map[string]any{metaStream: true},
	}
	s.describe(&op)
	sse.Register(s.api, op, map[string]any{"change": Change{}, "heartbeat": Heartbeat{}, "reset": Reset{}}, func(ctx context.Context, in *watchInput, send sse.Sender) {
		s.stream(ctx, in, send)
	})
}

type watchInput struct {
	Kinds []string `query:"kinds" maxItems:"20" doc:"default: all" enum:"bake,image,channel,release,environment,generation,foundation,run,instance,fleet,event"`
	Since int64    `query:"since" minimum:"-1" maximum:"9007199254740991" default:"-1" doc:"a revision; 0: first all that is there; -1: from now on"`
	Last  string   `header:"Last-Event-ID" pattern:"^[0-9]{0,18}$" maxLength:"18" doc:"as browsers send it; it goes before since"`
	Beat  int      `query:"heartbeat" minimum:"1" maximum:"60" default:"15" doc:"seconds"`
}

// Resolve implements huma.Resolver: a stream has no deadline.
func (in *watchInput) Resolve(ctx huma.Context) []error {
	_ = ctx.SetReadDeadline(time.Time{})
	return nil
}

// batch is how many changes are read at a time.
const batch = 200

func (s *Server) stream(ctx context.Context, in *watchInput, send sse.Sender) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wakes, err := s.cfg.Store.Watch(ctx) // before the first look, so that nothing falls between
	if err != nil {
		return
	}
	since := in.Since
	if in.Last != "" {
		if since, err = strconv.ParseInt(in.Last, 10, 64); err != nil {
			return
		}
	}
	last, err := s.cfg.Store.Revision(ctx)
	if err != nil {
		return
	}
	if since < 0 || since > last { // ahead of us: another database
		if since > last {
			_ = send(sse.Message{ID: int(last), Data: Reset{last}})
		}
		since = last
	}
	kinds := in.Kinds
	if len(kinds) == 0 {
		kinds = watched
	}
	if send(sse.Message{ID: int(since), Data: Heartbeat{since}, Retry: 1000}) != nil {
		return
	}
	// The store's own channel would hold its writer; this one holds one wake.
	wake := make(chan struct{}, 1)
	go func() {
		for range wakes {
			select {
			case wake <- struct{}{}:
			default:
			}
		}
		cancel() // the store is being closed
	}()
	beat := s.cfg.Limits.Heartbeat
	if in.Beat > 0 {
		beat = time.Duration(in.Beat) * time.Second
	}
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		rs, err := s.cfg.Store.Changes(ctx, since, batch)
		switch {
		case errors.Is(err, store.ErrForgotten):
			if last, err = s.cfg.Store.Revision(ctx); err != nil || send(sse.Message{ID: int(last), Data: Reset{last}}) != nil {
				return
			}
			since = last
			continue
		case err != nil:
			return // the client comes again
		}
		for _, r := range rs {
			since = r.Revision
			if !slices.Contains(kinds, r.Kind) {
				continue
			}
			if send(sse.Message{ID: int(r.Revision), Data: Change{Kind: r.Kind, Name: r.Name, Revision: r.Revision, Deleted: r.Body == nil, Record: r.Body}}) != nil {
				return
			}
		}
		if len(rs) == batch {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-s.drain:
			return
		case <-tick.C:
			if send(sse.Message{ID: int(since), Data: Heartbeat{since}}) != nil {
				return
			}
		case <-wake:
			// What comes at once goes at once.
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return
			}
		}
	}
}
