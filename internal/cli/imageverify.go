package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dayfly-infra/dayfly/internal/attest"
	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/server"
)

type imageVerifyCmd struct {
	Name string   `arg:"" help:"The image; dayfly images lists them."`
	Key  []string `required:"" type:"path" env:"DAYFLY_TRUSTED_KEYS" placeholder:"FILE" help:"Public keys in PEM whose statements are believed; the server is not asked for them."`
}

// verified is what was found out here, not by the server.
type verified struct {
	Image     string           `json:"image"`
	AMI       string           `json:"ami"`
	Key       string           `json:"key"` // that signed it
	Statement attest.Statement `json:"statement"`
	Matches   []string         `json:"matches"` // what lies beside the image and is what was signed
}

func (c *imageVerifyCmd) Run(ctx context.Context, a *app) error {
	refuse := func(message string, err error) error {
		return &fault.Error{Kind: fault.Denied, Op: "verify", Object: "image " + c.Name, Message: message, Err: err}
	}
	var trusted attest.Trusted
	for _, f := range c.Key {
		t, err := attest.ReadTrusted(f)
		if err != nil {
			return err
		}
		trusted = append(trusted, t...)
	}
	i, err := client.One[image.Image](ctx, a.client, "images", c.Name)
	if err != nil {
		return err
	}
	var st server.Status
	if err := a.client.Get(ctx, "/v1/status", nil, &st); err != nil {
		return err
	}
	get := func(what string) (raw []byte, err error) {
		return raw, a.client.Get(ctx, "/v1/images/"+url.PathEscape(c.Name)+"/"+what, nil, &raw)
	}
	raw, err := get("attestation")
	if err != nil {
		return err
	}
	out := verified{Image: i.Name, AMI: i.AMI}
	if out.Statement, out.Key, err = trusted.Open(ctx, raw); err != nil {
		return refuse("the statement is not believed", err)
	}
	if err := out.Statement.About(i, st.Region); err != nil {
		return refuse("the statement is not about this image", err)
	}
	for _, b := range out.Statement.Predicate.Run.Byproducts {
		what, ok := map[string]string{attest.Inventory: "inventory", attest.SBOM: "sbom", attest.Report: "report"}[b.Name]
		if !ok {
			continue
		}
		raw, err := get(what)
		if err != nil {
			return refuse("its "+b.Name+" was signed and cannot be read", err)
		}
		if got := sha256.Sum256(raw); hex.EncodeToString(got[:]) != b.Digest["sha256"] {
			return refuse(fmt.Sprintf("its %s is not the one that was signed: sha256:%x instead of sha256:%s", b.Name, got, b.Digest["sha256"]), nil)
		}
		out.Matches = append(out.Matches, b.Name)
	}
	return a.print(out, func(w io.Writer) {
		p := out.Statement.Predicate
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "image\t%s (%s)\n", out.Image, out.AMI)
		fmt.Fprintf(t, "signed by\t%s\n", out.Key)
		fmt.Fprintf(t, "made\t%s to %s by %s\n", p.Run.Metadata.Started.Local().Format(time.DateTime), p.Run.Metadata.Finished.Local().Format(time.DateTime), p.Run.Builder.ID)
		for _, d := range p.Build.Dependencies {
			what := d.URI
			if s := d.Digest["sha256"]; s != "" {
				what = "sha256:" + s
			}
			fmt.Fprintf(t, "from %s\t%s\n", d.Name, what)
		}
		fmt.Fprintf(t, "as signed\t%s\n", strings.Join(out.Matches, ", "))
		failed := 0
		for _, c := range p.Run.Checks {
			if !c.Passed {
				failed++
			}
		}
		fmt.Fprintf(t, "checks\t%d, %d failed\n", len(p.Run.Checks), failed)
		t.Flush()
	})
}
