package haproxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/balancer"
)

// How often a VPC is looked at while something in it changes by itself.
const glance = 30 * time.Millisecond

// restFor is how much longer than a look the rest after it is: with twenty pools
// that fill at once the process would do nothing else.
const restFor = 4

// tend watches over new servers' first checks and over drains, while there are
// any. With no daemon the process does the same by itself, only slower: a new
// server then needs all its checks, and a drained one stays where it is.
func (b *Balancer) tend(v *vpc) {
	for {
		select {
		case <-b.stop:
			return
		case <-v.gone:
			return
		case <-v.wake:
		}
		for {
			v.mu.Lock()
			more := !v.dead && v.rec.restless()
			var err error
			began := b.cfg.Clock.Now()
			if more {
				err = b.look(v)
			}
			v.mu.Unlock()
			if !more {
				break
			}
			wait := max(glance, restFor*b.cfg.Clock.Now().Sub(began))
			if err != nil {
				b.cfg.Log.Warn("a balancer cannot be looked after", "vpc", v.id, "error", err)
				wait = time.Second
			}
			select {
			case <-b.stop:
				return
			case <-v.gone:
				return
			case <-b.after(wait):
			}
		}
	}
}

// look does what is due in one VPC.
func (b *Balancer) look(v *vpc) error {
	now := b.cfg.Clock.Now()
	var commands []string
	var later []func()
	elder := v.elders()
	for _, id := range slices.Sorted(maps.Keys(v.rec.Pools)) {
		p, be := v.rec.Pools[id], backendName(id)
		fresh, leaving := false, false
		for _, s := range p.Used {
			fresh = fresh || s.Live && !s.Known
			leaving = leaving || s.Removed
		}
		if fresh {
			state, err := servers(v.dir, waitName(id))
			if err != nil {
				return err
			}
			check := v.check(id)
			for _, s := range p.Used {
				if !s.Live || s.Known {
					continue
				}
				up := state[fmt.Sprintf("s%d", s.N)].up
				if !up && now.Sub(s.Since) <= time.Duration(check.Fall)*check.Interval {
					continue
				}
				if !up {
					s.Why = v.why(id, s.N)
				}
				commands = append(commands, enter(id, s, up)...)
				later = append(later, func() { s.Known = true })
			}
		}
		if !leaving {
			continue
		}
		conns, err := busy(v.dir, be)
		if err != nil {
			return err
		}
		for _, s := range p.Used {
			if !s.Removed {
				continue
			}
			name, backup := fmt.Sprintf("s%d", s.N), fmt.Sprintf("b%d", s.N)
			if s.Live && now.Before(s.Until) && (conns[name]+conns[backup] > 0 || elder(s)) {
				continue
			}
			commands = append(commands, fmt.Sprintf("set server %s/%s state maint", waitName(id), name))
			for _, n := range []string{name, backup} {
				commands = append(commands,
					fmt.Sprintf("set server %s/%s state maint", be, n),
					fmt.Sprintf("shutdown sessions server %s/%s", be, n))
			}
			later = append(later, func() {
				p.Used = slices.DeleteFunc(p.Used, func(o *slot) bool { return o == s })
			})
		}
	}
	if len(later) == 0 {
		return nil
	}
	if err := order(v.dir, commands); err != nil {
		return err
	}
	for _, fn := range later {
		fn()
	}
	return v.save()
}

// why says what the first checks of a server found.
func (v *vpc) why(pool string, n int) string {
	rows, err := stats(v.dir, 4)
	if err != nil {
		return ""
	}
	for _, r := range rows {
		if r[pxname] == waitName(pool) && r[svname] == fmt.Sprintf("s%d", n) {
			return detail(&r)
		}
	}
	return ""
}

func (v *vpc) check(pool string) balancer.Check {
	for _, p := range v.rec.Config.Pools {
		if p.ID == pool {
			return p.Check
		}
	}
	return balancer.Check{}
}

// Health tells how a VPC's servers are.
func (b *Balancer) Health(_ context.Context, id string) ([]balancer.ServerHealth, error) {
	v := b.lookup(id)
	if v == nil {
		return nil, &fault.Error{Kind: fault.NotFound, Op: "balancer", Object: id, Message: "this VPC has no balancer"}
	}
	defer v.mu.Unlock()
	rows, err := stats(v.dir, 4)
	if err != nil {
		return nil, fmt.Errorf("balancer: %s: %w", id, err)
	}
	type name struct{ pool, server string }
	byName := make(map[name]*stat, len(rows))
	for k := range rows {
		byName[name{rows[k][pxname], rows[k][svname]}] = &rows[k]
	}
	row := func(pool, kind string, n int) *stat {
		if r := byName[name{pool, kind + strconv.Itoa(n)}]; r != nil {
			return r
		}
		return &stat{}
	}
	var out []balancer.ServerHealth
	elder := v.elders()
	for _, cp := range v.rec.Config.Pools {
		p := v.rec.Pools[cp.ID]
		if p == nil {
			for _, s := range cp.Servers {
				out = append(out, balancer.ServerHealth{Pool: cp.ID, Server: s.ID, Health: balancer.Unused})
			}
			continue
		}
		be, wait := backendName(cp.ID), waitName(cp.ID)
		var conns map[string]int
		if slices.ContainsFunc(p.Used, func(s *slot) bool { return s.Removed || s.Draining }) {
			// A part of what drains is in maintenance.
			if conns, err = busy(v.dir, be); err != nil {
				return nil, fmt.Errorf("balancer: %s: %w", id, err)
			}
		}
		for _, s := range p.Used {
			r, open := row(be, "s", s.N), row(be, "b", s.N)
			h := balancer.ServerHealth{Pool: cp.ID, Server: s.Server, Sessions: int(r.int(scur) + open.int(scur))}
			up := strings.HasPrefix(r[status], "UP")
			switch {
			case s.Removed || s.Draining:
				h.Health = balancer.Draining
				h.Sessions = max(h.Sessions, conns[fmt.Sprintf("s%d", s.N)]+conns[fmt.Sprintf("b%d", s.N)])
				if h.Sessions == 0 && elder(s) {
					h.Sessions = 1 // at least: nobody may end it
				}
			case up && s.Known:
				h.Health = balancer.Healthy
			case s.Known:
				h.Health, h.Detail = balancer.Unhealthy, detail(r)
				if h.Detail == "" { // not asked since it entered
					h.Detail = s.Why
				}
			default:
				h.Health, h.Detail = balancer.Initial, detail(row(wait, "s", s.N))
			}
			out = append(out, h)
		}
	}
	return out, nil
}

// detail says in words what a check found.
func detail(r *stat) string {
	found := strings.TrimPrefix(r[checkStatus], "* ")
	switch {
	case strings.HasSuffix(found, "TOUT"):
		return "timeout"
	case found == "L4CON":
		if strings.Contains(strings.ToLower(r[lastChk]), "route") {
			return "no route to host"
		}
		return "connection refused"
	case found == "L7STS":
		return "HTTP " + r[checkCode]
	case found == "L7RSP", found == "L6RSP":
		return "invalid response"
	case found == "SOCKERR":
		return "connection failed"
	}
	return ""
}

// counted are the pools' numbers, with those of earlier processes; on an error
// these alone.
func (v *vpc) counted() ([]balancer.Stats, error) {
	rows, err := stats(v.dir, 2)
	now := map[string]*stat{}
	if err == nil {
		for k := range rows {
			now[rows[k][pxname]] = &rows[k]
		}
	}
	var out []balancer.Stats
	took, heard := map[string]time.Duration{}, map[string]int64{}
	for _, id := range slices.Sorted(maps.Keys(v.rec.Pools)) {
		s, r := v.rec.Base[id], now[backendName(id)]
		s.Pool = id
		if r == nil {
			r = &stat{}
		}
		n := r.int(stot)
		if r[reqTot] != "" {
			n = r.int(reqTot)
		}
		s.Requests += n
		// The process tells the average of its last requests alone.
		took[id], heard[id] = v.took[id], v.heard[id]
		if err == nil {
			if v.heard != nil && n > heard[id] {
				took[id] += time.Duration(n-heard[id]) * time.Duration(r.int(rtime)) * time.Millisecond
			}
			heard[id] = n
		}
		s.Took = took[id]
		s.Status2xx += r.int(hrsp2xx)
		s.Status3xx += r.int(hrsp3xx)
		s.Status4xx += r.int(hrsp4xx)
		s.Status5xx += r.int(hrsp5xx)
		s.ConnErrors += r.int(econ)
		out = append(out, s)
	}
	if err == nil {
		v.took, v.heard = took, heard
	}
	return out, err
}

// Stats counts each pool's requests.
func (b *Balancer) Stats(_ context.Context, id string) ([]balancer.Stats, error) {
	v := b.lookup(id)
	if v == nil {
		return nil, &fault.Error{Kind: fault.NotFound, Op: "balancer", Object: id, Message: "this VPC has no balancer"}
	}
	defer v.mu.Unlock()
	if !b.alive(v) {
		return nil, fmt.Errorf("balancer: %s: %w", id, errors.New("HAProxy does not answer"))
	}
	return v.counted()
}
