package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-infra/dayfly/internal/store"
)

// Page is a part of a list.
type Page[T any] struct {
	Items []T `json:"items"`
	// Next is absent on the last page.
	Next     string `json:"next,omitempty" doc:"cursor of the next page; absent on the last one"`
	Revision int64  `json:"revision" doc:"since=REVISION in GET /v1/watch misses nothing that came after this list"`
}

const (
	usualPage = 100
	maxPage   = 500
)

// Paged are the parameters of every list.
type Paged struct {
	Prefix string `query:"prefix" maxLength:"120" pattern:"^[!-~]*$" doc:"names begin with it"`
	Name   string `query:"name" maxLength:"120" pattern:"^[!-~]*$" doc:"exactly this one"`
	Cursor string `query:"cursor" maxLength:"1000" doc:"next of the page before"`
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"100"`
}

// cursor is where a page ended, by name: what comes or goes meanwhile moves nothing.
func cursor(name string) string { return base64.RawURLEncoding.EncodeToString([]byte(name)) }

var printable = regexp.MustCompile(`^[!-~]{1,512}$`)

func (p Paged) after() (string, error) {
	if p.Cursor == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(p.Cursor)
	if err != nil || !printable.Match(raw) {
		return "", &Problem{Title: http.StatusText(http.StatusUnprocessableEntity), Status: http.StatusUnprocessableEntity, Kind: kindOf(http.StatusUnprocessableEntity), Detail: "the cursor is not one",
			Hint: "take next of the page before, or begin without", Errors: []Mistake{{Detail: "not the next of a page", Parameter: "cursor", In: "query"}}}
	}
	return string(raw), nil
}

// page reads a part of a kind's records.
func page[T any](ctx context.Context, s store.Store, kind, list string, in Paged, reverse bool) (*out[Page[T]], error) {
	after, err := in.after()
	if err != nil {
		return nil, err
	}
	revision, err := s.Revision(ctx) // before the list: a watch from here misses nothing
	if err != nil {
		return nil, problem(err)
	}
	p := Page[T]{Items: []T{}, Revision: revision}
	if in.Name != "" {
		v, _, err := store.Get[T](ctx, s, kind, in.Name)
		if errors.Is(err, store.ErrNotFound) {
			return nil, notFound(kind, in.Name, "dayfly "+list+" lists them")
		}
		p.Items = append(p.Items, v)
		return answer(p, err)
	}
	rs, err := s.Page(ctx, kind, store.Range{Prefix: in.Prefix, After: after, Limit: in.Limit + 1, Reverse: reverse})
	if err != nil {
		return nil, problem(err)
	}
	if len(rs) > in.Limit {
		rs = rs[:in.Limit]
		p.Next = cursor(rs[len(rs)-1].Name)
	}
	for _, r := range rs {
		var v T
		if err := json.Unmarshal(r.Body, &v); err != nil {
			return nil, problem(fmt.Errorf("record %s %s: %w", kind, r.Name, err))
		}
		p.Items = append(p.Items, v)
	}
	return answer(p, nil)
}

// records gives a kind's records: the list, and one by name in a query, since
// names may hold slashes.
func records[T any](s *Server, path, kind, list string) {
	register(s, huma.Operation{OperationID: "list-" + path, Method: http.MethodGet, Path: "/v1/" + path, Summary: "List " + path + ", by name"}, func(ctx context.Context, in *struct{ Paged }) (*out[Page[T]], error) {
		return page[T](ctx, s.cfg.Store, kind, list, in.Paged, false)
	})
}
