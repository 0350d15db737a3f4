package outbound

import (
	"context"
	"errors"
	"fmt"
	"io"
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

func direct(*http.Request) (*url.URL, error) { return nil, nil }

// Everywhere is not this machine, nor what is on its link.
func TestAny(t *testing.T) {
	for _, c := range []struct {
		list, host, port, ip string
		want                 bool
	}{
		{"any", "box", "80", "203.0.113.9", true},
		{"any", "box", "8081", "10.0.0.1", true},
		{"any", "box", "80", "100.64.0.9", true},
		{"any", "box", "80", "fd12::1", true},
		{"any", "box", "80", "127.0.0.1", false},
		{"any", "box", "80", "127.8.8.8", false},
		{"any", "box", "80", "::1", false},
		{"any", "box", "80", "::ffff:127.0.0.1", false},
		{"any", "box", "80", "64:ff9b::7f00:1", false},
		{"any", "localhost", "80", "127.0.0.1", false},
		{"any", "box", "80", "169.254.169.254", false},
		{"any", "box", "80", "::ffff:169.254.169.254", false},
		{"any", "box", "80", "64:ff9b::a9fe:a9fe", false},
		{"any", "box", "80", "fd00:ec2::254", false},
		{"any", "box", "80", "0.0.0.0", false},
		{"any:443", "box", "443", "10.0.0.1", true},
		{"any:443", "box", "80", "10.0.0.1", false},
		{"any,127.0.0.1:8088", "127.0.0.1", "8088", "127.0.0.1", true},
		{"any,127.0.0.1:8088", "127.0.0.1", "4580", "127.0.0.1", false},
		{"any,127.0.0.1:8088", "10.0.0.1", "9999", "10.0.0.1", true},
	} {
		a := parse(t, strings.Split(c.list, ",")...)
		if err := a.address(c.host, c.port, netip.MustParseAddr(c.ip)); (err == nil) != c.want || (err != nil && fault.KindOf(err) != fault.Denied) {
			t.Errorf("%q allows %s:%s at %s: %v", c.list, c.host, c.port, c.ip, err)
		}
	}
	err := parse(t, "any").URL(&url.URL{Scheme: "http", Host: "127.0.0.1:8088"})
	if !strings.Contains(fault.HintOf(err), "--metric-addresses any,127.0.0.1:8088") {
		t.Errorf("what it says to do would forbid everything else: %q", fault.HintOf(err))
	}
}

// A client that follows redirects gets nowhere that it may not ask by itself,
// whatever redirects and name servers say.
func TestTransport(t *testing.T) {
	inside, came := trap(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "secret") })
	var to atomic.Value
	port, _ := trap(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/there" {
			fmt.Fprint(w, "there")
			return
		}
		http.Redirect(w, r, to.Load().(string), http.StatusFound)
	})
	n := &names{of: map[string][]string{"meta.example": {"169.254.169.254"}, "meta6.example": {"fd00:ec2::254"}, "home.example": {"127.0.0.1"}}}
	c := &http.Client{Transport: parse(t, "any", "127.0.0.1:"+port).Transport(n, direct, time.Second), Timeout: 5 * time.Second}
	defer c.CloseIdleConnections()
	get := func(address string) (string, error) {
		res, err := c.Get(address)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		raw, err := io.ReadAll(res.Body)
		return string(raw), err
	}
	to.Store("/there")
	if body, err := get("http://127.0.0.1:" + port + "/"); body != "there" || err != nil {
		t.Errorf("%q %v", body, err)
	}
	for _, bad := range []string{
		"http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/latest/", "http://[::ffff:169.254.169.254]/", "http://meta.example/latest/", "http://meta6.example/",
		"http://127.0.0.1:" + inside + "/", "http://home.example:" + inside + "/", "http://[::ffff:7f00:1]:" + inside + "/",
	} {
		to.Store(bad)
		for _, address := range []string{bad, "http://127.0.0.1:" + port + "/"} {
			if body, err := get(address); fault.KindOf(err) != fault.Denied {
				t.Errorf("%s by %s: %q %v", bad, address, body, err)
			}
		}
	}
	if came.Load() != 0 {
		t.Error("it led into this machine")
	}
}

// The operator's proxy may be on this machine, and is asked for names; it is no
// way to addresses that are never asked, nor to itself.
func TestProxy(t *testing.T) {
	port, came := trap(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "by proxy: ", r.URL) })
	by := func(r *http.Request) (*url.URL, error) {
		if r.URL.Hostname() == "127.0.0.1" {
			return nil, nil // as http.ProxyFromEnvironment does
		}
		return &url.URL{Scheme: "http", Host: "127.0.0.1:" + port}, nil
	}
	a := parse(t, "any")
	c := &http.Client{Transport: a.Transport(&names{}, by, time.Second)}
	defer c.CloseIdleConnections()
	res, err := c.Get("http://box.corp.example/LATEST")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	for _, bad := range []string{"http://169.254.169.254/latest/", "http://127.0.0.1:" + port + "/"} {
		if res, err := c.Get(bad); fault.KindOf(err) != fault.Denied {
			t.Errorf("%s: %v %v", bad, res, err)
		}
	}
	if came.Load() != 1 {
		t.Errorf("the proxy was asked %d times", came.Load())
	}
	if ips, err := a.Addresses(t.Context(), &names{}, by, &url.URL{Scheme: "https", Host: "git.corp.example"}); len(ips) > 0 || err != nil {
		t.Errorf("%v %v", ips, err)
	}
}

func TestAddresses(t *testing.T) {
	n := func() *names {
		return &names{of: map[string][]string{"git.example": {"10.0.0.1 169.254.169.254 ::ffff:10.0.0.2 127.0.0.1"}, "evil.example": {"169.254.169.254 127.0.0.1"}}}
	}
	a := parse(t, "any")
	ips, err := a.Addresses(t.Context(), n(), direct, &url.URL{Scheme: "https", Host: "git.example"})
	if fmt.Sprint(ips) != "[10.0.0.1 10.0.0.2]" || err != nil {
		t.Errorf("%v %v", ips, err)
	}
	for _, bad := range []string{"evil.example", "169.254.169.254", "127.0.0.1:22"} {
		if ips, err := a.Addresses(t.Context(), n(), direct, &url.URL{Scheme: "ssh", Host: bad}); fault.KindOf(err) != fault.Denied {
			t.Errorf("%s: %v %v", bad, ips, err)
		}
	}
	if ips, err := a.Addresses(t.Context(), n(), direct, &url.URL{Scheme: "ssh", Host: "unknown"}); err == nil || fault.KindOf(err) == fault.Denied {
		t.Errorf("%v %v", ips, err)
	}
}
