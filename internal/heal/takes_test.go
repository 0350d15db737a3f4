package heal

import (
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/instance"
)

// A clock that jumps while an instance boots says little of how long it took.
func TestTakesOfAClockThatJumped(t *testing.T) {
	now := time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	f := instance.Fleet{Takes: time.Minute}
	for _, at := range []time.Duration{240 * time.Hour, -time.Hour} {
		in := instance.Instance{ID: "i-1", Launched: now}
		(&Loop{}).observe(&in, "InService", true, false, "", now.Add(at), &f)
		if in.InService.IsZero() || f.Takes > time.Hour || f.Takes < time.Minute {
			t.Errorf("%s later: %+v", at, f.Takes)
		}
	}
}
