package region

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/baseimage"
)

// parameters are the public parameters under which base images are found, as
// Debian publishes its own.
var parameters = map[string]string{
	"debian-12":      "/aws/service/debian/release/12/latest/amd64",
	"debian-12-slim": "/aws/service/debian/release/12-slim/latest/amd64",
}

// bases makes the base images that are asked for and registers them.
func (d *daemon) bases(ctx context.Context) error {
	for _, name := range d.cfg.Bases {
		if d.cfg.Simulate {
			if err := d.simulatedBase(ctx, name); err != nil {
				return err
			}
			continue
		}
		path, boot, digest, err := baseimage.Ensure(ctx, name, d.cfg.CacheDir, d.cfg.Progress)
		if err != nil {
			return err
		}
		id := "ami-" + strings.TrimPrefix(digest, "sha256:")[:17]
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		im, err := d.hv.ImportImage(ctx, id, boot, f)
		f.Close()
		if err != nil {
			return fmt.Errorf("import the base image %s: %w", name, err)
		}
		if err := d.ec2.RegisterBase(d.internal(ctx), name+"-amd64", id, im); err != nil {
			return fmt.Errorf("register the base image %s: %w", name, err)
		}
		if err := d.ssm.SetPublic(ctx, parameters[name], id); err != nil {
			return err
		}
		d.cfg.Progress("the base image " + name + " is " + id)
	}
	return nil
}
