// Package ids makes the random parts of AWS's ids from one source, which tests
// can make predictable. It must not know what an id is of.
package ids

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"sync"
)

// Source is a source of randomness that is safe for concurrent use.
type Source struct {
	mu sync.Mutex
	r  io.Reader
}

// New returns a source that reads from r; nil is the machine's own randomness.
func New(r io.Reader) *Source {
	if r == nil {
		r = rand.Reader
	}
	return &Source{r: r}
}

// Fill fills b. It panics when there is no randomness: an id that is not random
// would be somebody else's.
func (s *Source) Fill(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := io.ReadFull(s.r, b); err != nil {
		panic(fmt.Sprintf("ids: read randomness: %v", err))
	}
}

// Hex returns n random bytes as 2n hexadecimal digits.
func (s *Source) Hex(n int) string {
	b := make([]byte, n)
	s.Fill(b)
	return hex.EncodeToString(b)
}

// UUID returns a random UUID (version 4).
func (s *Source) UUID() string {
	var b [16]byte
	s.Fill(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
