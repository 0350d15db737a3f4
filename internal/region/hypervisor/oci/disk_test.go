package oci

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

func stop(t testing.TB, h *Hypervisor, id string) {
	t.Helper()
	if err := h.Stop(contextFor(t), id, 5*time.Second); err != nil {
		t.Fatal(err)
	}
}

// TestSnapshotHoldsNothingOfTheInstance: what the hypervisor gave an instance
// is not in an image made from it, what the instance did is.
func TestSnapshotHoldsNothingOfTheInstance(t *testing.T) {
	each(t, func(t *testing.T, setup func(testing.TB) Config) {
		h := open(t, setup(t))
		importSmall(t, h)
		in := small("i-1")
		in.UserData = []byte("#!/bin/sh\necho secret > /run/secret\necho user data on the console\n")
		create(t, h, in)
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			out, err := h.Console(contextFor(t), "i-1", 4096)
			if err == nil && strings.Contains(string(out), "user data on the console\n") {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s %v", out, err)
			}
		}
		stop(t, h, "i-1")
		i, _ := h.find("i-1")
		var found []string
		filepath.Walk(i.path("upper"), func(p string, _ os.FileInfo, _ error) error { found = append(found, p); return nil })
		if len(found) != 1 {
			t.Errorf("an idle instance has written %v", found[1:])
		}
		if err := h.Start(contextFor(t), "i-1", ""); err != nil {
			t.Fatal(err)
		}
		ready(t, h, "i-1")
		// Replacing these files works, as it does on any machine.
		if r := sh(t, h, "i-1", "echo 10.1.1.1 other >> /etc/hosts && echo mine > /tmp/x && mv /tmp/x /etc/hostname && echo kept > /var/kept && cat /etc/hosts"); r.ExitCode != 0 {
			t.Errorf("%+v", r)
		}
		out, _ := h.Console(contextFor(t), "i-1", 4096)
		if n := strings.Count(string(out), "user data on the console"); n != 1 {
			t.Errorf("user data ran %d times", n)
		}
		stop(t, h, "i-1")
		if _, err := h.Snapshot(contextFor(t), "i-1", "ami-2"); err != nil {
			t.Fatal(err)
		}
		in = small("i-2")
		in.Image, in.Hostname, in.Resolver = "ami-2", "ip-10-0-0-8", ""
		create(t, h, in)
		r := sh(t, h, "i-2", "cat /var/kept /etc/hosts /etc/hostname /etc/resolv.conf; ls /run /run/dayfly/host/commands")
		want := "kept\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.1.1.1 other\n127.0.1.1\tip-10-0-0-8\nip-10-0-0-8\n"
		if !strings.HasPrefix(string(r.Stdout), want) || strings.Contains(string(r.Stdout), "secret") {
			t.Errorf("%s", r.Stdout)
		}
	})
}

// TestManyLayers has more of them than the page of mount options holds.
func TestManyLayers(t *testing.T) {
	each(t, func(t *testing.T, setup func(testing.TB) Config) {
		h := open(t, setup(t))
		importSmall(t, h)
		create(t, h, small("i-1"))
		const n = 60
		for k := range n {
			if r := sh(t, h, "i-1", "echo x >> /var/count"); r.ExitCode != 0 {
				t.Fatalf("%+v", r)
			}
			if err := h.Stop(contextFor(t), "i-1", time.Second); err != nil {
				t.Fatal(err)
			}
			if _, err := h.Snapshot(contextFor(t), "i-1", "ami-n"+strings.Repeat("x", k%40)+string(rune('a'+k/40))); err != nil {
				t.Fatal(err)
			}
			if err := h.Start(contextFor(t), "i-1", ""); err != nil {
				t.Fatal(err)
			}
			ready(t, h, "i-1")
		}
		if r := sh(t, h, "i-1", "cat /var/count"); bytes.Count(r.Stdout, []byte("x")) != n {
			t.Errorf("%s %s", r.Stdout, r.Stderr)
		}
	})
}

// TestInterrupted starts again above everything that a killed process can leave.
func TestInterrupted(t *testing.T) {
	each(t, func(t *testing.T, setup func(testing.TB) Config) {
		c := setup(t)
		h := open(t, c)
		importSmall(t, h)
		create(t, h, small("i-half"))
		create(t, h, small("i-keeps"))
		sh(t, h, "i-keeps", "echo data > /var/data")
		create(t, h, small("i-stray"))
		stop(t, h, "i-keeps")
		half, _ := h.find("i-half")
		keeps, _ := h.find("i-keeps")
		stray, _ := h.find("i-stray")
		layer := h.layerDir("sha256:" + strings.Repeat("ab", 32))
		unused := h.layerDir("sha256:" + strings.Repeat("cd", 32))

		// A snapshot that was killed between its rename and its records.
		rec := keeps.rec
		rec.Taking = &taking{Image: "ami-taken", Layer: layerRef{Digest: "sha256:" + strings.Repeat("ab", 32), Bytes: 5}}
		if err := h.save(keeps, rec); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(keeps.path("upper"), layer); err != nil {
			t.Fatal(err)
		}
		// A Create and an import that were killed, a layer whose image is gone, and
		// a container whose directory is gone.
		for _, err := range []error{
			os.Remove(half.path("instance.json")), os.Mkdir(unused, 0o700), os.Mkdir(h.layersDir()+"/.import-x", 0o700),
			h.Close(), os.Rename(stray.dir, filepath.Join(h.instancesDir(), ".gone-x")),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		h = open(t, c)
		list, _ := h.List(t.Context())
		if len(list) != 1 || list[0].ID != "i-keeps" || list[0].State != hypervisor.Stopped {
			t.Errorf("%+v", list)
		}
		for _, p := range []string{half.dir, unused, h.layersDir() + "/.import-x", filepath.Join(h.instancesDir(), ".gone-x"), h.runcRoot() + "/" + h.container("i-stray")} {
			if _, err := os.Lstat(p); err == nil {
				t.Errorf("%s is still there", p)
			}
		}
		in := small("i-2")
		in.Image = "ami-taken"
		create(t, h, in)
		if err := h.Start(contextFor(t), "i-keeps", ""); err != nil {
			t.Fatal(err)
		}
		ready(t, h, "i-keeps")
		for _, id := range []string{"i-2", "i-keeps"} {
			if r := sh(t, h, id, "cat /var/data"); string(r.Stdout) != "data\n" {
				t.Errorf("%s: %+v", id, r)
			}
		}
	})
}

// TestKilledDaemon kills the process that holds a Hypervisor in the middle of
// creating instances.
func TestKilledDaemon(t *testing.T) {
	each(t, func(t *testing.T, setup func(testing.TB) Config) {
		c := setup(t)
		h := open(t, c)
		importSmall(t, h)
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		for _, after := range []time.Duration{10, 20, 30, 45, 60, 120, 250, 600} {
			d := exec.Command(self, "-test.run=^TestDaemonProcess$")
			d.Env = append(os.Environ(), "DAYFLY_TEST_DAEMON="+c.Dir+"|"+c.RunDir+"|"+c.Prefix+"|"+c.GuestPath+"|"+c.Runtime)
			if err := d.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(after * time.Millisecond)
			_ = d.Process.Kill()
			_ = d.Wait()
			h := open(t, c)
			list, err := h.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("killed after %d ms: %d instances", after, len(list))
			for _, s := range list {
				if s.State == hypervisor.Running {
					ready(t, h, s.ID)
				}
				if err := h.Destroy(contextFor(t), s.ID); err != nil {
					t.Error(err)
				}
			}
			if err := h.Close(); err != nil {
				t.Fatal(err)
			}
			checkNothingLeft(t, c)
		}
	})
}

// TestDaemonProcess is what TestKilledDaemon kills.
func TestDaemonProcess(t *testing.T) {
	part := strings.Split(os.Getenv("DAYFLY_TEST_DAEMON"), "|")
	if len(part) != 5 {
		t.Skip("it is a part of TestKilledDaemon")
	}
	h, err := New(Config{Dir: part[0], RunDir: part[1], Prefix: part[2], GuestPath: part[3], Runtime: part[4]})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"i-1", "i-2", "i-3", "i-4", "i-5", "i-6"} {
		go func() { _ = h.Create(t.Context(), small(id)) }()
	}
	time.Sleep(time.Minute)
}

func TestRefusals(t *testing.T) {
	each(t, func(t *testing.T, setup func(testing.TB) Config) {
		c := setup(t)
		h := open(t, c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), "another process") {
			t.Errorf("two of them on one directory: %v", err)
		}
		for want, change := range map[string]func(*Config){
			"not an absolute path": func(c *Config) { c.Dir = "region" },
			"make build":           func(c *Config) { c.GuestPath = "/no/such/guest" },
			"apt-get install runc": func(c *Config) { c.Runtime = "no-such-runtime" },
			"the prefix":           func(c *Config) { c.Prefix = "../x" },
		} {
			bad := c
			change(&bad)
			if _, err := New(bad); err == nil || !strings.Contains(errorAndHint(err), want) {
				t.Errorf("%v, want %s", err, want)
			}
		}
		importSmall(t, h)
		for _, change := range []func(*hypervisor.Instance){
			func(i *hypervisor.Instance) { i.ID = "../i" }, func(i *hypervisor.Instance) { i.MemoryMiB = -1 },
			func(i *hypervisor.Instance) { i.Hostname = "a b" }, func(i *hypervisor.Instance) { i.Env = map[string]string{"A=B": "x"} },
			func(i *hypervisor.Instance) { i.NetNS = "relative" }, func(i *hypervisor.Instance) { i.NetNS = "/no/such/netns" },
		} {
			in := small("i-1")
			change(&in)
			if err := h.Create(contextFor(t), in); err == nil {
				t.Errorf("%+v is accepted", in)
			} else {
				t.Log(err)
			}
		}
		if found, _ := filepath.Glob(c.Dir + "/instances/*"); len(found) > 0 {
			t.Errorf("%v is left", found)
		}
	})
}
