// Package debian reads what is installed on a Debian machine from its package
// database and its disk. It must not know images.
package debian

import (
	"bufio"
	"context"
	"crypto/md5" // what dpkg notes down of its files
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dayfly-infra/dayfly/internal/inventory"
)

// maxFiles bounds the list of files of no package.
const maxFiles = 20_000

// roots are where files of no package matter: what runs and what configures.
var roots = []string{"/boot", "/etc", "/opt", "/srv", "/usr", "/var/lib/puppet", "/var/www"}

// passed over: made by each machine for itself, or by package scripts from what
// is listed elsewhere.
var skip = []string{
	"/etc/ssl/certs/", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/machine-id", "/etc/ssh/ssh_host_", "/etc/dayfly/instance.env", "/etc/ld.so.cache", "/etc/mtab",
	"/usr/share/mime/", "/usr/share/info/dir", "/usr/lib/dayfly/manifest", "/usr/share/applications/mimeinfo.cache", "/usr/lib/locale/",
}

// Read takes the inventory of the machine below root.
func Read(ctx context.Context, root string) (inventory.Inventory, error) {
	v := inventory.Inventory{Made: time.Now().UTC().Truncate(time.Second), Packages: []inventory.Package{}, Files: []inventory.File{}}
	v.System, v.Distro = release(root)
	status, err := os.Open(filepath.Join(root, "var/lib/dpkg/status"))
	if err != nil {
		return v, err
	}
	defer status.Close()
	packages, sums, err := readStatus(status)
	if err != nil {
		return v, err
	}
	for _, p := range packages {
		p.License = license(filepath.Join(root, "usr/share/doc", p.Name, "copyright"))
		v.Packages = append(v.Packages, p)
	}
	slices.SortFunc(v.Packages, func(a, b inventory.Package) int {
		return strings.Compare(a.Name+":"+a.Arch, b.Name+":"+b.Arch)
	})
	owned := map[string]bool{}
	lists, _ := filepath.Glob(filepath.Join(root, "var/lib/dpkg/info/*.list"))
	for _, l := range lists {
		each(l, func(line string) { owned[real(line)] = true })
	}
	digests, _ := filepath.Glob(filepath.Join(root, "var/lib/dpkg/info/*.md5sums"))
	for _, l := range digests {
		each(l, func(line string) {
			if sum, p, ok := strings.Cut(line, "  "); ok {
				sums[real("/"+p)] = sum
			}
		})
	}
	for _, top := range roots {
		if err := walk(ctx, root, top, owned, sums, &v); err != nil {
			return v, err
		}
	}
	slices.SortFunc(v.Files, func(a, b inventory.File) int { return strings.Compare(a.Path, b.Path) })
	return v, nil
}

// real is a path where Debian's /bin, /lib, /sbin are links into /usr.
func real(p string) string {
	for _, top := range []string{"/bin/", "/sbin/", "/lib/", "/lib32/", "/lib64/", "/libx32/"} {
		if strings.HasPrefix(p, top) {
			return "/usr" + p
		}
	}
	return p
}

func each(file string, f func(line string)) {
	in, err := os.Open(file)
	if err != nil {
		return
	}
	defer in.Close()
	for s := bufio.NewScanner(in); s.Scan(); {
		f(s.Text())
	}
}

func walk(ctx context.Context, root, top string, owned map[string]bool, sums map[string]string, v *inventory.Inventory) error {
	return filepath.WalkDir(filepath.Join(root, top), func(at string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil || d.IsDir() {
			return nil
		}
		p := "/" + strings.Trim(strings.TrimPrefix(at, strings.TrimSuffix(root, "/")), "/")
		for _, s := range skip {
			if strings.HasPrefix(p, s) {
				return nil
			}
		}
		// Byte code is made from files that are listed themselves.
		if strings.HasSuffix(p, ".pyc") {
			return nil
		}
		st, err := d.Info()
		if err != nil {
			return nil
		}
		f := inventory.File{Path: p, Mode: st.Mode().String()}
		switch {
		case st.Mode()&fs.ModeSymlink != 0:
			if owned[p] {
				return nil
			}
			if f.Link, err = os.Readlink(at); err != nil {
				return nil
			}
		case st.Mode().IsRegular():
			sum, known := sums[p]
			if owned[p] && !known {
				return nil
			}
			if known && digest(at, md5.New()) == sum {
				return nil
			}
			f.Digest = digest(at, sha256.New())
		default:
			return nil
		}
		if len(v.Files) == maxFiles {
			v.More = true
			return fs.SkipAll
		}
		v.Files = append(v.Files, f)
		return nil
	})
}

func digest(at string, h hash.Hash) string {
	f, err := os.OpenFile(at, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

// readStatus reads dpkg's database: the installed packages, and the digests of
// their configuration files as they were installed.
func readStatus(r io.Reader) (packages []inventory.Package, sums map[string]string, err error) {
	sums = map[string]string{}
	var p inventory.Package
	installed, field := false, ""
	end := func() {
		if installed && p.Name != "" {
			packages = append(packages, p)
		}
		p, installed, field = inventory.Package{}, false, ""
	}
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), 4<<20)
	for s.Scan() {
		l := s.Text()
		if l == "" {
			end()
			continue
		}
		if l[0] == ' ' {
			if w := strings.Fields(l); field == "Conffiles" && len(w) >= 2 {
				sums[w[0]] = w[1]
			}
			continue
		}
		k, value, _ := strings.Cut(l, ":")
		field, value = k, strings.TrimSpace(value)
		switch k {
		case "Package":
			p.Name = value
		case "Version":
			p.Version = value
		case "Architecture":
			p.Arch = value
		case "Source":
			p.Source, _, _ = strings.Cut(value, " ")
		case "Status":
			installed = strings.HasSuffix(value, " installed")
		}
	}
	end()
	return packages, sums, s.Err()
}

// license is the first one of a machine-readable copyright file.
func license(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	s := bufio.NewScanner(io.LimitReader(f, 256<<10))
	for first := true; s.Scan(); first = false {
		l := s.Text()
		if first && !strings.Contains(l, "copyright-format") {
			return ""
		}
		if v, ok := strings.CutPrefix(l, "License:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// release reads the system's own name.
func release(root string) (pretty, id string) {
	v := map[string]string{}
	each(filepath.Join(root, "etc/os-release"), func(l string) {
		if k, x, ok := strings.Cut(l, "="); ok {
			v[k] = strings.Trim(x, `"'`)
		}
	})
	return v["PRETTY_NAME"], strings.Trim(v["ID"]+"-"+v["VERSION_ID"], "-")
}
