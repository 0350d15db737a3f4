// Package layer turns tar streams into directory trees that overlayfs can
// stack, and such trees into digests. It knows files, not images or instances.
//
// In a tree, a whiteout is a character device 0/0 and an opaque directory
// carries trusted.overlay.opaque=y, as the kernel has it; in a tar stream they
// are .wh.NAME and .wh..wh..opq, as OCI layers have it.
package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of a stream. They are far above any real image and keep a wrong or
// hostile one from filling the disk unseen.
const (
	MaxEntries = 5_000_000
	MaxBytes   = 64 << 30
	maxXattrs  = 64
)

const (
	whiteout    = ".wh."
	opaqueEntry = ".wh..wh..opq"
	opaqueXattr = "trusted.overlay.opaque"
	paxXattr    = "SCHILY.xattr."
)

// Extract writes a tar stream into dir, which exists and is empty, and returns
// the bytes of its files. Nothing is written outside of dir whatever the
// stream says: every parent is opened without following symbolic links.
// Owners, modes, times, hard links, device nodes, extended attributes and
// capabilities are kept.
func Extract(ctx context.Context, stream io.Reader, dir string) (int64, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", dir, err)
	}
	x := &extractor{ctx: ctx, root: root, parentFD: -1, buf: make([]byte, 128<<10)}
	defer x.close()
	t := tar.NewReader(stream)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("read the tar stream: %w", err)
		}
		if n >= MaxEntries {
			return 0, fmt.Errorf("the tar stream has more than %d entries", MaxEntries)
		}
		if err := x.entry(h, t); err != nil {
			return 0, fmt.Errorf("extract %q: %w", h.Name, err)
		}
	}
	return x.bytes, x.directories()
}

type extractor struct {
	ctx      context.Context
	root     int
	parent   string // what parentFD is
	parentFD int
	bytes    int64
	dirs     []*tar.Header // times of directories come last
	buf      []byte
}

func (x *extractor) close() {
	if x.parentFD >= 0 {
		unix.Close(x.parentFD)
	}
	unix.Close(x.root)
}

// clean returns a name relative to the root, or an error when it leaves it.
func clean(name string) (string, error) {
	if strings.ContainsRune(name, 0) || len(name) > 4095 {
		return "", errors.New("the name is not valid")
	}
	if slices.Contains(strings.Split(name, "/"), "..") {
		return "", errors.New("the name leaves the root")
	}
	return path.Clean("./" + strings.TrimLeft(name, "/")), nil
}

func (x *extractor) openDir(name string) (int, error) {
	return unix.Openat2(x.root, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// in returns the directory that holds name, made where the stream has none.
func (x *extractor) in(name string) (int, string, error) {
	dir, base := path.Dir(name), path.Base(name)
	if dir == "." {
		return x.root, base, nil
	}
	if x.parentFD >= 0 && x.parent == dir {
		return x.parentFD, base, nil
	}
	fd, err := x.openDir(dir)
	if errors.Is(err, unix.ENOENT) {
		up, last, err := x.in(dir)
		if err != nil {
			return -1, "", err
		}
		if err := unix.Mkdirat(up, last, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, "", fmt.Errorf("make %s: %w", dir, err)
		}
		fd, err = x.openDir(dir)
		if err != nil {
			return -1, "", fmt.Errorf("open %s: %w", dir, err)
		}
	} else if err != nil {
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
			return -1, "", fmt.Errorf("%s is not a directory of this stream", dir)
		}
		return -1, "", fmt.Errorf("open %s: %w", dir, err)
	}
	if x.parentFD >= 0 {
		unix.Close(x.parentFD)
	}
	x.parent, x.parentFD = dir, fd
	return fd, base, nil
}

func (x *extractor) entry(h *tar.Header, body io.Reader) error {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	}
	name, err := clean(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		if h.Typeflag != tar.TypeDir {
			return errors.New("the root is not a directory")
		}
		h.Name = name
		x.dirs = append(x.dirs, h)
		return x.attributes(x.root, ".", h)
	}
	at, base, err := x.in(name)
	if err != nil {
		return err
	}
	if base == opaqueEntry {
		return setxattr(at, ".", opaqueXattr, []byte("y"))
	}
	if rest, ok := strings.CutPrefix(base, whiteout); ok {
		if rest == "" || rest == "." || rest == ".." || strings.HasPrefix(rest, whiteout) {
			return errors.New("not a valid whiteout")
		}
		if err := x.clear(at, rest); err != nil {
			return err
		}
		return unix.Mknodat(at, rest, unix.S_IFCHR, 0)
	}
	if h.Typeflag != tar.TypeDir {
		if err := x.clear(at, base); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if err := unix.Mkdirat(at, base, 0o700); errors.Is(err, unix.EEXIST) {
			var st unix.Stat_t
			if err := unix.Fstatat(at, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return err
			}
			if st.Mode&unix.S_IFMT != unix.S_IFDIR {
				if err := errors.Join(x.clear(at, base), unix.Mkdirat(at, base, 0o700)); err != nil {
					return err
				}
			}
		} else if err != nil {
			return err
		}
		h.Name = name
		x.dirs = append(x.dirs, h)
	case tar.TypeReg:
		if err := x.file(at, base, h, body); err != nil {
			return err
		}
		return nil
	case tar.TypeLink:
		target, err := clean(h.Linkname)
		if err != nil {
			return fmt.Errorf("hard link to %q: %w", h.Linkname, err)
		}
		dir, err := x.openDir(path.Dir(target))
		if err != nil {
			return fmt.Errorf("hard link to %q: %w", h.Linkname, err)
		}
		defer unix.Close(dir)
		if err := unix.Linkat(dir, path.Base(target), at, base, 0); err != nil {
			return fmt.Errorf("hard link to %q: %w", h.Linkname, err)
		}
		return nil // it has the attributes of what it links to
	case tar.TypeSymlink:
		if err := unix.Symlinkat(h.Linkname, at, base); err != nil {
			return err
		}
	case tar.TypeChar, tar.TypeBlock:
		kind := uint32(unix.S_IFCHR)
		if h.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
		if err := unix.Mknodat(at, base, kind|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))); err != nil {
			return err
		}
	case tar.TypeFifo:
		if err := unix.Mknodat(at, base, unix.S_IFIFO|0o600, 0); err != nil {
			return err
		}
	default:
		return fmt.Errorf("entries of type %q are not known", h.Typeflag)
	}
	return x.attributes(at, base, h)
}

func (x *extractor) file(at int, base string, h *tar.Header, body io.Reader) error {
	if x.bytes += h.Size; h.Size < 0 || x.bytes > MaxBytes {
		return fmt.Errorf("the stream has more than %d bytes", int64(MaxBytes))
	}
	fd, err := unix.Openat(at, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(fdWriter(fd), untilDone{x.ctx, body}, x.buf)
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return x.attributes(at, base, h)
}

// untilDone ends with its context: a sparse file of a few bytes in the stream
// can be very long.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

type fdWriter int

func (w fdWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Write(int(w), p[done:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// attributes sets owner, mode, extended attributes and times, in this order:
// a change of owner drops set-user-id bits and capabilities.
func (x *extractor) attributes(at int, base string, h *tar.Header) error {
	if err := unix.Fchownat(at, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("owner %d:%d: %w", h.Uid, h.Gid, err)
	}
	if h.Typeflag != tar.TypeSymlink {
		// base was made by us and is no link.
		if err := unix.Fchmodat(at, base, uint32(h.Mode)&0o7777, 0); err != nil {
			return fmt.Errorf("mode %o: %w", h.Mode, err)
		}
	}
	n := 0
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok || !kept(name) {
			continue
		}
		if n++; n > maxXattrs {
			return fmt.Errorf("more than %d extended attributes", maxXattrs)
		}
		if err := setxattr(at, base, name, []byte(value)); err != nil {
			return fmt.Errorf("extended attribute %s: %w", name, err)
		}
	}
	if h.Typeflag == tar.TypeDir {
		return nil
	}
	return times(at, base, h)
}

// kept says which extended attributes belong to a file: not those by which
// overlayfs keeps its own books, and none that only this host understands.
func kept(name string) bool {
	return strings.HasPrefix(name, "user.") || name == "security.capability" ||
		name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

func times(at int, base string, h *tar.Header) error {
	ts, err := unix.TimeToTimespec(h.ModTime)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(at, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// setxattr reaches the file through its directory's descriptor: there is no
// fsetxattrat on older kernels.
func setxattr(at int, base, name string, value []byte) error {
	return unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", at, base), name, value, 0)
}

// clear removes what an earlier entry of the same name made.
func (x *extractor) clear(at int, base string) error {
	err := unix.Unlinkat(at, base, 0)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.EISDIR):
		return err
	}
	if err := unix.Unlinkat(at, base, unix.AT_REMOVEDIR); err != nil {
		return fmt.Errorf("it would replace a directory: %w", err)
	}
	return nil
}

func (x *extractor) directories() error {
	for _, h := range slices.Backward(x.dirs) {
		fd, err := x.openDir(h.Name)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue // a later entry replaced it
		}
		if err != nil {
			return fmt.Errorf("open %s: %w", h.Name, err)
		}
		err = times(fd, ".", h)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("times of %s: %w", h.Name, err)
		}
	}
	return nil
}
