package sim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

// ImportImage reads rootfs only for its digest.
func (h *Hypervisor) ImportImage(ctx context.Context, id string, boot hypervisor.Boot, rootfs io.Reader) (hypervisor.Image, error) {
	if id == "" {
		return hypervisor.Image{}, errors.New("import image: the id is empty")
	}
	if boot != hypervisor.BootGuest && boot != hypervisor.BootSystemd {
		return hypervisor.Image{}, fmt.Errorf("import image %s: unknown boot %q", id, boot)
	}
	h.mu.Lock()
	m, ok := h.images[id]
	h.mu.Unlock()
	if ok {
		return copyImage(m), nil
	}
	sum := sha256.New()
	n, err := io.Copy(sum, rootfs)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return hypervisor.Image{}, fmt.Errorf("import image %s: %w", id, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if m, ok := h.images[id]; ok {
		return copyImage(m), nil
	}
	m = hypervisor.Image{ID: id, Boot: boot, Arch: runtime.GOARCH, Layers: []string{"sha256:" + hex.EncodeToString(sum.Sum(nil))}, Bytes: n}
	if err := h.keep(h.imageFile(id), m); err != nil {
		return hypervisor.Image{}, fmt.Errorf("import image %s: %w", id, err)
	}
	h.images[id] = m
	return copyImage(m), nil
}

func copyImage(m hypervisor.Image) hypervisor.Image {
	m.Layers = slices.Clone(m.Layers)
	return m
}

// Snapshot adds a layer whose digest depends on the instance, the layers below
// and the commands that ran.
func (h *Hypervisor) Snapshot(_ context.Context, id, image string) (hypervisor.Image, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m, ok := h.images[image]; ok {
		return copyImage(m), nil
	}
	i, err := h.find(id)
	if err != nil {
		return hypervisor.Image{}, fmt.Errorf("snapshot: %w", err)
	}
	if image == "" {
		return hypervisor.Image{}, fmt.Errorf("snapshot of %s: the image id is empty", id)
	}
	if i.status.State != hypervisor.Stopped {
		return hypervisor.Image{}, fmt.Errorf("snapshot of %s: it runs: %w", id, hypervisor.ErrState)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %v", id, i.writes, i.layers))
	i.layers = append(slices.Clone(i.layers), "sha256:"+hex.EncodeToString(sum[:]))
	i.writes++
	m := hypervisor.Image{ID: image, Boot: i.boot, Arch: runtime.GOARCH, Layers: slices.Clone(i.layers), Bytes: int64(len(i.layers)) << 20}
	if err := errors.Join(h.keep(h.imageFile(image), m), h.keepInstance(i)); err != nil {
		return hypervisor.Image{}, fmt.Errorf("snapshot of %s: %w", id, err)
	}
	h.images[image] = m
	return copyImage(m), nil
}

// Images returns all images, in order of ids.
func (h *Hypervisor) Images(context.Context) ([]hypervisor.Image, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]hypervisor.Image, 0, len(h.images))
	for _, m := range h.images {
		list = append(list, copyImage(m))
	}
	slices.SortFunc(list, func(a, b hypervisor.Image) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// DeleteImage forgets an image.
func (h *Hypervisor) DeleteImage(_ context.Context, id string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, i := range h.insts {
		if i.spec.Image == id {
			return fmt.Errorf("delete image %s: instance %s: %w", id, i.spec.ID, hypervisor.ErrInUse)
		}
	}
	delete(h.images, id)
	return h.keep(h.imageFile(id), nil)
}
