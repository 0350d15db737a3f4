// Package tables keeps records in two tables, with statements that SQLite and
// PostgreSQL both take: one row orders all writers and says who owns the work.
// It is what store/sqlite and store/postgres share, and must not know which of
// the two it talks to, nor what the records mean.
package tables

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/dayfly-infra/dayfly/internal/clock"
)

// VersionTable holds which migrations were applied.
const VersionTable = "schema_version"

// Config is what differs between databases.
type Config struct {
	Read, Write *sql.DB
	// Now is an SQL expression of the time in nanoseconds since 1970, of the
	// clock that all who share the database agree on.
	Now func() string
	// Embedded says that the database is in this process: its time is that of
	// Clock, and parsed statements are kept.
	Embedded bool
	// Clock paces watches, and measures how long another owner was silent.
	Clock clock.Clock
	// Notify tells other processes of a write, within its transaction; its
	// parameter is the revision. "" where there is nobody to tell.
	Notify string
	// Look is how long a watch waits before it looks without being woken; nil
	// where nobody else writes.
	Look func() time.Duration
	// Snapshot is the isolation in which a transaction reads one moment.
	Snapshot sql.IsolationLevel
	// Translate makes a fault of an error that people can do something about.
	Translate func(error) error
}

// Store implements store.Store but for Close.
type Store struct {
	cfg           Config
	reads, writes *kept // nil where they are not kept

	mu       sync.Mutex
	watchers map[*watcher]struct{}
	pruned   int64 // when tombstones were last removed
	closed   chan struct{}
	once     sync.Once
	done     sync.WaitGroup
	rival    rival
}

// New makes a store on a database that is open and migrated.
func New(cfg Config) *Store {
	s := &Store{cfg: cfg, watchers: map[*watcher]struct{}{}, closed: make(chan struct{})}
	if cfg.Embedded {
		s.reads, s.writes = &kept{db: cfg.Read}, &kept{db: cfg.Write}
	}
	return s
}

// End ends the watches.
func (s *Store) End() {
	s.once.Do(func() {
		s.mu.Lock() // no watch begins between the two
		close(s.closed)
		s.mu.Unlock()
		s.done.Wait()
	})
}

// change runs f in a write transaction.
func (s *Store) change(ctx context.Context, f func(*sql.Tx) error) error {
	err := func() error {
		tx, err := s.cfg.Write.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() // after Commit this does nothing
		if err := f(tx); err != nil {
			return err
		}
		return tx.Commit()
	}()
	if err != nil && s.cfg.Translate != nil {
		return s.cfg.Translate(err)
	}
	return err
}

func (s *Store) notify(ctx context.Context, tx *sql.Tx, revision int64) error {
	if s.cfg.Notify == "" {
		return nil
	}
	_, err := tx.ExecContext(ctx, s.cfg.Notify, fmt.Sprint(revision))
	return err
}

// Migrate brings a database to the newest schema of a folder of migrations.
func Migrate(ctx context.Context, dialect goose.Dialect, db *sql.DB, migrations fs.FS, options ...goose.ProviderOption) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(dialect, db, files, append(options, goose.WithTableName(VersionTable), goose.WithLogger(goose.NopLogger()))...)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// Latest is the newest schema that a folder of migrations knows.
func Latest(migrations fs.FS) (int64, error) {
	entries, err := fs.ReadDir(migrations, "migrations")
	if err != nil {
		return 0, err
	}
	var latest int64
	for _, e := range entries {
		v, err := goose.NumericComponent(e.Name())
		if err != nil {
			return 0, err
		}
		latest = max(latest, v)
	}
	if latest == 0 {
		return 0, errors.New("no migrations")
	}
	return latest, nil
}
