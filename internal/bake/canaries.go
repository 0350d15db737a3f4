package bake

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/identity"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/verify"
)

// canaries is how many fresh instances prove an image: two can be compared.
const canaries = 2

// canaryTypes are the types that canaries may have, in the order of preference.
var canaryTypes = []string{"t3.small", "t3.medium", "m5.large"}

// cooldown is how long a type that had no capacity is left alone.
const cooldown = time.Minute

// offering is the step and the type of the next launch of canaries: what was
// refused is another call the next time.
func (b Bake) offering() (step, typ string) {
	step = "canaries"
	if b.Refused > 0 {
		step = fmt.Sprintf("canaries/%d", b.Refused)
	}
	return step, canaryTypes[b.Refused%len(canaryTypes)]
}

// launch boots the canaries in one call, all or none. RunInstances takes one
// subnet, so they are in the builder's zone.
func (l *Loop) launch(ctx context.Context, b Bake) (finding, error) {
	if len(b.Canaries) == 0 {
		step, typ := b.offering()
		ids, err := l.Cloud.RunInstances(ctx, b.intent(step), cloud.InstanceInput{
			Image: b.AMI, Type: typ, Subnet: b.Subnet, Groups: []string{b.Group}, Profile: b.Profile, Count: canaries, Tags: l.tags(b),
		})
		if errors.Is(err, cloud.ErrCapacity) {
			// Refused for good, so nothing came of it: the next type, and after
			// the last one the first again, when it has had time to cool down.
			f := finding{wait: soon, learn: func(b *Bake) { b.Refused++ }}
			if (b.Refused+1)%len(canaryTypes) == 0 {
				f.wait = cooldown
			}
			l.Log.WarnContext(ctx, "no capacity for the canaries", "bake", b.Name, "type", typ, "error", err)
			return f, nil
		}
		if err != nil {
			return finding{}, err
		}
		return finding{wait: soon, learn: func(b *Bake) { b.canaries(ids) }}, nil
	}
	return l.online(ctx, b, b.canaryIDs()...)
}

func (b *Bake) canaries(ids []string) {
	b.Canaries = nil
	for _, id := range ids {
		b.Canaries = append(b.Canaries, image.Canary{Instance: id})
	}
}

func (b Bake) canaryIDs() []string {
	var ids []string
	for _, c := range b.Canaries {
		ids = append(ids, c.Instance)
	}
	return ids
}

// verify runs the checks on all canaries side by side, then compares what makes
// each of them itself, with the builder too (law 10).
func (l *Loop) verify(ctx context.Context, b Bake) (finding, error) {
	bp, _, err := l.Blueprints.Blueprint(ctx, b.Files)
	if err != nil {
		return finding{}, err
	}
	if err := verify.Supported(bp.Image.Verify); err != nil {
		return finding{}, err
	}
	p := verify.Plan{Inputs: "s3://" + l.Cloud.Bucket() + "/" + b.inputsKey(), Each: 2 * time.Minute,
		Probe: "s3://" + l.Cloud.Bucket() + "/" + b.probeKey(), Name: b.Name}
	for _, a := range bp.Image.SecretsAllow {
		p.Allow = append(p.Allow, a.Path)
	}
	for _, v := range bp.Image.Verify {
		p.Checks = append(p.Checks, path.Clean(v))
	}
	var outputs []said
	for k, c := range b.Canaries {
		// No check can know it beforehand: the AMI is named after the checks were packed.
		p.Nonce, p.Store = nonce(b, c.Instance), ""
		if k == 0 {
			p.Store = "s3://" + l.Cloud.Bucket() + "/" + b.results()
		}
		s, ok, f, err := l.command(ctx, b, c.Instance, fmt.Sprintf("verify/%d", k+1), p.Script())
		switch {
		case err != nil || f.why != "":
			return f, err
		case !ok:
			continue // the others have theirs already
		case s.code != 0:
			return failed("the checks could not be run on canary %d (%s): %s", k+1, c.Instance, lines(s.all(), 6)), nil
		}
		outputs = append(outputs, s)
	}
	if len(outputs) < len(b.Canaries) {
		return finding{}, nil
	}
	var checks []image.Check
	var machines []identity.Machine
	for k, c := range b.Canaries {
		p.Nonce = nonce(b, c.Instance)
		results, facts := p.Read(outputs[k].out)
		on := fmt.Sprintf("canary %d", k+1)
		for _, r := range results {
			r.On = on
			checks = append(checks, r)
		}
		machines = append(machines, identity.Machine{Name: on, Facts: facts})
	}
	shared := identity.Compare(identity.Machine{Name: "the builder", Facts: b.Identity}, machines...)
	checks = append(checks, image.Check{Name: "identities differ", Passed: len(shared) == 0, Output: strings.Join(shared, "\n")})
	f := finding{done: true, learn: func(b *Bake) {
		b.Checks = checks
		for k := range b.Canaries {
			b.Canaries[k].Identity = machines[k].Facts
		}
	}}
	switch {
	case len(shared) > 0:
		f.why = "canaries share an identity, so something of it is in the image or is made the same at boot (law 10):\n  " + strings.Join(shared, "\n  ")
	default:
		if why := verify.Failed(checks); why != "" {
			f.why = "checks failed on fresh instances: " + why
		}
	}
	return f, nil
}

// results is where what was found on a canary lies in the bucket.
func (b Bake) results() string { return "reports/" + b.Name + "/" }

func nonce(b Bake, instance string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(b.AMI+instance+b.Inputs)))[:16]
}
