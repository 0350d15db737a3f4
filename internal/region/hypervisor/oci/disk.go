package oci

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/region/guest"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor/launch/inside"
)

// prepare makes everything that the container needs but the container.
func (h *Hypervisor) prepare(i *instance, first bool) error {
	lowers := h.lowers(i)
	for _, d := range []string{"upper", "work", "rootfs"} {
		if err := os.Mkdir(i.path(d), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		} else if err == nil && d == "upper" {
			// The root directory of a union has the attributes of its upper one.
			if err := likeTop(lowers, "", i.path(d)); err != nil {
				return err
			}
		}
	}
	if err := i.makeSkeleton(lowers); err != nil {
		return err
	}
	if err := i.writeGuestDir(first); err != nil {
		return err
	}
	// Volatile leaves a mark that would refuse the next mount; what was
	// written until the stop is complete.
	return os.RemoveAll(filepath.Join(i.path("work"), "work", "incompat"))
}

// root is the union that is the instance's root.
func (h *Hypervisor) root(i *instance) inside.Overlay {
	return inside.Overlay{Target: i.path("rootfs"), Lowers: append([]string{i.path("skel")}, h.lowers(i)...), Upper: i.path("upper"), Work: i.path("work")}
}

// lowers are the directories of the instance's layers, the highest first.
func (h *Hypervisor) lowers(i *instance) []string {
	var dirs []string
	for _, l := range slices.Backward(i.rec.Layers) {
		dirs = append(dirs, h.layerDir(l.Digest))
	}
	return dirs
}

// find returns where a union of these directories has name from, "" if it has
// none. Name has no links in its parents.
func find(dirs []string, name string) string {
	for _, d := range dirs {
		p := filepath.Join(d, name)
		var st unix.Stat_t
		if unix.Lstat(p, &st) == nil {
			if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
				return ""
			}
			return p
		}
		// A whiteout or an opaque directory above hides what is below.
		for up := filepath.Dir(name); up != "."; up = filepath.Dir(up) {
			p := filepath.Join(d, up)
			if unix.Lstat(p, &st) != nil {
				continue
			}
			var v [1]byte
			if st.Mode&unix.S_IFMT != unix.S_IFDIR {
				return ""
			}
			if n, err := unix.Lgetxattr(p, "trusted.overlay.opaque", v[:]); err == nil && n == 1 && v[0] == 'y' {
				return ""
			}
		}
	}
	return ""
}

// likeTop gives dir the owner, mode and time that name has in the union.
func likeTop(dirs []string, name, dir string) error {
	from := find(dirs, name)
	var st unix.Stat_t
	if from == "" || unix.Lstat(from, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return os.Chmod(dir, 0o755)
	}
	return errors.Join(
		unix.Lchown(dir, int(st.Uid), int(st.Gid)),
		unix.Chmod(dir, st.Mode&0o7777),
		unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{st.Mtim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW),
	)
}

const hostsLimit = 64 << 10

// makeSkeleton makes the highest read-only layer: mount points, so that the
// runtime makes none in upper, and the files that differ by instance.
func (i *instance) makeSkeleton(lowers []string) error {
	skel := i.path("skel")
	if err := os.RemoveAll(skel); err != nil {
		return err
	}
	for _, d := range []string{"", "dev", "etc", "proc", "run", "sys", "tmp"} {
		if err := os.Mkdir(filepath.Join(skel, d), 0o755); err != nil {
			return err
		}
	}
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	if p := find(lowers, "etc/hosts"); p != "" {
		if st, err := os.Lstat(p); err == nil && st.Mode().IsRegular() && st.Size() <= hostsLimit {
			if b, err := os.ReadFile(p); err == nil && len(bytes.TrimSpace(b)) > 0 {
				hosts = string(b)
			}
		}
	}
	files := map[string]string{"etc/hosts": withName(hosts, i.rec.Spec.Hostname), "etc/hostname": i.rec.Spec.Hostname + "\n", "etc/resolv.conf": ""}
	if i.rec.Spec.Resolver != "" {
		files["etc/resolv.conf"] = "nameserver " + i.rec.Spec.Resolver + "\n"
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(skel, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(skel, "tmp"), 0o1777); err != nil {
		return err
	}
	for _, d := range []string{"dev", "etc", "proc", "run", "sys", "tmp", ""} {
		if d == "tmp" && find(lowers, d) == "" {
			continue
		}
		if err := likeTop(lowers, d, filepath.Join(skel, d)); err != nil {
			return err
		}
	}
	return nil
}

// withName is hosts with 127.0.1.1 for this instance's own name, as Debian has it.
func withName(hosts, name string) string {
	var b strings.Builder
	for line := range strings.Lines(hosts) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == "127.0.1.1" {
			continue
		}
		b.WriteString(strings.TrimRight(line, "\n") + "\n")
	}
	if name != "" {
		b.WriteString("127.0.1.1\t" + name)
		if short, _, ok := strings.Cut(name, "."); ok {
			b.WriteString(" " + short)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// writeGuestDir tells the guest about this boot. Root inside could write to
// the directory, so nothing in it is followed or trusted.
func (i *instance) writeGuestDir(first bool) error {
	dir, err := os.OpenRoot(i.guestDir())
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, n := range []string{guest.SocketName, guest.BootName} {
		if err := dir.RemoveAll(n); err != nil {
			return err
		}
	}
	b := guest.Boot{Version: guest.Version, Env: i.rec.Spec.Env}
	if first {
		b.UserData = i.rec.Spec.UserData
	}
	f, err := dir.OpenFile(guest.BootName, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(encode(f, b), f.Close())
}
