package bake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"

	"github.com/dayfly-infra/dayfly/internal/attest"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/verify"
)

// maxBeside bounds what lies beside an image and is read to be signed, in bytes.
const maxBeside = 32 << 20

// Attestation is the name of the signed statement below results.
const attestation = "attestation.dsse.json"

// attest signs how the image was made and keeps that in the bucket, where there
// is a key. All that it says is in the record, so that it is the same bytes
// when it is done again.
func (l *Loop) attest(ctx context.Context, b Bake) (key string, err error) {
	if l.Key == nil {
		return "", nil
	}
	bp, _, err := l.Blueprints.Blueprint(ctx, b.Files)
	if err != nil {
		return "", err
	}
	m := attest.Made{Image: b.image(bp.Image.Role, bp.Image.Base), Region: l.Cloud.Region(), Builder: l.Owner, Files: b.Files, Started: b.Created, Finished: b.Since, Beside: map[string]string{}}
	for name, key := range beside(m.Image) {
		raw, err := l.Cloud.Object(ctx, key, maxBeside)
		if fault.KindOf(err) == fault.NotFound && name != attest.Inventory {
			continue
		}
		if err != nil {
			return "", err
		}
		sum := sha256.Sum256(raw)
		m.Beside[name] = hex.EncodeToString(sum[:])
	}
	signed, err := l.Key.Sign(ctx, attest.Describe(m))
	if err != nil {
		return "", err
	}
	key = b.results() + attestation
	return key, l.Cloud.PutObject(ctx, b.intent("attest"), key, bytes.NewReader(signed), int64(len(signed)))
}

func beside(i image.Image) map[string]string {
	return map[string]string{attest.Inventory: i.Inventory, attest.SBOM: i.SBOM, attest.Report: i.Report}
}

// image is the record of what a bake made; when and by which statement is not
// in it yet.
func (b Bake) image(role, base string) image.Image {
	return image.Image{
		Name: b.Name, Blueprint: b.Blueprint, Inputs: b.Inputs, AMI: b.AMI, Parent: b.Base, State: image.Candidate,
		Refreshed: b.Refreshed,
		Role:      role, Bake: b.Name, Checks: b.Checks, Canaries: b.Canaries, By: b.By, Base: base, Resumed: b.From, Tries: b.Try, Hands: b.Hands,
		Report: b.report(), Inventory: b.results() + verify.Inventory, SBOM: b.results() + verify.SBOM,
	}
}

// Proven tells whether an image may be launched where statements are required:
// a trusted key signed one, and it is about this image.
func (l *Loop) Proven(ctx context.Context, i image.Image) error {
	if l.Trusted == nil {
		return nil
	}
	refuse := func(message string, err error) error {
		return &fault.Error{
			Kind: fault.Denied, Op: "launch", Object: "image " + i.Name, Message: "this server launches only images with a signed statement how they were made: " + message, Err: err,
			Hint: "dayfly images rm " + i.Name + " and dayfly bake make it again, with a statement; dayfly image verify says more",
		}
	}
	if i.Attestation == "" {
		return refuse("it has none", nil)
	}
	raw, err := l.Cloud.Object(ctx, i.Attestation, attest.Limit+1)
	if fault.KindOf(err) == fault.NotFound {
		return refuse("its statement is gone from the bucket", nil)
	}
	if err != nil {
		return err
	}
	s, _, err := l.Trusted.Open(ctx, raw)
	if err == nil {
		err = s.About(i, l.Cloud.Region())
	}
	if err != nil {
		return refuse("its statement is not valid", err)
	}
	return nil
}
