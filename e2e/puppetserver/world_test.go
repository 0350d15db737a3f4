package puppetserver

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// world is a region, a server, a box, and a Puppet server that runs in it.
type world struct {
	root   string // of the source tree
	dir    string
	dayfly string
	env    []string
	listen string
	ns     string // network namespace of the box
	box    string // its address
	serve  *exec.Cmd

	address string // of the Puppet server's load balancer
	master  string // its instance
	owner   string // the installation's tag
	image   string // the Puppet server's
	client  *http.Client
}

func setup(t *testing.T) *world {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{root: root, dayfly: filepath.Join(root, "bin/dayfly")}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if host, port, err := net.SplitHostPort(address); err == nil && host == serverName {
			address = net.JoinHostPort(w.address, port)
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	// It is asked what anybody may ask, whoever it is.
	w.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for _, b := range []string{"dayfly", "dayfly-autosign"} {
		if _, err := os.Stat(filepath.Join(root, "bin", b)); err != nil {
			t.Fatalf("bin/%s is not there: make build", b)
		}
	}
	// Images are kept for the next run where base images are.
	if cache := os.Getenv("DAYFLY_TEST_BASEIMAGES"); cache != "" {
		w.dir = filepath.Join(cache, "e2e-puppetserver")
	} else if w.dir, err = os.MkdirTemp("/var/lib", "dayfly-e2e-puppetserver-"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(w.dir, "box/control"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.close(t) })
	if err := w.begin(t); err != nil {
		// What an earlier run left cannot be used.
		t.Logf("from nothing: %v", err)
		_, _ = w.try("server", "stop")
		w.must(t, "region", "stop", "--force")
		if err := os.RemoveAll(w.dir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(w.dir, "box/control"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := w.begin(t); err != nil {
			t.Fatal(err)
		}
	}
	var host struct{ NetNS, Address string }
	w.json(t, &host, "region", "host", "add", "box")
	w.ns, w.box = host.NetNS, host.Address
	w.run(t, filepath.Join(root, "examples/puppetserver/control/release.sh"), version, filepath.Join(w.dir, "box/control"))
	w.run(t, filepath.Join(root, "examples/shop/app/release.sh"), "1.0.0", filepath.Join(w.dir, "box/shop"))
	w.serve = exec.Command("nsenter", "--net="+w.ns, w.dayfly, "box", "serve", filepath.Join(w.dir, "box"), "--address", w.box+":80")
	if err := w.serve.Start(); err != nil {
		t.Fatal(err)
	}
	w.until(t, 5*time.Second, func() error { _, err := w.get("http://" + w.box + "/control/VERSION"); return err })
	return w
}

// begin starts region and server, on what an earlier run has left: its images are
// meant to be there, all else goes.
func (w *world) begin(t *testing.T) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.listen = l.Addr().String()
	l.Close()
	w.env = append(os.Environ(), "DAYFLY_STATE="+w.dir+"/server", "DAYFLY_REGION_DIR="+w.dir+"/region")
	_, _ = w.try("server", "stop")
	for _, args := range [][]string{{"region", "stop", "--force"}, {"region", "start", "--listen", w.listen, "--base", "debian-12,debian-12-slim"}} {
		if out, err := w.try(args...); err != nil {
			return fmt.Errorf("%v: %w: %s", args, err, out)
		}
	}
	var vars map[string]string
	w.json(t, &vars, "region", "env")
	for k, v := range vars {
		w.env = append(w.env, k+"="+v)
	}
	if out, err := w.try("server", "start"); err != nil {
		return fmt.Errorf("server start: %w: %s", err, out)
	}
	var es, bs []struct{ Name, Phase, Step string }
	w.json(t, &es, "env", "list")
	for _, e := range es {
		if e.Phase != "gone" {
			if out, err := w.try("env", "destroy", e.Name); err != nil {
				return fmt.Errorf("env destroy: %w: %s", err, out)
			}
		}
	}
	w.json(t, &bs, "bake", "list")
	for _, b := range bs {
		if b.Step != "done" {
			if out, err := w.try("bake", "drop", b.Name); err != nil {
				return fmt.Errorf("bake drop: %w: %s", err, out)
			}
		}
	}
	return nil
}

// close puts everything away but the Puppet server's image.
func (w *world) close(t *testing.T) {
	tidy := w.image != ""
	for _, e := range []string{"shop-small", "puppetserver-ca"} {
		if out, err := w.try("env", "destroy", e); err != nil && !strings.Contains(out, "no such environment") {
			t.Errorf("env destroy %s: %v: %s", e, err, out)
			tidy = false
		}
	}
	var images []struct{ Name string }
	if raw, err := w.try("--output", "json", "images"); err != nil || json.Unmarshal([]byte(raw), &images) != nil {
		tidy = false
	}
	for _, i := range images {
		if i.Name != w.image {
			if out, err := w.try("images", "rm", i.Name); err != nil {
				t.Errorf("images rm %s: %v: %s", i.Name, err, out)
				tidy = false
			}
		}
	}
	if w.serve != nil {
		_ = w.serve.Process.Kill()
		_ = w.serve.Wait()
	}
	_, _ = w.try("server", "stop")
	if out, err := w.try("region", "stop", "--force"); err != nil {
		t.Errorf("region stop: %v: %s", err, out)
	}
	if out, err := w.try("region", "leftovers"); err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("left on this machine: %v: %s", err, out)
	}
	if t.Failed() {
		for _, f := range []string{"server/server.log", "region/region.log"} {
			raw, _ := os.ReadFile(filepath.Join(w.dir, f))
			t.Logf("the end of %s:\n%s", f, raw[max(0, len(raw)-4000):])
		}
	}
	if os.Getenv("DAYFLY_TEST_BASEIMAGES") == "" || !tidy {
		_ = os.RemoveAll(w.dir)
	}
}

func (w *world) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = w.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// try runs dayfly and returns all that it printed.
func (w *world) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.dayfly, args...)
	cmd.Env = w.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (w *world) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.try(args...)
	if err != nil {
		t.Fatalf("dayfly %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (w *world) json(t *testing.T, v any, args ...string) {
	t.Helper()
	cmd := exec.Command(w.dayfly, append([]string{"--output", "json"}, args...)...)
	cmd.Env = w.env
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("dayfly %s: %v\n%s", strings.Join(args, " "), err, said.String())
	}
	if err := json.Unmarshal(out, v); err != nil {
		t.Fatalf("dayfly %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// aws calls Debian's client, with its own Python.
func (w *world) aws(t *testing.T, v any, args ...string) {
	t.Helper()
	out := w.run(t, "/usr/bin/python3", append([]string{"/usr/bin/aws", "--output", "json", "--endpoint-url", "http://" + w.listen}, args...)...)
	if v != nil {
		if err := json.Unmarshal([]byte(out), v); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
}

func (w *world) until(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %s: %v", limit, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func (w *world) get(url string) (string, error) {
	res, err := w.client.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, raw)
	}
	return string(raw), err
}

// inside runs a script in an instance's namespaces: Run Command would touch the
// instance, and Dayfly would replace it.
func (w *world) inside(instance, script string) (string, error) {
	pid, err := process(instance)
	if err != nil {
		return "", err
	}
	out, err := exec.Command("nsenter", "-t", strconv.Itoa(pid), "-m", "-u", "-i", "-n", "-p", "sh", "-c", script).CombinedOutput()
	return string(out), err
}

// process is one of an instance's, found by its control group.
func process(instance string) (int, error) {
	all, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return 0, err
	}
	least := 0
	for _, f := range all {
		raw, err := os.ReadFile(f)
		if err != nil || !strings.Contains(string(raw), "/"+instance) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil && (least == 0 || pid < least) {
			least = pid
		}
	}
	if least == 0 {
		return 0, errors.New("no process of " + instance + " runs")
	}
	return least, nil
}

// edit changes a line of a file.
func edit(t *testing.T, file, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), from) {
		t.Fatalf("%s does not hold %q", file, from)
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(raw), from, to)), 0o644); err != nil {
		t.Fatal(err)
	}
}
