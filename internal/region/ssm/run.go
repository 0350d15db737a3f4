package ssm

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/state"
)

const (
	tick  = time.Second
	retry = 50 * time.Millisecond // while a guest does not answer
)

var errCancelled = errors.New("the command was cancelled")

// Run hands commands to guests until the context ends. What is under way then
// goes on in the guests and is asked for again by the next Run.
func (s *Service) Run(ctx context.Context) error {
	defer s.work.Wait()
	ctx = s.internal(ctx)
	for ctx.Err() == nil {
		s.pass(ctx)
		select {
		case <-ctx.Done():
		case <-s.kick:
		case <-s.c.Clock.After(tick):
		}
	}
	return nil
}

// pass starts every invocation that may start.
func (s *Service) pass(ctx context.Context) {
	type job struct {
		c command
		i invocation
	}
	var jobs []job
	var stopped []invocation
	s.c.DB.View(func(tx *state.Tx) {
		for _, c := range s.commands.All(tx) {
			if c.Finished {
				continue
			}
			running, bad := 0, 0
			var waiting []invocation
			for _, id := range c.Instances {
				i, ok := s.invocations.Get(tx, c.ID+"/"+id)
				switch {
				case !ok:
				case i.Status == inProgress:
					running++
					jobs = append(jobs, job{c, i})
				case i.Status == pending && s.running(i.key()):
					running++
				case i.Status == pending:
					waiting = append(waiting, i)
				case i.Status == failed || i.Status == timedOut:
					bad++
				}
			}
			most, _ := share(c.Concurrency, len(c.Instances)) // checked when it was set
			limit, _ := share(c.Errors, len(c.Instances))
			if bad > limit {
				stopped = append(stopped, waiting...)
				continue
			}
			for _, i := range waiting[:max(0, min(len(waiting), most-running))] {
				jobs = append(jobs, job{c, i})
			}
		}
	})
	for _, j := range jobs {
		s.begin(ctx, j.c, j.i)
	}
	for _, i := range stopped {
		now := s.now()
		s.end(i.key(), func(i *invocation) {
			i.Status, i.Details, i.Ended = cancelled, "Terminated", &now
			i.Stderr = "not started: the command has exceeded MaxErrors on other instances"
		})
	}
}

func (s *Service) running(key string) bool {
	s.runMu.Lock()
	defer s.runMu.Unlock()
	return s.runs[key] != nil
}

func (s *Service) begin(ctx context.Context, c command, i invocation) {
	s.runMu.Lock()
	defer s.runMu.Unlock()
	if s.runs[i.key()] != nil || ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s.runs[i.key()] = cancel
	s.work.Go(func() {
		s.invoke(ctx, c, i)
		cancel(nil)
		s.runMu.Lock()
		delete(s.runs, i.key())
		s.runMu.Unlock()
		s.wake() // another may begin in its place
	})
}

// invoke delivers one invocation and waits for its result.
func (s *Service) invoke(ctx context.Context, c command, i invocation) {
	deadline := c.Requested.Add(time.Duration(c.Delivery) * time.Second)
	cmd := hypervisor.Command{ID: c.ID, Script: []byte(c.Script), Dir: c.Dir, Timeout: c.Timeout}
	started := i.Status == inProgress
	for {
		if !started {
			if err := s.c.Guest.Ready(ctx, i.Instance); err != nil {
				if s.undelivered(ctx, i, err, deadline, started) {
					return
				}
				continue
			}
			now := s.now()
			if !s.update(i.key(), func(i *invocation) { i.Status, i.Details, i.Started = inProgress, inProgress, &now }) {
				return
			}
			started = true
		}
		res, err := s.c.Guest.Run(ctx, i.Instance, cmd)
		switch {
		case ctx.Err() != nil: // cancelled, or this process ends: the record says which
			return
		case err != nil:
			if s.undelivered(ctx, i, err, c.Expires, started) {
				return
			}
			continue
		}
		s.end(i.key(), func(i *invocation) { take(i, res) })
		return
	}
}

// undelivered decides after an error whether to give up; else it waits a little.
func (s *Service) undelivered(ctx context.Context, i invocation, err error, deadline time.Time, started bool) bool {
	if ctx.Err() != nil {
		return true
	}
	now := s.now()
	switch {
	case errors.Is(err, hypervisor.ErrNoInstance):
		s.end(i.key(), func(i *invocation) {
			i.Status, i.Details, i.Ended, i.Stderr = failed, "Undeliverable", &now, "the instance is not there"
			if started {
				i.Details, i.Stderr = failed, "the instance ended while the command ran"
			}
		})
		return true
	case !now.Before(deadline):
		s.end(i.key(), func(i *invocation) {
			i.Status, i.Details, i.Ended, i.Stderr = timedOut, "DeliveryTimedOut", &now, "the instance's guest did not answer in time"
			if started {
				i.Details = "ExecutionTimedOut"
			}
		})
		return true
	}
	if !errors.Is(err, hypervisor.ErrNotReady) && !errors.Is(err, hypervisor.ErrState) {
		s.c.Log.Warn("run command", "instance", i.Instance, "command", i.Command, "err", err)
	}
	select {
	case <-ctx.Done():
	case <-s.c.Clock.After(retry):
	}
	return ctx.Err() != nil
}

// take turns a guest's result into an invocation's.
func take(i *invocation, res hypervisor.Result) {
	i.Stdout, i.Stderr = text(res.Stdout, mostStdout), text(res.Stderr, mostStderr)
	i.Code = int64(res.ExitCode)
	if !res.Started.IsZero() {
		i.Started = new(res.Started.UTC())
	}
	i.Ended = new(res.Ended.UTC())
	switch {
	case res.TimedOut:
		i.Status, i.Details, i.Code = timedOut, "ExecutionTimedOut", 137
	case res.ExitCode != 0:
		i.Status, i.Details = failed, failed
	default:
		i.Status, i.Details = success, success
	}
}

// text keeps what may be shown, and one character more to tell that it was cut.
func text(b []byte, n int) string {
	r := []rune(strings.ToValidUTF8(string(b), "\uFFFD"))
	return string(r[:min(len(r), n+1)])
}

// update changes an invocation that has not ended; it says whether it did.
func (s *Service) update(key string, f func(*invocation)) bool {
	done := false
	err := s.c.DB.Update(func(tx *state.Tx) error {
		i, ok := s.invocations.Get(tx, key)
		if !ok || over(i.Status) {
			return nil
		}
		f(&i)
		s.invocations.Put(tx, key, i)
		if over(i.Status) {
			if c, ok := s.commands.Get(tx, i.Command); ok {
				s.finish(tx, c)
			}
		}
		done = true
		return nil
	})
	if err != nil {
		s.c.Log.Error("note a command", "invocation", key, "err", err)
	}
	return done && err == nil
}

func (s *Service) end(key string, f func(*invocation)) { s.update(key, f) }
