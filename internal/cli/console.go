package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/server"
)

// consoleFor is how long a link's token lasts: a day's work.
const consoleFor = 12 * time.Hour

type consoleCmd struct {
	Role string `enum:"viewer,deployer,operator,admin" default:"deployer" help:"What whoever opens it may do: viewer looks; deployer bakes, deploys and tests; operator also cleans up; admin also makes tokens."`
}

type consoleLink struct {
	URL     string    `json:"url"`
	Role    string    `json:"role"`
	Expires time.Time `json:"expires"`
}

// Run makes a token for a browser. It is in the link's fragment, which a browser
// keeps to itself; no browser is started, because its arguments can be seen.
func (c *consoleCmd) Run(ctx context.Context, a *app) error {
	var s server.Status
	if err := a.client.Get(ctx, "/v1/status", nil, &s); err != nil {
		return err
	}
	if s.Console == "" {
		return &fault.Error{Kind: fault.Unavailable, Op: "open the console", Message: "the server listens on its unix socket alone, where no browser gets", Hint: "dayfly server stop && dayfly server start --listen 127.0.0.1:8080"}
	}
	var t server.Minted
	if err := a.client.Post(ctx, "/v1/tokens", nil, server.NewToken{Name: "console-" + strings.ToLower(rand.Text()[:8]), Role: access.Role(c.Role), Expires: time.Now().Add(consoleFor).UTC()}, &t); err != nil {
		return err
	}
	link := consoleLink{URL: s.Console + "/#token=" + url.QueryEscape(t.Secret), Role: c.Role, Expires: t.Expires}
	if a.Output != "json" {
		fmt.Fprintf(a.err, "whoever has this link is a %s until %s:\n", c.Role, t.Expires.Local().Format(time.RFC1123))
	}
	return a.print(link, func(w io.Writer) { fmt.Fprintln(w, link.URL) })
}
