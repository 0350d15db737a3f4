package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/region/guest"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

// dial connects to an instance's guest. The socket lies where root inside
// could put a link to some socket of the host: it is opened without following
// links, looked at, and connected by its descriptor (which also has no limit
// of 108 bytes).
func (h *Hypervisor) dial(ctx context.Context, i *instance) (net.Conn, error) {
	fd, err := unix.Open(filepath.Join(i.guestDir(), guest.SocketName), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, errors.New("the guest's socket is not a socket")
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(fd))
}

// open is dial with the errors of the port, and ends the connection with ctx.
func (h *Hypervisor) open(ctx context.Context, id string) (net.Conn, func(), error) {
	i, err := h.find(id)
	if err != nil {
		return nil, nil, err
	}
	h.mu.Lock()
	running := i.status.State == hypervisor.Running
	h.mu.Unlock()
	if !running {
		return nil, nil, fmt.Errorf("%s is stopped: %w (%w)", id, hypervisor.ErrNotReady, hypervisor.ErrState)
	}
	conn, err := h.dial(ctx, i)
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		return nil, nil, fmt.Errorf("%s: %w: %w", id, hypervisor.ErrNotReady, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return conn, func() { stop(); _ = conn.Close() }, nil
}

// ask sends a request and returns the first answer.
func ask(conn net.Conn, q guest.Request) (guest.Response, error) {
	q.Version = guest.Version
	var r guest.Response
	if err := guest.WriteFrame(conn, q); err != nil {
		return r, err
	}
	if err := guest.ReadFrame(conn, &r); err != nil {
		return r, err
	}
	if r.Error != "" {
		return r, &refusal{r.Error}
	}
	return r, nil
}

// refusal is an answer of the guest that says no.
type refusal struct{ text string }

func (r *refusal) Error() string { return "the guest refuses: " + r.text }

const readyPatience = 5 * time.Second

// Ready tells whether the guest answers.
func (h *Hypervisor) Ready(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	conn, done, err := h.open(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	if _, err := ask(conn, guest.Request{Op: guest.OpReady}); err != nil {
		return fmt.Errorf("%s: %w: %w", id, hypervisor.ErrNotReady, err)
	}
	return nil
}

const (
	reconnects    = 50
	reconnectWait = 200 * time.Millisecond
)

// Run hands a command to the guest and waits for its result. When the guest
// restarts meanwhile, it asks again with the same id, which runs nothing twice.
func (h *Hypervisor) Run(ctx context.Context, id string, c hypervisor.Command) (hypervisor.Result, error) {
	accepted := false
	for try := 0; ; try++ {
		r, took, err := h.runOnce(ctx, id, c)
		accepted = accepted || took
		if err == nil {
			return r, nil
		}
		if ctx.Err() != nil {
			return hypervisor.Result{}, fmt.Errorf("run a command on %s: %w", id, ctx.Err())
		}
		var no *refusal
		if errors.As(err, &no) {
			return hypervisor.Result{}, fmt.Errorf("run a command on %s: %w", id, err)
		}
		if !accepted {
			return hypervisor.Result{}, fmt.Errorf("run a command: %w", err)
		}
		if try >= reconnects || errors.Is(err, hypervisor.ErrState) || errors.Is(err, hypervisor.ErrNoInstance) {
			// %v: it may have begun, so this is not ErrNotReady.
			return hypervisor.Result{}, fmt.Errorf("run a command on %s: the instance went away while it ran: %v", id, err)
		}
		select {
		case <-h.cfg.Clock.After(reconnectWait):
		case <-ctx.Done():
		}
	}
}

func (h *Hypervisor) runOnce(ctx context.Context, id string, c hypervisor.Command) (_ hypervisor.Result, accepted bool, _ error) {
	conn, done, err := h.open(ctx, id)
	if err != nil {
		return hypervisor.Result{}, false, err
	}
	defer done()
	q := guest.Request{Op: guest.OpRun, Command: &guest.Command{ID: c.ID, Script: c.Script, Dir: c.Dir, Timeout: c.Timeout}}
	if _, err := ask(conn, q); err != nil {
		if _, no := errors.AsType[*refusal](err); no {
			return hypervisor.Result{}, false, err
		}
		// The request may have arrived: only asking again tells, and that is safe.
		return hypervisor.Result{}, true, err
	}
	var r guest.Response
	if err := guest.ReadFrame(conn, &r); err != nil {
		return hypervisor.Result{}, true, err
	}
	if r.Result == nil {
		return hypervisor.Result{}, true, fmt.Errorf("%w: %s", io.ErrUnexpectedEOF, r.Error)
	}
	g := r.Result
	return hypervisor.Result{ExitCode: g.ExitCode, Stdout: g.Stdout, Stderr: g.Stderr, TimedOut: g.TimedOut, Started: g.Started, Ended: g.Ended}, true, nil
}
