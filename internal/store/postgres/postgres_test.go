package postgres

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/pgtest"
	"github.com/dayfly-infra/dayfly/internal/store/storetest"
)

const crashDatabase = "DAYFLY_TEST_CRASH_DATABASE"

var server *pgtest.Server

func TestMain(m *testing.M) {
	if os.Getenv(crashDatabase) == "" {
		var err error
		if server, err = pgtest.Start(); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	if server != nil {
		server.Remove()
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			println(err.Error())
			code = 1
		}
	}
	os.Exit(code)
}

func database(t testing.TB) string {
	t.Helper()
	if server == nil {
		t.Skip("PostgreSQL is not installed: scripts/deps.sh test")
	}
	return server.Database(t)
}

func openAt(t testing.TB, where string) *Store {
	t.Helper()
	s, err := Open(t.Context(), where, clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStore(t *testing.T) {
	database(t)
	storetest.Run(t, func(t *testing.T) store.Store { return openAt(t, database(t)) })
}

func TestCrash(t *testing.T) {
	where := os.Getenv(crashDatabase)
	if where == "" {
		where = database(t)
		t.Setenv(crashDatabase, where) // for the child
	}
	storetest.Crash(t, func(ctx context.Context, _ string) (store.Store, error) { return Open(ctx, where, clock.Real{}) })
}

// Two processes on one database: the second hears of the first one's writes at
// once, also after its connections were cut and after the server was away.
func TestTwoOpen(t *testing.T) {
	s := pgtest.New(t)
	where := s.Database(t)
	a, b := openAt(t, where), openAt(t, where)
	keys, err := b.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	see := func(within time.Duration) {
		t.Helper()
		n++
		for until := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			err := a.Apply(t.Context(), store.NoEpoch, store.Put("a", "x", store.Any, n))
			if err == nil {
				break
			}
			if time.Now().After(until) {
				t.Fatal(err)
			}
		}
		began := time.Now()
		select {
		case <-keys:
			if d := time.Since(began); d > within {
				t.Errorf("write %d was seen after %s", n, d)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("write %d was never seen", n)
		}
	}
	for !b.heard.Load() {
		time.Sleep(time.Millisecond)
	}
	see(lookEvery / 2)
	server.Exec(t, where, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()`)
	see(3 * time.Second)
	s.Down()
	if _, err := a.Get(t.Context(), "a", "x"); err == nil {
		t.Error("a server that is down answered")
	}
	if err := s.Up(); err != nil {
		t.Fatal(err)
	}
	see(3 * time.Second)
	for !b.heard.Load() {
		time.Sleep(time.Millisecond)
	}
	see(lookEvery / 2)
}

// A process that stops in the midst of a transaction does not hold up others.
func TestFrozenWriter(t *testing.T) {
	where := database(t)
	a, b := openAt(t, where), openAt(t, where)
	tx, err := a.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(t.Context(), `UPDATE ledger SET revision = revision + 1`); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := b.Apply(t.Context(), store.NoEpoch, store.Put("a", "x", 0, 1)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > 6*time.Second {
		t.Errorf("the write took %s", d)
	}
}

func TestRefusedUntouched(t *testing.T) {
	if server == nil {
		t.Skip("PostgreSQL is not installed: scripts/deps.sh test")
	}
	good := func(t *testing.T, where string) {
		s := openAt(t, where)
		if err := s.Apply(t.Context(), store.NoEpoch, store.Put("a", "x", 0, 1)); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	for name, c := range map[string]struct{ statement, want string }{
		"newer":    {`INSERT INTO schema_version (version_id, is_applied) VALUES (99999, true)`, "newer Dayfly"},
		"no table": {`DROP TABLE record`, "damaged"},
		"ledger":   {`DELETE FROM ledger`, "damaged"},
		"behind":   {`UPDATE ledger SET revision = 0`, "damaged"},
		"foreign":  {`CREATE TABLE theirs (a TEXT); DROP TABLE schema_version`, "another program"},
	} {
		t.Run(name, func(t *testing.T) {
			where := database(t)
			good(t, where)
			server.Exec(t, where, c.statement)
			before := server.Dump(t, where)
			s, err := Open(t.Context(), where, clock.Real{})
			if err == nil {
				s.Close()
				t.Fatal("it was opened")
			}
			f, ok := errors.AsType[*fault.Error](err)
			if !ok || f.Kind != fault.Invalid || f.Hint == "" || !strings.Contains(f.Object, "test") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the fault is %#v: %v", f, err)
			}
			if after := server.Dump(t, where); after != before {
				t.Errorf("the database was changed:\n%s", after)
			}
		})
	}
}

// A server that works while a newer one brings the database to its schema goes on
// with it, since migrations add and never take away; it is not opened again.
func TestOlderGoesOn(t *testing.T) {
	where := database(t)
	s := openAt(t, where)
	epoch, ok, err := s.Acquire(t.Context(), "old", time.Minute)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	server.Exec(t, where, `ALTER TABLE record ADD COLUMN newer TEXT; CREATE TABLE newer (a TEXT); INSERT INTO schema_version (version_id, is_applied) VALUES (99999, true)`)
	if err := s.Apply(t.Context(), epoch, store.Put("a", "x", 0, 1)); err != nil {
		t.Errorf("it does not write: %v", err)
	}
	if v, _, err := store.Get[int](t.Context(), s, "a", "x"); err != nil || v != 1 {
		t.Errorf("it reads %d: %v", v, err)
	}
	if again, err := Open(t.Context(), where, clock.Real{}); err == nil {
		again.Close()
		t.Error("an older version was started on it")
	}
}

// No error shows the password.
func TestPassword(t *testing.T) {
	for _, where := range []string{
		"postgres://me:s3cret@127.0.0.1:1/x", "postgres://me@127.0.0.1:1/x?password=s3cret", "postgres://me:s3cret@[bad/x", "postgres://me:s3cret@127.0.0.1:1/x?sslmode=what",
	} {
		if !HasPassword(where) {
			t.Errorf("%s: the password was not seen", where)
		}
		s, err := Open(t.Context(), where, clock.Real{})
		if err == nil {
			s.Close()
			t.Fatal("opened")
		}
		if strings.Contains(err.Error()+fault.HintOf(err), "s3cret") {
			t.Errorf("%v", err)
		}
	}
	if HasPassword("postgres://me@host/x?sslmode=require") {
		t.Error("a password is seen where there is none")
	}
}

func BenchmarkApply(b *testing.B) {
	s := openAt(b, database(b))
	for b.Loop() {
		if err := s.Apply(b.Context(), store.NoEpoch, store.Put("a", "x", store.Any, "hello")); err != nil {
			b.Fatal(err)
		}
	}
}
