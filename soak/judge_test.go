package main

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/soak/load"
)

func TestBlame(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(1000000 + ms)) }
	kills := []kill{{From: at(1000), To: at(1010)}}
	met := []span{{at(5000), at(9000)}}
	for _, c := range []struct {
		name         string
		meant, ended int
		problem      string
		want         cause
	}{
		{"under way when it was killed", 900, 1100, "EOF", ofKill},
		{"a long one", -3000, 1001, "EOF", ofKill},
		{"sent into a connection that was just cut", 1100, 1101, "EOF", ofKill},
		{"ended before", 900, 999, "EOF", ofPlan},
		{"meant long after", 1300, 1400, "502 Bad Gateway: ", ofPlan},
		{"answered by the bad release", 6000, 6010, "500 Internal Server Error: no room", ofRelease},
		{"cut off while the bad release had traffic", 6000, 6010, "EOF", ofPlan},
		{"a bad answer without a bad release", 4000, 4010, "500 Internal Server Error: no room", ofPlan},
	} {
		if got := blame(load.Failure{Meant: at(c.meant), Ended: at(c.ended), Problem: c.problem}, kills, met); got != c.want {
			t.Errorf("%s: counted as %d instead of %d", c.name, got, c.want)
		}
	}
}

// Without a failure the bound is the rule of three.
func TestBound(t *testing.T) {
	for _, c := range []struct {
		failed, n int
		want      float64
	}{{0, 10000, 0.0002995}, {0, 100, 0.02951}, {1, 100, 0.0466}, {5, 100, 0.1022}, {0, 0, 1}, {3, 3, 1}} {
		if got := bound(c.failed, c.n); math.Abs(got-c.want) > c.want/100 {
			t.Errorf("%d of %d: %g instead of %g", c.failed, c.n, got, c.want)
		}
	}
}

func TestShares(t *testing.T) {
	if got := shares(10, 4); !slices.Equal(got, []int{2, 3, 2, 3}) {
		t.Error(got)
	}
	p := planned(30)
	if p.Images != 3 || p.Releases != 3 || p.Kills != 200 || p.Zones != 3 || p.Servers != 20 || p.Regions != 5 || p.BoxDown != 10*time.Minute {
		t.Errorf("the long form is %+v", p)
	}
	if p := planned(2); p.Images != 0 || p.Servers != 1 || p.Zones != 1 || p.Kills < 5 {
		t.Errorf("the short form is %+v", p)
	}
}
