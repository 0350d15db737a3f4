package oci

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// OrphanLayers lists what lies among the layers of a hypervisor's directory and
// belongs to no image and no instance. It reads files alone, so that it can be
// asked whether or not a Hypervisor holds the directory; while one makes an
// image, its half-made layer is among them.
func OrphanLayers(dir string) ([]string, error) {
	h := &Hypervisor{cfg: Config{Dir: dir}}
	owned := map[string]bool{}
	for _, pattern := range []string{filepath.Join(h.imagesDir(), "*.json"), filepath.Join(h.instancesDir(), "*", "instance.json")} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			var owner struct {
				Layers []layerRef `json:"layers"`
			}
			raw, err := os.ReadFile(f)
			if errors.Is(err, fs.ErrNotExist) {
				continue // it went away meanwhile
			}
			if err == nil {
				err = json.Unmarshal(raw, &owner)
			}
			if err != nil {
				return nil, err
			}
			for _, l := range owner.Layers {
				owned[filepath.Base(h.layerDir(l.Digest))] = true
			}
		}
	}
	es, err := os.ReadDir(h.layersDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var orphans []string
	for _, e := range es {
		if name := e.Name(); !owned[name] {
			orphans = append(orphans, name)
		}
	}
	return orphans, nil
}
