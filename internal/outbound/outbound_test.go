package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// names resolves each name to the next of its addresses.
type names struct {
	asked atomic.Int32
	of    map[string][]string
}

func (n *names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	all := n.of[host]
	if len(all) == 0 {
		return nil, errors.New("no such host")
	}
	i := int(n.asked.Add(1)) - 1
	var out []netip.Addr
	for s := range strings.SplitSeq(all[min(i, len(all)-1)], " ") {
		out = append(out, netip.MustParseAddr(s))
	}
	return out, nil
}

func parse(t *testing.T, entries ...string) Allowed {
	t.Helper()
	a, err := Parse("--metric-addresses", entries)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAllowed(t *testing.T) {
	for _, c := range []struct {
		list, host, port, ip string
		want                 bool
	}{
		{"", "prom", "80", "10.0.0.1", false},
		{"prom", "prom", "80", "10.0.0.1", true},
		{"prom", "prom", "443", "203.0.113.9", true},
		{"prom", "prom", "9090", "10.0.0.1", false},
		{"prom:9090", "prom", "9090", "10.0.0.1", true},
		{"prom:9090", "prom", "80", "10.0.0.1", false},
		{"prom", "other", "80", "10.0.0.1", false},
		{"prom", "sub.prom", "80", "10.0.0.1", false},
		{"prom", "prom", "80", "127.0.0.1", false},
		{"prom", "prom", "80", "::ffff:127.0.0.1", false},
		{"prom", "prom", "80", "169.254.169.254", false},
		{"prom", "prom", "80", "::ffff:169.254.169.254", false},
		{"prom", "prom", "80", "64:ff9b::a9fe:a9fe", false},
		{"prom", "prom", "80", "fd00:ec2::254", false},
		{"prom", "prom", "80", "fe80::1", false},
		{"prom", "prom", "80", "0.0.0.0", false},
		{"prom", "prom", "80", "::", false},
		{"prom", "prom", "80", "224.0.0.1", false},
		{"PROM.corp.", "prom.corp", "80", "10.0.0.1", true},
		{"localhost:9090", "localhost", "9090", "127.0.0.1", true},
		{"127.0.0.1:9090", "127.0.0.1", "9090", "127.0.0.1", true},
		{"127.0.0.1:9090", "127.0.0.1", "9091", "127.0.0.1", false},
		{"[::1]:9090", "::1", "9090", "::1", true},
		{"10.20.0.0/16", "prom", "80", "10.20.3.4", true},
		{"10.20.0.0/16", "prom", "80", "10.21.3.4", false},
		{"10.20.0.0/16:9090", "prom", "9090", "10.20.3.4", true},
		{"[fd12::/16]:9090", "prom", "9090", "fd12::7", true},
		{"0.0.0.0/0", "prom", "80", "203.0.113.9", true},
		{"0.0.0.0/0", "prom", "80", "127.0.0.1", false},
		{"0.0.0.0/0", "prom", "80", "169.254.169.254", false},
		{"::/0", "prom", "80", "::1", false},
	} {
		var entries []string
		if c.list != "" {
			entries = []string{c.list}
		}
		err := parse(t, entries...).address(c.host, c.port, netip.MustParseAddr(c.ip))
		if (err == nil) != c.want || (err != nil && fault.KindOf(err) != fault.Denied) {
			t.Errorf("%q allows %s:%s at %s: %v", c.list, c.host, c.port, c.ip, err)
		}
	}
	for _, bad := range []string{"", "169.254.169.254", "169.254.0.0/16", "fe80::/10", "0.0.0.0", "prom:0", "prom:x", "prom:70000", "http://prom", "a b", "fd00:ec2::254", "*.corp"} {
		if _, err := Parse("--metric-addresses", []string{bad}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q is taken: %v", bad, err)
		}
	}
	for address, want := range map[string]bool{
		"http://prom/x": true, "https://prom/x": true, "http://prom:9090/": true, "http://prom:9091/": false, "http://10.20.0.1:9090/": true, "http://anything:9090/": true,
		"http://anything/": false, "http://169.254.169.254/latest": false, "http://[::ffff:169.254.169.254]/": false, "http://127.0.0.1:9090/": false,
	} {
		a := parse(t, "prom", "10.20.0.0/16:9090")
		u, err := url.Parse(address)
		if err == nil {
			err = a.URL(u)
		}
		if (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
	err := parse(t).URL(&url.URL{Scheme: "http", Host: "prom:9090"})
	if err == nil || !strings.Contains(err.Error(), "--metric-addresses prom:9090") || !strings.Contains(fault.HintOf(err), "dayfly server start --metric-addresses prom:9090") {
		t.Errorf("it does not say what to do: %v", err)
	}
}

// trap is a server of this machine that counts who comes.
func trap(t *testing.T, h http.HandlerFunc) (port string, came *atomic.Int32) {
	t.Helper()
	came = &atomic.Int32{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { came.Add(1); h(w, r) }))
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, came
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	inside, came := trap(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "secret") })
	for _, to := range []string{"http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:" + inside + "/", "http://[::ffff:7f00:1]:" + inside + "/"} {
		port, _ := trap(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) })
		c := parse(t, "127.0.0.1:"+port).Client(&names{}, time.Second)
		res, err := c.Get("http://127.0.0.1:" + port + "/")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusFound {
			t.Errorf("%s: %s", to, res.Status)
		}
		// And a client that follows them does not get there either.
		c.CheckRedirect = nil
		if res, err := c.Get("http://127.0.0.1:" + port + "/"); fault.KindOf(err) != fault.Denied {
			t.Errorf("%s: %v %v", to, res, err)
		}
	}
	if came.Load() != 0 {
		t.Error("a redirect led into this machine")
	}
}

// A name that is allowed by where it is resolves to another place the next time.
func TestRebinding(t *testing.T) {
	port, came := trap(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "1") })
	// 127.0.0.2 stands for a network that is allowed, 127.0.0.1 for one that is not.
	n := &names{of: map[string][]string{"evil.example": {"127.0.0.1", "169.254.169.254", "10.9.9.9 169.254.169.254"}}}
	c := parse(t, "127.0.0.2/32:"+port).Client(n, time.Second)
	for range 4 {
		if res, err := c.Get("http://evil.example:" + port + "/"); fault.KindOf(err) != fault.Denied {
			t.Errorf("%v %v", res, err)
		}
	}
	if n.asked.Load() != 4 || came.Load() != 0 {
		t.Errorf("resolved %d times for 4 requests, reached %d times", n.asked.Load(), came.Load())
	}
	// What is looked at is what is connected to, by one look each: the second
	// answer is never taken for the first request.
	n = &names{of: map[string][]string{"good.example": {"127.0.0.1", "169.254.169.254"}}}
	c = parse(t, "127.0.0.1:"+port).Client(n, time.Second)
	res, err := c.Get("http://good.example:" + port + "/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if n.asked.Load() != 1 || came.Load() != 1 {
		t.Errorf("resolved %d times, reached %d times", n.asked.Load(), came.Load())
	}
	if res, err := c.Get("http://good.example:" + port + "/"); fault.KindOf(err) != fault.Denied || !strings.Contains(err.Error(), "never asked") {
		t.Errorf("%v %v", res, err)
	}
}

func TestNoProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	c := parse(t, "prom").Client(&names{of: map[string][]string{"prom": {"203.0.113.1"}}}, 50*time.Millisecond)
	if tr := c.Transport.(guarded).next.(*http.Transport); tr.Proxy != nil {
		t.Error("a proxy would resolve the name")
	}
}
