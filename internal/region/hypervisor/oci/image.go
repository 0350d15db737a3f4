package oci

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor/oci/layer"
)

// layerDir is where a layer is; digest is sha256:HEX.
func (h *Hypervisor) layerDir(digest string) string {
	return filepath.Join(h.layersDir(), strings.Replace(digest, ":", "-", 1))
}

func (h *Hypervisor) imagePath(id string) string { return filepath.Join(h.imagesDir(), id+".json") }

// ImportImage makes an image of one layer.
func (h *Hypervisor) ImportImage(ctx context.Context, id string, boot hypervisor.Boot, rootfs io.Reader) (hypervisor.Image, error) {
	if !validID.MatchString(id) {
		return hypervisor.Image{}, fmt.Errorf("import image: %q is not a valid id", id)
	}
	if boot != hypervisor.BootGuest && boot != hypervisor.BootSystemd {
		return hypervisor.Image{}, fmt.Errorf("import image %s: unknown boot %q", id, boot)
	}
	if m, ok := h.image(id); ok {
		return m.public(), nil
	}
	tmp := filepath.Join(h.layersDir(), ".import-"+rand.Text())
	defer os.RemoveAll(tmp)
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return hypervisor.Image{}, fmt.Errorf("import image %s: %w", id, err)
	}
	sum := sha256.New()
	stream := io.TeeReader(rootfs, sum)
	bytes, err := layer.Extract(ctx, stream, tmp)
	if err == nil {
		// The padding behind the archive's end belongs to the digest.
		_, err = io.Copy(io.Discard, stream)
	}
	if err == nil {
		err = syncFS(tmp)
	}
	if err != nil {
		return hypervisor.Image{}, fmt.Errorf("import image %s: %w", id, err)
	}
	ref := layerRef{Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Bytes: bytes}

	h.mu.Lock()
	defer h.mu.Unlock()
	if m, ok := h.images[id]; ok {
		return m.public(), nil
	}
	if _, err := os.Lstat(h.layerDir(ref.Digest)); missing(err) {
		if err := os.Rename(tmp, h.layerDir(ref.Digest)); err != nil {
			return hypervisor.Image{}, fmt.Errorf("import image %s: %w", id, err)
		}
	}
	m := image{ID: id, Boot: boot, Arch: runtime.GOARCH, Layers: []layerRef{ref}}
	if err := h.saveImage(m); err != nil {
		return hypervisor.Image{}, fmt.Errorf("import image %s: %w", id, err)
	}
	return m.public(), nil
}

// saveImage records an image whose layers are there; h.mu is held.
func (h *Hypervisor) saveImage(m image) error {
	if err := syncDir(h.layersDir()); err != nil {
		return err
	}
	if err := writeJSON(h.imagePath(m.ID), m); err != nil {
		return err
	}
	h.images[m.ID] = m
	return syncDir(h.imagesDir())
}

func (h *Hypervisor) image(id string) (image, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, ok := h.images[id]
	return m, ok
}

// Images returns all images, in order of ids.
func (h *Hypervisor) Images(context.Context) ([]hypervisor.Image, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]hypervisor.Image, 0, len(h.images))
	for _, m := range h.images {
		list = append(list, m.public())
	}
	slices.SortFunc(list, func(a, b hypervisor.Image) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// DeleteImage forgets an image, and removes the layers that nothing else has.
func (h *Hypervisor) DeleteImage(_ context.Context, id string) error {
	gone, err := h.forgetImage(id)
	if err != nil {
		return fmt.Errorf("delete image %s: %w", id, err)
	}
	return removeAll(gone)
}

func (h *Hypervisor) forgetImage(id string) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.images[id]; !ok {
		return nil, nil
	}
	for _, i := range h.insts {
		if i.image == id {
			return nil, fmt.Errorf("instance %s: %w", i.id, hypervisor.ErrInUse)
		}
	}
	if err := os.Remove(h.imagePath(id)); err != nil && !missing(err) {
		return nil, err
	}
	delete(h.images, id)
	return h.unused()
}

// unused renames the layers that nothing refers to out of the way and returns
// their new paths, for removal without the lock. h.mu is held.
func (h *Hypervisor) unused() ([]string, error) {
	used := map[string]bool{}
	for _, m := range h.images {
		for _, l := range m.Layers {
			used[h.layerDir(l.Digest)] = true
		}
	}
	for _, i := range h.insts {
		for _, l := range i.layers {
			used[h.layerDir(l.Digest)] = true
		}
	}
	entries, err := os.ReadDir(h.layersDir())
	if err != nil {
		return nil, err
	}
	var gone []string
	for _, e := range entries {
		path := filepath.Join(h.layersDir(), e.Name())
		if used[path] || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		to := filepath.Join(h.layersDir(), ".gone-"+rand.Text())
		if err := os.Rename(path, to); err != nil {
			return gone, err
		}
		gone = append(gone, to)
	}
	return gone, nil
}

func removeAll(paths []string) error {
	var errs []error
	for _, p := range paths {
		errs = append(errs, os.RemoveAll(p))
	}
	return errors.Join(errs...)
}

// syncFS makes everything below dir durable with one call.
func syncFS(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// Snapshot makes an image from a stopped instance. What it has written becomes
// a layer by a rename, and the instance goes on above that layer.
func (h *Hypervisor) Snapshot(ctx context.Context, id, imageID string) (hypervisor.Image, error) {
	if !validID.MatchString(imageID) {
		return hypervisor.Image{}, fmt.Errorf("snapshot of %s: %q is not a valid image id", id, imageID)
	}
	if m, ok := h.image(imageID); ok {
		return m.public(), nil
	}
	i, err := h.find(id)
	if err != nil {
		return hypervisor.Image{}, fmt.Errorf("snapshot: %w", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := h.settle(i); err != nil {
		return hypervisor.Image{}, fmt.Errorf("snapshot of %s: %w", id, err)
	}
	m, err := h.snapshot(ctx, i, imageID)
	if err != nil {
		return hypervisor.Image{}, fmt.Errorf("snapshot of %s: %w", id, err)
	}
	return m.public(), nil
}

func (h *Hypervisor) snapshot(ctx context.Context, i *instance, imageID string) (image, error) {
	if i.rec.Run != nil {
		return image{}, fmt.Errorf("it runs: %w", hypervisor.ErrState)
	}
	if m, ok := h.image(imageID); ok {
		return m, nil
	}
	upper := i.path("upper")
	if err := removeSockets(upper); err != nil {
		return image{}, err
	}
	if err := syncFS(upper); err != nil {
		return image{}, err
	}
	digest, bytes, err := layer.Digest(ctx, upper)
	if err != nil {
		return image{}, err
	}
	// The record first: if the process ends behind the rename, New goes on here.
	rec := i.rec
	rec.Taking = &taking{Image: imageID, Layer: layerRef{Digest: digest, Bytes: bytes}}
	if err := h.save(i, rec); err != nil {
		return image{}, err
	}
	return h.take(i)
}

// take finishes a snapshot whose record says Taking; it may be repeated.
func (h *Hypervisor) take(i *instance) (image, error) {
	t := *i.rec.Taking
	upper := i.path("upper")
	h.mu.Lock()
	to := h.layerDir(t.Layer.Digest)
	if _, err := os.Lstat(to); missing(err) {
		if err := os.Rename(upper, to); err != nil {
			h.mu.Unlock()
			return image{}, err
		}
	}
	// The same layer twice in a stack is the same as its highest occurrence.
	layers := slices.DeleteFunc(slices.Clone(i.rec.Layers), func(l layerRef) bool { return l.Digest == t.Layer.Digest })
	layers = append(layers, t.Layer)
	m := image{ID: t.Image, Boot: i.rec.Boot, Arch: i.rec.Arch, Layers: layers}
	err := h.saveImage(m)
	h.mu.Unlock()
	if err != nil {
		return image{}, err
	}
	for _, d := range []string{upper, i.path("work")} {
		if err := os.RemoveAll(d); err != nil {
			return image{}, err
		}
	}
	rec := i.rec
	rec.Layers, rec.Taking = layers, nil
	return m, h.save(i, rec)
}

// removeSockets removes what no layer can hold.
func removeSockets(dir string) error {
	return filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type()&os.ModeSocket != 0 {
			err = os.Remove(p)
		}
		return err
	})
}
