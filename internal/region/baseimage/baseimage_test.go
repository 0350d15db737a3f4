package baseimage

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

func TestSources(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"sources.list": "# deb http://no.example/debian bookworm main\ndeb [arch=amd64 signed-by=/x] http://mirror.example/debian bookworm main contrib # ours\ndeb-src http://mirror.example/debian bookworm main\n",
		"sources.list.d/a.sources": "# of Debian\nTypes: deb deb-src\nURIs: http://mirror.example/debian\n  http://second.example/debian\nSuites: bookworm bookworm-updates trixie\nComponents: main\nSigned-By:\n -----BEGIN\n .\n\n" +
			"Types: deb\nURIs: http://sec.example/debian-security\nSuites: bookworm-security\nComponents: main\n\nTypes: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n",
		"sources.list.d/cloud.list":       "deb https://packages.example/apt cloud-sdk main\ndeb https://other.example/debian bookworm contrib\n",
		"sources.list.d/ignored.disabled": "deb http://no.example/debian bookworm main\n",
	} {
		p := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(p), 0o700)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"deb http://mirror.example/debian bookworm main", "deb http://mirror.example/debian bookworm-updates main",
		"deb http://second.example/debian bookworm main", "deb http://second.example/debian bookworm-updates main",
		"deb http://sec.example/debian-security bookworm-security main",
	}
	if got := readSources(dir); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	got := aptOptions("APT::X \"1\";\nAcquire::http::Proxy \"http://p:3128\";\nAcquire::http::Proxy::deb.example \"DIRECT\";\nAcquire::Check-Date \"false\";\nAcquire::https::Proxy \"\";\nAcquire::Other \"x\";\n")
	if !slices.Equal(got, []string{`Acquire::http::Proxy "http://p:3128"`, `Acquire::http::Proxy::deb.example "DIRECT"`, `Acquire::Check-Date "false"`}) {
		t.Errorf("%q", got)
	}
	for release, want := range map[string]bool{"ID=debian\nVERSION_CODENAME=bookworm\n": true, "ID=debian\nVERSION_CODENAME=trixie\n": false, "ID=ubuntu\nVERSION_CODENAME=bookworm\n": false} {
		if isSuite(release) != want {
			t.Error(release)
		}
	}
}

// fakeMmdebstrap puts a program of that name first in PATH.
func fakeMmdebstrap(t *testing.T, script string) (calls string) {
	t.Helper()
	dir := t.TempDir()
	calls = filepath.Join(dir, "calls")
	if err := os.WriteFile(filepath.Join(dir, "mmdebstrap"), []byte("#!/bin/sh\necho \"$@\" >> "+calls+"\nfor a; do out=$last; last=$a; done\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return calls
}

func count(t *testing.T, calls string) int {
	b, err := os.ReadFile(calls)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Count(string(b), "\n")
}

func TestCache(t *testing.T) {
	calls := fakeMmdebstrap(t, "sleep 0.2\necho 'I: installing'\necho image > $out\n")
	cache := filepath.Join(t.TempDir(), "cache")
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			p, boot, digest, err := Ensure(t.Context(), "debian-12", cache, nil)
			if err != nil || boot != hypervisor.BootSystemd || digest != "sha256:254eddf15d9534e3b20c55469077aa2f24f167aa4b897a36381d3e251e4829c2" {
				t.Error(p, boot, digest, err)
			}
		})
	}
	wg.Wait()
	if n := count(t, calls); n != 1 {
		t.Errorf("made %d times", n)
	}
	var said []string
	p, _, _, err := Refresh(t.Context(), "debian-12", cache, func(s string) { said = append(said, s) })
	if err != nil || count(t, calls) != 2 || !slices.Contains(said, "installing") {
		t.Error(err, count(t, calls), said)
	}
	// A damaged archive is made again.
	if err := os.WriteFile(p, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cache, "debian-12-0123456789abcdef.tar"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := Ensure(t.Context(), "debian-12", cache, nil); err != nil || count(t, calls) != 3 {
		t.Error(err, count(t, calls))
	}
	if names := visible(t, cache); len(names) != 2 {
		t.Errorf("%v", names)
	}
	_, boot, _, err := Ensure(t.Context(), "debian-12-slim", cache, nil)
	if err != nil || boot != hypervisor.BootGuest || count(t, calls) != 4 || len(visible(t, cache)) != 4 {
		t.Error(boot, err, visible(t, cache))
	}
}

func visible(t *testing.T, dir string) (names []string) {
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if !strings.HasSuffix(e.Name(), ".lock") {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestFailures(t *testing.T) {
	cache := t.TempDir()
	fakeMmdebstrap(t, "echo 'E: Unable to fetch some archives'\nexit 100\n")
	_, _, _, err := Ensure(t.Context(), "debian-12", cache, nil)
	if f, ok := errors.AsType[*fault.Error](err); !ok || !strings.Contains(err.Error(), "Unable to fetch") || f.Hint == "" {
		t.Error(err)
	}
	fakeMmdebstrap(t, "sleep 60 & sleep 60\n")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, _, _, err := Ensure(ctx, "debian-12", cache, nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 5*time.Second {
		t.Error(err, time.Since(begun))
	}
	if names := visible(t, cache); len(names) > 0 {
		t.Errorf("%v is left", names)
	}
	// What a killed process left goes with the next call.
	os.MkdirAll(filepath.Join(cache, ".build-debian-12_1", "deep"), 0o700)
	os.MkdirAll(filepath.Join(cache, ".build-debian-12-slim_1"), 0o700)
	t.Setenv("PATH", "/nowhere")
	_, _, _, err = Ensure(t.Context(), "debian-12", cache, nil)
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.Hint != "apt-get install mmdebstrap" {
		t.Error(err)
	}
	if names := visible(t, cache); !slices.Equal(names, []string{".build-debian-12-slim_1"}) {
		t.Errorf("%v", names)
	}
	_, _, _, err = Ensure(t.Context(), "debian-99", cache, nil)
	if f, ok := errors.AsType[*fault.Error](err); !ok || !strings.Contains(f.Hint, "debian-12-slim") {
		t.Error(err)
	}
}

// TestReal makes both images from Debian's archive: a minute, and network.
func TestReal(t *testing.T) {
	cache := os.Getenv("DAYFLY_TEST_BASEIMAGES")
	if cache == "" {
		t.Skip("set DAYFLY_TEST_BASEIMAGES to a cache directory to make real images")
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil || os.Geteuid() != 0 {
		t.Skip("it needs mmdebstrap and root")
	}
	for _, name := range Names() {
		begun := time.Now()
		p, boot, digest, err := Ensure(t.Context(), name, cache, func(s string) { t.Log(name, s) })
		if err != nil {
			t.Fatal(err)
		}
		t.Log(p, boot, digest, time.Since(begun))
		f, err := os.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files := map[string]*tar.Header{}
		for r := tar.NewReader(f); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			n := strings.TrimPrefix(h.Name, ".")
			files[n] = h
			if n == "/etc/apt/sources.list" {
				if b, _ := io.ReadAll(r); string(b) != inside {
					t.Errorf("sources.list is %s", b)
				}
			}
			for _, bad := range []string{"/etc/ssh/ssh_host_", "/usr/share/man/man", "/usr/share/locale/de/", "/var/lib/apt/lists/deb", "/var/cache/apt/archives/a"} {
				if strings.HasPrefix(n, bad) {
					t.Errorf("%s: %s", name, n)
				}
			}
		}
		for _, bad := range []string{"/etc/hostname", "/etc/resolv.conf", "/var/lib/dbus/machine-id"} {
			if files[bad] != nil {
				t.Errorf("%s has %s", name, bad)
			}
		}
		for _, want := range []string{"/usr/bin/curl", "/etc/ssl/certs/ca-certificates.crt"} {
			if files[want] == nil {
				t.Errorf("%s lacks %s", name, want)
			}
		}
		if id := files["/etc/machine-id"]; boot == hypervisor.BootSystemd && (id == nil || id.Size != 0) {
			t.Errorf("%s: machine-id %+v", name, id)
		}
		if init := files["/sbin/init"]; (init != nil || files["/usr/sbin/init"] != nil) != (boot == hypervisor.BootSystemd) {
			t.Errorf("%s: init %+v", name, init)
		}
	}
}
