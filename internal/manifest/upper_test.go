package manifest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// overlay is a union as instances have it, over lower.
func overlay(t *testing.T, lower string) (root, upper string) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"root", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root, upper = filepath.Join(dir, "root"), filepath.Join(dir, "upper")
	option := "index=off,metacopy=off,redirect_dir=off,xino=off,lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + filepath.Join(dir, "work")
	if err := unix.Mount("overlay", root, "overlay", 0, option); err != nil {
		t.Skipf("no overlayfs here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	return root, upper
}

// What the upper folder shows is what a look at everything shows, whatever is done.
func TestUpperShowsAll(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	for seed := range uint64(8) {
		files := map[string]string{}
		for k := range 60 {
			files[fmt.Sprintf("%s/d%d/e%d/f%d", []string{"etc", "usr/lib", "opt", "srv"}[k%4], k%3, k%5, k)] = fmt.Sprint("content ", k)
		}
		root, upper := overlay(t, tree(t, files))
		var sealed bytes.Buffer
		if err := Build(root, &sealed); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if got := changes(t, root, sealed.Bytes(), Look{Since: began, Upper: upper}); len(got) > 0 {
			t.Fatalf("nothing was written, and it says %v", got)
		}
		r := rand.New(rand.NewPCG(seed, 1))
		var did []string
		for range 25 {
			did = append(did, meddle(r, root))
		}
		all := changes(t, root, sealed.Bytes(), Look{})
		quick := changes(t, root, sealed.Bytes(), Look{Since: began, Upper: upper})
		if !slices.Equal(all, quick) {
			t.Fatalf("seed %d\nall   %q\nquick %q\nafter %q", seed, all, quick, did)
		}
		if len(all) == 0 {
			t.Fatalf("seed %d: nothing was found after %q", seed, did)
		}
	}
}

// meddle changes something below root, or tries to.
func meddle(r *rand.Rand, root string) string {
	var paths []string
	_ = filepath.WalkDir(root, func(p string, _ os.DirEntry, _ error) error {
		if strings.Count(p, "/") > strings.Count(root, "/")+1 {
			paths = append(paths, p)
		}
		return nil
	})
	if len(paths) == 0 {
		return ""
	}
	p, q := paths[r.IntN(len(paths))], paths[r.IntN(len(paths))]
	var err error
	what := ""
	switch st, _ := os.Lstat(p); r.IntN(9) {
	case 0:
		what, err = "write", os.WriteFile(p, []byte(fmt.Sprint("other ", r.IntN(100))), 0o644)
	case 1: // the same size and time
		if body, rerr := os.ReadFile(p); rerr == nil && len(body) > 0 {
			body[0]++
			_ = os.WriteFile(p, body, 0o644)
			what, err = "hide", os.Chtimes(p, st.ModTime(), st.ModTime())
		}
	case 2:
		what, err = "chmod", os.Chmod(p, 0o700)
	case 3:
		what, err = "remove", os.RemoveAll(p)
	case 4: // a folder of the same name over the image's
		_ = os.RemoveAll(p)
		what, err = "opaque", os.Mkdir(p, 0o755)
	case 5:
		what, err = "file", os.WriteFile(filepath.Join(p, fmt.Sprint("new", r.IntN(3))), nil, 0o600)
	case 6:
		what, err = "mkdir", os.MkdirAll(filepath.Join(p, "x/y"), 0o755)
	case 7:
		what, err = "rename", os.Rename(p, q)
	case 8:
		_ = os.Remove(p)
		what, err = "link", os.Symlink("nowhere", p)
	}
	if err != nil {
		what += " failed"
	}
	return what + " " + strings.TrimPrefix(p, root)
}

func TestUppers(t *testing.T) {
	const (
		root  = "335 143 0:73 / / rw,relatime - overlay overlay rw,lowerdir=/r/skel:/r/l,upperdir=/var/lib/r/i-1/upper,workdir=/r/work,index=off\n"
		disk  = "354 342 254:0 /var/lib/r/i-1/upper /run/disk ro,nosuid - ext4 /dev/vda rw\n"
		below = "354 342 254:0 /r/i-1/upper /run/disk ro,nosuid master:1 - xfs /dev/vdb rw\n" // /var/lib is a mount
		other = "353 342 254:0 /var/lib/r/i-1/guest /run/host rw - ext4 /dev/vda rw\n"
		whole = "352 342 254:1 / /mnt rw - ext4 /dev/vdb rw\n"
	)
	for name, c := range map[string]struct{ info, want string }{
		"shown":                   {root + other + whole + disk, "/run/disk"},
		"from another mount":      {root + below, "/run/disk"},
		"not shown":               {root + other + whole, ""},
		"a disk":                  {strings.Replace(root, "overlay overlay", "ext4 /dev/vda", 1) + disk, ""},
		"renamed folders":         {strings.Replace(root, "index=off", "redirect_dir=on", 1) + disk, ""},
		"a mount over a file":     {root + disk + "360 335 0:75 / /etc/passwd rw - tmpfs tmpfs rw\n", ""},
		"a mount over its own":    {root + disk + "360 335 0:75 / /etc/hosts rw - tmpfs tmpfs rw\n", "/run/disk"},
		"a mount beside a folder": {root + disk + "360 335 0:75 / /etcetera rw - tmpfs tmpfs rw\n", "/run/disk"},
		"another root over it":    {root + disk + "361 335 254:0 / / rw - ext4 /dev/vda rw\n", ""},
		"nonsense":                {"\n- - -\n1 2 3\n", ""},
	} {
		var all []mount
		for _, l := range strings.Split(c.info, "\n") {
			if m, ok := parseMount(l); ok {
				all = append(all, m)
			}
		}
		if got := strings.Join(uppers(all), " "); got != c.want {
			t.Errorf("%s: %q, not %q", name, got, c.want)
		}
	}
}

// The proof is the file itself, not one that looks like it.
func TestSame(t *testing.T) {
	dir := tree(t, map[string]string{"a": "1", "b": "1"})
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	st, _ := os.Stat(a)
	if err := os.Chtimes(b, st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
	if !same(a, a) || same(a, b) || same(a, filepath.Join(dir, "c")) || same(dir, dir) {
		t.Errorf("same: %v %v %v %v", same(a, a), same(a, b), same(a, filepath.Join(dir, "c")), same(dir, dir))
	}
}
