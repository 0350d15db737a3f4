package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"text/tabwriter"

	"github.com/dayfly-infra/dayfly/internal/server"
)

type imageDiffCmd struct {
	From string `arg:"" help:"An image; dayfly images lists them."`
	To   string `arg:"" help:"Another."`
}

func (c *imageDiffCmd) Help() string {
	return "For example:\n\n  dayfly image diff shop-0123456789abcdef shop-fedcba9876543210"
}

func (c *imageDiffCmd) Run(ctx context.Context, a *app) error {
	var d server.ImageDiff
	if err := a.client.Get(ctx, "/v1/images/"+url.PathEscape(c.From)+"/diff", url.Values{"to": {c.To}}, &d); err != nil {
		return err
	}
	return a.print(d, func(w io.Writer) {
		if len(d.Changes) == 0 {
			fmt.Fprintln(w, "nothing differs")
			return
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, x := range d.Changes {
			detail := x.To
			switch x.What {
			case "changed":
				detail = x.From + " → " + x.To
			case "removed":
				detail = x.From
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", x.Kind, x.What, x.Name, detail)
		}
		t.Flush()
	})
}

type imageSBOMCmd struct {
	Name string `arg:"" help:"The image; dayfly images lists them."`
}

func (c *imageSBOMCmd) Run(ctx context.Context, a *app) error {
	var raw []byte
	if err := a.client.Get(ctx, "/v1/images/"+url.PathEscape(c.Name)+"/sbom", nil, &raw); err != nil {
		return err
	}
	_, err := a.out.Write(raw)
	return err
}
