package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const packerProgram = "/usr/bin/packer"

// packer bakes the blueprint's Puppet code with packer's docker builder, on the
// same base: agent installed, one run of the code, commit. It seals nothing,
// boots nothing, checks nothing.
func (d *docker) packer(ctx context.Context, blueprint string) (time.Duration, error) {
	dir := filepath.Join(d.s.dir, "packer")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, err
	}
	type object = map[string]any
	template, err := json.Marshal(object{
		"builders": []object{{
			"type": "docker", "image": "base:bench", "pull": false, "commit": true,
			// The host's network: this container alone needs a way out, to Debian's packages.
			"run_command": []string{"-d", "-i", "-t", "--network", "host", "--entrypoint=/bin/sh", "--", "{{.Image}}"},
		}},
		"provisioners": []object{
			{"type": "shell", "inline": []string{
				"export DEBIAN_FRONTEND=noninteractive",
				"apt-get -q update >/dev/null",
				"apt-get -q -o Dpkg::Options::=--force-unsafe-io -y install --no-install-recommends puppet-agent >/dev/null",
				"mkdir -p /tmp/environments",
			}},
			{"type": "file", "source": filepath.Join(blueprint, "puppet"), "destination": "/tmp/environments"},
			{"type": "shell", "valid_exit_codes": []int{0, 2}, "inline": []string{
				"puppet apply --detailed-exitcodes --color false --environmentpath /tmp/environments --environment puppet /tmp/environments/puppet/manifests",
			}},
		},
	})
	if err != nil {
		return 0, err
	}
	file := filepath.Join(dir, "template.json")
	if err := os.WriteFile(file, template, 0o600); err != nil {
		return 0, err
	}
	cmd := command(ctx, packerProgram, "build", "-color=false", file)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH=/usr/bin:/bin:/usr/sbin:/sbin", "DOCKER_HOST=unix://"+d.socket, "HOME="+dir, "TMPDIR="+dir, "CHECKPOINT_DISABLE=1", "PACKER_CACHE_DIR="+dir)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(began)
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return 0, fmt.Errorf("packer: %w: %s", err, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
	_, err = d.cli(ctx, "image", "prune", "--force")
	return took, err
}
