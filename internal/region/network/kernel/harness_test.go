package kernel

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/network/conformance"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

var serial atomic.Int32

// testConfig has a prefix and an internet of its own, so that tests of several
// packages may run at the same time.
func testConfig(t testing.TB) Config {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	i := serial.Add(1)
	return Config{
		Prefix:   fmt.Sprintf("k%02x%02x", os.Getpid()&0xff, i&0xff),
		RunDir:   filepath.Join(t.TempDir(), "run"),
		Internet: netip.MustParsePrefix(fmt.Sprintf("100.%d.%d.0/24", 96+os.Getpid()&0x1f, i&0xff)),
	}
}

func open(t testing.TB, cfg Config) *Network {
	t.Helper()
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// fresh makes a network, and at the end takes it away and looks for leftovers.
func fresh(t testing.TB, cfg Config) *Network {
	n := open(t, cfg)
	t.Cleanup(func() {
		n.Close()
		n, err := New(cfg) // so a failed test's leftovers go as well
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		if err := n.Teardown(context.Background()); err != nil {
			t.Error(err)
		}
		leftovers(t, cfg)
	})
	return n
}

func leftovers(t testing.TB, cfg Config) {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, cfg.Prefix) {
			t.Errorf("link %s is left", l.Attrs().Name)
		}
	}
	c, _ := nftables.New()
	tables, err := c.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, tb := range tables {
		if tb.Name == cfg.Prefix {
			t.Errorf("table %s is left", tb.Name)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), cfg.RunDir) {
		t.Error("mounts are left")
	}
	filepath.WalkDir(cfg.RunDir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			t.Errorf("%s is left", path)
		}
		return nil
	})
	if _, err := os.Stat(filepath.Join(hostDir, cfg.Prefix+".json")); err == nil {
		t.Error("the note of the host's settings is left")
	}
}

// at runs fn on a thread in a namespace.
func at(t testing.TB, n *Network, path string, fn func() error) error {
	t.Helper()
	if path == "" {
		return fn()
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return inNS(n.hostNS, int(f.Fd()), fn)
}

// serveIn answers "addr\n" with what it sees as the peer's address.
func serveIn(t testing.TB, n *Network, path, bind string) {
	t.Helper()
	err := at(t, n, path, func() error {
		for _, port := range []string{"80", "443"} {
			l, err := net.Listen("tcp4", net.JoinHostPort(bind, port))
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close() })
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					fmt.Fprintln(c, c.RemoteAddr().(*net.TCPAddr).IP)
					c.Close()
				}
			}()
		}
		p, err := net.ListenPacket("udp4", net.JoinHostPort(bind, "53"))
		if err != nil {
			return err
		}
		t.Cleanup(func() { p.Close() })
		go func() {
			b := make([]byte, 100)
			for {
				_, from, err := p.ReadFrom(b)
				if err != nil {
					return
				}
				p.WriteTo([]byte(from.(*net.UDPAddr).IP.String()+"\n"), from)
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ask connects from a namespace and returns whom the server saw, "" without an
// answer.
func ask(t testing.TB, n *Network, path string, from netip.Addr, dst, proto string, port int) string {
	t.Helper()
	var c net.Conn
	err := at(t, n, path, func() (err error) {
		d := net.Dialer{Timeout: 400 * time.Millisecond}
		if from.IsValid() {
			d.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
			if proto == "udp" {
				d.LocalAddr = &net.UDPAddr{IP: from.AsSlice()}
			}
		}
		c, err = d.Dial(proto+"4", net.JoinHostPort(dst, fmt.Sprint(port)))
		return err
	})
	if err != nil {
		return ""
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(400 * time.Millisecond))
	if proto == "udp" {
		c.Write([]byte("who?"))
	}
	s, _ := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(s)
}

func target(t *testing.T, n *Network) conformance.Target {
	paths := map[string]string{}
	shared := map[string]netip.Addr{}
	return conformance.Target{
		Network: n, Internet: n.cfg.Internet, AddHost: n.AddHost,
		Serve: func(t *testing.T, id, netns string, a netip.Addr) {
			paths[id] = netns
			if netns == "" { // a shared card: in the VPC's own namespace
				paths[id], shared[id] = n.NetNS("vpc-a"), a
				serveIn(t, n, paths[id], a.String())
				return
			}
			serveIn(t, n, netns, "0.0.0.0")
		},
		Reach: func(t *testing.T, src, dst, proto string, port int) bool {
			return ask(t, n, paths[src], shared[src], dst, proto, port) != ""
		},
	}
}
