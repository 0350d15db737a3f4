package cli

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dayfly-infra/dayfly/internal/client"
)

// progress prints a line whenever the state of something changes, with the
// seconds since it began; and now and then when it does not.
type progress struct {
	w     io.Writer
	live  *live // where it is a terminal
	start time.Time

	mu    sync.Mutex
	last  string
	since time.Time
}

func (a *app) progress() *progress {
	now := time.Now()
	p := &progress{w: a.err, start: now, since: now}
	if a.Output != "json" {
		p.live = terminal(a.err)
	}
	return p
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
	text := fmt.Sprintf("%6.1fs  %s", now.Sub(p.start).Seconds(), line)
	if p.live != nil {
		p.live.say(text)
		return
	}
	fmt.Fprintln(p.w, text)
}

// show draws a block where there is a terminal, and says the line elsewhere.
func (p *progress) show(block []string, line string) {
	if p.live == nil {
		p.say(line)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live.draw(block)
}

// end takes the block away.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live != nil {
		p.live.clear()
	}
}

// How often wait looks without a watch, with one, and at most.
const (
	blind   = 150 * time.Millisecond
	sighted = 2 * time.Second
	settle  = 50 * time.Millisecond
)

// wait calls f until it is done: whenever the server says that something has
// changed, and now and then in any case.
func (a *app) wait(ctx context.Context, f func() (done bool, err error)) error {
	ctx, cancel := context.WithCancel(ctx)
	wakes, done := make(chan struct{}, 1), make(chan struct{})
	var live atomic.Bool
	go func() {
		defer close(done)
		// Without it, as with a server that is down, wait looks by itself.
		_ = a.client.Watch(ctx, nil, client.Now, func(client.Event) error {
			live.Store(true)
			select {
			case wakes <- struct{}{}:
			default:
			}
			return nil
		})
		live.Store(false)
	}()
	defer func() { cancel(); <-done }()
	for {
		ok, err := f()
		if ok || err != nil {
			return err
		}
		next := blind
		if live.Load() {
			next = sighted
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(next):
		case <-wakes:
			select { // what changes together is looked at once
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(settle):
			}
		}
	}
}
