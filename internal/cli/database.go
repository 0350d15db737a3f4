package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/control"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

// databaseFlags say where the records are.
type databaseFlags struct {
	Database     string `help:"A PostgreSQL database that several servers may share, such as postgres://dayfly@db.example/dayfly; the password comes from PGPASSWORD, ~/.pgpass or --database-file. Without it the records are in the server's folder (SQLite)." env:"DAYFLY_DATABASE" placeholder:"URL"`
	DatabaseFile string `help:"A file that holds that address, with a password or without." env:"DAYFLY_DATABASE_FILE" placeholder:"FILE"`
}

// maxAddress is more than any address of a database has.
const maxAddress = 8 << 10

// address is the connection string, "" for the embedded database.
func (f databaseFlags) address() (string, error) {
	bad := func(object, message, hint string) (string, error) {
		return "", &fault.Error{Kind: fault.Invalid, Op: "choose the database", Object: object, Message: message, Hint: hint}
	}
	s := f.Database
	switch {
	case f.Database != "" && f.DatabaseFile != "":
		return bad("--database", "there is a --database-file as well", "give one of the two")
	case f.DatabaseFile != "":
		st, err := os.Stat(f.DatabaseFile)
		if errors.Is(err, fs.ErrNotExist) {
			return bad(f.DatabaseFile, "there is no such file", "it has one line: postgres://USER:PASSWORD@HOST/DATABASE")
		}
		if err != nil {
			return "", err
		}
		if st.Mode().Perm()&0o077 != 0 {
			return bad(f.DatabaseFile, "others can read it", "chmod 600 "+f.DatabaseFile)
		}
		if st.Size() > maxAddress {
			return bad(f.DatabaseFile, "it is too long for an address", "it has one line: postgres://USER:PASSWORD@HOST/DATABASE")
		}
		raw, err := os.ReadFile(f.DatabaseFile)
		if err != nil {
			return "", err
		}
		if s = strings.TrimSpace(string(raw)); s == "" {
			return bad(f.DatabaseFile, "it is empty", "it has one line: postgres://USER:PASSWORD@HOST/DATABASE")
		}
	case s == "":
		return "", nil
	case s != os.Getenv("DAYFLY_DATABASE") && control.HasPassword(s):
		return bad("--database", "it holds a password, and arguments can be seen by everybody on this machine", "put the address into a file of mode 0600 and give --database-file FILE, or use PGPASSWORD or ~/.pgpass")
	}
	if !control.IsDatabase(s) {
		return bad("", "the address does not begin with postgres://", "without --database the records are in the server's folder")
	}
	return s, nil
}

// args are the flags for a process of our own; what came by a variable comes to
// it the same way.
func (f databaseFlags) args() ([]string, error) {
	if _, err := f.address(); err != nil {
		return nil, err
	}
	var args []string
	if f.Database != "" && f.Database != os.Getenv("DAYFLY_DATABASE") {
		args = append(args, "--database", f.Database)
	}
	if f.DatabaseFile != "" && f.DatabaseFile != os.Getenv("DAYFLY_DATABASE_FILE") {
		abs, err := filepath.Abs(f.DatabaseFile)
		if err != nil {
			return nil, err
		}
		args = append(args, "--database-file", abs)
	}
	return args, nil
}
