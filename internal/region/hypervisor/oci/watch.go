package oci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

// watcher waits for the ends of all PID 1s with one goroutine: each is a pidfd
// in one epoll set. It works for processes of any parent.
type watcher struct {
	epoll, wake int
	mu          sync.Mutex
	closed      bool
	calls       map[int32]func() // by pidfd
	done        chan struct{}
}

func newWatcher() (*watcher, error) {
	e, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch instances: %w", err)
	}
	w, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(e, unix.EPOLL_CTL_ADD, w, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(w)})
	}
	if err != nil {
		unix.Close(e)
		return nil, fmt.Errorf("watch instances: %w", err)
	}
	x := &watcher{epoll: e, wake: w, calls: map[int32]func(){}, done: make(chan struct{})}
	go x.loop()
	return x, nil
}

// add calls f, once and on a goroutine of its own, when the process of pidfd
// has ended. It does not take pidfd over.
func (w *watcher) add(pidfd int, f func()) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errors.New("the hypervisor is closed")
	}
	w.calls[int32(pidfd)] = f
	if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, pidfd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(pidfd)}); err != nil {
		delete(w.calls, int32(pidfd))
		return fmt.Errorf("watch instances: %w", err)
	}
	return nil
}

func (w *watcher) loop() {
	defer close(w.done)
	var events [64]unix.EpollEvent
	for {
		n, err := unix.EpollWait(w.epoll, events[:], -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd == int32(w.wake) {
				return
			}
			_ = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, int(e.Fd), nil)
			w.mu.Lock()
			f := w.calls[e.Fd]
			delete(w.calls, e.Fd)
			w.mu.Unlock()
			if f != nil {
				f()
			}
		}
	}
}

func (w *watcher) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	_, _ = unix.Write(w.wake, binary.NativeEndian.AppendUint64(nil, 1))
	<-w.done
	unix.Close(w.epoll)
	unix.Close(w.wake)
}

// exitReason says how a process ended, as far as this kernel tells: we may not
// be its parent. It is asked before reap.
func exitReason(pidfd, pid int) string {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if unix.IoctlPidfdInfo(pidfd, &info) == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0 {
		return describe(unix.WaitStatus(info.Exit_code))
	}
	// An older kernel: as long as its parent has not waited, it is a zombie.
	if f, err := statFields(pid); err == nil && len(f) > 49 && f[0] == "Z" {
		if n, err := strconv.Atoi(f[49]); err == nil {
			return describe(unix.WaitStatus(n))
		}
	}
	return "ended"
}

// reap takes the status of a PID 1 that has ended, where it is our child.
func reap(pidfd int) { _ = unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED|unix.WNOHANG, nil) }

func describe(ws unix.WaitStatus) string {
	if ws.Signaled() {
		return fmt.Sprintf("killed by signal %d", int(ws.Signal()))
	}
	return fmt.Sprintf("exited %d", ws.ExitStatus())
}

// statFields returns /proc/PID/stat from the state on, which is field 3.
func statFields(pid int) ([]string, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil, err
	}
	s := string(b)
	return strings.Fields(s[strings.LastIndexByte(s, ')')+1:]), nil
}

// startTicks is when a process started, in ticks since the host's boot.
func startTicks(pid int) (uint64, error) {
	f, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	if len(f) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat: too short", pid)
	}
	return strconv.ParseUint(f[19], 10, 64)
}

// queue is a channel that never makes its sender wait.
type queue struct {
	out  chan hypervisor.Status
	mu   sync.Mutex
	cond *sync.Cond
	list []hypervisor.Status
	quit chan struct{}
	done bool
}

func newQueue() *queue {
	q := &queue{out: make(chan hypervisor.Status), quit: make(chan struct{})}
	q.cond = sync.NewCond(&q.mu)
	go q.deliver()
	return q
}

func (q *queue) push(s hypervisor.Status) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, s)
	q.cond.Signal()
}

func (q *queue) deliver() {
	defer close(q.out)
	for {
		q.mu.Lock()
		for len(q.list) == 0 && !q.done {
			q.cond.Wait()
		}
		if q.done {
			q.mu.Unlock()
			return
		}
		s := q.list[0]
		q.list = q.list[1:]
		q.mu.Unlock()
		select {
		case q.out <- s:
		case <-q.quit:
			return
		}
	}
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.done {
		q.done = true
		close(q.quit)
		q.cond.Signal()
	}
}
