package git

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/box"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

// repository has two commits on main, a branch and two kinds of tags.
func repository(t *testing.T) (address string, run func(args ...string) string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	dir := filepath.Join(t.TempDir(), "shop.git")
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	run = func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@b.example"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run("init", "--quiet", "-b", "main")
	for _, v := range []string{"1", "2"} {
		if err := os.WriteFile(filepath.Join(dir, "version"), []byte(v), 0o644); err != nil {
			t.Fatal(err)
		}
		run("add", "version")
		run("commit", "--quiet", "-m", "version "+v)
		run("tag", "-a", "-m", "v"+v, "v"+v)
		run("tag", "light-"+v)
	}
	run("branch", "release/1", "v1")
	run("config", "uploadpack.allowAnySHA1InWant", "true") // as forges allow
	return "git+file://" + dir, run
}

func TestResolveAndRead(t *testing.T) {
	address, run := repository(t)
	one, two := run("rev-parse", "v1^{commit}"), run("rev-parse", "main")
	b := New(address, t.TempDir())
	for follow, want := range map[string]string{
		"latest": two, "": two, "main": two, "v1": one, "light-1": one, "light-2": two, "release/1": one, one: one,
	} {
		a, err := b.Resolve(t.Context(), follow)
		if err != nil {
			t.Fatalf("%s: %v", follow, err)
		}
		if a.Name != "shop-"+want[:12]+".tar.gz" || a.URL != address+"#"+want {
			t.Errorf("%q gave %+v, want commit %s", follow, a, want)
		}
	}
	a, err := b.Resolve(t.Context(), "v1")
	if err != nil {
		t.Fatal(err)
	}
	first, again := content(t, b, a), content(t, b, a)
	if string(first) != string(again) {
		t.Error("the same commit gave other bytes")
	}
	if got := unpack(t, first)["version"]; got != "1" {
		t.Errorf("version is %q", got)
	}
	if left, _ := os.ReadDir(b.tmp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func content(t *testing.T, b *Box, a box.Artifact) []byte {
	t.Helper()
	r, err := b.Open(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return raw
}

func unpack(t *testing.T, raw []byte) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(body)
	}
}

func TestWhatIsNotThere(t *testing.T) {
	address, _ := repository(t)
	b := New(address, t.TempDir())
	if _, err := b.Resolve(t.Context(), "v3"); fault.KindOf(err) != fault.NotFound || fault.HintOf(err) == "" {
		t.Errorf("an unknown tag gave %v", err)
	}
	if _, err := b.Open(t.Context(), box.Artifact{Name: "missing"}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a missing artifact gave %v", err)
	}
	gone := box.Artifact{Name: "shop", URL: address + "#" + strings.Repeat("0", 40)}
	if _, err := b.Open(t.Context(), gone); fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "git failed: ") {
		t.Errorf("an unknown commit gave %v", err)
	}
	if _, err := New("git+file:///nowhere/shop.git", t.TempDir()).Resolve(t.Context(), "latest"); fault.KindOf(err) != fault.Unavailable || !strings.Contains(fault.HintOf(err), "ls-remote") {
		t.Errorf("no repository gave %v", err)
	}
	// ext:: runs a command: no blueprint may name one.
	if _, err := New("git+ext::sh -c 'touch owned'", t.TempDir()).Resolve(t.Context(), "latest"); err == nil || !strings.Contains(err.Error(), "not allowed") {
		t.Errorf("a transport that runs commands gave %v", err)
	}
	if left, _ := os.ReadDir(b.tmp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// An archive that breaks off is an error at its end, never a short release.
func TestArchiveThatBreaksOff(t *testing.T) {
	address, run := repository(t)
	// More than a pipe holds, and nothing that gzip makes small.
	large := make([]byte, 4<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(large)
	if err := os.WriteFile(filepath.Join(strings.TrimPrefix(address, "git+file://"), "large"), large, 0o644); err != nil {
		t.Fatal(err)
	}
	run("add", "large")
	run("commit", "--quiet", "-m", "large")
	b := New(address, t.TempDir())
	a, err := b.Resolve(t.Context(), "latest")
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Open(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.(*reader).cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if raw, err := io.ReadAll(r); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("%d bytes of an archive that broke off were taken for a release: %v", len(raw), err)
	}
}

func FuzzPick(f *testing.F) {
	f.Add("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\trefs/tags/v1\nbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\trefs/tags/v1^{}\n")
	f.Fuzz(func(t *testing.T, listing string) {
		if id := pick([]byte(listing), []string{"refs/heads/v1", "refs/tags/v1", "refs/tags/v1^{}"}); id != "" && !commit.MatchString(id) {
			t.Errorf("%q is no commit", id)
		}
	})
}
