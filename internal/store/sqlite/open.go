// Package sqlite keeps the platform's records in one embedded SQLite file. It
// must not know what the records mean.
package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/tables"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	memory = ":memory:"
	// readers is the number of connections for reads; WAL lets them go on
	// while one writes.
	readers = 4
	// full makes a commit survive a power cut: an intent must be durable
	// before its cloud call.
	pragmas = "_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(10000)"
)

// lookEvery is how soon another process's write is found; our own wake at once.
const lookEvery = 250 * time.Millisecond

// Store is an open database.
type Store struct {
	*tables.Store
	read, write *sql.DB
}

var _ store.Store = (*Store)(nil)

// Open opens or creates the database file (mode 0600); ":memory:" keeps nothing.
// A file that is damaged, is another program's, or was written by a newer
// Dayfly is refused and not touched.
func Open(ctx context.Context, path string, clk clock.Clock) (*Store, error) {
	latest, err := tables.Latest(migrations)
	if err != nil {
		return nil, err
	}
	if path != memory {
		if _, err := inspect(ctx, path, latest); err != nil {
			return nil, err
		}
	}
	s, err := connect(path, clk)
	if err != nil {
		return nil, err
	}
	if err := tables.Migrate(ctx, goose.DialectSQLite3, s.write, migrations); err != nil {
		s.Close()
		return nil, openFault(path, fullDisk(path)(err))
	}
	return s, nil
}

// OpenThere opens a database that is there and has this version's schema, and
// changes nothing: a server may be using it.
func OpenThere(ctx context.Context, path string, clk clock.Clock) (*Store, error) {
	latest, err := tables.Latest(migrations)
	if err != nil {
		return nil, err
	}
	if st, err := os.Stat(path); err != nil || st.Size() == 0 {
		return nil, &fault.Error{Kind: fault.NotFound, Op: "open the database", Object: path, Message: "there is no database", Hint: "--state names the server's folder, --database a PostgreSQL database"}
	}
	version, err := inspect(ctx, path, latest)
	if err != nil {
		return nil, err
	}
	if version != latest {
		return nil, &fault.Error{Kind: fault.Conflict, Op: "open the database", Object: path, Message: fmt.Sprintf("it has schema %d, and this version works with %d", version, latest), Hint: "use the version that the server has, or start this version's server first: it upgrades the database"}
	}
	return connect(path, clk)
}

func connect(path string, clk clock.Clock) (*Store, error) {
	var s Store
	var err error
	cfg := tables.Config{Embedded: true, Clock: clk, Now: func() string { return strconv.FormatInt(clk.Now().UnixNano(), 10) }, Translate: fullDisk(path)}
	if path == memory {
		s.write, err = sql.Open("sqlite", memory)
	} else {
		s.write, err = sql.Open("sqlite", dsn(path, pragmas+"&_txlock=immediate"))
		cfg.Look = func() time.Duration { return lookEvery }
	}
	if err != nil {
		return nil, openFault(path, err)
	}
	s.write.SetMaxOpenConns(1) // writers queue here instead of failing with "locked"
	s.read = s.write
	if path != memory {
		if s.read, err = sql.Open("sqlite", dsn(path, pragmas+"&_pragma=query_only(1)")); err != nil {
			s.write.Close()
			return nil, openFault(path, err)
		}
		s.read.SetMaxOpenConns(readers)
		s.read.SetMaxIdleConns(readers)
	}
	cfg.Read, cfg.Write = s.read, s.write
	s.Store = tables.New(cfg)
	return &s, nil
}

// fullDisk says what to do where the disk is full. The transaction is undone:
// no record is lost.
func fullDisk(path string) func(error) error {
	return func(err error) error {
		if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code()&0xff == sqlite3.SQLITE_FULL {
			return &fault.Error{Kind: fault.Unavailable, Op: "write to the database", Object: path, Code: store.CodeFull, Message: "the disk is full; nothing was written and nothing is lost", Hint: "free space on the disk of " + filepath.Dir(path) + ": work goes on by itself", Err: err}
		}
		return err
	}
}

// Close ends the watches and closes the file.
func (s *Store) Close() error {
	s.End()
	var err error
	if s.read != s.write {
		err = s.read.Close()
	}
	return errors.Join(err, s.write.Close())
}

func dsn(path, query string) string {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query}
	return u.String()
}

func openFault(path string, err error) error {
	return &fault.Error{Kind: fault.Failed, Op: "open the database", Object: path, Message: "the database cannot be opened", Err: err}
}

// inspect looks at an existing file without changing it.
func inspect(ctx context.Context, path string, latest int64) (version int64, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return 0, openFault(path, err)
	}
	// The file is made here for its mode; SQLite gives its journals the same.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, openFault(path, err)
	}
	head := make([]byte, 16)
	n, err := io.ReadFull(f, head)
	f.Close()
	if n == 0 {
		return 0, nil // new, or killed before the first page was written
	}
	if err != nil || !bytes.Equal(head, []byte("SQLite format 3\x00")) {
		return 0, &fault.Error{
			Kind: fault.Invalid, Op: "open the database", Object: path, Message: "the file is not a database, or it is damaged; it was left as it is",
			Hint: "restore it from a backup, or name another file", Err: err,
		}
	}
	db, err := sql.Open("sqlite", dsn(path, "mode=ro&_pragma=busy_timeout(10000)&_pragma=query_only(1)"))
	if err != nil {
		return 0, openFault(path, err)
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&verdict); err != nil || verdict != "ok" {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if err == nil {
			err = errors.New(verdict)
		}
		return 0, &fault.Error{
			Kind: fault.Invalid, Op: "open the database", Object: path, Message: "the database is damaged; it was left as it is",
			Hint: "restore it from a backup, or name another file", Err: err,
		}
	}
	var all, known int
	if err := db.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(CASE WHEN name = '`+tables.VersionTable+`' THEN 1 ELSE 0 END), 0) FROM sqlite_master WHERE type = 'table'`).Scan(&all, &known); err != nil {
		return 0, openFault(path, err)
	}
	if all == 0 {
		return 0, nil
	}
	if known == 0 {
		return 0, &fault.Error{
			Kind: fault.Invalid, Op: "open the database", Object: path, Message: "the file is another program's database; it was left as it is",
			Hint: "name another file",
		}
	}
	var has sql.NullInt64
	if err := db.QueryRowContext(ctx, `SELECT max(version_id) FROM `+tables.VersionTable+` WHERE is_applied`).Scan(&has); err != nil {
		return 0, openFault(path, err)
	}
	if has.Int64 > latest {
		return 0, &fault.Error{
			Kind: fault.Invalid, Op: "open the database", Object: path,
			Message: fmt.Sprintf("the database has schema %d and was written by a newer Dayfly (this one knows %d); it was left as it is", has.Int64, latest),
			Hint:    "start the newer version, or restore the backup from before the upgrade",
		}
	}
	return has.Int64, nil
}
