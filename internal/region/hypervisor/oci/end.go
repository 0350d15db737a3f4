package oci

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

// settle brings what ended by itself, or was interrupted, to an end: after it
// the instance either runs or is stopped and clean. i.mu is held.
func (h *Hypervisor) settle(i *instance) error {
	if l := i.live; l != nil {
		select {
		case <-l.ended:
		default:
			return nil // it runs
		}
	}
	if i.rec.Run != nil {
		if err := h.stopped(i); err != nil {
			return err
		}
	}
	if i.rec.Taking != nil {
		_, err := h.take(i)
		return err
	}
	return nil
}

// stopped is what follows the end of PID 1: the event is out, nothing remains
// but the disk, and the record says why.
func (h *Hypervisor) stopped(i *instance) error {
	reason := "ended while nobody watched"
	l := i.live
	if l != nil {
		if err := h.await(l); err != nil {
			return err
		}
		reason = l.why
		if reason == "killed by signal 9" && h.cgroups.oom(i.id) {
			reason = "out of memory"
		}
	}
	if i.rec.Asked {
		reason = "stopped"
	}
	// Before the cleaning, which may have to be repeated: whoever acts upon
	// the event waits for it by the instance's lock.
	if l == nil || !l.told {
		h.publish(i, reason)
	}
	if l != nil {
		l.told = true
	}
	if err := h.clear(i); err != nil {
		return err
	}
	rec := i.rec
	rec.Run, rec.Reason = nil, reason
	return h.save(i, rec)
}

const killPatience = 10 * time.Second

// await waits until a PID 1 that is ending or killed has ended.
func (h *Hypervisor) await(l *live) error {
	select {
	case <-l.ended:
		return nil
	case <-h.quit:
		return errors.New("the hypervisor is closed")
	case <-time.After(killPatience):
		return errors.New("PID 1 does not end though it was killed: it waits for the kernel")
	}
}

func (h *Hypervisor) publish(i *instance, reason string) {
	h.mu.Lock()
	i.status.State, i.status.PID, i.status.Reason = hypervisor.Stopped, 0, reason
	s := i.status
	h.mu.Unlock()
	h.events.push(s)
}

// clear kills what runs and removes all that is not the disk: processes,
// cgroups, the runtime's state, the mount.
func (h *Hypervisor) clear(i *instance) error {
	if l := i.live; l != nil {
		// PID 1 takes its whole namespace with it.
		_ = unix.PidfdSendSignal(l.pidfd, unix.SIGKILL, nil, 0)
		if err := h.await(l); err != nil {
			return err
		}
		unix.Close(l.pidfd)
		i.live = nil
	}
	if err := h.cgroups.remove(i.id); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(h.runcRoot(), h.container(i.id))); err != nil {
		return err
	}
	return unmount(i.path("rootfs"))
}

// unmount detaches whatever is mounted there, however often.
func unmount(dir string) error {
	for range 16 {
		switch err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); {
		case err == nil:
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		default:
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	return fmt.Errorf("unmount %s: mounted too often", dir)
}

// Stop asks PID 1 to end and kills it after grace.
func (h *Hypervisor) Stop(ctx context.Context, id string, grace time.Duration) error {
	i, err := h.find(id)
	if err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := h.end(ctx, i, grace); err != nil {
		return fmt.Errorf("stop %s: %w", id, err)
	}
	return nil
}

// end stops the instance and leaves it settled; i.mu is held.
func (h *Hypervisor) end(ctx context.Context, i *instance, grace time.Duration) error {
	if i.gone {
		return hypervisor.ErrNoInstance
	}
	if err := h.settle(i); err != nil || i.live == nil {
		return err
	}
	i.rec.Asked = true
	if grace > 0 {
		// What was asked for is known even if this process ends meanwhile.
		if err := h.save(i, i.rec); err != nil {
			return err
		}
		sig := unix.SIGTERM
		if i.rec.Boot == hypervisor.BootSystemd {
			sig = unix.Signal(34 + 3) // SIGRTMIN+3
		}
		_ = unix.PidfdSendSignal(i.live.pidfd, sig, nil, 0)
		select {
		case <-i.live.ended:
		case <-h.cfg.Clock.After(grace):
		case <-h.quit:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	_ = unix.PidfdSendSignal(i.live.pidfd, unix.SIGKILL, nil, 0)
	return h.stopped(i)
}

// Destroy removes every trace of an instance; its blocks on the disk follow.
func (h *Hypervisor) Destroy(ctx context.Context, id string) error {
	h.mu.Lock()
	i := h.insts[id]
	h.mu.Unlock()
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.gone {
		return nil
	}
	release, err := h.slot(ctx)
	if err != nil {
		return fmt.Errorf("destroy %s: %w", id, err)
	}
	defer release()
	if err := h.remove(i); err != nil {
		return fmt.Errorf("destroy %s: %w", id, err)
	}
	return nil
}

// remove is Destroy for every state, also half-made; i.mu is held.
func (h *Hypervisor) remove(i *instance) error {
	ran, told := i.rec.Run != nil, i.live != nil && i.live.told
	if err := h.clear(i); err != nil {
		return err
	}
	// Renamed first: half a directory is never taken for an instance.
	if err := h.discard(i.dir, i.made); err != nil {
		return err
	}
	i.gone = true
	if ran && i.made && !told {
		h.publish(i, "stopped")
	}
	h.mu.Lock()
	delete(h.insts, i.id)
	if len(h.insts) == 0 {
		h.cgroups.removeParent()
	}
	gone, err := h.unused()
	h.mu.Unlock()
	return errors.Join(err, removeAll(gone))
}

// discard takes a directory away from the instances at once. Later means that
// its blocks are given back behind the caller, one directory after the other: with 45 of them
// that is most of the work. New removes what a killed process has not.
func (h *Hypervisor) discard(dir string, later bool) error {
	to := filepath.Join(filepath.Dir(dir), ".gone-"+rand.Text())
	if err := os.Rename(dir, to); err != nil {
		if missing(err) {
			return nil
		}
		return err
	}
	h.mu.Lock()
	later = later && !h.closed
	if later {
		h.throwing.Add(1)
	}
	h.mu.Unlock()
	if !later {
		return os.RemoveAll(to)
	}
	h.trash <- to
	h.throwing.Done()
	return nil
}

// emptyTrash removes directories, some at once, until the trash is closed.
func (h *Hypervisor) emptyTrash() {
	defer close(h.emptied)
	var work sync.WaitGroup
	for range runtime.NumCPU() {
		work.Go(func() {
			for dir := range h.trash {
				if err := os.RemoveAll(dir); err != nil {
					h.cfg.Log.Error("remove what an instance left; the next start tries again", "directory", dir, "error", err)
				}
			}
		})
	}
	work.Wait()
}
