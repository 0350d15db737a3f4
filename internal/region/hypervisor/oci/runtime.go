package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor/launch"
)

// runContainer starts PID 1 and returns its number and a descriptor of it.
func (h *Hypervisor) runContainer(ctx context.Context, i *instance) (launch.Process, error) {
	spec, err := h.spec(i)
	if err != nil {
		return launch.Process{}, err
	}
	if i.rec.Boot == hypervisor.BootSystemd && !h.cgroups.unified && h.cgroups.systemd != "" {
		// The runtime binds it before it makes it.
		if err := os.MkdirAll(h.cgroups.systemd+h.cgroups.path(i.id), 0o755); err != nil {
			return launch.Process{}, err
		}
	}
	// A reboot must find the same file even if root inside has replaced it.
	console, err := os.OpenFile(i.consolePath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return launch.Process{}, fmt.Errorf("console: %w", err)
	}
	defer console.Close()
	if st, err := console.Stat(); err != nil || !st.Mode().IsRegular() {
		return launch.Process{}, fmt.Errorf("console: not a file any more (%w)", err)
	}
	if h.launcher != nil {
		return h.launcher.Run(ctx, launch.Bundle{Spec: spec, Root: h.root(i), Console: console})
	}
	if err := h.root(i).Mount(); err != nil {
		return launch.Process{}, err
	}
	pid, err := h.runRuntime(ctx, i, spec, console)
	if err != nil {
		return launch.Process{}, err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return launch.Process{}, fmt.Errorf("PID 1 ended at once: %w; console: %s", err, i.consoleTail())
	}
	unix.CloseOnExec(fd)
	return launch.Process{PID: pid, PIDFD: fd}, nil
}

// abandon kills a PID 1 that no record tells of. Where it is our child, nobody
// else would take its status.
func abandon(p launch.Process) {
	_ = unix.PidfdSendSignal(p.PIDFD, unix.SIGKILL, nil, 0)
	_ = unix.Waitid(unix.P_PIDFD, p.PIDFD, nil, unix.WEXITED, nil)
	unix.Close(p.PIDFD)
}

// runRuntime has an OCI runtime, such as runc, start PID 1.
func (h *Hypervisor) runRuntime(ctx context.Context, i *instance, spec *specs.Spec, console *os.File) (int, error) {
	if err := i.writeBundle(spec); err != nil {
		return 0, err
	}
	pidFile, log := i.path("pid"), i.path("runtime.log")
	for _, f := range []string{pidFile, log} {
		if err := os.Remove(f); err != nil && !missing(err) {
			return 0, err
		}
	}
	c := exec.CommandContext(ctx, h.runtime, "--root", h.runcRoot(), "--log", log, "--log-format", "json",
		"run", "--detach", "--bundle", i.dir, "--pid-file", pidFile, h.container(i.id))
	c.Env, c.Dir = []string{"PATH=" + os.Getenv("PATH"), "GOMAXPROCS=2", "GOGC=off"}, i.dir
	c.Stdout, c.Stderr = console, console
	c.WaitDelay = time.Second
	// The runtime ends with this process: New could not see what a surviving
	// one makes later. The kernel ties that to the thread that started it.
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	if err := c.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", h.runtime, err, runtimeError(log))
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("%s: %q is no process", pidFile, b)
	}
	return pid, nil
}

// runtimeError is the last error that the runtime logged.
func runtimeError(log string) string {
	b, err := os.ReadFile(log)
	if err != nil {
		return "it left no log"
	}
	text := "it gives no reason"
	for line := range strings.Lines(string(b)) {
		var e struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &e) == nil && (e.Level == "error" || e.Level == "fatal") {
			text = e.Msg
		}
	}
	return text
}

func encode(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

func (i *instance) writeBundle(spec *specs.Spec) error {
	f, err := os.OpenFile(i.path("config.json"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(encode(f, spec), f.Close())
}
