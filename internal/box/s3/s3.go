// Package s3 is a box in a bucket. It reads by the driver that it is given, with
// the server's own rights; instances read it with their role, where that may,
// and the mirror otherwise.
package s3

import (
	"context"
	"io"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/box"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Scheme comes before bucket and prefix.
const Scheme = "s3://"

// Objects reads one object of any bucket; the caller closes it.
type Objects interface {
	ObjectIn(ctx context.Context, bucket, key string) (io.ReadCloser, error)
}

// Box is a prefix in a bucket.
type Box struct {
	objects        Objects
	bucket, prefix string
}

// New returns the box at an address such as s3://releases.corp.example/shop.
func New(address string, o Objects) *Box {
	bucket, prefix, _ := strings.Cut(strings.TrimPrefix(address, Scheme), "/")
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	return &Box{o, bucket, prefix}
}

func (b *Box) address() string { return Scheme + b.bucket + "/" + b.prefix }

// Resolve implements box.Box.
func (b *Box) Resolve(ctx context.Context, follow string) (box.Artifact, error) {
	a, err := box.Find(ctx, b.address(), follow, func(ctx context.Context, name string) ([]byte, bool, error) {
		body, err := b.objects.ObjectIn(ctx, b.bucket, b.prefix+name)
		switch {
		case fault.CodeOf(err) == "NoSuchBucket":
			return nil, false, &fault.Error{Kind: fault.NotFound, Op: "resolve the release", Object: b.address(), Message: "there is no bucket " + b.bucket, Hint: "check release.box in dayfly.yaml, and the account that the server works in", Err: err}
		case fault.KindOf(err) == fault.NotFound:
			return nil, false, nil
		case err != nil:
			return nil, false, err
		}
		defer body.Close()
		raw, err := io.ReadAll(io.LimitReader(body, box.MaxIndex))
		return raw, err == nil, err
	})
	if err == nil {
		a.URL = b.address() + a.Name
	}
	return a, err
}

// Open implements box.Box.
func (b *Box) Open(ctx context.Context, a box.Artifact) (io.ReadCloser, error) {
	body, err := b.objects.ObjectIn(ctx, b.bucket, b.prefix+a.Name)
	if fault.KindOf(err) == fault.NotFound {
		return nil, &fault.Error{Kind: fault.NotFound, Op: "fetch the release", Object: b.address(), Message: "the box has no " + a.Name, Hint: "copy the artifact there before LATEST and SHA256SUMS name it", Err: err}
	}
	return body, err
}
