package access

import (
	"sync"
	"time"
)

// Buckets limit how often somebody may ask: each name has a token bucket.
type Buckets struct {
	Rate  float64 // per second
	Burst float64

	mu   sync.Mutex
	byID map[string]*bucket
}

type bucket struct {
	level float64
	at    time.Time
}

// maxBuckets bounds the memory: more names than this share what is left.
const maxBuckets = 10_000

// Take takes one from a name's bucket; when it is empty, wait is how long until
// there is one again.
func (b *Buckets) Take(name string, now time.Time) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.level(name, now)
	if k.level >= 1 {
		k.level--
		return 0
	}
	return max(time.Duration((1-k.level)/b.Rate*float64(time.Second)), time.Millisecond)
}

// Empty tells how long a name has to wait, without taking anything.
func (b *Buckets) Empty(name string, now time.Time) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.byID[name]; !ok {
		return 0
	}
	if k := b.level(name, now); k.level < 1 {
		return max(time.Duration((1-k.level)/b.Rate*float64(time.Second)), time.Millisecond)
	}
	return 0
}

func (b *Buckets) level(name string, now time.Time) *bucket {
	if b.byID == nil {
		b.byID = map[string]*bucket{}
	}
	k := b.byID[name]
	if k == nil {
		if len(b.byID) >= maxBuckets {
			b.forget(now)
		}
		if len(b.byID) >= maxBuckets {
			name = "" // everybody else
			if k = b.byID[name]; k != nil {
				return b.fill(k, now)
			}
		}
		k = &bucket{level: b.Burst, at: now}
		b.byID[name] = k
	}
	return b.fill(k, now)
}

func (b *Buckets) fill(k *bucket, now time.Time) *bucket {
	k.level = min(b.Burst, k.level+b.Rate*max(now.Sub(k.at), 0).Seconds())
	k.at = now
	return k
}

// forget drops the buckets that are full again.
func (b *Buckets) forget(now time.Time) {
	for name, k := range b.byID {
		if b.fill(k, now).level >= b.Burst {
			delete(b.byID, name)
		}
	}
}
