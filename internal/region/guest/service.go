package guest

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	backoffMin = time.Second
	backoffMax = 30 * time.Second
	settled    = 10 * time.Second // a service that lived so long begins again at backoffMin
	scanEvery  = time.Second
	// wholeEvery is after how many scans all is looked at although no directory
	// has changed: a thousand instances that only serve cost little so.
	wholeEvery = 5
)

// services supervises directories with an executable run, as runit does: what
// ends is started again, what appears is started, what disappears is ended.
// A file named down keeps a service from being started.
type services struct {
	dir   string
	procs *processes
	env   []string
	out   *os.File
	say   func(string, ...any)

	mu    sync.Mutex
	all   map[string]*service
	stamp []time.Time // of the directories that moved looks at
	quit  chan struct{}
	wg    sync.WaitGroup
}

type service struct {
	quit chan struct{}
	mu   sync.Mutex
	pid  int
}

func newServices(dir string, p *processes, env []string, out *os.File, say func(string, ...any)) *services {
	return &services{dir: dir, procs: p, env: env, out: out, say: say, all: map[string]*service{}, quit: make(chan struct{})}
}

// watch scans until stop.
func (s *services) watch() {
	s.wg.Go(func() {
		t := time.NewTicker(scanEvery)
		defer t.Stop()
		for n := 0; ; n++ {
			if moved := s.moved(); moved || n%wholeEvery == 0 {
				s.scan()
			}
			select {
			case <-s.quit:
				return
			case <-t.C:
			}
		}
	})
}

// moved tells whether the directory, or one of a service that is known, has
// changed since it was asked before.
func (s *services) moved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	dirs := []string{s.dir}
	for _, n := range slices.Sorted(maps.Keys(s.all)) {
		dirs = append(dirs, filepath.Join(s.dir, n))
	}
	var now []time.Time
	for _, d := range dirs {
		if i, err := os.Stat(d); err == nil {
			now = append(now, i.ModTime())
		}
	}
	if slices.EqualFunc(now, s.stamp, time.Time.Equal) {
		return false
	}
	s.stamp = now
	return true
}

func (s *services) scan() {
	d, err := os.Open(s.dir)
	if err != nil {
		return
	}
	names, _ := d.Readdirnames(1000)
	_ = d.Close()
	seen := map[string]bool{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		if n[0] == '.' {
			continue
		}
		dir := filepath.Join(s.dir, n)
		if i, err := os.Stat(filepath.Join(dir, "run")); err != nil || i.IsDir() || i.Mode()&0o111 == 0 {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "down")); err == nil {
			continue
		}
		seen[n] = true
		if s.all[n] == nil {
			v := &service{quit: make(chan struct{})}
			s.all[n] = v
			s.wg.Go(func() { s.supervise(n, dir, v) })
		}
	}
	for n, v := range s.all {
		if !seen[n] {
			delete(s.all, n)
			v.stop()
		}
	}
}

func (s *services) supervise(name, dir string, v *service) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		s.say("service %s: %v", name, err)
		return
	}
	defer null.Close()
	wait := backoffMin
	for {
		began := time.Now()
		if ws, err := s.once(dir, null, v); err != nil {
			s.say("service %s: %v", name, err)
		} else if !v.stopping() {
			s.say("service %s ended (%s)", name, describe(ws))
		}
		if time.Since(began) >= settled {
			wait = backoffMin
		}
		t := time.NewTimer(wait)
		select {
		case <-v.quit:
			t.Stop()
			return
		case <-t.C:
		}
		wait = min(2*wait, backoffMax)
	}
}

func (s *services) once(dir string, null *os.File, v *service) (syscall.WaitStatus, error) {
	v.mu.Lock()
	if v.stopping() {
		v.mu.Unlock()
		return 0, nil
	}
	pid, done, err := s.procs.start([]string{filepath.Join(dir, "run")}, s.env, dir, [3]*os.File{null, s.out, s.out})
	v.pid = pid
	v.mu.Unlock()
	if err != nil {
		return 0, err
	}
	ws := <-done
	v.mu.Lock()
	v.pid = 0
	v.mu.Unlock()
	return ws, nil
}

func (v *service) stopping() bool {
	select {
	case <-v.quit:
		return true
	default:
		return false
	}
}

func (v *service) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.quit)
	if v.pid != 0 {
		_ = syscall.Kill(v.pid, syscall.SIGTERM)
		_ = syscall.Kill(v.pid, syscall.SIGCONT)
	}
}

// stop ends all services with SIGTERM and waits for them, at most d.
func (s *services) stop(d time.Duration) {
	close(s.quit)
	s.mu.Lock()
	for n, v := range s.all {
		delete(s.all, n)
		v.stop()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(d):
	}
}
