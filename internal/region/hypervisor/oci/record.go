package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

// layerRef is a layer as images and instances refer to it.
type layerRef struct {
	Digest string `json:"digest"` // sha256:…
	Bytes  int64  `json:"bytes"`
}

// image is what images/ID.json holds.
type image struct {
	ID     string          `json:"id"`
	Boot   hypervisor.Boot `json:"boot"`
	Arch   string          `json:"arch"`
	Layers []layerRef      `json:"layers"` // from the lowest
}

func (m image) public() hypervisor.Image {
	p := hypervisor.Image{ID: m.ID, Boot: m.Boot, Arch: m.Arch}
	for _, l := range m.Layers {
		p.Layers = append(p.Layers, l.Digest)
		p.Bytes += l.Bytes
	}
	return p
}

// record is what instances/ID/instance.json holds. An instance directory
// without one is half-made.
type record struct {
	Spec   hypervisor.Instance `json:"spec"`
	Boot   hypervisor.Boot     `json:"boot"`
	Arch   string              `json:"arch"`
	Layers []layerRef          `json:"layers"`
	Run    *run                `json:"run,omitempty"` // nil when stopped
	Reason string              `json:"reason,omitempty"`
	Asked  bool                `json:"asked,omitempty"` // the stop was asked for
	// Taking is a snapshot between the rename of upper and its new records.
	Taking *taking `json:"taking,omitempty"`
}

// run is one run of PID 1, in a form that outlives this process.
type run struct {
	PID     int       `json:"pid"`
	Ticks   uint64    `json:"ticks"`   // start time of PID, tells it from a later owner of the number
	BootID  string    `json:"boot_id"` // of the host
	Started time.Time `json:"started"`
}

type taking struct {
	Image string   `json:"image"`
	Layer layerRef `json:"layer"`
}

// writeJSON replaces a file so that after a crash there is the old or the new one.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(path), ".new-"+filepath.Base(path))
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// syncDir makes renames in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
