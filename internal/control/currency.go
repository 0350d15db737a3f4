package control

import (
	"context"
	"errors"
	"fmt"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/currency"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/renew"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Currency implements server.Currency.
func (c *Control) Currency(ctx context.Context) ([]currency.Status, error) {
	o, err := renew.Look(ctx, c.store, c.clock.Now(), c.cfg.ImageBudget)
	if err != nil {
		return nil, err
	}
	return currency.Plan(o), nil
}

// Revoke implements server.Currency: the image and the channels that point to it
// change in one write.
func (c *Control) Revoke(ctx context.Context, name string, r server.Revoke) (server.Revoked, error) {
	out := server.Revoked{Image: name, Channels: map[string]string{}, Environments: []string{}, Runs: []string{}}
	who, now := access.Of(ctx).Name, c.clock.Now()
	why := r.Why
	if who != "" {
		why = fmt.Sprintf("%s (%s)", r.Why, who)
	}
	for range 20 {
		i, version, err := c.image(ctx, name)
		if err != nil {
			return out, err
		}
		if i.State == image.Retired {
			return out, &fault.Error{Kind: fault.Conflict, Op: "revoke", Object: "image " + name, Message: "the image is retired: nothing is launched from it anyway"}
		}
		if i.Revoked.IsZero() {
			i.Revoked = now
		}
		i.State, i.Why = image.Quarantined, why
		ws := []store.Write{store.Put(image.Kind, name, version, i)}
		ok := map[string]bool{}
		if err := each(ctx, c, image.Kind, func(o image.Image) { ok[o.Name] = o.Launches() && o.Name != name }); err != nil {
			return out, err
		}
		rs, err := c.store.List(ctx, image.ChannelKind, i.Blueprint+"/")
		if err != nil {
			return out, err
		}
		clear(out.Channels)
		for _, rec := range rs {
			ch, version, err := store.Get[image.Channel](ctx, c.store, image.ChannelKind, rec.Name)
			if err != nil || ch.Image != name {
				continue
			}
			out.Channels[ch.Name] = ""
			if ch.Leave(name, func(n string) bool { return ok[n] }, image.Move{At: now, By: who, Why: name + " was revoked: " + r.Why}) {
				out.Channels[ch.Name] = ch.Image
				ws = append(ws, store.Put(image.ChannelKind, ch.Name, version, ch))
			}
		}
		err = c.store.Apply(ctx, store.NoEpoch, ws...)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return out, err
		}
		if err := each(ctx, c, pipeline.Kind, func(r pipeline.Run) {
			if r.Phase != pipeline.Done && r.Image == name {
				out.Runs = append(out.Runs, r.Name)
			}
		}); err != nil {
			return out, err
		}
		return out, each(ctx, c, environment.Kind, func(e environment.Environment) {
			if e.Phase != environment.Gone && e.Image == name && e.Run == "" {
				out.Environments = append(out.Environments, e.Name)
			}
		})
	}
	return out, &fault.Error{Kind: fault.Conflict, Op: "revoke", Object: "image " + name, Message: "others change it all the time"}
}

// Freezes implements server.Currency.
func (c *Control) Freezes(ctx context.Context) ([]currency.Freeze, error) {
	out := []currency.Freeze{}
	return out, each(ctx, c, currency.FreezeKind, func(f currency.Freeze) {
		if !f.Over(c.clock.Now()) {
			out = append(out, f)
		}
	})
}

// Freeze implements server.Currency.
func (c *Control) Freeze(ctx context.Context, name string, f server.Freeze) (currency.Freeze, error) {
	now := c.clock.Now()
	out := currency.Freeze{Name: name, By: access.Of(ctx).Name, Why: f.Why, At: now, Until: f.Until}
	if out.Over(now) {
		return out, &fault.Error{Kind: fault.Invalid, Op: "freeze", Object: name, Message: "it would be over already"}
	}
	if name != currency.All {
		e, _, err := known[environment.Environment](ctx, c, environment.Kind, name, "dayfly envs lists them; all freezes everything")
		if err != nil {
			return out, err
		}
		if e.Phase == environment.Gone || e.Run != "" {
			return out, &fault.Error{Kind: fault.Conflict, Op: "freeze", Object: name, Message: "the environment is gone, or a run's"}
		}
	}
	return out, c.store.Apply(ctx, store.NoEpoch, store.Put(currency.FreezeKind, name, store.Any, out))
}

// Unfreeze implements server.Currency.
func (c *Control) Unfreeze(ctx context.Context, name string) (currency.Freeze, error) {
	f, version, err := store.Get[currency.Freeze](ctx, c.store, currency.FreezeKind, name)
	if errors.Is(err, store.ErrNotFound) {
		return f, &fault.Error{Kind: fault.NotFound, Op: "unfreeze", Object: name, Message: "it is not frozen", Hint: "dayfly freeze lists what is"}
	}
	if err != nil {
		return f, err
	}
	return f, c.store.Apply(ctx, store.NoEpoch, store.Delete(currency.FreezeKind, name, version))
}

// frozen refuses a deploy of what is frozen.
func (c *Control) frozen(ctx context.Context, name string) error {
	for _, n := range []string{currency.All, name} {
		f, _, err := store.Get[currency.Freeze](ctx, c.store, currency.FreezeKind, n)
		if errors.Is(err, store.ErrNotFound) || err == nil && f.Over(c.clock.Now()) {
			continue
		}
		if err != nil {
			return err
		}
		hint := "dayfly unfreeze " + n + " ends it"
		if !f.Until.IsZero() {
			hint += "; it is over at " + f.Until.UTC().Format("2006-01-02 15:04 MST")
		}
		return &fault.Error{Kind: fault.Conflict, Op: "deploy", Object: name, Message: f.Sentence(), Hint: hint}
	}
	return nil
}
