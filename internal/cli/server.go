package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/dayfly-infra/dayfly/internal/control"
	"github.com/dayfly-infra/dayfly/internal/server"
)

type serverCmd struct {
	Start  serverStartCmd  `cmd:"" help:"Start the server; it talks to the AWS endpoint of the environment (AWS_ENDPOINT_URL, AWS_PROFILE, ...)."`
	Stop   serverStopCmd   `cmd:"" help:"Stop the server; what it launched goes on."`
	Status serverStatusCmd `cmd:"" help:"Say whether it runs, and for which account and region."`
	Run    serverRunCmd    `cmd:"" hidden:"" help:"Be the server (service managers start this)."`
}

func (a *app) serverDaemon(args ...string) daemon {
	return daemon{name: "server", dir: a.State, args: append([]string{"--state", a.State, "server", "run"}, args...), limit: time.Minute,
		ready: func(ctx context.Context) error {
			var s server.Status
			return a.client.Get(ctx, "/v1/status", nil, &s)
		}}
}

type serverStartCmd struct {
	databaseFlags
}

func (c *serverStartCmd) Run(ctx context.Context, a *app) error {
	args, err := c.args()
	if err != nil {
		return err
	}
	if err := a.serverDaemon(args...).start(ctx, a); err != nil {
		return err
	}
	return serverStatusCmd{}.Run(ctx, a)
}

type serverStopCmd struct{}

func (serverStopCmd) Run(ctx context.Context, a *app) error { return a.serverDaemon().stop(ctx) }

type serverStatusCmd struct{}

func (serverStatusCmd) Run(ctx context.Context, a *app) error {
	var s server.Status
	if err := a.client.Get(ctx, "/v1/status", nil, &s); err != nil {
		return err
	}
	return a.print(s, func(w io.Writer) {
		where := "AWS"
		if s.Endpoint != "" {
			where = s.Endpoint
		}
		fmt.Fprintf(w, "the server runs (process %d), account %s, region %s at %s\n", s.PID, s.Account, s.Region, where)
	})
}

type serverRunCmd struct {
	databaseFlags
}

func (c *serverRunCmd) Run(ctx context.Context, a *app) error {
	database, err := c.address()
	if err != nil {
		return err
	}
	lock, err := a.serverDaemon().hold()
	if err != nil {
		return err
	}
	defer lock.Close()
	return control.Run(ctx, control.Config{Dir: a.State, Database: database, Version: a.version, Log: logger(a.err)})
}
