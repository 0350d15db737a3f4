// Package launch starts the PID 1 of an instance from an OCI bundle, as runc
// does, for a small part of what runc costs: one clone, with all namespaces, of
// a small program that is on the host anyway (package inside is what it does),
// no process but PID 1 itself, no files, and a seccomp filter that is compiled
// once. What it cannot do, it refuses; it weakens nothing.
//
// Why so. Runc spends its time on starting a big Go program three times,
// on JSON, and on the filter. A zygote that clones on request would save one
// more exec, but would be a process with all powers that lives beside the
// region and must be watched, restarted and adopted. The region's own clone is
// cheap: Go clones as vfork does, without copying page tables. Until the exec,
// what the new process does is on one thread, so that Go's others do not
// matter; the kernel ends them at the exec.
//
// The process is in its cgroups before it is told anything: whenever the region
// dies, what it was making is found there, or sees the end of its socket and
// ends by itself.
//
// It needs x86-64 (for the filter), cgroup v1 or hybrid, and Linux 5.9. It must
// not know images, instances or the region.
package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor/launch/bpf"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor/launch/inside"
)

// Bundle is what to start.
type Bundle struct {
	Spec    *specs.Spec
	Root    inside.Overlay // instead of Spec.Root: it is mounted in the instance alone
	Console *os.File       // standard output and error
}

// Launcher starts bundles. Its methods may be called at once.
type Launcher struct {
	program string
	groups  []Hierarchy
	null    *os.File
	filters sync.Map // *specs.LinuxSeccomp -> []byte
}

// Config of a Launcher.
type Config struct {
	Program string      // dayfly-guest
	Groups  []Hierarchy // where cgroups are made
}

// Hierarchy is one of cgroup v1.
type Hierarchy struct {
	Mount string // such as /sys/fs/cgroup/memory
	Data  string // what it is mounted with, such as memory or name=systemd
}

// New makes a Launcher.
func New(c Config) (*Launcher, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("launch: %w", err)
	}
	return &Launcher{program: c.Program, groups: c.Groups, null: null}, nil
}

// Close gives back what the Launcher holds; what it has started goes on.
func (l *Launcher) Close() error { return l.null.Close() }

// Process is a PID 1. It is this process's child: who waits for its end takes
// its status too.
type Process struct {
	PID   int
	PIDFD int // the caller's to close
}

// Run starts a bundle. When it returns without an error, PID 1 has begun. After
// an error there is no process, but there may be cgroups.
func (l *Launcher) Run(ctx context.Context, b Bundle) (Process, error) {
	plan, err := l.plan(b)
	if err != nil {
		return Process{}, fmt.Errorf("launch: %w", err)
	}
	if err := l.makeGroups(b.Spec.Linux); err != nil {
		return Process{}, fmt.Errorf("launch: %w", err)
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return Process{}, fmt.Errorf("launch: %w", err)
	}
	defer ours.Close()
	flags, err := namespaces(b.Spec.Linux.Namespaces)
	if err != nil {
		theirs.Close()
		return Process{}, fmt.Errorf("launch: %w", err)
	}
	p := Process{PIDFD: -1}
	console := b.Console.Fd()
	p.PID, _, err = syscall.StartProcess(l.program, []string{l.program, "launch"}, &syscall.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1", "GOGC=off"},
		Files: []uintptr{l.null.Fd(), console, console, theirs.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Cloneflags: flags, PidFD: &p.PIDFD},
	})
	theirs.Close()
	if err != nil {
		return Process{}, fmt.Errorf("launch: start %s: %w", l.program, err)
	}
	if p.PIDFD < 0 {
		p.PIDFD, err = unix.PidfdOpen(p.PID, 0)
	}
	if err == nil {
		err = l.tell(ctx, ours, p.PID, b.Spec.Linux.CgroupsPath, plan)
	}
	if err != nil {
		_ = unix.Kill(p.PID, unix.SIGKILL) // our child, not yet waited for: the number is its own
		reap(p.PID)
		if p.PIDFD >= 0 {
			unix.Close(p.PIDFD)
		}
		return Process{}, fmt.Errorf("launch: %w", err)
	}
	return p, nil
}

func reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// patience is for a process that does nothing but make its instance.
const patience = 30 * time.Second

// tell hands the plan over and waits until PID 1 begins.
func (l *Launcher) tell(ctx context.Context, s *os.File, pid int, group string, plan inside.Plan) error {
	if err := l.join(group, pid); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var answer []byte
	err := inside.Write(s, plan)
	if err == nil || errors.Is(err, unix.EPIPE) { // it may have told why
		answer, err = io.ReadAll(io.LimitReader(s, 64<<10))
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	case len(answer) == 1 && answer[0] == inside.Done:
		return nil
	case len(answer) == 0:
		return errors.New("the new process ended without a word: its memory limit may be too small")
	case answer[0] == inside.Done:
		answer = answer[1:]
	}
	return errors.New(string(answer))
}

// socketPair is a stream; the first end is in Go's poller.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "launch"), os.NewFile(uintptr(fds[1]), "launch"), nil
}

// filter is a profile's, compiled once for each profile.
func (l *Launcher) filter(p *specs.LinuxSeccomp) ([]byte, error) {
	if b, ok := l.filters.Load(p); ok {
		return b.([]byte), nil
	}
	prog, err := bpf.Compile(p)
	if err != nil {
		return nil, err
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&prog[0])), len(prog)*int(unsafe.Sizeof(prog[0])))
	l.filters.Store(p, b)
	return b, nil
}
