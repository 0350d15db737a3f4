// Package conformance is what every balancer.Balancer must do, as tests: that
// of HAProxy proves it with requests, the simulation with its decisions. It
// knows neither.
package conformance

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/balancer"
)

// Target is a balancer under test.
type Target struct {
	balancer.Balancer
	VPC string
	// Serve starts a server that answers with its id, and its health check
	// at /health; healthy says how that goes.
	Serve func(t *testing.T, id string, healthy bool) Server
	// Address is a fresh address for a listener.
	Address func() netip.AddrPort
	// Get asks a listener; server is "" where the balancer itself answered.
	Get func(t *testing.T, listener netip.AddrPort, host, path string) (status int, server string)
	// Wait lets a little time pass.
	Wait func()
}

// Server is a target of the test's.
type Server struct {
	ID      string
	Addr    netip.AddrPort
	Healthy func(bool)
	Slow    func(time.Duration) // how long it takes to answer, from now on
}

// Run tests a balancer; fresh makes an empty one.
func Run(t *testing.T, fresh func(t *testing.T) Target) {
	t.Run("forwards", func(t *testing.T) { forwards(t, fresh(t)) })
	t.Run("weights", func(t *testing.T) { weights(t, fresh(t)) })
	t.Run("health", func(t *testing.T) { health(t, fresh(t)) })
	t.Run("times", func(t *testing.T) { times(t, fresh(t)) })
	t.Run("lifecycle", func(t *testing.T) { lifecycle(t, fresh(t)) })
	t.Run("refusals", func(t *testing.T) { refusals(t, fresh(t)) })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Check is the health check that the suite's pools have.
var Check = balancer.Check{Path: "/health", Interval: 200 * time.Millisecond, Timeout: time.Second, Rise: 3, Fall: 2}

// Pool is an HTTP pool of servers.
func Pool(id string, ss ...Server) balancer.Pool {
	p := balancer.Pool{ID: id, HTTP: true, Check: Check, Drain: 5 * time.Second}
	for _, s := range ss {
		p.Servers = append(p.Servers, balancer.Server{ID: s.ID, Address: s.Addr})
	}
	return p
}

// Forward is an action to pools with weights.
func Forward(ws ...any) balancer.Action {
	var a balancer.Action
	for i := 0; i < len(ws); i += 2 {
		a.Forward = append(a.Forward, balancer.Weighted{Pool: ws[i].(string), Weight: ws[i+1].(int)})
	}
	return a
}

// Await waits until a server of a pool has a health.
func Await(t *testing.T, b Target, pool, server string, want balancer.Health) balancer.ServerHealth {
	t.Helper()
	var last []balancer.ServerHealth
	for range 500 {
		all, err := b.Health(t.Context(), b.VPC)
		must(t, err)
		for _, h := range all {
			if h.Pool == pool && h.Server == server && h.Health == want {
				return h
			}
		}
		last = all
		b.Wait()
	}
	t.Fatalf("%s of %s never became %s: %+v", server, pool, want, last)
	return balancer.ServerHealth{}
}

// expect asks until the answer is the wanted one.
func expect(t *testing.T, b Target, l netip.AddrPort, host, path string, status int, server string) {
	t.Helper()
	var gotStatus int
	var got string
	for range 100 {
		if gotStatus, got = b.Get(t, l, host, path); gotStatus == status && got == server {
			return
		}
		b.Wait()
	}
	t.Errorf("%s %s%s answers %d from %q, want %d from %q", l, host, path, gotStatus, got, status, server)
}

func forwards(t *testing.T, b Target) {
	ctx := t.Context()
	web, api, spare := b.Serve(t, "web-1", true), b.Serve(t, "api-1", true), b.Serve(t, "spare-1", true)
	l := b.Address()
	c := balancer.Config{VPC: b.VPC,
		Pools: []balancer.Pool{Pool("web", web), Pool("api", api), Pool("spare", spare), Pool("empty")},
		Frontends: []balancer.Frontend{{ID: "http", Address: l, HTTP: true, Default: Forward("web", 1), Rules: []balancer.Rule{
			{Paths: []string{"/api/*", "/v?/x"}, Action: Forward("api", 10)},
			{Hosts: []string{"*.Docs.example"}, Action: balancer.Action{Status: 404, Body: "it's \"gone\"\n%[x] ${HOME}", Type: "text/plain"}},
			{Paths: []string{"/both"}, Hosts: []string{"a.example", "b.example"}, Action: Forward("api", 1)},
			{Paths: []string{"/empty"}, Action: Forward("empty", 1)},
			{Paths: []string{"/zero"}, Action: Forward("web", 0, "api", 0)},
			{Paths: []string{"/q's+(.)$&@:~"}, Action: balancer.Action{Status: 418}},
		}}}}
	must(t, b.Apply(ctx, c))
	Await(t, b, "web", "web-1", balancer.Healthy)
	Await(t, b, "api", "api-1", balancer.Healthy)
	Await(t, b, "spare", "spare-1", balancer.Unused)
	for _, q := range []struct {
		host, path string
		status     int
		server     string
	}{
		{"x.example", "/", 200, "web-1"},
		{"x.example", "/api/users", 200, "api-1"},
		{"x.example", "/api", 200, "web-1"},
		{"x.example", "/API/users", 200, "web-1"},
		{"x.example", "/v1/x", 200, "api-1"},
		{"x.example", "/v12/x", 200, "web-1"},
		{"www.docs.EXAMPLE:8080", "/", 404, ""},
		{"docs.example", "/", 200, "web-1"},
		{"a.example", "/both", 200, "api-1"},
		{"c.example", "/both", 200, "web-1"},
		{"x.example", "/empty", 503, ""},
		{"x.example", "/zero", 503, ""},
		{"x.example", "/q's+(.)$&@:~", 418, ""},
		{"x.example", "/q's+(x)$&@:~", 200, "web-1"},
	} {
		expect(t, b, l, q.host, q.path, q.status, q.server)
	}
	stats, err := b.Stats(ctx, b.VPC)
	must(t, err)
	i := slices.IndexFunc(stats, func(s balancer.Stats) bool { return s.Pool == "api" })
	if i < 0 || stats[i].Requests < 3 || stats[i].Status2xx < 3 {
		t.Errorf("statistics: %+v", stats)
	}
}

func weights(t *testing.T, b Target) {
	ctx := t.Context()
	blue, green := b.Serve(t, "blue-1", true), b.Serve(t, "green-1", true)
	l := b.Address()
	config := func(wb, wg int) balancer.Config {
		return balancer.Config{VPC: b.VPC, Pools: []balancer.Pool{Pool("blue", blue), Pool("green", green)},
			Frontends: []balancer.Frontend{{ID: "http", Address: l, HTTP: true, Default: Forward("blue", wb, "green", wg)}}}
	}
	must(t, b.Apply(ctx, config(1, 0)))
	Await(t, b, "blue", "blue-1", balancer.Healthy)
	Await(t, b, "green", "green-1", balancer.Healthy) // at weight 0 it is checked
	for _, c := range []struct {
		wb, wg   int
		min, max int // percent to green
	}{{1, 0, 0, 0}, {50, 50, 30, 70}, {9, 1, 1, 25}, {0, 999, 100, 100}, {1, 0, 0, 0}} {
		must(t, b.Apply(ctx, config(c.wb, c.wg)))
		n := 0
		const of = 200
		for range of {
			if _, s := b.Get(t, l, "x", "/"); s == "green-1" {
				n++
			}
		}
		if p := n * 100 / of; p < c.min || p > c.max {
			t.Errorf("weights %d:%d send %d%% to green, want %d to %d", c.wb, c.wg, p, c.min, c.max)
		}
	}
	must(t, b.Apply(ctx, config(0, 0)))
	expect(t, b, l, "x", "/", 503, "")
}

func health(t *testing.T, b Target) {
	ctx := t.Context()
	s1, s2 := b.Serve(t, "s-1", true), b.Serve(t, "s-2", false)
	l := b.Address()
	config := func(ss ...Server) balancer.Config {
		return balancer.Config{VPC: b.VPC, Pools: []balancer.Pool{Pool("p", ss...)},
			Frontends: []balancer.Frontend{{ID: "http", Address: l, HTTP: true, Default: Forward("p", 1)}}}
	}
	must(t, b.Apply(ctx, config(s1, s2)))
	Await(t, b, "p", "s-1", balancer.Healthy)
	for range 20 { // not the one that has not passed its first check
		if _, s := b.Get(t, l, "x", "/"); s != "s-1" {
			t.Fatalf("%q answered, want s-1", s)
		}
	}
	if h := Await(t, b, "p", "s-2", balancer.Unhealthy); h.Detail != "HTTP 500" {
		t.Errorf("detail %q, want HTTP 500", h.Detail)
	}
	s2.Healthy(true)
	Await(t, b, "p", "s-2", balancer.Healthy)
	expect(t, b, l, "x", "/", 200, "s-2")
	s1.Healthy(false)
	Await(t, b, "p", "s-1", balancer.Unhealthy)
	for range 20 {
		if _, s := b.Get(t, l, "x", "/"); s != "s-2" {
			t.Fatalf("%q answered, want s-2", s)
		}
	}
	// Nobody is healthy: it fails open.
	s2.Healthy(false)
	Await(t, b, "p", "s-2", balancer.Unhealthy)
	expect(t, b, l, "x", "/", 200, "s-1")
	expect(t, b, l, "x", "/", 200, "s-2")
	// And closes again.
	s2.Healthy(true)
	Await(t, b, "p", "s-2", balancer.Healthy)
	for range 20 {
		if _, s := b.Get(t, l, "x", "/"); s != "s-2" {
			t.Fatalf("%q answered, want s-2", s)
		}
	}
	// A draining server has no new requests, one that left has none at all.
	c := config(s1, s2)
	s1.Healthy(true)
	Await(t, b, "p", "s-1", balancer.Healthy)
	c.Pools[0].Servers[1].Draining = true
	must(t, b.Apply(ctx, c))
	Await(t, b, "p", "s-2", balancer.Draining)
	for range 20 {
		if _, s := b.Get(t, l, "x", "/"); s != "s-1" {
			t.Fatalf("%q answered, want s-1", s)
		}
	}
	must(t, b.Apply(ctx, config(s2))) // back, and the other out
	Await(t, b, "p", "s-2", balancer.Healthy)
	for range 20 {
		if _, s := b.Get(t, l, "x", "/"); s != "s-2" {
			t.Fatalf("%q answered, want s-2", s)
		}
	}
	for range 100 {
		all, err := b.Health(ctx, b.VPC)
		must(t, err)
		if len(all) == 1 {
			return
		}
		b.Wait()
	}
	t.Error("the removed server did not go though it has no requests")
}

// times: what servers took is told by pool, and goes on when a listener comes.
func times(t *testing.T, b Target) {
	quick, slow := b.Serve(t, "quick", true), b.Serve(t, "slow", true)
	const takes, of = 100 * time.Millisecond, 6
	slow.Slow(takes)
	l, other := b.Address(), b.Address()
	c := balancer.Config{VPC: b.VPC, Pools: []balancer.Pool{Pool("quick", quick), Pool("slow", slow)}, Frontends: []balancer.Frontend{
		{ID: "http", Address: l, HTTP: true, Default: Forward("quick", 1), Rules: []balancer.Rule{{Paths: []string{"/slow"}, Action: Forward("slow", 1)}}}}}
	must(t, b.Apply(t.Context(), c))
	Await(t, b, "quick", "quick", balancer.Healthy)
	Await(t, b, "slow", "slow", balancer.Healthy)
	for asked := range 2 {
		for range of {
			b.Get(t, l, "x", "/")
			b.Get(t, l, "x", "/slow")
		}
		list, err := b.Stats(t.Context(), b.VPC)
		must(t, err)
		got := map[string]balancer.Stats{}
		for _, s := range list {
			got[s.Pool] = s
		}
		n := int64(of * (asked + 1))
		if s := got["slow"]; s.Requests != n || s.Took < time.Duration(n)*takes || s.Took > time.Duration(n)*takes*10 {
			t.Errorf("%d requests of %s: %+v", n, takes, s)
		}
		if s := got["quick"]; s.Requests != n || s.Took >= got["slow"].Took {
			t.Errorf("%d quick requests: %+v", n, s)
		}
		c.Frontends = append(c.Frontends[:1], balancer.Frontend{ID: "other", Address: other, HTTP: true, Default: Forward("quick", 1)})
		must(t, b.Apply(t.Context(), c))
	}
}

func lifecycle(t *testing.T, b Target) {
	ctx := t.Context()
	for range 2 {
		s := b.Serve(t, "s-1", true)
		l := b.Address()
		c := balancer.Config{VPC: b.VPC, Pools: []balancer.Pool{Pool("p", s)},
			Frontends: []balancer.Frontend{{ID: "http", Address: l, HTTP: true, Default: Forward("p", 1)}}}
		for range 2 {
			must(t, b.Apply(ctx, c))
			if ids, err := b.VPCs(ctx); err != nil || !slices.Equal(ids, []string{b.VPC}) {
				t.Errorf("VPCs: %v, %v", ids, err)
			}
		}
		expect(t, b, l, "x", "/", 200, "s-1")
		must(t, b.Apply(ctx, balancer.Config{VPC: b.VPC})) // nothing to balance
		must(t, b.Remove(ctx, b.VPC))
		must(t, b.Remove(ctx, b.VPC))
		if ids, err := b.VPCs(ctx); err != nil || len(ids) > 0 {
			t.Errorf("VPCs after Remove: %v, %v", ids, err)
		}
		if _, err := b.Health(ctx, b.VPC); fault.KindOf(err) != fault.NotFound {
			t.Errorf("Health after Remove: %v", err)
		}
	}
}

func refusals(t *testing.T, b Target) {
	a := netip.MustParseAddrPort("10.0.0.1:80")
	base := func(fn func(*balancer.Config)) balancer.Config {
		c := balancer.Config{VPC: b.VPC, Pools: []balancer.Pool{{ID: "p", HTTP: true}},
			Frontends: []balancer.Frontend{{ID: "f", Address: a, HTTP: true, Default: Forward("p", 1)}}}
		fn(&c)
		return c
	}
	for name, fn := range map[string]func(*balancer.Config){
		"VPC with a path":        func(c *balancer.Config) { c.VPC = "../x" },
		"pool with a newline":    func(c *balancer.Config) { c.Pools[0].ID = "p\nlisten x" },
		"two pools of a name":    func(c *balancer.Config) { c.Pools = append(c.Pools, c.Pools[0]) },
		"listener of no pool":    func(c *balancer.Config) { c.Frontends[0].Default = Forward("q", 1) },
		"listener with a space":  func(c *balancer.Config) { c.Frontends[0].ID = "f f" },
		"two at an address":      func(c *balancer.Config) { f := c.Frontends[0]; f.ID = "g"; c.Frontends = append(c.Frontends, f) },
		"protocols that differ":  func(c *balancer.Config) { c.Frontends[0].HTTP = false },
		"weight too large":       func(c *balancer.Config) { c.Frontends[0].Default = Forward("p", 1000) },
		"weight below zero":      func(c *balancer.Config) { c.Frontends[0].Default = Forward("p", -1) },
		"check path with a line": func(c *balancer.Config) { c.Pools[0].Check.Path = "/x\n  bad" },
		"check matcher":          func(c *balancer.Config) { c.Pools[0].Check.Status = "2xx" },
		"content type":           func(c *balancer.Config) { c.Frontends[0].Default = balancer.Action{Status: 200, Type: "a\"b"} },
		"fixed status":           func(c *balancer.Config) { c.Frontends[0].Default = balancer.Action{Status: 99} },
		"pattern with a newline": func(c *balancer.Config) {
			c.Frontends[0].Rules = []balancer.Rule{{Paths: []string{"/a\nb"}, Action: Forward("p", 1)}}
		},
		"server of IPv6": func(c *balancer.Config) {
			c.Pools[0].Servers = []balancer.Server{{ID: "s", Address: netip.MustParseAddrPort("[::1]:80")}}
		},
		"server twice": func(c *balancer.Config) {
			c.Pools[0].Servers = []balancer.Server{{ID: "s", Address: a}, {ID: "s", Address: a}}
		},
	} {
		if err := b.Apply(t.Context(), base(fn)); fault.KindOf(err) != fault.Invalid || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if ids, err := b.VPCs(t.Context()); err != nil || len(ids) > 0 {
		t.Error(fmt.Errorf("refused configurations run: %v, %w", ids, err))
	}
}
