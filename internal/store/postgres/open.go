// Package postgres keeps the platform's records in PostgreSQL, so that several
// servers can share them: one owns the work, all see every write at once. It
// must not know what the records mean, and never shows a password.
package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/tables"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	// channel is where writers tell of their writes.
	channel = "dayfly_records"
	// lookEvery is how soon a write is found whose notice was lost, lookBlind
	// while no notices come.
	lookEvery = time.Second
	lookBlind = 250 * time.Millisecond
	// connections of a process: the loops' workers and the API share them.
	connections = 12
	// now is the database's clock.
	now = `(extract(epoch FROM clock_timestamp()) * 1000000000)::bigint`
)

// settings of every session. A server that is stopped in the midst of a
// transaction, by a signal or a cut network, must not hold up the others.
var settings = map[string]string{
	"application_name":                    "dayfly",
	"idle_in_transaction_session_timeout": "3000",
	"lock_timeout":                        "10000",
	"statement_timeout":                   "60000",
}

// Store is an open database.
type Store struct {
	*tables.Store
	db     *sql.DB
	config *pgx.ConnConfig
	stop   context.CancelFunc
	done   chan struct{}
	heard  atomic.Bool // notices come
}

var _ store.Store = (*Store)(nil)

// Is tells whether a connection string is one of PostgreSQL's.
func Is(connection string) bool {
	return strings.HasPrefix(connection, "postgres://") || strings.HasPrefix(connection, "postgresql://")
}

// HasPassword tells whether a connection string holds one: it may not be in an
// argument list.
func HasPassword(connection string) bool {
	u, err := url.Parse(connection)
	if err != nil {
		return true // nobody can tell
	}
	_, there := u.User.Password()
	return there || u.Query().Has("password")
}

// Open opens the database of a connection string, completed by the PG*
// variables and ~/.pgpass as psql does, and brings its schema up to date. One
// that is another program's, damaged, or was written by a newer Dayfly is
// refused and not touched.
func Open(ctx context.Context, connection string, clk clock.Clock) (*Store, error) {
	return open(ctx, connection, clk, true)
}

// OpenThere opens a database that has this version's schema already, and
// changes nothing: servers may be using it.
func OpenThere(ctx context.Context, connection string, clk clock.Clock) (*Store, error) {
	return open(ctx, connection, clk, false)
}

func open(ctx context.Context, connection string, clk clock.Clock, migrate bool) (*Store, error) {
	cfg, err := pgx.ParseConfig(connection)
	if err != nil {
		// The parser's own words repeat parts of the string.
		return nil, &fault.Error{Kind: fault.Invalid, Op: "open the database", Message: "the connection string cannot be read", Hint: "postgres://USER@HOST:5432/DATABASE; the password in PGPASSWORD, ~/.pgpass or --database-file"}
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	for k, v := range settings {
		if _, set := cfg.RuntimeParams[k]; !set {
			cfg.RuntimeParams[k] = v
		}
	}
	latest, err := tables.Latest(migrations)
	if err != nil {
		return nil, err
	}
	s := &Store{config: cfg, done: make(chan struct{})}
	s.db = stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(durable))
	s.db.SetMaxOpenConns(connections)
	s.db.SetMaxIdleConns(connections)
	s.db.SetConnMaxIdleTime(5 * time.Minute)
	version, err := s.inspect(ctx, latest)
	if err == nil && version != latest {
		if migrate {
			err = s.migrate(ctx)
		} else {
			err = &fault.Error{Kind: fault.Conflict, Message: fmt.Sprintf("it has schema %d, and this version works with %d", version, latest), Hint: "use the version that the servers have, or start this version's server first: it upgrades the database"}
		}
	}
	if err != nil {
		s.db.Close()
		return nil, s.openFault(err)
	}
	s.Store = tables.New(tables.Config{
		Read: s.db, Write: s.db, Clock: clk, Now: func() string { return now }, Notify: `SELECT pg_notify('` + channel + `', $1)`,
		Snapshot: sql.LevelRepeatableRead, Translate: s.translate,
		Look: func() time.Duration {
			if s.heard.Load() {
				return lookEvery
			}
			return lookBlind
		},
	})
	bg, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	go s.listen(bg)
	return s, nil
}

// Close ends the watches and the connections.
func (s *Store) Close() error {
	s.stop()
	<-s.done
	s.End()
	return s.db.Close()
}

// durable makes a commit survive the end of the database's server, even where
// its administrator has turned that off: an intent is durable before its call.
func durable(ctx context.Context, c *pgx.Conn) error {
	var level string
	if err := c.QueryRow(ctx, `SHOW synchronous_commit`).Scan(&level); err != nil {
		return err
	}
	if level != "off" {
		return nil
	}
	_, err := c.Exec(ctx, `SET synchronous_commit = on`)
	return err
}

func (s *Store) migrate(ctx context.Context) error {
	// Replicas start together: one upgrades, the others wait.
	l, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	return tables.Migrate(ctx, goose.DialectPostgres, s.db, migrations, goose.WithSessionLocker(l))
}

// listen wakes the watches at each notice. While the connection is down they
// look by themselves; when it is there again they look once, for what was
// missed.
func (s *Store) listen(ctx context.Context) {
	defer close(s.done)
	for ctx.Err() == nil {
		s.hear(ctx)
		s.heard.Store(false)
		select {
		case <-ctx.Done():
		case <-time.After(lookBlind):
		}
	}
}

func (s *Store) hear(ctx context.Context) {
	c, err := pgx.ConnectConfig(ctx, s.config)
	if err != nil {
		return
	}
	defer c.Close(context.WithoutCancel(ctx))
	if _, err := c.Exec(ctx, `LISTEN `+channel); err != nil {
		return
	}
	s.heard.Store(true)
	s.Wake()
	for {
		if _, err := c.WaitForNotification(ctx); err != nil {
			return
		}
		s.Wake()
	}
}

// where names the database without a password.
func (s *Store) where() string {
	return fmt.Sprintf("postgres://%s@%s:%d/%s", s.config.User, s.config.Host, s.config.Port, s.config.Database)
}

// openFault adds what and where to an error of opening.
func (s *Store) openFault(err error) error {
	err = s.translate(err)
	if f, ok := errors.AsType[*fault.Error](err); ok {
		g := *f
		g.Op, g.Object = "open the database", s.where()
		return &g
	}
	return &fault.Error{Kind: fault.Failed, Op: "open the database", Object: s.where(), Message: "the database cannot be opened", Err: err}
}

// translate makes faults of errors that people can do something about.
func (s *Store) translate(err error) error {
	f := &fault.Error{Kind: fault.Unavailable, Op: "use the database", Object: s.where(), Err: err}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch {
		case e.Code == "53100":
			f.Code, f.Message, f.Hint = store.CodeFull, "its disk is full; nothing was written and nothing is lost", "free space on the database server's disk: work goes on by itself"
		case e.Code == "53300":
			f.Message, f.Hint = "it has no connection left", "raise max_connections, or end other clients"
		case strings.HasPrefix(e.Code, "28"):
			f.Kind, f.Message, f.Hint = fault.Denied, "it refuses the user or the password", "the password is read from PGPASSWORD, ~/.pgpass or --database-file"
		case e.Code == "3D000":
			f.Kind, f.Message, f.Hint = fault.NotFound, "there is no such database", "createdb "+s.config.Database
		case e.Code == "25006":
			f.Message, f.Hint = "it is read-only, perhaps a standby", "name the primary; several hosts can be given with target_session_attrs=read-write"
		default:
			return err
		}
		return f
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		f.Message, f.Hint = "it does not answer", "is PostgreSQL running there, and does it let this machine in?"
		return f
	}
	return err
}
