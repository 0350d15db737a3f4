// Package manifest is the list of an image's protected files: what they are when
// the image is sealed, and what of them has changed on an instance. It is part
// of the agent, so it stays small, and it streams: neither building nor
// comparing holds the list in memory. It must not know what becomes of changes.
package manifest

import (
	"bufio"
	"bytes"
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
	"time"
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
	mtime    int64     // nanoseconds; 0 for folders, whose times change with their files
	content  string    // sha256 in hex of a file, target of a link
	ctime    time.Time // of what was walked over; not part of a manifest
}

// appendLine adds the entry's line without its content, which for anything but a
// link cannot be told from the entry alone.
func (e *entry) appendLine(b []byte) []byte {
	b = append(strconv.AppendQuote(b, e.path), '\t')
	b = append(strconv.AppendUint(b, uint64(e.mode), 8), '\t')
	b = append(strconv.AppendUint(b, uint64(e.uid), 10), '\t')
	b = append(strconv.AppendUint(b, uint64(e.gid), 10), '\t')
	b = append(strconv.AppendInt(b, e.size, 10), '\t')
	return append(strconv.AppendInt(b, e.mtime, 10), '\t')
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
	var line []byte
	err := walk(root, "", func(e *entry) error {
		if e.mode.IsRegular() {
			sum, err := digest(filepath.Join(root, e.path))
			if err != nil {
				return fmt.Errorf("%s: %w", e.path, err)
			}
			e.content = sum
		}
		line = append(strconv.AppendQuote(e.appendLine(line[:0]), e.content), '\n')
		_, err := b.Write(line)
		return err
	}, nil)
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

// Look says how Compare looks.
type Look struct {
	// Since is when the machine began to live: a file that was not changed since
	// then, by its ctime, is taken for the sealed one when its size and time are
	// right. All other files are read; without it, every file is.
	Since time.Time
	// Upper is what this machine wrote itself (see Upper), "" where that is not
	// known: what is not in it is not looked at.
	Upper string
}

// Compare calls report for what has changed below root.
//
// Found is whatever adds, removes or replaces a file, or gives it another mode,
// owner, size, time or content, also when its time is set back: nobody can set
// back ctime. Not found are attributes beyond these (ACLs, capabilities), what
// is written past the file system, to its device, and, where the clock was set
// back for the change, another content of the same size and time.
func Compare(root string, sealed io.Reader, look Look, report func(Change) error) error {
	c := comparison{root: root, report: report, lines: bufio.NewScanner(sealed)}
	if !look.Since.IsZero() {
		c.since = look.Since.Add(-clockStep)
	}
	c.lines.Buffer(make([]byte, 16<<10), maxLine)
	if !c.lines.Scan() || c.lines.Text() != head {
		return errors.New("this is no manifest of this version")
	}
	c.number = 1
	if err := c.next(); err != nil {
		return err
	}
	if err := walk(root, look.Upper, c.see, c.skip); err != nil {
		return err
	}
	for c.more {
		if err := c.removed(); err != nil {
			return err
		}
	}
	return nil
}

// clockStep is more than what a file system's clock is behind the system's.
const clockStep = time.Second

// comparison goes through a manifest beside a walk.
type comparison struct {
	root   string
	since  time.Time
	report func(Change) error
	lines  *bufio.Scanner
	number int
	more   bool   // there is a line that is not dealt with
	path   string // its path
	want   []byte
}

func (c *comparison) next() error {
	if c.more = c.lines.Scan(); !c.more {
		return c.lines.Err()
	}
	c.number++
	var err error
	if c.path, err = pathOf(c.lines.Bytes()); err != nil {
		return fmt.Errorf("line %d: %w", c.number, err)
	}
	return nil
}

func (c *comparison) removed() error {
	if err := c.report(Change{Path: c.path, What: "removed"}); err != nil {
		return err
	}
	return c.next()
}

// to goes on to what is not before path.
func (c *comparison) to(path string) error {
	for c.more && c.path != path && before(c.path, path) {
		if err := c.removed(); err != nil {
			return err
		}
	}
	return nil
}

// skip takes a path, and all below it, for what it was.
func (c *comparison) skip(path string) error {
	if err := c.to(path); err != nil {
		return err
	}
	for c.more && strings.HasPrefix(c.path, path) && (len(c.path) == len(path) || c.path[len(path)] == '/') {
		if err := c.next(); err != nil {
			return err
		}
	}
	return nil
}

// see compares one path.
func (c *comparison) see(e *entry) error {
	if err := c.to(e.path); err != nil {
		return err
	}
	if !c.more || c.path != e.path {
		now := fmt.Sprint(e.size, e.mtime)
		if e.mode.IsRegular() { // it has no digest to be compared with
			now += " " + strconv.FormatInt(e.ctime.UnixNano(), 10)
		}
		return c.report(Change{Path: e.path, What: "added", Now: now})
	}
	c.want = e.appendLine(c.want[:0])
	if !e.mode.IsRegular() {
		c.want = strconv.AppendQuote(c.want, e.content)
	}
	line := c.lines.Bytes()
	if bytes.HasPrefix(line, c.want) && (len(line) == len(c.want) || e.mode.IsRegular() && e.ctime.Before(c.since)) {
		return c.next()
	}
	was, err := parse(c.lines.Text())
	if err != nil {
		return fmt.Errorf("line %d: %w", c.number, err)
	}
	if err := c.next(); err != nil {
		return err
	}
	return differ(was, *e, filepath.Join(c.root, e.path), c.report)
}

func differ(old, e entry, real string, report func(Change) error) error {
	if old.mode != e.mode {
		if err := report(Change{Path: e.path, What: "mode", Now: e.mode.String()}); err != nil || old.mode.Type() != e.mode.Type() {
			return err
		}
	}
	if old.uid != e.uid || old.gid != e.gid {
		if err := report(Change{Path: e.path, What: "owner", Now: fmt.Sprint(e.uid, ":", e.gid)}); err != nil {
			return err
		}
	}
	if !e.mode.IsRegular() {
		if old.content != e.content {
			return report(Change{Path: e.path, What: "content", Now: e.content})
		}
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

var errLine = errors.New("it cannot be read")

// pathOf is the path of a line, whose rest it does not read.
func pathOf(line []byte) (string, error) {
	quoted, _, ok := bytes.Cut(line, []byte{'\t'})
	if n := len(quoted); ok && n > 2 && quoted[0] == '"' && quoted[1] == '/' && quoted[n-1] == '"' && bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : n-1]), nil
	}
	p, err := strconv.Unquote(string(quoted))
	if err != nil || !ok || !path.IsAbs(p) {
		return "", errLine
	}
	return p, nil
}

func parse(line string) (entry, error) {
	bad := errLine
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
