package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/dayfly-infra/dayfly/internal/store"
)

type epochKey struct{}

// WithEpoch returns a context that carries the fencing epoch of the owner.
func WithEpoch(ctx context.Context, epoch int64) context.Context {
	return context.WithValue(ctx, epochKey{}, epoch)
}

// Epoch is the fencing epoch under which a loop runs: every write of a loop
// names it. Outside of an engine it is store.NoEpoch.
func Epoch(ctx context.Context) int64 {
	e, _ := ctx.Value(epochKey{}).(int64)
	return e
}

// conflicts bounds the retries of Update: more means that two writers fight.
const conflicts = 50

// Update reads a record, lets f change it, and writes it back under the epoch
// of ctx; when another writer was faster it begins again, so f may run several
// times. Nothing is written when f changed nothing or returns an error.
func Update[T any](ctx context.Context, st store.Store, kind, name string, f func(*T) error) error {
	var err error
	for range conflicts {
		var v T
		var version int64
		v, version, err = store.Get[T](ctx, st, kind, name)
		if err != nil {
			return err
		}
		before, err1 := json.Marshal(v)
		if err1 != nil {
			return fmt.Errorf("record %s %s: %w", kind, name, err1)
		}
		if err := f(&v); err != nil {
			return err
		}
		after, err1 := json.Marshal(v)
		if err1 != nil {
			return fmt.Errorf("record %s %s: %w", kind, name, err1)
		}
		if bytes.Equal(before, after) {
			return nil
		}
		err = st.Apply(ctx, Epoch(ctx), store.Write{Kind: kind, Name: name, Version: version, Body: after})
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return err
}
