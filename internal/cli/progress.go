package cli

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// progress prints a line whenever the state of something changes, with the
// seconds since it began; and now and then when it does not.
type progress struct {
	w     io.Writer
	start time.Time

	mu    sync.Mutex
	last  string
	since time.Time
}

func (a *app) progress() *progress {
	now := time.Now()
	return &progress{w: a.err, start: now, since: now}
}

// still is how long nothing may be printed while something is under way.
const still = 15 * time.Second

func (p *progress) say(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if line == "" || (line == p.last && now.Sub(p.since) < still) {
		return
	}
	p.last, p.since = line, now
	fmt.Fprintf(p.w, "%6.1fs  %s\n", now.Sub(p.start).Seconds(), line)
}

// wait calls f until it is done, every 150 ms.
func wait(ctx context.Context, f func() (done bool, err error)) error {
	t := time.NewTicker(150 * time.Millisecond)
	defer t.Stop()
	for {
		done, err := f()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}
