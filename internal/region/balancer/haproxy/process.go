package haproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/balancer"
	"golang.org/x/sys/unix"
)

func (v *vpc) configPath() string { return filepath.Join(v.dir, "haproxy.cfg") }
func (v *vpc) pidPath() string    { return filepath.Join(v.dir, "pid") }

// alive tells whether a VPC's process answers.
func (b *Balancer) alive(v *vpc) bool {
	out, err := admin(v.dir, "show info desc")
	return err == nil && strings.Contains(out, "Name: HAProxy")
}

// pids are the VPC's processes, those that only finish their last requests too.
func (v *vpc) pids() []int {
	entries, _ := os.ReadDir("/proc")
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue
		}
		args := strings.Split(string(line), "\x00")
		if i := slices.Index(args, "-f"); i > 0 && i+1 < len(args) && args[i+1] == v.configPath() && filepath.Base(args[0]) == "haproxy" {
			out = append(out, pid)
		}
	}
	return out
}

// elders returns what tells of a slot whether a process from before the last
// reload may still have requests of it. It looks for such processes once.
func (v *vpc) elders() func(*slot) bool {
	there := sync.OnceValue(func() bool { return len(v.pids()) > 1 })
	return func(s *slot) bool { return s.Since.Before(v.rec.Reloaded) && there() }
}

// reload starts a process for the configuration; one that runs hands it the
// listening sockets and the servers' states, and finishes what it has.
func (b *Balancer) reload(v *vpc, f *files) error {
	if err := v.write(f); err != nil {
		return err
	}
	args := []string{"-D", "-f", v.configPath(), "-p", v.pidPath()}
	state := filepath.Join(v.dir, "servers")
	if b.alive(v) {
		current, err := v.current()
		if err != nil {
			return err
		}
		v.carry()
		out, err := admin(v.dir, "show servers state")
		if err != nil {
			return fmt.Errorf("admin socket: %w", err)
		}
		if err := os.WriteFile(state, []byte(out), 0o644); err != nil {
			return err
		}
		args = append(args, "-x", socketPath(v.dir), "-sf", strconv.Itoa(current))
		v.rec.Reloaded = b.cfg.Clock.Now()
	} else {
		// Nobody knows the servers' states: every server comes up by its checks.
		if err := os.WriteFile(state, []byte("1\n"), 0o644); err != nil {
			return err
		}
		for _, p := range v.rec.Pools {
			p.Used = slices.DeleteFunc(p.Used, func(s *slot) bool { return s.Removed })
			for _, s := range p.Used {
				s.Live, s.Known, s.Drained = false, false, false
			}
		}
		*f = *render(v.rec, v.dir, b.user, b.group)
		if err := v.write(f); err != nil {
			return err
		}
	}
	var out bytes.Buffer
	cmd := exec.Command(b.cfg.Binary, args...)
	cmd.Args[0] = "haproxy"
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// It may hold on to what it inherits: a file, so that nobody waits for it.
	log, err := os.CreateTemp(v.dir, "start-*.log")
	if err != nil {
		return err
	}
	defer os.Remove(log.Name())
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := startIn(b.cfg.NetNS(v.id), cmd); err != nil {
		return fmt.Errorf("start %s: %w", b.cfg.Binary, err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err = <-done:
	case <-b.after(15 * time.Second):
		_ = cmd.Process.Kill()
		err = errors.Join(errors.New("it did not start in 15 s"), <-done)
	}
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		out.Write(text[:min(len(text), 2000)])
		return &fault.Error{Kind: fault.Failed, Op: "start HAProxy", Object: v.configPath(), Message: strings.TrimSpace(out.String()), Err: err}
	}
	for range 100 { // forked, and about to listen
		if b.alive(v) {
			break
		}
		<-b.after(10 * time.Millisecond)
	}
	// Drains are told again: not every version carries them over. So is what
	// waits for its first success.
	for _, p := range v.rec.Pools {
		for _, s := range p.Used {
			s.Drained = false
			s.Live = s.Live && s.Known
		}
	}
	v.heard = map[string]int64{} // it begins at 0
	return nil
}

// current is the process that listens.
func (v *vpc) current() (int, error) {
	out, err := admin(v.dir, "show info")
	if err != nil {
		return 0, fmt.Errorf("admin socket: %w", err)
	}
	for l := range strings.Lines(out) {
		if n, ok := strings.CutPrefix(l, "Pid: "); ok {
			return strconv.Atoi(strings.TrimSpace(n))
		}
	}
	return 0, errors.New("admin socket: the process does not say its number")
}

// write writes what a process reads at its start, as root, before it gives up
// its rights.
func (v *vpc) write(f *files) error {
	for _, pattern := range []string{"map-*", "body-*"} {
		old, err := filepath.Glob(filepath.Join(v.dir, pattern))
		if err != nil {
			return err
		}
		for _, o := range old {
			_, m := f.maps[o]
			_, s := f.side[filepath.Base(o)]
			if !m && !s {
				if err := os.Remove(o); err != nil && !absent(err) {
					return err
				}
			}
		}
	}
	for name, text := range f.side {
		if err := os.WriteFile(filepath.Join(v.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	for path, ss := range f.maps {
		if err := os.WriteFile(path, []byte(mapText(ss)), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(v.configPath(), []byte(f.config), 0o600)
}

// carry adds what the process has counted to the base, since its successor
// starts at 0.
func (v *vpc) carry() {
	base := map[string]balancer.Stats{}
	list, _ := v.counted() // of a process that is gone: what is known
	for _, s := range list {
		s.Took = 0 // the daemon has it
		base[s.Pool] = s
	}
	v.rec.Base = base
}

// startIn starts a command inside a network namespace: children inherit that of
// the thread which forks them.
func startIn(netns string, cmd *exec.Cmd) error {
	if netns == "" {
		return cmd.Start()
	}
	ns, err := os.Open(netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			err = cmd.Start()
		}
		// A thread that cannot go back dies with this goroutine.
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// kill ends all of a VPC's processes.
func (b *Balancer) kill(ctx context.Context, v *vpc) error {
	signal := syscall.SIGTERM
	for try := range 300 {
		pids := v.pids()
		if len(pids) == 0 {
			return nil
		}
		if try == 200 {
			signal = syscall.SIGKILL
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, signal)
		}
		select {
		case <-b.after(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("processes %v do not end", v.pids())
}
