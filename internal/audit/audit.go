// Package audit keeps who did what when, from where and with which result: a
// record for every call of the API that changes something or was denied. It
// is written before the call is carried out and completed once by its result,
// so that a call which was cut off is known as such. It must not know HTTP.
package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Kind of the records; names sort by time.
const Kind = "audit"

// Entry is one call.
type Entry struct {
	ID        string    `json:"id"`
	At        time.Time `json:"at"`
	Who       string    `json:"who" doc:"name of the user of this machine, or of the token"`
	Principal string    `json:"principal" doc:"os:UID or token:ID"`
	Role      string    `json:"role,omitempty"`
	From      string    `json:"from" doc:"address, or local"`
	Operation string    `json:"operation" doc:"operation id in the OpenAPI document"`
	Object    string    `json:"object,omitempty" doc:"what it was about: the path, and the names in the request"`
	Request   string    `json:"request" doc:"id of the request, as in logs"`
	Parent    string    `json:"parent,omitempty" doc:"span of the caller's trace that the call is part of"`
	Status    int       `json:"status" doc:"HTTP status; 0: under way, or cut off"`
	Error     string    `json:"error,omitempty"`
	Millis    int64     `json:"millis"`
}

const (
	// Most and Longest bound the log: the oldest entries go first.
	Most    = 100_000
	Longest = 366 * 24 * time.Hour
	// maxText bounds what comes from requests.
	maxText = 400
)

// Log is the audit log in a store.
type Log struct {
	Store store.Store
	Clock clock.Clock
}

// Begin writes an entry; the call may be carried out when it is written.
func (l *Log) Begin(ctx context.Context, e Entry) (Entry, error) {
	e.At = l.Clock.Now().UTC()
	e.ID = Name(e.At) + "-" + cut(e.Request, 32)
	e.Object, e.Who, e.Error = cut(e.Object, maxText), cut(e.Who, maxText), cut(e.Error, maxText)
	if err := l.Store.Apply(ctx, store.NoEpoch, store.Put(Kind, e.ID, 0, e)); err != nil {
		return e, fmt.Errorf("write the audit log: %w", err)
	}
	return e, nil
}

// End completes an entry, once.
func (l *Log) End(ctx context.Context, e Entry, status int, problem string) error {
	e.Status, e.Error, e.Millis = status, cut(problem, maxText), l.Clock.Now().Sub(e.At).Milliseconds()
	return l.Store.Apply(ctx, store.NoEpoch, store.Put(Kind, e.ID, 1, e))
}

// Name is a name that sorts by time.
func Name(at time.Time) string { return at.UTC().Format("20060102T150405.000000000Z") }

// Prune removes what is too old or too much.
func (l *Log) Prune(ctx context.Context) error {
	return Prune(ctx, l.Store, Kind, l.Clock.Now().Add(-Longest), Most)
}

// Prune removes the records of a kind that is named by Name: those from before
// a moment, and the oldest of those that are too many.
func Prune(ctx context.Context, s store.Store, kind string, before time.Time, most int) error {
	rs, err := s.Page(ctx, kind, store.Range{Limit: 1, Reverse: true, After: Name(before)})
	if err != nil {
		return err
	}
	old := ""
	if len(rs) == 1 {
		old = rs[0].Name
	}
	// The name of the most-th from the end, by pages of names.
	r := store.Range{Limit: 500, Reverse: true}
	for left := most; ; {
		rs, err := s.Page(ctx, kind, r)
		if err != nil {
			return err
		}
		if left < len(rs) {
			old = max(old, rs[left].Name)
			break
		}
		if len(rs) < r.Limit {
			break
		}
		left -= len(rs)
		r.After = rs[len(rs)-1].Name
	}
	for old != "" {
		rs, err := s.Page(ctx, kind, store.Range{Limit: 500})
		if err != nil {
			return err
		}
		var ws []store.Write
		for _, rec := range rs {
			if rec.Name <= old {
				ws = append(ws, store.Delete(kind, rec.Name, store.Any))
			}
		}
		if len(ws) == 0 {
			return nil
		}
		if err := s.Apply(ctx, store.NoEpoch, ws...); err != nil {
			return err
		}
	}
	return nil
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 { // not inside of a letter
		n--
	}
	return s[:n]
}
