package bake

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/cloud"
)

// roomLimit is how long a bake looks for a zone with room for its builder.
const roomLimit = 30 * time.Minute

// makeBuilder asks for the builder's stack. Where a zone had no room the next
// try is another call: another stack, in another zone, under another intent.
func (l *Loop) makeBuilder(ctx context.Context, b Bake, bp *blueprint.Blueprint) error {
	step := "builder"
	p := map[string]string{"ImageId": b.Base, "InstanceType": bp.Image.Type, "Bucket": l.Cloud.Bucket(), "Prefix": b.Prefix}
	if n := len(b.Full); n > 0 {
		step, p["Zone"] = fmt.Sprintf("builder/%d", n), b.Zone
	}
	_, err := l.Cloud.CreateStack(ctx, b.intent(step), cloud.StackInput{Name: b.Stack, Template: builderTemplate, Tags: l.builderTags(b), Parameters: p})
	return err
}

// move notes that the builder's zone had no room, and which is the next.
func (l *Loop) move(ctx context.Context, b Bake, why string) (finding, error) {
	zones, err := l.Cloud.Zones(ctx)
	if err != nil {
		return finding{}, err
	}
	if len(zones) == 0 {
		return failed("the builder's stack could not be made, and the region names no other zone: %s", why), nil
	}
	tried := b.Zone
	if tried == "" { // the template's choice, which AWS names when it refuses
		tried = zones[0]
		for _, z := range zones {
			if strings.Contains(why, "("+z+")") {
				tried = z
			}
		}
	}
	full := append(slices.Clone(b.Full), tried)
	next, round := nextZone(zones, full)
	now := l.Clock.Now()
	var rest time.Time
	said := fmt.Sprintf("zone %s has no room for the builder; next is zone %s", tried, next)
	if round {
		rest = now.Add(cooldown)
		said = fmt.Sprintf("no zone has room for the builder; zone %s is asked again at %s", next, rest.UTC().Format("15:04:05 MST"))
	}
	l.Log.WarnContext(ctx, "no capacity for the builder", "bake", b.Name, "zone", tried, "next", next, "why", why)
	stack := l.StackName(fmt.Sprintf("bake-%s-%d-zone-%d", b.Name, b.Attempt, len(full)))
	return finding{wait: soon, learn: func(b *Bake) {
		b.Former, b.Stack, b.Full, b.Zone, b.Rest = b.Stack, stack, full, next, rest
		b.Sentence = said
		since := now
		if b.Blocker != nil && b.Blocker.Rule == "no-capacity" {
			since = b.Blocker.Since
		}
		b.Blocker = &blocker.Blocker{
			Rule: "no-capacity", On: b.object(), Message: said + ": " + firstLine(why), Since: since, Until: b.Since.Add(b.limit()),
			Action: "name another type (image.type) that this region has room for, or wait: it goes from zone to zone by itself",
		}
	}}, nil
}

// nextZone is the zone after the one that was full last, and whether all have
// been full since the last rest. It is pure.
func nextZone(zones, full []string) (next string, round bool) {
	last := slices.Index(zones, full[len(full)-1])
	return zones[(last+1)%len(zones)], len(full)%len(zones) == 0
}

// elsewhere makes the builder's stack in another zone when that of the last try
// is gone: the two would need the room of two networks, of which an account has
// five. made tells that it was asked for.
func (l *Loop) elsewhere(ctx context.Context, b Bake) (f finding, made bool, err error) {
	if b.Former != "" {
		gone, wait, err := l.endStack(ctx, b, b.Former)
		if err != nil || !gone {
			return finding{wait: wait}, false, err
		}
		return finding{wait: soon, learn: func(b *Bake) { b.Former = "" }}, false, nil
	}
	if wait := b.Rest.Sub(l.Clock.Now()); wait > 0 {
		return finding{wait: wait}, false, nil
	}
	bp, _, err := l.Blueprints.Blueprint(ctx, b.Files)
	if err != nil {
		return finding{}, false, err
	}
	return finding{}, true, l.makeBuilder(ctx, b, bp)
}
