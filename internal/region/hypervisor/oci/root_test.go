package oci

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

// tools is what tests need inside an instance, taken from this host.
var tools = []string{"/bin/sh", "/bin/cat", "/bin/ls", "/bin/sleep", "/bin/rm", "/bin/mkdir", "/bin/mv", "/bin/ln", "/bin/hostname", "/usr/bin/env", "/usr/bin/id", "/usr/bin/head", "/bin/chmod"}

var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "dayfly-oci-")
	if err != nil {
		return "", err
	}
	for name, pkg := range map[string]string{"dayfly-guest": "github.com/dayfly-infra/dayfly/cmd/dayfly-guest", "probe": "./testdata/probe"} {
		c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, name), pkg)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w: %s", pkg, err, out)
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := built(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("instances need root")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("runc is not installed: apt-get install runc")
	}
}

// rootfs is a small root file system of the host's own tools.
var rootfs = sync.OnceValues(func() ([]byte, error) {
	dir, err := built()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, d := range []string{"./", "./bin/", "./etc/", "./root/", "./tmp/", "./mnt/", "./usr/", "./usr/bin/", "./lib/", "./lib64/", "./var/"} {
		mode := int64(0o755)
		if d == "./tmp/" {
			mode = 0o1777
		}
		if err := w.WriteHeader(&tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: mode}); err != nil {
			return nil, err
		}
	}
	done := map[string]bool{}
	add := func(from, to string) error {
		if done[to] {
			return nil
		}
		done[to] = true
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: "." + to, Mode: 0o755, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	}
	for _, t := range tools {
		if err := add(t, t); err != nil {
			return nil, err
		}
		out, err := exec.Command("ldd", t).Output()
		if err != nil {
			return nil, fmt.Errorf("ldd %s: %w", t, err)
		}
		for f := range strings.FieldsSeq(string(out)) {
			if strings.HasPrefix(f, "/") {
				if err := add(f, f); err != nil {
					return nil, err
				}
			}
		}
	}
	if err := add(filepath.Join(dir, "probe"), "/bin/probe"); err != nil {
		return nil, err
	}
	if err := add("/etc/passwd", "/etc/passwd"); err != nil {
		return nil, err
	}
	return b.Bytes(), w.Close()
})

func smallRoot(t testing.TB) io.Reader {
	t.Helper()
	b, err := rootfs()
	if err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(b)
}

var prefixes struct {
	sync.Mutex
	n int
}

// runtimes are what every test of instances runs with.
var runtimes = []string{ownRuntime, "runc"}

// each runs a test with every runtime.
func each(t *testing.T, f func(t *testing.T, setup func(testing.TB) Config)) {
	t.Helper()
	for _, r := range runtimes {
		t.Run(r, func(t *testing.T) {
			f(t, func(t testing.TB) Config { return setup(t, r) })
		})
	}
}

// setup returns a configuration of its own, whose leftovers fail the test.
func setup(t testing.TB, runtime string) Config {
	t.Helper()
	needRoot(t)
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	prefixes.Lock()
	prefixes.n++
	prefix := fmt.Sprintf("dftest-oci-%d-%d", os.Getpid(), prefixes.n)
	prefixes.Unlock()
	top := t.TempDir()
	c := Config{Dir: filepath.Join(top, "region"), RunDir: filepath.Join(top, "run"), Prefix: prefix, GuestPath: filepath.Join(dir, "dayfly-guest"), Runtime: runtime}
	t.Cleanup(func() { checkNothingLeft(t, c) })
	return c
}

// open makes a Hypervisor that destroys its instances when the test ends.
func open(t testing.TB, c Config) *Hypervisor {
	t.Helper()
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.mu.Lock()
		closed := h.closed
		h.mu.Unlock()
		if closed {
			return // another one has taken over
		}
		list, _ := h.List(contextFor(t))
		for _, s := range list {
			if err := h.Destroy(contextFor(t), s.ID); err != nil {
				t.Error(err)
			}
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func checkNothingLeft(t testing.TB, c Config) {
	t.Helper()
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for l := range strings.Lines(string(mounts)) {
		if strings.Contains(l, c.Dir) || strings.Contains(l, c.RunDir) {
			t.Errorf("left behind: mount %s", l)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/" + c.Prefix + "*", "/sys/fs/cgroup/*/" + c.Prefix + "*", c.Dir + "/instances/*", c.RunDir + "/runc/*"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			t.Errorf("left behind: %v", found)
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, p := range procs {
		status, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "status"))
		if strings.Contains(string(status), "State:\tZ") {
			continue // dead; its parent, the host's init, has not looked yet
		}
		if b, _ := os.ReadFile(p); strings.Contains(string(b), "/"+c.Prefix+"/") {
			t.Errorf("left behind: process %s", p)
		}
	}
}

func importSmall(t testing.TB, h *Hypervisor) {
	t.Helper()
	if _, err := h.ImportImage(contextFor(t), "ami-small", hypervisor.BootGuest, smallRoot(t)); err != nil {
		t.Fatal(err)
	}
}

func errorAndHint(err error) string {
	s := err.Error()
	if f, ok := errors.AsType[*fault.Error](err); ok {
		s += " " + f.Hint
	}
	return s
}
