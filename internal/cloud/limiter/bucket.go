package limiter

import (
	"math"
	"time"
)

const (
	// recovery is how long a rate takes from nothing to what it was.
	recovery = 30 * time.Second
	// least is the part of its rate that a bucket keeps, however often the
	// cloud refuses.
	least = 1.0 / 16
	// slack keeps us behind the cloud's own count: requests that were granted
	// one after the other may arrive closer together.
	slack = 25 * time.Millisecond
	// cutEvery is how often a rate is halved at most: the answers to requests
	// that were sent together are one piece of news.
	cutEvery = time.Second
)

// bucket is a token bucket whose rate is halved by refusals and comes back
// linearly. It is told the time.
type bucket struct {
	full   Bucket
	tokens float64
	rate   float64
	at     time.Time
	cut    time.Time // when the rate was halved last
}

func newBucket(b Bucket, now time.Time) *bucket {
	return &bucket{full: b, tokens: b.Burst, rate: b.Rate, at: now}
}

// refill brings the bucket to now.
func (b *bucket) refill(now time.Time) {
	dt := now.Sub(b.at).Seconds()
	if dt <= 0 {
		return
	}
	b.at = now
	slope := b.full.Rate / recovery.Seconds()
	ramp := min(dt, (b.full.Rate-b.rate)/slope)
	b.tokens += b.rate*ramp + slope*ramp*ramp/2 + b.full.Rate*(dt-ramp)
	b.tokens = min(b.tokens, b.full.Burst)
	b.rate = min(b.rate+slope*ramp, b.full.Rate)
}

// need is how many tokens must be there so that n may be taken.
func (b *bucket) need(n float64) float64 {
	return min(n+b.full.Rate*slack.Seconds(), b.full.Burst)
}

// wait is how long it takes at most until n may be taken.
func (b *bucket) wait(n float64) time.Duration {
	short := b.need(n) - b.tokens
	if short <= 1e-9 {
		return 0
	}
	return time.Duration(math.Ceil(short/b.rate*1e9)) + time.Microsecond
}

// refused halves the rate and empties the bucket by as much as keep leaves.
func (b *bucket) refused(now time.Time, keep float64) bool {
	b.refill(now)
	if !b.cut.IsZero() && now.Sub(b.cut) < cutEvery {
		return false
	}
	b.cut = now
	b.tokens *= keep
	b.rate = max(b.rate/2, b.full.Rate*least)
	return true
}
