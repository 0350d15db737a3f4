// Package conformance is the suite that every hypervisor.Hypervisor passes. It
// knows the port and nothing of what is behind it.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

// Options of a run.
type Options struct {
	// Root returns a root file system as a tar stream, with a /bin/sh where
	// Shell is true.
	Root func(t *testing.T) io.Reader
	// Shell says that commands really run.
	Shell bool
	// Reopen closes h without touching its instances and takes over what it
	// had; nil where instances do not outlive their Hypervisor.
	Reopen func(t *testing.T, h hypervisor.Hypervisor) hypervisor.Hypervisor
	// Kill ends PID 1 of an instance behind the Hypervisor's back.
	Kill func(t *testing.T, h hypervisor.Hypervisor, id string)
}

// Run runs the suite. Make returns an empty Hypervisor for each test, which
// cleans up behind itself.
func Run(t *testing.T, open func(t *testing.T) hypervisor.Hypervisor, o Options) {
	for name, test := range map[string]func(*suite){
		"images": (*suite).images, "snapshots": (*suite).snapshots, "lifecycle": (*suite).lifecycle,
		"errors": (*suite).errors, "events": (*suite).events, "commands": (*suite).commands,
		"concurrency": (*suite).concurrency, "adoption": (*suite).adoption, "closing": (*suite).closing,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			test(&suite{T: t, ctx: ctx, o: o, h: open(t)})
		})
	}
}

type suite struct {
	*testing.T
	ctx context.Context
	o   Options
	h   hypervisor.Hypervisor
}

const image = "ami-00000000000000001"

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) is(err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Fatalf("the error is %v, want %v", err, want)
	}
}

func (s *suite) base() hypervisor.Image {
	s.Helper()
	m, err := s.h.ImportImage(s.ctx, image, hypervisor.BootGuest, s.o.Root(s.T))
	s.must(err)
	return m
}

func spec(id string) hypervisor.Instance {
	return hypervisor.Instance{ID: id, Image: image, CPUs: 1, MemoryMiB: 128, Pids: 64, Hostname: "ip-10-0-0-9", Env: map[string]string{"ANSWER": "42"}}
}

func (s *suite) create(id string) {
	s.Helper()
	s.must(s.h.Create(s.ctx, spec(id)))
}

func (s *suite) ready(id string) {
	s.Helper()
	for {
		err := s.h.Ready(s.ctx, id)
		if err == nil {
			return
		}
		s.is(err, hypervisor.ErrNotReady)
		select {
		case <-s.ctx.Done():
			s.Fatalf("%s is never ready: %v", id, err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (s *suite) status(id string) (hypervisor.Status, bool) {
	s.Helper()
	list, err := s.h.List(s.ctx)
	s.must(err)
	k := slices.IndexFunc(list, func(x hypervisor.Status) bool { return x.ID == id })
	if k < 0 {
		return hypervisor.Status{}, false
	}
	return list[k], true
}

func (s *suite) event(id string) hypervisor.Status {
	s.Helper()
	select {
	case e := <-s.h.Events():
		if e.ID != id || e.State != hypervisor.Stopped {
			s.Fatalf("the event is %+v, want %s to be stopped", e, id)
		}
		return e
	case <-s.ctx.Done():
		s.Fatalf("no event of %s", id)
	}
	panic("unreachable")
}

func (s *suite) noEvent() {
	s.Helper()
	select {
	case e := <-s.h.Events():
		s.Fatalf("an event too many: %+v", e)
	case <-time.After(20 * time.Millisecond):
	}
}

type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("an image that is there was read again")
	return 0, io.EOF
}

func (s *suite) images() {
	m := s.base()
	if m.ID != image || m.Boot != hypervisor.BootGuest || m.Arch == "" || len(m.Layers) != 1 || m.Bytes <= 0 {
		s.Errorf("%+v", m)
	}
	again, err := s.h.ImportImage(s.ctx, image, hypervisor.BootGuest, unread{s.T})
	s.must(err)
	if again.Layers[0] != m.Layers[0] {
		s.Errorf("%+v", again)
	}
	other, err := s.h.ImportImage(s.ctx, "ami-2", hypervisor.BootGuest, s.o.Root(s.T))
	s.must(err)
	if other.Layers[0] != m.Layers[0] {
		s.Error("the same bytes are not the same layer")
	}
	s.must(s.h.DeleteImage(s.ctx, "ami-2"))
	s.must(s.h.DeleteImage(s.ctx, "ami-2"))
	s.must(s.h.DeleteImage(s.ctx, "ami-never"))
	list, err := s.h.Images(s.ctx)
	s.must(err)
	if len(list) != 1 || list[0].ID != image {
		s.Errorf("%+v", list)
	}
	if _, err := s.h.ImportImage(s.ctx, "ami-3", "grub", s.o.Root(s.T)); err == nil {
		s.Error("an unknown boot is accepted")
	}
	broken := errors.New("the cable is cut")
	_, err = s.h.ImportImage(s.ctx, "ami-4", hypervisor.BootGuest, io.MultiReader(io.LimitReader(s.o.Root(s.T), 100), failing{broken}))
	s.is(err, broken)
	// The layer is still there for its other image.
	s.create("i-1")
	s.is(s.h.DeleteImage(s.ctx, image), hypervisor.ErrInUse)
	s.must(s.h.Destroy(s.ctx, "i-1"))
	s.must(s.h.DeleteImage(s.ctx, image))
	s.is(s.h.Create(s.ctx, spec("i-1")), hypervisor.ErrNoImage)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func (s *suite) snapshots() {
	base := s.base()
	s.create("i-1")
	_, err := s.h.Snapshot(s.ctx, "i-1", "ami-2")
	s.is(err, hypervisor.ErrState)
	s.ready("i-1")
	if s.o.Shell {
		s.sh("i-1", "c-1", "echo one > /var/one; rm /bin/cat; echo x > /etc/x; rm /etc/x")
	}
	s.must(s.h.Stop(s.ctx, "i-1", 5*time.Second))
	s.event("i-1")
	m, err := s.h.Snapshot(s.ctx, "i-1", "ami-2")
	s.must(err)
	if len(m.Layers) != len(base.Layers)+1 || m.Layers[0] != base.Layers[0] || m.Boot != base.Boot {
		s.Errorf("%+v on %+v", m, base)
	}
	again, err := s.h.Snapshot(s.ctx, "i-1", "ami-2")
	s.must(err)
	if !slices.Equal(again.Layers, m.Layers) {
		s.Error("the same image id is another image")
	}
	_, err = s.h.Snapshot(s.ctx, "i-none", "ami-9")
	s.is(err, hypervisor.ErrNoInstance)
	// The instance goes on with its disk, and a second snapshot has both layers.
	s.must(s.h.Start(s.ctx, "i-1", ""))
	s.ready("i-1")
	if s.o.Shell {
		s.out("i-1", "c-2", "read x < /var/one; echo $x; echo two > /var/two", "one\n")
	}
	s.must(s.h.Stop(s.ctx, "i-1", 5*time.Second))
	s.event("i-1")
	m3, err := s.h.Snapshot(s.ctx, "i-1", "ami-3")
	s.must(err)
	if s.o.Shell && len(m3.Layers) != 3 {
		s.Errorf("%+v", m3)
	}
	s.must(s.h.Destroy(s.ctx, "i-1"))
	// The first image can go: what stands on its layer keeps it.
	s.must(s.h.DeleteImage(s.ctx, image))
	s.must(s.h.DeleteImage(s.ctx, "ami-2"))
	in := spec("i-2")
	in.Image = "ami-3"
	s.must(s.h.Create(s.ctx, in))
	s.ready("i-2")
	if s.o.Shell {
		s.out("i-2", "c-1", "read x < /var/one; read y < /var/two; echo $x $y; ls /bin/cat || echo none", "one two\nnone\n")
	}
}

func (s *suite) lifecycle() {
	s.base()
	s.create("i-1")
	s.create("i-1") // again: no error, no second one
	st, ok := s.status("i-1")
	if !ok || st.State != hypervisor.Running || st.Image != image || st.Started.IsZero() || st.Reason != "" {
		s.Errorf("%+v", st)
	}
	s.ready("i-1")
	s.must(s.h.Start(s.ctx, "i-1", ""))
	s.must(s.h.Stop(s.ctx, "i-1", 5*time.Second))
	s.must(s.h.Stop(s.ctx, "i-1", 5*time.Second))
	if st, _ := s.status("i-1"); st.State != hypervisor.Stopped || st.Reason != "stopped" || st.PID != 0 {
		s.Errorf("%+v", st)
	}
	s.is(s.h.Ready(s.ctx, "i-1"), hypervisor.ErrNotReady)
	s.must(s.h.Start(s.ctx, "i-1", ""))
	if st, _ := s.status("i-1"); st.State != hypervisor.Running || st.Reason != "" {
		s.Errorf("%+v", st)
	}
	s.ready("i-1")
	out, err := s.h.Console(s.ctx, "i-1", 5)
	s.must(err)
	if len(out) != 5 {
		s.Errorf("the console's end is %q", out)
	}
	s.must(s.h.Destroy(s.ctx, "i-1"))
	s.must(s.h.Destroy(s.ctx, "i-1"))
	if _, ok := s.status("i-1"); ok {
		s.Error("it is still there")
	}
	s.create("i-1") // the id is free
}

func (s *suite) errors() {
	s.base()
	ctx := s.ctx
	s.is(s.h.Stop(ctx, "i-none", 0), hypervisor.ErrNoInstance)
	s.is(s.h.Start(ctx, "i-none", ""), hypervisor.ErrNoInstance)
	s.is(s.h.Ready(ctx, "i-none"), hypervisor.ErrNoInstance)
	_, err := s.h.Run(ctx, "i-none", hypervisor.Command{ID: "c"})
	s.is(err, hypervisor.ErrNoInstance)
	_, err = s.h.Console(ctx, "i-none", 10)
	s.is(err, hypervisor.ErrNoInstance)
	in := spec("i-1")
	in.Image = "ami-none"
	s.is(s.h.Create(ctx, in), hypervisor.ErrNoImage)
	if err := s.h.Create(ctx, spec("")); err == nil {
		s.Error("an empty id is accepted")
	}
	if list, _ := s.h.List(ctx); len(list) != 0 {
		s.Errorf("%+v", list)
	}
}

func (s *suite) events() {
	s.base()
	for _, id := range []string{"i-1", "i-2", "i-3"} {
		s.create(id)
		s.ready(id)
	}
	s.noEvent()
	s.must(s.h.Stop(s.ctx, "i-1", 5*time.Second))
	if e := s.event("i-1"); e.Reason != "stopped" {
		s.Errorf("%+v", e)
	}
	s.o.Kill(s.T, s.h, "i-2")
	if e := s.event("i-2"); e.Reason == "" || e.Reason == "stopped" {
		s.Errorf("%+v", e)
	}
	if st, _ := s.status("i-2"); st.State != hypervisor.Stopped {
		s.Errorf("%+v", st)
	}
	s.must(s.h.Destroy(s.ctx, "i-3"))
	s.event("i-3")
	s.must(s.h.Destroy(s.ctx, "i-1")) // it had stopped before
	s.noEvent()
	s.must(s.h.Start(s.ctx, "i-2", ""))
	s.ready("i-2")
	s.o.Kill(s.T, s.h, "i-2")
	s.event("i-2")
}

func (s *suite) concurrency() {
	s.base()
	var wg sync.WaitGroup
	for k := range 8 {
		for range 2 {
			wg.Go(func() {
				if err := s.h.Create(s.ctx, spec(fmt.Sprint("i-", k))); err != nil {
					s.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if list, _ := s.h.List(s.ctx); len(list) != 8 {
		s.Errorf("%d instances", len(list))
	}
	for k := range 8 {
		wg.Go(func() {
			if err := s.h.Destroy(s.ctx, fmt.Sprint("i-", k)); err != nil {
				s.Error(err)
			}
		})
	}
	wg.Wait()
	for range 8 {
		<-s.h.Events()
	}
	s.noEvent()
	if list, _ := s.h.List(s.ctx); len(list) != 0 {
		s.Errorf("%+v", list)
	}
}

func (s *suite) adoption() {
	if s.o.Reopen == nil {
		s.Skip("instances end with their Hypervisor")
	}
	base := s.base()
	for _, id := range []string{"i-lives", "i-stopped", "i-dies"} {
		s.create(id)
		s.ready(id)
	}
	s.must(s.h.Stop(s.ctx, "i-stopped", 5*time.Second))
	before, _ := s.status("i-lives")
	s.sh("i-lives", "c-1", "echo first > /var/log1; (sleep 0.5; echo later >> /var/log1) &")
	old := s.h
	s.h = s.o.Reopen(s.T, s.h)
	for e := range old.Events() { // closed with its Hypervisor
		s.Log("event of the old one", e)
	}
	if list, err := s.h.Images(s.ctx); err != nil || len(list) != 1 || !slices.Equal(list[0].Layers, base.Layers) || list[0].Bytes != base.Bytes {
		s.Errorf("%+v %v", list, err)
	}
	after, ok := s.status("i-lives")
	if !ok || after.State != hypervisor.Running || after.PID != before.PID || !after.Started.Equal(before.Started) {
		s.Errorf("%+v, was %+v", after, before)
	}
	if st, _ := s.status("i-stopped"); st.State != hypervisor.Stopped || st.Reason != "stopped" {
		s.Errorf("%+v", st)
	}
	s.ready("i-lives")
	s.out("i-lives", "c-1", "echo other", "")
	s.out("i-lives", "c-2", "echo still here", "still here\n")
	s.o.Kill(s.T, s.h, "i-dies")
	s.event("i-dies")
	s.must(s.h.Start(s.ctx, "i-stopped", ""))
	s.ready("i-stopped")
	s.must(s.h.Destroy(s.ctx, "i-lives"))
	s.event("i-lives")
}

func (s *suite) closing() {
	s.base()
	s.must(s.h.Close())
	s.must(s.h.Close())
	if _, ok := <-s.h.Events(); ok {
		s.Error("an event behind Close")
	}
	if err := s.h.Create(s.ctx, spec("i-1")); err == nil {
		s.Error("a closed hypervisor creates")
	}
}
