// Package e2e runs the real binaries on a region of its own: the bad days of
// bakes and deploys, kill -9 at bad moments, independent AWS clients. It needs
// root, and bin/ as `make build` makes it; -short leaves it out.
package e2e

import (
	"context"
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
	"syscall"
	"testing"
	"time"
)

// world is a region, a server, a box and a blueprint.
type world struct {
	t      *testing.T
	dir    string
	dayfly string
	env    []string
	box    string // folder
	addr   string // of the box
	ns     string
	serve  *exec.Cmd
	shop   string
	listen string
}

func TestEverythingReal(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	if os.Geteuid() != 0 {
		t.Skip("real instances need root")
	}
	w := setup(t)
	t.Run("bake", w.bake)
	if t.Failed() {
		return // nothing else can work
	}
	t.Run("deploy", w.deploy)
	t.Run("aws clients", w.clients)
	t.Run("instances that are touched, kept, asked for, unhealthy", w.heal)
	t.Run("a deploy script that fails", func(t *testing.T) {
		w.release(t, "2.0.0", "echo no disk left on /srv >&2; exit 7", true)
		w.failing(t, "exit code 7", "no disk left on /srv")
	})
	t.Run("a deploy script that hangs", func(t *testing.T) {
		w.release(t, "2.1.0", "sleep 600", true)
		w.failing(t, "deadline")
	})
	t.Run("a release that does not serve", func(t *testing.T) {
		w.release(t, "2.2.0", "rm bin/shop; printf '#!/bin/sh\\nsleep 600\\n' >bin/shop; chmod 755 bin/shop", true)
		w.failing(t, "ready")
	})
	t.Run("a box whose bytes are not what it says", w.wrongDigest)
	t.Run("a box that goes away after the release was resolved", w.mirror)
	t.Run("a box that is cut off on purpose", w.boxCut)
	t.Run("a box that is down", w.boxDown)
	t.Run("server killed during a deploy", func(t *testing.T) { w.killed(t, "server", "4.0.0") })
	t.Run("region killed during a deploy", func(t *testing.T) { w.killed(t, "region", "4.1.0") })
	t.Run("interrupted", w.interrupted)
	t.Run("a machine that cannot run a region", w.refused)
	t.Run("dead instances are replaced with the server stopped", w.replace)
	t.Run("a load balancer that dies", w.balancer)
	t.Run("Puppet code that fails", w.brokenPuppet)
	t.Run("a template that is wrong", w.brokenTemplate)
	t.Run("server killed during a bake", w.killedBake)
	t.Run("nothing is left", w.nothingLeft)
}

func setup(t *testing.T) *world {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/var/lib", "dayfly-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, dayfly: filepath.Join(root, "bin/dayfly"), box: filepath.Join(dir, "box/shop"), shop: filepath.Join(dir, "shop")}
	if _, err := os.Stat(w.dayfly); err != nil {
		t.Fatal("bin/dayfly is not there: make build")
	}
	w.env = append(os.Environ(), "DAYFLY_STATE="+dir+"/server", "DAYFLY_REGION_DIR="+dir+"/region")
	t.Cleanup(func() {
		if w.serve != nil {
			_ = w.serve.Process.Kill()
			_ = w.serve.Wait()
		}
		w.try("server", "stop")
		if out, err := w.try("region", "stop", "--force"); err != nil {
			t.Errorf("region stop: %v: %s", err, out)
		}
		out, err := w.try("region", "leftovers")
		if err != nil || strings.TrimSpace(out) != "" {
			t.Errorf("left on this machine: %v: %s", err, out)
		}
		if t.Failed() {
			for _, f := range []string{"server/server.log", "region/region.log"} {
				raw, _ := os.ReadFile(filepath.Join(dir, f))
				t.Logf("the end of %s:\n%s", f, raw[max(0, len(raw)-4000):])
			}
		}
		_ = os.RemoveAll(dir)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.listen = l.Addr().String()
	l.Close()
	w.must(t, "region", "start", "--listen", w.listen, "--base", "debian-12-slim")
	var vars map[string]string
	w.json(t, &vars, "region", "env")
	for k, v := range vars {
		w.env = append(w.env, k+"="+v)
	}
	// Every image of these tests is signed, and no other is launched.
	key := filepath.Join(dir, "signing.key")
	w.run(t, root, "openssl", "genpkey", "-algorithm", "ed25519", "-out", key)
	w.run(t, root, "chmod", "600", key)
	w.env = append(w.env, "DAYFLY_SIGNING_KEY="+key, "DAYFLY_REQUIRE_ATTESTATION=true", "DAYFLY_CHAOS=1")
	w.must(t, "server", "start")
	var host struct{ NetNS, Address string }
	w.json(t, &host, "region", "host", "add", "box")
	w.addr, w.ns = host.Address, host.NetNS
	w.run(t, root, "cp", "-r", filepath.Join(root, "examples/shop"), w.shop)
	if err := os.RemoveAll(filepath.Join(w.shop, "app")); err != nil {
		t.Fatal(err)
	}
	// The deploy script runs what the release brings, so that one image serves
	// all cases; ten seconds are enough for each of them.
	w.edit(t, "deploy/deploy", "    chmod 755 \"$tmp/tree\"\n", "    chmod 755 \"$tmp/tree\"\n    [ ! -e \"$tmp/tree/hook\" ] || (cd \"$tmp/tree\" && sh -eu ./hook)\n")
	w.edit(t, "dayfly.yaml", "http://100.64.0.9/shop", "http://"+w.addr+"/shop")
	w.edit(t, "dayfly.yaml", "deadline: 2m", "deadline: 10s")
	w.edit(t, "dayfly.yaml", "  verify:", "  keep_failed: 0s\n  verify:")
	w.run(t, root, filepath.Join(root, "examples/shop/app/release.sh"), "1.0.0", w.box)
	w.open(t)
	return w
}

// open starts the box.
func (w *world) open(t *testing.T) {
	t.Helper()
	w.serve = exec.Command("nsenter", "--net="+w.ns, w.dayfly, "box", "serve", filepath.Dir(w.box), "--address", w.addr+":80")
	if err := w.serve.Start(); err != nil {
		t.Fatal(err)
	}
	w.until(t, 5*time.Second, func() error { _, err := fetch("http://" + w.addr + "/shop/LATEST"); return err })
}

func (w *world) shut() {
	_ = w.serve.Process.Kill()
	_ = w.serve.Wait()
	w.serve = nil
}

func (w *world) run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, w.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// try runs dayfly and returns all that it printed.
func (w *world) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
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

// fails runs dayfly, which must end with the exit code and say all the words.
func (w *world) fails(t *testing.T, code int, words []string, args ...string) {
	t.Helper()
	out, err := w.try(args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code {
		t.Fatalf("dayfly %s ended with %v instead of exit code %d\n%s", strings.Join(args, " "), err, code, out)
	}
	for _, word := range words {
		if !strings.Contains(out, word) {
			t.Errorf("dayfly %s does not say %q:\n%s", strings.Join(args, " "), word, out)
		}
	}
}

func (w *world) edit(t *testing.T, file, from, to string) {
	t.Helper()
	p := filepath.Join(w.shop, file)
	raw, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), from) {
		t.Fatalf("%s does not hold %q", file, from)
	}
	st, err := os.Stat(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(strings.Replace(string(raw), from, to, 1)), st.Mode()); err != nil {
		t.Fatal(err)
	}
}

// release puts a release into the box: that of 1.0.0 with another version, and
// what the deploy script runs.
func (w *world) release(t *testing.T, version, hook string, sums bool) {
	t.Helper()
	script := fmt.Sprintf(`set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
tar -xzf shop-1.0.0.tar.gz -C "$tmp"
echo %[1]s >"$tmp/VERSION"
cat >"$tmp/hook" <<'HOOK'
%[2]s
HOOK
tar -C "$tmp" -czf shop-%[1]s.tar.gz .
echo shop-%[1]s.tar.gz >LATEST
`, version, hook)
	if sums {
		script += "sha256sum *.tar.gz >SHA256SUMS\n"
	}
	w.run(t, w.box, "sh", "-c", script)
}

type environment struct {
	Phase, Address, Error string
	Serving, Want         int
	Blocker               *struct{ Rule, Message string }
}

func (w *world) show(t *testing.T) environment {
	t.Helper()
	var v struct{ Environment environment }
	w.json(t, &v, "env", "show", "shop-small")
	return v.Environment
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
		time.Sleep(100 * time.Millisecond)
	}
}

var web = &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func fetch(url string) (string, error) {
	res, err := web.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, raw)
	}
	return string(raw), err
}

// serves checks which release answers.
func (w *world) serves(t *testing.T, version string) {
	t.Helper()
	e := w.show(t)
	for range 10 {
		got, err := fetch(e.Address + "/version")
		if err != nil || !strings.Contains(got, strconv.Quote(version)) {
			t.Fatalf("%s answers %q, %v; want %s", e.Address, got, err, version)
		}
	}
}

func (w *world) kill(t *testing.T, daemon string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(w.dir, daemon, daemon+".pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func (w *world) restart(t *testing.T, daemon string) {
	t.Helper()
	if daemon == "region" {
		w.must(t, "region", "start", "--listen", w.listen, "--base", "debian-12-slim")
	} else {
		w.must(t, "server", "start")
	}
}
