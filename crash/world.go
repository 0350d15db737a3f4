package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

// world is a region and a server, both processes of their own, and the proxy
// between them. The server dies and comes back, the region stays.
type world struct {
	dir, bin, shop string
	env            []string
	proxy          *proxy
	region         *exec.Cmd // nil where it is a daemon, with real instances
	real           bool
	api, admin     *client.Client
	store          store.Store
	cloud          *cloud.Driver // looks past the proxy
	nonce          int

	mu     sync.Mutex // for all below
	server *exec.Cmd
	dead   bool
	died   int
}

func free() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// open starts everything in a folder of its own.
func open(ctx context.Context, root, dir string, real bool) (w *world, err error) {
	w = &world{real: real, dir: dir, bin: filepath.Join(root, "bin/dayfly"), shop: filepath.Join(dir, "shop")}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	listen, err := free()
	if err != nil {
		return w, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return w, err
	}
	if real {
		err = w.run("--region-dir", dir+"/region", "region", "start", "--listen", listen, "--base", "debian-12-slim")
	} else {
		w.region, err = w.daemon("region", "--region-dir", dir+"/region", "region", "run", "--simulate", "--boot", "20ms", "--listen", listen, "--base", "debian-12-slim")
	}
	if err != nil {
		return w, err
	}
	w.admin = client.New(dir + "/region/admin.sock")
	if err := until(ctx, 30*time.Second, func() error { return w.admin.Get(ctx, "/status", nil, nil) }); err != nil {
		return w, fmt.Errorf("the region does not start: %w", err)
	}
	if w.proxy, err = newProxy(listen); err != nil {
		return w, err
	}
	out, err := exec.Command(w.bin, "--region-dir", dir+"/region", "region", "env").Output()
	if err != nil {
		return w, err
	}
	for line := range strings.Lines(string(out)) {
		k, v, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		v = strings.Trim(v, `'"`)
		if err := os.Setenv(k, v); err != nil { // of this process too, for its own look at the region
			return w, err
		}
	}
	w.env = append(os.Environ(), "AWS_ENDPOINT_URL=http://"+w.proxy.listen.Addr().String())
	w.api = client.New(dir + "/server/server.sock")
	if err := w.blueprint(root); err != nil {
		return w, err
	}
	if err := w.start(ctx); err != nil {
		return w, err
	}
	if w.store, err = sqlite.Open(ctx, ":memory:", clock.Real{}); err != nil {
		return w, err
	}
	var st server.Status
	if err := w.api.Get(ctx, "/v1/status", nil, &st); err != nil {
		return w, err
	}
	w.cloud, err = cloud.New(ctx, cloud.Config{Endpoint: "http://" + listen, Owner: st.Owner, Store: w.store})
	return w, err
}

// daemon starts one of our programs with its log in a file.
func (w *world) daemon(name string, args ...string) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(w.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(w.bin, args...)
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, w.env
	return cmd, cmd.Start()
}

// start starts the server, for the first time or after its death.
func (w *world) start(ctx context.Context) error {
	cmd, err := w.daemon("server", "--state", w.dir+"/server", "server", "run")
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.server, w.dead = cmd, false
	w.mu.Unlock()
	if err := until(ctx, 30*time.Second, func() error { return w.api.Get(ctx, "/v1/status", nil, nil) }); err != nil {
		return fmt.Errorf("the server does not start: %w", err)
	}
	return nil
}

// kill is SIGKILL, and waits until the process is gone.
func (w *world) kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead || w.server == nil {
		return
	}
	_ = w.server.Process.Signal(syscall.SIGKILL)
	_ = w.server.Wait()
	w.dead = true
	w.died++
}

// revive starts the server again where it is dead.
func (w *world) revive(ctx context.Context) error {
	w.mu.Lock()
	dead := w.dead
	w.mu.Unlock()
	if !dead {
		return nil
	}
	return w.start(ctx)
}

// run runs one of our commands to its end.
func (w *world) run(args ...string) error {
	if out, err := exec.Command(w.bin, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("dayfly %s: %w: %.2000s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (w *world) close() (err error) {
	w.kill()
	if w.store != nil {
		w.store.Close()
	}
	if w.region != nil && w.region.Process != nil {
		_ = w.region.Process.Signal(syscall.SIGKILL)
		_ = w.region.Wait()
	}
	if w.proxy != nil {
		_ = w.proxy.listen.Close()
	}
	if w.real {
		err = w.run("--region-dir", w.dir+"/region", "region", "stop", "--force")
	}
	return err
}

// pause is between two looks; the server takes 50 requests a second.
var pause = 15 * time.Millisecond

// until repeats f until it returns nil.
func until(ctx context.Context, limit time.Duration, f func() error) error {
	for end := time.Now().Add(limit); ; {
		err := f()
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if time.Now().After(end) {
			return fmt.Errorf("after %s: %w", limit, err)
		}
		time.Sleep(pause)
	}
}

// blueprint makes a small shop whose box is a folder.
func (w *world) blueprint(root string) error {
	if err := os.CopyFS(w.shop, os.DirFS(filepath.Join(root, "examples/shop"))); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(w.shop, "app")); err != nil {
		return err
	}
	box := filepath.Join(w.dir, "box")
	if err := os.MkdirAll(box, 0o700); err != nil {
		return err
	}
	if w.real {
		if out, err := exec.Command(filepath.Join(root, "examples/shop/app/release.sh"), "1", box).CombinedOutput(); err != nil {
			return fmt.Errorf("release: %w: %s", err, out)
		}
		return w.edit(box)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	t := tar.NewWriter(z)
	if err := errors.Join(t.WriteHeader(&tar.Header{Name: "VERSION", Mode: 0o644, Size: 2}), err2(t.Write([]byte("1\n"))), t.Close(), z.Close()); err != nil {
		return err
	}
	for name, body := range map[string]string{
		"shop-1.tar.gz": b.String(), "LATEST": "shop-1.tar.gz\n", "SHA256SUMS": fmt.Sprintf("%x  shop-1.tar.gz\n", sha256.Sum256(b.Bytes())),
	} {
		if err := os.WriteFile(filepath.Join(box, name), []byte(body), 0o600); err != nil {
			return err
		}
	}
	return w.edit(box)
}

// suites are those that hold on one instance.
const suites = `pipeline:
  - stage: check
    suites:
      - { name: health, run: suites/health.sh, size: 1, timeout: 2m }
      - { name: version, run: suites/version.sh, size: 1, timeout: 2m }
`

// edit makes the blueprint small and points it to the box.
func (w *world) edit(box string) error {
	for file, edits := range map[string][]string{
		"dayfly.yaml": {"http://100.64.0.9/shop", "file://" + box, "size: 3", "size: 1"},
		"fleet.yaml":  {"HealthyThresholdCount: 2", "HealthyThresholdCount: 2", "Value: \"5\"", "Value: \"0\""},
	} {
		p := filepath.Join(w.shop, file)
		raw, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		text := strings.NewReplacer(edits...).Replace(string(raw))
		if body, _, found := strings.Cut(text, "pipeline:"); found && w.real {
			text = body + suites
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func err2(_ int, err error) error { return err }

// send sends the blueprint; a new nonce makes another image of it.
func (w *world) send(ctx context.Context, fresh bool) (string, error) {
	p := filepath.Join(w.shop, "puppet/nonce.txt")
	if fresh {
		w.nonce++
		if err := os.WriteFile(p, []byte(fmt.Sprint(w.nonce)), 0o600); err != nil {
			return "", err
		}
	} else if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var b bytes.Buffer
	if _, err := blueprint.Pack(os.DirFS(w.shop), &b); err != nil {
		return "", err
	}
	var got server.Blueprint
	err := w.api.Post(ctx, "/v1/blueprints", nil, &b, &got)
	return got.Digest, err
}
