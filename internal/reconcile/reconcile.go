// Package reconcile runs level-triggered loops: a queue of keys with dirty and
// processing marks, rebuilt from the store at start, and one owner at a time.
// It must not know what the loops do.
package reconcile

import (
	"context"
	"time"
)

// Loop works on the records of one kind. Reconcile reads desired and observed
// state, decides, acts a step, writes what it learned, and returns when to be
// called again; it may be killed at any instruction. It is never run twice at
// the same time for one name; a change of the record while it runs runs it again.
type Loop interface {
	Kind() string
	Reconcile(ctx context.Context, name string) (again time.Duration, err error)
}

// Done is the answer of a loop that has nothing left to do until its record
// changes.
const Done time.Duration = 0
