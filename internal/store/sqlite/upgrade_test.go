package sqlite

import (
	"database/sql"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pressly/goose/v3"

	"github.com/dayfly-infra/dayfly/internal/clock"
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
			file := fmt.Sprintf("testdata/schema%05d.sql", v)
			if _, err := os.Stat(file); err != nil && *update {
				fixture(t, v, file)
			}
			dump, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("%v: go test ./internal/store/sqlite -run TestUpgrade -update", err)
			}
			path := filepath.Join(t.TempDir(), "old.db")
			raw(t, path, string(dump))
			storetest.Upgraded(t, open(t, path, clock.Real{}))
		})
	}
}

func raw(t *testing.T, path, statements string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statements); err != nil {
		t.Fatal(err)
	}
}

// fixture makes a database of a schema and writes it down as SQL.
func fixture(t *testing.T, version int64, file string) {
	path := filepath.Join(t.TempDir(), "new.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithTableName(tables.VersionTable))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(t.Context(), version); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(storetest.OldRecords); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, line := range column(t, db, `SELECT sql || ';' FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY type DESC, name`) {
		out.WriteString(line + "\n")
	}
	for _, table := range column(t, db, `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name`) {
		fields := column(t, db, `SELECT 'quote(' || name || ')' FROM pragma_table_info('`+table+`')`)
		for _, row := range column(t, db, `SELECT `+strings.Join(fields, ` || ', ' || `)+` FROM `+table) {
			fmt.Fprintf(&out, "INSERT INTO %s VALUES (%s);\n", table, row)
		}
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func column(t *testing.T, db *sql.DB, query string) (out []string) {
	t.Helper()
	rows, err := db.Query(query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}
