package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

func (s *suite) sh(id, command, script string) hypervisor.Result {
	s.Helper()
	r, err := s.h.Run(s.ctx, id, hypervisor.Command{ID: command, Script: []byte(script), Timeout: 30 * time.Second})
	s.must(err)
	return r
}

func (s *suite) out(id, command, script, want string) {
	s.Helper()
	if r := s.sh(id, command, script); string(r.Stdout) != want || r.ExitCode != 0 {
		s.Errorf("%s: exit %d, out %q, err %q, want %q", script, r.ExitCode, r.Stdout, r.Stderr, want)
	}
}

func (s *suite) commands() {
	s.base()
	s.create("i-1")
	s.ready("i-1")
	if _, err := s.h.Run(s.ctx, "i-1", hypervisor.Command{}); err == nil {
		s.Error("a command without an id is accepted")
	}
	r := s.sh("i-1", "c-0", "exit 0")
	if r.ExitCode != 0 || r.TimedOut || r.Started.IsZero() || r.Ended.Before(r.Started) {
		s.Errorf("%+v", r)
	}
	if !s.o.Shell {
		return
	}
	s.out("i-1", "c-1", "echo $ANSWER $HOME; pwd", "42 /root\n/root\n")
	s.out("i-1", "c-2", "#!/usr/bin/env sh\necho by its first line", "by its first line\n")
	if r := s.sh("i-1", "c-3", "echo out; echo err >&2; exit 7"); r.ExitCode != 7 || string(r.Stderr) != "err\n" || string(r.Stdout) != "out\n" {
		s.Errorf("%+v", r)
	}
	// Once: the second run of an id answers with the first's result.
	s.out("i-1", "c-4", "echo once >> /var/count; cat /var/count", "once\n")
	s.out("i-1", "c-4", "echo once >> /var/count; cat /var/count", "once\n")
	// Two at the same time are one.
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			r, err := s.h.Run(s.ctx, "i-1", hypervisor.Command{ID: "c-5", Script: []byte("sleep 0.2; echo x >> /var/both; cat /var/both")})
			if err != nil || string(r.Stdout) != "x\n" {
				s.Errorf("%+v %v", r, err)
			}
		})
	}
	wg.Wait()
	begun := time.Now()
	r, err := s.h.Run(s.ctx, "i-1", hypervisor.Command{ID: "c-6", Script: []byte("echo before; sleep 60 & sleep 60"), Timeout: 200 * time.Millisecond})
	s.must(err)
	if !r.TimedOut || string(r.Stdout) != "before\n" || time.Since(begun) > 5*time.Second {
		s.Errorf("%+v after %s", r, time.Since(begun))
	}
	// A caller that goes away does not end the command.
	short, cancel := context.WithTimeout(s.ctx, 50*time.Millisecond)
	defer cancel()
	_, err = s.h.Run(short, "i-1", hypervisor.Command{ID: "c-7", Script: []byte("sleep 0.3; echo done")})
	s.is(err, context.DeadlineExceeded)
	s.out("i-1", "c-7", "", "done\n")
	// A daemon that is left behind holds nothing up.
	s.out("i-1", "c-8", "sleep 100 & echo gone", "gone\n")
	r = s.sh("i-1", "c-9", "i=0; while [ $i -lt 30000 ]; do echo 0123456789012345678901234567890123456789012345678; i=$((i+1)); done; echo the end")
	if len(r.Stdout) != 1<<20 || string(r.Stdout[len(r.Stdout)-8:]) != "the end\n" {
		s.Errorf("%d bytes", len(r.Stdout))
	}
	if r, err := s.h.Run(s.ctx, "i-1", hypervisor.Command{ID: "c-10", Script: []byte("pwd"), Dir: "/etc"}); err != nil || string(r.Stdout) != "/etc\n" {
		s.Errorf("%+v %v", r, err)
	}
	if r := s.sh("i-1", "c-11", "#!/no/such/program\n"); r.ExitCode == 0 || len(r.Stderr) == 0 {
		s.Errorf("%+v", r)
	}
	// An id is known in the next boot too, and one that was cut off does not run again.
	cut := make(chan error, 1)
	go func() {
		r, err := s.h.Run(s.ctx, "i-1", hypervisor.Command{ID: "c-12", Script: []byte("echo x >> /var/cut; sleep 60")})
		if err == nil && r.ExitCode != 0 {
			err = errors.New("ended by the stop's signal")
		}
		cut <- err
	}()
	for s.sh("i-1", fmt.Sprint("wait-", time.Now().UnixNano()), "ls /var/cut").ExitCode != 0 {
		time.Sleep(5 * time.Millisecond)
	}
	s.must(s.h.Stop(s.ctx, "i-1", time.Second))
	if err := <-cut; err == nil || errors.Is(err, hypervisor.ErrNotReady) {
		s.Errorf("a command that was cut off: %v", err)
	}
	s.must(s.h.Start(s.ctx, "i-1", ""))
	s.ready("i-1")
	s.out("i-1", "c-4", "echo again", "once\n")
	if r := s.sh("i-1", "c-12", ""); r.ExitCode == 0 {
		s.Errorf("%+v", r)
	}
	s.out("i-1", "c-13", "cat /var/cut", "x\n")
}
