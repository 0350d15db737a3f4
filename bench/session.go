package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// session is one run of the benchmark: folders, what has to be ended, progress.
type session struct {
	dir   string // of this run alone
	runs  int    // of the group that is being measured
	world *world // once a group has needed it
	began time.Time

	dockerd *docker // once a group has needed it

	lock *os.File
	ends []func() error // in the reverse order
}

func newSession(ctx context.Context) (*session, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("instances and their peers need namespaces and mounts: run this as root")
	}
	if _, err := os.Stat("bin/dayfly"); err != nil {
		return nil, errors.New("bin/dayfly is not there: make bench builds it")
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	s := &session{dir: filepath.Join(home, "run"), began: time.Now()}
	var err error
	if s.lock, err = os.OpenFile(filepath.Join(home, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.New("another benchmark runs on this machine")
	}
	// What a run left that was killed.
	if err := endStale(s.dir); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return nil, err
	}
	return s, os.Mkdir(s.dir, 0o700)
}

// say prints a line of progress.
func (s *session) say(format string, args ...any) {
	fmt.Printf("%7.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// cleanup is called at the end, the last first.
func (s *session) cleanup(f func() error) { s.ends = append(s.ends, f) }

func (s *session) close() error {
	var errs []error
	for i := len(s.ends) - 1; i >= 0; i-- {
		errs = append(errs, s.ends[i]())
	}
	s.ends = nil
	errs = append(errs, endStale(s.dir), os.RemoveAll(s.dir), s.lock.Close())
	return errors.Join(errs...)
}

// pidName marks, below the run's folder, a process that must not outlive it.
const pidName = "pid"

// endStale ends what processes of a former run are left: those whose number is
// in a file DIR/*/pid and that have the folder in their command line.
func endStale(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*", pidName))
	if err != nil {
		return err
	}
	for _, f := range files {
		var pid int
		raw, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if _, err := fmt.Sscan(string(raw), &pid); err != nil || pid <= 1 {
			continue
		}
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !strings.Contains(string(line), dir+"/") {
			continue
		}
		if err := endProcess(pid, 20*time.Second); err != nil {
			return err
		}
	}
	return removeBridges()
}

// endProcess asks a process to end, kills it after the patience, and waits.
func endProcess(pid int, patience time.Duration) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		_ = unix.PidfdSendSignal(fd, sig, nil, 0)
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds())); n > 0 {
			return nil
		}
	}
	return fmt.Errorf("process %d does not end", pid)
}

// command is a child that does not get the terminal's Ctrl-C: its end is ours
// to bring about, in order.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 2 * time.Minute // it cleans up
	return cmd
}

// run runs a program and returns what it printed; its errors say what it
// complained of.
func run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := command(ctx, name, args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", filepath.Base(name), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// bridges of ours begin with this.
const bridgePrefix = "dfbench-"

// addBridge makes a bridge with the first address of a network that this host
// does not have yet, and says which.
func (s *session) addBridge(ctx context.Context, name string) (bridge string, gateway netip.Prefix, err error) {
	bridge = bridgePrefix + name
	taken, err := net.InterfaceAddrs()
	if err != nil {
		return "", gateway, err
	}
	for third := range byte(200) {
		gateway = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, third, 1}), 24)
		free := true
		for _, a := range taken {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Masked().Overlaps(gateway.Masked()) {
				free = false
			}
		}
		if free {
			break
		}
	}
	for _, args := range [][]string{{"link", "add", bridge, "type", "bridge"}, {"addr", "add", gateway.String(), "dev", bridge}, {"link", "set", bridge, "up"}} {
		if _, err := run(ctx, "ip", args...); err != nil {
			return "", gateway, err
		}
	}
	return bridge, gateway, nil
}

// removeBridges takes all bridges of ours down, with what hangs on them.
func removeBridges() error {
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		if strings.HasPrefix(l.Name, bridgePrefix) {
			_, err := run(context.Background(), "ip", "link", "del", l.Name)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// sleep waits unless it is interrupted.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
