package haproxy

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/balancer/conformance"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// world is a namespace of the test's, with HAProxy, its servers and clients.
type world struct {
	t     testing.TB
	dir   string
	netns string
	port  atomic.Int32
	*Balancer
}

const vpcID = "vpc-0123456789abcdef0"

func newWorld(t testing.TB) *world {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	dir, err := os.MkdirTemp("", "hb")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, netns: filepath.Join(dir, "net")}
	w.port.Store(2000)
	if err := os.WriteFile(w.netns, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	onThread(t, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", w.netns, "", unix.MS_BIND, "")
	})
	w.Balancer = w.open()
	t.Cleanup(func() {
		v := w.newVPC(vpcID)
		if err := w.Remove(context.Background(), vpcID); err != nil {
			t.Error(err)
		}
		w.Close()
		if pids := v.pids(); len(pids) > 0 {
			t.Errorf("processes %v are left", pids)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "run", "*")); len(left) > 0 {
			t.Errorf("%v are left", left)
		}
		unix.Unmount(w.netns, unix.MNT_DETACH)
		os.RemoveAll(dir)
	})
	return w
}

func (w *world) open() *Balancer {
	b, err := New(Config{RunDir: filepath.Join(w.dir, "run"), NetNS: func(string) string { return w.netns }})
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// onThread runs fn on a thread that is thrown away.
func onThread(t testing.TB, fn func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- fn()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// in runs fn in the world's namespace.
func (w *world) in(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		ns, err := os.Open(w.netns)
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			err = fn()
		}
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

func (w *world) address() netip.AddrPort {
	n := uint32(w.port.Add(1))
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 127<<24|1<<16|n)
	return netip.AddrPortFrom(netip.AddrFrom4(a), 80)
}

// target is a server; slow answers after the delay.
type target struct {
	conformance.Server
	unhealthy atomic.Bool
	hits      atomic.Int64
	slow      atomic.Int64
	srv       *http.Server
}

func (w *world) serve(id string, healthy bool, slow time.Duration) *target {
	w.t.Helper()
	s := &target{Server: conformance.Server{ID: id, Addr: w.address()}}
	s.Healthy = func(ok bool) { s.unhealthy.Store(!ok) }
	s.Healthy(healthy)
	s.Slow = func(d time.Duration) { s.slow.Store(int64(d)) }
	s.Slow(slow)
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(rw http.ResponseWriter, _ *http.Request) {
		if s.unhealthy.Load() {
			rw.WriteHeader(500)
		}
	})
	mux.HandleFunc("/headers", func(rw http.ResponseWriter, r *http.Request) {
		for _, h := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port"} {
			fmt.Fprintln(rw, strings.Join(r.Header.Values(h), "|"))
		}
	})
	mux.HandleFunc("/own503", func(rw http.ResponseWriter, r *http.Request) { rw.WriteHeader(503); io.WriteString(rw, "mine") })
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		s.hits.Add(1)
		time.Sleep(time.Duration(s.slow.Load()))
		rw.Header().Set("X-Server", id)
		io.WriteString(rw, id)
	})
	s.srv = &http.Server{Handler: mux}
	if err := w.in(func() error {
		l, err := net.Listen("tcp4", s.Addr.String())
		if err == nil {
			go s.srv.Serve(l)
		}
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { s.srv.Close() })
	return s
}

func (w *world) client(keepAlive bool) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: !keepAlive,
		DialContext: func(ctx context.Context, _, addr string) (c net.Conn, err error) {
			err = w.in(func() error {
				var d net.Dialer
				c, err = d.DialContext(ctx, "tcp4", addr)
				return err
			})
			return c, err
		},
	}}
}

func (w *world) get(c *http.Client, l netip.AddrPort, host, path string) (int, string, string, error) {
	req, err := http.NewRequest("GET", "http://"+l.String()+path, nil)
	if err != nil {
		return 0, "", "", err
	}
	req.Host = host
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header.Get("X-Server"), string(body), err
}

func (w *world) conformance() conformance.Target {
	c := w.client(false)
	return conformance.Target{
		Balancer: w.Balancer, VPC: vpcID, Address: w.address,
		Serve: func(_ *testing.T, id string, ok bool) conformance.Server { return w.serve(id, ok, 0).Server },
		Get: func(_ *testing.T, l netip.AddrPort, host, path string) (int, string) {
			status, server, _, err := w.get(c, l, host, path)
			if err != nil {
				return 0, err.Error()
			}
			return status, server
		},
		Wait: func() { time.Sleep(20 * time.Millisecond) },
	}
}
