package clock

import (
	"testing"
	"time"
)

func TestSteady(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		jump  time.Duration
		after time.Duration // that pass then
		back  bool          // the jump is taken back on the way
		want  time.Duration // of the jump that is believed
		warns int
	}{
		"none":              {0, time.Hour, false, 0, 0},
		"correction":        {30 * time.Second, time.Second, false, 30 * time.Second, 0},
		"forward":           {48 * time.Hour, 10 * time.Minute, false, 0, 1},
		"forward, for good": {48 * time.Hour, 16 * time.Minute, false, 48 * time.Hour, 1},
		"forward and back":  {48 * time.Hour, time.Hour, true, 0, 1},
		"backward":          {-48 * time.Hour, time.Second, false, -48 * time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var jump, elapsed time.Duration
			warns := 0
			s := newSteady(func() (time.Time, time.Duration) { return start.Add(elapsed + jump), elapsed }, func(time.Duration, time.Duration) { warns++ })
			elapsed = time.Minute
			s.Now()
			jump = c.jump
			s.Now()
			if c.back {
				elapsed += c.after / 2
				s.Now()
				jump = 0
				s.Now()
			}
			for end := elapsed + c.after; elapsed < end; elapsed += 10 * time.Second {
				s.Now()
			}
			if got := s.Now().Sub(start.Add(elapsed)); got != c.want {
				t.Errorf("%s of the jump is believed, want %s", got, c.want)
			}
			if warns != c.warns {
				t.Errorf("%d warnings", warns)
			}
		})
	}
}

// On the real clock it is the real clock.
func TestSteadyReal(t *testing.T) {
	s := NewSteady(nil)
	<-s.After(10 * time.Millisecond)
	if d := time.Since(s.Now()); d < 0 || d > time.Second {
		t.Errorf("it is %s behind", d)
	}
}
