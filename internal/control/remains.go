package control

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/release"
	"github.com/dayfly-infra/dayfly/internal/retention"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// remains are the records that are, or may once be, of something that is over,
// and what retention wants to know of them.
type remains struct {
	list    []retention.Record
	records map[string]store.Record   // by kind/name
	intents map[string][]store.Record // done ones, by their object
	old     []store.Record            // done ones that nobody asks for again, whatever lives
	held    map[string]string         // objects of a call whose end is not known
	last    map[string]int            // highest number of a generation, by environment
	envs    map[string]environment.Environment
	runs    map[string]pipeline.Run
	rels    map[string]release.Release
}

// remembers are the kinds that are read, those that are named before those that
// name them: what comes to be named meanwhile is seen.
var remembers = []string{
	bake.RefreshKind, release.Kind, bake.Kind, image.Kind, environment.FoundationKind, environment.Kind, environment.GenerationKind,
	instance.FleetKind, instance.Kind, pipeline.Kind, pipeline.NoticeKind,
}

func (c *Control) remains(ctx context.Context) (*remains, error) {
	r := &remains{
		records: map[string]store.Record{}, intents: map[string][]store.Record{}, held: map[string]string{}, last: map[string]int{},
		envs: map[string]environment.Environment{}, runs: map[string]pipeline.Run{}, rels: map[string]release.Release{},
	}
	var all []store.Record
	for _, kind := range remembers {
		rs, err := c.store.List(ctx, kind, "")
		if err != nil {
			return nil, err
		}
		all = append(all, rs...)
	}
	for _, rec := range all {
		r.records[rec.Kind+"/"+rec.Name] = rec
	}
	is, err := c.store.List(ctx, cloud.IntentKind, "")
	if err != nil {
		return nil, err
	}
	for _, rec := range is {
		var i cloud.IntentRecord
		if err := json.Unmarshal(rec.Body, &i); err != nil {
			return nil, fmt.Errorf("record %s %s: %w", rec.Kind, rec.Name, err)
		}
		switch kind, name, _ := strings.Cut(i.Object, "/"); {
		case i.Done:
			r.intents[i.Object] = append(r.intents[i.Object], rec)
			if r.past(kind, name, rec.Name) {
				r.old = append(r.old, rec)
			}
		case kind == instance.Kind && r.records[i.Object].Body == nil:
			r.held[environment.GenerationKind+"/"+path.Dir(name)] = rec.Name // its record was forgotten already
		default:
			r.held[i.Object] = rec.Name
		}
	}
	for _, rec := range all {
		if err := r.add(rec); err != nil {
			return nil, fmt.Errorf("record %s %s: %w", rec.Kind, rec.Name, err)
		}
	}
	return r, nil
}

// add says of a record what retention wants to know.
func (r *remains) add(rec store.Record) error {
	v := retention.Record{Key: rec.Kind + "/" + rec.Name}
	v.Held = r.held[v.Key]
	names := func(kind string, list ...string) {
		for _, n := range list {
			if n != "" {
				v.Names = append(v.Names, kind+"/"+n)
			}
		}
	}
	over := func(is bool, at time.Time) {
		if is {
			v.Ended = at
			if v.Ended.IsZero() {
				v.Ended = rec.Updated
			}
		}
	}
	switch rec.Kind {
	case bake.RefreshKind:
		var f bake.Refresh
		if err := json.Unmarshal(rec.Body, &f); err != nil {
			return err
		}
		// Only that of the newest inputs is ever due, and moves; a bake that is
		// kept keeps its own.
		over(true, f.Next.Add(f.Every))
	case release.Kind:
		var l release.Release
		if err := json.Unmarshal(rec.Body, &l); err != nil {
			return err
		}
		r.rels[rec.Name] = l
		used := l.Resolved
		if l.Used.After(used) {
			used = l.Used
		}
		over(true, used)
		if v.Family, v.Number = "releases of "+l.Blueprint, used.UnixNano(); !l.Ending.IsZero() {
			v.Ended, v.Family = time.Unix(0, 0), "" // begun and cut off: nobody takes it any more
		}
	case bake.Kind:
		var b bake.Bake
		if err := json.Unmarshal(rec.Body, &b); err != nil {
			return err
		}
		over(b.Step == bake.Done, b.Ended)
		v.Counted, v.Of = true, bake.RefreshKind+"/"+b.RefreshName()
		names(bake.Kind, b.From, b.Origin)
	case image.Kind: // people remove them; until then it is known how each was made
		var i image.Image
		if err := json.Unmarshal(rec.Body, &i); err != nil {
			return err
		}
		names(bake.Kind, i.Bake, i.Resumed)
	case environment.FoundationKind:
		var f environment.Foundation
		if err := json.Unmarshal(rec.Body, &f); err != nil {
			return err
		}
		over(f.Phase == environment.Gone, rec.Updated)
	case environment.Kind:
		var e environment.Environment
		if err := json.Unmarshal(rec.Body, &e); err != nil {
			return err
		}
		r.envs[e.Name] = e
		r.last[e.Name] = max(r.last[e.Name], e.Want)
		over(e.Phase == environment.Gone, rec.Updated)
		v.Counted = e.Run == ""
		if e.Run != "" {
			v.Of = pipeline.Kind + "/" + e.Run
		}
		if e.Phase == environment.Gone {
			break
		}
		numbers := []int{e.Want, e.Serving}
		names(release.Kind, e.Release)
		names(environment.FoundationKind, e.Foundation)
		if e.Next != nil {
			names(release.Kind, e.Next.Release)
			names(bake.Kind, e.Next.Bake)
		}
		if e.Shift != nil {
			numbers = append(numbers, e.Shift.From, e.Shift.To)
		}
		for _, b := range []*environment.Back{e.Back, e.LastBack} {
			if b != nil {
				numbers = append(numbers, b.From, b.To)
			}
		}
		for _, g := range e.Good {
			numbers = append(numbers, g.Generation)
			names(release.Kind, g.Release)
		}
		for _, n := range numbers {
			names(environment.GenerationKind, environment.GenerationName(e.Name, n))
		}
	case environment.GenerationKind:
		var g environment.Generation
		if err := json.Unmarshal(rec.Body, &g); err != nil {
			return err
		}
		over(g.Phase == environment.Gone, rec.Updated)
		r.last[g.Environment] = max(r.last[g.Environment], g.Number)
		v.Of = environment.Kind + "/" + g.Environment
		v.Family, v.Head, v.Number = "generations of "+g.Environment, v.Of, int64(g.Number)
		e, known := r.envs[g.Environment]
		v.Counted = known && e.Run == "" || !known && pipeline.RunOf(g.Environment) == ""
		names(release.Kind, g.Release)
	case instance.FleetKind:
		v.Of = environment.GenerationKind + "/" + path.Dir(rec.Name)
		over(r.gone(v.Of), rec.Updated)
	case instance.Kind:
		var i instance.Instance
		if err := json.Unmarshal(rec.Body, &i); err != nil {
			return err
		}
		over(i.State == instance.Gone, i.Ended)
		v.Of = environment.GenerationKind + "/" + path.Dir(rec.Name)
	case pipeline.Kind:
		var p pipeline.Run
		if err := json.Unmarshal(rec.Body, &p); err != nil {
			return err
		}
		r.runs[rec.Name] = p
		over(p.Phase == pipeline.Done, p.Ended)
		v.Counted = true
		v.Family, v.Number = "runs of "+p.Blueprint, int64(p.Number())
		names(release.Kind, p.Release)
		names(bake.Kind, p.Bake)
		names(environment.FoundationKind, p.Foundation)
	case pipeline.NoticeKind: // somebody is still to hear of the run
		var n pipeline.Notice
		if err := json.Unmarshal(rec.Body, &n); err != nil {
			return err
		}
		v.Of = pipeline.Kind + "/" + n.Run
	}
	r.list = append(r.list, v)
	return nil
}

// past tells whether a done intent cannot be asked for again: its object has no
// record any more, or counts on. That of a release is written before its record.
func (r *remains) past(kind, name, id string) bool {
	rec, there := r.records[kind+"/"+name]
	if !there {
		return slices.Contains(remembers, kind) && kind != release.Kind
	}
	rest, traffic := strings.CutPrefix(id, kind+"/"+name+"/traffic/")
	number, _, _ := strings.Cut(rest, "/")
	n, err := strconv.Atoi(number)
	var e environment.Environment
	return kind == environment.Kind && traffic && err == nil && json.Unmarshal(rec.Body, &e) == nil && n < e.Moves
}

// gone tells whether a generation ended, or has no record any more.
func (r *remains) gone(key string) bool {
	rec, ok := r.records[key]
	if !ok {
		return true
	}
	var g environment.Generation
	return json.Unmarshal(rec.Body, &g) == nil && g.Phase == environment.Gone
}

// deletes are the writes that forget a record, after those that forget its
// intents. An environment leaves its last number: the names of stacks and of
// intents come from it, and AWS remembers tokens that come from those.
func (r *remains) deletes(key string, now time.Time) []store.Write {
	var ws []store.Write
	for _, i := range r.intents[key] {
		ws = append(ws, store.Delete(i.Kind, i.Name, i.Version))
	}
	rec := r.records[key]
	if e, ok := r.envs[rec.Name]; ok && rec.Kind == environment.Kind && e.Run == "" {
		ws = append(ws, store.Put(environment.FormerKind, e.Name, store.Any, environment.Former{Name: e.Name, Last: r.last[e.Name], Forgotten: now}))
	}
	return append(ws, store.Delete(rec.Kind, rec.Name, rec.Version))
}

// mirror is where the mirror of a release is in our bucket, with a slash at its
// end; "" where it is elsewhere.
func mirror(l release.Release, bucket string) string {
	key, ours := strings.CutPrefix(l.Mirror, "s3://"+bucket+"/")
	if !ours || !strings.HasPrefix(key, cmp.Or(release.Folder(l), "-")) {
		return ""
	}
	return release.Folder(l)
}
