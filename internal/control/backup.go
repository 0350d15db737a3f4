package control

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/archive"
	"github.com/dayfly-infra/dayfly/internal/store/postgres"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

// Backup writes all that the database holds to a new file, as it is at one
// moment, while servers work with it.
func Backup(ctx context.Context, cfg Config, file string) (archive.Sum, error) {
	clk := clock.Real{}
	var st store.Store
	var err error
	if cfg.Database != "" {
		st, err = postgres.OpenThere(ctx, cfg.Database, clk)
	} else {
		st, err = sqlite.OpenThere(ctx, filepath.Join(cfg.Dir, "dayfly.db"), clk)
	}
	if err != nil {
		return archive.Sum{}, err
	}
	defer st.Close()
	if _, err := os.Lstat(file); err == nil {
		return archive.Sum{}, &fault.Error{Kind: fault.Conflict, Op: "back up", Object: file, Message: "the file is there already; it was left as it is", Hint: "choose another name, such as one with the date"}
	}
	// Under its name only when it is whole and on the disk.
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-")
	if err != nil {
		return archive.Sum{}, &fault.Error{Kind: fault.Invalid, Op: "back up", Object: file, Message: "the file cannot be made", Err: err}
	}
	defer os.Remove(f.Name())
	defer f.Close()
	sum, err := archive.Write(ctx, f, st, archive.Head{Made: clk.Now().UTC(), By: cfg.Version})
	if err != nil {
		return sum, err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return sum, err
	}
	return sum, os.Rename(f.Name(), file)
}

// Restore puts a backup into the database, of whichever kind. Whoever owns the
// work is fenced off.
func Restore(ctx context.Context, cfg Config, file string, replace bool) (archive.Head, archive.Sum, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return archive.Head{}, archive.Sum{}, &fault.Error{Kind: fault.NotFound, Op: "restore", Object: file, Message: "there is no such file"}
	}
	if err != nil {
		return archive.Head{}, archive.Sum{}, err
	}
	defer f.Close()
	if _, err := archive.NewReader(f); err != nil { // before a database is made
		return archive.Head{}, archive.Sum{}, err
	}
	if _, err := f.Seek(0, 0); err != nil {
		return archive.Head{}, archive.Sum{}, err
	}
	st, err := openStore(ctx, cfg, clock.Real{})
	if err != nil {
		return archive.Head{}, archive.Sum{}, err
	}
	defer st.Close()
	return archive.Read(ctx, f, st, replace)
}
