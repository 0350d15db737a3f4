package tables

import (
	"context"
	"database/sql"
	"sync"
)

// kept are statements that were parsed: SQLite takes longer to parse most of
// ours than to carry them out.
type kept struct {
	db *sql.DB

	mu sync.Mutex
	of map[string]*sql.Stmt
}

// statement is the parsed query; nil where it cannot be parsed now: whoever
// sends the text itself hears why. Texts must be constant, or the map grows.
func (k *kept) statement(ctx context.Context, query string) *sql.Stmt {
	if st := k.known(query); st != nil || k == nil {
		return st
	}
	// Without the lock: it waits for a connection, whose holder may ask for
	// what is known.
	st, err := k.db.PrepareContext(ctx, query)
	if err != nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of == nil {
		k.of = map[string]*sql.Stmt{}
	}
	if other := k.of[query]; other != nil {
		st.Close()
		return other
	}
	k.of[query] = st
	return st
}

// known is the statement where it was parsed already.
func (k *kept) known(query string) *sql.Stmt {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.of[query]
}

// row reads one row outside of a transaction.
func (s *Store) row(ctx context.Context, query string, args ...any) *sql.Row {
	if st := s.reads.statement(ctx, query); st != nil {
		return st.QueryRowContext(ctx, args...)
	}
	return s.cfg.Read.QueryRowContext(ctx, query, args...)
}

// rows reads rows outside of a transaction.
func (s *Store) rows(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if st := s.reads.statement(ctx, query); st != nil {
		return st.QueryContext(ctx, args...)
	}
	return s.cfg.Read.QueryContext(ctx, query, args...)
}

// writing are the statements of every batch of records.
var writing = []string{takeRevisions, readVersion, putRecord}

// parsed makes sure that the statements of a batch are parsed before its
// transaction has the only connection.
func (s *Store) parsed(ctx context.Context) {
	for _, q := range writing {
		s.writes.statement(ctx, q)
	}
}

// in is a statement within a transaction.
type in struct {
	tx *sql.Tx
	k  *kept
}

func (i in) row(ctx context.Context, query string, args ...any) *sql.Row {
	if st := i.k.known(query); st != nil {
		return i.tx.StmtContext(ctx, st).QueryRowContext(ctx, args...)
	}
	return i.tx.QueryRowContext(ctx, query, args...)
}

func (i in) exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if st := i.k.known(query); st != nil {
		return i.tx.StmtContext(ctx, st).ExecContext(ctx, args...)
	}
	return i.tx.ExecContext(ctx, query, args...)
}
