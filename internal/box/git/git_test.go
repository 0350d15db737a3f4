package git

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
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
	b := New(address, t.TempDir(), nil)
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
	b := New(address, t.TempDir(), nil)
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
	if _, err := New("git+file:///nowhere/shop.git", t.TempDir(), nil).Resolve(t.Context(), "latest"); fault.KindOf(err) != fault.Unavailable || !strings.Contains(fault.HintOf(err), "ls-remote") {
		t.Errorf("no repository gave %v", err)
	}
	// ext:: runs a command: no blueprint may name one.
	if _, err := New("git+ext::sh -c 'touch owned'", t.TempDir(), nil).Resolve(t.Context(), "latest"); err == nil || !strings.Contains(err.Error(), "not allowed") {
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
	b := New(address, t.TempDir(), nil)
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

// Git asks the address that was looked at, no other that its name may have
// then, and nobody that it is sent to.
func TestGuarded(t *testing.T) {
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	t.Setenv("GIT_SSL_NO_VERIFY", "1")
	for _, v := range []string{"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"} {
		t.Setenv(v, "")
	}
	var strangers, asked atomic.Int32
	trap := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strangers.Add(1) }))
	defer trap.Close()
	var to atomic.Pointer[string] // where it sends people away to
	id := strings.Repeat("ab", 20)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch {
		case to.Load() != nil:
			http.Redirect(w, r, *to.Load()+r.URL.Path+"?"+r.URL.RawQuery, http.StatusFound)
		case r.URL.Path == "/shop.git/info/refs":
			_, _ = io.WriteString(w, id+"\trefs/heads/main\n")
		case r.URL.Path == "/shop.git/HEAD":
			_, _ = io.WriteString(w, "ref: refs/heads/main\n")
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	at := func(ips []netip.Addr, err error) Guard {
		return func(_ context.Context, u *url.URL) ([]netip.Addr, error) {
			if u.Host != "git.invalid:"+port && u.Scheme == "https" {
				t.Errorf("asked for %s", u)
			}
			return ips, err
		}
	}
	home := []netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("127.0.0.1")}
	b := New("git+https://git.invalid:"+port+"/shop.git", t.TempDir(), at(home, nil))
	a, err := b.Resolve(t.Context(), "main")
	if err != nil || !strings.HasSuffix(a.URL, "#"+id) {
		t.Fatalf("%+v %v", a, err)
	}
	to.Store(&trap.URL)
	if a, err := b.Resolve(t.Context(), "main"); err == nil || strangers.Load() != 0 {
		t.Errorf("it was sent away: %+v %v, %d times", a, err, strangers.Load())
	}
	to.Store(nil)
	before := asked.Load()
	b.guard = at(nil, &fault.Error{Kind: fault.Denied, Message: "never", Hint: "allow it"})
	_, err = b.Resolve(t.Context(), "main")
	_, open := b.Open(t.Context(), a)
	for _, err := range []error{err, open} {
		if fault.KindOf(err) != fault.Denied || fault.HintOf(err) != "allow it" || asked.Load() != before {
			t.Errorf("%v, %d requests", err, asked.Load()-before)
		}
	}
	b.guard = at(nil, errors.New("no such host"))
	if _, err := b.Resolve(t.Context(), "main"); fault.KindOf(err) != fault.Unavailable || asked.Load() != before {
		t.Errorf("%v, %d requests", err, asked.Load()-before)
	}
}
