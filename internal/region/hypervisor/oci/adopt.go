package oci

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

// adopt reads DIR: images, then instances that run or are stopped; whatever
// else is there, was being made or removed when a process ended, and goes.
func (h *Hypervisor) adopt() error {
	if err := h.endRuntimes(); err != nil {
		return fmt.Errorf("adopt %s: %w", h.cfg.Dir, err)
	}
	for _, d := range []string{h.imagesDir(), h.layersDir(), h.instancesDir()} {
		if err := h.sweepDots(d); err != nil {
			return fmt.Errorf("adopt %s: %w", h.cfg.Dir, err)
		}
	}
	if err := h.adoptImages(); err != nil {
		return fmt.Errorf("adopt %s: %w", h.cfg.Dir, err)
	}
	entries, err := os.ReadDir(h.instancesDir())
	if err != nil {
		return fmt.Errorf("adopt %s: %w", h.cfg.Dir, err)
	}
	for _, e := range entries {
		if err := h.adoptInstance(e.Name()); err != nil {
			return fmt.Errorf("adopt instance %s: %w", e.Name(), err)
		}
	}
	for _, id := range h.strays() {
		h.cfg.Log.Warn("remove a container without an instance", "instance", id)
		i := &instance{id: id, dir: filepath.Join(h.instancesDir(), id)}
		if err := h.clear(i); err != nil {
			return fmt.Errorf("remove the stray container of %s: %w", id, err)
		}
	}
	if len(h.insts) == 0 {
		h.cgroups.removeParent()
	}
	h.mu.Lock()
	gone, err := h.unused()
	h.mu.Unlock()
	return errors.Join(err, removeAll(gone))
}

// endRuntimes kills runtimes that a killed process has started a moment ago
// and waits for them, so that nothing is made behind our back.
func (h *Hypervisor) endRuntimes() error {
	mark := []byte("\x00--root\x00" + h.runcRoot() + "\x00")
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		found := false
		procs, err := os.ReadDir("/proc")
		if err != nil {
			return err
		}
		for _, p := range procs {
			pid, err := strconv.Atoi(p.Name())
			if err != nil || pid == os.Getpid() {
				continue
			}
			// A dead process has no command line any more.
			if b, err := os.ReadFile(filepath.Join("/proc", p.Name(), "cmdline")); err == nil && bytes.Contains(b, mark) {
				found = true
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if !found {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("a %s of an earlier process does not end", h.cfg.Runtime)
		}
	}
}

// sweepDots removes temporary names, and what is still mounted below them.
func (h *Hypervisor) sweepDots(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if err := errors.Join(unmount(filepath.Join(path, "rootfs")), os.RemoveAll(path)); err != nil {
			return err
		}
	}
	return nil
}

func (h *Hypervisor) adoptImages() error {
	entries, err := os.ReadDir(h.imagesDir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		var m image
		if err := readJSON(filepath.Join(h.imagesDir(), e.Name()), &m); err != nil {
			return err
		}
		for _, l := range m.Layers {
			if _, err := os.Stat(h.layerDir(l.Digest)); err != nil {
				return fmt.Errorf("image %s: %w", m.ID, err)
			}
		}
		h.images[m.ID] = m
	}
	return nil
}

func (h *Hypervisor) adoptInstance(id string) error {
	i := &instance{id: id, dir: filepath.Join(h.instancesDir(), id)}
	if err := readJSON(i.path("instance.json"), &i.rec); err != nil {
		if !missing(err) {
			return err
		}
		h.cfg.Log.Info("remove a half-made instance", "instance", id)
		return errors.Join(h.clear(i), h.discard(i.dir, false))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.made, i.image, i.layers = true, i.rec.Spec.Image, i.rec.Layers
	if i.rec.Taking != nil {
		i.layers = append(i.layers[:len(i.layers):len(i.layers)], i.rec.Taking.Layer)
	}
	i.status = hypervisor.Status{ID: id, Image: i.image, State: hypervisor.Stopped, Reason: i.rec.Reason}
	h.insts[id] = i
	if i.rec.Run != nil {
		i.status.Started = i.rec.Run.Started
		if pidfd, ok := h.alive(i.rec.Run); ok {
			return h.follow(i, pidfd)
		}
	} else if err := h.clear(i); err != nil {
		return err // a Start may have been interrupted
	}
	return h.settle(i)
}

// alive opens the process of a run if it is still that one.
func (h *Hypervisor) alive(r *run) (pidfd int, ok bool) {
	if r.BootID != h.bootID {
		return -1, false
	}
	fd, err := unix.PidfdOpen(r.PID, 0)
	if err != nil {
		return -1, false
	}
	unix.CloseOnExec(fd)
	// Looked up behind the descriptor: the number cannot change its owner any more.
	if ticks, err := startTicks(r.PID); err != nil || ticks != r.Ticks {
		unix.Close(fd)
		return -1, false
	}
	return fd, true
}

// strays are containers of our prefix that no instance has.
func (h *Hypervisor) strays() []string {
	var list []string
	seen := map[string]bool{}
	add := func(id string) {
		if !seen[id] && h.insts[id] == nil {
			seen[id] = true
			list = append(list, id)
		}
	}
	for _, id := range h.cgroups.ids() {
		add(id)
	}
	entries, _ := os.ReadDir(h.runcRoot())
	for _, e := range entries {
		if id, ok := strings.CutPrefix(e.Name(), h.cfg.Prefix+"-"); ok {
			add(id)
		}
	}
	return list
}
