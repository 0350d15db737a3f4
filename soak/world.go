package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
	"github.com/dayfly-infra/dayfly/soak/load"
)

// name of the environment.
const (
	purpose = "production"
	name    = "shop-" + purpose
)

// world is a region, a server, a box and a shop.
type world struct {
	plan
	root, dir, bin, shop, box string
	listen, address, netns    string // of the box
	env                       []string
	boxd                      *exec.Cmd
	api, admin                *client.Client
	cloud                     *cloud.Driver
	random                    *rand.Rand
	load                      *load.Load
	begun                     time.Time
	lasted                    time.Duration // of the load
	asked                     load.Summary
	faults                    map[int]bool // generations that were bad on purpose
	version                   string       // of the last good release

	mu      sync.Mutex // for all below
	notes   []note
	samples []sample
	kills   []kill
	met     []span // a bad release had traffic
	killed  map[string]bool
	figures []figure
	stopped chan struct{}
	watched sync.WaitGroup
	lives   []instance.Instance
}

// note is a line of the timeline.
type note struct {
	At   time.Time
	Kind string // of the line's colour: planned, fault, result
	Text string
}

// sample is the fleet at one moment.
type sample struct {
	At      time.Time
	Healthy int
	Seen    bool // false: the region did not answer
}

// kill is the moments within which instances were killed.
type kill struct {
	From, To time.Time
	What     string
	Whole    time.Duration // until the fleet was whole again; 0 = not seen
}

type span struct{ from, to time.Time }

type figure struct {
	Name    string
	Seconds []float64
}

func (w *world) say(kind, format string, a ...any) {
	n := note{time.Now(), kind, fmt.Sprintf(format, a...)}
	w.mu.Lock()
	w.notes = append(w.notes, n)
	w.mu.Unlock()
	at := "      "
	if !w.begun.IsZero() {
		at = fmt.Sprintf("%5.0fs", n.At.Sub(w.begun).Seconds())
	}
	fmt.Println(at, n.Text)
}

func (w *world) took(name string, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.figures {
		if w.figures[i].Name == name {
			w.figures[i].Seconds = append(w.figures[i].Seconds, d.Seconds())
			return
		}
	}
	w.figures = append(w.figures, figure{name, []float64{d.Seconds()}})
}

// dayfly runs the binary and returns all that it printed.
func (w *world) dayfly(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, w.bin, args...)
	cmd.Env = w.env
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("dayfly %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), err
}

func (w *world) json(ctx context.Context, v any, args ...string) error {
	cmd := exec.CommandContext(ctx, w.bin, append([]string{"--output", "json"}, args...)...)
	cmd.Env = w.env
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, v)
	}
	if err != nil {
		return fmt.Errorf("dayfly %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// open starts everything in a folder of its own.
func open(ctx context.Context, root string, p plan) (w *world, err error) {
	dir, err := os.MkdirTemp("/var/lib", "dayfly-soak-")
	if err != nil {
		return nil, err
	}
	w = &world{plan: p, root: root, dir: dir, bin: filepath.Join(root, "bin/dayfly"), shop: filepath.Join(dir, "shop"), box: filepath.Join(dir, "box/shop"),
		random: rand.New(rand.NewPCG(p.Seed, 0)), killed: map[string]bool{}, faults: map[int]bool{}, version: "1.0.0"}
	w.env = append(os.Environ(), "DAYFLY_STATE="+dir+"/server", "DAYFLY_REGION_DIR="+dir+"/region")
	w.api, w.admin = client.New(dir+"/server/server.sock"), client.New(dir+"/region/admin.sock")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return w, err
	}
	w.listen = l.Addr().String()
	l.Close()
	w.say("planned", "start a region and a server")
	if err := w.start(ctx, "region"); err != nil {
		return w, err
	}
	var vars map[string]string
	if err := w.json(ctx, &vars, "region", "env"); err != nil {
		return w, err
	}
	for k, v := range vars {
		w.env = append(w.env, k+"="+v)
		if err := os.Setenv(k, v); err != nil { // for our own look at the region
			return w, err
		}
	}
	if err := w.start(ctx, "server"); err != nil {
		return w, err
	}
	var host struct{ NetNS, Address string }
	if err := w.json(ctx, &host, "region", "host", "add", "box"); err != nil {
		return w, err
	}
	w.address, w.netns = host.Address, host.NetNS
	if err := w.blueprint(); err != nil {
		return w, err
	}
	if out, err := exec.CommandContext(ctx, filepath.Join(root, "examples/shop/app/release.sh"), "1.0.0", w.box).CombinedOutput(); err != nil {
		return w, fmt.Errorf("make the first release: %w: %s", err, out)
	}
	if err := w.openBox(); err != nil {
		return w, err
	}
	st, err := sqlite.Open(ctx, ":memory:", clock.Real{})
	if err != nil {
		return w, err
	}
	var s server.Status
	if err := w.api.Get(ctx, "/v1/status", nil, &s); err != nil {
		return w, err
	}
	w.cloud, err = cloud.New(ctx, cloud.Config{Endpoint: "http://" + w.listen, Owner: s.Owner, Store: st})
	return w, err
}

func (w *world) start(ctx context.Context, daemon string) error {
	args := []string{daemon, "start"}
	if daemon == "region" {
		args = append(args, "--listen", w.listen, "--base", "debian-12-slim")
	}
	_, err := w.dayfly(ctx, args...)
	return err
}

// kill9 kills a daemon and starts it again after a moment.
func (w *world) kill9(ctx context.Context, daemon string) error {
	raw, err := os.ReadFile(filepath.Join(w.dir, daemon, daemon+".pid"))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return err
	}
	w.say("fault", "kill -9 the %s (process %d)", daemon, pid)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	begun := time.Now()
	if err := w.start(ctx, daemon); err != nil {
		return err
	}
	w.took("the "+daemon+" is back after kill -9", time.Since(begun))
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func until(ctx context.Context, limit time.Duration, f func() error) error {
	end := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("after %s: %w", limit, err)
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

func (w *world) openBox() error {
	w.boxd = exec.Command("nsenter", "--net="+w.netns, w.bin, "box", "serve", filepath.Dir(w.box), "--address", w.address+":80")
	w.boxd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to pass on
	if err := w.boxd.Start(); err != nil {
		return err
	}
	return until(context.Background(), 5*time.Second, func() error {
		c, err := net.DialTimeout("tcp", w.address+":80", time.Second)
		if err == nil {
			c.Close()
		}
		return err
	})
}

func (w *world) shutBox() {
	if w.boxd != nil {
		_ = w.boxd.Process.Kill()
		_ = w.boxd.Wait()
		w.boxd = nil
	}
}

// close ends everything that was started here.
func (w *world) close() error {
	w.shutBox()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if w.cloud == nil {
		_, _ = w.dayfly(ctx, "server", "stop")
		_, _ = w.dayfly(ctx, "region", "stop", "--force")
		return os.RemoveAll(w.dir)
	}
	for _, log := range []string{"server/server.log", "region/region.log"} {
		raw, err := os.ReadFile(filepath.Join(w.dir, log))
		if err == nil {
			_ = os.WriteFile(filepath.Join(w.Dir, "soak-"+filepath.Base(log)), raw, 0o600)
		}
	}
	if _, err := w.dayfly(ctx, "server", "stop"); err != nil {
		return err
	}
	if _, err := w.dayfly(ctx, "region", "stop", "--force"); err != nil {
		return err
	}
	if out, err := w.dayfly(ctx, "region", "leftovers"); err != nil || strings.TrimSpace(out) != "" {
		return fmt.Errorf("left on this machine: %w: %s", err, out)
	}
	return os.RemoveAll(w.dir)
}

// environment and its generations, as the server has them.
func (w *world) look(ctx context.Context) (e environment.Environment, gs []environment.Generation, err error) {
	if e, err = client.One[environment.Environment](ctx, w.api, "environments", name); err != nil {
		return e, nil, err
	}
	gs, err = client.List[environment.Generation](ctx, w.api, "generations", name+"/")
	return e, gs, err
}

func (w *world) killInstance(ctx context.Context, id string) error {
	return w.admin.Post(ctx, "/kill", url.Values{"instance": {id}}, nil, nil)
}
