package ec2

import "sync"

// offerings are the zones, and the types in zones, that have no room now.
type offerings struct {
	mu   sync.Mutex
	none map[[2]string]bool
}

// SetCapacity says whether a zone has room for a type, or for any where the
// type is empty. It is for tests of those who launch, and forgotten at the end
// of the process.
func (s *Service) SetCapacity(zone, kind string, room bool) {
	s.full.mu.Lock()
	defer s.full.mu.Unlock()
	if s.full.none == nil {
		s.full.none = map[[2]string]bool{}
	}
	if room {
		delete(s.full.none, [2]string{zone, kind})
	} else {
		s.full.none[[2]string{zone, kind}] = true
	}
}

func (o *offerings) has(zone, kind string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.none[[2]string{zone, ""}] || o.none[[2]string{zone, kind}]
}

// Room tells whether a zone has room for any type.
func (s *Service) Room(zone string) bool { return !s.full.has(zone, "") }
