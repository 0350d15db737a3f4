// Package browser opens the console in Debian's Chromium, on a real server over
// a simulated region. It needs no root; -short leaves it out.
package browser

import (
	"encoding/json"
	"fmt"
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
	dayfly("test", dir+"/shop")
	links := fmt.Sprintf(`{"deployer": %q, "viewer": %q, "environment": "shop-dev"}`, strings.TrimSpace(dayfly("console")), strings.TrimSpace(dayfly("console", "--role", "viewer")))
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "web/node_modules/.bin/node"), filepath.Join(root, "web/test/console.mjs"), "http://"+address, filepath.Join(root, "build/console"))
	cmd.Stdin = strings.NewReader(links)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
