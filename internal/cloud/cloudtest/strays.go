package cloudtest

import (
	"context"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/cloud"
)

// Stray puts something there that no stack of the account has.
func (c *Cloud) Stray(s cloud.Stray) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.strays = append(c.strays, s)
}

// Strays implements the driver's.
func (d *Driver) Strays(context.Context) ([]cloud.Stray, error) {
	defer d.c.lock()()
	return slices.Clone(d.c.strays), nil
}

// DeleteStray implements the driver's.
func (d *Driver) DeleteStray(ctx context.Context, in cloud.Intent, kind, id string) error {
	_, err := perform(ctx, d, in, "delete:"+kind, false, id, func() (bool, error) {
		d.c.strays = slices.DeleteFunc(d.c.strays, func(s cloud.Stray) bool { return s.Kind == kind && s.ID == id })
		return true, nil
	})
	return err
}
