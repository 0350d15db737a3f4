package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// life is an instance as `dayfly instance list --all` says it.
type life struct {
	ID         string `json:"id"`
	Generation int    `json:"generation"`
	State      string `json:"state"`
	Cause      string `json:"cause"`
	Why        string `json:"why"`
	Parent     string `json:"parent"`
}

func (w *world) lives(t *testing.T) (all []life, serving []life) {
	t.Helper()
	w.json(t, &all, "instance", "list", "shop-small", "--all")
	for _, l := range all {
		if l.State == "serving" {
			serving = append(serving, l)
		}
	}
	return all, serving
}

// heal lets instances be touched, fail, and be kept, and asks all the while
// whether the shop answers: another serves before one goes.
func (w *world) heal(t *testing.T) {
	var all, serving []life
	whole := func() error {
		if all, serving = w.lives(t); len(serving) != 3 {
			return fmt.Errorf("%d of 3 serve: %+v", len(serving), all)
		}
		return nil
	}
	w.until(t, time.Minute, whole)
	address := w.show(t).Address
	stop, failures := make(chan struct{}), []string{}
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if _, err := fetch(address + "/version"); err != nil {
				failures = append(failures, time.Now().Format("15:04:05.000 ")+err.Error())
			}
		}
	})
	gone := func(id, state, cause string) {
		t.Helper()
		w.until(t, 90*time.Second, func() error {
			all, _ := w.lives(t)
			for _, l := range all {
				if l.ID != id {
					continue
				}
				if l.State == "gone" && cause != "" && l.Cause != cause {
					t.Fatalf("%s went for %q: %s", id, l.Cause, l.Why)
				}
				if l.State == state {
					return nil
				}
				return fmt.Errorf("%s is %s", id, l.State)
			}
			return fmt.Errorf("%s is forgotten", id)
		})
		w.until(t, time.Minute, whole)
	}

	touched := serving[0].ID
	w.run(t, "/", "/usr/bin/python3", "/usr/bin/aws", "--endpoint-url", "http://"+w.listen, "ssm", "send-command", "--document-name", "AWS-RunShellScript",
		"--instance-ids", touched, "--comment", "a quick fix", "--parameters", "commands=touch /etc/fixed")
	gone(touched, "gone", "touched")

	// A protected file that changes: the agent is asked to look now, after it has
	// noted down what the hand-off changed.
	changed := serving[0].ID
	agent := w.process(t, changed, "dayfly-agent")[0]
	inside := fmt.Sprintf("/proc/%d/root", agent)
	w.until(t, time.Minute, func() error { _, err := os.Stat(inside + "/var/lib/dayfly/accepted.json"); return err })
	if err := os.WriteFile(inside+"/etc/cron.d/fix", []byte("# a quick fix\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(agent, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	gone(changed, "gone", "touched")
	if out := w.must(t, "instance", "show", changed); !strings.Contains(out, "/etc/cron.d/fix added") {
		t.Errorf("its life: %s", out)
	}

	w.must(t, "instance", "keep", serving[1].ID, "--for", "1h", "--why", "a look")
	kept := serving[1].ID
	gone(kept, "kept", "")
	w.must(t, "instance", "release", kept)
	gone(kept, "gone", "released")

	w.must(t, "instance", "replace", serving[0].ID)
	gone(serving[0].ID, "gone", "asked")
	close(stop)
	asking.Wait()
	if len(failures) > 0 {
		t.Errorf("%d requests failed while instances were replaced as planned: %v", len(failures), failures[:min(3, len(failures))])
	}

	// A service that hangs: its process is stopped, the agent sees it run.
	sick := serving[2].ID
	for _, p := range w.process(t, sick, "bin/shop") {
		if err := syscall.Kill(p, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	gone(sick, "gone", "unhealthy")
	out := w.must(t, "instance", "show", sick)
	if !strings.Contains(out, "fails its health check") || !strings.Contains(out, "in service") {
		t.Errorf("its life: %s", out)
	}
}

// boxCut lets dayfly chaos cut the box off, which then takes connections and
// answers nobody: a replacement serves all the same, out of the mirror.
func (w *world) boxCut(t *testing.T) {
	version := func() string {
		t.Helper()
		var v struct{ Version string }
		raw, err := fetch(w.show(t).Address + "/version")
		if err == nil {
			err = json.Unmarshal([]byte(raw), &v)
		}
		if err != nil || v.Version == "" {
			t.Fatalf("it serves %q: %v", raw, err)
		}
		return v.Version
	}
	before := version()
	file := filepath.Join(w.dir, "box.pid")
	if err := os.WriteFile(file, fmt.Appendln(nil, w.serve.Process.Pid), 0o600); err != nil {
		t.Fatal(err)
	}
	w.fails(t, 2, []string{"it needs a box", "--box PIDFILE"}, "chaos", "do", "cut-box")
	var serving []life
	w.until(t, time.Minute, func() error { // of the generation that was just switched to
		_, all := w.lives(t)
		generation := w.show(t).Serving
		serving = slices.DeleteFunc(all, func(l life) bool { return l.Generation != generation })
		if len(serving) != 3 {
			return fmt.Errorf("of generation %d %d serve: %+v", generation, len(serving), all)
		}
		return nil
	})
	began := time.Now()
	act := exec.Command(w.dayfly, "--output", "json", "chaos", "do", "cut-box", "--box", file, "--for", "40s")
	act.Env = w.env
	var said strings.Builder
	act.Stdout = &said
	if err := act.Start(); err != nil {
		t.Fatal(err)
	}
	w.until(t, 20*time.Second, func() error {
		if out, err := fetch("http://" + w.addr + "/shop/LATEST"); err == nil {
			return fmt.Errorf("the box still says %q", out)
		}
		return nil
	})
	old := serving[0].ID
	w.must(t, "instance", "replace", old)
	var came time.Duration
	w.until(t, 35*time.Second, func() error {
		all, now := w.lives(t)
		for _, l := range all {
			if l.ID == old && l.State != "gone" {
				return fmt.Errorf("%s is %s", old, l.State)
			}
		}
		if len(now) != 3 {
			return fmt.Errorf("%d of 3 serve: %+v", len(now), all)
		}
		came = time.Since(began)
		return nil
	})
	if out, err := fetch("http://" + w.addr + "/shop/LATEST"); err == nil {
		t.Errorf("after %s the box was not cut off any more (%q): nothing was shown", came, out)
	}
	if err := act.Wait(); err != nil {
		t.Errorf("dayfly chaos: %v: %s", err, said.String())
	}
	var did []struct {
		Done  bool
		Whole float64
	}
	if err := json.Unmarshal([]byte(said.String()), &did); err != nil || len(did) != 1 || !did[0].Done || did[0].Whole < 40 {
		t.Errorf("its report is %s: %v", said.String(), err)
	}
	if after := version(); after != before {
		t.Errorf("it served %s and now %s", before, after)
	}
	w.until(t, 5*time.Second, func() error { _, err := fetch("http://" + w.addr + "/shop/LATEST"); return err })
}

// process finds an instance's processes, as the host sees them, by a part of
// their command lines.
func (w *world) process(t *testing.T, instance, part string) (pids []int) {
	t.Helper()
	raw, err := exec.Command("sh", "-c", "for p in /proc/[0-9]*; do grep -qz '"+part+"' $p/cmdline 2>/dev/null && grep -q '"+instance+"' $p/cgroup && echo ${p#/proc/}; done").Output()
	for pid := range strings.FieldsSeq(string(raw)) {
		var p int
		if _, err := fmt.Sscan(pid, &p); err != nil {
			t.Fatal(err)
		}
		pids = append(pids, p)
	}
	if len(pids) == 0 {
		t.Fatalf("no process %s of %s: %v", part, instance, err)
	}
	return pids
}
