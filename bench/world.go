package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

const (
	instances = 45
	version   = "1.0.0" // of the release
	slim      = "debian-12-slim"
	full      = "debian-12"
	fleet     = "shop-dev" // the environment
)

// world is what a person has who uses Dayfly on one machine: a region, a
// server, a box, a blueprint and its image.
type world struct {
	s      *session
	dayfly string
	env    []string
	listen string
	bases  []string
	boxDir string // releases, to serve
	shop   string // the blueprint
	image  baked
	cloud  *cloud.Driver
	keep   []string // images that stay for the next run
}

type baked struct {
	Cached     bool
	Image, AMI string
	Steps      []struct {
		Step    string
		Seconds float64
	}
}

func newWorld(ctx context.Context, s *session) (*world, error) {
	dayfly, err := filepath.Abs("bin/dayfly")
	if err != nil {
		return nil, err
	}
	w := &world{s: s, dayfly: dayfly, bases: []string{slim}, boxDir: filepath.Join(s.dir, "box"), shop: filepath.Join(s.dir, "shop")}
	w.env = append(os.Environ(), "DAYFLY_STATE="+home+"/server", "DAYFLY_REGION_DIR="+home+"/region")
	s.cleanup(w.end)
	s.say("starting region and server")
	// What an interrupted run left.
	for _, args := range [][]string{{"server", "stop"}, {"region", "stop", "--force"}} {
		if err := w.cli(ctx, nil, args...); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w.listen = l.Addr().String()
	l.Close()
	if err := w.region(ctx); err != nil {
		return nil, err
	}
	if err := w.cli(ctx, nil, "server", "start", fmt.Sprint("--test-launching=", instances*runtime.NumCPU())); err != nil {
		return nil, err
	}
	if err := w.destroyAll(ctx); err != nil {
		return nil, err
	}
	if err := w.prepare(ctx); err != nil {
		return nil, err
	}
	s.say("baking the image, unless it is there")
	if w.image, err = w.bake(ctx, w.shop); err != nil {
		return nil, err
	}
	s.say("image %s, from an earlier run: %v", w.image.Image, w.image.Cached)
	w.keep = append(w.keep, w.image.Image)
	return w, nil
}

// region starts the region with the bases that are wanted so far.
func (w *world) region(ctx context.Context) error {
	args := []string{"region", "start", "--listen", w.listen}
	for _, b := range w.bases {
		args = append(args, "--base", b)
	}
	if err := w.cli(ctx, nil, args...); err != nil {
		return err
	}
	if w.cloud != nil {
		return nil
	}
	var vars map[string]string
	if err := w.cli(ctx, &vars, "region", "env"); err != nil {
		return err
	}
	for k, v := range vars {
		w.env = append(w.env, k+"="+v)
		if err := os.Setenv(k, v); err != nil { // the driver reads them, and the peers shall not have them
			return err
		}
		defer os.Unsetenv(k)
	}
	// Reading alone, so no intent is ever written to this store.
	st, err := sqlite.Open(ctx, filepath.Join(w.s.dir, "intents.db"), clock.Real{})
	if err != nil {
		return err
	}
	w.s.cleanup(st.Close)
	w.cloud, err = cloud.New(ctx, cloud.Config{Owner: "bench", Store: st})
	return err
}

// with starts the region again with one more base image.
func (w *world) with(ctx context.Context, base string) error {
	if slices.Contains(w.bases, base) {
		return nil
	}
	w.bases = append(w.bases, base)
	if err := w.cli(ctx, nil, "region", "stop", "--keep"); err != nil {
		return err
	}
	return w.region(ctx)
}

// prepare puts a release into a box on the region's internet and the blueprint
// with the box's address beside it.
func (w *world) prepare(ctx context.Context) error {
	box := filepath.Join(w.boxDir, "shop")
	if _, err := run(ctx, "examples/shop/app/release.sh", version, box); err != nil {
		return err
	}
	// Launches are compared, and not gunzip: it took half of each peer's time.
	const plain = `cd "$0" && gunzip *.gz && sha256sum *.tar >SHA256SUMS && ls *.tar >LATEST`
	if _, err := run(ctx, "sh", "-c", plain, box); err != nil {
		return err
	}
	var host struct{ NetNS, Address string }
	if err := w.cli(ctx, &host, "region", "host", "add", "box"); err != nil {
		return err
	}
	if err := w.s.serveBox(ctx, w.dayfly, w.boxDir, host.NetNS, host.Address); err != nil {
		return err
	}
	return w.blueprint(ctx, w.shop, func(text string) string {
		return strings.Replace(text, "http://100.64.0.9/shop", "http://"+host.Address+"/shop", 1)
	})
}

// blueprint copies the demo's and changes its dayfly.yaml.
func (w *world) blueprint(ctx context.Context, dir string, change func(string) string) error {
	from := "examples/shop"
	if w.shop != dir {
		from = w.shop
	}
	if _, err := run(ctx, "cp", "-r", from, dir); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(dir, "app")); err != nil { // not part of it
		return err
	}
	if err := edit(filepath.Join(dir, "dayfly.yaml"), change); err != nil {
		return err
	}
	return w.cli(ctx, nil, "check", dir)
}

// edit changes a file; a change that changes nothing is an error.
func edit(file string, change func(string) string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := change(string(raw))
	if text == string(raw) {
		return fmt.Errorf("%s has not what the benchmark replaces", file)
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// serveBox serves a folder of releases at an address of this host, or of a
// network namespace.
func (s *session) serveBox(ctx context.Context, dayfly, dir, netns, address string) error {
	argv := []string{dayfly, "box", "serve", dir, "--address", address + ":80"}
	if netns != "" {
		argv = append([]string{"nsenter", "--net=" + netns}, argv...)
	}
	if err := s.daemon("box-"+address, argv, nil); err != nil {
		return err
	}
	return until(ctx, 10*time.Second, 20*time.Millisecond, func() error { _, err := get(ctx, "http://"+address+"/shop/LATEST"); return err })
}

// daemon starts a process that lives until the session's end, with its log and
// its number in a folder of its own below the run's, which is in its command
// line: so an interrupted run's can be told from anybody else's.
func (s *session) daemon(name string, argv, env []string) error {
	dir := filepath.Join(s.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := command(context.Background(), argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	s.cleanup(func() error {
		err := endProcess(cmd.Process.Pid, 30*time.Second)
		<-done
		return err
	})
	return os.WriteFile(filepath.Join(dir, pidName), fmt.Appendln(nil, cmd.Process.Pid), 0o600)
}

// cli runs dayfly and reads its JSON answer into v.
func (w *world) cli(ctx context.Context, v any, args ...string) error {
	cmd := command(ctx, w.dayfly, append([]string{"--output", "json"}, args...)...)
	cmd.Env = w.env
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(said.String())
		return fmt.Errorf("dayfly %s: %w: %s", strings.Join(args, " "), err, text[max(0, len(text)-2000):])
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal([]byte(out.String()), v); err != nil {
		return fmt.Errorf("dayfly %s: its answer cannot be read: %w", strings.Join(args, " "), err)
	}
	return nil
}

func (w *world) bake(ctx context.Context, dir string) (baked, error) {
	var b baked
	return b, w.cli(ctx, &b, "bake", dir)
}

// destroyAll ends what an interrupted run left in the records.
func (w *world) destroyAll(ctx context.Context) error {
	var es []struct{ Name string }
	if err := w.cli(ctx, &es, "env", "list"); err != nil {
		return err
	}
	for _, e := range es {
		if err := w.cli(ctx, nil, "env", "destroy", e.Name); err != nil {
			return err
		}
	}
	return nil
}

// end stops everything and looks for what is left of it.
func (w *world) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	var errs []error
	if w.cloud != nil {
		errs = append(errs, w.destroyAll(ctx), w.removeImages(ctx))
		_ = w.cli(ctx, nil, "region", "host", "rm", "box") // stop takes it down as well
	}
	errs = append(errs, w.cli(ctx, nil, "server", "stop"), w.cli(ctx, nil, "region", "stop", "--force"))
	var left []string
	errs = append(errs, w.cli(ctx, &left, "region", "leftovers"))
	if len(left) > 0 {
		errs = append(errs, fmt.Errorf("left behind: %s", strings.Join(left, ", ")))
	}
	return errors.Join(errs...)
}

// removeImages removes all images but those that the next run can use again.
func (w *world) removeImages(ctx context.Context) error {
	if len(w.keep) == 0 {
		return nil // nothing is known of them
	}
	var is []struct{ Name, Parent string }
	if err := w.cli(ctx, &is, "images", "list"); err != nil {
		return err
	}
	for _, i := range is {
		// One per base: the last that was used.
		if slices.Contains(w.keep, i.Name) || !slices.ContainsFunc(is, func(k struct{ Name, Parent string }) bool {
			return k.Parent == i.Parent && slices.Contains(w.keep, k.Name)
		}) {
			continue
		}
		if err := w.cli(ctx, nil, "images", "rm", i.Name); err != nil {
			return err
		}
	}
	return nil
}

// lowers are an image's layers, the highest first, as overlayfs wants them.
func (w *world) lowers(ami string) ([]string, error) {
	ls, err := w.layers(ami)
	var out []string
	for _, l := range slices.Backward(ls) {
		out = append(out, filepath.Join(home, "region/hypervisor/layers", strings.Replace(l.Digest, ":", "-", 1)))
	}
	return out, err
}

// fatal is an error that no repetition mends.
type fatal struct{ error }

// until repeats f until it succeeds or the time is over.
func until(ctx context.Context, limit, pause time.Duration, f func() error) error {
	end := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return nil
		}
		if f, ok := err.(fatal); ok {
			return f.error
		}
		if time.Now().After(end) {
			return fmt.Errorf("after %s: %w", limit, err)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

var web = &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := web.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", url, res.Status)
	}
	return string(raw), err
}

// who asks the shop which release it is and on which instance.
func who(ctx context.Context, address string) (instance string, err error) {
	raw, err := get(ctx, address+"/version")
	if err != nil {
		return "", err
	}
	var v struct{ Version, Instance string }
	if err := json.Unmarshal([]byte(raw), &v); err != nil {
		return "", err
	}
	if v.Version != version {
		return "", fmt.Errorf("%s serves release %q instead of %s", address, v.Version, version)
	}
	return v.Instance, nil
}
