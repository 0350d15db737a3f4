package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/server"
)

type consoleCmd struct {
	Role string `enum:"viewer,deployer,operator,admin" default:"deployer" help:"What whoever opens it may do, at most what you may: viewer looks; deployer bakes, deploys and tests; operator also cleans up; admin also makes tokens."`
}

type consoleLink struct {
	URL     string    `json:"url"`
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Expires time.Time `json:"expires"`
}

// Run makes a link that signs a browser in once. Its code is in the fragment,
// which a browser keeps to itself; no browser is started, because its arguments
// can be seen.
func (c *consoleCmd) Run(ctx context.Context, a *app) error {
	base := strings.TrimSuffix(a.root.Address, "/")
	if base == "" {
		var s server.Status
		if err := a.client.Get(ctx, "/v1/status", nil, &s); err != nil {
			return err
		}
		if base = s.Console; base == "" {
			return &fault.Error{Kind: fault.Unavailable, Op: "open the console", Message: "the server listens on its unix socket alone, where no browser gets", Hint: "dayfly server stop && dayfly server start --listen 127.0.0.1:8080"}
		}
	}
	var l server.Link
	if err := a.client.Post(ctx, "/v1/links", nil, server.NewLink{Role: access.Role(c.Role)}, &l); err != nil {
		return err
	}
	link := consoleLink{URL: base + "/#code=" + url.QueryEscape(l.Code), Name: l.Name, Role: c.Role, Expires: l.Expires}
	if a.Output != "json" {
		fmt.Fprintf(a.err, "whoever opens this link first, until %s, is signed in as %s (%s):\n", l.Expires.Local().Format(time.TimeOnly), l.Name, c.Role)
	}
	return a.print(link, func(w io.Writer) { fmt.Fprintln(w, link.URL) })
}
