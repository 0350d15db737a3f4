package launch

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// deviceRules are what an instance may open, beside the making of nodes, which
// is no access: what /dev has, and its terminals.
var deviceRules = []string{"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:8 rwm", "c 1:7 rwm", "c 5:0 rwm", "c 1:5 rwm", "c 1:9 rwm", "c 136:* rwm", "c 5:2 rwm"}

func has(g Hierarchy, controller string) bool {
	return slices.Contains(strings.Split(g.Data, ","), controller)
}

// makeGroups makes the cgroups of a bundle and sets its limits.
func (l *Launcher) makeGroups(s *specs.Linux) error {
	for _, g := range l.groups {
		dir := g.Mount + s.CgroupsPath
		if err := makeGroup(g, dir); err != nil {
			return err
		}
		for _, w := range limitsOf(g, s.Resources) {
			if err := write(path.Join(dir, w[0]), w[1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeGroup makes a directory and those above it. A cpuset is of no use before
// it has processors and memory nodes.
func makeGroup(g Hierarchy, dir string) error {
	err := unix.Mkdir(dir, 0o755)
	if errors.Is(err, unix.ENOENT) && len(filepath.Dir(dir)) > len(g.Mount) {
		if err := makeGroup(g, filepath.Dir(dir)); err != nil {
			return err
		}
		err = unix.Mkdir(dir, 0o755)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make the cgroup %s: %w", dir, err)
	}
	if !has(g, "cpuset") {
		return nil
	}
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		above := filepath.Dir(dir)
		up, err := read(path.Join(above, name))
		if err == nil && strings.TrimSpace(up) == "" && len(above) > len(g.Mount) {
			// Another launch has made the directory above a moment ago and has
			// not filled it yet; to fill it twice does no harm.
			if err = makeGroup(g, above); err == nil {
				up, err = read(path.Join(above, name))
			}
		}
		if err != nil {
			return err
		}
		if err := write(path.Join(dir, name), strings.TrimSpace(up)); err != nil {
			return err
		}
	}
	return nil
}

// limitsOf are the files to write in one hierarchy, in order.
func limitsOf(g Hierarchy, r *specs.LinuxResources) [][2]string {
	var out [][2]string
	add := func(name, value string) { out = append(out, [2]string{name, value}) }
	if m := r.Memory; m != nil && has(g, "memory") {
		if m.Limit != nil {
			add("memory.limit_in_bytes", strconv.FormatInt(*m.Limit, 10))
		}
		if m.Swap != nil {
			add("memory.memsw.limit_in_bytes", strconv.FormatInt(*m.Swap, 10))
		}
	}
	if p := r.Pids; p != nil && has(g, "pids") && p.Limit != nil {
		add("pids.max", strconv.FormatInt(*p.Limit, 10))
	}
	if c := r.CPU; c != nil && has(g, "cpu") {
		if c.Shares != nil {
			add("cpu.shares", strconv.FormatUint(*c.Shares, 10))
		}
		if c.Period != nil {
			add("cpu.cfs_period_us", strconv.FormatUint(*c.Period, 10))
		}
		if c.Quota != nil {
			add("cpu.cfs_quota_us", strconv.FormatInt(*c.Quota, 10))
		}
	}
	if has(g, "devices") {
		add("devices.deny", "a")
		for _, d := range deviceRules {
			add("devices.allow", d)
		}
	}
	return out
}

// join puts a process into the cgroups.
func (l *Launcher) join(group string, pid int) error {
	for _, g := range l.groups {
		if err := write(g.Mount+group+"/cgroup.procs", strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return nil
}

// read and write are for files of the kernel: without Go's poller, which would
// try to watch them.
func read(name string) (string, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	defer unix.Close(fd)
	b := make([]byte, 4096)
	n, err := unix.Read(fd, b)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return string(b[:n]), nil
}

func write(name, value string) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer unix.Close(fd)
	for {
		if _, err = unix.Write(fd, []byte(value)); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("write %q to %s: %w", value, name, err)
	}
	return nil
}
