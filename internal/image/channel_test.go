package image

import (
	"fmt"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

func TestPromote(t *testing.T) {
	at := time.Unix(0, 0)
	c := Channel{Name: "shop/stable"}
	for n := range 60 {
		i := Image{Name: fmt.Sprintf("shop-%d", n), Blueprint: "shop", State: Candidate}
		if err := Promote(&c, &i, Move{At: at, By: "me", Why: fmt.Sprint(n)}); err != nil || i.State != Verified || c.Image != i.Name || c.Why != fmt.Sprint(n) {
			t.Fatalf("%+v %+v %v", c, i, err)
		}
		at = at.Add(time.Hour)
	}
	if len(c.Before) != keepMoves || c.Before[0].Image != "shop-58" || c.Before[0].Why != "58" || !c.Before[0].At.Equal(at.Add(-2*time.Hour)) {
		t.Errorf("it remembers %+v", c.Before[0])
	}
	before := c.Image
	for _, bad := range []struct {
		c Channel
		i Image
	}{
		{Channel{Name: "shop/candidate"}, Image{Name: "x", State: Candidate}},
		{c, Image{Name: "x", State: Quarantined}},
		{c, Image{Name: "x", State: Retired}},
		{c, Image{Name: before, State: Verified}},
	} {
		state := bad.i.State
		if err := Promote(&bad.c, &bad.i, Move{}); fault.KindOf(err) != fault.Conflict || bad.i.State != state {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	for in, want := range map[string]string{"stable": "shop/stable", "shop/stable": "shop/stable", "web/stable": "", "": "", "Stable": "", "a/b/c": ""} {
		if got, err := ChannelName("shop", in); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q %v", in, got, err)
		}
	}
}
