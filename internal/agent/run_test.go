package agent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/handoff"
)

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// start runs an agent until the test ends or stop is called.
func start(t *testing.T, a *Agent) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("agent: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the agent does not end")
		}
		var b boot
		if a.load(bootFile, &b); a.alive(b.Service) || a.alive(b.Script) {
			t.Errorf("the agent left %+v or %+v running (%s)", b.Service, b.Script, b.Phase)
		}
	}
	t.Cleanup(stop)
	return stop
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func phaseOf(a *Agent) phase {
	var b boot
	a.load(bootFile, &b)
	return b.Phase
}

const fetchAll = `curl -fsS "$DAYFLY_RELEASE_URL" -o release; env > env; `

// The whole way: details, deploy, service, readiness, hook, report; then the
// agent dies twice, once with and once without having ended its service.
func TestBoot(t *testing.T) {
	f := newFake(t)
	f.box = goodBox
	f.launch()
	f.early = 2
	port := freePort(t)
	root := armedRoot(t, fetchAll+"echo once >> fired\n", handoff.Config{
		Service: fmt.Sprintf(`python3 -m http.server --bind 127.0.0.1 %d`, port), Ready: fmt.Sprintf("http://:%d/", port), Deadline: time.Minute,
	})
	f.userData += "\nDAYFLY_OPERATION=request-1\n"
	a, log := testAgent(t, f, root)
	var name string
	a.SetHostname = func(n string) error { name = n; return syscall.EPERM }
	stop := start(t, a)
	eventually(t, "serving", func() bool { return phaseOf(a) == serving && len(f.completions()) == 1 })
	eventually(t, "report", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.objects) == 1 })
	r := f.report(t)
	if !r.OK || r.ExitCode != 0 || r.Source != "box" || r.Instance != "i-0123456789abcdef0" || r.Image != "img" || len(r.Phases) != 5 {
		t.Errorf("report %+v", r)
	}
	if r.Operation != "request-1" || !regexp.MustCompile(`dayfly-agent: serving after .* op=request-1\n`).MatchString(log.String()) {
		t.Errorf("the operation is not in the report, %q, or not in the log: %s", r.Operation, log)
	}
	if name != "dev-0123456789abcdef0" || !strings.Contains(log.String(), "host name stays") {
		t.Errorf("host name %q, log %s", name, log)
	}
	read := func(p string) string {
		b, err := os.ReadFile(filepath.Join(root, p))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	dir := "/usr/lib/dayfly/handoff/"
	if got := read(dir + "release"); got != string(payload) {
		t.Errorf("the script got %d bytes", len(got))
	}
	env := read(dir + "env")
	for _, want := range []string{"DAYFLY_RELEASE_DIGEST=" + digestOf(payload), "DAYFLY_RELEASE_FILE=shop-1.tar.gz", "DAYFLY_ENVIRONMENT=dev", "DAYFLY_GENERATION=1", "DAYFLY_OPERATION=request-1",
		"DAYFLY_INSTANCE_ID=i-0123456789abcdef0", "DAYFLY_IMAGE_ID=ami-1", "DAYFLY_REGION=local-1", "DAYFLY_ZONE=local-1a", "DAYFLY_ROLE=web", "DAYFLY_RELEASE_URL=http://127.0.0.1:"} {
		if !strings.Contains(env, want) {
			t.Errorf("the script's environment lacks %s", want)
		}
	}
	if h := read("/etc/hosts"); h != "127.0.0.1 localhost\n10.0.0.7 dev-0123456789abcdef0 # dayfly\n" {
		t.Errorf("hosts %q", h)
	}
	if id := strings.TrimSpace(read("/etc/machine-id")); len(id) != 32 {
		t.Errorf("machine-id %q", id)
	}

	// Killed: the service goes on, and the next agent adopts it.
	var b boot
	a.load(bootFile, &b)
	first := b.Service
	if !a.alive(first) {
		t.Fatal("the service is not alive")
	}
	a2, _ := testAgent(t, f, root)
	stop2 := start(t, a2)
	time.Sleep(300 * time.Millisecond)
	a2.load(bootFile, &b)
	if b.Service != first {
		t.Errorf("the service was %+v and is %+v: doubled", first, b.Service)
	}
	stop2() // ends the service with it
	if a.alive(first) {
		t.Error("the service outlived an agent that was asked to end")
	}
	// The first agent notices and starts it again.
	eventually(t, "restart", func() bool { a.load(bootFile, &b); return b.Service != first && a.alive(b.Service) })
	stop()
	if a.alive(b.Service) {
		t.Error("the service outlived its agent")
	}
	// Another boot of the same instance: served again, not deployed again.
	if err := os.Remove(filepath.Join(root, bootFile)); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.state = "InService"
	f.mu.Unlock()
	a3, _ := testAgent(t, f, root)
	start(t, a3)
	eventually(t, "serving again", func() bool { return phaseOf(a3) == serving })
	if n := strings.Count(read(dir+"fired"), "once"); n != 1 {
		t.Errorf("the hand-off was fired %d times", n)
	}
	if !slices.Equal(f.completions(), []string{proceed}) {
		t.Errorf("completions %v", f.completions())
	}
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name, script string
		config       handoff.Config
		box          http.HandlerFunc
		reason       string
		output       string
		code         int
	}{
		{name: "script fails", script: fetchAll + "echo no disk; exit 7", reason: "exit code 7", output: "no disk", code: 7},
		{name: "script hangs", script: fetchAll + "echo waiting; sleep 1000", config: handoff.Config{Deadline: time.Second}, reason: "still running at the deadline (1s)", output: "waiting", code: -1},
		{name: "script fetches nothing", script: "true", reason: "without having fetched the whole release; it must fetch $DAYFLY_RELEASE_URL"},
		{name: "other bytes", script: fetchAll, box: func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(strings.Repeat("something else ", 10000)))
		}, reason: "gave other bytes: their digest is sha256:", output: "curl", code: 18},
		{name: "other bytes, swallowed", script: "curl -fsS $DAYFLY_RELEASE_URL | cat >release", box: func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(strings.Repeat("something else ", 10000)))
		}, reason: "ended well without having fetched the whole release; the release: the box gave other bytes"},
		{name: "box refuses", script: fetchAll, box: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, reason: "the box has no answer", output: "502", code: 22},
		{name: "never ready", script: fetchAll, config: handoff.Config{Service: "sleep 1000", Ready: "tcp://:1", Deadline: 1500 * time.Millisecond}, reason: "nothing was ready before the deadline (tcp://:1"},
		{name: "service dies", script: fetchAll, config: handoff.Config{Service: "sh -c 'echo no config; exit 3'", Ready: "http://:1/", Deadline: time.Minute}, reason: "ended with exit code 3, 5 times", output: "no config"},
		{name: "no user", script: fetchAll, config: handoff.Config{Service: "sleep 1000", User: "nobody-here", Ready: "tcp://:1", Deadline: time.Minute}, reason: "there is no user nobody-here"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			if f.box = c.box; f.box == nil {
				f.box = goodBox
			}
			f.launch()
			root := armedRoot(t, c.script+"\n", c.config)
			if err := os.WriteFile(filepath.Join(root, "/etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			a, log := testAgent(t, f, root)
			start(t, a)
			eventually(t, "given up", func() bool { return len(f.completions()) > 0 })
			if got := f.completions(); !slices.Equal(got, []string{abandon}) {
				t.Errorf("completions %v", got)
			}
			r := f.report(t)
			if r.OK || !strings.Contains(r.Reason, c.reason) || !strings.Contains(r.Output, c.output) || r.ExitCode != c.code {
				t.Errorf("report %+v\nwant reason %q, output %q, code %d\n%s", r, c.reason, c.output, c.code, log)
			}
			if phaseOf(a) != failed {
				t.Errorf("phase %s", phaseOf(a))
			}
			// What an instance that is given up wrote was sent before that.
			if l := f.logs(t); !strings.Contains(l.Agent, "the hand-off failed: ") || !strings.Contains(l.Deploy+l.Service, c.output) || l.Instance != r.Instance || l.At.IsZero() {
				t.Errorf("logs %+v", l)
			}
		})
	}
}

// Without a release, in a builder or canary, nothing is fired or changed.
func TestArmed(t *testing.T) {
	for _, data := range []string{"", "#!/bin/sh\n", "#dayfly\nDAYFLY_ENVIRONMENT=x\n"} {
		f := newFake(t)
		f.userData, f.noDoc = data, true
		a, _ := testAgent(t, f, armedRoot(t, "touch fired\n", handoff.Config{Service: "sleep 1000"}))
		stop := start(t, a)
		eventually(t, "armed", func() bool { return phaseOf(a) == armed })
		stop()
		if _, err := os.Stat(a.path("/var/lib/dayfly/fired")); err == nil {
			t.Error("fired")
		}
		if _, err := os.Stat(a.path(handoff.EnvFile)); err == nil {
			t.Error("details")
		}
	}
}

func TestBadLaunch(t *testing.T) {
	for want, change := range map[string]func(*cloudFake, string){
		"the user data cannot be used":     func(f *cloudFake, _ string) { f.userData += "DAYFLY_RELEASE_DIGEST=md5:1\n" },
		"this image has no armed hand-off": func(_ *cloudFake, root string) { os.Remove(filepath.Join(root, handoff.ArmedFile)) },
		"run must be an absolute path": func(_ *cloudFake, root string) {
			os.WriteFile(filepath.Join(root, handoff.ArmedFile), []byte(`{"run":"x"}`), 0o644)
		},
		"the deploy script cannot start": func(_ *cloudFake, root string) { os.Remove(filepath.Join(root, "/usr/lib/dayfly/handoff/deploy")) },
	} {
		f := newFake(t)
		f.launch()
		root := armedRoot(t, "true\n", handoff.Config{})
		change(f, root)
		a, _ := testAgent(t, f, root)
		stop := start(t, a)
		eventually(t, want, func() bool { return slices.Equal(f.completions(), []string{abandon}) })
		if r := f.report(t); !strings.Contains(r.Reason, want) {
			t.Errorf("reason %q, want %q", r.Reason, want)
		}
		stop()
	}
}

// An agent that died while the deploy script ran ends it and gives up.
func TestCutOff(t *testing.T) {
	f := newFake(t)
	f.box = goodBox
	f.launch()
	root := armedRoot(t, fetchAll+"echo $$ > pid; echo x >> fired; sleep 1000\n", handoff.Config{Deadline: time.Minute})
	a, _ := testAgent(t, f, root)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go a.Run(ctx)
	script := filepath.Join(root, "/usr/lib/dayfly/handoff/")
	eventually(t, "script runs", func() bool {
		_, err := os.Stat(filepath.Join(script, "fired"))
		return err == nil && phaseOf(a) == deploying
	})
	var b boot
	a.load(bootFile, &b)
	a2, _ := testAgent(t, f, root)
	start(t, a2)
	eventually(t, "given up", func() bool { return slices.Contains(f.completions(), abandon) })
	if a.alive(b.Script) {
		t.Error("the script still runs")
	}
	if r, _ := os.ReadFile(filepath.Join(script, "fired")); string(r) != "x\n" {
		t.Errorf("fired again: %q", r)
	}
}

// Asked to end at any call that it makes, an agent leaves nothing running.
func TestEndsAtAnyMoment(t *testing.T) {
	for _, at := range []string{"GET /latest/user-data", "GET /box/shop-1.tar.gz", "POST /", "PUT /bucket/handoff/dev/1/i-0123456789abcdef0.json"} {
		f := newFake(t)
		f.box = goodBox
		f.launch()
		ctx, cancel := context.WithCancel(context.Background())
		met := false
		f.on = func(call string) {
			if call == at {
				met = true
				cancel()
			}
		}
		root := armedRoot(t, fetchAll, handoff.Config{Service: "sleep 1000", Deadline: time.Minute})
		a, _ := testAgent(t, f, root)
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: the agent does not end", at)
		}
		if n := marked(t, a.mark()); n > 0 || !met {
			t.Errorf("%s (met %v): %d processes of the service are left", at, met, n)
			a.strays(a.mark())
		}
		cancel()
	}
}

// marked counts the processes that an agent supervises.
func marked(t *testing.T, mark string) (n int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if env, err := os.ReadFile(p); err == nil && strings.Contains(string(env), mark+"\x00") {
			n++
		}
	}
	return n
}
