package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor/launch/bpf"
)

// TestSameAsRunc holds what our launcher makes against what runc makes of the
// same bundle: from inside, from the host's view, and filter against filter.
func TestSameAsRunc(t *testing.T) {
	views := map[string]map[string]string{}
	filters := map[string][]unix.SockFilter{}
	for _, r := range runtimes {
		h := open(t, setup(t, r))
		importSmall(t, h)
		in := small("i-1")
		in.CPUs = 0.5
		create(t, h, in)
		views[r] = view(t, h)
		filters[r] = filterOf(t, h.insts["i-1"].status.PID)
	}
	a, b := views[ownRuntime], views["runc"]
	// Where ours is stricter: no tunnels, as runc has it too from 1.2 on, and
	// nothing is made beside the cgroups.
	b["cgroup devices.list"] = strings.Replace(b["cgroup devices.list"], "c 10:200 rwm\n", "", 1)
	b["mounts"] = strings.Replace(b["mounts"], " /sys/fs/cgroup rw,", " /sys/fs/cgroup ro,", 1)
	for name := range b {
		if b[name] == "" || a[name] != b[name] {
			t.Errorf("%s differs, or nothing was seen.\n%s:\n%s\nrunc:\n%s", name, ownRuntime, a[name], b[name])
		}
	}
	t.Log(len(a), "things compared; filters of", len(filters[ownRuntime]), "and", len(filters["runc"]), "instructions")
	sameFilter(t, filters[ownRuntime], filters["runc"])
}

var hostPath = regexp.MustCompile(`(lowerdir|upperdir|workdir)=[^, ]*`)

// view is all that can be seen of an instance, by name.
func view(t *testing.T, h *Hypervisor) map[string]string {
	t.Helper()
	v := map[string]string{}
	for _, script := range []string{
		"ls -ln /dev /dev/pts /dev/shm /dev/mqueue /sys/fs/cgroup /bin | /bin/sh -c 'while read a b c d e f g h i; do echo $a $b $c $d $e $i; done'",
		"cat /proc/1/limits", "cat /proc/1/cgroup", "cat /proc/1/oom_score_adj", "cat /proc/1/environ", "cat /proc/1/cmdline", "id", "hostname",
		"cat /proc/1/status | /bin/sh -c 'while read a b; do case $a in Cap*|NoNew*|Sec*|Spec*|Umask*|Groups*|NSpid*|Uid*|Gid*) echo $a $b;; esac; done'",
		"cd /proc/1/ns; ls", "cat /proc/1/timerslack_ns /proc/1/coredump_filter", "cat /proc/1/stat | (read a b c d e f g; echo $d $e $f)",
	} {
		v[script] = string(sh(t, h, "i-1", script).Stdout)
	}
	// Mounts by their place, without what differs by the instance.
	var mounts []string
	for l := range strings.Lines(string(sh(t, h, "i-1", "cat /proc/1/mountinfo").Stdout)) {
		f := strings.Fields(strings.ReplaceAll(l, h.cfg.Dir, "DIR"))
		k := slices.Index(f, "-")
		root := f[3]
		if f[k+1] == "tmpfs" || f[k+1] == "overlay" || f[k+1] == "devtmpfs" || root == "/null" {
			root = "" // the null device can be any
		}
		mounts = append(mounts, strings.Join([]string{root, f[4], f[5], strings.Join(f[6:k], " "), f[k+1], hostPath.ReplaceAllString(f[k+3], "$1")}, " "))
	}
	slices.Sort(mounts)
	v["mounts"] = strings.Join(mounts, "\n")
	var fds []string
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/[012]", h.insts["i-1"].status.PID))
	for _, l := range links {
		to, _ := os.Readlink(l)
		var st unix.Stat_t
		_ = unix.Stat(l, &st)
		if st.Rdev == 0 {
			st.Mode = 0
		}
		fds = append(fds, filepath.Base(l)+" "+filepath.Base(to)+" "+strconv.FormatUint(st.Rdev, 16))
	}
	v["descriptors"] = strings.Join(fds, "\n")
	for _, g := range h.cgroups.groups {
		dir := g.Mount + h.cgroups.path("i-1")
		for _, name := range []string{"devices.list", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.swappiness", "memory.oom_control", "pids.max", "cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpuset.cpus", "cpuset.mems", "notify_on_release", "cgroup.clone_children", "freezer.state"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				continue
			}
			lines := strings.Split(strings.TrimSpace(string(b)), "\n")
			slices.Sort(lines)
			v["cgroup "+name] = strings.Join(lines, "\n")
		}
		procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		v["cgroup "+g.Data] = fmt.Sprint(err, strings.Contains(string(procs), strconv.Itoa(h.insts["i-1"].status.PID)))
	}
	return v
}

// filterOf takes the first seccomp filter of a process.
func filterOf(t *testing.T, pid int) []unix.SockFilter {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(pid); err != nil {
		t.Fatal(err)
	}
	if err := unix.PtraceInterrupt(pid); err != nil {
		t.Fatal(err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, unix.WALL, nil); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.PtraceDetach(pid) }()
	const getFilter = 0x420c
	n, _, e := unix.Syscall6(unix.SYS_PTRACE, getFilter, uintptr(pid), 0, 0, 0, 0)
	if e != 0 {
		t.Skip("this kernel does not show filters:", e)
	}
	prog := make([]unix.SockFilter, n)
	if _, _, e := unix.Syscall6(unix.SYS_PTRACE, getFilter, uintptr(pid), 0, uintptr(unsafe.Pointer(&prog[0])), 0, 0); e != 0 {
		t.Fatal(e)
	}
	if _, _, e := unix.Syscall6(unix.SYS_PTRACE, getFilter, uintptr(pid), 1, 0, 0, 0); e == 0 {
		t.Error("there is a second filter")
	}
	return prog
}

// sameFilter asks both about every system call of every ABI. What only one of
// them knows is listed: tables have an age.
func sameFilter(t *testing.T, ours, runcs []unix.SockFilter) {
	t.Helper()
	values := []uint64{0, 1, 2, 8, 16, 38, 39, 40, 41, 45, 46, 0x11, 0x10000, 0x20000, 0x20008, 0x7e020000, 0x10000000, 0x02000000, 0x40000000, 0xffffffff, 1 << 32, 1<<32 | 2, ^uint64(0)}
	// Debian 12's libseccomp does not know all that Docker's profile names:
	// uretprobe, which is for the kernel's own trampoline, and what came with
	// Linux 6.8 and later.
	const uretprobe, youngest, allowed, unknown = 335, 457, 0x7fff0000, 0x50000 | uint32(unix.ENOSYS)
	// x32 has no such calls: the kernel answers ENOSYS after either filter.
	notX32 := []int{205, 211, 214, 215, 453}
	differs := map[string][]uint32{}
	for name, abi := range map[string][2]uint32{"x86-64": {0xc000003e, 0}, "x32": {0xc000003e, 0x40000000}, "i386": {0x40000003, 0}, "arm64": {0xc00000b7, 0}} {
		for nr := abi[1]; nr < abi[1]+1200; nr++ {
			for _, a := range values {
				for _, b := range values {
					d := bpf.Data{Nr: nr, Arch: abi[0], Args: [6]uint64{a, b, a, b, a, b}}
					x, y := bpf.Run(ours, d), bpf.Run(runcs, d)
					n := int(nr - abi[1])
					if x == y || n >= youngest && (y == unknown || name == "x32") || x == allowed && (n == uretprobe || name == "x32" && slices.Contains(notX32, n)) {
						continue
					}
					key := fmt.Sprintf("%s: ours %#x, runc's %#x", name, x, y)
					if n := len(differs[key]); n == 0 || differs[key][n-1] != nr {
						differs[key] = append(differs[key], nr)
					}
				}
			}
		}
	}
	for key, nrs := range differs {
		t.Errorf("%s: %v", key, nrs)
	}
}
