package control

import (
	"context"
	"encoding/json"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/inventory"
	"github.com/dayfly-infra/dayfly/internal/server"
)

// maxInventory is the largest inventory or SBOM that is read, in bytes.
const maxInventory = 32 << 20

// SBOM implements server.Backend.
func (c *Control) SBOM(ctx context.Context, name string) ([]byte, error) {
	i, _, err := c.image(ctx, name)
	if err != nil {
		return nil, err
	}
	return c.kept(ctx, i, i.SBOM, "SBOM")
}

// ImageDiff implements server.Backend.
func (c *Control) ImageDiff(ctx context.Context, a, b string) (server.ImageDiff, error) {
	d := server.ImageDiff{From: a, To: b, Changes: []inventory.Difference{}}
	var vs [2]inventory.Inventory
	var reports [2][]byte
	for k, name := range []string{a, b} {
		i, _, err := c.image(ctx, name)
		if err != nil {
			return d, err
		}
		raw, err := c.kept(ctx, i, i.Inventory, "inventory")
		if err != nil {
			return d, err
		}
		if err := json.Unmarshal(raw, &vs[k]); err != nil {
			return d, &fault.Error{Kind: fault.Internal, Op: "read the inventory", Object: "image " + name, Message: err.Error()}
		}
		if reports[k], err = c.Report(ctx, name); err != nil && fault.KindOf(err) != fault.NotFound {
			return d, err
		}
	}
	d.Changes = append(d.Changes, inventory.Diff(vs[0], vs[1])...)
	d.Changes = append(d.Changes, inventory.Resources(reports[0], reports[1])...)
	return d, nil
}

// kept reads what a bake kept of an image.
func (c *Control) kept(ctx context.Context, i image.Image, key, what string) ([]byte, error) {
	none := &fault.Error{Kind: fault.NotFound, Op: "read the " + what, Object: "image " + i.Name, Message: "there is none", Hint: "images that were made by an earlier version have none; dayfly bake makes a new one when something changed"}
	if key == "" {
		return nil, none
	}
	raw, err := c.cloud.Object(ctx, key, maxInventory)
	if fault.KindOf(err) == fault.NotFound {
		none.Err = err
		return nil, none
	}
	return raw, err
}
