package tables

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Dump implements store.Store: one read transaction sees one moment.
func (s *Store) Dump(ctx context.Context, f func(store.Item) error) error {
	tx, err := s.cfg.Read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: s.cfg.Snapshot})
	if err != nil {
		return fmt.Errorf("dump: %w", err)
	}
	defer tx.Rollback()
	rows, err := tx.QueryContext(ctx, `SELECT `+columns+` FROM record ORDER BY revision`)
	if err != nil {
		return fmt.Errorf("dump: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		r, err := scan(rows)
		if err != nil {
			return fmt.Errorf("dump: %w", err)
		}
		if err := f(store.Item{Record: &r}); err != nil {
			return err
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return fmt.Errorf("dump: %w", err)
	}
	parts, err := tx.QueryContext(ctx, `SELECT name, part, data FROM blob ORDER BY name, part`)
	if err != nil {
		return fmt.Errorf("dump: %w", err)
	}
	defer parts.Close()
	for parts.Next() {
		var i store.Item
		if err := parts.Scan(&i.Blob, &i.Part, &i.Data); err != nil {
			return fmt.Errorf("dump: %w", err)
		}
		if err := f(i); err != nil {
			return err
		}
	}
	return errors.Join(parts.Err(), parts.Close())
}

// Load implements store.Store. The records get new revisions, behind all that
// this database ever gave, so that whoever follows it sees them; versions go on
// from the higher of the two, so that nobody's old version fits by chance.
func (s *Store) Load(ctx context.Context, replace bool, next func() (store.Item, error)) error {
	err := s.change(ctx, func(tx *sql.Tx) error {
		var revision, now int64
		// The owner of before, if any, is fenced off, and whoever follows by
		// revisions is told to read all again.
		if err := tx.QueryRowContext(ctx, `UPDATE ledger SET revision = revision + 1, epoch = epoch + 1, holder = '', expires = 0, forgotten = revision + 1 WHERE id = 1 RETURNING revision, `+s.cfg.Now()).Scan(&revision, &now); err != nil {
			return err
		}
		var records int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM record WHERE body IS NOT NULL`).Scan(&records); err != nil {
			return err
		}
		if records > 0 && !replace {
			return &fault.Error{Kind: fault.Conflict, Op: "restore", Message: fmt.Sprintf("the database has %d records; it was left as it is", records), Hint: "restore into an empty one, or replace what is there with --force"}
		}
		was := map[store.Key]int64{}
		if err := versions(ctx, tx, was); err != nil {
			return err
		}
		for _, q := range []string{`DELETE FROM record`, `DELETE FROM blob`} {
			if _, err := tx.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		for {
			i, err := next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if i.Record == nil {
				if err := addPart(ctx, tx, i.Blob, i.Part, i.Data); err != nil {
					return err
				}
				continue
			}
			r := *i.Record
			if err := check(store.Write{Kind: r.Kind, Name: r.Name, Body: r.Body}); err != nil {
				return err
			}
			k := store.Key{Kind: r.Kind, Name: r.Name}
			version := max(r.Version, was[k]+1)
			delete(was, k)
			revision++
			if err := insert(ctx, tx, k, version, revision, r.Updated.UnixNano(), r.Body); err != nil {
				return err
			}
		}
		for k, v := range was { // what is not in the backup is deleted
			revision++
			if err := insert(ctx, tx, k, v+1, revision, now, nil); err != nil {
				return err
			}
		}
		r, err := tx.ExecContext(ctx, `UPDATE ledger SET revision = $1 WHERE id = 1`, revision)
		if err := one(r, err); err != nil {
			return err
		}
		return s.notify(ctx, tx, revision)
	})
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	s.Wake()
	return nil
}

func versions(ctx context.Context, tx *sql.Tx, out map[store.Key]int64) error {
	rows, err := tx.QueryContext(ctx, `SELECT kind, name, version FROM record`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var k store.Key
		var v int64
		if err := rows.Scan(&k.Kind, &k.Name, &v); err != nil {
			return err
		}
		out[k] = v
	}
	return rows.Err()
}

func insert(ctx context.Context, tx *sql.Tx, k store.Key, version, revision, updated int64, body json.RawMessage) error {
	var b any // NULL
	if body != nil {
		b = string(body)
	}
	r, err := tx.ExecContext(ctx, `INSERT INTO record (kind, name, version, revision, updated, body) VALUES ($1, $2, $3, $4, $5, $6)`, k.Kind, k.Name, version, revision, updated, b)
	return one(r, err)
}

// scan reads a row of columns.
func scan(rows *sql.Rows) (store.Record, error) {
	var r store.Record
	var updated int64
	var body sql.NullString
	if err := rows.Scan(&r.Kind, &r.Name, &r.Version, &r.Revision, &updated, &body); err != nil {
		return r, err
	}
	r.Updated = time.Unix(0, updated).UTC()
	if body.Valid {
		r.Body = json.RawMessage(body.String)
	}
	return r, nil
}
