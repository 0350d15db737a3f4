package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const insideName = "bareclone-inside"

// inside is PID 1 of a copy: it enters the root file system, sets the interface
// up and becomes the command.
func inside(number, dir, lower, address string) error {
	runtime.LockOSThread()
	root := filepath.Join(dir, "root")
	if err := mounts(dir, lower, root); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("bare-" + number)); err != nil {
		return err
	}
	say, hear := os.NewFile(3, "say"), os.NewFile(4, "hear")
	raw, err := io.ReadAll(hear) // until the interface is there
	if err != nil {
		return err
	}
	hear.Close()
	if err := network(address); err != nil {
		return err
	}
	if _, err := say.Write([]byte("!")); err != nil {
		return err
	}
	say.Close()
	if len(raw) == 0 {
		return unix.Pause() // the copies only wait
	}
	argv := strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00")
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GOMAXPROCS=") })
	env = append(env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root")
	return fmt.Errorf("%s: %w", argv[0], syscall.Exec(argv[0], argv, env))
}

func mounts(dir, lower, root string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	options := "volatile,lowerdir=" + lower + ",upperdir=" + dir + "/upper,workdir=" + dir + "/work"
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		return fmt.Errorf("overlay: %w", err)
	}
	for _, m := range []struct {
		source, target, kind, data string
		flags                      uintptr
	}{
		{"proc", "proc", "proc", "", unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV},
		{"sysfs", "sys", "sysfs", "", unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV | unix.MS_RDONLY},
		{"tmpfs", "dev", "tmpfs", "mode=755", unix.MS_NOSUID},
		{"tmpfs", "run", "tmpfs", "mode=755", unix.MS_NOSUID | unix.MS_NODEV},
	} {
		if err := unix.Mount(m.source, filepath.Join(root, m.target), m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	for _, d := range []struct {
		name  string
		minor uint32
	}{{"null", 3}, {"zero", 5}, {"full", 7}, {"random", 8}, {"urandom", 9}} {
		p := filepath.Join(root, "dev", d.name)
		if err := unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, d.minor))); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		if err := os.Chmod(p, 0o666); err != nil {
			return err
		}
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

func network(address string) error {
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	for _, name := range []string{"lo", "eth0"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if name == "eth0" {
			if err := netlink.AddrAdd(link, a); err != nil {
				return fmt.Errorf("%s: %w", address, err)
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("%s up: %w", name, err)
		}
	}
	return nil
}
