package bake

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Advice says what a person can do with a failed bake.
func (b Bake) Advice() string {
	if b.Step != Kept {
		return "mend the cause and bake again; everything that the bake made is gone or going away"
	}
	look := ""
	if on, err := b.inside(""); err == nil {
		look = fmt.Sprintf("dayfly bake exec %s -- COMMAND looks inside (%s); ", b.Name, on)
	}
	return fmt.Sprintf("%sdayfly bake FOLDER --resume goes on with the builder %s, also after the code was mended; dayfly bake drop %s removes it now, and by itself it goes at %s",
		look, b.Instance, b.Name, b.Until.UTC().Format("2006-01-02 15:04 MST"))
}

// inside is the instance that there is to look at: where the checks failed a
// canary, else the builder while it runs.
func (b Bake) inside(on string) (string, error) {
	invalid := func(message, hint string) error {
		return &fault.Error{Kind: fault.Conflict, Op: "look inside", Object: b.object(), Message: message, Hint: hint}
	}
	i := slices.IndexFunc(order, func(s stage) bool { return s.step == b.FailedAt })
	sealed := slices.IndexFunc(order, func(s stage) bool { return s.step == Stop })
	switch {
	case b.Step != Kept:
		return "", invalid("this bake keeps no builder at this moment: it is in the step "+string(b.Step), "a bake that failed keeps it for image.keep_failed")
	case b.FailedAt == Verify && (on == "" || on == "canary" || on == "canary-1") && len(b.Canaries) > 0:
		return b.Canaries[0].Instance, nil
	case b.FailedAt == Verify && on == "canary-2" && len(b.Canaries) > 1:
		return b.Canaries[1].Instance, nil
	case on != "" && on != "builder":
		return "", invalid("there is no "+on+" to look at", "")
	case i >= sealed:
		return "", invalid("the builder is sealed and stopped; it failed at the step "+string(b.FailedAt), "dayfly bake FOLDER --resume tries that step again")
	}
	return b.Instance, nil
}

// resume clears the way for another try: what the failed one made after the
// step that it goes on from is removed, and the builder runs if it must.
func (l *Loop) resume(ctx context.Context, b Bake) (finding, error) {
	if b.From != "" {
		old, _, err := store.Get[Bake](ctx, l.Store, Kind, b.From)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return finding{}, err
		}
		if err == nil && old.Heir == b.Name && old.Step != Done {
			return finding{}, nil // it removes what only it had
		}
	}
	if found, err := l.unrecorded(ctx, b); err != nil || found {
		return finding{wait: soon}, err
	}
	if gone, err := l.endCanaries(ctx, b); err != nil || !gone {
		return finding{}, err
	}
	f := finding{done: true, learn: func(b *Bake) { b.Canaries, b.Checks = nil, nil }}
	if b.To != Launch && b.AMI != "" {
		if err := l.Cloud.DeleteImage(ctx, b.intent("delete-image"), b.AMI); err != nil && fault.KindOf(err) != fault.NotFound {
			return finding{}, err
		}
		f.learn = func(b *Bake) { b.Canaries, b.Checks, b.AMI = nil, nil, "" }
	}
	i, err := l.Cloud.Instance(ctx, b.Instance)
	switch {
	case fault.KindOf(err) == fault.NotFound || (err == nil && (i.State == "terminated" || i.State == "shutting-down")):
		f = failed("the builder %s that was kept is gone", b.Instance)
		f.lost = true
		return f, nil
	case err != nil:
		return finding{}, err
	case b.To == Launch || b.To == Snapshot || b.To == Stop:
		return f, nil
	case i.State == "stopping" || i.State == "pending":
		return finding{}, nil
	case i.State == "stopped":
		return finding{}, l.Cloud.StartInstance(ctx, b.intent("start"), b.Instance)
	case b.From == "":
		return f, nil
	}
	bp, files, err := l.Blueprints.Blueprint(ctx, b.Files)
	if err != nil {
		return finding{}, err
	}
	return f, l.send(ctx, b, bp, files)
}

// Resume gives the kept builder of a failed bake another try. With the inputs
// that it failed with it goes on from the step that failed. With other inputs
// it becomes the bake of those: files are sent again, and it goes on from
// fetching them. from names the failed bake; "" is the blueprint's last.
func (l *Loop) Resume(ctx context.Context, b *blueprint.Blueprint, files fs.FS, filesDigest, from, by string) (Bake, error) {
	fresh, err := l.fresh(ctx, b, files, filesDigest, by)
	if err != nil {
		return Bake{}, err
	}
	refuse := func(message, hint string) (Bake, error) {
		return Bake{}, &fault.Error{Kind: fault.Conflict, Op: "resume the bake", Object: b.Name, Message: message, Hint: hint}
	}
	for range 10 {
		old, version, err := l.kept(ctx, b.Name, from)
		if err != nil {
			return Bake{}, err
		}
		now := l.Clock.Now()
		if old.Base != fresh.Base {
			return refuse(fmt.Sprintf("the base image is another one now: %s was baked from %s, and the blueprint says %s", old.Name, old.Base, fresh.Base), "bake without --resume: a new builder")
		}
		if old.Name == fresh.Name {
			again := old.again(now)
			again.Files, again.Keep, again.Puppet, again.By = filesDigest, fresh.Keep, fresh.Puppet, by
			err = l.Store.Apply(ctx, store.NoEpoch, store.Put(Kind, old.Name, version, again))
			if errors.Is(err, store.ErrConflict) {
				continue
			}
			return again, err
		}
		cur, curVersion, err := store.Get[Bake](ctx, l.Store, Kind, fresh.Name)
		switch {
		case errors.Is(err, store.ErrNotFound):
			curVersion = 0
		case err != nil:
			return Bake{}, err
		case cur.Step != Done:
			return refuse("a bake of these inputs is under way or keeps a builder of its own: "+cur.Name, "dayfly why "+cur.Name)
		case cur.Error == "":
			if ok, err := l.there(ctx, cur); err != nil || ok {
				return cur, err
			}
			fallthrough
		default:
			fresh.Attempt = cur.Attempt + 1
		}
		heir := fresh.adopt(old, now)
		given := old.enter(Clean, now)
		given.Heir, given.Sentence = heir.Name, "its builder goes to "+heir.Name
		err = l.Store.Apply(ctx, store.NoEpoch, store.Put(Kind, old.Name, version, given), store.Put(Kind, heir.Name, curVersion, heir))
		if !errors.Is(err, store.ErrConflict) {
			return heir, err
		}
	}
	return refuse("others change it all the time", "")
}

// kept finds the failed bake of a blueprint that keeps a builder.
func (l *Loop) kept(ctx context.Context, blueprint, from string) (Bake, int64, error) {
	all, err := store.List[Bake](ctx, l.Store, Kind, blueprint+"-")
	if err != nil {
		return Bake{}, 0, err
	}
	var found *Bake
	for i, b := range all {
		if b.Step == Kept && b.Blueprint == blueprint && !b.Cancel && (from == "" || b.Name == from) && (found == nil || b.Since.After(found.Since)) {
			found = &all[i]
		}
	}
	if found == nil {
		message := "no failed bake of this blueprint keeps a builder"
		if from != "" {
			message = from + " keeps no builder"
		}
		return Bake{}, 0, &fault.Error{Kind: fault.NotFound, Op: "resume the bake", Object: blueprint, Message: message, Hint: "its time may be over (image.keep_failed): bake without --resume"}
	}
	b, version, err := store.Get[Bake](ctx, l.Store, Kind, found.Name)
	if err == nil && b.Step != Kept {
		err = &fault.Error{Kind: fault.Conflict, Op: "resume the bake", Object: b.Name, Message: "its builder was given away or is going away at this moment"}
	}
	return b, version, err
}

// again is the next try of a kept bake with the same inputs.
func (b Bake) again(now time.Time) Bake {
	b.To = b.FailedAt
	if b.To == Verify {
		b.To = Launch // on instances that nobody has touched
	}
	b.Error = ""
	return b.enter(Resume, now)
}

// adopt takes over the builder of a failed bake with other inputs.
func (b Bake) adopt(old Bake, now time.Time) Bake {
	b.From, b.Origin, b.Prefix, b.Hands = old.Name, old.Origin, old.Prefix, old.Hands
	b.Claim, b.TokenKey = old.Claim, old.TokenKey // the builder has its certificate already
	b.Stack, b.Instance, b.Subnet, b.Group, b.Profile = old.Stack, old.Instance, old.Subnet, old.Group, old.Profile
	b.To = Online
	b = b.enter(Resume, now)
	b.Steps = nil
	return b
}

// Executed is what a command on a kept instance gave.
type Executed struct {
	Instance string `json:"instance"`
	ExitCode int    `json:"exit_code"`
	Stdout   string `json:"stdout"`
	Stderr   string `json:"stderr"`
}

// execLimit is how long a person's command may take.
const execLimit = 10 * time.Minute

// Exec runs a person's command on what a failed bake keeps: there is no inbound
// port and no key pair, so it goes by Run Command. The record says that hands
// were on it before they are.
func (l *Loop) Exec(ctx context.Context, name, on, command string) (Executed, error) {
	var b Bake
	err := reconcile.Update(ctx, l.Store, Kind, name, func(c *Bake) error {
		if _, err := c.inside(on); err != nil {
			return err
		}
		c.Hands++
		b = *c
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return Executed{}, &fault.Error{Kind: fault.NotFound, Op: "look inside", Object: name, Message: "there is no such bake", Hint: "dayfly bake list shows them"}
	}
	if err != nil {
		return Executed{}, err
	}
	instance, err := b.inside(on)
	if err != nil {
		return Executed{}, err
	}
	id, err := l.Cloud.SendCommand(ctx, b.intent("exec/"+strings.ToLower(rand.Text())), cloud.Command{Instance: instance, Script: command, Timeout: execLimit, Comment: "bake " + b.Name + " exec"})
	if err != nil {
		return Executed{}, err
	}
	for wait := soon; ; wait = min(wait*3/2, 2*time.Second) {
		r, err := l.Cloud.CommandResult(ctx, instance, id)
		if err != nil {
			return Executed{}, err
		}
		if r.Finished() {
			if r.Status != "Success" && r.Status != "Failed" {
				return Executed{}, &fault.Error{Kind: fault.Failed, Op: "look inside", Object: instance, Message: "the command ended with " + r.Status + ": " + r.Stderr}
			}
			return Executed{Instance: instance, ExitCode: r.ExitCode, Stdout: r.Stdout, Stderr: r.Stderr}, nil
		}
		select {
		case <-ctx.Done():
			return Executed{}, ctx.Err()
		case <-l.Clock.After(wait):
		}
	}
}
