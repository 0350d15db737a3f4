package balancer

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

var (
	nameRE   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`)
	statusRE = regexp.MustCompile(`^[1-5][0-9]{2}(-[1-5][0-9]{2})?(,[1-5][0-9]{2}(-[1-5][0-9]{2})?)*$`)
	typeRE   = regexp.MustCompile(`^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(; *charset=[A-Za-z0-9-]+)?$`)
	pathRE   = regexp.MustCompile(`^/[\x21-\x7e]*$`)
	globRE   = regexp.MustCompile(`^[\x21-\x7e]{1,128}$`)
)

// Limits of one VPC's configuration.
const (
	MaxFrontends = 500
	MaxPools     = 1000
	MaxServers   = 2000 // in one pool
	MaxBody      = 1024
	MaxWeight    = 999
)

// Normal fills in what a configuration leaves out, and refuses what no
// balancer can do. The result shares nothing that is written with the argument.
func (c Config) Normal() (Config, error) {
	bad := func(object, format string, a ...any) error {
		return &fault.Error{Kind: fault.Invalid, Op: "balancer", Object: object, Message: fmt.Sprintf(format, a...)}
	}
	if !nameRE.MatchString(c.VPC) {
		return c, bad(c.VPC, "a VPC's id must be a plain name")
	}
	if len(c.Frontends) > MaxFrontends || len(c.Pools) > MaxPools {
		return c, bad(c.VPC, "at most %d listeners and %d pools", MaxFrontends, MaxPools)
	}
	pools := map[string]bool{} // HTTP?
	c.Pools = append([]Pool(nil), c.Pools...)
	for i := range c.Pools {
		p := &c.Pools[i]
		if _, twice := pools[p.ID]; twice || !nameRE.MatchString(p.ID) {
			return c, bad(p.ID, "a pool's id must be a plain name and unique")
		}
		pools[p.ID] = p.HTTP
		k := &p.Check
		if k.Interval <= 0 {
			k.Interval = 30 * time.Second
		}
		if k.Timeout <= 0 {
			k.Timeout = 5 * time.Second
		}
		k.Rise, k.Fall = max(k.Rise, 1), max(k.Fall, 1)
		if k.Status == "" {
			k.Status = "200"
		}
		switch {
		case k.Path != "" && (!pathRE.MatchString(k.Path) || len(k.Path) > 1024):
			return c, bad(p.ID, "health check path %q is not a path", k.Path)
		case !statusRE.MatchString(k.Status):
			return c, bad(p.ID, "health check matcher %q is not a list of codes or ranges", k.Status)
		case k.Port < 0 || k.Port > 65535 || k.Rise > 100 || k.Fall > 100 || k.Interval > time.Hour || k.Timeout > time.Hour:
			return c, bad(p.ID, "the health check is out of range")
		case p.Drain < 0 || p.Slots < 0 || p.Slots > MaxServers || len(p.Servers) > MaxServers:
			return c, bad(p.ID, "a pool has at most %d servers, and no negative drain time", MaxServers)
		}
		seen := map[string]bool{}
		for _, s := range p.Servers {
			if !nameRE.MatchString(s.ID) || seen[s.ID] {
				return c, bad(p.ID, "server %q must have a plain name and be unique", s.ID)
			}
			seen[s.ID] = true
			if !s.Address.Addr().Is4() || s.Address.Port() == 0 {
				return c, bad(p.ID, "server %s: %s is not an IPv4 address with a port", s.ID, s.Address)
			}
		}
	}
	ids, addrs := map[string]bool{}, map[string]bool{}
	c.Frontends = append([]Frontend(nil), c.Frontends...)
	for i := range c.Frontends {
		f := &c.Frontends[i]
		if !nameRE.MatchString(f.ID) || ids[f.ID] {
			return c, bad(f.ID, "a listener's id must be a plain name and unique")
		}
		if !f.Address.Addr().Is4() || f.Address.Port() == 0 || addrs[f.Address.String()] {
			return c, bad(f.ID, "%s is not an IPv4 address with a port, or another listener's", f.Address)
		}
		ids[f.ID], addrs[f.Address.String()] = true, true
		if f.Idle <= 0 {
			f.Idle = time.Minute
		}
		if !f.HTTP && len(f.Rules) > 0 {
			return c, bad(f.ID, "only an HTTP listener has rules")
		}
		actions := []Action{f.Default}
		for _, r := range f.Rules {
			actions = append(actions, r.Action)
			for _, g := range append(append([]string(nil), r.Paths...), r.Hosts...) {
				if !globRE.MatchString(g) {
					return c, bad(f.ID, "pattern %q is longer than 128 characters or not plain ASCII", g)
				}
			}
		}
		for _, a := range actions {
			if len(a.Forward) == 0 && !f.HTTP && (a.Status != 0 || a.Body != "") {
				return c, bad(f.ID, "only an HTTP listener has fixed responses")
			}
			if a.Status != 0 && (a.Status < 200 || a.Status > 599) {
				return c, bad(f.ID, "a fixed response cannot have status %d", a.Status)
			}
			if len(a.Body) > MaxBody || strings.ContainsRune(a.Body, 0) || a.Type != "" && !typeRE.MatchString(a.Type) {
				return c, bad(f.ID, "a fixed response has at most %d bytes and a content type", MaxBody)
			}
			for _, w := range a.Forward {
				http, ok := pools[w.Pool]
				if !ok {
					return c, bad(f.ID, "pool %q is not known", w.Pool)
				}
				if http != f.HTTP {
					return c, bad(f.ID, "pool %s is of another protocol", w.Pool)
				}
				if w.Weight < 0 || w.Weight > MaxWeight {
					return c, bad(f.ID, "weight %d is not between 0 and %d", w.Weight, MaxWeight)
				}
			}
		}
	}
	return c, nil
}

// Used are the pools that a listener forwards to, with whatever weight.
func (c Config) Used() map[string]bool {
	used := map[string]bool{}
	for _, f := range c.Frontends {
		for _, w := range f.Default.Forward {
			used[w.Pool] = true
		}
		for _, r := range f.Rules {
			for _, w := range r.Forward {
				used[w.Pool] = true
			}
		}
	}
	return used
}
