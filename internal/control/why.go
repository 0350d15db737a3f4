package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/template"
)

// asked collects the reasons of what a person asked about.
type asked struct {
	object string // kind/name, name, or an id of the cloud's; "": all that waits
	now    time.Time
	found  bool
	names  []string // all there are, for who mistyped one
	out    []server.Reason
}

// thing is a record as a person asks about it.
type thing struct {
	kind, name string
	id         string   // of the cloud's
	parents    []string // what also stands still with it, kind/name
	phase      string
	waits      string // a sentence; "" waits for nothing
	other      string // a sentence about what does not wait: how it ended
}

func (t thing) called(object string) bool {
	return object == t.name || object == t.kind+"/"+t.name || (t.id != "" && (object == t.id || object == t.kind+"/"+t.id))
}

// within tells whether the object is something that the thing is a part of.
func (t thing) within(object string) bool {
	return slices.ContainsFunc(t.parents, func(p string) bool {
		_, name, _ := strings.Cut(p, "/")
		return object == p || object == name
	})
}

func (a *asked) add(t thing) {
	a.names = append(a.names, t.kind+"/"+t.name)
	mine := a.object != "" && t.called(a.object)
	a.found = a.found || mine
	sentence := t.waits
	if mine {
		sentence = cmp.Or(t.waits, t.other, "it waits for nothing")
	} else if a.object != "" && !t.within(a.object) {
		return
	}
	if sentence != "" {
		a.out = append(a.out, server.Reason{Object: t.kind + "/" + t.name, Phase: t.phase, Sentence: sentence})
	}
}

func (a *asked) sentence(b *blocker.Blocker) string {
	if b == nil {
		return ""
	}
	return b.Sentence(a.now)
}

// Why implements server.Backend: what an object waits for, and what its parts
// wait for; of an object that waits for nothing, how it is.
func (c *Control) Why(ctx context.Context, object string) ([]server.Reason, error) {
	a := &asked{object: object, now: c.clock.Now(), out: c.whyAll()}
	current := map[string]*blocker.Blocker{} // what keeps an environment from its image
	all, err := c.Currency(ctx)
	for _, s := range all {
		current[s.Environment] = s.Blocker
	}
	err = errors.Join(err,
		each(ctx, c, bake.Kind, func(b bake.Bake) {
			a.add(thing{kind: bake.Kind, name: b.Name, phase: string(b.Step), waits: a.sentence(b.Blocker), other: b.Error})
		}),
		each(ctx, c, image.Kind, func(i image.Image) {
			t := thing{kind: image.Kind, name: i.Name, id: i.AMI, phase: string(i.State)}
			switch i.State {
			case image.Quarantined:
				t.other = "nothing is launched from it: " + cmp.Or(i.Why, "it is in quarantine")
			case image.Retired:
				t.other = "nothing is launched from it: it is retired"
			}
			a.add(t)
		}),
		each(ctx, c, environment.FoundationKind, func(f environment.Foundation) {
			a.add(thing{kind: environment.FoundationKind, name: f.Name, phase: string(f.Phase), waits: a.sentence(f.Blocker), other: f.Error})
		}),
		each(ctx, c, environment.Kind, func(e environment.Environment) {
			a.add(thing{kind: environment.Kind, name: e.Name, phase: string(e.Phase), waits: cmp.Or(a.sentence(e.Blocker), a.sentence(current[e.Name])), other: e.Error})
		}),
		each(ctx, c, environment.GenerationKind, func(g environment.Generation) {
			a.add(thing{kind: environment.GenerationKind, name: environment.GenerationName(g.Environment, g.Number), parents: []string{environment.Kind + "/" + g.Environment},
				phase: string(g.Phase), waits: a.sentence(g.Blocker), other: g.Error})
		}),
		each(ctx, c, instance.FleetKind, func(f instance.Fleet) {
			a.add(thing{kind: instance.FleetKind, name: f.Name, id: f.Group, parents: parents(f.Environment, f.Generation),
				phase: fmt.Sprintf("%d of %d serve", f.Serving, f.Size), waits: a.sentence(f.Blocker)})
		}),
		each(ctx, c, instance.Kind, func(i instance.Instance) {
			t := thing{kind: instance.Kind, name: i.Name(), id: i.ID, parents: parents(i.Environment, i.Generation), phase: string(i.State)}
			t.waits, t.other = condition(i, a.now)
			if object == "" {
				t.waits = "" // their fleet says what is wrong; 45 of them would say it 45 times
			}
			a.add(t)
		}),
		each(ctx, c, pipeline.Kind, func(r pipeline.Run) {
			a.add(thing{kind: pipeline.Kind, name: r.Name, phase: string(r.Phase), waits: a.sentence(r.Blocker), other: r.Error})
		}),
	)
	if err == nil && object != "" && !a.found {
		err = unknown(object, a.names)
	}
	return a.out, err
}

func parents(env string, generation int) []string {
	return []string{environment.Kind + "/" + env, environment.GenerationKind + "/" + environment.GenerationName(env, generation)}
}

// condition says what an instance waits for, or how it is.
func condition(i instance.Instance, now time.Time) (waits, other string) {
	since := func(t time.Time) string { return now.Sub(t).Round(time.Second).String() }
	var touched string
	if i.Touch != nil {
		touched = "it was touched"
		if i.Touch.By != "" {
			touched += " by " + i.Touch.By
		}
		touched += ": " + strings.Join(i.Touch.What, ", ")
	}
	switch i.State {
	case instance.Gone:
		return "", cmp.Or(i.Why, "it is gone")
	case instance.Kept:
		if i.Keep != nil {
			waits = fmt.Sprintf("%s keeps it for a look until %s: dayfly instance release ends that", cmp.Or(i.Keep.By, "somebody"), i.Keep.Until.UTC().Format(time.RFC3339))
		}
	case instance.Leaving:
		if i.Leave != nil {
			waits = fmt.Sprintf("it is being replaced, for %s: %s", since(i.Leave.Since), cmp.Or(i.Leave.Why, string(i.Leave.Cause)))
		}
	case instance.Failing:
		waits = fmt.Sprintf("it does not serve, for %s: %s", since(i.Failing), cmp.Or(i.Trouble, "its target is not healthy"))
	case instance.Launching:
		waits = fmt.Sprintf("it boots, or its hand-off is under way, for %s", since(i.Launched))
		if i.Trouble != "" {
			waits += ": " + i.Trouble
		}
	default:
		if touched != "" {
			return touched + "; it will be replaced", ""
		}
		if i.Ask != nil {
			return fmt.Sprintf("%s asked that it is replaced", cmp.Or(i.Ask.By, "somebody")), ""
		}
		if !i.Due.IsZero() {
			other = "it waits for nothing; its replacement begins at " + i.Due.UTC().Format(time.RFC3339) + ", before it is too old"
		}
		return "", other
	}
	if touched != "" {
		waits += "; " + touched
	}
	return waits, ""
}

// unknown says which names are near to one that is not there.
func unknown(object string, names []string) error {
	var near []string
	for _, n := range names { // a part of a name is a good guess
		_, short, _ := strings.Cut(n, "/")
		if len(object) > 2 && strings.Contains(n, object) || len(short) > 2 && strings.Contains(object, short) {
			near = append(near, n)
		}
	}
	var words, of []string // how each name may be said
	for _, n := range names {
		_, short, _ := strings.Cut(n, "/")
		words, of = append(words, n, short, path.Base(n)), append(of, n, n, n)
	}
	for len(near) < 3 {
		word := template.Nearest(object, words)
		if word == "" {
			break
		}
		n := of[slices.Index(words, word)]
		for i := range words {
			if of[i] == n {
				words[i] = ""
			}
		}
		if !slices.Contains(near, n) {
			near = append(near, n)
		}
	}
	hint := "dayfly env list, dayfly run list, dayfly images and dayfly instance list show what there is"
	if len(near) > 0 {
		hint = "did you mean " + strings.Join(near[:min(len(near), 3)], ", ") + "?"
	}
	return &fault.Error{Kind: fault.NotFound, Object: object, Message: "nothing has this name", Hint: hint}
}
