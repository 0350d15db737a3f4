package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/guest"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

// instance is one instance in memory. Operations hold mu for as long as they
// take; what others may read meanwhile is guarded by Hypervisor.mu.
type instance struct {
	id  string
	dir string

	mu   sync.Mutex // one operation at a time
	rec  record
	live *live // nil when nothing runs and nothing is to be cleaned up
	gone bool  // Destroy has finished

	// Guarded by Hypervisor.mu.
	made   bool
	image  string
	layers []layerRef
	status hypervisor.Status
}

// live is a PID 1 that runs or has just ended.
type live struct {
	pidfd int
	ended chan struct{}
	why   string // set before ended is closed
	told  bool   // the event is out
}

func (i *instance) path(name string) string { return filepath.Join(i.dir, name) }
func (i *instance) guestDir() string        { return i.path("guest") }
func (i *instance) consolePath() string     { return filepath.Join(i.guestDir(), guest.ConsoleName) }

func checkSpec(in hypervisor.Instance) error {
	switch {
	case !validID.MatchString(in.ID):
		return fmt.Errorf("%q is not a valid id", in.ID)
	case in.CPUs < 0 || in.MemoryMiB < 0 || in.Pids < 0:
		return errors.New("a limit is negative")
	case in.MemoryMiB > 0 && in.MemoryMiB < 6:
		return fmt.Errorf("%d MiB of memory are not enough to start", in.MemoryMiB)
	case len(in.UserData) > 1<<20:
		return fmt.Errorf("user data of %d bytes is over the limit of 1 MiB", len(in.UserData))
	case len(in.Hostname) > 64 || strings.ContainsAny(in.Hostname, " \t\r\n/"):
		return fmt.Errorf("%q is not a valid host name", in.Hostname)
	case strings.ContainsAny(in.Resolver, " \t\r\n"):
		return fmt.Errorf("%q is not a valid resolver", in.Resolver)
	case in.NetNS != "" && !filepath.IsAbs(in.NetNS):
		return fmt.Errorf("the network namespace %q is not an absolute path", in.NetNS)
	}
	for k, v := range in.Env {
		if k == "" || strings.ContainsAny(k, "=\x00 \t\r\n\"'\\$") || strings.ContainsRune(v, 0) {
			return fmt.Errorf("the environment variable %q is not valid", k)
		}
	}
	return nil
}

// Create makes and starts an instance.
func (h *Hypervisor) Create(ctx context.Context, in hypervisor.Instance) error {
	if err := checkSpec(in); err != nil {
		return fmt.Errorf("create instance: %w", err)
	}
	i, err := h.enter(in)
	if err != nil {
		return fmt.Errorf("create instance %s: %w", in.ID, err)
	}
	defer i.mu.Unlock()
	if i.made {
		return nil
	}
	release, err := h.slot(ctx)
	if err == nil {
		defer release()
		err = h.make(ctx, i)
	}
	if err != nil {
		if rerr := h.remove(i); rerr != nil {
			h.cfg.Log.Error("remove a half-made instance", "instance", i.id, "error", rerr)
		}
		return fmt.Errorf("create instance %s: %w", in.ID, err)
	}
	return nil
}

// enter returns the instance of this id, locked: an old one or one to be made.
func (h *Hypervisor) enter(in hypervisor.Instance) (*instance, error) {
	for {
		h.mu.Lock()
		if h.closed {
			h.mu.Unlock()
			return nil, errors.New("the hypervisor is closed")
		}
		i := h.insts[in.ID]
		if i == nil {
			m, ok := h.images[in.Image]
			if !ok {
				h.mu.Unlock()
				return nil, fmt.Errorf("image %q: %w", in.Image, hypervisor.ErrNoImage)
			}
			i = &instance{id: in.ID, dir: filepath.Join(h.instancesDir(), in.ID), image: in.Image, layers: m.Layers}
			i.rec = record{Spec: in, Boot: m.Boot, Arch: m.Arch, Layers: m.Layers}
			i.mu.Lock()
			h.insts[in.ID] = i
			h.mu.Unlock()
			return i, nil
		}
		h.mu.Unlock()
		i.mu.Lock()
		if !i.gone {
			return i, nil
		}
		i.mu.Unlock() // it was removed meanwhile: look again
	}
}

func (h *Hypervisor) make(ctx context.Context, i *instance) error {
	// An instance of the same id may have left something behind a crash that
	// New could not remove.
	if err := os.RemoveAll(i.dir); err != nil {
		return err
	}
	for _, d := range []string{i.dir, i.guestDir()} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	if err := h.start(ctx, i, true); err != nil {
		return err
	}
	h.mu.Lock()
	i.made = true
	h.mu.Unlock()
	return nil
}

// start boots the instance: overlay, container, watch, record.
func (h *Hypervisor) start(ctx context.Context, i *instance, first bool) error {
	if err := h.prepare(i, first); err != nil {
		return err
	}
	if err := h.launch(ctx, i); err != nil {
		return errors.Join(err, h.clear(i))
	}
	return nil
}

// launch runs the container and records it.
func (h *Hypervisor) launch(ctx context.Context, i *instance) error {
	p, err := h.runContainer(ctx, i)
	if err != nil {
		return err
	}
	ticks, err := startTicks(p.PID)
	if err != nil {
		abandon(p)
		return fmt.Errorf("PID 1 ended at once: %w; console: %s", err, i.consoleTail())
	}
	rec := i.rec
	rec.Run = &run{PID: p.PID, Ticks: ticks, BootID: h.bootID, Started: h.cfg.Clock.Now()}
	rec.Asked, rec.Reason = false, ""
	if err := h.save(i, rec); err != nil {
		abandon(p)
		return err
	}
	return h.follow(i, p.PIDFD)
}

// follow watches the process of pidfd as the instance's PID 1.
func (h *Hypervisor) follow(i *instance, pidfd int) error {
	l := &live{pidfd: pidfd, ended: make(chan struct{})}
	pid := i.rec.Run.PID
	i.live = l
	h.mu.Lock()
	i.status = hypervisor.Status{ID: i.id, Image: i.image, State: hypervisor.Running, PID: pid, Started: i.rec.Run.Started}
	h.mu.Unlock()
	err := h.watch.add(pidfd, func() {
		l.why = exitReason(pidfd, pid)
		reap(pidfd)
		h.mu.Lock()
		i.status.State, i.status.PID = hypervisor.Stopped, 0
		closed := h.closed
		h.mu.Unlock()
		close(l.ended)
		if closed {
			return
		}
		h.work.Go(func() { h.cleanUp(i, l) })
	})
	return err
}

// cleanUp settles an instance whose PID 1 has ended, unless somebody else does.
func (h *Hypervisor) cleanUp(i *instance, l *live) {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		i.mu.Lock()
		var err error
		if i.live == l {
			err = h.settle(i)
		}
		i.mu.Unlock()
		if err == nil {
			return
		}
		h.cfg.Log.Error("clean up behind an instance; it is tried again", "instance", i.id, "error", err)
		select {
		case <-h.quit:
			return
		case <-h.cfg.Clock.After(wait):
		}
	}
}

// save makes rec the instance's record, on disk and in memory; i.mu is held.
func (h *Hypervisor) save(i *instance, rec record) error {
	if err := writeJSON(i.path("instance.json"), rec); err != nil {
		return err
	}
	i.rec = rec
	h.mu.Lock()
	defer h.mu.Unlock()
	i.layers = rec.Layers
	if rec.Taking != nil {
		i.layers = append(i.layers[:len(i.layers):len(i.layers)], rec.Taking.Layer)
	}
	return nil
}

// Start boots a stopped instance again.
func (h *Hypervisor) Start(ctx context.Context, id, netns string) error {
	i, err := h.find(id)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.gone {
		return fmt.Errorf("start %s: %w", id, hypervisor.ErrNoInstance)
	}
	if netns != "" && !filepath.IsAbs(netns) {
		return fmt.Errorf("start %s: the network namespace %q is not an absolute path", id, netns)
	}
	if err := h.settle(i); err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	if i.live != nil {
		return nil
	}
	release, err := h.slot(ctx)
	if err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	defer release()
	i.rec.Spec.NetNS = netns
	if err := h.start(ctx, i, false); err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	return nil
}

func (i *instance) consoleTail() string {
	b, err := os.ReadFile(i.consolePath())
	if err != nil || len(b) == 0 {
		return "(empty)"
	}
	return strings.TrimSpace(string(b[max(0, len(b)-1000):]))
}
