package agent

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/handoff"
)

const (
	serviceLog  = handoff.LogDir + "/service.log"
	scriptLog   = handoff.LogDir + "/handoff.log"
	pauseMin    = 100 * time.Millisecond
	pauseMax    = 30 * time.Second
	settled     = 10 * time.Second // a service that lived so long begins again at pauseMin
	serviceStop = 10 * time.Second
	logMax      = 16 << 20
)

// service keeps handoff.service running until its context ends.
type service struct {
	a    *Agent
	b    *boot
	save func(process) // notes down what runs

	mu      sync.Mutex
	proc    process
	crashes int
	last    string // how it ended the last time
}

// mark is in the environment of what the agent supervises.
func (a *Agent) mark() string { return "DAYFLY_SUPERVISED=" + a.path(handoff.RunDir) }

// run adopts the service that an agent before this one started, or starts it,
// and starts it again whenever it ends.
func (s *service) run(ctx context.Context, adopt process) {
	p := adopt
	if !s.a.alive(p) {
		p = process{}
		s.a.strays(s.a.mark())
	}
	s.set(p) // stop must find it even when there is no first round
	pause := pauseMin
	for ctx.Err() == nil {
		began := time.Now()
		var err error
		if p.PID == 0 {
			if p, err = s.start(); err == nil {
				s.save(p)
			}
		}
		how := ""
		if err != nil {
			how = "cannot start: " + err.Error()
		} else {
			s.set(p)
			code, err := s.a.wait(ctx, p)
			if ctx.Err() != nil || err != nil {
				break
			}
			how = fmt.Sprintf("ended with exit code %d", code)
			s.a.end(p, 0) // what it left behind in its group
		}
		s.a.say("service: %s", how)
		s.mu.Lock()
		s.proc, s.last = process{}, how
		s.crashes++
		s.mu.Unlock()
		p = process{}
		if time.Since(began) >= settled {
			pause = pauseMin
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, pauseMax)
	}
}

// stop ends the service; run must have returned.
func (s *service) stop() {
	s.mu.Lock()
	p := s.proc
	s.mu.Unlock()
	s.a.end(p, serviceStop)
}

func (s *service) set(p process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc = p
}

// up tells whether the service runs.
func (s *service) up() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc.PID != 0
}

// trouble tells how often the service has ended, and how.
func (s *service) trouble() (int, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crashes, s.last
}

func (s *service) start() (process, error) {
	cred, home, err := s.a.credential(s.b.Config.User)
	if err != nil {
		return process{}, err
	}
	env := s.a.environment(s.b, home, s.b.Config.User)
	env = append(env, s.a.mark())
	out, err := s.a.openLog(serviceLog)
	if err != nil {
		return process{}, err
	}
	defer out.Close()
	return s.a.startProcess([]string{"/bin/sh", "-c", "exec " + s.b.Config.Service}, env, "/", out, cred)
}

// environment is what deploy script and service begin with.
func (a *Agent) environment(b *boot, home, user string) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + home, "USER=" + user, "LANG=C.UTF-8", "AWS_REGION=" + b.ID.Region}
	for _, k := range []string{"AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "http_proxy", "https_proxy", "no_proxy"} {
		if v := a.Env(k); v != "" {
			env = append(env, k+"="+v)
		}
	}
	for _, kv := range b.variables() {
		env = append(env, kv[0]+"="+kv[1])
	}
	return env
}

// trim keeps a log from filling the disk: what is there goes to LOG.1, and the
// file, which the service holds open for appending, begins anew.
func (a *Agent) trim(p string) {
	p = a.path(p)
	st, err := os.Stat(p)
	if err != nil || st.Size() < logMax {
		return
	}
	in, err := os.Open(p)
	if err != nil {
		return
	}
	defer in.Close()
	out, err := os.OpenFile(p+".1", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return
	}
	_, err = io.Copy(out, in)
	if e := out.Close(); err == nil && e == nil {
		_ = os.Truncate(p, 0)
	}
}
