// Package store is the port to the platform's durable records: versioned
// documents by kind and name, changed in atomic batches that check a fencing
// epoch. store/sqlite implements it and store/storetest is the suite that every
// implementation must pass. It must not know what the records mean.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Errors that every implementation returns (wrapped).
var (
	ErrNotFound = errors.New("no such record")
	ErrConflict = errors.New("the record was changed by another writer")
	ErrFenced   = errors.New("this process no longer owns the work") // a newer epoch exists
	// ErrForgotten: deletions after the revision that was asked for are not
	// known any more; whoever asks reads everything anew.
	ErrForgotten = errors.New("the deletions since this revision are forgotten")
)

// CodeFull is the code of a fault where the database has no space left.
const CodeFull = "disk-full"

// Record is a document. Version counts its writes from 1, and goes on counting
// where a name is deleted and soon made again; Revision orders all writes of
// the store.
type Record struct {
	Kind, Name string
	Version    int64
	Revision   int64
	Updated    time.Time
	Body       json.RawMessage
}

// Write changes one record. Version is the one that was read: 0 demands that
// the record is new, Any takes whatever is there. A nil Body deletes.
type Write struct {
	Kind, Name string
	Version    int64
	Body       json.RawMessage
}

// Range is a part of a kind's records, by name.
type Range struct {
	Prefix string // names begin with it
	After  string // names come after it, or before it with Reverse; "" begins at the end
	Limit  int    // at most so many; not 0
	// Reverse gives the last names first.
	Reverse bool
}

// Any is the Write.Version that does not compare.
const Any int64 = -1

// NoEpoch is the epoch of writers that need no ownership: the API, which only
// changes what users want, never what loops observed.
const NoEpoch int64 = 0

// Key names a record in a watch.
type Key struct{ Kind, Name string }

// Store holds records. All methods are safe for concurrent use.
type Store interface {
	Get(ctx context.Context, kind, name string) (Record, error)
	// List returns the records of a kind whose names begin with prefix, by name.
	List(ctx context.Context, kind, prefix string) ([]Record, error)
	// Page returns a part of a kind's records, in the order of their names.
	Page(ctx context.Context, kind string, r Range) ([]Record, error)
	// Revision is that of the last write.
	Revision(ctx context.Context) (int64, error)
	// Changes returns at most limit records that were written after a revision,
	// in the order of their last writes; deletions are records without a body.
	// After 0 it gives all that is there. Deletions are remembered for an hour:
	// ErrForgotten when one may be missing.
	Changes(ctx context.Context, revision int64, limit int) ([]Record, error)
	// Apply does all writes or none. ErrConflict names the first record that
	// did not match; ErrFenced when epoch is neither NoEpoch nor the current one.
	Apply(ctx context.Context, epoch int64, writes ...Write) error
	// Watch delivers the key of every record written from now on, in order,
	// until ctx ends. A slow reader loses nothing: keys are coalesced.
	Watch(ctx context.Context) (<-chan Key, error)

	// Acquire makes holder the owner for ttl, when there is no live owner, and
	// returns a new epoch; ok is false while another owns. Renew keeps it. A
	// holder that asks again is taken for a restart of itself: it owns at once,
	// with a new epoch, and what was left of it is fenced off. So the name is
	// unique among replicas, and the same after a restart. After Release nobody
	// owns, and writes with that epoch are fenced.
	Acquire(ctx context.Context, holder string, ttl time.Duration) (epoch int64, ok bool, err error)
	Renew(ctx context.Context, holder string, epoch int64, ttl time.Duration) error // ErrFenced when lost
	Release(ctx context.Context, holder string, epoch int64) error

	// AddBlob keeps what is too large for a record, under a name that stands for
	// its content: what is there is left alone. All of it is there, or nothing.
	AddBlob(ctx context.Context, name string, r io.Reader) error
	Blob(ctx context.Context, name string) (io.ReadCloser, error) // ErrNotFound

	// Dump gives all that is stored as it was at one moment: records in the
	// order of their revisions, deleted ones with a nil Body, then blobs.
	Dump(ctx context.Context, f func(Item) error) error
	// Load puts a dump into an empty store, or with replace in the place of
	// what is there, and gives it a new epoch: nobody owns. All or nothing; next
	// ends with io.EOF.
	Load(ctx context.Context, replace bool, next func() (Item, error)) error

	Close() error
}

// Item is an element of a dump: a record, or a part of a blob.
type Item struct {
	Record *Record `json:"record,omitempty"`
	Blob   string  `json:"blob,omitempty"`
	Part   int     `json:"part,omitempty"`
	Data   []byte  `json:"data,omitempty"`
}

// Get reads a record into a T and returns its version.
func Get[T any](ctx context.Context, s Store, kind, name string) (v T, version int64, err error) {
	r, err := s.Get(ctx, kind, name)
	if err != nil {
		return v, 0, err
	}
	if err := json.Unmarshal(r.Body, &v); err != nil {
		return v, 0, fmt.Errorf("record %s %s: %w", kind, name, err)
	}
	return v, r.Version, nil
}

// List reads all records of a kind.
func List[T any](ctx context.Context, s Store, kind, prefix string) ([]T, error) {
	rs, err := s.List(ctx, kind, prefix)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(rs))
	for i, r := range rs {
		if err := json.Unmarshal(r.Body, &out[i]); err != nil {
			return nil, fmt.Errorf("record %s %s: %w", kind, r.Name, err)
		}
	}
	return out, nil
}

// Put makes a Write of v.
func Put(kind, name string, version int64, v any) Write {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("store: %s %s: %v", kind, name, err)) // a noun that is not JSON
	}
	return Write{Kind: kind, Name: name, Version: version, Body: b}
}

// Delete makes a Write that removes a record.
func Delete(kind, name string, version int64) Write {
	return Write{Kind: kind, Name: name, Version: version}
}
