package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store/tables"
)

func refuse(message, hint string, err error) error {
	return &fault.Error{Kind: fault.Invalid, Message: message + "; it was left as it is", Hint: hint, Err: err}
}

const restore = "restore it from a backup into an empty database: dayfly restore FILE, or name another database"

// inspect looks at a database without changing it, and returns its schema's
// version; 0 is an empty one.
func (s *Store) inspect(ctx context.Context, latest int64) (version int64, err error) {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()
	var encoding string
	var standby bool
	if err := tx.QueryRowContext(ctx, `SELECT current_setting('server_encoding'), pg_is_in_recovery()`).Scan(&encoding, &standby); err != nil {
		return 0, err
	}
	if standby {
		return 0, refuse("the database is a standby and takes no writes", "name the primary; several hosts can be given with target_session_attrs=read-write", nil)
	}
	if encoding != "UTF8" {
		return 0, refuse("the database's encoding is "+encoding, "make one with: createdb --encoding UTF8 --template template0 NAME", nil)
	}
	var have []string
	rows, err := tx.QueryContext(ctx, `SELECT tablename FROM pg_tables WHERE schemaname = current_schema()`)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var t string
		if err := rows.Scan(&t); err != nil {
			return 0, err
		}
		have = append(have, t)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return 0, err
	}
	if len(have) == 0 {
		return 0, nil
	}
	if !slices.Contains(have, tables.VersionTable) {
		return 0, refuse("the database is another program's", "name another database, or a schema of its own with ?search_path=dayfly", nil)
	}
	var v sql.NullInt64
	if err := tx.QueryRowContext(ctx, `SELECT max(version_id) FROM `+tables.VersionTable+` WHERE is_applied`).Scan(&v); err != nil {
		return 0, damaged(err)
	}
	switch {
	case v.Int64 > latest:
		return 0, refuse(fmt.Sprintf("the database has schema %d and was written by a newer Dayfly (this one knows %d)", v.Int64, latest), "start the newer version, or restore the backup from before the upgrade", nil)
	case v.Int64 == 0:
		return 0, nil
	}
	return v.Int64, damaged(whole(ctx, tx))
}

// whole reads all records once and compares them with the ledger.
func whole(ctx context.Context, tx *sql.Tx) error {
	var rows, revision, last, bytes int64
	if err := tx.QueryRowContext(ctx, `SELECT count(*), coalesce(max(revision), 0) FROM ledger`).Scan(&rows, &revision); err != nil {
		return err
	}
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(revision), 0), coalesce(sum(length(body)), 0) FROM record`).Scan(&last, &bytes); err != nil {
		return err
	}
	if rows != 1 || last > revision {
		return refuse(fmt.Sprintf("the database is damaged: its ledger has %d rows and says revision %d, a record has %d", rows, revision, last), restore, nil)
	}
	return nil
}

// damaged explains errors of what should be readable.
func damaged(err error) error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	switch e.Code {
	case "XX001", "XX002", "42P01", "42703": // corrupted data or index, a table or a column that is not there
		return refuse("the database is damaged: "+e.Message, restore, err)
	}
	return err
}
