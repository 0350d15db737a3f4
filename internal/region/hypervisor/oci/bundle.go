package oci

import (
	"fmt"
	goruntime "runtime"
	"slices"
	"sync"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

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
	var err error
	if s.Linux.Seccomp, err = h.profiles.of(s, i.rec.Boot); err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	return s, nil
}

// profiles are made once: they depend on the capabilities alone, and whoever
// compiles one knows it again by its address.
type profiles struct {
	mu   sync.Mutex
	made map[hypervisor.Boot]*specs.LinuxSeccomp
}

func (p *profiles) of(s *specs.Spec, boot hypervisor.Boot) (*specs.LinuxSeccomp, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if made := p.made[boot]; made != nil {
		return made, nil
	}
	profile, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		return nil, err
	}
	if boot == hypervisor.BootSystemd {
		for k := range profile.Syscalls {
			c := &profile.Syscalls[k]
			c.Names = slices.DeleteFunc(slices.Clone(c.Names), func(n string) bool { return slices.Contains(notForSystemd, n) })
		}
		profile.Syscalls = slices.DeleteFunc(profile.Syscalls, func(c specs.LinuxSyscall) bool { return len(c.Names) == 0 })
	}
	if p.made == nil {
		p.made = map[hypervisor.Boot]*specs.LinuxSeccomp{}
	}
	p.made[boot] = profile
	return profile, nil
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
		specs.Mount{Destination: guest.DiskDir, Type: "bind", Source: i.path("upper"), Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"}},
		specs.Mount{Destination: guest.HostDir, Type: "bind", Source: i.guestDir(), Options: []string{"bind", "rw", "nosuid", "nodev", "noexec"}})
}
