package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// daemon is a process of this binary that goes on after the command ends.
type daemon struct {
	name string // what people call it
	dir  string // its folder: NAME.pid, NAME.log
	args []string
	// ready tells whether it answers.
	ready func(ctx context.Context) error
	// limit is how long it may take until it is ready.
	limit time.Duration
}

// dying is how long a daemon that does not answer may take to be gone.
const dying = 10 * time.Second

func (d daemon) pidFile() string { return filepath.Join(d.dir, d.name+".pid") }
func (d daemon) logFile() string { return filepath.Join(d.dir, d.name+".log") }

// pid returns the daemon's process, 0 when it does not run. The lock on the
// pid file is held as long as the process lives, so a reused pid fools nobody.
func (d daemon) pid() int {
	f, err := os.Open(d.pidFile())
	if err != nil {
		return 0
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return 0 // nobody holds it
	}
	raw, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(raw)))
	return n
}

// hold locks the pid file for this process; the returned file must stay open.
func (d daemon) hold() (*os.File, error) {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.pidFile(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, &fault.Error{Kind: fault.Conflict, Op: "start the " + d.name, Object: d.dir, Message: fmt.Sprintf("it runs already (process %d)", d.pid()), Hint: "dayfly " + d.name + " stop ends it"}
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, err
	}
	_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	return f, err
}

// start starts the daemon, shows what it prints to its log meanwhile, and
// returns when it is ready.
func (d daemon) start(ctx context.Context, a *app) error {
	// One that was killed a moment ago may still be dying: with many mounts and
	// children that takes a while.
	for begun := time.Now(); d.pid() != 0; time.Sleep(50 * time.Millisecond) {
		if err := d.ready(ctx); err == nil {
			return nil
		}
		pid := d.pid()
		if pid == 0 || ctx.Err() == nil && time.Since(begun) < dying {
			continue
		}
		return &fault.Error{Kind: fault.Unavailable, Op: "start the " + d.name, Message: fmt.Sprintf("process %d is there and does not answer", pid), Hint: "its log is " + d.logFile()}
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(d.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	cmd := exec.Command(self, d.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	p := a.progress()
	tail, err := os.Open(d.logFile())
	if err != nil {
		return err
	}
	defer tail.Close()
	if _, err := tail.Seek(from, io.SeekStart); err != nil {
		return err
	}
	lines := bufio.NewReader(tail)
	limit := time.After(d.limit)
	last, said := "", ""
	read := func() {
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			if last = strings.TrimSpace(line); strings.HasPrefix(last, "dayfly: ") {
				said = strings.TrimPrefix(last, "dayfly: ")
			}
			if msg, ok := strings.CutPrefix(last, "progress: "); ok {
				p.say(msg)
			}
		}
	}
	for {
		read()
		if d.ready(ctx) == nil {
			return nil
		}
		select {
		case <-ended:
			read() // its last words
			if said != "" {
				last = said + "\n  " + last
			}
			return &fault.Error{Kind: fault.Failed, Op: "start the " + d.name, Message: "it ended at once: " + last, Hint: "its log is " + d.logFile()}
		case <-ctx.Done():
			_ = cmd.Process.Signal(syscall.SIGTERM)
			return ctx.Err()
		case <-limit:
			_ = cmd.Process.Signal(syscall.SIGTERM)
			return &fault.Error{Kind: fault.Failed, Op: "start the " + d.name, Message: fmt.Sprintf("it did not answer within %s", d.limit), Hint: "its log is " + d.logFile()}
		case <-time.After(30 * time.Millisecond):
		}
	}
}

// stop asks the daemon to end and waits for it.
func (d daemon) stop(ctx context.Context) error {
	pid := d.pid()
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	limit := time.After(30 * time.Second)
	for d.pid() != 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return &fault.Error{Kind: fault.Failed, Op: "stop the " + d.name, Message: fmt.Sprintf("process %d does not end", pid), Hint: "its log is " + d.logFile()}
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}
