package postgres

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/dayfly-infra/dayfly/internal/store/storetest"
	"github.com/dayfly-infra/dayfly/internal/store/tables"
)

var update = flag.Bool("update", false, "make the fixtures that are missing")

// Every schema that ever was can be brought to the newest one: testdata has a
// database of each, which is made once, when the schema is new, and never again.
func TestUpgrade(t *testing.T) {
	latest, err := tables.Latest(migrations)
	if err != nil {
		t.Fatal(err)
	}
	for v := int64(1); v <= latest; v++ {
		t.Run(fmt.Sprint("schema ", v), func(t *testing.T) {
			where := database(t)
			file := fmt.Sprintf("testdata/schema%05d.sql", v)
			if _, err := os.Stat(file); err != nil && *update {
				fixture(t, v, file)
			}
			dump, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("%v: go test ./internal/store/postgres -run TestUpgrade -update", err)
			}
			server.Exec(t, where, string(dump))
			storetest.Upgraded(t, openAt(t, where))
		})
	}
}

// fixture makes a database of a schema and writes it down as SQL.
func fixture(t *testing.T, version int64, file string) {
	where := database(t)
	cfg, err := pgx.ParseConfig(where)
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDB(*cfg)
	defer db.Close()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithTableName(tables.VersionTable))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(t.Context(), version); err != nil {
		t.Fatal(err)
	}
	server.Exec(t, where, storetest.OldRecords)
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(server.Dump(t, where)), 0o644); err != nil {
		t.Fatal(err)
	}
}
