package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("owners and device nodes need root")
	}
}

func stream(t testing.TB, hs ...*tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		body := h.PAXRecords["DAYFLY.body"]
		delete(h.PAXRecords, "DAYFLY.body")
		if len(h.PAXRecords) == 0 {
			h.PAXRecords = nil
		}
		h.Size = int64(len(body))
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		h.ModTime = time.Unix(1_700_000_000, 0)
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, body)
	}
	w.Close()
	return &b
}

func dir(name string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}
}

func file(name, body string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, PAXRecords: map[string]string{"DAYFLY.body": body}}
}

func link(kind byte, name, to string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: kind, Linkname: to, Mode: 0o777}
}

func TestExtract(t *testing.T) {
	needRoot(t)
	into := t.TempDir()
	cap := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_raw=ep
	su := file("./bin/su", "su")
	su.Mode, su.Uid, su.Gid = 0o4755, 0, 42
	ping := file("bin/ping", "ping")
	ping.Mode = 0o755
	ping.PAXRecords["SCHILY.xattr.security.capability"] = cap
	ping.PAXRecords["SCHILY.xattr.trusted.overlay.opaque"] = "y" // only .wh..wh..opq may say that
	n, err := Extract(t.Context(), stream(t, dir("./"), dir("bin"), su, ping,
		link(tar.TypeLink, "bin/ping6", "./bin/ping"), link(tar.TypeSymlink, "bin/abs", "/etc/passwd"), link(tar.TypeSymlink, "bin/up", "../../../etc"),
		&tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}, // its directory is implied
		&tar.Header{Name: "run/fifo", Typeflag: tar.TypeFifo},
		file("var/.wh.gone", ""), file("var/lib/.wh..wh..opq", ""),
		file("etc/twice", "first"), file("etc/twice", "second"), link(tar.TypeSymlink, "etc/was-link", "/"), file("etc/was-link", "file"),
	), into)
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(len("su")+len("ping")+len("first")+len("second")+len("file")) {
		t.Error(n)
	}
	stat := func(name string) (st unix.Stat_t) {
		if err := unix.Lstat(filepath.Join(into, name), &st); err != nil {
			t.Error(name, err)
		}
		return st
	}
	if st := stat("bin/su"); st.Mode != unix.S_IFREG|0o4755 || st.Gid != 42 || st.Mtim.Sec != 1_700_000_000 {
		t.Errorf("%+v", st)
	}
	if stat("bin/ping").Ino != stat("bin/ping6").Ino {
		t.Error("no hard link")
	}
	if stat("bin").Mtim.Sec != 1_700_000_000 {
		t.Error("the directory's time is that of its last file")
	}
	if st := stat("dev/null"); st.Rdev != unix.Mkdev(1, 3) || st.Mode != unix.S_IFCHR|0o666 {
		t.Errorf("%+v", st)
	}
	if st := stat("run/fifo"); st.Mode&unix.S_IFMT != unix.S_IFIFO {
		t.Errorf("%+v", st)
	}
	if st := stat("var/gone"); st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("%+v", st)
	}
	var v [64]byte
	if k, err := unix.Lgetxattr(filepath.Join(into, "bin/ping"), "security.capability", v[:]); err != nil || string(v[:k]) != cap {
		t.Error(v[:max(k, 0)], err)
	}
	if _, err := unix.Lgetxattr(filepath.Join(into, "bin/ping"), opaqueXattr, v[:]); err == nil {
		t.Error("a stream sets overlayfs's own attributes")
	}
	if k, err := unix.Lgetxattr(filepath.Join(into, "var/lib"), opaqueXattr, v[:]); err != nil || string(v[:k]) != "y" {
		t.Error(err)
	}
	for name, want := range map[string]string{"etc/twice": "second", "etc/was-link": "file"} {
		if b, err := os.ReadFile(filepath.Join(into, name)); err != nil || string(b) != want {
			t.Error(name, string(b), err)
		}
	}
}

func TestExtractStaysInside(t *testing.T) {
	needRoot(t)
	for name, s := range map[string][]*tar.Header{
		"up":                     {file("../evil", "x")},
		"up in the middle":       {file("a/../../evil", "x")},
		"through a link":         {link(tar.TypeSymlink, "a", ".."), file("a/evil", "x")},
		"through a deep link":    {dir("d"), link(tar.TypeSymlink, "d/a", "/"), file("d/a/tmp/evil", "x")},
		"hard link up":           {link(tar.TypeLink, "a", "../secret")},
		"hard link by link":      {link(tar.TypeSymlink, "a", ".."), link(tar.TypeLink, "b", "a/secret")},
		"whiteout of a parent":   {file(".wh...", "")},
		"whiteout of a whiteout": {file(".wh..wh.x", "")},
		"root as a link":         {link(tar.TypeSymlink, "./", "/")},
		"unknown kind":           {{Name: "x", Typeflag: 'Z'}},
		"directory replaced":     {dir("d"), file("d/x", "x"), file("d", "x")},
		"xattr through a link":   {link(tar.TypeSymlink, "l", "../secret"), {Name: "l/.wh..wh..opq", Typeflag: tar.TypeReg}},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			into := filepath.Join(top, "a", "into")
			os.MkdirAll(into, 0o700)
			os.WriteFile(filepath.Join(top, "a", "secret"), []byte("s"), 0o600)
			if _, err := Extract(t.Context(), stream(t, s...), into); err == nil {
				t.Error("it is accepted")
			}
			onlySecret(t, top, into)
		})
	}
	// Absolute names are below the root.
	into := t.TempDir()
	if _, err := Extract(t.Context(), stream(t, file("/etc/x", "x")), into); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(into, "etc/x")); err != nil {
		t.Error(err)
	}
}

func onlySecret(t testing.TB, top, into string) {
	t.Helper()
	filepath.Walk(top, func(p string, i os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if p == into {
			return filepath.SkipDir
		}
		if !i.IsDir() && filepath.Base(p) != "secret" {
			t.Errorf("written outside: %s", p)
		}
		return nil
	})
	if b, _ := os.ReadFile(filepath.Join(top, "a", "secret")); string(b) != "s" {
		t.Errorf("the file outside is %q", b)
	}
	var st unix.Stat_t
	if unix.Stat(filepath.Join(top, "a", "secret"), &st) == nil && st.Nlink != 1 {
		t.Error("the file outside has a link inside")
	}
}

func FuzzExtract(f *testing.F) {
	for _, s := range [][]*tar.Header{
		{dir("./"), file("a/b", "x")}, {link(tar.TypeSymlink, "a", ".."), file("a/secret", "x")},
		{link(tar.TypeLink, "a", "../secret")}, {file(".wh.a", ""), file("x/.wh..wh..opq", "")},
	} {
		b, _ := io.ReadAll(stream(f, s...))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		needRoot(t)
		top := t.TempDir()
		into := filepath.Join(top, "a", "into")
		os.MkdirAll(into, 0o700)
		os.WriteFile(filepath.Join(top, "a", "secret"), []byte("s"), 0o600)
		_, _ = Extract(t.Context(), bytes.NewReader(b), into)
		onlySecret(t, top, into)
	})
}

func TestDigestIsOfTheTree(t *testing.T) {
	needRoot(t)
	tree := func() string {
		d := t.TempDir()
		if _, err := Extract(t.Context(), stream(t, dir("./"), dir("b"), file("b/2", "two"), file("a", "one"), link(tar.TypeLink, "c", "a"),
			link(tar.TypeSymlink, "l", "a"), file(".wh.gone", ""), file("b/.wh..wh..opq", ""), &tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}), d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	one, two := tree(), tree()
	a, n, err := Digest(t.Context(), one)
	if err != nil || n != 6 || !strings.HasPrefix(a, "sha256:") {
		t.Fatal(a, n, err)
	}
	if b, _, _ := Digest(t.Context(), two); a != b {
		t.Error("the same tree has two digests")
	}
	// What is written can be extracted, and is the same again.
	var b bytes.Buffer
	if _, err := Write(t.Context(), one, &b); err != nil {
		t.Fatal(err)
	}
	three := t.TempDir()
	if _, err := Extract(t.Context(), &b, three); err != nil {
		t.Fatal(err)
	}
	if c, _, _ := Digest(t.Context(), three); a != c {
		t.Error("write and extract change the tree")
	}
	for name, change := range map[string]func(d string) error{
		"content":  func(d string) error { return os.WriteFile(d+"/b/2", []byte("TWO"), 0o644) },
		"mode":     func(d string) error { return os.Chmod(d+"/a", 0o600) },
		"owner":    func(d string) error { return os.Chown(d+"/a", 1, 1) },
		"time":     func(d string) error { return os.Chtimes(d+"/a", time.Unix(1, 0), time.Unix(1, 0)) },
		"whiteout": func(d string) error { return os.Remove(d + "/gone") },
		"opaque":   func(d string) error { return unix.Removexattr(d+"/b", opaqueXattr) },
		"link":     func(d string) error { return os.Remove(d + "/c") },
	} {
		d := tree()
		if err := change(d); err != nil {
			t.Fatal(err)
		}
		if c, _, err := Digest(t.Context(), d); a == c || err != nil {
			t.Errorf("%s does not change the digest (%v)", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Digest(ctx, one); err == nil {
		t.Error("it does not end with its context")
	}
}
