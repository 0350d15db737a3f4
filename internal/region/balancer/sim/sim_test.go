package sim_test

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/balancer"
	"github.com/dayfly-infra/dayfly/internal/region/balancer/conformance"
	"github.com/dayfly-infra/dayfly/internal/region/balancer/sim"
)

// hand is a clock that the test moves.
type hand struct {
	mu  sync.Mutex
	now time.Time
}

func (h *hand) Now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}
func (h *hand) After(time.Duration) <-chan time.Time { return make(chan time.Time) }
func (h *hand) move(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Target {
		clock := &hand{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
		healthy := map[netip.AddrPort]bool{}
		slow := map[netip.AddrPort]time.Duration{}
		b := sim.New(clock)
		b.Check = func(_ string, _ balancer.Pool, s balancer.Server) error {
			if !healthy[s.Address] {
				return errors.New("HTTP 500")
			}
			return nil
		}
		b.Took = func(_ string, s balancer.Server) time.Duration { return slow[s.Address] }
		port := uint16(1000)
		address := func() netip.AddrPort {
			port++
			return netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port)
		}
		return conformance.Target{
			Balancer: b, VPC: "vpc-1", Address: address,
			Serve: func(_ *testing.T, id string, ok bool) conformance.Server {
				a := address()
				healthy[a] = ok
				return conformance.Server{ID: id, Addr: a, Healthy: func(ok bool) { healthy[a] = ok }, Slow: func(d time.Duration) { slow[a] = d }}
			},
			Get: func(_ *testing.T, l netip.AddrPort, host, path string) (int, string) {
				return b.Get("vpc-1", l, host, path)
			},
			Wait: func() { clock.move(50 * time.Millisecond) },
		}
	})
}

func TestDrainDeadline(t *testing.T) {
	clock := &hand{}
	b := sim.New(clock)
	b.Sessions = func(_ string, s balancer.Server) int { return 1 }
	a := netip.MustParseAddrPort("10.0.0.1:80")
	c := balancer.Config{VPC: "v", Pools: []balancer.Pool{conformance.Pool("p", conformance.Server{ID: "s", Addr: a})},
		Frontends: []balancer.Frontend{{ID: "f", Address: a, HTTP: true, Default: conformance.Forward("p", 1)}}}
	if err := b.Apply(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	c.Pools = []balancer.Pool{conformance.Pool("p")}
	if err := b.Apply(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"[draining]", "[]"} {
		hs, err := b.Health(t.Context(), "v")
		if err != nil {
			t.Fatal(err)
		}
		got := []balancer.Health{}
		for _, h := range hs {
			got = append(got, h.Health)
		}
		if fmt.Sprint(got) != want {
			t.Errorf("health %v, want %s", got, want)
		}
		clock.move(6 * time.Second)
	}
}
