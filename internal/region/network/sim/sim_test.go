package sim_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/network/conformance"
	"github.com/dayfly-infra/dayfly/internal/region/network/sim"
)

func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Target {
		internet := netip.MustParsePrefix("100.64.8.0/21")
		n := sim.New(internet)
		return conformance.Target{
			Network: n, Internet: internet, AddHost: n.AddHost,
			Serve: func(*testing.T, string, string, netip.Addr) {},
			Reach: func(_ *testing.T, src, dst, proto string, port int) bool { return n.Allowed(src, dst, proto, port) },
		}
	})
}

func TestFail(t *testing.T) {
	n := sim.New(netip.MustParsePrefix("100.64.8.0/21"))
	broken := errors.New("broken")
	n.Fail = func(op, object string) error {
		if op == "EnsureVPC" && object == "vpc-1" {
			return broken
		}
		return nil
	}
	v := network.VPC{ID: "vpc-1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}
	if err := n.EnsureVPC(t.Context(), v); !errors.Is(err, broken) {
		t.Errorf("EnsureVPC: %v", err)
	}
	v.ID = "vpc-2"
	if err := n.EnsureVPC(t.Context(), v); err != nil {
		t.Error(err)
	}
}
