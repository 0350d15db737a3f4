// Package resolve finds the release that "the most recent" means at one
// moment, proves its digest, and mirrors it, so that forty-five instances
// cannot disagree and a replacement at night does not need the box. It must not
// know who asks.
package resolve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"sync"

	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/box"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/release"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// maxArtifact is the largest release that is mirrored, in bytes.
const maxArtifact = 5 << 30

// Cloud is what mirroring needs of the driver.
type Cloud interface {
	PutObject(ctx context.Context, in cloud.Intent, key string, body io.ReadSeeker, size int64) error
	Bucket() string
}

// Resolver resolves releases.
type Resolver struct {
	Store store.Store
	Cloud Cloud
	Open  func(address string) (box.Box, error) // gives the box at an address
	Dir   string                                // for a download under way
	Clock clock.Clock
	Log   *slog.Logger
	Epoch func(ctx context.Context) int64 // of the loop that asks; NoEpoch for the API

	mu   sync.Mutex
	busy map[string]chan struct{} // artifacts that are being fetched; closed at the end
}

// turn waits until nobody else fetches an artifact, so that those who ask at
// the same time cause one download. The caller ends its turn with done.
func (r *Resolver) turn(ctx context.Context, artifact string) (done func(), err error) {
	for {
		r.mu.Lock()
		other, taken := r.busy[artifact]
		if !taken {
			mine := make(chan struct{})
			if r.busy == nil {
				r.busy = map[string]chan struct{}{}
			}
			r.busy[artifact] = mine
			r.mu.Unlock()
			return func() {
				r.mu.Lock()
				delete(r.busy, artifact)
				r.mu.Unlock()
				close(mine)
			}, nil
		}
		r.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Resolve returns the name of the release record that the blueprint's box gives
// now. A release that is known already is not fetched again.
func (r *Resolver) Resolve(ctx context.Context, object string, b *blueprint.Blueprint) (string, error) {
	bx, err := r.Open(b.Release.Box)
	if err != nil {
		return "", err
	}
	a, err := bx.Resolve(ctx, b.Release.Follow)
	if err != nil {
		return "", err
	}
	done, err := r.turn(ctx, b.Name+" "+a.Name)
	if err != nil {
		return "", err
	}
	defer done()
	if a.Digest != "" {
		name := recordName(b.Name, a.Digest)
		if known, err := r.known(ctx, name); known || err != nil {
			return name, err
		}
	}
	f, size, digest, err := r.fetch(ctx, bx, a)
	if err != nil {
		return "", err
	}
	defer func() {
		f.Close()
		os.Remove(f.Name())
	}()
	name := recordName(b.Name, digest)
	// A box that does not tell digests, or the same bytes under another name.
	if known, err := r.known(ctx, name); known || err != nil {
		return name, err
	}
	key := release.Folder(release.Release{Blueprint: b.Name, Digest: digest}) + path.Clean(a.Name)
	record := release.Kind + "/" + name
	if err := r.Cloud.PutObject(ctx, cloud.Intent{ID: fmt.Sprintf("%s/mirror/%.8x", record, sha256.Sum256([]byte(key))), Object: record}, key, f, size); err != nil {
		return "", err
	}
	rel := release.Release{
		Name: name, Blueprint: b.Name, Artifact: a.Name, URL: a.URL, Mirror: "s3://" + r.Cloud.Bucket() + "/" + key,
		Digest: digest, Size: size, Resolved: r.Clock.Now(),
	}
	err = r.Store.Apply(ctx, r.Epoch(ctx), store.Put(release.Kind, name, 0, rel))
	if errors.Is(err, store.ErrConflict) {
		err = nil // somebody resolved the same bytes at the same time
	}
	if err == nil {
		r.Log.InfoContext(ctx, "release resolved", "release", name, "artifact", a.Name, "digest", digest, "bytes", size, "for", object)
	}
	return name, err
}

// Newest is the artifact that Resolve would take now, and the name of its
// record, "" where the box does not tell digests. Nothing is fetched.
func (r *Resolver) Newest(ctx context.Context, b *blueprint.Blueprint) (a box.Artifact, name string, err error) {
	bx, err := r.Open(b.Release.Box)
	if err != nil {
		return a, "", err
	}
	if a, err = bx.Resolve(ctx, b.Release.Follow); err == nil && a.Digest != "" {
		name = recordName(b.Name, a.Digest)
	}
	return a, name, err
}

func recordName(blueprint, digest string) string {
	return blueprint + "/" + digest[len("sha256:"):len("sha256:")+16]
}

// known tells whether a release is there, and that somebody takes it now. Both
// are one write where it was not taken for a day: it may be old enough to be
// forgotten, and then one of the two comes first.
func (r *Resolver) known(ctx context.Context, name string) (bool, error) {
	for range 20 {
		l, version, err := store.Get[release.Release](ctx, r.Store, release.Kind, name)
		if errors.Is(err, store.ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if !l.Ending.IsZero() {
			return false, &fault.Error{Kind: fault.Unavailable, Op: "resolve the release", Object: name, Message: "nothing has named it for a long time, and it is being forgotten at this moment", Hint: "try again in a moment: it is mirrored anew then"}
		}
		now := r.Clock.Now()
		if now.Sub(l.Resolved) < release.Touch || now.Sub(l.Used) < release.Touch {
			return true, nil
		}
		l.Used = now
		if err = r.Store.Apply(ctx, r.Epoch(ctx), store.Put(release.Kind, name, version, l)); !errors.Is(err, store.ErrConflict) {
			return err == nil, err
		}
	}
	return false, &fault.Error{Kind: fault.Conflict, Op: "resolve the release", Object: name, Message: "others change it all the time"}
}

// fetch downloads an artifact and proves that it is what the box said.
func (r *Resolver) fetch(ctx context.Context, bx box.Box, a box.Artifact) (*os.File, int64, string, error) {
	body, err := bx.Open(ctx, a)
	if err != nil {
		return nil, 0, "", err
	}
	defer body.Close()
	f, err := os.CreateTemp(r.Dir, "release-*")
	if err != nil {
		return nil, 0, "", err
	}
	fail := func(err error) (*os.File, int64, string, error) {
		f.Close()
		os.Remove(f.Name())
		return nil, 0, "", err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(body, maxArtifact+1))
	if err != nil {
		return fail(&fault.Error{Kind: fault.Unavailable, Op: "fetch the release", Object: a.URL, Message: "the box broke off", Err: err})
	}
	if n > maxArtifact {
		return fail(&fault.Error{Kind: fault.Invalid, Op: "fetch the release", Object: a.URL, Message: fmt.Sprintf("it is larger than %d GiB", maxArtifact>>30)})
	}
	digest := "sha256:" + hex.EncodeToString(h.Sum(nil))
	if a.Digest != "" && digest != a.Digest {
		return fail(&fault.Error{Kind: fault.Invalid, Op: "fetch the release", Object: a.URL, Message: fmt.Sprintf("the box says %s, and its bytes have %s", a.Digest, digest), Hint: "make SHA256SUMS again in the box, after the artifact was copied there"})
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fail(err)
	}
	return f, n, digest, nil
}
