package launch

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func good() *specs.Spec {
	return &specs.Spec{
		Hostname: "name",
		Process:  &specs.Process{Args: []string{"/init"}, Cwd: "/", Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_SYS_ADMIN"}}},
		Linux: &specs.Linux{
			CgroupsPath: "/p/i-1",
			Resources:   &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}, Pids: &specs.LinuxPids{Limit: new(int64(5))}},
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.IPCNamespace}, {Type: specs.CgroupNamespace}, {Type: specs.NetworkNamespace, Path: "/run/n"}},
		},
	}
}

// TestRefuse: what is not done must not be left out silently.
func TestRefuse(t *testing.T) {
	l := &Launcher{}
	if _, err := l.plan(Bundle{Spec: good()}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*specs.Spec){
		"no process":     func(s *specs.Spec) { s.Process = nil },
		"terminal":       func(s *specs.Spec) { s.Process.Terminal = true },
		"user":           func(s *specs.Spec) { s.Process.User.UID = 5 },
		"apparmor":       func(s *specs.Spec) { s.Process.ApparmorProfile = "x" },
		"selinux":        func(s *specs.Spec) { s.Process.SelinuxLabel = "x" },
		"ambient":        func(s *specs.Spec) { s.Process.Capabilities.Ambient = []string{"CAP_CHOWN"} },
		"capability":     func(s *specs.Spec) { s.Process.Capabilities.Bounding = []string{"CAP_FLY"} },
		"limit":          func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} },
		"hooks":          func(s *specs.Spec) { s.Hooks = &specs.Hooks{} },
		"sysctl":         func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"a": "b"} },
		"devices":        func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{}} },
		"mapped users":   func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{}} },
		"read-only root": func(s *specs.Spec) { s.Root = &specs.Root{Readonly: true} },
		"seccomp flags":  func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{"x"}} },
		"cgroup":         func(s *specs.Spec) { s.Linux.CgroupsPath = "/p/../x" },
		"no resources":   func(s *specs.Spec) { s.Linux.Resources = nil },
		"all devices":    func(s *specs.Spec) { s.Linux.Resources.Devices = nil },
		"an allowed one": func(s *specs.Spec) { s.Linux.Resources.Devices[0].Allow = true },
		"block io":       func(s *specs.Spec) { s.Linux.Resources.BlockIO = &specs.LinuxBlockIO{} },
		"kernel memory":  func(s *specs.Spec) { s.Linux.Resources.Memory = &specs.LinuxMemory{Reservation: new(int64)} },
		"cpus":           func(s *specs.Spec) { s.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "0"} },
		"relative mount": func(s *specs.Spec) { s.Mounts = []specs.Mount{{Destination: "x", Type: "tmpfs"}} },
		"option of a bind": func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/x", Source: "/", Options: []string{"bind", "size=1"}}}
		},
		"missing source": func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/x", Source: "/no/such", Options: []string{"bind"}}}
		},
	} {
		s := good()
		change(s)
		if _, err := l.plan(Bundle{Spec: s}); err == nil {
			t.Errorf("%s: it is accepted", name)
		}
	}
	for name, list := range map[string][]specs.LinuxNamespace{
		"none":        nil,
		"one missing": good().Linux.Namespaces[1:],
		"twice":       append(good().Linux.Namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace}),
		"joined":      append(good().Linux.Namespaces[1:], specs.LinuxNamespace{Type: specs.PIDNamespace, Path: "/proc/1/ns/pid"}),
		"user":        append(good().Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace}),
	} {
		if _, err := namespaces(list); err == nil {
			t.Errorf("namespaces %s: they are accepted", name)
		}
	}
}

func TestPlan(t *testing.T) {
	l := &Launcher{groups: []Hierarchy{{"/sys/fs/cgroup/memory", "memory"}, {"/sys/fs/cgroup/systemd", "name=systemd"}}}
	s := good()
	s.Mounts = []specs.Mount{{Destination: "/sys/fs/cgroup", Type: "cgroup", Options: []string{"nosuid", "ro"}}, {Destination: "/t", Source: "tmpfs", Type: "tmpfs", Options: []string{"nodev", "size=1m", "mode=755"}}}
	p, err := l.plan(Bundle{Spec: s})
	if err != nil {
		t.Fatal(err)
	}
	if p.NetNS != "/run/n" || p.Caps.Bounding != 1|1<<21 || p.Caps.Effective != 0 {
		t.Errorf("%+v", p)
	}
	got, _ := json.Marshal(p.Mounts)
	var at []string
	for _, m := range p.Mounts {
		at = append(at, m.Dest)
	}
	if !slices.Equal(at, []string{"/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup", "/t"}) {
		t.Errorf("%s", got)
	}
	if last := p.Mounts[3]; !last.Keep || last.Flags&unix.MS_RDONLY == 0 || p.Mounts[0].Flags&unix.MS_RDONLY != 0 || p.Mounts[1].Flags&unix.MS_RDONLY == 0 {
		t.Errorf("%s", got)
	}
	if m := p.Mounts[4]; m.Data != "size=1m,mode=755" || m.Flags != unix.MS_NODEV {
		t.Errorf("%+v", m)
	}
	if flags, err := namespaces(s.Linux.Namespaces); err != nil || flags != unix.CLONE_NEWPID|unix.CLONE_NEWNS|unix.CLONE_NEWUTS|unix.CLONE_NEWIPC {
		t.Error(flags, err)
	}
	if set, err := capabilities([]string{"CAP_CHECKPOINT_RESTORE"}); err != nil || set != 1<<unix.CAP_CHECKPOINT_RESTORE {
		t.Error(set, err)
	}
}

func TestLimits(t *testing.T) {
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: new(int64(100)), Swap: new(int64(100))}, Pids: &specs.LinuxPids{Limit: new(int64(5))},
		CPU: &specs.LinuxCPU{Shares: new(uint64(512)), Quota: new(int64(50)), Period: new(uint64(100))},
	}
	text := func(data string) string {
		var b strings.Builder
		for _, w := range limitsOf(Hierarchy{Data: data}, r) {
			b.WriteString(w[0] + "=" + w[1] + " ")
		}
		return b.String()
	}
	for data, want := range map[string]string{
		"memory":        "memory.limit_in_bytes=100 memory.memsw.limit_in_bytes=100 ",
		"pids":          "pids.max=5 ",
		"cpu,cpuacct":   "cpu.shares=512 cpu.cfs_period_us=100 cpu.cfs_quota_us=50 ",
		"cpuacct":       "",
		"name=systemd":  "",
		"cpuset,memory": "memory.limit_in_bytes=100 memory.memsw.limit_in_bytes=100 ",
	} {
		if got := text(data); got != want {
			t.Errorf("%s: %s", data, got)
		}
	}
	if got := text("devices"); !strings.HasPrefix(got, "devices.deny=a devices.allow=c *:* m ") || strings.Contains(got, "c *:* r") {
		t.Error(got)
	}
}
