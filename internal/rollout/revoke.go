package rollout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// launches lets the groups of a generation launch nothing from an image that was
// revoked: they know the image by their template, and nobody asks Dayfly when
// one of their instances dies. A quarantine alone does not: it may be the brake's,
// and what serves well shall go on replacing what dies.
func (l *Generations) launches(ctx context.Context, name string, g environment.Generation, object string) error {
	l.mu.Lock()
	if l.runs == nil {
		l.runs = map[string]string{}
	}
	l.runs[name] = g.Image
	l.mu.Unlock()
	i, _, err := store.Get[image.Image](ctx, l.Store, image.Kind, g.Image)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	why := ""
	if !i.Revoked.IsZero() {
		why = "its image was revoked: " + i.Why
	}
	// What shall be is durable before it is done, and counted: it may be revoked,
	// released and revoked again, with the same words, and whoever was cut off in
	// between finds a switch that was begun.
	if (why != "") != (g.Switches%2 == 1) {
		if err := l.update(ctx, name, func(v *environment.Generation) { v.Switches = g.Switches + 1 }); err != nil {
			return err
		}
		g.Switches++
	}
	if why == g.Suspended && g.Switches == g.Switched || len(g.Groups) == 0 {
		return nil
	}
	for _, group := range g.Groups {
		call, verb := l.Cloud.SuspendLaunches, "suspend"
		if why == "" {
			call, verb = l.Cloud.ResumeLaunches, "resume"
		}
		in := cloud.Intent{ID: fmt.Sprintf("%s/%s-launches/%d/%s", object, verb, g.Switches, mark(group)), Object: object}
		if err := call(ctx, in, group); err != nil && fault.KindOf(err) != fault.NotFound {
			return err
		}
	}
	l.Log.WarnContext(ctx, "launches are "+map[bool]string{true: "resumed", false: "suspended"}[why == ""], "generation", name, "why", why)
	return l.update(ctx, name, func(v *environment.Generation) { v.Suspended, v.Switched = why, g.Switches })
}

// runners are the generations that run an image.
func (l *Generations) runners(image string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(l.runs)), func(g string) bool { return l.runs[g] != image })
}

// forget ends what is remembered of a generation that ends.
func (l *Generations) forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.runs, name)
	delete(l.looked, name)
}
