package elb

import (
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/region/balancer"
)

func TestCounts(t *testing.T) {
	w := newWorld(t)
	lb, g := w.balancer(""), w.group("t")
	w.group("idle")
	w.register(g.TargetGroupArn, "i-1")
	w.listen(lb.LoadBalancerArn, forward(g.TargetGroupArn))
	w.untilHealth(g.TargetGroupArn, "i-1=healthy")
	w.s.applyMu.Lock()
	at := w.s.applied["vpc-1"].Frontends[0].Address
	w.s.applyMu.Unlock()
	for range 3 {
		if code, _ := w.bal.Get("vpc-1", at, "", "/"); code != 200 {
			t.Fatalf("answer %d", code)
		}
	}
	list := must(w.s.Counts(t.Context()))(t)
	if len(list) != 1 {
		t.Fatalf("%d groups, the one alone that is in use was wanted: %+v", len(list), list)
	}
	c := list[0]
	if !strings.HasSuffix(g.TargetGroupArn, ":"+c.TargetGroup) || !strings.HasSuffix(lb.LoadBalancerArn, ":loadbalancer/"+c.LoadBalancer) || c.VPC != "vpc-1" {
		t.Errorf("names %+v of %s at %s", c, g.TargetGroupArn, lb.LoadBalancerArn)
	}
	c.Pool = ""
	if want := (balancer.Stats{Requests: 3, Status2xx: 3}); c.Stats != want {
		t.Errorf("counts %+v, want %+v", c.Stats, want)
	}
}
