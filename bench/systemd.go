package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// systemdGroup is the same launch from an image with systemd as PID 1.
func systemdGroup() group {
	return group{
		runs: 2, world: true, run: measureSystemd,
		rows: []row{{"launch-45-systemd", "the same from a full image, debian-12 with systemd; no peer"}},
	}
}

func measureSystemd(ctx context.Context, s *session, _ func(string) bool) ([]result, error) {
	w := s.world
	if err := w.with(ctx, full); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, "shop-systemd")
	if err := w.blueprint(ctx, dir, func(text string) string { return strings.Replace(text, "base: "+slim, "base: "+full, 1) }); err != nil {
		return nil, err
	}
	s.say("baking the image with systemd, unless it is there")
	b, err := w.bake(ctx, dir)
	if err != nil {
		return nil, err
	}
	w.keep = append(w.keep, b.Image)
	var ours []float64
	for k := range s.runs {
		s.say("run %d of %d", k+1, s.runs)
		d, err := w.launch(ctx, dir)
		if err != nil {
			return nil, err
		}
		ours = append(ours, d.Seconds())
		s.say("  %-22s %.3f s", "launch-45-systemd", d.Seconds())
		if err := w.cli(ctx, nil, "env", "destroy", fleet); err != nil {
			return nil, fmt.Errorf("after the launch: %w", err)
		}
	}
	return []result{compare("launch-45-systemd", "s", ours, "", nil)}, nil
}
