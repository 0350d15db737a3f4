// Package baseimage makes the root file systems that the region's base images
// start from, with mmdebstrap and from Debian's archive, and keeps them in a
// cache. It knows Debian; it must not know hypervisors' insides or EC2.
//
//	debian-12       systemd as PID 1, as on Debian's cloud images; without cloud-init
//	                and sshd, since the region's guest runs user data and commands
//	debian-12-slim  no init: the region's guest is PID 1
package baseimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

// recipeVersion changes when the same inputs shall give another image.
const recipeVersion = "1"

const suite = "bookworm"

type recipe struct {
	boot     hypervisor.Boot
	packages []string
}

var recipes = map[string]recipe{
	"debian-12": {hypervisor.BootSystemd, []string{
		"ca-certificates", "curl", "dbus", "gzip", "iproute2", "procps", "systemd", "systemd-sysv", "tar"}},
	"debian-12-slim": {hypervisor.BootGuest, []string{
		"ca-certificates", "curl", "gzip", "iproute2", "procps", "tar"}},
}

// Names of the base images.
func Names() []string { return slices.Sorted(maps.Keys(recipes)) }

// meta lies beside a cached archive.
type meta struct {
	Digest string    `json:"digest"` // sha256:… of the archive
	Bytes  int64     `json:"bytes"`
	Made   time.Time `json:"made"`
}

// Ensure returns the archive of a base image, made now if the cache has none
// for these inputs (package list, recipe, suite, mirrors). Several processes
// may ask at once: one makes it. Progress hears what is being done; it may be
// nil.
func Ensure(ctx context.Context, name, cacheDir string, progress func(string)) (tarPath string, boot hypervisor.Boot, digest string, err error) {
	return ensure(ctx, name, cacheDir, progress, false)
}

// Refresh is Ensure that takes the archive's packages as they are today even
// if the cache has an image.
func Refresh(ctx context.Context, name, cacheDir string, progress func(string)) (tarPath string, boot hypervisor.Boot, digest string, err error) {
	return ensure(ctx, name, cacheDir, progress, true)
}

func ensure(ctx context.Context, name, cacheDir string, progress func(string), refresh bool) (string, hypervisor.Boot, string, error) {
	r, ok := recipes[name]
	if !ok {
		return "", "", "", &fault.Error{Kind: fault.Invalid, Op: "base image", Object: name, Message: "there is no base image of this name", Hint: "the names are " + strings.Join(Names(), ", ")}
	}
	if progress == nil {
		progress = func(string) {}
	}
	fail := func(err error) (string, hypervisor.Boot, string, error) {
		if _, ok := errors.AsType[*fault.Error](err); ok || ctx.Err() != nil {
			return "", "", "", err
		}
		return "", "", "", &fault.Error{Kind: fault.Failed, Op: "base image", Object: name, Message: "it cannot be made", Err: err}
	}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return fail(err)
	}
	src := hostSources()
	base := filepath.Join(cacheDir, name+"-"+inputs(name, r, src)[:16])
	unlock, err := lock(ctx, filepath.Join(cacheDir, "."+name+".lock"), progress)
	if err != nil {
		return fail(err)
	}
	defer unlock()
	sweep(cacheDir, name)
	if m, err := cached(base); err == nil && !refresh {
		return base + ".tar", r.boot, m.Digest, nil
	}
	m, err := build(ctx, name, r, src, cacheDir, base, progress)
	if err != nil {
		return fail(err)
	}
	return base + ".tar", r.boot, m.Digest, nil
}

func inputs(name string, r recipe, src sources) string {
	h := sha256.New()
	fmt.Fprintln(h, recipeVersion, name, suite, runtime.GOARCH, r.boot)
	fmt.Fprintln(h, strings.Join(r.packages, " "))
	fmt.Fprintln(h, strings.Join(src.lines, "\n"))
	fmt.Fprint(h, strings.Join(dpkgOptions, "\n"), customize, inside)
	return hex.EncodeToString(h.Sum(nil))
}

func cached(base string) (meta, error) {
	var m meta
	b, err := os.ReadFile(base + ".json")
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, err
	}
	i, err := os.Stat(base + ".tar")
	if err != nil {
		return m, err
	}
	if i.Size() != m.Bytes {
		return m, fmt.Errorf("%s.tar has %d bytes, not %d", base, i.Size(), m.Bytes)
	}
	return m, nil
}

// lock waits for the right to make name; the right ends with this process.
func lock(ctx context.Context, path string, progress func(string)) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for told := false; ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, err
		}
		if !told {
			progress("another process makes it: waiting")
			told = true
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// sweep removes what interrupted builds of name left; the lock is held.
func sweep(cacheDir, name string) {
	left, _ := filepath.Glob(filepath.Join(cacheDir, ".build-"+name+"_*"))
	for _, d := range left {
		_ = os.RemoveAll(d)
	}
}

// publish makes a finished archive the cache's, and removes older ones.
func publish(tmp, base, cacheDir, name string) (meta, error) {
	f, err := os.Open(tmp)
	if err != nil {
		return meta{}, err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return meta{}, err
	}
	m := meta{Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Bytes: n, Made: time.Now().UTC()}
	b, err := json.Marshal(m)
	if err != nil {
		return meta{}, err
	}
	// Without its meta an archive does not count: remove, replace, write.
	if err := os.Remove(base + ".json"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return meta{}, err
	}
	if err := os.Rename(tmp, base+".tar"); err != nil {
		return meta{}, err
	}
	if err := os.WriteFile(tmp+".json", append(b, '\n'), 0o644); err != nil {
		return meta{}, err
	}
	if err := os.Rename(tmp+".json", base+".json"); err != nil {
		return meta{}, err
	}
	old, _ := filepath.Glob(filepath.Join(cacheDir, name+"-????????????????.*"))
	for _, p := range old {
		if !strings.HasPrefix(p, base+".") {
			_ = os.Remove(p)
		}
	}
	return m, nil
}
