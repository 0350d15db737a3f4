package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	blueGreen = "{ strategy: blue-green, steps: [1, 10, 50, 100], pause: 2s, check: deploy/check }, soak: 8s"
	longSoak  = "{ strategy: blue-green, steps: [50, 100], pause: 1s, check: deploy/check }, soak: 10m"
	rolling   = "{ strategy: rolling, steps: [25, 50, 75, 100], pause: 2s, check: deploy/check }, soak: 5s"
	recreate  = "recreate"
)

// blueprint is the shop's, with an environment that survives a lost zone.
func (w *world) blueprint() error {
	if out, err := exec.Command("cp", "-r", filepath.Join(w.root, "examples/shop"), w.shop).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the blueprint: %w: %s", err, out)
	}
	if err := os.RemoveAll(filepath.Join(w.shop, "app")); err != nil {
		return err
	}
	check := "#!/bin/sh\nset -eu\ncurl -fsS -X POST -d '{\"item\": \"lamp\", \"count\": 1}' http://127.0.0.1:8080/orders\n"
	if err := os.WriteFile(filepath.Join(w.shop, "deploy/check"), []byte(check), 0o755); err != nil {
		return err
	}
	// What a release brings is run, so that a bad one can be made of a good one.
	for _, e := range [][3]string{
		{"deploy/deploy", "    chmod 755 \"$tmp/tree\"\n", "    chmod 755 \"$tmp/tree\"\n    [ ! -e \"$tmp/tree/hook\" ] || (cd \"$tmp/tree\" && sh -eu ./hook)\n"},
		{"dayfly.yaml", "http://100.64.0.9/shop", "http://" + w.address + "/shop"},
		{"dayfly.yaml", "  small: { size: 3, lease: 2h }", standing(w.Instances, blueGreen) + "\n  " + crowd + fmt.Sprintf(": { size: %d, lease: 4h, replace: recreate }", 2*w.Instances)},
		// Long requests are to end before a target goes.
		{"fleet.yaml", `deregistration_delay.timeout_seconds, Value: "5"`, `deregistration_delay.timeout_seconds, Value: "10"`},
	} {
		if err := w.edit(e[0], e[1], e[2]); err != nil {
			return err
		}
	}
	return nil
}

func standing(size int, replace string) string {
	return fmt.Sprintf("  %s: { size: %d, zones: 3, survive: 1 zone, lease: standing, replace: %s }", purpose, size, replace)
}

// strategy changes how the environment is deployed.
func (w *world) strategy(to string) error {
	p := filepath.Join(w.shop, "dayfly.yaml")
	raw, err := os.ReadFile(p)
	if err != nil {
		return err
	}
	lines := strings.Split(string(raw), "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "  "+purpose+":") {
			lines[i] = standing(w.Instances, to)
		}
	}
	return os.WriteFile(p, []byte(strings.Join(lines, "\n")), 0o644)
}

func (w *world) edit(file, from, to string) error {
	p := filepath.Join(w.shop, file)
	raw, err := os.ReadFile(p)
	if err != nil {
		return err
	}
	if !strings.Contains(string(raw), from) {
		return fmt.Errorf("%s does not hold %q", file, from)
	}
	st, err := os.Stat(p)
	if err != nil {
		return err
	}
	return os.WriteFile(p, []byte(strings.Replace(string(raw), from, to, 1)), st.Mode())
}

// release puts a release into the box: that of 1.0.0 with another version, and
// what the deploy script runs.
func (w *world) release(version, hook string) error {
	script := fmt.Sprintf(`set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
tar -xzf shop-1.0.0.tar.gz -C "$tmp"
echo %[1]s >"$tmp/VERSION"
cat >"$tmp/hook" <<'HOOK'
%[2]s
HOOK
tar -C "$tmp" -czf shop-%[1]s.tar.gz .
echo shop-%[1]s.tar.gz >LATEST
sha256sum *.tar.gz >SHA256SUMS
`, version, hook)
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = w.box
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make release %s: %w: %s", version, err, out)
	}
	return nil
}

// back makes a release the most recent one again.
func (w *world) back(version string) error {
	return os.WriteFile(filepath.Join(w.box, "LATEST"), []byte("shop-"+version+".tar.gz\n"), 0o644)
}

const puppetFile = "puppet/manifests/site.pp"

// puppet writes the node's Puppet code; more is put into it.
func (w *world) puppet(more string) error {
	text := "node default {\n  include shop\n" + more + "}\n"
	return os.WriteFile(filepath.Join(w.shop, puppetFile), []byte(text), 0o644)
}

func (w *world) goodImage(n int) error {
	return w.puppet(fmt.Sprintf("  file { '/etc/soak': content => \"image %d at %d\\n\" }\n", n, time.Now().Unix()))
}

// badImage passes its checks, and no release can be unpacked on it.
func (w *world) badImage() error {
	return w.puppet("  file { '/usr/local/bin/tar': mode => '0755', content => \"#!/bin/sh\\necho tar is broken >&2\\nexit 1\\n\" }\n")
}
