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
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/region/guest"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

// capabilities are Docker's default.
var capabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// notForSystemd are system calls that Docker's profile allows with
// CAP_SYS_ADMIN and that systemd does without.
var notForSystemd = []string{
	"bpf", "perf_event_open", "fanotify_init", "lookup_dcookie", "quotactl", "quotactl_fd", "syslog", "setdomainname",
}

var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
	"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
}

var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

const (
	defaultPids   = 4096
	cpuPeriod     = 100_000
	oomScoreAdj   = 500 // the host's own processes go last
	runTmpfsLimit = "size=20%"
)

func encode(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

func (i *instance) writeBundle(h *Hypervisor) error {
	spec, err := h.spec(i)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(i.path("config.json"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(encode(f, spec), f.Close())
}

func (h *Hypervisor) spec(i *instance) (*specs.Spec, error) {
	in, systemd := i.rec.Spec, i.rec.Boot == hypervisor.BootSystemd
	caps := slices.Clone(capabilities)
	if systemd {
		caps = append(caps, "CAP_SYS_ADMIN")
	}
	env := guest.Environ(in.Env)
	if systemd {
		env = append(env, "container=oci")
	}
	s := &specs.Spec{
		Version:  "1.0.2",
		Hostname: in.Hostname,
		Root:     &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args:         []string{guest.Binary, "boot", string(i.rec.Boot)},
			Env:          env,
			Cwd:          "/",
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			OOMScoreAdj:  new(oomScoreAdj),
		},
		Mounts: h.mounts(i, systemd),
		Linux: &specs.Linux{
			CgroupsPath:   h.cgroups.path(i.id),
			MaskedPaths:   maskedPaths,
			ReadonlyPaths: readonlyPaths,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.IPCNamespace}, {Type: specs.CgroupNamespace}, {Type: specs.NetworkNamespace, Path: in.NetNS},
			},
			Resources: h.resources(in),
		},
	}
	profile, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	if systemd {
		for k := range profile.Syscalls {
			c := &profile.Syscalls[k]
			c.Names = slices.DeleteFunc(slices.Clone(c.Names), func(n string) bool { return slices.Contains(notForSystemd, n) })
		}
		profile.Syscalls = slices.DeleteFunc(profile.Syscalls, func(c specs.LinuxSyscall) bool { return len(c.Names) == 0 })
	}
	s.Linux.Seccomp = profile
	return s, nil
}

func (h *Hypervisor) resources(in hypervisor.Instance) *specs.LinuxResources {
	r := &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
		Pids:    &specs.LinuxPids{Limit: new(int64(defaultPids))},
	}
	if in.Pids > 0 {
		r.Pids.Limit = &in.Pids
	}
	if in.MemoryMiB > 0 {
		limit := in.MemoryMiB << 20
		r.Memory = &specs.LinuxMemory{Limit: &limit}
		if h.cgroups.swap {
			r.Memory.Swap = &limit // memory and swap together: no swap
		}
	}
	if in.CPUs > 0 {
		r.CPU = &specs.LinuxCPU{Shares: new(uint64(max(2, min(in.CPUs*1024, 262_144))))}
		// A quota of all processors limits nothing, but costs the scheduler.
		if in.CPUs < float64(goruntime.NumCPU()) {
			r.CPU.Quota, r.CPU.Period = new(int64(max(in.CPUs*cpuPeriod, 1000))), new(uint64(cpuPeriod))
		}
	}
	return r
}

func (h *Hypervisor) mounts(i *instance, systemd bool) []specs.Mount {
	m := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=50%"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=755", runTmpfsLimit}},
	}
	cgroup := specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}}
	if systemd && h.cgroups.unified {
		cgroup.Options[4] = "rw"
	}
	m = append(m, cgroup)
	if systemd {
		if !h.cgroups.unified && h.cgroups.systemd != "" {
			m = append(m, specs.Mount{Destination: "/sys/fs/cgroup/systemd", Type: "bind",
				Source: h.cgroups.systemd + h.cgroups.path(i.id), Options: []string{"bind", "rw", "nosuid", "noexec", "nodev"}})
		}
		m = append(m,
			specs.Mount{Destination: "/run/lock", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "mode=1777", "size=5m"}},
			specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=1777", "size=50%"}})
	}
	return append(m,
		specs.Mount{Destination: guest.Binary, Type: "bind", Source: h.cfg.GuestPath, Options: []string{"bind", "ro", "nosuid", "nodev"}},
		specs.Mount{Destination: guest.HostDir, Type: "bind", Source: i.guestDir(), Options: []string{"bind", "rw", "nosuid", "nodev", "noexec"}})
}

// runContainer starts PID 1 and returns its number.
func (h *Hypervisor) runContainer(ctx context.Context, i *instance) (int, error) {
	if i.rec.Boot == hypervisor.BootSystemd && !h.cgroups.unified && h.cgroups.systemd != "" {
		// The runtime binds it before it makes it.
		if err := os.MkdirAll(h.cgroups.systemd+h.cgroups.path(i.id), 0o755); err != nil {
			return 0, err
		}
	}
	// A reboot must find the same file even if root inside has replaced it.
	console, err := os.OpenFile(i.consolePath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return 0, fmt.Errorf("console: %w", err)
	}
	defer console.Close()
	if st, err := console.Stat(); err != nil || !st.Mode().IsRegular() {
		return 0, fmt.Errorf("console: not a file any more (%w)", err)
	}
	pidFile, log := i.path("pid"), i.path("runtime.log")
	for _, f := range []string{pidFile, log} {
		if err := os.Remove(f); err != nil && !missing(err) {
			return 0, err
		}
	}
	c := exec.CommandContext(ctx, h.runc, "--root", h.runcRoot(), "--log", log, "--log-format", "json",
		"run", "--detach", "--bundle", i.dir, "--pid-file", pidFile, h.container(i.id))
	c.Env, c.Dir = h.runcEnv, i.dir
	c.Stdout, c.Stderr = console, console
	c.WaitDelay = time.Second
	// The runtime ends with this process: New could not see what a surviving
	// one makes later. The kernel ties that to the thread that started it.
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	if err := c.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", h.cfg.Runtime, err, runtimeError(log))
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
