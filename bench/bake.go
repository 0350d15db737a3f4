package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// bakeGroup is what a bake costs that has nothing, or little, to do.
func bakeGroup() group {
	return group{
		runs: 3, world: true, run: measureBake,
		rows: []row{
			{"bake-unchanged", "dayfly bake of a blueprint whose image is there"},
			{"bake-one-change", "dayfly bake after one changed line of Hiera data; against packer's docker builder"},
			{"bake-layer", "what that bake writes as new layers; those below must be the old ones"},
		},
	}
}

func measureBake(ctx context.Context, s *session, want func(string) bool) ([]result, error) {
	var out []result
	w := s.world
	if want("bake-unchanged") {
		var ours []float64
		for range max(10, s.runs) {
			began := time.Now()
			b, err := w.bake(ctx, w.shop)
			if err != nil {
				return nil, err
			}
			if !b.Cached {
				return nil, errors.New("unchanged inputs were baked again")
			}
			ours = append(ours, float64(time.Since(began).Microseconds())/1000)
		}
		r := compare("bake-unchanged", "ms", ours, "", nil).atMost(100)
		s.say("  %-22s %.1f ms (median of %d)", r.Name, r.Ours, len(ours))
		out = append(out, r)
	}
	if !want("bake-one-change") && !want("bake-layer") {
		return out, nil
	}
	var d *docker
	if want("bake-one-change") {
		var err error
		if d, err = w.packerBase(ctx); err != nil {
			return out, err
		}
	}
	var ours, peer, written []float64
	for k := range s.runs {
		s.say("run %d of %d", k+1, s.runs)
		dir, seconds, mib, err := w.bakeChange(ctx, k)
		if err != nil {
			return out, err
		}
		ours, written = append(ours, seconds), append(written, mib)
		s.say("  %-22s %.1f s, %.1f MiB of new layers", "bake-one-change", seconds, mib)
		if d == nil {
			continue
		}
		took, err := d.packer(ctx, dir)
		if err != nil {
			return out, err
		}
		peer = append(peer, took.Seconds())
		s.say("  %-22s %.1f s", "packer", took.Seconds())
	}
	if want("bake-one-change") {
		out = append(out, compare("bake-one-change", "s", ours, "packer", peer))
	}
	if want("bake-layer") {
		out = append(out, compare("bake-layer", "MiB", written, "", nil))
	}
	return out, nil
}

// bakeChange bakes the blueprint with another message of the day, which nobody
// has baked before.
func (w *world) bakeChange(ctx context.Context, k int) (dir string, seconds, mib float64, err error) {
	dir = filepath.Join(w.s.dir, fmt.Sprintf("shop-change-%d", k))
	if _, err := run(ctx, "cp", "-r", w.shop, dir); err != nil {
		return "", 0, 0, err
	}
	if err := edit(filepath.Join(dir, "puppet/data/common.yaml"), func(text string) string {
		var out []string
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "shop::motd:") {
				line = fmt.Sprintf("shop::motd: \"This machine lives for a day, for the benchmark of %d.\"\n", time.Now().UnixNano())
			}
			out = append(out, line)
		}
		return strings.Join(out, "")
	}); err != nil {
		return "", 0, 0, err
	}
	before, err := w.layers(w.image.AMI)
	if err != nil {
		return "", 0, 0, err
	}
	began := time.Now()
	b, err := w.bake(ctx, dir)
	seconds = time.Since(began).Seconds()
	if err != nil {
		return "", 0, 0, err
	}
	if b.Cached {
		return "", 0, 0, errors.New("a changed blueprint was answered from the cache")
	}
	after, err := w.layers(b.AMI)
	if err != nil {
		return "", 0, 0, err
	}
	fresh, err := newLayers(before, after)
	if err != nil {
		return "", 0, 0, err
	}
	return dir, seconds, float64(fresh) / (1 << 20), w.cli(ctx, nil, "images", "rm", b.Image)
}

// packerBase is a docker with the image's base.
func (w *world) packerBase(ctx context.Context) (*docker, error) {
	if _, err := os.Stat(packerProgram); err != nil {
		return nil, fmt.Errorf("%s is not there: scripts/deps.sh bench installs it", packerProgram)
	}
	lowers, err := w.lowers(w.image.AMI)
	if err != nil {
		return nil, err
	}
	d, err := w.s.docker(ctx)
	if err != nil {
		return nil, err
	}
	return d, d.importImage(ctx, lowers[len(lowers)-1:], "base:bench")
}

// layer of an image, from the lowest.
type layer struct {
	Digest string
	Bytes  int64
}

func (w *world) layers(ami string) ([]layer, error) {
	raw, err := os.ReadFile(filepath.Join(home, "region/hypervisor/images", ami+".json"))
	if err != nil {
		return nil, err
	}
	var m struct{ Layers []layer }
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	if len(m.Layers) == 0 {
		return nil, fmt.Errorf("image %s has no layers", ami)
	}
	return m.Layers, nil
}

// newLayers is how many bytes the layers have that only the changed image has.
// All layers below the first that differs are the same ones, or it is an error:
// the base at least must be, and no old layer may lie above a new one.
func newLayers(before, after []layer) (int64, error) {
	same := 0
	for same < min(len(before), len(after)) && before[same] == after[same] {
		same++
	}
	if same == 0 {
		return 0, errors.New("not even the base image's layer is shared: it was copied")
	}
	var fresh int64
	for _, l := range after[same:] {
		if slices.Contains(before, l) {
			return 0, fmt.Errorf("layer %s of the old image lies above a new one", l.Digest)
		}
		fresh += l.Bytes
	}
	if fresh == 0 {
		return 0, errors.New("the changed image has no new layer")
	}
	return fresh, nil
}
