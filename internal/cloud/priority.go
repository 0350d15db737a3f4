package cloud

import (
	"context"
	"time"
)

// Priority says which work goes first where the cloud limits our requests.
type Priority int

// Priorities, the most urgent first. Work that says nothing is a rollout.
const (
	Repair Priority = iota
	Rollout
	Tests
	Bake
	Sweep
	Priorities int = iota // how many there are
)

type priorityKey struct{}

// WithPriority returns a context whose requests have a priority.
func WithPriority(ctx context.Context, p Priority) context.Context {
	return context.WithValue(ctx, priorityKey{}, p)
}

// PriorityOf is the priority of a context.
func PriorityOf(ctx context.Context) Priority {
	if p, ok := ctx.Value(priorityKey{}).(Priority); ok && p >= 0 && int(p) < Priorities {
		return p
	}
	return Rollout
}

// Limiter keeps our requests below what the account may make in the region. It
// is asked before every request, retries included, and told of every answer.
type Limiter interface {
	// Wait returns nil when the request may be made. op is such as
	// "ec2:RunInstances", with the suffix Unfiltered where it reads everything
	// at once; n is the number of things that it makes or ends. An error is
	// a *fault.Error; a *Limited is in it where the only reason is our rate.
	Wait(ctx context.Context, op string, n int) error
	// Answered tells whether the cloud refused the request as one too many.
	Answered(op string, throttled bool)
}

// Unfiltered ends the names of operations of EC2 that read without a filter and
// without pages: their bucket is smaller.
const Unfiltered = "(unfiltered)"

// Limited is in the error of a call that was not made, because its turn would
// not have come within the call's time. It is an ErrThrottled.
type Limited struct {
	Op    string
	Until time.Time // when its turn may come, at the earliest
}

func (l *Limited) Error() string { return ErrThrottled.Error() }

// Is makes it an ErrThrottled.
func (l *Limited) Is(err error) bool { return err == ErrThrottled }
