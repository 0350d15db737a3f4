package clock

import (
	"sync"
	"time"
)

const (
	// step is how far the wall clock may be corrected without a doubt.
	step = time.Minute
	// hold is how long a jump forward must last before it is believed.
	hold = 15 * time.Minute
)

// Steady is the machine's clock for deadlines: when it is set forward, by
// mistake or after a sleep, nothing expires at once. Until the jump has lasted a
// quarter of an hour, measured by a clock that nobody can set, Steady goes on as
// if it had not been. A jump back is believed at once: it ends nothing early.
type Steady struct {
	now  func() (wall time.Time, elapsed time.Duration)
	warn func(jump, hold time.Duration)

	mu    sync.Mutex
	base  time.Time     // wall time that was believed last
	at    time.Duration // elapsed then
	since time.Duration // elapsed when the jump was seen
	doubt bool
}

// NewSteady makes a Steady clock; warn is told of each jump forward.
func NewSteady(warn func(jump, hold time.Duration)) *Steady {
	start := time.Now()
	return newSteady(func() (time.Time, time.Duration) {
		n := time.Now()
		return n, n.Sub(start)
	}, warn)
}

func newSteady(now func() (time.Time, time.Duration), warn func(jump, hold time.Duration)) *Steady {
	s := &Steady{now: now, warn: warn}
	s.base, s.at = now()
	return s
}

// Now implements Clock.
func (s *Steady) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	wall, elapsed := s.now()
	expected := s.base.Round(0).Add(elapsed - s.at)
	jump := wall.Round(0).Sub(expected)
	switch {
	case jump < step:
		s.doubt = false
	case !s.doubt:
		s.doubt, s.since = true, elapsed
		if s.warn != nil {
			s.warn(jump, hold)
		}
		return expected
	case elapsed-s.since < hold:
		return expected
	default:
		s.doubt = false
	}
	s.base, s.at = wall, elapsed
	return wall
}

// After implements Clock.
func (s *Steady) After(d time.Duration) <-chan time.Time { return time.After(d) }
