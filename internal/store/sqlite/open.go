// Package sqlite keeps the platform's records in one embedded SQLite file. It
// implements store.Store with plain SQL ($1 placeholders, one transaction per
// change), so that another database can take its place. It must not know what
// the records mean.
package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the embedded database

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	memory       = ":memory:"
	versionTable = "schema_version"
	// readers is the number of connections for reads; WAL lets them go on
	// while one writes.
	readers = 4
	// full makes a commit survive a power cut: an intent must be durable
	// before its cloud call.
	pragmas = "_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(10000)"
)

// Store is an open database.
type Store struct {
	read, write *sql.DB
	clock       clock.Clock
	shared      bool // other processes may write to the same file

	mu       sync.Mutex
	watchers map[*watcher]struct{}
	pruned   int64 // when tombstones were last removed
	closed   chan struct{}
	once     sync.Once
	done     sync.WaitGroup
}

var _ store.Store = (*Store)(nil)

// Open opens or creates the database file (mode 0600); ":memory:" keeps nothing.
// A file that is damaged, is another program's, or was written by a newer
// Dayfly is refused and not touched.
func Open(ctx context.Context, path string, clk clock.Clock) (*Store, error) {
	s := &Store{clock: clk, shared: path != memory, watchers: map[*watcher]struct{}{}, closed: make(chan struct{})}
	latest, err := latestMigration()
	if err != nil {
		return nil, err
	}
	if s.shared {
		if err := inspect(ctx, path, latest); err != nil {
			return nil, err
		}
		s.write, err = sql.Open("sqlite", dsn(path, pragmas+"&_txlock=immediate"))
	} else {
		s.write, err = sql.Open("sqlite", memory)
	}
	if err != nil {
		return nil, openFault(path, err)
	}
	s.write.SetMaxOpenConns(1) // writers queue here instead of failing with "locked"
	s.read = s.write
	if s.shared {
		if s.read, err = sql.Open("sqlite", dsn(path, pragmas+"&_pragma=query_only(1)")); err != nil {
			s.write.Close()
			return nil, openFault(path, err)
		}
		s.read.SetMaxOpenConns(readers)
		s.read.SetMaxIdleConns(readers)
	}
	if err := migrate(ctx, s.write); err != nil {
		s.Close()
		return nil, openFault(path, err)
	}
	return s, nil
}

// Close ends the watches and closes the file.
func (s *Store) Close() error {
	var err error
	s.once.Do(func() {
		s.mu.Lock() // no watch begins between the two
		close(s.closed)
		s.mu.Unlock()
		s.done.Wait()
		if s.read != nil && s.read != s.write {
			err = s.read.Close()
		}
		err = errors.Join(err, s.write.Close())
	})
	return err
}

func dsn(path, query string) string {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query}
	return u.String()
}

func openFault(path string, err error) error {
	return &fault.Error{Kind: fault.Failed, Op: "open the database", Object: path, Message: "the database cannot be opened", Err: err}
}

func latestMigration() (int64, error) {
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
	return latest, nil
}

func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithTableName(versionTable), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// inspect looks at an existing file without changing it.
func inspect(ctx context.Context, path string, latest int64) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return openFault(path, err)
	}
	// The file is made here for its mode; SQLite gives its journals the same.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return openFault(path, err)
	}
	head := make([]byte, 16)
	n, err := io.ReadFull(f, head)
	f.Close()
	if n == 0 {
		return nil // new, or killed before the first page was written
	}
	if err != nil || !bytes.Equal(head, []byte("SQLite format 3\x00")) {
		return &fault.Error{
			Kind: fault.Invalid, Op: "open the database", Object: path, Message: "the file is not a database, or it is damaged; it was left as it is",
			Hint: "restore it from a backup, or name another file", Err: err,
		}
	}
	db, err := sql.Open("sqlite", dsn(path, "mode=ro&_pragma=busy_timeout(10000)&_pragma=query_only(1)"))
	if err != nil {
		return openFault(path, err)
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&verdict); err != nil || verdict != "ok" {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			err = errors.New(verdict)
		}
		return &fault.Error{
			Kind: fault.Invalid, Op: "open the database", Object: path, Message: "the database is damaged; it was left as it is",
			Hint: "restore it from a backup, or name another file", Err: err,
		}
	}
	var tables, known int
	if err := db.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(CASE WHEN name = '`+versionTable+`' THEN 1 ELSE 0 END), 0) FROM sqlite_master WHERE type = 'table'`).Scan(&tables, &known); err != nil {
		return openFault(path, err)
	}
	if tables == 0 {
		return nil
	}
	if known == 0 {
		return &fault.Error{
			Kind: fault.Invalid, Op: "open the database", Object: path, Message: "the file is another program's database; it was left as it is",
			Hint: "name another file",
		}
	}
	var version sql.NullInt64
	if err := db.QueryRowContext(ctx, `SELECT max(version_id) FROM `+versionTable+` WHERE is_applied`).Scan(&version); err != nil {
		return openFault(path, err)
	}
	if version.Int64 > latest {
		return &fault.Error{
			Kind: fault.Invalid, Op: "open the database", Object: path,
			Message: fmt.Sprintf("the database has schema %d and was written by a newer Dayfly (this one knows %d); it was left as it is", version.Int64, latest),
			Hint:    "start the newer version, or restore the backup from before the upgrade",
		}
	}
	return nil
}
