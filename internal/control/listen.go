package control

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/server"
)

// Listen is where the API is reached beside its unix socket.
type Listen struct {
	Address string // HOST:PORT; "" is nowhere
	Cert    string // files in PEM
	Key     string
}

// address is a listener that may be absent.
type address struct{ net.Listener }

func (a address) address() string {
	if a.Listener == nil {
		return ""
	}
	return a.Addr().String()
}

// url is what a browser opens.
func (a address) url(l Listen) string {
	if a.Listener == nil {
		return ""
	}
	if l.Cert != "" {
		return "https://" + a.Addr().String()
	}
	return "http://" + a.Addr().String()
}

// open opens the address. What is not on loopback alone demands TLS.
func (l Listen) open(log *slog.Logger) (address, error) {
	if l.Address == "" {
		return address{}, nil
	}
	bad := func(kind fault.Kind, message, hint string, err error) (address, error) {
		return address{}, &fault.Error{Kind: kind, Op: "open the server's address", Object: l.Address, Message: message, Hint: hint, Err: err}
	}
	host, _, err := net.SplitHostPort(l.Address)
	if err != nil {
		return bad(fault.Invalid, "this is not HOST:PORT", "for example --listen 127.0.0.1:8080", nil)
	}
	if (l.Cert == "") != (l.Key == "") {
		return bad(fault.Invalid, "a certificate needs its key, and a key its certificate", "--tls-cert FILE --tls-key FILE", nil)
	}
	// As an address, not as a name: what localhost means is not ours.
	if ip := net.ParseIP(host); l.Cert == "" && (ip == nil || !ip.IsLoopback()) {
		return bad(fault.Invalid, "tokens would go over the network in plain", "--tls-cert FILE --tls-key FILE, or --listen 127.0.0.1:PORT", nil)
	}
	inner, err := net.Listen("tcp", l.Address)
	if err != nil {
		return bad(fault.Failed, "it cannot be opened", "", err)
	}
	if l.Cert == "" {
		return address{inner}, nil
	}
	c := &certificate{cert: l.Cert, key: l.Key, log: log}
	if _, err := c.get(nil); err != nil {
		inner.Close()
		return bad(fault.Invalid, "the certificate cannot be used", "", err)
	}
	return address{tls.NewListener(inner, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"h2", "http/1.1"}})}, nil
}

// certificate reads its files again when they changed, so that a renewed one
// needs no restart.
type certificate struct {
	cert, key string
	log       *slog.Logger

	mu     sync.Mutex
	loaded *tls.Certificate
	at     time.Time // of the newer file
	looked time.Time
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded != nil && time.Since(c.looked) < time.Second {
		return c.loaded, nil
	}
	c.looked = time.Now()
	var at time.Time
	for _, f := range []string{c.cert, c.key} {
		st, err := os.Stat(f)
		if err != nil {
			return c.keep(err)
		}
		if st.ModTime().After(at) {
			at = st.ModTime()
		}
	}
	if c.loaded != nil && at.Equal(c.at) {
		return c.loaded, nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return c.keep(err)
	}
	c.loaded, c.at = &pair, at
	return c.loaded, nil
}

// keep goes on with what was good while the files are being replaced.
func (c *certificate) keep(err error) (*tls.Certificate, error) {
	if c.loaded == nil {
		return nil, err
	}
	c.log.Warn("the certificate cannot be read again; the one before is used", "error", err)
	return c.loaded, nil
}

// grace is how long requests may take to end when the server is stopped.
const grace = 10 * time.Second

// serve answers on both listeners until ctx ends: then streams are closed, and
// requests that are under way come to their end.
func serve(ctx context.Context, log *slog.Logger, api *server.Server, pages http.Handler, l net.Listener, tcp address) error {
	h := &http.Server{
		Handler: pages, ConnContext: server.ConnContext, BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 2 * time.Minute, WriteTimeout: 2 * time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 32 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 2)
	go func() { ended <- h.Serve(l) }()
	if tcp.Listener != nil {
		go func() { ended <- h.Serve(tcp) }()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-ended:
	}
	api.Drain()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if h.Shutdown(end) != nil {
		h.Close()
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// tidyEvery is how often what is kept for a time only is removed.
const tidyEvery = time.Hour

func (c *Control) tidyNowAndThen(ctx context.Context, api *server.Server) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.clock.After(tidyEvery):
		}
		if !c.Active() {
			continue
		}
		if err := errors.Join(api.Tidy(ctx), c.chronicle.Prune(ctx), c.tidyDeliveries(ctx), c.tidyTallies(ctx, c.clock.Now()), c.forget(ctx)); err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("old records were not removed", "error", err)
		}
	}
}

// listen opens the socket that only this user can use.
func listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, &fault.Error{Kind: fault.Failed, Op: "open the server's socket", Object: path, Message: "it cannot be made", Hint: "the path may have about 100 characters: choose a shorter --state", Err: err}
	}
	return l, os.Chmod(path, 0o600)
}
