package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/image"
)

type imagesCmd struct {
	List imagesListCmd `cmd:"" default:"1" help:"List images."`
	Rm   imagesRmCmd   `cmd:"" help:"Remove an image that nothing uses."`
}

type imageCmd struct {
	Show       imageShowCmd       `cmd:"" help:"Show an image: what it was made from, by whom, its checks, the identities of its canaries; with --report Puppet's report."`
	Diff       imageDiffCmd       `cmd:"" help:"Say what differs between two images: packages, files outside of packages, Puppet's resources."`
	SBOM       imageSBOMCmd       `cmd:"" name:"sbom" help:"Print an image's CycloneDX document."`
	Verify     imageVerifyCmd     `cmd:"" help:"Check the signed statement how an image was made, and that what lies beside the image is what was signed: dayfly image verify shop-0123456789abcdef --key dayfly.pub."`
	Promote    imagePromoteCmd    `cmd:"" help:"Point a channel to an image: dayfly image promote shop-0123456789abcdef stable --why 'ran in staging for a day'."`
	Lineage    imageLineageCmd    `cmd:"" help:"Say what an image comes from, what was made from it, and who runs it."`
	Channels   imageChannelsCmd   `cmd:"" help:"List channels, with who moved them, when and why."`
	Currency   imageCurrencyCmd   `cmd:"" help:"Say which image each environment runs and shall run, when it will be there, and what it waits for: dayfly image currency --late."`
	Revoke     imageRevokeCmd     `cmd:"" help:"Let nothing be launched from an image any more, and replace what runs from it: dayfly image revoke shop-0123456789abcdef --why CVE-2026-1."`
	Quarantine imageQuarantineCmd `cmd:"" help:"Let nothing be launched from an image any more: dayfly image quarantine shop-0123456789abcdef --why CVE-2026-1."`
	Release    imageReleaseCmd    `cmd:"" help:"End an image's quarantine."`
}

type imagesListCmd struct{}

func (imagesListCmd) Run(ctx context.Context, a *app) error {
	is, err := client.List[image.Image](ctx, a.client, "images", "")
	if err != nil {
		return err
	}
	return a.print(is, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tSTATE\tAMI\tPARENT\tMADE\tBY\tSECONDS\tCHECKS")
		for _, i := range is {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%.0f\t%d\n", i.Name, i.State, i.AMI, i.Parent, i.Created.Local().Format(time.DateTime), i.By, i.Seconds, len(i.Checks))
		}
		t.Flush()
	})
}

type imagesRmCmd struct {
	Name string `arg:""`
}

func (c *imagesRmCmd) Run(ctx context.Context, a *app) error {
	return a.client.Delete(ctx, "/v1/images/"+c.Name, nil)
}

type imageShowCmd struct {
	Name   string `arg:"" help:"The image; dayfly images lists them."`
	Report bool   `help:"Print Puppet's last report instead."`
}

func (c *imageShowCmd) Run(ctx context.Context, a *app) error {
	if c.Report {
		var raw []byte
		if err := a.client.Get(ctx, "/v1/images/"+url.PathEscape(c.Name)+"/report", nil, &raw); err != nil {
			return err
		}
		_, err := a.out.Write(raw)
		return err
	}
	i, err := client.One[image.Image](ctx, a.client, "images", c.Name)
	if err != nil {
		return err
	}
	return a.print(i, func(w io.Writer) { showImage(w, i) })
}

func showImage(w io.Writer, i image.Image) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("image", "%s", i.Name)
	row("state", "%s", i.State)
	if i.Why != "" {
		row("why", "%s", i.Why)
	}
	row("ami", "%s", i.AMI)
	row("parent", "%s (%s)", i.Parent, i.Base)
	row("inputs", "%s", i.Inputs)
	row("role", "%s", i.Role)
	row("made", "%s by %s, in %.0f s", i.Created.Local().Format(time.DateTime), i.By, i.Seconds)
	if !i.Refreshed.IsZero() {
		row("made anew", "from the same inputs, as of %s (image.refresh)", i.Refreshed.Local().Format(time.DateTime))
	}
	switch {
	case i.Resumed != "":
		row("made on", "the builder that the failed bake %s kept: not from nothing", i.Resumed)
	case i.Tries > 0:
		row("made on", "a builder that failed and was resumed, %d times", i.Tries)
	}
	if i.Hands > 0 {
		row("by hand", "%d commands were run on the builder by people", i.Hands)
	}
	row("report", "dayfly image show %s --report", i.Name)
	t.Flush()
	fmt.Fprintln(w, "\nchecks")
	t = tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	for _, c := range i.Checks {
		word := "passed"
		if !c.Passed {
			word = "FAILED"
		}
		first, _, _ := strings.Cut(c.Output, "\n")
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", word, c.Name, c.On, first)
	}
	t.Flush()
	for k, c := range i.Canaries {
		fmt.Fprintf(w, "\ncanary %d, %s\n", k+1, c.Instance)
		t = tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
		for _, name := range slices.Sorted(maps.Keys(c.Identity)) {
			fmt.Fprintf(t, "  %s\t%s\n", name, c.Identity[name])
		}
		t.Flush()
	}
}

type imageQuarantineCmd struct {
	Name string `arg:"" help:"The image; dayfly images lists them."`
	Why  string `required:"" help:"The reason, for those who meet it later."`
}

func (c *imageQuarantineCmd) Run(ctx context.Context, a *app) error {
	return a.quarantine(ctx, c.Name, map[string]any{"quarantined": true, "why": c.Why})
}

type imageReleaseCmd struct {
	Name string `arg:"" help:"The image; dayfly images lists them."`
	Why  string `required:"" help:"Why it may be launched again."`
}

func (c *imageReleaseCmd) Run(ctx context.Context, a *app) error {
	return a.quarantine(ctx, c.Name, map[string]any{"quarantined": false, "why": c.Why})
}

func (a *app) quarantine(ctx context.Context, name string, in map[string]any) error {
	var i image.Image
	if err := a.client.Post(ctx, "/v1/images/"+url.PathEscape(name)+"/quarantine", nil, in, &i); err != nil {
		return err
	}
	return a.print(i, func(w io.Writer) { fmt.Fprintf(w, "image %s is %s: %s\n", i.Name, i.State, i.Why) })
}
