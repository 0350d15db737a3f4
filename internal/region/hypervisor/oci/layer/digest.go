package layer

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Write writes the tree below dir as a tar stream that depends on nothing but
// the tree: names in order, no access times, no names of users. Sockets are
// left out, as they are in every layer format. It returns the bytes of files.
func Write(ctx context.Context, dir string, w io.Writer) (int64, error) {
	t := &writer{tar: tar.NewWriter(w), links: map[[2]uint64]string{}, buf: make([]byte, 128<<10)}
	if err := t.walk(ctx, dir, "."); err != nil {
		return 0, err
	}
	return t.bytes, t.tar.Close()
}

// Digest of the tree below dir: sha256:… of what Write writes.
func Digest(ctx context.Context, dir string) (string, int64, error) {
	h := sha256.New()
	n, err := Write(ctx, dir, h)
	if err != nil {
		return "", 0, err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), n, nil
}

type writer struct {
	tar   *tar.Writer
	links map[[2]uint64]string
	bytes int64
	buf   []byte
}

func (t *writer) walk(ctx context.Context, root, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p := filepath.Join(root, name)
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return fmt.Errorf("stat %s: %w", p, err)
	}
	h := &tar.Header{
		Name: "./" + name, Format: tar.FormatPAX, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec), PAXRecords: map[string]string{},
	}
	if name == "." {
		h.Name = "./"
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK {
		return nil
	}
	if kind == unix.S_IFCHR && st.Rdev == 0 {
		return t.put(&tar.Header{Name: "./" + filepath.Join(filepath.Dir(name), whiteout+filepath.Base(name)), Typeflag: tar.TypeReg, Format: tar.FormatPAX})
	}
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		id := [2]uint64{st.Dev, st.Ino}
		if first, ok := t.links[id]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return t.put(h)
		}
		t.links[id] = h.Name
	}
	opaque, err := t.xattrs(p, h)
	if err != nil {
		return err
	}
	switch kind {
	case unix.S_IFREG:
		return t.file(p, h, st.Size)
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		h.Name = strings.TrimSuffix(h.Name, "/") + "/"
		if err := t.put(h); err != nil {
			return err
		}
		if opaque {
			if err := t.put(&tar.Header{Name: h.Name + opaqueEntry, Typeflag: tar.TypeReg, Format: tar.FormatPAX}); err != nil {
				return err
			}
		}
		entries, err := os.ReadDir(p) // in order of names
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := t.walk(ctx, root, filepath.Join(name, e.Name())); err != nil {
				return err
			}
		}
		return nil
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = os.Readlink(p); err != nil {
			return err
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if kind == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		return fmt.Errorf("%s: mode %o is not known", p, st.Mode)
	}
	return t.put(h)
}

func (t *writer) put(h *tar.Header) error {
	if err := t.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("write %s: %w", h.Name, err)
	}
	return nil
}

func (t *writer) file(p string, h *tar.Header, size int64) error {
	h.Typeflag, h.Size = tar.TypeReg, size
	if err := t.put(h); err != nil {
		return err
	}
	f, err := os.OpenFile(p, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{t.tar}, struct{ io.Reader }{io.LimitReader(f, size)}, t.buf)
	if err == nil && n != size {
		err = fmt.Errorf("it has %d bytes now, it had %d", n, size)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", p, err)
	}
	t.bytes += n
	return nil
}

func (t *writer) xattrs(p string, h *tar.Header) (opaque bool, err error) {
	var list [8 << 10]byte
	n, err := unix.Llistxattr(p, list[:])
	if errors.Is(err, unix.ENOTSUP) || n == 0 {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("extended attributes of %s: %w", p, err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if !kept(name) && name != opaqueXattr {
			continue
		}
		var value [64 << 10]byte
		k, err := unix.Lgetxattr(p, name, value[:])
		if err != nil {
			return false, fmt.Errorf("extended attribute %s of %s: %w", name, p, err)
		}
		if name == opaqueXattr {
			opaque = string(value[:k]) == "y"
			continue
		}
		h.PAXRecords[paxXattr+name] = string(value[:k])
	}
	return opaque, nil
}
