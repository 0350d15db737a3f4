package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func (w *world) bake(t *testing.T) {
	out := w.must(t, "bake", w.shop)
	if !strings.Contains(out, "checks passed") {
		t.Error(out)
	}
	began := time.Now()
	if out := w.must(t, "bake", w.shop); !strings.Contains(out, "is there already") {
		t.Error("unchanged inputs were baked again:", out)
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("the answer took %s", d)
	}
}

func (w *world) deploy(t *testing.T) {
	w.must(t, "deploy", w.shop, "small")
	w.serves(t, "1.0.0")
	w.must(t, "deploy", w.shop, "small") // the same again is a generation again
	w.serves(t, "1.0.0")
}

// clients looks at the region with independent AWS clients from Debian's packages.
func (w *world) clients(t *testing.T) {
	aws := "/usr/bin/aws"
	if _, err := os.Stat(aws); err != nil {
		t.Skip("Debian's awscli is not installed")
	}
	// What served before ends its requests first.
	w.until(t, time.Minute, w.alone(t))
	call := func(v any, args ...string) {
		t.Helper()
		// Its own Python, whatever else is in PATH.
		args = append([]string{aws, "--output", "json", "--endpoint-url", "http://" + w.listen}, args...)
		out := w.run(t, "/", "/usr/bin/python3", args...)
		if err := json.Unmarshal([]byte(out), v); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	var is struct {
		Reservations []struct {
			Instances []struct{ InstanceID, PrivateIPAddress string }
		}
	}
	call(&is, "ec2", "describe-instances", "--filters", "Name=tag:dayfly:environment,Values=shop-small", "Name=instance-state-name,Values=running")
	n := 0
	for _, r := range is.Reservations {
		n += len(r.Instances)
	}
	if n != 3 {
		t.Errorf("awscli sees %d instances, want 3", n)
	}
	var st struct {
		Stacks []struct{ StackName, StackStatus string }
	}
	call(&st, "cloudformation", "describe-stacks")
	if len(st.Stacks) != 2 {
		t.Errorf("awscli sees %d stacks, want 2: %v", len(st.Stacks), st.Stacks)
	}
	var p struct{ Parameter struct{ Value string } }
	call(&p, "ssm", "get-parameter", "--name", "/aws/service/debian/release/12-slim/latest/amd64")
	if !strings.HasPrefix(p.Parameter.Value, "ami-") {
		t.Errorf("the base image is %q", p.Parameter.Value)
	}
	// Templates are plain CloudFormation.
	var v struct {
		Parameters []struct{ ParameterKey string }
	}
	call(&v, "cloudformation", "validate-template", "--template-body", "file://"+filepath.Join(w.shop, "fleet.yaml"))
	if len(v.Parameters) == 0 {
		t.Error("validate-template names no parameter")
	}
	out, err := exec.Command("/usr/bin/python3", aws, "--endpoint-url", "http://"+w.listen, "--region", "local-1", "ec2", "describe-instances").CombinedOutput()
	if err == nil {
		t.Errorf("a client without credentials was let in: %s", out)
	}
}

// failing deploys the release that is in the box: the deploy must fail with the
// words, and what served before goes on.
func (w *world) failing(t *testing.T, words ...string) {
	t.Helper()
	before := w.show(t)
	w.fails(t, 1, words, "deploy", w.shop, "small")
	if e := w.show(t); e.Serving != before.Serving || e.Phase != "serving" {
		t.Errorf("generation %d served and now %+v", before.Serving, e)
	}
	w.serves(t, "1.0.0")
}

func (w *world) wrongDigest(t *testing.T) {
	w.release(t, "3.0.0", "true", true)
	// Other bytes under the same name, after SHA256SUMS was made.
	if err := os.WriteFile(filepath.Join(w.box, "shop-3.0.0.tar.gz"), []byte("other bytes"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.fails(t, 1, []string{"the box says sha256:", "and its bytes have"}, "deploy", w.shop, "small")
	w.serves(t, "1.0.0")
}

func (w *world) mirror(t *testing.T) {
	w.release(t, "3.1.0", "true", true)
	w.must(t, "release", "resolve", w.shop)
	// LATEST still answers, the artifact does not: instances take the mirror.
	if err := os.Remove(filepath.Join(w.box, "shop-3.1.0.tar.gz")); err != nil {
		t.Fatal(err)
	}
	w.must(t, "deploy", w.shop, "small")
	w.serves(t, "3.1.0")
	w.release(t, "3.2.0", "true", true)
}

func (w *world) boxDown(t *testing.T) {
	w.shut()
	w.must(t, "deploy", w.shop, "small", "--detach")
	w.until(t, 20*time.Second, func() error {
		if b := w.show(t).Blocker; b == nil || b.Rule != "release-not-resolved" {
			return fmt.Errorf("the blocker is %+v", b)
		}
		return nil
	})
	if out := w.must(t, "why", "shop-small"); !strings.Contains(out, "the box does not answer") {
		t.Error(out)
	}
	w.serves(t, "3.1.0")
	w.open(t)
	w.until(t, time.Minute, func() error {
		if e := w.show(t); e.Blocker != nil || e.Want != e.Serving {
			return fmt.Errorf("%+v", e)
		}
		return nil
	})
	w.until(t, 30*time.Second, func() error {
		got, err := fetch(w.show(t).Address + "/version")
		if err != nil || !strings.Contains(got, "3.2.0") {
			return fmt.Errorf("%s: %v", got, err)
		}
		return nil
	})
}

func (w *world) killed(t *testing.T, daemon, version string) {
	w.release(t, version, "true", true)
	for i, pause := range []time.Duration{100 * time.Millisecond, 700 * time.Millisecond} {
		cmd := exec.Command(w.dayfly, "deploy", w.shop, "small")
		cmd.Env = w.env
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pause)
		w.kill(t, daemon)
		time.Sleep(300 * time.Millisecond)
		w.restart(t, daemon)
		if err := cmd.Wait(); err != nil && i > 0 {
			// The first kill may come before the deploy was taken.
			t.Fatalf("the deploy over the kill: %v", err)
		}
	}
	w.serves(t, version)
	w.until(t, 30*time.Second, func() error {
		var g struct {
			Generations []struct {
				Number int
				Phase  string
			}
		}
		w.json(t, &g, "env", "show", "shop-small")
		live := 0
		for _, x := range g.Generations {
			if x.Phase != "gone" {
				live++
			}
		}
		if live != 1 {
			return fmt.Errorf("%d generations are there: %+v", live, g.Generations)
		}
		return nil
	})
	var s struct{ Instances int }
	w.json(t, &s, "region", "status")
	if s.Instances != 3 {
		t.Errorf("%d instances run, want 3", s.Instances)
	}
}

// interrupted sends Ctrl-C to each command that launches something.
func (w *world) interrupted(t *testing.T) {
	interrupt := func(after time.Duration, args ...string) {
		t.Helper()
		cmd := exec.Command(w.dayfly, args...)
		cmd.Env = w.env
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 130 {
			t.Errorf("Ctrl-C ended %v with %v", args, err)
		}
		var es []struct{ Name string }
		w.json(t, &es, "env", "list")
		if len(es) != 1 {
			t.Errorf("after %v the environments are %v", args, es)
		}
		var s struct{ Instances, Stacks int }
		w.json(t, &s, "region", "status")
		if s.Instances != 3 || s.Stacks != 2 {
			t.Errorf("after %v there are %+v", args, s)
		}
	}
	interrupt(600*time.Millisecond, "deploy", w.shop, "small", "--name", "second")
	interrupt(time.Second, "test", w.shop, "health", "orders")
	w.edit(t, "puppet/data/common.yaml", "lives for a day", "lives for no day")
	interrupt(2*time.Second, "bake", w.shop)
	w.edit(t, "puppet/data/common.yaml", "lives for no day", "lives for a day")
}

// refused tries to start a region where one cannot run: the reason is said
// before anything is begun.
func (w *world) refused(t *testing.T) {
	try := func(env []string, words ...string) {
		t.Helper()
		cmd := exec.Command(env[0], env[1:]...)
		cmd.Env = append(os.Environ(), "DAYFLY_REGION_DIR="+filepath.Join(w.dir, "other"))
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("%v worked: %s", env, out)
		}
		for _, word := range words {
			if !strings.Contains(string(out), word) {
				t.Errorf("%v does not say %q: %s", env, word, out)
			}
		}
	}
	// A copy that everybody may run.
	bin := filepath.Join(t.TempDir(), "dayfly")
	w.run(t, "/", "cp", w.dayfly, bin)
	w.run(t, "/", "sh", "-c", "chmod 755 "+bin+"; chmod 711 "+filepath.Dir(bin)+" "+filepath.Dir(filepath.Dir(bin)))
	try([]string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", bin, "region", "start"}, "this is not root", "sudo")
	try([]string{"env", "PATH=/nowhere", w.dayfly, "region", "start"}, "haproxy is not installed", "apt-get install haproxy")
	try([]string{w.dayfly, "region", "start", "--listen", w.listen}, "cannot be used", "--listen")
	if _, err := os.Stat(filepath.Join(w.dir, "other/region.db")); err == nil {
		t.Error("a region that was refused left a database")
	}
}

// replace kills an instance's processes with the server stopped: the group
// replaces it, and the balancer never stops (law 7).
func (w *world) replace(t *testing.T) {
	e := w.show(t)
	w.must(t, "server", "stop")
	before := instances(t, w)
	// PID 1 of one instance, as the host sees it.
	raw, err := exec.Command("sh", "-c", "for p in /proc/[0-9]*; do grep -qz '^boot$' $p/cmdline 2>/dev/null && grep -q '"+before[0]+"' $p/cgroup && echo ${p#/proc/}; done | sort -n | head -1").Output()
	pid := 0
	if _, err2 := fmt.Sscan(string(raw), &pid); err != nil || err2 != nil {
		t.Fatalf("PID 1 of %s: %q %v %v", before[0], raw, err, err2)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.until(t, 60*time.Second, func() error {
		if _, err := fetch(e.Address + "/version"); err != nil {
			return err
		}
		now := instances(t, w)
		for _, id := range now {
			if id == before[0] {
				return fmt.Errorf("%s is still listed", id)
			}
		}
		if len(now) != 3 {
			return fmt.Errorf("%d instances: %v", len(now), now)
		}
		return nil
	})
	w.must(t, "server", "start")
}

// instances are the region's instances that have a folder, which all have that
// are not terminated.
func instances(t *testing.T, w *world) []string {
	t.Helper()
	es, err := os.ReadDir(filepath.Join(w.dir, "region/hypervisor/instances"))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, e := range es {
		if strings.HasPrefix(e.Name(), "i-") {
			ids = append(ids, e.Name())
		}
	}
	return ids
}

// balancer kills the load balancer's processes: the region starts them again.
func (w *world) balancer(t *testing.T) {
	e := w.show(t)
	raw, err := exec.Command("pgrep", "-f", "haproxy.*"+w.runDir(t)).Output()
	if err != nil {
		t.Fatalf("no balancer runs: %v", err)
	}
	for pid := range strings.FieldsSeq(string(raw)) {
		n, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(n, syscall.SIGKILL)
	}
	w.until(t, 15*time.Second, func() error { _, err := fetch(e.Address + "/version"); return err })
}

// runDir is where the region of this test keeps what runs.
func (w *world) runDir(t *testing.T) string {
	t.Helper()
	return strings.TrimSuffix(filepath.Dir(filepath.Dir(w.ns)), "/net")
}

func (w *world) brokenPuppet(t *testing.T) {
	w.edit(t, "puppet/modules/shop/manifests/init.pp", "  service { 'cron':", "  exec { '/bin/false': }\n  service { 'cron':")
	w.fails(t, 1, []string{"converge", "/bin/false"}, "bake", w.shop)
	w.edit(t, "puppet/modules/shop/manifests/init.pp", "  exec { '/bin/false': }\n", "")
	w.edit(t, "puppet/modules/shop/manifests/init.pp", "class shop (", "class shop ((")
	w.fails(t, 1, []string{"converge", "Syntax error"}, "bake", w.shop)
	w.edit(t, "puppet/modules/shop/manifests/init.pp", "class shop ((", "class shop (")
}

func (w *world) brokenTemplate(t *testing.T) {
	w.edit(t, "fleet.yaml", "Type: AWS::EC2::LaunchTemplate", "Type: AWS::EC2::LaunchTemplat")
	w.fails(t, 2, []string{"fleet.yaml:", "LaunchTemplate"}, "deploy", w.shop, "small")
	w.edit(t, "fleet.yaml", "Type: AWS::EC2::LaunchTemplat\n", "Type: AWS::EC2::LaunchTemplate\n")
}

func (w *world) killedBake(t *testing.T) {
	w.edit(t, "puppet/data/common.yaml", "lives for a day", "lives for one day")
	w.edit(t, "verify/base.sh", "lives for a day", "lives for one day")
	cmd := exec.Command(w.dayfly, "bake", w.shop)
	cmd.Env = w.env
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, daemon := range []string{"server", "region", "server"} {
		time.Sleep(3 * time.Second)
		w.kill(t, daemon)
		w.restart(t, daemon)
	}
	if err := cmd.Wait(); err != nil {
		out, _ := w.try("why")
		t.Fatalf("the bake over three kills: %v: %s", err, out)
	}
}

func (w *world) nothingLeft(t *testing.T) {
	w.must(t, "env", "destroy", "shop-small")
	var s struct{ Instances, VPCs, Stacks, Groups int }
	w.json(t, &s, "region", "status")
	if s != (struct{ Instances, VPCs, Stacks, Groups int }{}) {
		t.Errorf("the region still has %+v", s)
	}
	if out := w.must(t, "sweep"); !strings.Contains(out, "no orphans") {
		t.Error(out)
	}
	w.shut()
	w.must(t, "region", "host", "rm", "box")
}
