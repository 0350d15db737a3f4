package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dayfly-infra/dayfly/internal/control"
)

type backupCmd struct {
	File string `arg:"" help:"A new file, such as dayfly-2030-01-31.backup."`
	databaseFlags
}

// Help implements kong.HelpProvider.
func (backupCmd) Help() string {
	return "It holds all records and packed blueprints as they are at one moment, with a checksum, for either kind of database. The server may run.\n\nFor example: dayfly backup dayfly-$(date +%F).backup"
}

func (c *backupCmd) Run(ctx context.Context, a *app) error {
	database, err := c.address()
	if err != nil {
		return err
	}
	sum, err := control.Backup(ctx, control.Config{Dir: a.State, Database: database, Version: a.version, Log: logger(a.err)}, c.File)
	if err != nil {
		return err
	}
	st, err := os.Stat(c.File)
	if err != nil {
		return err
	}
	return a.print(map[string]any{"file": c.File, "bytes": st.Size(), "records": sum.Records, "blueprints": sum.Blobs, "sha256": sum.SHA256}, func(w io.Writer) {
		fmt.Fprintf(w, "%s has %d records and %d blueprints (%d KiB)\n", c.File, sum.Records, sum.Blobs, (st.Size()+1023)>>10)
	})
}

type restoreCmd struct {
	File  string `arg:"" help:"A file that dayfly backup made."`
	Force bool   `help:"Replace the records that are there."`
	databaseFlags
}

// Help implements kong.HelpProvider.
func (restoreCmd) Help() string {
	return "A server that works with this database loses the ownership of the work and reads everything anew. One that works with another database which the backup came from must be stopped first: both would believe that the same instances are theirs.\n\nFor example: dayfly restore dayfly-2030-01-31.backup --database postgres://dayfly@db.example/dayfly"
}

func (c *restoreCmd) Run(ctx context.Context, a *app) error {
	database, err := c.address()
	if err != nil {
		return err
	}
	head, sum, err := control.Restore(ctx, control.Config{Dir: a.State, Database: database, Version: a.version, Log: logger(a.err)}, c.File, c.Force)
	if err != nil {
		return err
	}
	return a.print(map[string]any{"made": head.Made, "by": head.By, "records": sum.Records, "blueprints": sum.Blobs}, func(w io.Writer) {
		fmt.Fprintf(w, "restored %d records and %d blueprints of %s\n", sum.Records, sum.Blobs, head.Made.Local().Format(time.RFC1123))
		fmt.Fprintln(w, "next: dayfly server start, then dayfly sweep: it shows what was made since then and belongs to nothing")
	})
}
