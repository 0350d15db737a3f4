package oci

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor/launch"
)

// cgroups knows where this host has its hierarchies: one (v2), or one per
// controller and perhaps a v2 one beside them (v1, hybrid).
type cgroups struct {
	unified bool
	mounts  []string           // mount points
	groups  []launch.Hierarchy // of v1, by name
	systemd string             // mount point of name=systemd in v1
	memory  string             // mount point of the memory controller in v1
	swap    bool               // memory and swap can be limited together
	prefix  string
}

func findCgroups(prefix string) (cgroups, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return cgroups{}, refuse("this host has no /proc", "", err)
	}
	defer f.Close()
	c := parseCgroups(f)
	c.prefix = prefix
	if c.memory != "" {
		_, err := os.Stat(filepath.Join(c.memory, "memory.memsw.limit_in_bytes"))
		c.swap = err == nil
	}
	if !c.unified && c.memory == "" {
		return c, refuse("no cgroups with a memory controller are mounted on /sys/fs/cgroup", "instances could not be limited; mount cgroup2 there", nil)
	}
	return c, nil
}

// parseCgroups reads a mountinfo.
func parseCgroups(r io.Reader) cgroups {
	var c cgroups
	for s := bufio.NewScanner(r); s.Scan(); {
		left, right, ok := strings.Cut(s.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 || l[4] != "/sys/fs/cgroup" && !strings.HasPrefix(l[4], "/sys/fs/cgroup/") {
			continue
		}
		mount, options := l[4], strings.Split(r[2], ",")
		known := slices.Contains(c.mounts, mount)
		switch {
		case r[0] == "cgroup2" && mount == "/sys/fs/cgroup":
			c.unified, c.swap = true, true
		case r[0] == "cgroup" && slices.Contains(options, "memory"):
			c.memory = mount
		case r[0] == "cgroup" && slices.Contains(options, "name=systemd"):
			c.systemd = mount
		case r[0] != "cgroup" && r[0] != "cgroup2":
			continue
		}
		if known {
			continue
		}
		c.mounts = append(c.mounts, mount)
		if r[0] == "cgroup" {
			data := filepath.Base(mount)
			if slices.Contains(options, "name="+data) {
				data = "name=" + data
			}
			c.groups = append(c.groups, launch.Hierarchy{Mount: mount, Data: data})
		}
	}
	return c
}

// path is what the runtime is told.
func (c cgroups) path(id string) string { return "/" + c.prefix + "/" + id }

// oom tells whether the kernel killed a process of the instance for memory.
func (c cgroups) oom(id string) bool {
	file := filepath.Join("/sys/fs/cgroup", c.prefix, id, "memory.events")
	if !c.unified {
		file = filepath.Join(c.memory, c.prefix, id, "memory.oom_control")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			return n != "0"
		}
	}
	return false
}

// remove kills what is in the instance's cgroups and removes them.
func (c cgroups) remove(id string) error {
	var errs []error
	for _, m := range c.mounts {
		errs = append(errs, removeCgroup(filepath.Join(m, c.prefix, id)))
	}
	return errors.Join(errs...)
}

// removeParent removes the directory of all instances if it is empty.
func (c cgroups) removeParent() {
	for _, m := range c.mounts {
		_ = unix.Rmdir(filepath.Join(m, c.prefix))
	}
}

// ids of instances that have a cgroup.
func (c cgroups) ids() []string {
	var ids []string
	for _, m := range c.mounts {
		entries, err := os.ReadDir(filepath.Join(m, c.prefix))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() && !slices.Contains(ids, e.Name()) {
				ids = append(ids, e.Name())
			}
		}
	}
	return ids
}

const cgroupPatience = 5 * time.Second

// removeCgroup removes a cgroup and those below it. Dying processes keep one
// busy for some milliseconds; living ones are killed.
func removeCgroup(dir string) error {
	pause := time.Millisecond
	for end := time.Now().Add(cgroupPatience); ; {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		killCgroup(dir)
		time.Sleep(pause)
		pause = min(2*pause, 50*time.Millisecond)
	}
}

// killCgroup removes the cgroups below dir and kills what is in dir.
func killCgroup(dir string) {
	// One write where the kernel can do it; the loop below is for v1.
	if f, err := os.OpenFile(filepath.Join(dir, "cgroup.kill"), os.O_WRONLY, 0); err == nil {
		_, _ = f.WriteString("1")
		_ = f.Close()
	}
	var dirs []string
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	for _, d := range slices.Backward(dirs) {
		b, err := os.ReadFile(filepath.Join(d, "cgroup.procs"))
		if err != nil {
			continue
		}
		for p := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(p); err == nil && pid > 1 {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if d != dir {
			_ = unix.Rmdir(d)
		}
	}
}
