// Package browser opens the console in Debian's Chromium and Firefox, on a real server over
// a simulated region. It needs no root; -short leaves it out.
package browser

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestConsole(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	for _, p := range []string{"node", "npm", "chromium"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed: scripts/deps.sh browser", p)
		}
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "dayfly-browser-") // sockets want short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	run := func(where string, env []string, name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Env = where, append(os.Environ(), env...)
		out, err := cmd.Output()
		if err != nil {
			said := ""
			if e, ok := err.(*exec.ExitError); ok {
				said = string(e.Stderr)
			}
			t.Fatalf("%s %s: %v\n%s\n%s", name, strings.Join(args, " "), err, out, said)
		}
		return string(out)
	}
	if _, err := os.Stat(filepath.Join(root, "web/node_modules/playwright-core")); err != nil {
		install := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error")
		install.Dir = filepath.Join(root, "web")
		if out, err := install.CombinedOutput(); err != nil {
			t.Skipf("npm cannot install what drives the browser, so the console was NOT tested: %v\n%s", err, out)
		}
	}
	run(root, []string{"CGO_ENABLED=0"}, "go", "build", "-buildvcs=false", "-o", dir+"/bin/", "./cmd/dayfly", "./cmd/dayfly-agent", "./cmd/dayfly-probe")
	env := []string{"DAYFLY_STATE=" + dir + "/server", "DAYFLY_REGION_DIR=" + dir + "/region"}
	dayfly := func(args ...string) string {
		t.Helper()
		return run(dir, env, dir+"/bin/dayfly", args...)
	}
	t.Cleanup(func() {
		for _, args := range [][]string{{"server", "stop"}, {"region", "stop", "--force"}} {
			cmd := exec.Command(dir+"/bin/dayfly", args...)
			cmd.Env = append(os.Environ(), env...)
			_ = cmd.Run()
		}
		if t.Failed() {
			raw, _ := os.ReadFile(dir + "/server/server.log")
			t.Logf("the end of server.log:\n%s", raw[max(0, len(raw)-4000):])
		}
	})
	address := free(t)
	dayfly("region", "start", "--simulate", "--listen", free(t))
	var aws map[string]string
	if err := json.Unmarshal([]byte(dayfly("region", "env", "--output", "json")), &aws); err != nil {
		t.Fatal(err)
	}
	for k, v := range aws {
		env = append(env, k+"="+v)
	}
	dayfly("server", "start", "--listen", address)
	dayfly("init", dir+"/shop")
	dayfly("deploy", dir+"/shop", "dev")
	// What is under way, as a terminal shows it, of a real server.
	if top := dayfly("top", "--once"); !strings.Contains(top, "1 environments, 3 healthy instances") || !strings.Contains(top, "shop-dev") {
		t.Errorf("dayfly top: %s", top)
	}
	drive := func(t *testing.T, script string, given map[string]any) {
		t.Helper()
		raw, err := json.Marshal(given)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), filepath.Join(root, "web/node_modules/.bin/node"), filepath.Join(root, "web/test", script), "http://"+address, filepath.Join(root, "build/console"))
		cmd.Env = append(os.Environ(), env...)
		cmd.Stdin = bytes.NewReader(raw)
		cmd.WaitDelay = 5 * time.Second
		out, err := cmd.CombinedOutput()
		t.Logf("%s: %s", script, out)
		if err != nil {
			t.Fatal(script, err)
		}
	}
	trim := func(args ...string) string { return strings.TrimSpace(dayfly(args...)) }
	t.Run("look", func(t *testing.T) {
		dayfly("test", dir+"/shop")
		drive(t, "console.mjs", map[string]any{"link": trim("console"), "viewer": trim("token", "create", "--name", "looker", "--role", "viewer"), "environment": "shop-dev"})
	})
	t.Run("firefox", func(t *testing.T) {
		if _, err := exec.LookPath("firefox-esr"); err != nil {
			t.Skip("firefox-esr is not installed, so the console was NOT tested with it: scripts/deps.sh browser")
		}
		var r struct{ Name string }
		if err := json.Unmarshal([]byte(dayfly("test", dir+"/shop", "--output", "json")), &r); err != nil {
			t.Fatal(err)
		}
		drive(t, "firefox.mjs", map[string]any{"dayfly": dir + "/bin/dayfly", "environment": "shop-dev", "run": r.Name})
	})
	t.Run("gate", func(t *testing.T) {
		// Gates that the team's own commands decide; the second one closes.
		dayfly("init", dir+"/gated")
		for name, text := range map[string]string{"ready.sh": "#!/bin/sh\n", "closed.sh": "#!/bin/sh\n# simulated: exit 3\n"} {
			if err := os.MkdirAll(dir+"/gated/gates", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir+"/gated/gates/"+name, []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		raw, err := os.ReadFile(dir + "/gated/dayfly.yaml")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/gated/dayfly.yaml", append(raw, commands...), 0o644); err != nil {
			t.Fatal(err)
		}
		var r struct{ Name string }
		if err := json.Unmarshal([]byte(dayfly("run", "start", dir+"/gated", "--detach", "--output", "json")), &r); err != nil {
			t.Fatal(err)
		}
		drive(t, "gate.mjs", map[string]any{"viewer": trim("token", "create", "--name", "passer-by", "--role", "viewer"), "run": r.Name, "environment": "gated-dev"})
	})
	t.Run("decide", func(t *testing.T) {
		// A second release to go back from, and a run for people to decide.
		run(dir+"/shop/box", nil, "sh", "release.sh", "1.1.0")
		dayfly("redeploy", "shop-dev")
		file := dir + "/shop/dayfly.yaml"
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(raw, people...), 0o644); err != nil {
			t.Fatal(err)
		}
		var r struct{ Name string }
		if err := json.Unmarshal([]byte(dayfly("run", "start", dir+"/shop", "--detach", "--output", "json")), &r); err != nil {
			t.Fatal(err)
		}
		given := map[string]any{"run": r.Name, "environment": "shop-dev", "artifacts": []string{"shop-1.0.0.tar.gz", "shop-1.1.0.tar.gz"}}
		for name, role := range map[string]string{"ann": "deployer", "ben": "deployer", "olga": "operator"} {
			given[name] = trim("token", "create", "--name", name, "--role", role)
		}
		drive(t, "decide.mjs", given)
	})
}

// people is what a pipeline asks of people.
const people = `  - stage: look
    required: false
    suites:
      - name: orders
        manual: { steps: [log in, place an order], checklist: [the order is listed, a mail came] }
        size: 3
        lease: 1h
      - { name: mail, manual: "look into the inbox", size: 3, lease: 1h }
  - stage: approve
    gate: { by: [ann] }
  - stage: last
    gate: { by: [ann] }
`

// commands decide a pipeline.
const commands = `  - stage: ship
    deploy: dev
  - stage: ready
    gate: { command: gates/ready.sh, timeout: 2m }
  - stage: closed
    gate: { command: gates/closed.sh, timeout: 2m }
`

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
