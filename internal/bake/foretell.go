package bake

import (
	"context"
	"errors"
	"io/fs"

	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Foretell says which bake Start would return and whether its image is there
// already. It begins nothing, and refuses what Start would refuse.
func (l *Loop) Foretell(ctx context.Context, b *blueprint.Blueprint, files fs.FS) (name string, there bool, err error) {
	fresh, err := l.fresh(ctx, b, files, "", "")
	if err != nil {
		return "", false, err
	}
	old, _, err := store.Get[Bake](ctx, l.Store, Kind, fresh.Name)
	if errors.Is(err, store.ErrNotFound) {
		return fresh.Name, false, nil
	}
	if err != nil || old.Step != Done || old.Error != "" {
		return fresh.Name, false, err
	}
	there, err = l.there(ctx, old)
	return fresh.Name, there, err
}
