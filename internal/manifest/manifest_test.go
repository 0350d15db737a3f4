package manifest

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, body := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func changes(t testing.TB, root string, sealed []byte, look Look) []string {
	t.Helper()
	var out []string
	if err := Compare(root, bytes.NewReader(sealed), look, func(c Change) error { out = append(out, c.String()); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestCompare(t *testing.T) {
	files := map[string]string{
		"etc/passwd": "root\n", "etc/a b/\"c\"\td": "x", "etc/hosts": "1", "etc/ssh/ssh_host_rsa_key": "k", "etc/ssh/sshd_config": "y", "etc/zz": "z",
		"usr/bin/true": "t", "usr/bin-extra": "e", "usr/bin/a/b": "b", "usr/lib/dayfly/handoff/deploy": "d", "usr/lib/dayfly/manifest": "m", "var/log/x": "l", "srv/app": "a", "opt/gone": "g",
	}
	root := tree(t, files)
	if err := os.Symlink("usr/bin", filepath.Join(root, "bin")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("true", filepath.Join(root, "usr/bin/yes")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(root, "etc/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Build(root, &b); err != nil {
		t.Fatal(err)
	}
	if got := changes(t, root, b.Bytes(), Look{}); len(got) > 0 {
		t.Fatalf("nothing was changed, and it says %v", got)
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(p string) string { return filepath.Join(root, p) }
	st, err := os.Stat(at("etc/passwd"))
	do(err)
	do(os.WriteFile(at("etc/passwd"), []byte("toor\n"), 0o644)) // the same size and time
	do(os.Chtimes(at("etc/passwd"), st.ModTime(), st.ModTime()))
	if got := changes(t, root, b.Bytes(), Look{Since: time.Now().Add(time.Hour)}); len(got) > 0 {
		t.Fatalf("what was not changed since then is read: %v", got)
	}
	if got := changes(t, root, b.Bytes(), Look{Since: st.ModTime()}); !slices.Equal(got, []string{"/etc/passwd: content changed"}) {
		t.Fatalf("a change that keeps size and time: %v", got)
	}
	do(os.Chtimes(at("usr/bin/true"), time.Now(), time.Now().Add(time.Hour))) // touched, the same content
	do(os.WriteFile(at("etc/zz"), []byte("another"), 0o644))
	do(os.Chmod(at("etc/ssh/sshd_config"), 0o600))
	do(os.Remove(at("opt/gone")))
	do(os.WriteFile(at("etc/cron"), []byte("new"), 0o644))
	do(os.Remove(at("usr/bin/yes")))
	do(os.Symlink("false", at("usr/bin/yes")))
	for _, own := range []string{"etc/hosts", "etc/ssh/ssh_host_rsa_key", "usr/lib/dayfly/handoff/deploy", "var/log/x", "srv/app"} {
		do(os.WriteFile(at(own), []byte("its own matter"), 0o644))
	}
	want := []string{"/etc/cron added", "/etc/passwd: content changed", "/etc/ssh/sshd_config: mode changed", "/etc/zz: content changed", "/opt/gone removed", "/usr/bin/yes: content changed"}
	if got := changes(t, root, b.Bytes(), Look{}); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if os.Geteuid() == 0 {
		do(os.Chown(at("usr/bin-extra"), 1, 1))
		if got := changes(t, root, b.Bytes(), Look{}); !slices.Contains(got, "/usr/bin-extra: owner changed") {
			t.Errorf("a new owner: %q", got)
		}
	}
	// A new mode hides no new content.
	do(os.WriteFile(at("etc/ssh/sshd_config"), []byte("z"), 0o600))
	if got := changes(t, root, b.Bytes(), Look{}); !slices.Contains(got, "/etc/ssh/sshd_config: content changed") || !slices.Contains(got, "/etc/ssh/sshd_config: mode changed") {
		t.Errorf("mode and content: %q", got)
	}
	// What was added is another change when it is changed again, also with its time set back.
	added := func() (now string) {
		do(Compare(root, bytes.NewReader(b.Bytes()), Look{}, func(c Change) error {
			if c.Path == "/etc/cron" {
				now = c.Now
			}
			return nil
		}))
		return now
	}
	was := added()
	st, err = os.Stat(at("etc/cron"))
	do(err)
	time.Sleep(20 * time.Millisecond) // more than a tick of the file system's clock
	do(os.WriteFile(at("etc/cron"), []byte("old"), 0o644))
	do(os.Chtimes(at("etc/cron"), st.ModTime(), st.ModTime()))
	if now := added(); now == was || was == "" {
		t.Errorf("an added file that changes again is the same change: %q", now)
	}
	// A device or FIFO in a file's place is no trap.
	do(os.Remove(at("etc/zz")))
	do(syscall.Mkfifo(at("etc/zz"), 0o644))
	if got := changes(t, root, b.Bytes(), Look{}); !slices.Contains(got, "/etc/zz: mode changed") {
		t.Errorf("a FIFO: %q", got)
	}
}

func TestNotAManifest(t *testing.T) {
	for _, s := range []string{"", "dayfly manifest 2\n", head + "\n\"/etc\t1\n", head + "\nx\t1\t1\t1\t1\t1\tx\n", head + "\n" + strings.Repeat("x", maxLine+1)} {
		if err := Compare(t.TempDir(), strings.NewReader(s), Look{}, func(Change) error { return nil }); err == nil {
			t.Errorf("%.40q is taken", s)
		}
	}
}

func FuzzCompare(f *testing.F) {
	root := tree(f, map[string]string{"etc/a": "1", "usr/b": "2"})
	var b bytes.Buffer
	if err := Build(root, &b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(head + "\n\"/etc\"\t1\t1\t1\t1\t1\t\"\"\n"))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		n := 0
		_ = Compare(root, bytes.NewReader(sealed), Look{}, func(Change) error { n++; return nil })
	})
}

// BenchmarkCompare looks at this machine's own /usr and /etc.
func BenchmarkCompare(b *testing.B) {
	var m bytes.Buffer
	if err := Build("/", &m); err != nil {
		b.Skip(err)
	}
	b.ReportMetric(float64(bytes.Count(m.Bytes(), []byte("\n"))), "files")
	for b.Loop() {
		if err := Compare("/", bytes.NewReader(m.Bytes()), Look{Since: time.Now().Add(time.Hour)}, func(Change) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
