package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// openLog opens a log for appending.
func (a *Agent) openLog(p string) (*os.File, error) {
	p = a.path(p)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(p, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
}

// startProcess runs argv in a session of its own with its output in a file: no
// pipe and no goroutine, so it goes on whatever happens to the agent.
func (a *Agent) startProcess(argv, env []string, dir string, out *os.File, cred *syscall.Credential) (process, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return process{}, err
	}
	defer null.Close()
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{
		Dir: dir, Env: env, Files: []*os.File{null, out, out},
		Sys: &syscall.SysProcAttr{Setsid: true, Credential: cred},
	})
	if err != nil {
		return process{}, err
	}
	pid := p.Pid
	_ = p.Release() // wait reaps it, also in an agent that took over
	start, err := a.startOf(pid)
	if err != nil {
		start = 0 // it has ended already
	}
	return process{PID: pid, Start: start}, nil
}

// wait returns when a process has ended; code is -1 where it is unknown because
// the process is not this agent's child, 128+n after signal n. The file
// descriptor of the process waits in the poller: no thread is held.
func (a *Agent) wait(ctx context.Context, p process) (code int, err error) {
	reap := func() (int, bool) {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(p.PID, &ws, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.ECHILD):
			return -1, !a.alive(p)
		case pid != p.PID:
			return 0, false
		case ws.Signaled():
			return 128 + int(ws.Signal()), true
		}
		return ws.ExitStatus(), true
	}
	if code, ended := reap(); ended {
		return code, nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return a.poll(ctx, reap)
	}
	if code, ended := reap(); ended { // the number may have been used again meanwhile
		unix.Close(fd)
		return code, nil
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return a.poll(ctx, reap)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return a.poll(ctx, reap)
	}
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 && err == nil
	})
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err != nil {
		return a.poll(ctx, reap)
	}
	code, ended := reap()
	if !ended {
		return a.poll(ctx, reap)
	}
	return code, nil
}

// poll waits where the kernel has no file descriptor for a process.
func (a *Agent) poll(ctx context.Context, reap func() (int, bool)) (int, error) {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		if code, ended := reap(); ended {
			return code, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-t.C:
		}
	}
}

// end asks a process group to end, and kills it after grace.
func (a *Agent) end(p process, grace time.Duration) {
	if p.PID <= 1 {
		return
	}
	if err := syscall.Kill(-p.PID, syscall.SIGTERM); err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	_, _ = a.wait(ctx, p)
	_ = syscall.Kill(-p.PID, syscall.SIGKILL)
	ctx, cancel = context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, _ = a.wait(ctx, p)
}

// strays kills what a former agent of this boot started and could not note
// down any more before it died.
func (a *Agent) strays(mark string) {
	d, err := os.Open("/proc")
	if err != nil {
		return
	}
	names, _ := d.Readdirnames(-1)
	d.Close()
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil || pid <= 1 || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile("/proc/" + n + "/environ")
		if err != nil || !strings.Contains("\x00"+string(env), "\x00"+mark+"\x00") {
			continue
		}
		if pgid, err := syscall.Getpgid(pid); err == nil && pgid == pid {
			a.say("ending process group %d, which an agent before this one left behind", pid)
			start, _ := a.startOf(pid)
			a.end(process{pid, start}, 5*time.Second)
		}
	}
}

// tailOf is the end of a file as text.
func (a *Agent) tailOf(p string, limit int64) string {
	f, err := os.Open(a.path(p))
	if err != nil {
		return ""
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return ""
	}
	from := max(0, st.Size()-limit)
	b := make([]byte, st.Size()-from)
	n, _ := f.ReadAt(b, from)
	return strings.ToValidUTF8(string(b[:n]), "?")
}

// credential finds a user in /etc/passwd and /etc/group. Root needs none.
func (a *Agent) credential(name string) (*syscall.Credential, string, error) {
	if name == "root" || name == "" {
		return nil, "/root", nil
	}
	raw, err := os.ReadFile(a.path("/etc/passwd"))
	if err != nil {
		return nil, "", err
	}
	for line := range strings.Lines(string(raw)) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) < 7 || f[0] != name {
			continue
		}
		uid, err1 := strconv.ParseUint(f[2], 10, 32)
		gid, err2 := strconv.ParseUint(f[3], 10, 32)
		if err1 != nil || err2 != nil {
			return nil, "", fmt.Errorf("/etc/passwd: user %s has no plain numbers", name)
		}
		c := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		groups, _ := os.ReadFile(a.path("/etc/group"))
		for line := range strings.Lines(string(groups)) {
			g := strings.Split(strings.TrimRight(line, "\n"), ":")
			if len(g) < 4 {
				continue
			}
			for m := range strings.SplitSeq(g[3], ",") {
				if n, err := strconv.ParseUint(g[2], 10, 32); m == name && err == nil {
					c.Groups = append(c.Groups, uint32(n))
				}
			}
		}
		return c, f[5], nil
	}
	return nil, "", fmt.Errorf("there is no user %s in this image (handoff.user); the Puppet code must make it", name)
}
