package inside

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Overlay is a union of directories.
type Overlay struct {
	Target string // where it is mounted
	Lowers []string
	Upper  string
	Work   string
}

// Mount mounts the union.
func (o Overlay) Mount() error {
	option := overlayOptions(o.Lowers, o.Upper, o.Work)
	if len(option) >= os.Getpagesize()-64 || strings.ContainsAny(o.Upper+strings.Join(o.Lowers, ""), `:,\`) {
		// The kernel takes one page of options: descriptors have short names.
		var fds []int
		defer func() {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}()
		all := append(slices.Clone(o.Lowers), o.Upper, o.Work)
		for k, dir := range all {
			fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open %s: %w", dir, err)
			}
			fds = append(fds, fd)
			all[k] = fdPath(fd)
		}
		n := len(o.Lowers)
		option = overlayOptions(all[:n], all[n], all[n+1])
		if len(option) >= os.Getpagesize() {
			return fmt.Errorf("the image has %d layers: too many for one mount", n)
		}
	}
	err := unix.Mount("overlay", o.Target, "overlay", 0, option+",volatile")
	if errors.Is(err, unix.EINVAL) { // a kernel before 5.10
		err = unix.Mount("overlay", o.Target, "overlay", 0, option)
	}
	if err != nil {
		return fmt.Errorf("mount overlayfs of %d layers on %s: %w (the directory must be on a file system that overlayfs can write to, such as ext4 or xfs)", len(o.Lowers), o.Target, err)
	}
	return nil
}

// overlayOptions keeps upper directories self-contained: no redirects into
// layers below and no files without their data, so that each can become a
// layer itself.
func overlayOptions(lowers []string, upper, work string) string {
	return "index=off,metacopy=off,redirect_dir=off,xino=off,lowerdir=" + strings.Join(lowers, ":") + ",upperdir=" + upper + ",workdir=" + work
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// root is the new root while it is not yet ours, so that no link in it leads
// out of it.
var root = -1

// at opens a path of the new root. Links are followed inside of it, but not
// where strict says so: the kernel's own file systems go where they belong.
func at(name string, strict bool, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if strict {
		how.Resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	return unix.Openat2(root, strings.TrimPrefix(name, "/"), &how)
}

// place opens a mount point, and makes it where it is missing.
func place(m *Mount) (int, error) {
	strict := m.Type == "proc" || m.Type == "sysfs"
	fd, err := at(m.Dest, strict, unix.O_PATH)
	if err != unix.ENOENT {
		return fd, err
	}
	made := ""
	for _, part := range strings.Split(strings.Trim(path.Dir(m.Dest), "/"), "/") {
		up := made
		made = path.Join(made, part)
		if made == "" {
			continue
		}
		if err := makeDir(up, part); err != nil {
			return -1, err
		}
	}
	if !m.File {
		if err := makeDir(made, path.Base(m.Dest)); err != nil {
			return -1, err
		}
	} else {
		dir, err := open(made)
		if err != nil {
			return -1, err
		}
		f, err := unix.Openat(dir, path.Base(m.Dest), unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		unix.Close(dir)
		if err != nil {
			return -1, err
		}
		unix.Close(f)
	}
	return at(m.Dest, strict, unix.O_PATH)
}

func open(dir string) (int, error) {
	if dir == "" {
		dir = "."
	}
	return at(dir, false, unix.O_PATH|unix.O_DIRECTORY)
}

func makeDir(up, name string) error {
	dir, err := open(up)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.Mkdirat(dir, name, 0o755); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

// makeRoot mounts everything. /proc is the host's until enter.
func makeRoot(p *Plan) error {
	unix.Umask(0)
	// Nothing of what happens here reaches the host, or comes from there.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := p.Root.Mount(); err != nil {
		return err
	}
	fd, err := unix.Open(p.Root.Target, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	root = fd
	for i := range p.Mounts {
		if err := mount(&p.Mounts[i]); err != nil {
			return fmt.Errorf("mount %s: %w", p.Mounts[i].Dest, err)
		}
	}
	return nil
}

func mount(m *Mount) error {
	onto := func(source, fstype string, flags uintptr, data string) error {
		fd, err := place(m)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Mount(source, fdPath(fd), fstype, flags, data)
	}
	if m.Keep {
		return onto("", "", m.Flags|unix.MS_REMOUNT, m.Data)
	}
	if m.Flags&unix.MS_BIND == 0 {
		return onto(m.Source, m.Type, m.Flags, m.Data)
	}
	if err := onto(m.Source, "", m.Flags&(unix.MS_BIND|unix.MS_REC), ""); err != nil {
		return err
	}
	return onto("", "", m.Flags|unix.MS_REMOUNT, "")
}

func makeDevices(p *Plan) error {
	dev, err := open("dev")
	if err != nil {
		return err
	}
	defer unix.Close(dev)
	for _, d := range p.Devices {
		if err := unix.Mknodat(dev, d.Name, unix.S_IFCHR|0o666, int(unix.Mkdev(d.Major, d.Minor))); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	for _, l := range p.Links {
		if err := unix.Symlinkat(l[1], dev, l[0]); err != nil {
			return fmt.Errorf("%s: %w", l[0], err)
		}
	}
	return nil
}

// enter makes the new root ours and forgets the host's.
func enter(*Plan) error {
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(old)
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	// The old root comes to lie on the new one, and is taken away from there.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Fchdir(old); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the host's files: %w", err)
	}
	unix.Close(root)
	return unix.Chdir("/")
}

// protect is for paths of the kernel's own file systems, in which there are no
// links of anybody.
func protect(p *Plan) error {
	for _, name := range p.Readonly {
		err := unix.Mount(name, name, "", unix.MS_BIND|unix.MS_REC, "")
		if err == unix.ENOENT {
			continue
		}
		var st unix.Statfs_t
		if err == nil {
			err = unix.Statfs(name, &st)
		}
		if err == nil {
			keep := uintptr(st.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
			err = unix.Mount("", name, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|keep, "")
		}
		if err != nil {
			return fmt.Errorf("%s read-only: %w", name, err)
		}
	}
	for _, name := range p.Masked {
		err := unix.Mount("/dev/null", name, "", unix.MS_BIND, "")
		if err == unix.ENOTDIR {
			err = unix.Mount("tmpfs", name, "tmpfs", unix.MS_RDONLY, "")
		}
		if err != nil && err != unix.ENOENT {
			return fmt.Errorf("mask %s: %w", name, err)
		}
	}
	return nil
}

// stdio puts the instance's own /dev/null in the place of the host's.
func stdio() error {
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
			continue
		}
		null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = unix.Dup3(null, fd, 0)
		unix.Close(null)
		if err != nil {
			return err
		}
	}
	return nil
}
