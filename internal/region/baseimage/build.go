package baseimage

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

// dpkgOptions leave out what Debian's slim images leave out. They stay in the
// image, so that what is baked later is as small.
var dpkgOptions = []string{
	"path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright",
	"path-exclude=/usr/share/doc-base/*", "path-exclude=/usr/share/groff/*", "path-exclude=/usr/share/info/*",
	"path-exclude=/usr/share/linda/*", "path-exclude=/usr/share/lintian/*", "path-exclude=/usr/share/man/*",
	"path-exclude=/usr/share/locale/*", "path-include=/usr/share/locale/locale.alias",
}

// inside is the image's own /etc/apt/sources.list, whatever this host uses.
const inside = `deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main
`

// customize runs with the root directory as $1 when all packages are in. What
// differs by machine is not in an image: no host name, resolver, keys, logs.
const customize = `set -eu
rm -f "$1"/etc/resolv.conf "$1"/etc/hostname "$1"/etc/ssh/ssh_host_* "$1"/var/lib/dbus/machine-id "$1"/var/lib/systemd/random-seed
if [ -e "$1"/etc/machine-id ] || [ -e "$1"/lib/systemd/systemd ]; then : > "$1"/etc/machine-id; fi
rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/apt/sources.list.d/* "$1"/var/log/*.log "$1"/var/log/apt/* "$1"/var/cache/ldconfig/aux-cache
printf 'Acquire::Languages "none";\n' > "$1"/etc/apt/apt.conf.d/90small
`

// epoch is the newest time that files get: the same packages are then the same bytes.
const epoch = "SOURCE_DATE_EPOCH=1735689600"

func build(ctx context.Context, name string, r recipe, src sources, cacheDir, base string, progress func(string)) (meta, error) {
	program, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return meta{}, &fault.Error{Kind: fault.Invalid, Op: "base image", Object: name, Message: "mmdebstrap is missing", Hint: "apt-get install mmdebstrap", Err: err}
	}
	dir, err := os.MkdirTemp(cacheDir, ".build-"+name+"_*")
	if err != nil {
		return meta{}, err
	}
	defer os.RemoveAll(dir)
	// Apt downloads as its own user, which must get through.
	if err := os.Chmod(dir, 0o755); err != nil {
		return meta{}, err
	}
	hook := filepath.Join(dir, "customize")
	list := filepath.Join(dir, "sources.list")
	out := filepath.Join(dir, "root.tar")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\n"+customize), 0o755); err != nil {
		return meta{}, err
	}
	if err := os.WriteFile(list, []byte(inside), 0o644); err != nil {
		return meta{}, err
	}
	args := []string{"--variant=minbase", "--format=tar", "--include=" + strings.Join(r.packages, ",")}
	for _, o := range dpkgOptions {
		args = append(args, "--dpkgopt="+o)
	}
	for _, o := range append(slices.Clone(src.options), `APT::Install-Recommends "false"`, `Acquire::Languages "none"`, `Acquire::Retries "3"`) {
		args = append(args, "--aptopt="+o)
	}
	if r.boot == hypervisor.BootSystemd {
		// As on Debian's cloud images: nothing but what is in the list is enabled by a preset.
		args = append(args, "--customize-hook=chroot \"$1\" systemctl set-default multi-user.target")
	}
	args = append(args, "--customize-hook="+hook, "--customize-hook=copy-in "+list+" /etc/apt", suite, out, "-")
	c := exec.CommandContext(ctx, program, args...)
	c.Dir = dir
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "LC_ALL=C.UTF-8", epoch}
	for _, k := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if v := os.Getenv(k); v != "" {
			c.Env = append(c.Env, k+"="+v)
		}
	}
	c.Stdin = strings.NewReader(strings.Join(src.lines, "\n") + "\n")
	// A group of its own, so that an interruption reaches apt and dpkg too; and
	// mmdebstrap cleans up when it is asked to end.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	pr, pw := io.Pipe()
	c.Stdout, c.Stderr = pw, pw
	said := make(chan string, 1)
	go func() { said <- follow(pr, progress) }()
	progress("mmdebstrap of " + suite + " with " + strings.Join(r.packages, ", "))
	err = c.Run()
	if c.Process != nil {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // whatever did not listen
	}
	_ = pw.Close()
	end := <-said
	if ctx.Err() != nil {
		return meta{}, ctx.Err()
	}
	if err != nil {
		return meta{}, &fault.Error{Kind: fault.Failed, Op: "base image", Object: name, Message: "mmdebstrap fails: " + end, Hint: "is Debian's archive reachable from here? " + src.lines[0], Err: err}
	}
	m, err := publish(out, base, cacheDir, name)
	if err == nil {
		progress(fmt.Sprintf("made, %d MiB", m.Bytes>>20))
	}
	return m, err
}

// follow passes mmdebstrap's steps on and returns its last errors.
func follow(r io.Reader, progress func(string)) string {
	var errs, lines []string
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		switch {
		case strings.HasPrefix(line, "I: "):
			progress(strings.TrimPrefix(line, "I: "))
		case strings.HasPrefix(line, "E: ") || strings.HasPrefix(line, "Err:"):
			errs = append(errs, line)
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	_, _ = io.Copy(io.Discard, r)
	if len(errs) == 0 {
		errs = lines
	}
	return strings.Join(errs[max(0, len(errs)-3):], "; ")
}
