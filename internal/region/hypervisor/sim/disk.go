package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

// kept is what is on disk of an instance.
type kept struct {
	Spec   hypervisor.Instance
	Layers []string
	Boot   hypervisor.Boot
	Status hypervisor.Status
	Writes int
}

func (h *Hypervisor) imageFile(id string) string {
	return filepath.Join(h.cfg.Dir, "images", id+".json")
}
func (h *Hypervisor) instanceFile(id string) string {
	return filepath.Join(h.cfg.Dir, "instances", id+".json")
}

// load reads what an earlier process has kept. What ran goes on running: it
// answers at once, and what is played inside begins again.
func (h *Hypervisor) load() error {
	for _, d := range []string{"images", "instances"} {
		if err := os.MkdirAll(filepath.Join(h.cfg.Dir, d), 0o700); err != nil {
			return err
		}
	}
	err := each(filepath.Join(h.cfg.Dir, "images"), func(m hypervisor.Image) { h.images[m.ID] = m })
	if err != nil {
		return err
	}
	return each(filepath.Join(h.cfg.Dir, "instances"), func(k kept) {
		i := &instance{spec: k.Spec, layers: k.Layers, boot: k.Boot, status: k.Status, writes: k.Writes, made: make(chan struct{}), ran: map[string]*command{}}
		close(i.made)
		h.insts[k.Spec.ID] = i
		if k.Status.State != hypervisor.Running {
			return
		}
		i.life = newLife()
		i.life.ready = true
		if h.cfg.OnBoot != nil {
			h.wg.Go(func() { h.cfg.OnBoot(i.life.ctx, i.spec) })
		}
	})
}

func each[T any](dir string, f func(T)) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return err
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		f(v)
	}
	return nil
}

// keep writes an object down, before the caller hears that it is there; a nil
// one is removed. Without a folder nothing is kept.
func (h *Hypervisor) keep(file string, v any) error {
	if h.cfg.Dir == "" {
		return nil
	}
	if v == nil {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := strings.TrimSuffix(file, ".json") + ".new"
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}

// keepInstance writes an instance down; h.mu is held.
func (h *Hypervisor) keepInstance(i *instance) error {
	if h.insts[i.spec.ID] != i {
		return nil
	}
	return h.keep(h.instanceFile(i.spec.ID), kept{i.spec, i.layers, i.boot, i.status, i.writes})
}
