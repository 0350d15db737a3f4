package haproxy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/balancer"
)

func backendName(pool string) string { return "p-" + pool }

const (
	noneHTTP = "none-http" // answers 503: all weights are 0
	noneTCP  = "none-tcp"
	// firstCheck is how often a new server is asked until it first succeeds,
	// which counts alone on ALB; the pool's interval holds from then on.
	firstCheck = 150 * time.Millisecond
)

// waitName is the backend where a pool's new servers wait for their first
// success. It has a slot for each of the pool's and no requests: HAProxy cannot
// change a check's interval, and asks a server that leaves maintenance only
// when the next interval is over.
func waitName(pool string) string { return "w-" + pool }

// files are what a process reads at its start.
type files struct {
	config string
	side   map[string]string // name → content, beside the configuration
	maps   map[string][]share
	shape  string // equal shapes differ only in what the socket can change
}

// render writes a record as HAProxy's configuration. dir holds the side files,
// user and group are whom the process becomes.
func render(r *record, dir, user, group string) *files {
	f := &files{side: map[string]string{}, maps: map[string][]share{}}
	var b, body strings.Builder
	var shape []string
	p := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }

	p("# Written by dayfly; changes are overwritten.")
	p("global")
	p("  user %s", user)
	p("  group %s", group)
	p("  chroot %s", filepath.Join(dir, "empty"))
	p("  stats socket %s mode 600 level admin expose-fd listeners", socketPath(dir))
	p("  stats timeout 1h")
	p("  server-state-file %s", filepath.Join(dir, "servers"))
	p("  hard-stop-after 1h")
	p("  spread-checks 0")
	p("  max-spread-checks %s", ms(firstCheck))
	p("")
	p("defaults")
	p("  load-server-state-from-file global")
	p("  timeout connect 10s")
	p("  timeout client 60s")
	p("  timeout server 60s")
	p("  timeout queue 10s")
	// A lost zone takes a third of the servers at once, or half of them: until
	// their checks fail, a request has to get past several.
	p("  retries 7")
	p("  option redispatch 1")
	p("  option dontlognull")
	// A successor takes over often here: an idle connection ends with its next
	// answer, since a client that is just sending on it would see an error.
	p("  option idle-close-on-response")
	p("")
	p("backend %s\n  mode http\n  http-request return status 503 content-type text/html string \"<html><head><title>503 Service Temporarily Unavailable</title></head></html>\"", noneHTTP)
	p("backend %s\n  mode tcp\n  tcp-request content reject", noneTCP)
	p("")
	idle := map[string]time.Duration{}
	source := map[string]netip.Addr{}
	for _, fe := range r.Config.Frontends {
		f.frontend(&body, fe, dir)
		for _, a := range actions(fe) {
			for _, w := range a.Forward {
				idle[w.Pool] = max(idle[w.Pool], fe.Idle)
				if !source[w.Pool].IsValid() {
					source[w.Pool] = fe.Address.Addr()
				}
			}
		}
	}
	for _, cp := range r.Config.Pools {
		if st := r.Pools[cp.ID]; st != nil {
			shape = append(shape, backend(&body, cp, st, idle[cp.ID], source[cp.ID]))
		}
	}
	b.WriteString(body.String())
	f.config = b.String()

	// Servers and weights may change without a reload: they are no part of the
	// shape.
	fronts, _ := json.Marshal(withoutWeights(r.Config.Frontends))
	sum := sha256.Sum256([]byte(strings.Join(append(shape, string(fronts)), "\n")))
	f.shape = "1:" + hex.EncodeToString(sum[:16])
	return f
}

func withoutWeights(in []balancer.Frontend) []balancer.Frontend {
	strip := func(a *balancer.Action) {
		fs := make([]balancer.Weighted, len(a.Forward))
		for i, w := range a.Forward {
			fs[i] = balancer.Weighted{Pool: w.Pool}
		}
		a.Forward = fs
	}
	out := append([]balancer.Frontend(nil), in...)
	for i := range out {
		out[i].Rules = append([]balancer.Rule(nil), out[i].Rules...)
		strip(&out[i].Default)
		for k := range out[i].Rules {
			strip(&out[i].Rules[k].Action)
		}
	}
	return out
}

func actions(fe balancer.Frontend) []balancer.Action {
	var out []balancer.Action
	for _, r := range fe.Rules {
		out = append(out, r.Action)
	}
	return append(out, fe.Default)
}

func ms(d time.Duration) string { return fmt.Sprintf("%dms", max(d.Milliseconds(), 1)) }

func (f *files) frontend(b *strings.Builder, fe balancer.Frontend, dir string) {
	p := func(format string, a ...any) { fmt.Fprintf(b, format+"\n", a...) }
	mode, none := "tcp", noneTCP
	if fe.HTTP {
		mode, none = "http", noneHTTP
	}
	var fixed strings.Builder
	p("frontend f-%s", fe.ID)
	p("  mode %s", mode)
	p("  bind %s", fe.Address)
	p("  timeout client %s", ms(fe.Idle))
	if fe.HTTP {
		p("  timeout http-keep-alive %s", ms(fe.Idle))
		p("  timeout http-request %s", ms(fe.Idle))
		p("  option forwardfor")
		p("  http-request set-header X-Forwarded-Proto http")
		p("  http-request set-header X-Forwarded-Port %%[dst_port]")
	}
	for i, a := range actions(fe) {
		last := i == len(fe.Rules)
		name := fmt.Sprintf("%s-%d", fe.ID, i)
		if last {
			name = fe.ID + "-default"
		}
		cond := ""
		if !last {
			cond = conditions(b, fe.Rules[i], i)
		}
		switch {
		case len(a.Forward) > 0:
			path := filepath.Join(dir, "map-"+name)
			f.maps[path] = shares(a.Forward)
			p("  use_backend %%[rand(1000),map_int(%s,%s)]%s", path, none, cond)
		case !fe.HTTP || a.Status == 0:
			p("  use_backend %s%s", none, cond)
		default:
			kind := a.Type
			if kind == "" {
				kind = "text/plain"
			}
			content := ""
			if a.Body != "" {
				file := "body-" + name
				f.side[file] = a.Body
				content = fmt.Sprintf(" content-type \"%s\" file %s", kind, filepath.Join(dir, file))
			}
			fmt.Fprintf(&fixed, "backend fixed-%s\n  mode http\n  http-request return status %d%s\n", name, a.Status, content)
			p("  use_backend fixed-%s%s", name, cond)
		}
	}
	p("  default_backend %s", none)
	b.WriteString(fixed.String())
	p("")
}

// conditions writes a rule's patterns and returns the condition.
func conditions(b *strings.Builder, r balancer.Rule, i int) string {
	var names []string
	for _, g := range []struct {
		name, fetch string
		globs       []string
	}{
		{"path", "path -m reg", r.Paths},
		{"host", "req.hdr(host),field(1,:) -i -m reg", r.Hosts},
	} {
		if len(g.globs) == 0 {
			continue
		}
		name := fmt.Sprintf("r%d-%s", i, g.name)
		for _, glob := range g.globs {
			fmt.Fprintf(b, "  acl %s %s '%s'\n", name, g.fetch, globToRegexp(glob))
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return ""
	}
	return " if " + strings.Join(names, " ")
}

// globToRegexp turns ALB's * and ? into an anchored expression; everything but
// letters and digits is written as its code, so that nothing needs quoting.
func globToRegexp(glob string) string {
	var b strings.Builder
	b.WriteByte('^')
	for _, c := range []byte(glob) {
		switch {
		case c == '*':
			b.WriteString(".*")
		case c == '?':
			b.WriteByte('.')
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String() + "$"
}

// backend writes a pool and returns what of it needs a reload to change.
func backend(b *strings.Builder, c balancer.Pool, st *pool, idle time.Duration, source netip.Addr) string {
	var s, check strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&s, format+"\n", a...) }
	ck := func(format string, a ...any) { fmt.Fprintf(&check, format+"\n", a...) }
	mode := "tcp"
	if c.HTTP {
		mode = "http"
	}
	ck("  mode %s", mode)
	if source.IsValid() {
		ck("  source %s", source)
	}
	ck("  timeout check %s", ms(c.Check.Timeout))
	if c.Check.Path != "" {
		ck("  option httpchk")
		ck("  http-check send meth GET uri '%s' ver HTTP/1.1 hdr Host balancer hdr User-Agent ELB-HealthChecker/2.0 hdr Connection close", strings.ReplaceAll(c.Check.Path, "'", "%27"))
		ck("  http-check expect status %s", c.Check.Status)
	}
	port := ""
	if c.Check.Port != 0 {
		port = fmt.Sprintf(" port %d", c.Check.Port)
	}

	p("backend %s", backendName(c.ID))
	s.WriteString(check.String())
	p("  balance roundrobin")
	// When no server is up, the backup ones take over: the same addresses,
	// unchecked. So a pool whose targets are all unhealthy fails open.
	p("  option allbackups")
	p("  timeout server %s", ms(idle))
	p("  timeout tunnel %s", ms(idle))
	if c.HTTP {
		// 503 is for a pool with nobody in it; a server that refuses is 502.
		p(`  http-error status 503 content-type text/html string "<html><head><title>503 Service Temporarily Unavailable</title></head></html>" hdr x-dayfly-balancer unreachable`)
		p(`  http-after-response set-status 502 reason "Bad Gateway" if { res.hdr(x-dayfly-balancer) -m found } { nbsrv gt 0 }`)
		p("  http-after-response del-header x-dayfly-balancer")
	}
	p("  default-server check inter %s rise %d fall %d%s", ms(c.Check.Interval), c.Check.Rise, c.Check.Fall, port)
	shape := fmt.Sprintf("%s  slots %d", s.String(), st.Slots)

	used := map[int]*slot{}
	for _, u := range st.Used {
		used[u.N] = u
	}
	for n := 1; n <= st.Slots; n++ {
		addr, off, offBackup := "127.0.0.1:9", " disabled", " disabled"
		if u := used[n]; u != nil {
			addr = u.Address.String()
			if u.Known { // its state is in the state file
				off = ""
				if !u.Draining {
					offBackup = ""
				}
			}
		}
		p("  server s%d %s%s", n, addr, off)
		p("  server b%d %s no-check backup%s", n, addr, offBackup)
	}
	p("backend %s", waitName(c.ID))
	s.WriteString(check.String())
	p("  default-server check inter %s rise 1 fall 1%s", ms(min(firstCheck, c.Check.Interval)), port)
	for n := 1; n <= st.Slots; n++ {
		p("  server s%d 127.0.0.1:9 disabled", n)
	}
	p("")
	b.WriteString(s.String())
	return shape
}

func mapText(ss []share) string {
	var b strings.Builder
	for _, s := range ss {
		fmt.Fprintf(&b, "%d:%d %s\n", s.From, s.To, s.Backend)
	}
	return b.String()
}
