// Package manifest is the list of an image's protected files: what they are when
// the image is sealed, and what of them has changed on an instance. It is part
// of the agent, so it stays small, and it streams: neither building nor
// comparing holds the list in memory. It must not know what becomes of changes.
package manifest

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Protected are the folders whose files an instance may not change.
var Protected = []string{"/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/sbin", "/usr"}

// Own are paths that each instance fills in by itself, and folders (with a
// slash at the end) that belong to the hand-off.
var Own = []string{
	"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/machine-id", "/etc/mtab", "/etc/adjtime", "/etc/.updated", "/etc/.pwd.lock",
	"/etc/dayfly/instance.env", "/etc/ssh/ssh_host_", "/etc/network/interfaces.d/", "/etc/netplan/", "/etc/cloud/", "/etc/ssl/private/ssl-cert-snakeoil.key", "/etc/ssl/certs/ssl-cert-snakeoil.pem",
	"/etc/puppet/ssl/", "/etc/puppetlabs/puppet/ssl/", "/usr/lib/dayfly/handoff/", "/usr/lib/dayfly/manifest",
}

// File is where the manifest lies in an image.
const File = "/usr/lib/dayfly/manifest"

// maxLine bounds a line of a manifest, in bytes: a path may have 4,096.
const maxLine = 32 << 10

// entry is one file, link or folder.
type entry struct {
	path     string
	mode     fs.FileMode
	uid, gid uint32
	size     int64
	mtime    int64  // nanoseconds; 0 for folders, whose times change with their files
	content  string // sha256 in hex of a file, target of a link
}

func own(p string) bool {
	for _, o := range Own {
		if p == o || (strings.HasSuffix(o, "/") || strings.HasSuffix(o, "_")) && strings.HasPrefix(p, o) {
			return true
		}
	}
	return false
}

// walk calls f for everything protected below root, in the order of walking;
// what goes away meanwhile is passed over.
func walk(root string, f func(e entry, real string) error) error {
	for _, dir := range Protected {
		top := filepath.Join(root, dir)
		if st, err := os.Lstat(top); err != nil || !st.IsDir() {
			if err == nil { // /bin → usr/bin
				if e, err := describe(root, dir, st); err == nil {
					if err := f(e, top); err != nil {
						return err
					}
				}
			}
			continue
		}
		err := filepath.WalkDir(top, func(real string, d fs.DirEntry, err error) error {
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
					return nil
				}
				return err
			}
			p := "/" + strings.TrimPrefix(strings.TrimPrefix(real, root), "/")
			if own(p) {
				return nil
			}
			if d.IsDir() && own(p+"/") {
				return fs.SkipDir
			}
			st, err := d.Info()
			if err != nil {
				return nil
			}
			e, err := describe(root, p, st)
			if err != nil {
				return nil
			}
			return f(e, real)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func describe(root, p string, st fs.FileInfo) (entry, error) {
	e := entry{path: p, mode: st.Mode(), size: st.Size(), mtime: st.ModTime().UnixNano()}
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		e.uid, e.gid = s.Uid, s.Gid
	}
	switch {
	case st.IsDir():
		e.size, e.mtime = 0, 0
	case st.Mode()&fs.ModeSymlink != 0:
		to, err := os.Readlink(filepath.Join(root, p))
		if err != nil {
			return e, err
		}
		e.content, e.mtime = to, 0
	case !st.Mode().IsRegular():
		e.size, e.mtime = 0, 0
	}
	return e, nil
}

func digest(real string) (string, error) {
	// Never a device or a FIFO that took the file's place.
	f, err := os.OpenFile(real, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

const head = "dayfly manifest 1"

// Build writes the manifest of what is below root.
func Build(root string, w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, head)
	err := walk(root, func(e entry, real string) error {
		if e.mode.IsRegular() {
			sum, err := digest(real)
			if err != nil {
				return fmt.Errorf("%s: %w", e.path, err)
			}
			e.content = sum
		}
		_, err := fmt.Fprintf(b, "%s\t%o\t%d\t%d\t%d\t%d\t%s\n", strconv.Quote(e.path), uint32(e.mode), e.uid, e.gid, e.size, e.mtime, strconv.Quote(e.content))
		return err
	})
	if err != nil {
		return err
	}
	return b.Flush()
}

// Change is one protected path that is not as it was.
type Change struct {
	Path string `json:"path"`
	What string `json:"what"` // added, removed, content, mode, owner
	Now  string `json:"now"`  // what tells this change from a later one of the same path
}

// String is the change for people.
func (c Change) String() string {
	switch c.What {
	case "content", "mode", "owner":
		return c.Path + ": " + c.What + " changed"
	}
	return c.Path + " " + c.What
}

// Compare calls report for what has changed below root. A file is read only when
// its size or time is not the sealed one; thorough reads them all.
func Compare(root string, sealed io.Reader, thorough bool, report func(Change) error) error {
	r := bufio.NewScanner(sealed)
	r.Buffer(make([]byte, 4<<10), maxLine)
	if !r.Scan() || r.Text() != head {
		return errors.New("this is no manifest of this version")
	}
	var was entry
	more, line := true, 1
	next := func() error {
		if more = r.Scan(); !more {
			return r.Err()
		}
		line++
		var err error
		if was, err = parse(r.Text()); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		return nil
	}
	if err := next(); err != nil {
		return err
	}
	err := walk(root, func(e entry, real string) error {
		for more && before(was.path, e.path) {
			if err := report(Change{Path: was.path, What: "removed"}); err != nil {
				return err
			}
			if err := next(); err != nil {
				return err
			}
		}
		if !more || was.path != e.path {
			return report(Change{Path: e.path, What: "added", Now: fmt.Sprint(e.size, e.mtime)})
		}
		old := was
		if err := next(); err != nil {
			return err
		}
		return differ(old, e, real, thorough, report)
	})
	if err != nil {
		return err
	}
	for more {
		if err := report(Change{Path: was.path, What: "removed"}); err != nil {
			return err
		}
		if err := next(); err != nil {
			return err
		}
	}
	return nil
}

func differ(old, e entry, real string, thorough bool, report func(Change) error) error {
	switch {
	case old.mode != e.mode:
		return report(Change{Path: e.path, What: "mode", Now: e.mode.String()})
	case old.uid != e.uid || old.gid != e.gid:
		return report(Change{Path: e.path, What: "owner", Now: fmt.Sprint(e.uid, ":", e.gid)})
	case !e.mode.IsRegular():
		if old.content != e.content {
			return report(Change{Path: e.path, What: "content", Now: e.content})
		}
		return nil
	case old.size == e.size && old.mtime == e.mtime && !thorough:
		return nil
	}
	sum, err := digest(real)
	if err != nil {
		sum = err.Error()
	}
	if sum == old.content {
		return nil
	}
	return report(Change{Path: e.path, What: "content", Now: sum})
}

// before tells whether a walk comes to a before b: by folders, each by names.
func before(a, b string) bool {
	for {
		x, restA, moreA := strings.Cut(strings.TrimPrefix(a, "/"), "/")
		y, restB, moreB := strings.Cut(strings.TrimPrefix(b, "/"), "/")
		if x != y {
			return x < y
		}
		if !moreA || !moreB {
			return !moreA && moreB
		}
		a, b = restA, restB
	}
}

func parse(line string) (entry, error) {
	bad := errors.New("it cannot be read")
	f := strings.Split(line, "\t")
	if len(f) != 7 {
		return entry{}, bad
	}
	var e entry
	var err error
	if e.path, err = strconv.Unquote(f[0]); err != nil || !path.IsAbs(e.path) {
		return e, bad
	}
	mode, err1 := strconv.ParseUint(f[1], 8, 32)
	uid, err2 := strconv.ParseUint(f[2], 10, 32)
	gid, err3 := strconv.ParseUint(f[3], 10, 32)
	size, err4 := strconv.ParseInt(f[4], 10, 64)
	mtime, err5 := strconv.ParseInt(f[5], 10, 64)
	content, err6 := strconv.Unquote(f[6])
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return e, bad
	}
	e.mode, e.uid, e.gid, e.size, e.mtime, e.content = fs.FileMode(mode), uint32(uid), uint32(gid), size, mtime, content
	return e, nil
}
