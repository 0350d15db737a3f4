package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The peers launch what they are given, and nothing of them is left.
func TestPeersReal(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("starts a docker daemon: root, and not -short")
	}
	if _, err := os.Stat(dockerd); err != nil {
		t.Skip("scripts/deps.sh bench installs docker.io")
	}
	t.Chdir("..")
	ctx := t.Context()
	dir, err := os.MkdirTemp("/var/lib", "dfbench-") // a socket's path may not be long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	_, hadConfig := os.Stat("/etc/docker")
	s := &session{dir: filepath.Join(dir, "run"), lock: lock, began: time.Now()}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	// An image of two layers: the shop, and above it the release that it says it is.
	low, top := filepath.Join(dir, "low"), filepath.Join(dir, "top")
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "etc", "srv/bin"} {
		if err := os.MkdirAll(filepath.Join(low, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(top, "srv"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(top, "srv/VERSION"), []byte(version), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(low, "srv/bin/shop"), "./examples/shop/app")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lowers, argv := []string{top, low}, []string{"/srv/bin/shop"}

	t.Run("bare clones", func(t *testing.T) {
		b, err := newBare(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time with the first's addresses
			if up, _, err := b.launch(ctx, 3, lowers, nil, argv); err != nil || up <= 0 {
				t.Fatalf("%s, %v", up, err)
			}
		}
		if _, _, err := b.launch(ctx, 3, lowers, nil, nil); err != nil {
			t.Error(err)
		}
		if _, _, err := b.launch(ctx, 1, lowers, nil, []string{"/no/such/program"}); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("a command that is not there: %v", err)
		}
	})
	t.Run("docker", func(t *testing.T) {
		d, err := s.docker(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.importImage(ctx, lowers, "shop:bench"); err != nil {
			t.Fatal(err)
		}
		if up, err := d.launch(ctx, 3, 2, nil, "shop:bench", argv); err != nil || up <= 0 {
			t.Fatalf("%s, %v", up, err)
		}
		if down, err := d.remove(ctx); err != nil || down <= 0 {
			t.Fatalf("%s, %v", down, err)
		}
		if left, err := d.addresses(ctx); err != nil || len(left) != 0 {
			t.Errorf("after rm: %v, %v", left, err)
		}
		if _, err := d.launch(ctx, 1, 1, nil, "shop:bench", argv); err != nil { // for the end to remove
			t.Error(err)
		}
	})
	if err := s.close(); err != nil {
		t.Error(err)
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name, bridgePrefix) {
			t.Errorf("%s is left", l.Name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("a mount is left: %v", err)
	}
	if got, _ := filepath.Glob("/sys/fs/cgroup/*/" + dockerCgroup); len(got) > 0 {
		t.Errorf("cgroups are left: %v", got)
	}
	if _, has := os.Stat("/etc/docker"); (has == nil) != (hadConfig == nil) {
		t.Errorf("/etc/docker: %v before, %v after", hadConfig, has)
	}
	if out, _ := exec.Command("pgrep", "-f", dir).Output(); len(out) > 0 {
		t.Errorf("processes are left: %s", out)
	}
}
