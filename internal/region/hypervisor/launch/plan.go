package launch

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor/launch/inside"
)

// plan translates a bundle. It refuses what it would have to leave out.
func (l *Launcher) plan(b Bundle) (inside.Plan, error) {
	s := b.Spec
	if err := supported(s); err != nil {
		return inside.Plan{}, err
	}
	p := inside.Plan{
		Root: b.Root, Hostname: s.Hostname, Keyring: "_ses." + filepath.Base(s.Linux.CgroupsPath),
		Devices: devices, Links: links, Readonly: s.Linux.ReadonlyPaths, Masked: s.Linux.MaskedPaths,
		NoNew: s.Process.NoNewPrivileges, Args: s.Process.Args, Env: s.Process.Env, Dir: s.Process.Cwd,
	}
	for _, n := range s.Linux.Namespaces {
		if n.Type == specs.NetworkNamespace {
			p.NetNS = n.Path
		}
	}
	if s.Process.OOMScoreAdj != nil {
		p.OOMScore = strconv.Itoa(*s.Process.OOMScoreAdj)
	}
	var err error
	if c := s.Process.Capabilities; c != nil {
		for _, set := range []struct {
			to    *uint64
			names []string
		}{{&p.Caps.Bounding, c.Bounding}, {&p.Caps.Effective, c.Effective}, {&p.Caps.Permitted, c.Permitted}, {&p.Caps.Inheritable, c.Inheritable}} {
			if *set.to, err = capabilities(set.names); err != nil {
				return p, err
			}
		}
	}
	for _, r := range s.Process.Rlimits {
		kind := slices.Index(rlimits, r.Type)
		if kind < 0 {
			return p, fmt.Errorf("the limit %s is not known", r.Type)
		}
		p.Rlimits = append(p.Rlimits, inside.Rlimit{Kind: kind, Soft: r.Soft, Hard: r.Hard})
	}
	for _, m := range s.Mounts {
		ms, err := l.mounts(m)
		if err != nil {
			return p, fmt.Errorf("mount %s: %w", m.Destination, err)
		}
		p.Mounts = append(p.Mounts, ms...)
	}
	if s.Linux.Seccomp != nil {
		if p.Filter, err = l.filter(s.Linux.Seccomp); err != nil {
			return p, err
		}
	}
	return p, nil
}

// supported refuses what this launcher does not do.
func supported(s *specs.Spec) error {
	switch {
	case s.Process == nil || len(s.Process.Args) == 0 || s.Linux == nil:
		return errors.New("the bundle has no process")
	case s.Process.Terminal:
		return errors.New("terminals are not supported")
	case s.Process.User.UID != 0 || s.Process.User.GID != 0 || len(s.Process.User.AdditionalGids) > 0 || s.Process.User.Umask != nil:
		return errors.New("users other than root are not supported")
	case s.Process.ApparmorProfile != "" || s.Process.SelinuxLabel != "" || s.Linux.MountLabel != "":
		return errors.New("AppArmor and SELinux are not supported")
	case s.Process.Capabilities != nil && len(s.Process.Capabilities.Ambient) > 0:
		return errors.New("ambient capabilities are not supported")
	case s.Hooks != nil || len(s.Linux.Sysctl) > 0 || len(s.Linux.Devices) > 0 || len(s.Linux.UIDMappings) > 0 || s.Linux.RootfsPropagation != "" || s.Domainname != "":
		return errors.New("hooks, sysctls, devices, mapped users, propagation and domain names are not supported")
	case s.Root != nil && s.Root.Readonly:
		return errors.New("read-only roots are not supported")
	case s.Linux.Seccomp != nil && len(s.Linux.Seccomp.Flags) > 0:
		return errors.New("flags of seccomp are not supported")
	case !knownLimits(s.Linux.Resources):
		return errors.New("limits of other things than memory, swap, processes and processor time are not supported")
	case !filepath.IsAbs(s.Linux.CgroupsPath) || filepath.Clean(s.Linux.CgroupsPath) != s.Linux.CgroupsPath || s.Linux.CgroupsPath == "/":
		return fmt.Errorf("%q is no path of a cgroup", s.Linux.CgroupsPath)
	}
	return nil
}

// knownLimits tells whether limitsOf leaves nothing out. Devices are those of
// deviceRules, whatever the image: the bundle must deny all others.
func knownLimits(r *specs.LinuxResources) bool {
	if r == nil {
		return false
	}
	rest := *r
	rest.Memory, rest.Pids, rest.CPU, rest.Devices = nil, nil, nil, nil
	memory, cpu := specs.LinuxMemory{}, specs.LinuxCPU{}
	if r.Memory != nil {
		memory = *r.Memory
		memory.Limit, memory.Swap = nil, nil
	}
	if r.CPU != nil {
		cpu = *r.CPU
		cpu.Shares, cpu.Quota, cpu.Period = nil, nil, nil
	}
	return reflect.ValueOf(rest).IsZero() && memory == specs.LinuxMemory{} && cpu == specs.LinuxCPU{} &&
		len(r.Devices) == 1 && r.Devices[0] == specs.LinuxDeviceCgroup{Access: "rwm"}
}

// namespaces are the flags of the clone. The cgroup namespace comes later, when
// the process is in its cgroups.
func namespaces(list []specs.LinuxNamespace) (uintptr, error) {
	flags := map[specs.LinuxNamespaceType]uintptr{
		specs.PIDNamespace: unix.CLONE_NEWPID, specs.MountNamespace: unix.CLONE_NEWNS, specs.UTSNamespace: unix.CLONE_NEWUTS,
		specs.IPCNamespace: unix.CLONE_NEWIPC, specs.NetworkNamespace: unix.CLONE_NEWNET, specs.CgroupNamespace: 0,
	}
	var all uintptr
	seen := map[specs.LinuxNamespaceType]bool{}
	for _, n := range list {
		flag, ok := flags[n.Type]
		switch {
		case !ok || seen[n.Type]:
			return 0, fmt.Errorf("the namespace %s is not supported, or is there twice", n.Type)
		case n.Type == specs.NetworkNamespace && n.Path != "":
			flag = 0
		case n.Path != "":
			return 0, fmt.Errorf("joining a namespace of kind %s is not supported", n.Type)
		}
		seen[n.Type] = true
		all |= flag
	}
	if len(seen) != len(flags) {
		return 0, errors.New("an instance without namespaces of its own for everything is not supported")
	}
	return all, nil
}

// What every instance has in /dev.
var (
	devices = []inside.Device{{Name: "null", Major: 1, Minor: 3}, {Name: "random", Major: 1, Minor: 8}, {Name: "full", Major: 1, Minor: 7}, {Name: "tty", Major: 5, Minor: 0}, {Name: "zero", Major: 1, Minor: 5}, {Name: "urandom", Major: 1, Minor: 9}}
	links   = [][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"}}
)

var mountFlags = map[string]uintptr{
	"ro": unix.MS_RDONLY, "rw": 0, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	"relatime": unix.MS_RELATIME, "noatime": unix.MS_NOATIME, "strictatime": unix.MS_STRICTATIME, "bind": unix.MS_BIND, "rbind": unix.MS_BIND | unix.MS_REC,
}

// mounts is one mount, or several where it is cgroup v1.
func (l *Launcher) mounts(m specs.Mount) ([]inside.Mount, error) {
	if len(m.UIDMappings) > 0 || len(m.GIDMappings) > 0 || !filepath.IsAbs(m.Destination) {
		return nil, errors.New("mapped users and relative paths are not supported")
	}
	out := inside.Mount{Source: m.Source, Dest: m.Destination, Type: m.Type}
	var data []string
	for _, o := range m.Options {
		if f, ok := mountFlags[o]; ok {
			out.Flags |= f
		} else {
			data = append(data, o)
		}
	}
	out.Data = strings.Join(data, ",")
	if out.Flags&unix.MS_BIND != 0 {
		if len(data) > 0 {
			return nil, fmt.Errorf("a bind has no option %s", out.Data)
		}
		var st unix.Stat_t
		if err := unix.Stat(m.Source, &st); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Source, err)
		}
		out.Type, out.File = "", st.Mode&unix.S_IFMT != unix.S_IFDIR
		return []inside.Mount{out}, nil
	}
	if m.Type != "cgroup" {
		return []inside.Mount{out}, nil
	}
	// A directory for each hierarchy; it is protected when they are there.
	top := inside.Mount{Source: "tmpfs", Dest: m.Destination, Type: "tmpfs", Flags: out.Flags &^ unix.MS_RDONLY, Data: "mode=755"}
	all := []inside.Mount{top}
	for _, g := range l.groups {
		// The instance's own cgroup is the root of what it sees.
		each := inside.Mount{Source: "cgroup", Dest: filepath.Join(m.Destination, filepath.Base(g.Mount)), Type: "cgroup", Flags: out.Flags, Data: g.Data}
		if g.Data == systemdHierarchy {
			each.Source = "systemd"
		}
		all = append(all, each)
	}
	if out.Flags&unix.MS_RDONLY != 0 {
		all = append(all, inside.Mount{Dest: m.Destination, Flags: out.Flags | unix.MS_BIND, Keep: true})
	}
	return all, nil
}

const systemdHierarchy = "name=systemd"

// rlimits in the order of their numbers.
var rlimits = []string{"RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC", "RLIMIT_NOFILE",
	"RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME"}

// capabilityNames in the order of their numbers.
var capabilityNames = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
	NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE
	SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND
	AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

func capabilities(names []string) (uint64, error) {
	var set uint64
	for _, n := range names {
		k := slices.Index(capabilityNames, strings.TrimPrefix(n, "CAP_"))
		if k < 0 {
			return 0, fmt.Errorf("the capability %s is not known", n)
		}
		set |= 1 << k
	}
	return set, nil
}
