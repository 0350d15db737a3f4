package guest

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// processes starts children and reaps every child, also those that PID 1
// inherits. One place does both, because two waiters would steal each other's
// results: that is why os/exec is not used here.
type processes struct {
	mu      sync.Mutex // held from fork to registration and while reaping
	waiters map[int]chan syscall.WaitStatus
	childs  chan os.Signal
}

func newProcesses() *processes {
	p := &processes{waiters: map[int]chan syscall.WaitStatus{}, childs: make(chan os.Signal, 1)}
	signal.Notify(p.childs, syscall.SIGCHLD)
	go func() {
		for range p.childs {
			p.reap()
		}
	}()
	return p
}

// close ends the reaper.
func (p *processes) close() {
	signal.Stop(p.childs)
	close(p.childs)
}

// reap takes what ended and tells whether there is no child left at all.
func (p *processes) reap() (none bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return err == syscall.ECHILD
		}
		if !ws.Exited() && !ws.Signaled() {
			continue
		}
		if c, ok := p.waiters[pid]; ok {
			delete(p.waiters, pid)
			c <- ws
		}
	}
}

// start runs argv in a session of its own, so that -pid is its process group.
func (p *processes) start(argv, env []string, dir string, files [3]*os.File) (pid int, done <-chan syscall.WaitStatus, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	child, err := os.StartProcess(argv[0], argv, &os.ProcAttr{
		Dir: dir, Env: env, Files: files[:], Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	pid = child.Pid
	_ = child.Release() // the reaper waits for it
	c := make(chan syscall.WaitStatus, 1)
	p.waiters[pid] = c
	return pid, c, nil
}

// writeScript writes an executable while no child is between fork and exec:
// such a child would hold the file open for writing, and exec would fail with
// ETXTBSY.
func (p *processes) writeScript(path string, script []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = os.Remove(path)
	return os.WriteFile(path, script, 0o700)
}

// code is the exit code as a shell gives it.
func code(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// tail keeps the end of what is written.
type tail struct {
	mu    sync.Mutex
	limit int
	buf   []byte
	at    int // where the oldest byte is once buf is full
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if len(p) > t.limit {
		p = p[len(p)-t.limit:]
	}
	if room := t.limit - len(t.buf); room > 0 {
		k := min(room, len(p))
		t.buf, p = append(t.buf, p[:k]...), p[k:]
	}
	for len(p) > 0 {
		k := copy(t.buf[t.at:], p)
		p, t.at = p[k:], (t.at+k)%t.limit
	}
	return n, nil
}

func (t *tail) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append(append(make([]byte, 0, len(t.buf)), t.buf[t.at:]...), t.buf[:t.at]...)
}
