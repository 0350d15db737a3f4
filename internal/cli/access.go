package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/audit"
	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/server"
)

// remote is the server at an address, with this user's token.
func remote(address string) *client.Client {
	token, err := readToken()
	if err != nil {
		return client.Failing(err)
	}
	c, err := client.NewRemote(address, token)
	if err != nil {
		return client.Failing(err)
	}
	return c
}

// readToken reads the token from its file: arguments and variables are seen by
// others.
func readToken() (string, error) {
	path := os.Getenv("DAYFLY_TOKEN_FILE")
	if path == "" {
		dir := os.Getenv("XDG_CONFIG_HOME")
		if dir == "" {
			dir = filepath.Join(os.Getenv("HOME"), ".config")
		}
		path = filepath.Join(dir, "dayfly", "token")
	}
	bad := func(kind fault.Kind, message, hint string, err error) (string, error) {
		return "", &fault.Error{Kind: kind, Op: "read the token", Object: path, Message: message, Hint: hint, Err: err}
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return bad(fault.Denied, "there is no token", "an admin makes one: dayfly token create --role deployer --name NAME; put it there with mode 0600, or name its file in DAYFLY_TOKEN_FILE", nil)
	}
	if err != nil {
		return bad(fault.Denied, "the token cannot be read", "", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return bad(fault.Denied, "the token cannot be read", "", err)
	}
	if st.Mode().IsRegular() && st.Mode().Perm()&0o077 != 0 {
		return bad(fault.Denied, fmt.Sprintf("others can read it (mode %04o)", st.Mode().Perm()), "chmod 600 "+path, nil)
	}
	raw, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return bad(fault.Denied, "the token cannot be read", "", err)
	}
	token := strings.TrimSpace(string(raw))
	if access.TokenID(token) == "" {
		return bad(fault.Invalid, "this is not a token of Dayfly", "it begins with "+access.Prefix, nil)
	}
	return token, nil
}

type tokenCmd struct {
	Create tokenCreateCmd `cmd:"" help:"Make a token; it is printed once. For example: dayfly token create --role deployer --name ci --expires 90d > token"`
	List   tokenListCmd   `cmd:"" help:"List tokens."`
	Revoke tokenRevokeCmd `cmd:"" help:"End a token at once."`
}

type tokenCreateCmd struct {
	Name    string `required:"" help:"What it is for."`
	Role    string `required:"" enum:"viewer,deployer,operator,admin" help:"viewer looks; deployer bakes, deploys and tests; operator also cleans up and reads the audit log; admin also makes tokens."`
	Expires string `default:"90d" help:"After how long it ends, such as 90d or 12h; at most 366d." placeholder:"TIME"`
}

func (c *tokenCreateCmd) Run(ctx context.Context, a *app) error {
	d, err := days(c.Expires)
	if err != nil {
		return err
	}
	var t server.Minted
	if err := a.client.Post(ctx, "/v1/tokens", nil, server.NewToken{Name: c.Name, Role: access.Role(c.Role), Expires: time.Now().Add(d).UTC()}, &t); err != nil {
		return err
	}
	if a.Output != "json" {
		fmt.Fprintf(a.err, "token %s (%s, %s) until %s; it is not shown again:\n", t.ID, t.Name, t.Role, t.Expires.Local().Format(time.RFC1123))
	}
	return a.print(t, func(w io.Writer) { fmt.Fprintln(w, t.Secret) })
}

// days reads a duration that may also be in days.
func days(s string) (time.Duration, error) {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(n); err == nil && n > 0 && n < 100_000 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, &fault.Error{Kind: fault.Invalid, Object: s, Message: "this is not a time", Hint: "for example 90d or 12h"}
	}
	return d, nil
}

type tokenListCmd struct{}

func (tokenListCmd) Run(ctx context.Context, a *app) error {
	ts, err := client.List[server.Token](ctx, a.client, "tokens", "")
	if err != nil {
		return err
	}
	return a.print(ts, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "ID\tNAME\tROLE\tBY\tENDS\tUSED")
		for _, k := range ts {
			used := "never"
			if !k.Used.IsZero() {
				used = k.Used.Local().Format(time.DateTime)
			}
			ends := k.Expires.Local().Format(time.DateTime)
			if k.Expires.Before(time.Now()) {
				ends = "has ended"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Name, k.Role, k.By, ends, used)
		}
		t.Flush()
	})
}

type tokenRevokeCmd struct {
	ID string `arg:"" help:"The id that dayfly token list shows."`
}

func (c *tokenRevokeCmd) Run(ctx context.Context, a *app) error {
	var t server.Token
	if err := a.client.Delete(ctx, "/v1/tokens/"+url.PathEscape(c.ID), &t); err != nil {
		return err
	}
	return a.print(t, func(w io.Writer) { fmt.Fprintf(w, "token %s (%s) is revoked\n", t.ID, t.Name) })
}

type auditCmd struct {
	Limit int `default:"50" help:"At most so many, the newest; 0 is all."`
}

func (c *auditCmd) Run(ctx context.Context, a *app) error {
	es, err := client.Some[audit.Entry](ctx, a.client, "audit", url.Values{}, max(c.Limit, 0))
	if err != nil {
		return err
	}
	return a.print(es, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "WHEN\tWHO\tROLE\tFROM\tWHAT\tON\tRESULT")
		for i := len(es) - 1; i >= 0; i-- { // the newest last, where people look
			e := es[i]
			result := fmt.Sprint(e.Status)
			switch {
			case e.Status == 0:
				result = "cut off, or under way"
			case e.Error != "":
				result += " " + e.Error
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.At.Local().Format(time.DateTime), e.Who, dash(e.Role), e.From, e.Operation, e.Object, result)
		}
		t.Flush()
	})
}
