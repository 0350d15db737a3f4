package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/server"
)

type imagePromoteCmd struct {
	Name    string `arg:"" help:"The image; dayfly images lists them."`
	Channel string `arg:"" help:"The channel, such as stable."`
	Why     string `required:"" aliases:"reason" help:"The reason, for those who ask later."`
}

func (c *imagePromoteCmd) Run(ctx context.Context, a *app) error {
	var ch image.Channel
	if err := a.client.Post(ctx, "/v1/images/"+url.PathEscape(c.Name)+"/promote", nil, server.Promote{Channel: c.Channel, Why: c.Why}, &ch); err != nil {
		return err
	}
	return a.print(ch, func(w io.Writer) {
		fmt.Fprintf(w, "%s points to %s", ch.Name, ch.Image)
		if len(ch.Before) > 0 {
			fmt.Fprintf(w, ", no more to %s", ch.Before[0].Image)
		}
		fmt.Fprintln(w, "; environments take it with their next deploy")
	})
}

type imageChannelsCmd struct {
	Name string `arg:"" optional:"" help:"One channel, with where it pointed before."`
}

func (c *imageChannelsCmd) Run(ctx context.Context, a *app) error {
	if c.Name == "" {
		chs, err := client.List[image.Channel](ctx, a.client, "channels", "")
		if err != nil {
			return err
		}
		return a.print(chs, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "CHANNEL\tIMAGE\tMOVED\tBY\tWHY")
			for _, ch := range chs {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", ch.Name, ch.Image, ch.Moved.Local().Format(time.DateTime), ch.By, dash(ch.Why))
			}
			t.Flush()
		})
	}
	ch, err := client.One[image.Channel](ctx, a.client, "channels", c.Name)
	if err != nil {
		return err
	}
	return a.print(ch, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "IMAGE\tSINCE\tBY\tWHY")
		for _, m := range append([]image.Move{{Image: ch.Image, At: ch.Moved, By: ch.By, Why: ch.Why}}, ch.Before...) {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", m.Image, m.At.Local().Format(time.DateTime), m.By, dash(m.Why))
		}
		t.Flush()
	})
}

type imageLineageCmd struct {
	Name string `arg:"" help:"The image; dayfly images lists them."`
}

func (c *imageLineageCmd) Run(ctx context.Context, a *app) error {
	var l server.Lineage
	if err := a.client.Get(ctx, "/v1/images/"+url.PathEscape(c.Name)+"/lineage", nil, &l); err != nil {
		return err
	}
	return a.print(l, func(w io.Writer) {
		fmt.Fprintf(w, "%s is %s, %s from %s (%s)\n", l.Image, l.State, l.AMI, l.Parent, dash(l.Base))
		row := func(name string, of []string) {
			if len(of) > 0 {
				fmt.Fprintf(w, "  %s: %s\n", name, strings.Join(of, ", "))
			}
		}
		row("parents", l.Parents)
		row("children", l.Children)
		row("channels", l.Channels)
		row("channels before", l.Was)
		for _, g := range l.Runs {
			fmt.Fprintf(w, "  runs: %s, generation %d with %d instances is %s\n", g.Environment, g.Generation, g.Size, g.Phase)
		}
		row("good for", l.GoBack)
	})
}
