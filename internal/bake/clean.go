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
	if b.ended() {
		found, err := l.unrecorded(ctx, b)
		if err != nil || found {
			return soon, err
		}
	}
	if gone, err := l.endCanaries(ctx, b); err != nil || !gone {
		return l.pace(b), err
	}
	if b.Heir == "" {
		for _, name := range []string{b.Former, b.Stack} {
			if gone, wait, err := l.endStack(ctx, b, name); err != nil || !gone {
				return wait, err
			}
		}
	}
	if b.ended() && b.AMI != "" {
		if err := l.Cloud.DeleteImage(ctx, b.intent("delete-image"), b.AMI); err != nil && fault.KindOf(err) != fault.NotFound {
			return 0, err
		}
	}
	if b.Heir == "" {
		if err := l.Cloud.DeletePrefix(ctx, b.intent("delete-inputs"), b.Prefix); err != nil {
			return 0, err
		}
	}
	if !b.ended() {
		// A former image of the same inputs, such as a retired one, loses its record now.
		im, _, err := store.Get[image.Image](ctx, l.Store, image.Kind, b.Name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return 0, err
		}
		if err == nil && im.AMI != "" && im.AMI != b.AMI {
			if err := l.Cloud.DeleteImage(ctx, b.intent("delete-former/"+im.AMI), im.AMI); err != nil && fault.KindOf(err) != fault.NotFound {
				return 0, err
			}
		}
	}
	key := ""
	if !b.ended() {
		var err error
		if key, err = l.attest(ctx, b); err != nil {
			return 0, err
		}
	}
	if err := l.Cloud.PruneIntents(ctx, b.object()); err != nil {
		return 0, err
	}
	return soon, l.finish(ctx, b, key)
}

// ended tells that a bake in Clean gives no image.
func (b Bake) ended() bool { return b.Error != "" || b.Again }

// endStack deletes a stack of the builder and tells when it is gone.
func (l *Loop) endStack(ctx context.Context, b Bake, name string) (gone bool, wait time.Duration, err error) {
	if name == "" {
		return true, 0, nil
	}
	st, err := l.Cloud.Stack(ctx, name)
	switch {
	case fault.KindOf(err) == fault.NotFound || (err == nil && st.Status == "DELETE_COMPLETE"):
		return true, 0, nil
	case err != nil:
		return false, 0, err
	case st.Status == "DELETE_IN_PROGRESS":
		return false, l.pace(b), nil
	}
	// One that failed is asked for again, as another attempt each time.
	wait, attempt := l.pace(b), int64(0)
	if st.Status == "DELETE_FAILED" {
		wait = 5 * time.Second
		attempt = l.Clock.Now().Truncate(wait).Unix()
	}
	return false, wait, l.Cloud.DeleteStack(ctx, b.intent(fmt.Sprintf("delete-stack/%s/%s/%d", name, st.Status, attempt)), name)
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
		launch, _ := b.offering()
		is, err := l.Cloud.Instances(ctx, map[string]string{"tag:" + cloud.TagIntent: b.intent(launch).ID})
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

// finish ends a bake; the statement about its image has been kept already.
func (l *Loop) finish(ctx context.Context, b Bake, statement string) error {
	cur, version, err := store.Get[Bake](ctx, l.Store, Kind, b.Name)
	if err != nil || cur.Step != Clean {
		return err
	}
	now := l.Clock.Now()
	if cur.Again {
		return l.Store.Apply(ctx, reconcile.Epoch(ctx), store.Put(Kind, b.Name, version, cur.attempt(cur.Attempt+1, l.StackName, now)))
	}
	cur.Steps = append(cur.Steps, Timing{Step: Clean, Seconds: now.Sub(cur.Since).Seconds()})
	cur.Step, cur.Ended, cur.Since, cur.Blocker, cur.Sentence = Done, now, now, nil, "done"
	if cur.Error != "" {
		cur.Sentence = "failed"
		if cur.Heir != "" {
			cur.Sentence = "failed; its builder went to " + cur.Heir
		}
		return l.Store.Apply(ctx, reconcile.Epoch(ctx), store.Put(Kind, b.Name, version, cur))
	}
	bp, _, err := l.Blueprints.Blueprint(ctx, b.Files)
	if err != nil {
		return err
	}
	cur.Image = cur.Name
	channel := cur.Blueprint + "/candidate"
	ch, chVersion, err := store.Get[image.Channel](ctx, l.Store, image.ChannelKind, channel)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	ch.Name = channel
	ch.Move(image.Move{Image: cur.Image, At: now, By: "bake/" + cur.Name})
	_, imVersion, err := store.Get[image.Image](ctx, l.Store, image.Kind, cur.Image)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	im := cur.image(bp.Image.Role, bp.Image.Base)
	im.Created, im.Seconds, im.Attestation = now, now.Sub(cur.Created).Seconds(), statement
	ws := []store.Write{
		store.Put(Kind, b.Name, version, cur),
		store.Put(image.Kind, cur.Image, imVersion, im),
		store.Put(image.ChannelKind, channel, chVersion, ch),
	}
	if r, ok := cur.refresh(now); ok {
		ws = append(ws, store.Put(RefreshKind, r.Name, store.Any, r))
	}
	return l.Store.Apply(ctx, reconcile.Epoch(ctx), ws...)
}
