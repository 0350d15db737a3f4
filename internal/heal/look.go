package heal

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// look reads a group, brings the records of its instances up to date, and gives
// the view that a plan needs.
func (l *Loop) look(ctx context.Context, e environment.Environment, g environment.Generation, group string, f *instance.Fleet, k *known) (instance.View, error) {
	now := l.Clock.Now()
	target := map[string]cloud.Target{}
	for _, tg := range g.TargetGroups {
		ts, err := l.Cloud.Targets(ctx, tg)
		if err != nil {
			return instance.View{}, err
		}
		for _, t := range ts {
			target[t.Instance] = t
		}
	}
	// Instances before the group: those that are launched between the two reads
	// are members without being listed, never the other way round.
	is, err := l.Cloud.Instances(ctx, map[string]string{"tag:aws:autoscaling:groupName": group})
	if err != nil {
		return instance.View{}, err
	}
	gr, err := l.Cloud.Group(ctx, group)
	if err != nil {
		return instance.View{}, err
	}
	// Instances say what is wrong with them, and are touched, once they serve.
	var conditions map[string]handoff.Condition
	if g.Phase == environment.Serving {
		if conditions, err = l.conditions(ctx, g); err != nil {
			return instance.View{}, err
		}
		l.commands(ctx)
	}

	machines := map[string]cloud.Instance{}
	for _, i := range is {
		machines[i.ID] = i
	}
	var fresh []*instance.Instance
	at := map[string]int{}
	for i, in := range k.list {
		at[in.ID] = i
	}
	for _, m := range gr.Members {
		if _, there := at[m.Instance]; there {
			continue
		}
		c := machines[m.Instance]
		in := instance.Instance{
			ID: m.Instance, Environment: g.Environment, Generation: g.Number, Group: group, Image: g.Image, Release: g.Release,
			Zone: m.Zone, Type: c.Type, Address: c.PrivateIP, State: instance.Launching, Launched: c.Launched,
		}
		if in.Launched.IsZero() {
			in.Launched = now
		}
		in.Due, in.Deadline = instance.Born(in.ID, in.Launched, e.MaxAge)
		in.Step(in.Launched, "launched")
		at[in.ID] = len(k.list)
		k.list = append(k.list, in)
	}
	for i := range k.list {
		if _, stored := k.versions[k.list[i].ID]; !stored && k.list[i].Parent == "" {
			fresh = append(fresh, &k.list[i])
		}
	}
	if g.Phase == environment.Serving {
		instance.Successors(k.list, fresh)
	}

	v := instance.View{Desired: gr.Desired, Min: gr.Min, Max: gr.Max}
	f.Size = gr.Min
	if len(g.Groups) == 1 {
		f.Size = g.Size
	}
	f.Serving = 0
	members := map[string]bool{}
	for _, m := range gr.Members {
		members[m.Instance] = true
		in := &k.list[at[m.Instance]]
		if c, ok := machines[m.Instance]; ok && in.Address == "" {
			in.Address, in.Type = c.PrivateIP, c.Type
		}
		t, targeted := target[m.Instance]
		healthy := m.Lifecycle == "InService" && m.Healthy && (len(g.TargetGroups) == 0 || targeted && (t.State == "healthy" || t.State == "unused"))
		// A target that is being checked for the first time does not fail.
		settling := targeted && (t.State == "initial" || t.State == "draining") || !targeted && len(g.TargetGroups) > 0
		trouble := ""
		if c, bad := conditions[in.ID]; bad && c.Unhealthy != "" {
			healthy, trouble = false, "it says itself: "+c.Unhealthy
		} else if t.State == "unhealthy" {
			trouble = "it fails its health check: " + t.Reason
		}
		l.observe(in, m.Lifecycle, healthy, settling, trouble, now, f)
		l.touched(in, conditions[in.ID])
		if healthy {
			f.Serving++
		}
		member := instance.Member{Instance: *in, Lifecycle: m.Lifecycle, Healthy: healthy}
		if settling && trouble == "" && m.Lifecycle == "InService" {
			member.Lifecycle = "Pending" // for those who ask it, it is not there yet
		}
		v.Members = append(v.Members, member)
	}
	if g.Phase == environment.Serving && len(gr.Members) < gr.Desired {
		if v.Lost, v.Zones, err = l.lostZones(ctx, group, gr, k); err != nil {
			return v, err
		}
	}
	var lost []*instance.Instance
	for i := range k.list {
		in := &k.list[i]
		if in.Group != group || in.State == instance.Gone || members[in.ID] {
			continue
		}
		l.gone(in, machines[in.ID], now)
		if in.Cause == instance.NeverReady {
			lost = append(lost, in)
		}
	}
	if len(lost) > 0 {
		if err := l.silent(ctx, g, lost); err != nil {
			return v, err
		}
		if err := l.blame(ctx, g, k); err != nil {
			return v, err
		}
	}
	return v, nil
}

// longest is what a replacement is taken to need at most: a clock that jumped, or
// that is not the cloud's, would have a whole fleet replaced to be in time.
const longest = time.Hour

// refused is how long a refused launch speaks for a zone that is lost.
const refused = 15 * time.Minute

// lostZones are those that the group was in, where nothing of it is any more
// and the cloud has lately had no room; of is how many it was in.
func (l *Loop) lostZones(ctx context.Context, group string, gr cloud.Group, k *known) (lost []string, of int, err error) {
	empty := map[string]bool{}
	for _, i := range k.list {
		if i.Group == group && i.Zone != "" {
			empty[i.Zone] = true
		}
	}
	of = len(empty)
	for _, m := range gr.Members {
		if !strings.HasPrefix(m.Lifecycle, "Terminating") {
			delete(empty, m.Zone)
		}
	}
	if len(empty) == 0 {
		return nil, of, nil
	}
	as, err := l.Cloud.Activities(ctx, group)
	if err != nil {
		return nil, of, err
	}
	for _, a := range as {
		if cloud.NoCapacity(a.Message) && l.Clock.Now().Sub(a.Started) < refused {
			return slices.Sorted(maps.Keys(empty)), of, nil
		}
	}
	return nil, of, nil
}

// observe notes down how an instance does.
func (l *Loop) observe(in *instance.Instance, lifecycle string, healthy, settling bool, trouble string, now time.Time, f *instance.Fleet) {
	switch {
	case lifecycle == "Standby":
		if in.State != instance.Kept {
			in.State = instance.Kept
			in.Step(now, "is kept out of service")
		}
	case strings.HasPrefix(lifecycle, "Terminating"):
		if in.State != instance.Leaving {
			in.State = instance.Leaving
			in.Step(now, "drains")
		}
	case lifecycle != "InService":
	default:
		if in.InService.IsZero() && (healthy || settling) {
			if !healthy {
				return
			}
			in.InService = now
			in.Step(now, "in service")
			if took := now.Sub(in.Launched); took > 0 {
				// The slower the more it counts: planning needs the bad case.
				f.Takes = max(min(took, longest), f.Takes-f.Takes/10)
			}
		}
		switch {
		case healthy:
			if !in.Failing.IsZero() {
				in.Failing, in.Trouble = time.Time{}, ""
				in.Step(now, "healthy again")
			}
			if in.Leave == nil {
				in.State = instance.Serving
			}
		case !settling || trouble != "":
			if in.Failing.IsZero() {
				in.Failing = now
				in.Step(now, "fails: "+trouble)
			}
			in.Trouble = trouble
			if in.Leave == nil {
				in.State = instance.Failing
			}
		}
	}
}

// touched notes down that an instance is not what its image made any more.
func (l *Loop) touched(in *instance.Instance, c handoff.Condition) {
	l.mu.Lock()
	by, commanded := l.foreign[in.ID]
	l.mu.Unlock()
	if in.Touch != nil || len(c.Touched) == 0 && !commanded {
		return
	}
	t := instance.Touch{What: c.Touched, By: c.By, At: c.At}
	if commanded {
		t = by
	}
	in.Touch = &t
	in.Step(l.Clock.Now(), "touched: "+strings.Join(t.What, ", "))
}

// gone notes down why an instance is not there any more.
func (l *Loop) gone(in *instance.Instance, m cloud.Instance, now time.Time) {
	reason := m.Reason
	switch {
	case in.Keep != nil && in.State == instance.Kept:
		in.Cause, in.Why = instance.Released, "it was kept until "+in.Keep.Until.UTC().Format(time.RFC3339)
	case in.Leave != nil:
		in.Cause, in.Why = in.Leave.Cause, in.Leave.Why
	case in.InService.IsZero():
		in.Cause, in.Why = instance.NeverReady, "it never came into service"
	default:
		in.Cause, in.Why = instance.Died, "it ended by itself"
	}
	if reason != "" && in.Leave == nil {
		in.Why += ": " + reason
	}
	in.State, in.Ended = instance.Gone, now
	in.Step(now, "gone: "+in.Why)
}

// conditions reads what instances say is wrong with them.
func (l *Loop) conditions(ctx context.Context, g environment.Generation) (map[string]handoff.Condition, error) {
	keys, err := l.Cloud.ListObjects(ctx, conditionPrefix(g))
	if err != nil {
		return nil, err
	}
	out := map[string]handoff.Condition{}
	for _, key := range keys {
		raw, err := l.Cloud.Object(ctx, key, 64<<10)
		if err != nil {
			continue // the next look has it
		}
		var c handoff.Condition
		if json.Unmarshal(raw, &c) == nil {
			out[strings.TrimSuffix(path.Base(key), ".json")] = c
		}
	}
	return out, nil
}

// foreignEvery is how often commands that others sent are asked for; window is
// how far back.
const (
	foreignEvery = 30 * time.Second
	window       = 24 * time.Hour
)

// commands finds out who was sent a Run Command by others; a failure of that is
// no reason not to heal.
func (l *Loop) commands(ctx context.Context) {
	now := l.Clock.Now()
	l.mu.Lock()
	due := !now.Before(l.next)
	since := l.asked.Add(-time.Minute)
	if l.asked.IsZero() {
		since = now.Add(-window)
	}
	if due {
		l.next = now.Add(foreignEvery)
	}
	l.mu.Unlock()
	if !due {
		return
	}
	found, err := l.Cloud.ForeignCommands(ctx, since)
	if err != nil {
		if ctx.Err() == nil {
			l.Log.WarnContext(ctx, "Run Commands of others cannot be listed", "error", err)
		}
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = now
	if l.foreign == nil {
		l.foreign = map[string]instance.Touch{}
	}
	for id, t := range l.foreign {
		if now.Sub(t.At) > window {
			delete(l.foreign, id)
		}
	}
	for _, c := range found {
		for _, id := range c.Instances {
			what := "Run Command " + c.ID + " (" + c.Document + ")"
			if c.Comment != "" {
				what += ": " + c.Comment
			}
			l.foreign[id] = instance.Touch{What: []string{what}, By: "Run Command", At: c.At}
		}
	}
}

// silent notes down which of those that were lost said nothing at all. It is
// noted at once: reports go with their generation.
func (l *Loop) silent(ctx context.Context, g environment.Generation, lost []*instance.Instance) error {
	keys, err := l.Cloud.ListObjects(ctx, path.Dir(handoff.ReportKey(g.Environment, strconv.Itoa(g.Number), "i"))+"/")
	if err != nil {
		return err
	}
	said := map[string]bool{}
	for _, key := range keys {
		said[strings.TrimSuffix(path.Base(key), ".json")] = true
	}
	for _, i := range lost {
		if i.Silent = !said[i.ID]; i.Silent {
			continue
		}
		raw, err := l.Cloud.Object(ctx, handoff.ReportKey(g.Environment, strconv.Itoa(g.Number), i.ID), 64<<10)
		if fault.KindOf(err) == fault.NotFound {
			continue
		}
		if err != nil {
			return err
		}
		var r handoff.Report
		if json.Unmarshal(raw, &r) != nil || r.OK {
			continue
		}
		i.Said = strings.ToValidUTF8(r.Output[max(0, len(r.Output)-instance.SaidLimit):], "")
		if n := len(i.Steps); n > 0 && i.Steps[n-1].What == "gone: "+i.Why {
			i.Steps[n-1].What += ": " + firstLine(r.Reason)
		}
		i.Why += ": " + firstLine(r.Reason)
	}
	return nil
}

// lately is how far back launches are looked at for what they have in common.
const lately = 30 * time.Minute

// blame quarantines an image when its instances fail together before they can
// say anything (law 8).
func (l *Loop) blame(ctx context.Context, g environment.Generation, k *known) error {
	all, err := store.List[instance.Instance](ctx, l.Store, instance.Kind, "")
	if err != nil {
		return err
	}
	now := l.Clock.Now()
	own := map[string]bool{}
	var some []instance.Instance
	for _, i := range k.list {
		own[i.ID] = true
		if i.Image == g.Image && now.Sub(i.Launched) < lately {
			some = append(some, i)
		}
	}
	for _, i := range all {
		if !own[i.ID] && i.Image == g.Image && now.Sub(i.Launched) < lately {
			some = append(some, i)
		}
	}
	name, failed, launched := instance.Together(some)
	if name == "" {
		return nil
	}
	why := strconv.Itoa(failed) + " of " + strconv.Itoa(launched) + " instances launched from it within " + lately.String() + " ended before they reported anything"
	err = reconcile.Update(ctx, l.Store, image.Kind, name, func(im *image.Image) error {
		if im.State != image.Quarantined && im.State != image.Retired {
			im.State, im.Why = image.Quarantined, why
			l.Log.ErrorContext(ctx, "image is quarantined", "image", name, "why", why)
		}
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
