package cli

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/client"
)

type bakeDueCmd struct{}

func (bakeDueCmd) Run(ctx context.Context, a *app) error {
	all, err := client.List[bake.Refresh](ctx, a.client, "refreshes", "")
	if err != nil {
		return err
	}
	now := time.Now()
	return a.print(all, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "INPUTS\tEVERY\tLAST\tBAKE\tNEXT\tPROBLEM")
		for _, r := range all {
			last, next := "never", "never"
			if !r.Date.IsZero() {
				last = r.Date.Local().Format(time.DateTime)
			}
			if r.Every > 0 {
				next = fromNow(r.Next, now)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, r.Every, last, r.Bake, next, dash(r.Error))
		}
		t.Flush()
	})
}
