package control

import (
	"context"
	"errors"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Promote implements server.Backend: image and channel change in one write.
func (c *Control) Promote(ctx context.Context, name string, p server.Promote) (image.Channel, error) {
	for range 20 {
		i, iv, err := c.image(ctx, name)
		if err != nil {
			return image.Channel{}, err
		}
		if err := c.bakes.Proven(ctx, i); err != nil {
			return image.Channel{}, err
		}
		channel, err := image.ChannelName(i.Blueprint, p.Channel)
		if err != nil {
			return image.Channel{}, err
		}
		ch, cv, err := store.Get[image.Channel](ctx, c.store, image.ChannelKind, channel)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return ch, err
		}
		ch.Name = channel
		if err := image.Promote(&ch, &i, image.Move{At: c.clock.Now(), By: access.Of(ctx).Name, Why: p.Why}); err != nil {
			return ch, err
		}
		err = c.store.Apply(ctx, store.NoEpoch, store.Put(image.Kind, name, iv, i), store.Put(image.ChannelKind, channel, cv, ch))
		if !errors.Is(err, store.ErrConflict) {
			return ch, err
		}
	}
	return image.Channel{}, &fault.Error{Kind: fault.Conflict, Op: "promote", Object: "image " + name, Message: "others change it all the time"}
}

// followed is the image that an environment's channel points to; "" where the
// environment takes what its own inputs make.
func (c *Control) followed(ctx context.Context, blueprint, channel string) (string, error) {
	if channel == "" || channel == blueprint+"/"+image.Baked {
		return "", nil
	}
	refuse := func(message, hint string) error {
		return &fault.Error{Kind: fault.Conflict, Op: "deploy", Object: "channel " + channel, Message: message, Hint: hint}
	}
	ch, _, err := store.Get[image.Channel](ctx, c.store, image.ChannelKind, channel)
	if errors.Is(err, store.ErrNotFound) {
		return "", refuse("it points to no image yet", "dayfly image promote IMAGE "+channel+" --why …; dayfly images lists them")
	}
	if err != nil {
		return "", err
	}
	i, _, err := c.image(ctx, ch.Image)
	if err != nil {
		return "", err
	}
	if i.State == image.Quarantined || i.State == image.Retired {
		return "", refuse("its image "+i.Name+" is "+string(i.State)+": "+i.Why, "promote another one")
	}
	return i.Name, nil
}

// Lineage implements server.Backend.
func (c *Control) Lineage(ctx context.Context, name string) (server.Lineage, error) {
	i, _, err := c.image(ctx, name)
	if err != nil {
		return server.Lineage{}, err
	}
	out := server.Lineage{Image: i.Name, State: string(i.State), Base: i.Base, AMI: i.AMI, Parent: i.Parent, Parents: []string{}, Children: []string{}, Channels: []string{}, Was: []string{}, Runs: []server.Runner{}, GoBack: []string{}}
	byAMI := map[string]image.Image{}
	if err := each(ctx, c, image.Kind, func(o image.Image) {
		byAMI[o.AMI] = o
		if o.Parent == i.AMI && o.AMI != "" {
			out.Children = append(out.Children, o.Name)
		}
	}); err != nil {
		return out, err
	}
	for p, ok := byAMI[i.Parent]; ok && !slices.Contains(out.Parents, p.Name); p, ok = byAMI[p.Parent] {
		out.Parents = append(out.Parents, p.Name)
	}
	err = errors.Join(
		each(ctx, c, image.ChannelKind, func(ch image.Channel) {
			if ch.Image == name {
				out.Channels = append(out.Channels, ch.Name)
			} else if slices.ContainsFunc(ch.Before, func(m image.Move) bool { return m.Image == name }) {
				out.Was = append(out.Was, ch.Name)
			}
		}),
		each(ctx, c, environment.GenerationKind, func(g environment.Generation) {
			if g.Image == name && g.Phase != environment.Gone {
				out.Runs = append(out.Runs, server.Runner{Environment: g.Environment, Generation: g.Number, Phase: string(g.Phase), Size: g.Size})
			}
		}),
		each(ctx, c, environment.Kind, func(e environment.Environment) {
			if e.Phase != environment.Gone && slices.ContainsFunc(e.Good, func(v environment.Version) bool { return v.Image == name }) {
				out.GoBack = append(out.GoBack, e.Name)
			}
		}),
	)
	return out, err
}
