package haproxy

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/balancer"
)

// record is what a VPC's process has been told, kept beside its socket, so that
// the next daemon knows which slot is whose.
type record struct {
	Config balancer.Config
	Pools  map[string]*pool          // used ones
	Base   map[string]balancer.Stats // counted by earlier processes
	Shape  string                    // of the configuration that runs: what needs a reload
	Maps   map[string][]share        // what the weights' maps in the process say
	// Reloaded is when the process got its last predecessor's sockets. That
	// one finishes its requests, and nobody else can tell to which servers.
	Reloaded time.Time
}

// pool is a backend with its declared slots.
type pool struct {
	Slots int
	Used  []*slot
	Next  int // the slot to try first: freed ones rest as long as can be
}

// slot is a declared server with an address.
type slot struct {
	N        int
	Server   string
	Address  netip.AddrPort
	Since    time.Time
	Live     bool      // the process has been told
	Known    bool      // past its first checks: healthy, or unhealthy for good reason
	Why      string    // it was unhealthy when it became known
	Draining bool      // wanted: no new requests
	Drained  bool      // the process has been told that
	Removed  bool      // no longer in the pool; goes when it is idle or at
	Until    time.Time // this time
}

// share is a part of the numbers 0 to 999 that goes to a backend.
type share struct {
	From, To int
	Backend  string
}

const minSlots = 32

// fit is the number of slots for a pool.
func fit(want, servers int) int {
	n := max(want, minSlots)
	for n < servers {
		n *= 2
	}
	return n
}

// assign brings a pool's slots in line with its servers.
func (p *pool) assign(c balancer.Pool, now time.Time) {
	wanted := map[string]balancer.Server{}
	for _, s := range c.Servers {
		wanted[s.ID] = s
	}
	have := map[string]bool{}
	for _, s := range p.Used {
		w, ok := wanted[s.Server]
		switch {
		case ok && w.Address == s.Address && !have[s.Server]:
			have[s.Server] = true
			if s.Removed || s.Draining != w.Draining {
				s.Removed, s.Until, s.Draining = false, time.Time{}, w.Draining
				s.Drained = s.Drained && w.Draining
				s.Live = s.Live && w.Draining // out of drain: comes up afresh
			}
		case !s.Removed:
			s.Removed, s.Until = true, now.Add(c.Drain)
			s.Draining = true
		}
	}
	more := 0
	for _, w := range c.Servers {
		if !have[w.ID] {
			more++
		}
	}
	p.Slots = max(p.Slots, fit(c.Slots, len(p.Used)+more))
	taken := map[int]bool{}
	for _, s := range p.Used {
		taken[s.N] = true
	}
	for _, w := range c.Servers {
		if have[w.ID] {
			continue
		}
		for taken[p.Next%p.Slots+1] {
			p.Next++
		}
		n := p.Next%p.Slots + 1
		p.Next, taken[n] = n, true
		p.Used = append(p.Used, &slot{N: n, Server: w.ID, Address: w.Address, Since: now, Draining: w.Draining})
	}
	slices.SortFunc(p.Used, func(a, b *slot) int { return cmp.Compare(a.N, b.N) })
}

func (p *pool) clone() *pool {
	c := *p
	c.Used = make([]*slot, len(p.Used))
	for i, s := range p.Used {
		c.Used[i] = new(*s)
	}
	return &c
}

// next is the record for a new configuration; the old one stays as it is.
func (r *record) next(c balancer.Config, now time.Time) *record {
	n := &record{Config: c, Pools: map[string]*pool{}, Base: maps.Clone(r.Base), Shape: r.Shape, Maps: r.Maps, Reloaded: r.Reloaded}
	used := c.Used()
	for _, cp := range c.Pools {
		if !used[cp.ID] {
			continue
		}
		p := &pool{}
		if old := r.Pools[cp.ID]; old != nil {
			p = old.clone()
		}
		p.assign(cp, now)
		n.Pools[cp.ID] = p
	}
	return n
}

// restless tells whether something will change without being told.
func (r *record) restless() bool {
	for _, p := range r.Pools {
		for _, s := range p.Used {
			if s.Live && !s.Known || s.Removed {
				return true
			}
		}
	}
	return false
}

func (v *vpc) save() error {
	b, err := json.Marshal(v.rec)
	if err != nil {
		return err
	}
	path := filepath.Join(v.dir, "record.json")
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (v *vpc) load() error {
	b, err := os.ReadFile(filepath.Join(v.dir, "record.json"))
	if err != nil {
		return err
	}
	v.rec = &record{}
	return json.Unmarshal(b, v.rec)
}

// shares divides 0 to 999 by weight; every weight above 0 has its part.
func shares(fs []balancer.Weighted) []share {
	const whole = 1000
	total := 0
	for _, f := range fs {
		total += f.Weight
	}
	if total == 0 {
		return nil
	}
	var out []share
	at, sum := 0, 0
	left := 0 // of those that follow and need at least one number
	for _, f := range fs {
		if f.Weight > 0 {
			left++
		}
	}
	for _, f := range fs {
		if f.Weight == 0 {
			continue
		}
		left--
		sum += f.Weight
		to := max(at+1, min(sum*whole/total, whole-left))
		out = append(out, share{at, to - 1, backendName(f.Pool)})
		at = to
	}
	return out
}
