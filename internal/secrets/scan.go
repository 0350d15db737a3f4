package secrets

import (
	"bufio"
	"context"
	"crypto/md5" // what dpkg notes down of its files
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// Config of a scan.
type Config struct {
	Root  string   // "/" on an instance
	Allow []string // paths, or patterns as path.Match takes them, that may hold what looks like a secret
	Own   []string // paths that a machine makes for itself at boot: its host keys
	Most  int      // findings; 0 means 50
	Bytes int64    // of a file; larger ones are looked at to here; 0 means 4 MiB
}

// passed over: nothing of an image is there.
var skip = map[string]bool{"/proc": true, "/sys": true, "/dev": true, "/run": true, "/tmp": true, "/var/tmp": true}

// Result of a scan.
type Result struct {
	Findings []Finding `json:"findings"`
	Files    int       `json:"files"`   // that were looked through
	Skipped  int       `json:"skipped"` // that could not be read, or are no plain files
	More     bool      `json:"more"`    // there are more findings than are listed
}

// Scan looks through a file system. Files that packages brought and that are
// still as they came are passed over: test keys and examples are in many. Links
// are not followed; what cannot be read is counted.
func Scan(ctx context.Context, c Config) (Result, error) {
	if c.Most <= 0 {
		c.Most = 50
	}
	if c.Bytes <= 0 {
		c.Bytes = 4 << 20
	}
	packaged := owned(c.Root)
	var r Result
	err := filepath.WalkDir(c.Root, func(real string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.Skipped++
			return nil
		}
		p := "/" + strings.Trim(strings.TrimPrefix(real, strings.TrimSuffix(c.Root, "/")), "/")
		if d.IsDir() {
			if skip[p] {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || allowed(p, c.Allow) || allowed(p, c.Own) {
			return nil
		}
		body, err := read(real, c.Bytes)
		if err != nil {
			r.Skipped++
			return nil
		}
		r.Files++
		// Digests are much cheaper than a look at every line.
		if sum, ok := packaged[p]; ok && int64(len(body)) < c.Bytes && sum == md5sum(body) {
			return nil
		}
		found := Find(p, body)
		for _, f := range found {
			if len(r.Findings) == c.Most {
				r.More = true
				return fs.SkipAll
			}
			r.Findings = append(r.Findings, f)
		}
		return nil
	})
	return r, err
}

func allowed(p string, patterns []string) bool {
	for _, a := range patterns {
		if ok, err := path.Match(a, p); ok && err == nil || p == a || strings.HasSuffix(a, "/") && strings.HasPrefix(p, a) {
			return true
		}
	}
	return false
}

// read takes the first bytes of a plain file, and nothing of a FIFO or device
// that took its place.
func read(real string, most int64) ([]byte, error) {
	f, err := os.OpenFile(real, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("not a plain file")
	}
	return io.ReadAll(io.LimitReader(f, most))
}

// owned are the digests of the files that Debian's packages brought.
func owned(root string) map[string]string {
	out := map[string]string{}
	lists, _ := filepath.Glob(filepath.Join(root, "var/lib/dpkg/info/*.md5sums"))
	for _, l := range lists {
		f, err := os.Open(l)
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			if sum, p, ok := strings.Cut(s.Text(), "  "); ok {
				out["/"+p] = sum
				// Debian's /bin and the like are links into /usr.
				for _, top := range []string{"bin/", "sbin/", "lib/", "lib64/"} {
					if strings.HasPrefix(p, top) {
						out["/usr/"+p] = sum
					}
				}
			}
		}
		f.Close()
	}
	conffiles(root, out)
	return out
}

// conffiles adds configuration files, whose digests are in the status.
func conffiles(root string, out map[string]string) {
	f, err := os.Open(filepath.Join(root, "var/lib/dpkg/status"))
	if err != nil {
		return
	}
	defer f.Close()
	in := false
	s := bufio.NewScanner(f)
	s.Buffer(make([]byte, 64<<10), 1<<20)
	for s.Scan() {
		l := s.Text()
		if !strings.HasPrefix(l, " ") {
			in = l == "Conffiles:"
			continue
		}
		if w := strings.Fields(l); in && len(w) >= 2 {
			out[w[0]] = w[1]
		}
	}
}

func md5sum(b []byte) string {
	h := md5.Sum(b)
	return hex.EncodeToString(h[:])
}
