// Package dir is a box in a folder of this machine (file:///…). Instances
// cannot read it: they take its releases from the mirror.
package dir

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dayfly-infra/dayfly/internal/box"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Box is a folder.
type Box struct{ path string }

// New returns the box in a folder, given by its absolute path.
func New(path string) *Box { return &Box{path} }

// Resolve implements box.Box.
func (b *Box) Resolve(ctx context.Context, follow string) (box.Artifact, error) {
	if st, err := os.Stat(b.path); err != nil || !st.IsDir() {
		return box.Artifact{}, &fault.Error{Kind: fault.Unavailable, Op: "resolve the release", Object: b.path, Message: "there is no such folder", Hint: "check release.box in dayfly.yaml"}
	}
	a, err := box.Find(ctx, b.path, follow, func(_ context.Context, name string) ([]byte, bool, error) {
		f, err := os.Open(filepath.Join(b.path, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		defer f.Close()
		raw, err := io.ReadAll(io.LimitReader(f, box.MaxIndex))
		return raw, err == nil, err
	})
	if err != nil {
		return a, err
	}
	if st, err := os.Stat(filepath.Join(b.path, a.Name)); err != nil || !st.Mode().IsRegular() {
		return a, missing(b.path, a.Name)
	}
	a.URL = "file://" + filepath.Join(b.path, a.Name)
	return a, nil
}

// Open implements box.Box.
func (b *Box) Open(_ context.Context, a box.Artifact) (io.ReadCloser, error) {
	f, err := os.Open(filepath.Join(b.path, a.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(b.path, a.Name)
	}
	return f, err
}

func missing(where, name string) error {
	return &fault.Error{Kind: fault.NotFound, Op: "fetch the release", Object: where, Message: "the box has no " + name, Hint: "copy the artifact there before LATEST and SHA256SUMS name it"}
}
