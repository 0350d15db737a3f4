package tables

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
)

const (
	maxName = 512
	maxBody = 16 << 20
	// above sorts after every name: names may not contain it.
	above = "\U0010FFFF"
	// Tombstones is how long a tombstone is kept, at least: so long, so that nobody still holds a version of
	// the record that was there before.
	Tombstones = time.Hour
)

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, kind, name string) (store.Record, error) {
	r := store.Record{Kind: kind, Name: name}
	var updated int64
	var body string
	err := s.row(ctx, `SELECT version, revision, updated, body FROM record WHERE kind = $1 AND name = $2 AND body IS NOT NULL`, kind, name).
		Scan(&r.Version, &r.Revision, &updated, &body)
	if errors.Is(err, sql.ErrNoRows) {
		return store.Record{}, fmt.Errorf("%s %s: %w", kind, name, store.ErrNotFound)
	}
	if err != nil {
		return store.Record{}, fmt.Errorf("read record %s %s: %w", kind, name, err)
	}
	r.Updated, r.Body = time.Unix(0, updated).UTC(), json.RawMessage(body)
	return r, nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, kind, prefix string) ([]store.Record, error) {
	return s.records(ctx, "list records "+kind+" "+prefix, `SELECT `+columns+` FROM record WHERE kind = $1 AND name >= $2 AND name < $3 AND body IS NOT NULL ORDER BY name`, kind, prefix, prefix+above)
}

// Page implements store.Store.
func (s *Store) Page(ctx context.Context, kind string, r store.Range) ([]store.Record, error) {
	what := "list records " + kind + " " + r.Prefix
	if r.Reverse {
		before := r.After
		if before == "" {
			before = r.Prefix + above
		}
		return s.records(ctx, what, `SELECT `+columns+` FROM record WHERE kind = $1 AND name >= $2 AND name < $3 AND name < $4 AND body IS NOT NULL ORDER BY name DESC LIMIT $5`, kind, r.Prefix, r.Prefix+above, before, r.Limit)
	}
	return s.records(ctx, what, `SELECT `+columns+` FROM record WHERE kind = $1 AND name >= $2 AND name < $3 AND name > $4 AND body IS NOT NULL ORDER BY name LIMIT $5`, kind, r.Prefix, r.Prefix+above, r.After, r.Limit)
}

// Revision implements store.Store.
func (s *Store) Revision(ctx context.Context) (revision int64, err error) {
	if err := s.row(ctx, `SELECT revision FROM ledger WHERE id = 1`).Scan(&revision); err != nil {
		return 0, fmt.Errorf("read the revision: %w", err)
	}
	return revision, nil
}

// Changes implements store.Store.
func (s *Store) Changes(ctx context.Context, revision int64, limit int) ([]store.Record, error) {
	out, err := s.records(ctx, "read changes", `SELECT `+columns+` FROM record WHERE revision > $1 ORDER BY revision LIMIT $2`, revision, limit)
	if err != nil || revision == 0 {
		return out, err
	}
	var forgotten int64 // read after the records: what was there then is in them
	if err := s.row(ctx, `SELECT forgotten FROM ledger WHERE id = 1`).Scan(&forgotten); err != nil {
		return nil, fmt.Errorf("read changes: %w", err)
	}
	if revision < forgotten {
		return nil, fmt.Errorf("read changes since %d: %w", revision, store.ErrForgotten)
	}
	return out, nil
}

const columns = `kind, name, version, revision, updated, body`

func (s *Store) records(ctx context.Context, what, query string, args ...any) ([]store.Record, error) {
	rows, err := s.rows(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer rows.Close()
	var out []store.Record
	for rows.Next() {
		r, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return out, nil
}

// Apply implements store.Store.
func (s *Store) Apply(ctx context.Context, epoch int64, writes ...store.Write) error {
	deletes := false
	for _, w := range writes {
		if err := check(w); err != nil {
			return err
		}
		deletes = deletes || w.Body == nil
	}
	s.parsed(ctx)
	err := s.change(ctx, func(tx *sql.Tx) error {
		// One statement takes the revisions and the row that orders all
		// writers, and tells who owns.
		var last, current, now int64
		var holder string
		if s.cfg.Embedded {
			now = s.cfg.Clock.Now().UnixNano()
			err := in{tx, s.writes}.row(ctx, takeRevisions, len(writes)).Scan(&last, &current, &holder)
			if err != nil {
				return err
			}
		} else if err := tx.QueryRowContext(ctx, takeRevisions+`, `+s.cfg.Now(), len(writes)).Scan(&last, &current, &holder, &now); err != nil {
			return err
		}
		if epoch != store.NoEpoch && (epoch != current || holder == "") {
			return fmt.Errorf("epoch %d: %w", epoch, store.ErrFenced)
		}
		for i, w := range writes {
			if err := apply(ctx, in{tx, s.writes}, w, last-int64(len(writes))+int64(i)+1, now); err != nil {
				return fmt.Errorf("%s %s: %w", w.Kind, w.Name, err)
			}
		}
		if deletes && s.mayPrune(now) {
			if err := prune(ctx, tx, now-int64(Tombstones), s.seen(last-int64(len(writes)))); err != nil {
				return err
			}
		}
		return s.notify(ctx, tx, last)
	})
	if err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	s.Wake()
	return nil
}

// prune removes old Tombstones, and remembers that those who want all changes
// from before cannot have them any more.
func prune(ctx context.Context, tx *sql.Tx, before, seen int64) error {
	const old = ` body IS NULL AND updated < $1 AND revision <= $2`
	var last int64
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(revision), 0) FROM record WHERE`+old, before, seen).Scan(&last); err != nil || last == 0 {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE ledger SET forgotten = $1 WHERE id = 1 AND forgotten < $1`, last); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM record WHERE`+old, before, seen)
	return err
}

const (
	takeRevisions = `UPDATE ledger SET revision = revision + $1 WHERE id = 1 RETURNING revision, epoch, holder`
	readVersion   = `SELECT version, body IS NOT NULL FROM record WHERE kind = $1 AND name = $2`
	putRecord     = `INSERT INTO record (kind, name, version, revision, updated, body) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (kind, name) DO UPDATE SET version = excluded.version, revision = excluded.revision, updated = excluded.updated, body = excluded.body`
)

func apply(ctx context.Context, tx in, w store.Write, revision, now int64) error {
	var version int64
	var there bool
	err := tx.row(ctx, readVersion, w.Kind, w.Name).Scan(&version, &there)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if have := version; w.Version != store.Any {
		if !there {
			have = 0
		}
		if have != w.Version {
			return fmt.Errorf("version %d was read, %d is there: %w", w.Version, have, store.ErrConflict)
		}
	}
	var body any // NULL
	if w.Body != nil {
		body = string(w.Body)
	} else if !there {
		return nil // nothing to delete
	}
	r, err := tx.exec(ctx, putRecord, w.Kind, w.Name, version+1, revision, now, body)
	return one(r, err)
}

// one makes an error of a statement that did not change exactly one row: a
// write that silently changed none would be lost work.
func one(r sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := r.RowsAffected()
	if err == nil && n != 1 {
		err = fmt.Errorf("%d rows were changed instead of one", n)
	}
	return err
}

func check(w store.Write) error {
	bad := func(why string) error {
		return &fault.Error{Kind: fault.Invalid, Op: "write record", Object: w.Kind + " " + w.Name, Message: why}
	}
	for _, s := range []string{w.Kind, w.Name} {
		if s == "" || len(s) > maxName {
			return bad(fmt.Sprintf("kind and name have 1 to %d bytes", maxName))
		}
		if !utf8.ValidString(s) || strings.Contains(s, above) || strings.ContainsFunc(s, unicode.IsControl) {
			return bad("kind and name are printable UTF-8")
		}
	}
	if len(w.Body) > maxBody {
		return bad(fmt.Sprintf("the body has %d bytes, at most %d are allowed", len(w.Body), maxBody))
	}
	if w.Body != nil && (!json.Valid(w.Body) || !utf8.Valid(w.Body)) {
		return bad("the body is not JSON")
	}
	if w.Version < store.Any {
		return bad(fmt.Sprintf("version %d", w.Version))
	}
	return nil
}
