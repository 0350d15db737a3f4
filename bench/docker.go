package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// docker is Debian's docker with a daemon of its own: folders, socket and
// bridge are the benchmark's, and nothing of it is left. It makes no packet
// filter rules, which its containers do not need and which would cost it time.
type docker struct {
	s       *session
	dir     string
	socket  string
	gateway netip.Addr
	api     *http.Client
}

const (
	dockerd       = "/usr/sbin/dockerd"
	dockerProgram = "/usr/bin/docker" // another one may come first in PATH
	dockerCgroup  = "dfbench-docker"
)

// docker starts the daemon, once for all groups.
func (s *session) docker(ctx context.Context) (*docker, error) {
	if s.dockerd != nil {
		return s.dockerd, nil
	}
	d, err := newDocker(ctx, s)
	if err == nil {
		s.dockerd = d
	}
	return d, err
}

func newDocker(ctx context.Context, s *session) (*docker, error) {
	s.say("starting docker's daemon")
	for _, p := range []string{dockerd, dockerProgram} {
		if _, err := os.Stat(p); err != nil {
			return nil, fmt.Errorf("%s is not there: scripts/deps.sh bench installs Debian's docker.io", p)
		}
	}
	bridge, gateway, err := s.addBridge(ctx, "docker")
	if err != nil {
		return nil, err
	}
	d := &docker{s: s, dir: filepath.Join(s.dir, "docker"), gateway: gateway.Addr()}
	d.socket = filepath.Join(d.dir, "sock")
	d.api = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", d.socket)
	}}}
	// It writes to /etc/docker and below /run whatever it is told: in a mount
	// namespace of its own these are elsewhere, and its mounts go with it.
	if err := os.Mkdir("/etc/docker", 0o755); err == nil {
		s.cleanup(func() error { return os.Remove("/etc/docker") })
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	s.cleanup(removeDockerCgroups)
	script := `set -e; mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /etc/docker; exec "$@"`
	argv := []string{"unshare", "--mount", "sh", "-c", script, "sh", dockerd,
		"--data-root", d.dir + "/data", "--exec-root", d.dir + "/exec", "--pidfile", d.dir + "/dockerd.pid", "--host", "unix://" + d.socket,
		"--bridge", bridge, "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false", "--userland-proxy=false",
		"--storage-driver", "overlay2", "--cgroup-parent", "/" + dockerCgroup, "--log-level", "error"}
	if err := s.daemon("docker", argv, nil); err != nil {
		return nil, err
	}
	s.cleanup(d.end)
	if err := until(ctx, time.Minute, 100*time.Millisecond, func() error { _, err := d.cli(ctx, "version"); return err }); err != nil {
		log, _ := os.ReadFile(filepath.Join(d.dir, "log"))
		return nil, fmt.Errorf("dockerd does not start: %w: %s", err, log)
	}
	return d, nil
}

func (d *docker) cli(ctx context.Context, args ...string) (string, error) {
	return run(ctx, dockerProgram, append([]string{"--host", "unix://" + d.socket}, args...)...)
}

// importImage makes a docker image of the union of layers.
func (d *docker) importImage(ctx context.Context, lowers []string, name string) error {
	root := filepath.Join(d.s.dir, "import")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	if len(lowers) == 1 { // overlayfs wants two
		lowers = append(lowers, root)
	}
	// In a mount namespace of its own, so that the mount ends with tar.
	script := `mount -t overlay -o "ro,lowerdir=$1" overlay "$2" && exec tar --xattrs --numeric-owner -C "$2" -c .`
	tar := exec.CommandContext(ctx, "unshare", "--mount", "sh", "-c", script, "sh", strings.Join(lowers, ":"), root)
	imp := command(ctx, dockerProgram, "--host", "unix://"+d.socket, "import", "-", name)
	var said strings.Builder
	imp.Stderr, tar.Stderr = &said, &said
	pipe, err := tar.StdoutPipe()
	if err != nil {
		return err
	}
	imp.Stdin = pipe
	if err := errors.Join(tar.Start(), imp.Start()); err != nil {
		return err
	}
	if err := errors.Join(imp.Wait(), tar.Wait()); err != nil {
		return fmt.Errorf("docker import: %w: %s", err, said.String())
	}
	return nil
}

// launch starts n containers, some at once, and returns when all have answered.
func (d *docker) launch(ctx context.Context, n, atOnce int, options []string, image string, argv []string) (time.Duration, error) {
	began := time.Now()
	errs := make([]error, n)
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			name := fmt.Sprintf("shop-%02d", i)
			args := append([]string{"run", "-d", "--name", name, "-e", "DAYFLY_INSTANCE_ID=" + name}, options...)
			_, errs[i] = d.cli(ctx, append(append(args, image), argv...)...)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	addresses, err := d.addresses(ctx)
	if err != nil {
		return 0, err
	}
	if len(addresses) != n {
		return 0, fmt.Errorf("%d of %d containers have an address", len(addresses), n)
	}
	err = answered(ctx, addresses)
	return time.Since(began), err
}

// addresses of all containers, in one request.
func (d *docker) addresses(ctx context.Context) ([]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/networks/bridge", nil)
	if err != nil {
		return nil, err
	}
	res, err := d.api.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var v struct {
		Containers map[string]struct{ IPv4Address string }
	}
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		return nil, err
	}
	var out []string
	for _, c := range v.Containers {
		p, err := netip.ParsePrefix(c.IPv4Address)
		if err != nil {
			return nil, err
		}
		out = append(out, "http://"+p.Addr().String()+":8080")
	}
	slices.Sort(out)
	return out, nil
}

// remove ends all containers in one command.
func (d *docker) remove(ctx context.Context) (time.Duration, error) {
	ids, err := d.cli(ctx, "ps", "-aq")
	if err != nil || ids == "" {
		return 0, err
	}
	began := time.Now()
	_, err = d.cli(ctx, append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
	return time.Since(began), err
}

func (d *docker) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := d.remove(ctx)
	return err
}

// answered returns when all addresses have answered. Each is asked no oftener
// than every 50 ms, so that asking costs nobody much.
func answered(ctx context.Context, addresses []string) error {
	left := slices.Clone(addresses)
	return until(ctx, 2*time.Minute, 50*time.Millisecond, func() error {
		var last error
		left = slices.DeleteFunc(left, func(a string) bool {
			_, err := who(ctx, a)
			if err != nil {
				last = err
			}
			return err == nil
		})
		if len(left) == 0 {
			return nil
		}
		return fmt.Errorf("%d of %d have not answered: %w", len(left), len(addresses), last)
	})
}

func removeDockerCgroups() error {
	var errs []error
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		dirs, err := filepath.Glob(filepath.Join(root, dockerCgroup))
		errs = append(errs, err)
		for _, d := range dirs {
			var all []string
			_ = filepath.WalkDir(d, func(p string, e fs.DirEntry, err error) error {
				if err == nil && e.IsDir() {
					all = append(all, p)
				}
				return nil
			})
			for _, p := range slices.Backward(all) {
				errs = append(errs, os.Remove(p))
			}
		}
	}
	return errors.Join(errs...)
}
