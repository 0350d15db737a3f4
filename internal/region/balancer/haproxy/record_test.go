package haproxy

import (
	"fmt"
	"net/netip"
	"regexp"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/balancer"
	"pgregory.net/rapid"
)

func TestShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ws := rapid.SliceOfN(rapid.IntRange(0, 999), 1, 8).Draw(t, "weights")
		var fs []balancer.Weighted
		total, positive := 0, 0
		for i, w := range ws {
			fs = append(fs, balancer.Weighted{Pool: fmt.Sprint(i), Weight: w})
			total += w
			if w > 0 {
				positive++
			}
		}
		got := shares(fs)
		if len(got) != positive {
			t.Fatalf("%d shares for %d weights above 0", len(got), positive)
		}
		at := 0
		for _, s := range got {
			if s.From != at || s.To < s.From {
				t.Fatalf("hole or overlap: %+v", got)
			}
			at = s.To + 1
		}
		if positive > 0 && at != 1000 {
			t.Fatalf("not all numbers are given out: %+v", got)
		}
	})
}

// Slots: no two servers in one, and a server keeps its own.
func TestAssign(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &pool{}
		var now time.Time
		was := map[string]int{}
		for range rapid.IntRange(1, 10).Draw(t, "steps") {
			var c balancer.Pool
			for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, 60), 0, 50, rapid.ID[int]).Draw(t, "servers") {
				c.Servers = append(c.Servers, balancer.Server{ID: fmt.Sprint(i), Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80)})
			}
			p = p.clone()
			p.assign(c, now)
			slots, active := map[int]bool{}, map[string]int{}
			for _, s := range p.Used {
				if slots[s.N] || s.N < 1 || s.N > p.Slots {
					t.Fatalf("slot %d of %d is used twice or not there", s.N, p.Slots)
				}
				slots[s.N] = true
				if n, ok := was[s.Server]; ok && n != s.N {
					t.Fatalf("server %s moved from slot %d to %d", s.Server, n, s.N)
				}
				was[s.Server] = s.N
				if !s.Removed {
					active[s.Server] = s.N
				}
			}
			if len(active) != len(c.Servers) {
				t.Fatalf("%d active, %d wanted", len(active), len(c.Servers))
			}
		}
	})
}

func FuzzGlob(f *testing.F) {
	f.Add("/a/*.?", "/a/b.c")
	f.Add(`/it's\"`, "/x")
	f.Fuzz(func(t *testing.T, glob, s string) {
		e := globToRegexp(glob)
		if !regexp.MustCompile(`^\^([A-Za-z0-9.*]|\\x[0-9a-f]{2})*\$$`).MatchString(e) {
			t.Errorf("%q has characters that could end a quotation", e)
		}
	})
}
