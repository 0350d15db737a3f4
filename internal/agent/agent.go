// Package agent is what Dayfly installs in an image: at boot it gives the
// instance its name and details, fires the armed hand-off, keeps the service
// running, and completes the launch hook with the instance's own role; later it
// runs test suites. It speaks the instance metadata service and the AWS API and
// nothing else, so the same bytes run everywhere. It must not know Dayfly's
// server. It is small in memory on purpose: there is one on every instance.
package agent

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/manifest"
)

// Agent is one agent with everything that it touches.
type Agent struct {
	Root string              // "" on an instance, a folder in tests
	Env  func(string) string // os.Getenv
	Now  func() time.Time
	Log  io.Writer

	// SetHostname is nil where the name may not be set (tests).
	SetHostname func(string) error
	// Again replaces the process by a fresh one once the hand-off is over,
	// which gives back what the boot needed; nil goes on in this one.
	Again func() error
	// Changes says which protected files are not as the image has them, on an
	// instance that began to live then; nil looks at none.
	Changes func(ctx context.Context, since time.Time) ([]manifest.Change, error)

	jitter   func() float64 // from 0 to 1, of pauses
	began    time.Time
	web      *http.Client
	metadata *metadata
	aws      *api
	logMu    sync.Mutex
	said     []byte // the end of what it said, for send
	op       string // id of what this launch is part of; in each line
}

// New returns an agent for this instance.
func New() *Agent {
	return &Agent{Changes: changes, Env: os.Getenv, Now: time.Now, Log: os.Stderr, jitter: rand.Float64}
}

// start fills in what every subcommand needs.
func (a *Agent) start() {
	a.began = a.Now()
	a.web = newClient()
	a.metadata = &metadata{client: a.web, base: a.Env("AWS_EC2_METADATA_SERVICE_ENDPOINT")}
	if a.metadata.base == "" {
		a.metadata.base = "http://169.254.169.254"
	}
	a.metadata.base = strings.TrimSuffix(a.metadata.base, "/")
	a.aws = &api{client: a.web, env: a.Env, now: a.Now, metadata: a.metadata}
}

// idle drops connections that nobody will need soon.
func (a *Agent) idle() { a.web.CloseIdleConnections() }

func (a *Agent) path(p string) string { return filepath.Join(a.Root, p) }

func (a *Agent) say(format string, args ...any) {
	a.logMu.Lock()
	defer a.logMu.Unlock()
	op := ""
	if a.op != "" {
		op = " op=" + a.op
	}
	line := fmt.Sprintf("%s dayfly-agent: %s%s\n", a.Now().UTC().Format("2006-01-02T15:04:05.000Z"), fmt.Sprintf(format, args...), op)
	a.keep(line)
	_, _ = io.WriteString(a.Log, line)
}

// of says of which operation what follows is part.
func (a *Agent) of(operation string) {
	a.logMu.Lock()
	defer a.logMu.Unlock()
	a.op = operation
}

// write replaces a file at once: a reader sees the old one or the new one.
func (a *Agent) write(p string, body []byte, mode os.FileMode) error {
	p = a.path(p)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	tmp := p + ".dayfly-new"
	if err := os.WriteFile(tmp, body, mode); err != nil {
		return err
	}
	if err := os.Rename(tmp, p); err != nil {
		// A file that is a mount of its own cannot be replaced, only filled.
		_ = os.Remove(tmp)
		return os.WriteFile(p, body, mode)
	}
	return nil
}
