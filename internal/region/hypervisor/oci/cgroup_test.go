package oci

import (
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor/launch"
)

func TestParseCgroups(t *testing.T) {
	for name, c := range map[string]struct {
		mountinfo string
		want      cgroups
	}{
		"v2": {"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
			cgroups{unified: true, swap: true, mounts: []string{"/sys/fs/cgroup"}}},
		"v1": {"31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n32 31 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n" +
			"33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
			cgroups{memory: "/sys/fs/cgroup/memory", systemd: "/sys/fs/cgroup/systemd", mounts: []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory"},
				groups: []launch.Hierarchy{{Mount: "/sys/fs/cgroup/systemd", Data: "name=systemd"}, {Mount: "/sys/fs/cgroup/cpu,cpuacct", Data: "cpu,cpuacct"}, {Mount: "/sys/fs/cgroup/memory", Data: "memory"}}}},
		"hybrid": {"34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup memory rw,memory\n35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n36 1 0:33 / /mnt/cgroup rw - cgroup2 x rw\n",
			cgroups{memory: "/sys/fs/cgroup/memory", mounts: []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"},
				groups: []launch.Hierarchy{{Mount: "/sys/fs/cgroup/memory", Data: "memory"}}}},
		"none": {"22 27 0:21 / /proc rw - proc proc rw\nbroken\n", cgroups{}},
	} {
		if got := parseCgroups(strings.NewReader(c.mountinfo)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestSpec says what differs between kinds of images and hosts.
func TestSpec(t *testing.T) {
	of := func(boot hypervisor.Boot, c cgroups) *specs.Spec {
		h := &Hypervisor{cgroups: c}
		s, err := h.spec(&instance{id: "i-1", dir: "/x", rec: record{Boot: boot, Spec: small("i-1")}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	allowed := func(s *specs.Spec, call string) bool {
		for _, r := range s.Linux.Seccomp.Syscalls {
			for _, n := range r.Names {
				if n == call && r.Action == specs.ActAllow && len(r.Args) == 0 {
					return true
				}
			}
		}
		return false
	}
	mount := func(s *specs.Spec, at string) (list []string) {
		for _, m := range s.Mounts {
			if m.Destination == at {
				list = append(list, m.Source+" "+strings.Join(m.Options, ","))
			}
		}
		return list
	}
	v1 := cgroups{memory: "/sys/fs/cgroup/memory", systemd: "/sys/fs/cgroup/systemd", prefix: "p"}
	v2 := cgroups{unified: true, swap: true, prefix: "p"}
	for _, c := range []cgroups{v1, v2} {
		g, s := of(hypervisor.BootGuest, c), of(hypervisor.BootSystemd, c)
		if n := len(g.Process.Capabilities.Bounding); n != 14 || len(s.Process.Capabilities.Bounding) != 15 || len(g.Process.Capabilities.Inheritable) != 0 {
			t.Error(n, s.Process.Capabilities)
		}
		if g.Linux.Seccomp.DefaultAction != specs.ActErrno || allowed(g, "mount") || !allowed(s, "mount") || !allowed(g, "read") {
			t.Error("the profile does not follow the capabilities")
		}
		for _, call := range append(notForSystemd, "keyctl", "kexec_load", "init_module", "open_by_handle_at") {
			if allowed(s, call) || allowed(g, call) {
				t.Errorf("%s is allowed", call)
			}
		}
		if m := mount(g, "/sys/fs/cgroup"); len(m) != 1 || !strings.HasSuffix(m[0], ",ro") {
			t.Error(m)
		}
	}
	if m := mount(of(hypervisor.BootSystemd, v1), "/sys/fs/cgroup"); !strings.HasSuffix(m[0], ",ro") {
		t.Error(m)
	}
	if m := mount(of(hypervisor.BootSystemd, v1), "/sys/fs/cgroup/systemd"); len(m) != 1 || !strings.HasPrefix(m[0], "/sys/fs/cgroup/systemd/p/i-1 bind,rw") {
		t.Error(m)
	}
	if m := mount(of(hypervisor.BootSystemd, v2), "/sys/fs/cgroup"); !strings.HasSuffix(m[0], ",rw") {
		t.Error(m)
	}
	if r := of(hypervisor.BootGuest, v1).Linux.Resources; r.Memory.Swap != nil || *r.Memory.Limit != 128<<20 || *r.Pids.Limit != 64 {
		t.Errorf("%+v", r)
	}
	if r := of(hypervisor.BootGuest, v2).Linux.Resources; *r.Memory.Swap != 128<<20 {
		t.Errorf("%+v", r)
	}
}
