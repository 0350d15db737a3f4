// Package sim balances in memory: the same checks of its input, rules, weights
// and states of health as balancer/haproxy, with health and time injected. Get
// stands for a request. It must not open sockets.
package sim

import (
	"context"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/balancer"
)

// Balancer is a simulated balancer.Balancer.
type Balancer struct {
	// Check is a health check: nil error is a success, else its text is the
	// detail. nil = every check succeeds.
	Check func(vpc string, p balancer.Pool, s balancer.Server) error
	// Took is how long a server takes to answer; nil = no time.
	Took func(vpc string, s balancer.Server) time.Duration
	// Sessions is how many requests a server has now; nil = none.
	Sessions func(vpc string, s balancer.Server) int
	// Fail, where set, is asked before every call; its error is the answer.
	Fail func(op, vpc string) error

	clock clock.Clock
	mu    sync.Mutex
	vpcs  map[string]*vpc
}

var _ balancer.Balancer = (*Balancer)(nil)

type vpc struct {
	config balancer.Config
	pools  map[string][]*server
	stats  map[string]*balancer.Stats
	turn   int // of round robin and of weights
}

type server struct {
	balancer.Server
	since    time.Time // first check
	checked  int       // checks until now, at their interval
	inRow    int       // successes (+) or failures (-) in a row
	health   balancer.Health
	detail   string
	removed  bool
	until    time.Time
	everGood bool
}

// New is an empty balancer.
func New(c clock.Clock) *Balancer {
	if c == nil {
		c = clock.Real{}
	}
	return &Balancer{clock: c, vpcs: map[string]*vpc{}}
}

func (b *Balancer) begin(op, id string) error {
	if b.Fail == nil {
		return nil
	}
	return b.Fail(op, id)
}

// Apply makes a VPC's balancing what c says.
func (b *Balancer) Apply(ctx context.Context, c balancer.Config) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := c.Normal()
	if err != nil {
		return err
	}
	if err := b.begin("Apply", c.VPC); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock.Now()
	v := b.vpcs[c.VPC]
	if v == nil {
		v = &vpc{pools: map[string][]*server{}, stats: map[string]*balancer.Stats{}}
		b.vpcs[c.VPC] = v
	}
	b.step(v, now)
	used := c.Used()
	pools := map[string][]*server{}
	for _, p := range c.Pools {
		if used[p.ID] {
			pools[p.ID] = merge(v.pools[p.ID], p, now)
			if v.stats[p.ID] == nil {
				v.stats[p.ID] = &balancer.Stats{Pool: p.ID}
			}
		}
	}
	v.config, v.pools = c, pools
	b.step(v, now)
	return nil
}

func merge(old []*server, p balancer.Pool, now time.Time) []*server {
	var out []*server
	for _, o := range old {
		i := slices.IndexFunc(p.Servers, func(s balancer.Server) bool { return s.ID == o.ID && s.Address == o.Address })
		switch {
		case i >= 0:
			o.removed, o.Draining = false, p.Servers[i].Draining
		case !o.removed:
			o.removed, o.until = true, now.Add(p.Drain)
		}
		out = append(out, o)
	}
	for _, s := range p.Servers {
		if !slices.ContainsFunc(out, func(o *server) bool { return o.ID == s.ID && o.Address == s.Address }) {
			out = append(out, &server{Server: s, since: now, health: balancer.Initial})
		}
	}
	return out
}

// step does the checks and drains that are due.
func (b *Balancer) step(v *vpc, now time.Time) {
	for _, p := range v.config.Pools {
		v.pools[p.ID] = slices.DeleteFunc(v.pools[p.ID], func(s *server) bool {
			return s.removed && (b.sessions(v, s) == 0 || !now.Before(s.until))
		})
		for _, s := range v.pools[p.ID] {
			for due := int(now.Sub(s.since)/p.Check.Interval) + 1; s.checked < due; s.checked++ {
				b.check(v, p, s)
			}
			// Until its first success a server is asked all the time.
			if !s.everGood {
				b.check(v, p, s)
				if s.health == balancer.Initial && s.checked > p.Check.Fall {
					s.health = balancer.Unhealthy
				}
			}
		}
		if len(v.pools[p.ID]) == 0 {
			delete(v.pools, p.ID)
		}
	}
}

func (b *Balancer) check(v *vpc, p balancer.Pool, s *server) {
	var err error
	if b.Check != nil {
		err = b.Check(v.config.VPC, p, s.Server)
	}
	if err == nil {
		s.inRow, s.detail = max(s.inRow, 0)+1, ""
		if !s.everGood && s.health == balancer.Initial || s.inRow >= p.Check.Rise {
			s.health, s.everGood = balancer.Healthy, true
		}
		return
	}
	s.inRow, s.detail = min(s.inRow, 0)-1, err.Error()
	if s.health == balancer.Healthy && -s.inRow >= p.Check.Fall {
		s.health = balancer.Unhealthy
	}
}

func (b *Balancer) sessions(v *vpc, s *server) int {
	if b.Sessions == nil {
		return 0
	}
	return b.Sessions(v.config.VPC, s.Server)
}

// Get is a request to a listener: the status of the answer and the server that
// gave it, "" where the balancer did itself.
func (b *Balancer) Get(id string, listener netip.AddrPort, host, path string) (int, string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.vpcs[id]
	if v == nil {
		return 0, ""
	}
	b.step(v, b.clock.Now())
	i := slices.IndexFunc(v.config.Frontends, func(f balancer.Frontend) bool { return f.Address == listener })
	if i < 0 {
		return 0, ""
	}
	f := v.config.Frontends[i]
	action := f.Default
	for _, r := range f.Rules {
		if matches(r.Paths, path, false) && matches(r.Hosts, host, true) {
			action = r.Action
			break
		}
	}
	if len(action.Forward) == 0 {
		return max(action.Status, 0) + map[bool]int{true: 503}[action.Status == 0], ""
	}
	v.turn++
	pool := pick(action.Forward, v.turn)
	if pool == "" {
		return 503, ""
	}
	st := v.stats[pool]
	st.Requests++
	s := choose(v.pools[pool], v.turn)
	if s == nil {
		st.Status5xx++
		return 503, ""
	}
	st.Status2xx++
	if b.Took != nil {
		st.Took += b.Took(id, s.Server)
	}
	return 200, s.ID
}

// pick spreads turns by weight.
func pick(fs []balancer.Weighted, turn int) string {
	total := 0
	for _, f := range fs {
		total += f.Weight
	}
	if total == 0 {
		return ""
	}
	at := turn * 7919 % total // a prime, so that equal weights alternate
	for _, f := range fs {
		if at < f.Weight {
			return f.Pool
		}
		at -= f.Weight
	}
	return ""
}

// choose takes a healthy server in turn or, where none is, an unhealthy one.
func choose(all []*server, turn int) *server {
	for _, want := range []balancer.Health{balancer.Healthy, balancer.Unhealthy} {
		var in []*server
		for _, s := range all {
			if s.health == want && !s.removed && !s.Draining {
				in = append(in, s)
			}
		}
		if len(in) > 0 {
			return in[turn%len(in)]
		}
	}
	return nil
}

func matches(globs []string, s string, fold bool) bool {
	if len(globs) == 0 {
		return true
	}
	if fold {
		s, _, _ = strings.Cut(s, ":")
	}
	return slices.ContainsFunc(globs, func(g string) bool {
		e := regexp.QuoteMeta(g)
		e = "^" + strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(e) + "$"
		if fold {
			e = "(?i)" + e
		}
		ok, err := regexp.MatchString(e, s)
		return err == nil && ok
	})
}

// Remove ends a VPC's balancing.
func (b *Balancer) Remove(_ context.Context, id string) error {
	if err := b.begin("Remove", id); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.vpcs, id)
	return nil
}

func unknown(id string) error {
	return &fault.Error{Kind: fault.NotFound, Op: "balancer", Object: id, Message: "this VPC has no balancer"}
}

// Health tells how a VPC's servers are.
func (b *Balancer) Health(_ context.Context, id string) ([]balancer.ServerHealth, error) {
	if err := b.begin("Health", id); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.vpcs[id]
	if v == nil {
		return nil, unknown(id)
	}
	b.step(v, b.clock.Now())
	used := v.config.Used()
	var out []balancer.ServerHealth
	for _, p := range v.config.Pools {
		if !used[p.ID] {
			for _, s := range p.Servers {
				out = append(out, balancer.ServerHealth{Pool: p.ID, Server: s.ID, Health: balancer.Unused})
			}
			continue
		}
		for _, s := range v.pools[p.ID] {
			h := balancer.ServerHealth{Pool: p.ID, Server: s.ID, Health: s.health, Detail: s.detail, Sessions: b.sessions(v, s)}
			if s.removed || s.Draining {
				h.Health, h.Detail = balancer.Draining, ""
			}
			out = append(out, h)
		}
	}
	return out, nil
}

// Stats counts each pool's requests.
func (b *Balancer) Stats(_ context.Context, id string) ([]balancer.Stats, error) {
	if err := b.begin("Stats", id); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.vpcs[id]
	if v == nil {
		return nil, unknown(id)
	}
	used := v.config.Used()
	var out []balancer.Stats
	for _, p := range v.config.Pools {
		if used[p.ID] {
			out = append(out, *v.stats[p.ID])
		}
	}
	return out, nil
}

// VPCs lists what runs.
func (b *Balancer) VPCs(context.Context) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for id := range b.vpcs {
		out = append(out, id)
	}
	slices.Sort(out)
	return out, nil
}

// Close does nothing.
func (b *Balancer) Close() error { return nil }
