package bake

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// clean removes what the bake made, and for a good one writes the image record
// and moves the channel, in one batch with the bake's own end.
func (l *Loop) clean(ctx context.Context, b Bake) (time.Duration, error) {
	if b.Error != "" {
		found, err := l.unrecorded(ctx, b)
		if err != nil || found {
			return soon, err
		}
	}
	if gone, err := l.endCanaries(ctx, b); err != nil || !gone {
		return l.pace(b), err
	}
	st, err := l.Cloud.Stack(ctx, b.Stack)
	switch {
	case fault.KindOf(err) == fault.NotFound || (err == nil && st.Status == "DELETE_COMPLETE"):
	case err != nil:
		return 0, err
	case st.Status == "DELETE_IN_PROGRESS":
		return l.pace(b), nil
	default:
		// One that failed is asked for again, as another attempt each time.
		wait, attempt := l.pace(b), int64(0)
		if st.Status == "DELETE_FAILED" {
			wait = 5 * time.Second
			attempt = l.Clock.Now().Truncate(wait).Unix()
		}
		return wait, l.Cloud.DeleteStack(ctx, b.intent(fmt.Sprintf("delete-stack/%s/%d", st.Status, attempt)), b.Stack)
	}
	if b.Error != "" && b.AMI != "" {
		if err := l.Cloud.DeleteImage(ctx, b.intent("delete-image"), b.AMI); err != nil && fault.KindOf(err) != fault.NotFound {
			return 0, err
		}
	}
	if err := l.Cloud.DeletePrefix(ctx, b.intent("delete-inputs"), b.prefix()); err != nil {
		return 0, err
	}
	if err := l.Cloud.PruneIntents(ctx, b.object()); err != nil {
		return 0, err
	}
	return soon, l.finish(ctx, b)
}

// unrecorded looks for what a failed bake made and could not note down any
// more, because the process ended in between: an instance or an image with the
// mark of this attempt's call.
func (l *Loop) unrecorded(ctx context.Context, b Bake) (found bool, err error) {
	if b.AMI == "" && b.FailedAt == Snapshot {
		ims, err := l.Cloud.Images(ctx)
		if err != nil {
			return false, err
		}
		for _, im := range ims {
			if im.Tags[cloud.TagIntent] == b.intent("image").ID {
				return true, l.update(ctx, b.Name, func(b *Bake) { b.AMI = im.ID })
			}
		}
	}
	if len(b.Canaries) == 0 && b.FailedAt == Launch {
		is, err := l.Cloud.Instances(ctx, map[string]string{"tag:" + cloud.TagIntent: b.intent("canaries").ID})
		if err != nil {
			return false, err
		}
		var ids []string
		for _, i := range is {
			if i.State != "terminated" {
				ids = append(ids, i.ID)
			}
		}
		if len(ids) > 0 {
			return true, l.update(ctx, b.Name, func(b *Bake) { b.canaries(ids) })
		}
	}
	return false, nil
}

// endCanaries ends the canaries and tells when the last of them is gone.
func (l *Loop) endCanaries(ctx context.Context, b Bake) (gone bool, err error) {
	gone = true
	var live []string
	for _, id := range b.canaryIDs() {
		i, err := l.Cloud.Instance(ctx, id)
		switch {
		case fault.KindOf(err) == fault.NotFound:
		case err != nil:
			return false, err
		case i.State == "shutting-down":
			gone = false
		case i.State != "terminated":
			gone, live = false, append(live, id)
		}
	}
	if len(live) == 0 {
		return gone, nil
	}
	err = l.Cloud.TerminateInstances(ctx, b.intent("terminate-canaries"), b.canaryIDs()...)
	if fault.KindOf(err) == fault.NotFound {
		err = nil
	}
	return false, err
}

func (l *Loop) finish(ctx context.Context, b Bake) error {
	cur, version, err := store.Get[Bake](ctx, l.Store, Kind, b.Name)
	if err != nil || cur.Step != Clean {
		return err
	}
	now := l.Clock.Now()
	cur.Steps = append(cur.Steps, Timing{Step: Clean, Seconds: now.Sub(cur.Since).Seconds()})
	cur.Step, cur.Ended, cur.Since, cur.Blocker, cur.Sentence = Done, now, now, nil, "done"
	if cur.Error != "" {
		cur.Sentence = "failed"
		return l.Store.Apply(ctx, reconcile.Epoch(ctx), store.Put(Kind, b.Name, version, cur))
	}
	bp, _, err := l.Blueprints.Blueprint(ctx, b.Files)
	if err != nil {
		return err
	}
	cur.Image = cur.Name
	channel := cur.Blueprint + "/candidate"
	_, chVersion, err := store.Get[image.Channel](ctx, l.Store, image.ChannelKind, channel)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	_, imVersion, err := store.Get[image.Image](ctx, l.Store, image.Kind, cur.Image)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return l.Store.Apply(ctx, reconcile.Epoch(ctx),
		store.Put(Kind, b.Name, version, cur),
		store.Put(image.Kind, cur.Image, imVersion, image.Image{
			Name: cur.Image, Blueprint: cur.Blueprint, Inputs: cur.Inputs, AMI: cur.AMI, Parent: cur.Base, State: image.Candidate,
			Role: bp.Image.Role, Created: now, Bake: cur.Name, Checks: cur.Checks, Canaries: cur.Canaries, Report: cur.report(), Seconds: now.Sub(cur.Created).Seconds(),
		}),
		store.Put(image.ChannelKind, channel, chVersion, image.Channel{Name: channel, Image: cur.Image, Moved: now, By: "bake/" + cur.Name}))
}
