package control

import (
	"context"
	"fmt"
	"time"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/server"
)

// Quarantine implements server.Backend. An image whose quarantine ends is a
// candidate: whatever it was promoted to, somebody has to look again.
func (c *Control) Quarantine(ctx context.Context, name string, q server.Quarantine) (image.Image, error) {
	if _, _, err := c.image(ctx, name); err != nil {
		return image.Image{}, err
	}
	return update(ctx, c, image.Kind, name, func(i *image.Image) error {
		why := q.Why
		if by := access.Of(ctx).Name; by != "" {
			why = fmt.Sprintf("%s (%s)", q.Why, by)
		}
		switch {
		case i.State == image.Retired:
			return &fault.Error{Kind: fault.Conflict, Op: "quarantine", Object: "image " + name, Message: "the image is retired: nothing is launched from it anyway"}
		case q.Quarantined:
			i.State, i.Why = image.Quarantined, why
		case i.State == image.Quarantined:
			i.State, i.Why, i.Revoked = image.Candidate, "out of quarantine: "+why, time.Time{}
		default:
			return &fault.Error{Kind: fault.Conflict, Op: "end the quarantine", Object: "image " + name, Message: "the image is " + string(i.State) + ", not quarantined"}
		}
		return nil
	})
}

// maxReport is the largest report that is shown, in bytes.
const maxReport = 8 << 20

// Report implements server.Backend.
func (c *Control) Report(ctx context.Context, name string) ([]byte, error) {
	i, _, err := c.image(ctx, name)
	if err != nil {
		return nil, err
	}
	raw, err := c.cloud.Object(ctx, i.Report, maxReport)
	if fault.KindOf(err) == fault.NotFound {
		err = &fault.Error{Kind: fault.NotFound, Op: "read Puppet's report", Object: "image " + name, Message: "there is none: " + i.Report, Err: err}
	}
	return raw, err
}

func (c *Control) image(ctx context.Context, name string) (image.Image, int64, error) {
	return known[image.Image](ctx, c, image.Kind, name, "dayfly images lists them")
}
