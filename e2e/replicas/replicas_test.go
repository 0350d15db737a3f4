// Package replicas runs several real servers on one real PostgreSQL, with a
// simulated region: whichever is killed or stopped, nothing is lost, nothing is
// done twice, and the others go on within seconds. It needs no root; -short
// leaves it out.
package replicas

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dayfly-infra/dayfly/internal/store/pgtest"
)

// takeover is how long work may rest after its server died.
const takeover = 15 * time.Second

type world struct {
	dir, dayfly, database string
	listen                string
	env                   []string
	names                 []string
	pids                  map[string]int
}

func setup(t *testing.T, names ...string) *world {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	pg := pgtest.New(t)
	dir, err := os.MkdirTemp("/tmp", "dayfly-replicas-") // sockets want short paths
	if err != nil {
		t.Fatal(err)
	}
	w := &world{dir: dir, database: pg.Database(t), names: names, pids: map[string]int{}}
	w.dayfly = filepath.Join(dir, "bin/dayfly")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", dir+"/bin/", "../../cmd/dayfly", "../../cmd/dayfly-agent", "../../cmd/dayfly-probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.env = append(os.Environ(), "DAYFLY_REGION_DIR="+dir+"/region", "DAYFLY_CHAOS=1")
	t.Cleanup(func() {
		for _, n := range w.names {
			if pid := w.pids[n]; pid != 0 {
				_ = syscall.Kill(pid, syscall.SIGCONT)
			}
			w.dayflyOn(n, "server", "stop")
		}
		w.run("region", "stop", "--force")
		if t.Failed() {
			for _, f := range append([]string{"region/region.log"}, w.logs()...) {
				raw, _ := os.ReadFile(filepath.Join(dir, f))
				t.Logf("the end of %s:\n%s", f, raw[max(0, len(raw)-3000):])
			}
		}
		os.RemoveAll(dir)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.listen = l.Addr().String()
	l.Close()
	w.must(t, w.run)("region", "start", "--simulate", "--listen", w.listen)
	var aws map[string]string
	w.json(t, &aws, w.run, "region", "env")
	for k, v := range aws {
		w.env = append(w.env, k+"="+v)
	}
	for _, n := range names {
		w.start(t, n)
	}
	w.must(t, w.run)("init", dir+"/shop")
	return w
}

func (w *world) logs() []string {
	var out []string
	for _, n := range w.names {
		out = append(out, n+"/server.log")
	}
	return out
}

type command func(args ...string) (string, error)

func (w *world) run(args ...string) (string, error) {
	c := exec.Command(w.dayfly, args...)
	c.Env, c.Dir = w.env, w.dir
	out, err := c.CombinedOutput()
	return string(out), err
}

// on is a command that one of the servers is asked for.
func (w *world) on(name string) command {
	return func(args ...string) (string, error) {
		return w.run(append([]string{"--state", filepath.Join(w.dir, name)}, args...)...)
	}
}

func (w *world) dayflyOn(name string, args ...string) (string, error) { return w.on(name)(args...) }

func (w *world) must(t *testing.T, c command) func(args ...string) string {
	return func(args ...string) string {
		t.Helper()
		out, err := c(args...)
		if err != nil {
			t.Fatalf("dayfly %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return out
	}
}

func (w *world) json(t *testing.T, v any, c command, args ...string) {
	t.Helper()
	out := w.must(t, c)(append([]string{"-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func (w *world) start(t *testing.T, name string) {
	t.Helper()
	w.must(t, w.on(name))("server", "start", "--database", w.database)
	raw, err := os.ReadFile(filepath.Join(w.dir, name, "server.pid"))
	if err != nil {
		t.Fatal(err)
	}
	w.pids[name], err = strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
}

// active is the server that the database says owns the work, and its epoch.
func (w *world) active(t *testing.T) (name string, epoch int64) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), w.database)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	var holder string
	if err := c.QueryRow(t.Context(), `SELECT holder, epoch FROM ledger`).Scan(&holder, &epoch); err != nil {
		t.Fatal(err)
	}
	for _, n := range w.names {
		raw, _ := os.ReadFile(filepath.Join(w.dir, n, "replica"))
		if id := strings.TrimSpace(string(raw)); id != "" && strings.HasSuffix(holder, "/"+id) {
			return n, epoch
		}
	}
	return "", epoch
}

func (w *world) until(t *testing.T, what string, limit time.Duration, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(began)
}

type env struct {
	Name, Phase, Error string
	Serving, Want      int
}

func (w *world) environment(t *testing.T, on, name string) env {
	t.Helper()
	var es []env
	w.json(t, &es, w.on(on), "env", "list", "--all")
	for _, e := range es {
		if e.Name == name {
			return e
		}
	}
	return env{}
}

type regionStatus struct{ Instances, Images, Stacks, Groups, VPCs int }

// TestKilledAndStopped goes through bakes and deploys while the server that owns
// the work is killed, or stopped past its lease and let go on later.
func TestKilledAndStopped(t *testing.T) {
	w := setup(t, "a", "b", "c")
	other := func(than string) string {
		for _, n := range w.names {
			if n != than {
				return n
			}
		}
		panic("unreachable")
	}
	const size = 12
	for round, r := range []struct {
		after time.Duration // from the start of the deploy
		stop  bool
	}{
		{300 * time.Millisecond, false}, // the bake begins
		{2 * time.Second, true},         // in the midst of a launch
		{500 * time.Millisecond, true},
		{1500 * time.Millisecond, false},
	} {
		owner, epoch := "", int64(0)
		w.until(t, "somebody owns", takeover, func() bool { owner, epoch = w.active(t); return owner != "" })
		api := other(owner)
		w.must(t, w.on(api))("deploy", "--detach", "--size", fmt.Sprint(size), "shop", "dev")
		time.Sleep(r.after)
		signal := syscall.SIGKILL
		if r.stop {
			signal = syscall.SIGSTOP
		}
		if err := syscall.Kill(w.pids[owner], signal); err != nil {
			t.Fatal(err)
		}
		next := ""
		took := w.until(t, "another took over", takeover, func() bool {
			n, e := w.active(t)
			next = n
			return e > epoch && n != "" && n != owner
		})
		t.Logf("round %d: %s, %s after the start: %s took over from %s after %s", round, signal, r.after, next, owner, took.Round(time.Millisecond))
		if r.stop {
			time.Sleep(500 * time.Millisecond)
			if err := syscall.Kill(w.pids[owner], syscall.SIGCONT); err != nil { // it thinks that it owns, for a moment
				t.Fatal(err)
			}
		}
		w.until(t, "the deploy is done", time.Minute, func() bool {
			e := w.environment(t, api, "shop-dev")
			if e.Error != "" {
				t.Fatalf("round %d: %s", round, e.Error)
			}
			return e.Phase == "serving" && e.Serving == round+1
		})
		var s regionStatus
		w.until(t, fmt.Sprintf("round %d: %d instances, 1 image, 2 stacks", round, size), 30*time.Second, func() bool {
			w.json(t, &s, w.run, "region", "status")
			return s == regionStatus{Instances: size, Images: 1, Stacks: 2, Groups: 1, VPCs: 1}
		})
		if !r.stop {
			w.start(t, owner)
		}
	}
	// All agree on who they are, and each answers for all.
	var first struct{ Owner string }
	for i, n := range w.names {
		var s struct{ Owner string }
		w.json(t, &s, w.on(n), "server", "status")
		if i == 0 {
			first = s
		}
		if s != first || s.Owner == "" {
			t.Errorf("%s is of %q, %s of %q", n, s.Owner, w.names[0], first.Owner)
		}
		if e := w.environment(t, n, "shop-dev"); e.Phase != "serving" {
			t.Errorf("%s says that shop-dev is %+v", n, e)
		}
	}
	// A backup, taken while they work, goes on with the embedded database.
	file := filepath.Join(w.dir, "all.backup")
	w.must(t, w.run)("backup", file, "--database", w.database)
	for _, n := range w.names {
		w.must(t, w.on(n))("server", "stop")
		w.pids[n] = 0
	}
	w.must(t, w.on("d"))("restore", file)
	if out, err := w.on("d")("restore", file); err == nil || !strings.Contains(out, "--force") {
		t.Errorf("a database with records was taken: %s", out)
	}
	w.must(t, w.on("d"))("server", "start")
	defer w.on("d")("server", "stop")
	if e := w.environment(t, "d", "shop-dev"); e.Phase != "serving" {
		t.Errorf("after the restore shop-dev is %+v", e)
	}
	w.must(t, w.on("d"))("deploy", "--size", fmt.Sprint(size), "shop", "dev") // the blueprint is there, the image is found
	w.must(t, w.on("d"))("env", "destroy", "shop-dev")
	if out := w.must(t, w.on("d"))("sweep"); !strings.Contains(out, "no orphans") {
		t.Error(out)
	}
	var s regionStatus
	w.json(t, &s, w.run, "region", "status")
	if s.Instances != 0 || s.Stacks != 0 {
		t.Errorf("left: %+v", s)
	}
	for _, f := range w.logs() {
		raw, _ := os.ReadFile(filepath.Join(w.dir, f))
		if strings.Contains(string(raw), "panic") {
			t.Errorf("%s has a panic", f)
		}
	}
}

// TestKillReplica lets dayfly chaos kill the server that owns the work, asked
// through the other, which goes on with it while the first is dead.
func TestKillReplica(t *testing.T) {
	w := setup(t, "a", "b")
	w.must(t, w.on("a"))("deploy", "--size", "6", "shop", "dev")
	owner, epoch := "", int64(0)
	w.until(t, "somebody owns", takeover, func() bool { owner, epoch = w.active(t); return owner != "" })
	asked := "a"
	if owner == asked {
		asked = "b"
	}
	if out, err := w.on(asked)("chaos", "do", "kill-replica"); err == nil || !strings.Contains(out, "it needs one replica") {
		t.Errorf("%v: %s", err, out)
	}
	var did []struct {
		Done  bool
		Whole float64
		Error string
	}
	said := make(chan string, 1)
	go func() {
		out, err := w.on(asked)("-o", "json", "chaos", "do", "kill-replica", "--replicas", filepath.Join(w.dir, owner), "--for", "40s")
		if err != nil {
			out = err.Error() + ": " + out
		}
		said <- out
	}()
	took := w.until(t, asked+" took over", 35*time.Second, func() bool {
		n, e := w.active(t)
		return n == asked && e > epoch
	})
	w.must(t, w.on(asked))("deploy", "--size", "6", "shop", "dev")
	if e := w.environment(t, asked, "shop-dev"); e.Phase != "serving" || e.Serving != 2 {
		t.Errorf("%+v", e)
	}
	if out, err := w.on(owner)("env", "list"); err == nil {
		t.Errorf("%s was not dead any more, nothing was shown: %s", owner, out)
	}
	out := <-said
	if i := strings.Index(out, "["); i < 0 || json.Unmarshal([]byte(out[i:]), &did) != nil || len(did) != 1 || !did[0].Done || did[0].Whole < 40 {
		t.Errorf("its report is %s", out)
	}
	t.Logf("%s took over after %s", asked, took.Round(time.Millisecond))
	// It is back with the arguments that it had: on the same database.
	if e := w.environment(t, owner, "shop-dev"); e.Serving != 2 {
		t.Errorf("%s says %+v", owner, e)
	}
	var s regionStatus
	w.until(t, "6 instances, 1 image, 2 stacks", 30*time.Second, func() bool {
		w.json(t, &s, w.run, "region", "status")
		return s == regionStatus{Instances: 6, Images: 1, Stacks: 2, Groups: 1, VPCs: 1}
	})
}
