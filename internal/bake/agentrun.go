package bake

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/puppet"
)

// Versions asks where the version of a Puppet server's environment is told.
type Versions interface {
	Version(ctx context.Context, address string) (string, error)
}

// wanted is the version that the server's environment must have; "" is any.
func (l *Loop) wanted(ctx context.Context, b *blueprint.Blueprint) (string, error) {
	p := b.Image.Puppet
	if p.VersionURL == "" {
		return p.Version, nil
	}
	v, err := l.Versions.Version(ctx, p.VersionURL)
	if err == nil && !blueprint.ValidVersion(v) {
		err = fmt.Errorf("it answers %.40q", v)
	}
	if err != nil {
		if fault.KindOf(err) == fault.Denied {
			return "", &fault.Error{Kind: fault.Denied, Op: "ask for the Puppet environment's version", Object: p.VersionURL, Message: "the server may not ask this address", Hint: fault.HintOf(err), Err: err}
		}
		return "", &fault.Error{Kind: fault.Unavailable, Op: "ask for the Puppet environment's version", Object: p.VersionURL, Message: err.Error(),
			Hint: "without it nobody knows whether the image is there already; give image.puppet.version instead", Err: err}
	}
	return v, nil
}

// ticket makes the one-time token by which this attempt's builder gets its
// certificate. The token is in the bucket, where the builder's role reads and
// deletes it, and nowhere else; the record and the builder's tag have its hash.
// A token that was put there when this process died is never used: the record
// knows another one, or none.
func (l *Loop) ticket(ctx context.Context, b Bake, p blueprint.Puppet) (finding, error) {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	token := hex.EncodeToString(raw)
	hash := puppet.HashToken(token)
	key := b.Prefix + "token-" + hash[:16]
	if err := l.Cloud.PutObject(ctx, b.intent("token/"+hash[:16]), key, strings.NewReader(token), int64(len(token))); err != nil {
		return finding{}, err
	}
	// Of the inputs digest what the record's name has, so that people find it.
	digest := strings.TrimPrefix(b.Inputs, "sha256:")[:16]
	return finding{wait: soon, learn: func(b *Bake) {
		b.TokenKey = key
		b.Claim = puppet.Claim{Certname: fmt.Sprintf("bake-%s-%d-%s", digest, b.Attempt, hash[:8]), Token: hash, Role: p.Role, Environment: p.Environment}.String()
	}}, nil
}

// builderTags are the builder's stack's; the claim reaches the instance with them.
func (l *Loop) builderTags(b Bake) cloud.Tags {
	tags := maps.Clone(l.tags(b))
	if b.Claim != "" {
		tags[puppet.ClaimTag] = b.Claim
	}
	return tags
}

// run says how Puppet is run on the builder.
func (l *Loop) run(b Bake, p blueprint.Puppet) (puppet.Run, error) {
	r := puppet.Run{
		Blueprint: b.Blueprint, Role: p.Role, Environment: p.Environment, MaxRuns: p.MaxRuns, Deadline: p.Deadline,
		Report: "s3://" + l.Cloud.Bucket() + "/" + b.report(),
	}
	if p.Server == "" {
		return r, nil
	}
	c, err := puppet.ParseClaim(b.Claim)
	if err != nil {
		return r, err
	}
	if c.Role != p.Role || c.Environment != p.Environment {
		return r, fmt.Errorf("the builder has a certificate for the role %s in the environment %s, and dayfly.yaml says %s in %s now: bake again without --resume", c.Role, c.Environment, p.Role, p.Environment)
	}
	host, port := p.ServerHost()
	r.Server = &puppet.Server{
		Host: host, Port: port, Address: p.Address, Fingerprint: p.Fingerprint, Version: b.Wanted, Sign: min(p.Sign, max(p.Deadline-time.Minute, time.Minute)),
		Certname: c.Certname, Image: b.Name, Bucket: l.Cloud.Bucket(), Key: b.TokenKey, Region: l.Cloud.Region(),
	}
	return r, nil
}
