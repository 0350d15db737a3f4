package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

type boxCmd struct {
	Serve boxServeCmd `cmd:"" help:"Serve a folder with releases over HTTP."`
}

type boxServeCmd struct {
	Dir     string `arg:"" help:"Folder with artifacts, SHA256SUMS and LATEST."`
	Address string `help:"Where to listen." default:"127.0.0.1:8088"`
}

func (c *boxServeCmd) Run(ctx context.Context, a *app) error {
	if err := folder(c.Dir); err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Address)
	if err != nil {
		return &fault.Error{Kind: fault.Unavailable, Op: "serve the box", Object: c.Address, Message: "the address cannot be used", Hint: "choose another with --address", Err: err}
	}
	fmt.Fprintf(a.err, "serving %s at http://%s\n", c.Dir, l.Addr())
	s := &http.Server{Handler: http.FileServer(http.Dir(c.Dir)), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = s.Shutdown(end)
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
