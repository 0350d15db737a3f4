package haproxy

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/balancer"
	"github.com/dayfly-infra/dayfly/internal/region/balancer/conformance"
	"golang.org/x/sys/unix"
)

func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Target { return newWorld(t).conformance() })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) config(l netip.AddrPort, ss ...*target) balancer.Config {
	var cs []conformance.Server
	for _, s := range ss {
		cs = append(cs, s.Server)
	}
	return balancer.Config{VPC: vpcID, Pools: []balancer.Pool{conformance.Pool("p", cs...)},
		Frontends: []balancer.Frontend{{ID: "http", Address: l, HTTP: true, Default: conformance.Forward("p", 1)}}}
}

func (w *world) healthy(want int, within time.Duration) {
	w.t.Helper()
	end := time.Now().Add(within)
	n := 0
	for time.Now().Before(end) {
		hs, err := w.Health(context.Background(), vpcID)
		must(w.t, err)
		n = 0
		for _, h := range hs {
			if h.Health == balancer.Healthy {
				n++
			}
		}
		if n == want {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.t.Fatalf("%d servers are healthy, want %d", n, want)
}

// Constant load through reloads, server changes and weights: nothing is lost.
func TestNothingIsLost(t *testing.T) {
	w := newWorld(t)
	l := w.address()
	all := make([]*target, 6)
	for i := range all {
		all[i] = w.serve(fmt.Sprintf("s-%d", i), true, 3*time.Millisecond)
	}
	must(t, w.Apply(t.Context(), w.config(l, all[0], all[1])))
	w.healthy(2, 5*time.Second)

	stop := make(chan struct{})
	var wg sync.WaitGroup
	var total, failed atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			c := w.client(i%2 == 0)
			defer c.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
				}
				status, _, body, err := w.get(c, l, "x", "/")
				total.Add(1)
				if err != nil || status != 200 {
					if failed.Add(1) < 5 {
						t.Errorf("a request was lost: %d %q %v", status, body, err)
					}
				}
			}
		})
	}
	step := func(c balancer.Config, healthy int) {
		t.Helper()
		must(t, w.Apply(t.Context(), c))
		w.healthy(healthy, 20*time.Second) // a limit for busy machines
		time.Sleep(150 * time.Millisecond)
	}
	step(w.config(l, all...), 6)         // servers come
	step(w.config(l, all[2], all[3]), 2) // servers go
	for i := range 4 {                   // four reloads: listeners come and go
		c := w.config(l, all[2:4+i%2]...)
		c.Frontends = append(c.Frontends, balancer.Frontend{ID: fmt.Sprintf("other-%d", i), Address: w.address(), HTTP: true, Default: conformance.Forward("p", 1)})
		step(c, 2+i%2)
	}
	blueGreen := func(b, g int) balancer.Config {
		c := w.config(l, all[2], all[3])
		c.Pools = append(c.Pools, conformance.Pool("q", all[4].Server, all[5].Server))
		c.Frontends[0].Default = conformance.Forward("p", b, "q", g)
		return c
	}
	step(blueGreen(1, 0), 4)
	before := all[4].hits.Load() + all[5].hits.Load()
	step(blueGreen(1, 1), 4)
	step(blueGreen(0, 1), 4)
	if all[4].hits.Load()+all[5].hits.Load() == before {
		t.Error("the other pool had no traffic")
	}
	c := blueGreen(0, 1)
	c.Pools, c.Frontends[0].Default = c.Pools[1:], conformance.Forward("q", 1)
	step(c, 2)
	// The daemon's end is none of the process's.
	w.Close()
	time.Sleep(100 * time.Millisecond)
	w.Balancer = w.open()
	w.healthy(2, time.Second)
	close(stop)
	wg.Wait()
	t.Logf("%d requests, %d lost", total.Load(), failed.Load())
	if total.Load() < 500 {
		t.Errorf("only %d requests were made", total.Load())
	}
	stats, err := w.Stats(t.Context(), vpcID)
	must(t, err)
	if len(stats) != 1 || stats[0].Status2xx == 0 {
		t.Errorf("statistics after reloads: %+v", stats)
	}
}

// A reload with a server whose checks fail, or have not passed yet, sends it
// nothing.
func TestReloadKeepsStates(t *testing.T) {
	w := newWorld(t)
	l := w.address()
	good, bad := w.serve("good", true, 0), w.serve("bad", false, 0)
	c := w.config(l, good, bad)
	c.Pools[0].Check.Interval = time.Minute // nothing is checked in time but by the first checks
	must(t, w.Apply(t.Context(), c))
	w.healthy(1, 5*time.Second)
	client := w.client(false)
	for i := range 5 {
		c.Frontends = append(c.Frontends[:1:1], balancer.Frontend{ID: fmt.Sprintf("g-%d", i), Address: w.address(), HTTP: true, Default: conformance.Forward("p", 1)})
		must(t, w.Apply(t.Context(), c))
		for range 20 {
			if status, server, _, err := w.get(client, l, "x", "/"); err != nil || status != 200 || server != "good" {
				t.Fatalf("reload %d: %d from %q, %v", i, status, server, err)
			}
		}
	}
	if n := bad.hits.Load(); n > 0 {
		t.Errorf("%d requests reached the server that never passed a check", n)
	}
	// One success is enough, though the pool wants three.
	bad.Healthy(true)
	w.healthy(2, 2*time.Second)
}

func TestAnswers(t *testing.T) {
	w := newWorld(t)
	l, tcpL := w.address(), w.address()
	s := w.serve("s", true, 0)
	c := w.config(l, s)
	tcpPool := balancer.Pool{ID: "t", Servers: []balancer.Server{{ID: "s", Address: s.Addr}}}
	c.Pools = append(c.Pools, tcpPool)
	c.Frontends = append(c.Frontends, balancer.Frontend{ID: "tcp", Address: tcpL, Default: conformance.Forward("t", 1)})
	must(t, w.Apply(t.Context(), c))
	w.healthy(2, 5*time.Second)
	client := w.client(false)
	if _, _, body, err := w.get(client, l, "x", "/headers"); err != nil || body != "127.0.0.1\nhttp\n80\n" {
		t.Errorf("headers: %q, %v", body, err)
	}
	if status, _, body, _ := w.get(client, l, "x", "/own503"); status != 503 || body != "mine" {
		t.Errorf("the server's own 503 became %d %q", status, body)
	}
	if status, _, body, err := w.get(client, tcpL, "x", "/"); status != 200 || body != "s" {
		t.Errorf("TCP: %d %q %v", status, body, err)
	}
	s.srv.Close() // refuses, and is not yet known to
	if status, _, _, err := w.get(client, l, "x", "/"); status != 502 || err != nil {
		t.Errorf("a server that refuses: %d, want 502, %v", status, err)
	}
	h := conformance.Await(t, w.conformance(), "p", "s", balancer.Unhealthy)
	if h.Detail != "connection refused" {
		t.Errorf("detail %q", h.Detail)
	}
}

func TestDrain(t *testing.T) {
	for _, c := range []struct {
		name   string
		drain  time.Duration
		want   int
		reload bool // while the request is under way: another process has it then
	}{{"in time", 10 * time.Second, 200, false}, {"too slow", 300 * time.Millisecond, 502, false}, {"in an earlier process", 10 * time.Second, 200, true}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			l := w.address()
			slow, other := w.serve("slow", true, 1200*time.Millisecond), w.serve("other", true, 0)
			conf := w.config(l, slow)
			must(t, w.Apply(t.Context(), conf))
			w.healthy(1, 5*time.Second)
			status := make(chan int, 1)
			go func() {
				s, _, _, _ := w.get(w.client(false), l, "x", "/")
				status <- s
			}()
			for slow.hits.Load() == 0 {
				time.Sleep(5 * time.Millisecond)
			}
			more := balancer.Frontend{ID: "other", Address: w.address(), HTTP: true, Default: conformance.Forward("p", 1)}
			if c.reload {
				conf.Frontends = append(conf.Frontends, more)
				must(t, w.Apply(t.Context(), conf))
			}
			conf = w.config(l, other)
			conf.Pools[0].Drain = c.drain
			if c.reload {
				conf.Frontends = append(conf.Frontends, more)
			}
			must(t, w.Apply(t.Context(), conf))
			w.healthy(1, 2*time.Second)
			if _, server, _, _ := w.get(w.client(false), l, "x", "/"); server != "other" {
				t.Errorf("%q answered while the first drains", server)
			}
			hs, err := w.Health(t.Context(), vpcID)
			must(t, err)
			if c.want == 200 && (len(hs) != 2 || hs[0].Health != balancer.Draining || hs[0].Sessions != 1) {
				t.Errorf("health while draining: %+v", hs)
			}
			time.Sleep(200 * time.Millisecond) // some looks at what leaves
			if hs, err = w.Health(t.Context(), vpcID); c.want == 200 && (err != nil || len(hs) != 2) {
				t.Errorf("its request is not over: %+v, %v", hs, err)
			}
			if got := <-status; got != c.want {
				t.Errorf("the slow request ended with %d, want %d", got, c.want)
			}
			for range 100 {
				if hs, err = w.Health(t.Context(), vpcID); err == nil && len(hs) == 1 {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
			t.Errorf("the drained server stays: %+v, %v", hs, err)
		})
	}
}

// A process that died is started again by the next daemon.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	l := w.address()
	s := w.serve("s", true, 0)
	must(t, w.Apply(t.Context(), w.config(l, s)))
	w.healthy(1, 5*time.Second)
	v := w.newVPC(vpcID)
	for _, pid := range v.pids() {
		must(t, unix.Kill(pid, unix.SIGKILL))
	}
	w.Close()
	w.Balancer = w.open()
	w.healthy(1, 5*time.Second)
	if status, _, _, err := w.get(w.client(false), l, "x", "/"); status != 200 {
		t.Errorf("after the restart: %d, %v", status, err)
	}
	// It has given up its rights.
	for _, pid := range v.pids() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if strings.Contains(string(b), "Uid:\t0") {
			t.Error("the process runs as root")
		}
		if root, _ := os.Readlink(fmt.Sprintf("/proc/%d/root", pid)); filepath.Base(root) != "empty" {
			t.Errorf("the process's root is %s", root)
		}
	}
}

func TestMany(t *testing.T) {
	w := newWorld(t)
	l := w.address()
	first := w.serve("first", true, 0)
	many := []*target{first}
	for i := range 45 {
		many = append(many, w.serve(fmt.Sprintf("s-%d", i), true, 0))
	}
	c := w.config(l, first)
	c.Pools[0].Slots = 64
	must(t, w.Apply(t.Context(), c))
	w.healthy(1, 5*time.Second)
	pid, err := w.newVPC(vpcID).current()
	must(t, err)
	start := time.Now()
	c = w.config(l, many...)
	c.Pools[0].Slots = 64
	must(t, w.Apply(t.Context(), c))
	told := time.Since(start)
	w.healthy(46, 2*time.Second)
	took := time.Since(start)
	t.Logf("45 servers: told in %s, healthy in %s", told, took)
	if took > time.Second {
		t.Errorf("45 servers were healthy after %s", took)
	}
	if now, _ := w.newVPC(vpcID).current(); now != pid {
		t.Error("adding servers needed a reload")
	}
}
