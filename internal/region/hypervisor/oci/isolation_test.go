package oci

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/region/guest"
)

// TestIsolation tries from inside what must not be possible there.
func TestIsolation(t *testing.T) {
	each(t, func(t *testing.T, setup func(testing.TB) Config) {
		h := open(t, setup(t))
		importSmall(t, h)
		create(t, h, small("i-1"))
		create(t, h, small("i-2"))
		host := exec.Command("sleep", "300")
		if err := host.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = host.Process.Kill(); _ = host.Wait() }()
		hostPID := strconv.Itoa(host.Process.Pid)
		var disk unix.Stat_t
		if err := unix.Stat("/", &disk); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct{ try, want string }{
			{"mount", "operation not permitted"},
			{"remount-proc-sys", "operation not permitted"},
			{"unshare-user", "operation not permitted"},
			{"unshare-mount", "operation not permitted"},
			{"keyctl", "operation not permitted"},
			{"bpf", "operation not permitted"},
			{"perf", "operation not permitted"},
			{"setns", "operation not permitted"},
			{"userfaultfd", "operation not permitted"},
			{"reboot", "operation not permitted"},
			{"clock", "operation not permitted"},
			{"hostname", "operation not permitted"},
			{"module", "operation not permitted"},
			{"open b " + fmt.Sprint(unix.Major(disk.Dev), " ", unix.Minor(disk.Dev)), "operation not permitted"},
			{"open c 1 1", "operation not permitted"},    // /dev/mem
			{"open c 10 232", "operation not permitted"}, // /dev/kvm
			{"open c 1 3", "OK"}, // /dev/null: the test itself works
			{"write /proc/sys/kernel/core_pattern x", "read-only file system"},
			{"write /proc/sys/vm/drop_caches 1", "read-only file system"},
			{"write /proc/sysrq-trigger h", "read-only file system|no such file"},
			{"write /sys/kernel/mm/ksm/run 0", "read-only file system"},
			{"write /sys/fs/cgroup/memory/memory.limit_in_bytes -1", "read-only file system|no such file"},
			{"write /sys/fs/cgroup/memory.max max", "read-only file system|no such file"},
			{"write /run/dayfly/guest x", "read-only file system|text file busy"},
			{"kill " + hostPID, "no such process"},
			{"ptrace " + hostPID, "no such process|operation not permitted"},
		} {
			r := sh(t, h, "i-1", "/bin/probe "+c.try)
			got := strings.TrimSpace(string(r.Stdout))
			if !slices.ContainsFunc(strings.Split(c.want, "|"), func(w string) bool { return strings.Contains(got, w) }) {
				t.Errorf("%s: %q %s, want %s", c.try, got, r.Stderr, c.want)
			}
		}

		t.Run("disk", func(t *testing.T) {
			out := strings.TrimSpace(string(sh(t, h, "i-1", "echo written >/etc/new; cat /run/dayfly/disk/etc/new; ls /run/dayfly/disk/bin 2>/dev/null").Stdout))
			if out != "written" {
				t.Errorf("what it wrote, and nothing else, is not in %s: %q", guest.DiskDir, out)
			}
			out = strings.TrimSpace(string(sh(t, h, "i-1", "/bin/probe write "+guest.DiskDir+"/etc/new x").Stdout))
			if !strings.Contains(out, "read-only file system") {
				t.Errorf("writing past the overlay: %q", out)
			}
		})
		t.Run("processes", func(t *testing.T) {
			out := sh(t, h, "i-1", "for p in /proc/[0-9]*; do cat $p/comm 2>/dev/null; done").Stdout
			for name := range strings.FieldsSeq(string(out)) {
				if !slices.Contains([]string{"guest", "sh", "cat"}, name) {
					t.Errorf("it sees the process %s", name)
				}
			}
		})
		t.Run("capabilities", func(t *testing.T) {
			// Bits 0 1 3 4 5 6 7 8 10 13 18 27 29 31.
			const docker = "00000000a80425fb"
			out := string(sh(t, h, "i-1", "/bin/probe caps").Stdout)
			for _, want := range []string{"CapInh:\t0000000000000000", "CapPrm:\t" + docker, "CapEff:\t" + docker, "CapBnd:\t" + docker, "CapAmb:\t0000000000000000", "Seccomp:\t2"} {
				if !strings.Contains(out, want) {
					t.Errorf("%q is not in\n%s", want, out)
				}
			}
		})
		t.Run("namespaces", func(t *testing.T) {
			a, b := h.insts["i-1"].status.PID, h.insts["i-2"].status.PID
			for _, ns := range []string{"pid", "mnt", "uts", "ipc", "net", "cgroup"} {
				of := func(pid string) string {
					l, err := os.Readlink("/proc/" + pid + "/ns/" + ns)
					if err != nil {
						t.Fatal(err)
					}
					return l
				}
				if x, y, host := of(strconv.Itoa(a)), of(strconv.Itoa(b)), of("self"); x == y || x == host || y == host {
					t.Errorf("%s: %s %s, the host's is %s", ns, x, y, host)
				}
			}
		})
		t.Run("masked", func(t *testing.T) {
			if out := sh(t, h, "i-1", "cat /proc/keys /proc/timer_list; ls /sys/firmware").Stdout; len(out) > 0 {
				t.Errorf("%s", out)
			}
		})
		t.Run("host files", func(t *testing.T) {
			out := string(sh(t, h, "i-1", "ls /; cat /proc/self/mountinfo").Stdout)
			if strings.Contains(out, "boot\n") {
				t.Error(out)
			}
		})
		t.Run("memory", func(t *testing.T) {
			if r := sh(t, h, "i-1", "/bin/probe memory 60"); r.ExitCode != 0 {
				t.Errorf("60 of 128 MiB: %d %s %s", r.ExitCode, r.Stdout, r.Stderr)
			}
			if r := sh(t, h, "i-1", "/bin/probe memory 400"); r.ExitCode != 137 {
				t.Errorf("400 of 128 MiB: %d %s %s", r.ExitCode, r.Stdout, r.Stderr)
			}
			if r := sh(t, h, "i-1", "echo alive"); string(r.Stdout) != "alive\n" {
				t.Errorf("%+v", r)
			}
		})
		t.Run("pids", func(t *testing.T) {
			r := sh(t, h, "i-1", "/bin/probe forks 200")
			if out := string(r.Stdout); !strings.Contains(out, "resource temporarily unavailable") {
				t.Errorf("%s %s", out, r.Stderr)
			}
			if r := sh(t, h, "i-2", "echo the other goes on"); r.ExitCode != 0 {
				t.Errorf("%+v", r)
			}
		})
	})
}

// TestHostileGuest lets root inside replace what the hypervisor reads from the
// shared directory.
func TestHostileGuest(t *testing.T) {
	each(t, func(t *testing.T, setup func(testing.TB) Config) {
		h := open(t, setup(t))
		importSmall(t, h)
		secret := t.TempDir() + "/secret"
		if err := os.WriteFile(secret, []byte("of the host"), 0o600); err != nil {
			t.Fatal(err)
		}
		create(t, h, small("i-1"))
		sh(t, h, "i-1", "cd /run/dayfly/host && rm console && ln -s "+secret+" console")
		if out, err := h.Console(contextFor(t), "i-1", 100); err == nil {
			t.Errorf("the console is %q", out)
		}
		sh(t, h, "i-1", "cd /run/dayfly/host && rm console && mkdir console")
		if out, err := h.Console(contextFor(t), "i-1", 100); err == nil {
			t.Errorf("the console is %q", out)
		}

		sh(t, h, "i-1", "cd /run/dayfly/host && rm -r console guest.sock boot.json && ln -s "+secret+" boot.json; ln -s "+secret+" guest.sock")
		if err := h.Ready(contextFor(t), "i-1"); err == nil {
			t.Error("a link is taken for the guest's socket")
		}
		if err := h.Stop(contextFor(t), "i-1", 0); err != nil {
			t.Fatal(err)
		}
		if err := h.Start(contextFor(t), "i-1", ""); err != nil {
			t.Fatal(err)
		}
		ready(t, h, "i-1")
		if b, _ := os.ReadFile(secret); string(b) != "of the host" {
			t.Errorf("the host's file is %q", b)
		}
	})
}
