// Package figures measures the control plane by itself: what many records cost
// at rest, how soon a write calls a loop, how soon a killed server is back, how
// soon a dead one's work is taken over. Its functions start what they need and
// end it; what they return is for a table.
package figures

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/expire"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/cached"
	"github.com/dayfly-infra/dayfly/internal/store/postgres"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

// open opens the store at an address, a connection string or a file, as a server
// does.
func open(ctx context.Context, where string) (store.Store, error) {
	var st store.Store
	var err error
	if postgres.Is(where) {
		st, err = postgres.Open(ctx, where, clock.Real{})
	} else {
		st, err = sqlite.Open(ctx, where, clock.Real{})
	}
	if err != nil {
		return nil, err
	}
	return cached.New(cached.Config{Store: st, Kinds: []string{environment.Kind}, Clock: clock.Real{}}), nil
}

// poll is a loop that finds nothing to do: it reads its record, decides, and
// comes again, as those of serving generations do.
type poll struct {
	kind  string
	store store.Store
	every time.Duration
	runs  atomic.Int64
	ran   func(name string)
}

func (l *poll) Kind() string { return l.kind }

func (l *poll) Reconcile(ctx context.Context, name string) (time.Duration, error) {
	l.runs.Add(1)
	if l.ran != nil {
		l.ran(name)
	}
	e, _, err := store.Get[environment.Environment](ctx, l.store, l.kind, name)
	if errors.Is(err, store.ErrNotFound) {
		return reconcile.Done, nil
	}
	if err != nil || e.Phase != environment.Serving {
		return reconcile.Done, err
	}
	return l.every, nil
}

// Rest is what records cost while nothing happens.
type Rest struct {
	Records    int           `json:"records"`
	Every      time.Duration `json:"every"`
	RunsPerSec float64       `json:"runs_per_second"`
	CPU        float64       `json:"cpu_share"` // of one core
	RSS        int64         `json:"rss_bytes"`
	Start      time.Duration `json:"start"` // until each was reconciled once
}

// pollEvery is how often each record is looked at: as often as a generation
// that serves.
const pollEvery = 10 * time.Second

// AtRest measures records in this process, which must have nothing else: call
// it in one of its own, see Child. They are environments as they are stored, each
// under two loops: one that polls it, and the real one that ends leases.
func AtRest(ctx context.Context, where string, records int, warm, measure time.Duration) (Rest, error) {
	r := Rest{Records: records, Every: pollEvery}
	st, err := open(ctx, where)
	if err != nil {
		return r, err
	}
	defer st.Close()
	now := time.Now()
	for i := 0; i < records; {
		var ws []store.Write
		for ; len(ws) < 500 && i < records; i++ {
			e := environment.Environment{
				Name: fmt.Sprintf("shop-%05d", i), Blueprint: "shop", Purpose: "dev", Phase: environment.Serving, Size: 45, Serving: 1, Want: 1, Created: now, Deadline: now.Add(24 * time.Hour),
				Image: "shop-95adba16a5eddbbb", Release: "shop/bc884701afc51e97", Foundation: fmt.Sprintf("shop-%05d", i), Address: "http://100.96.224.8",
				Parameters: map[string]string{"Size": "small", "Comment": strings.Repeat("as long as a record is on average ", 8)},
			}
			ws = append(ws, store.Put(environment.Kind, e.Name, 0, e))
		}
		if err := st.Apply(ctx, store.NoEpoch, ws...); err != nil {
			return r, err
		}
	}
	l := &poll{kind: environment.Kind, store: st, every: pollEvery}
	log := slog.New(slog.DiscardHandler)
	e := reconcile.New(reconcile.Config{Store: st, Loops: []reconcile.Loop{l, expire.Environments(st, clock.Real{}, log)}, Holder: "figures"})
	run, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- e.Run(run) }()
	for l.runs.Load() < int64(records) {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		time.Sleep(5 * time.Millisecond)
	}
	r.Start = time.Since(began)
	sleep(ctx, warm)
	cpu, runs, at := used(), l.runs.Load(), time.Now()
	sleep(ctx, measure)
	wall := time.Since(at)
	r.CPU = (used() - cpu).Seconds() / wall.Seconds()
	r.RunsPerSec = float64(l.runs.Load()-runs) / wall.Seconds()
	if r.RSS, err = rss(); err != nil {
		return r, err
	}
	stop()
	return r, errors.Join(<-done, ctx.Err())
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// used is the CPU time of this process.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func rss() (int64, error) {
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(raw))
	if len(f) < 2 {
		return 0, fmt.Errorf("statm: %q", raw)
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// Latency is from before a write until the loop is called.
type Latency struct {
	Writes int           `json:"writes"`
	Median time.Duration `json:"median"`
	P99    time.Duration `json:"p99"`
	Max    time.Duration `json:"max"`
}

// Event measures writes of one process that call the loop of another: both have
// the store open on their own, as two replicas have.
func Event(ctx context.Context, where string, writes int) (Latency, error) {
	owner, err := open(ctx, where)
	if err != nil {
		return Latency{}, err
	}
	defer owner.Close()
	writer, err := open(ctx, where)
	if err != nil {
		return Latency{}, err
	}
	defer writer.Close()
	if !postgres.Is(where) {
		writer = owner // SQLite has one server: its API and its loops share the store
	}
	ran := make(chan string, 16)
	l := &poll{kind: environment.Kind, store: owner, every: time.Hour, ran: func(name string) { ran <- name }}
	run, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	e := reconcile.New(reconcile.Config{Store: owner, Loops: []reconcile.Loop{l}, Holder: "figures"})
	go func() { done <- e.Run(run) }()
	for {
		if _, ok := e.Owner(); ok {
			break
		}
		sleep(ctx, time.Millisecond)
		if ctx.Err() != nil {
			return Latency{}, ctx.Err()
		}
	}
	sleep(ctx, 500*time.Millisecond)
	var all []time.Duration
	for i := range writes {
		name := fmt.Sprintf("e%05d", i)
		began := time.Now()
		if err := writer.Apply(ctx, store.NoEpoch, store.Put(environment.Kind, name, 0, environment.Environment{Name: name})); err != nil {
			return Latency{}, err
		}
		select {
		case got := <-ran:
			if got != name {
				return Latency{}, fmt.Errorf("%s was called, %s was written", got, name)
			}
		case <-time.After(10 * time.Second):
			return Latency{}, fmt.Errorf("the loop was never called for %s", name)
		}
		all = append(all, time.Since(began))
		sleep(ctx, time.Duration(5+i%7)*time.Millisecond) // not in step with anything that polls
	}
	stop()
	slices.Sort(all)
	return Latency{Writes: writes, Median: all[len(all)/2], P99: all[len(all)*99/100], Max: all[len(all)-1]}, errors.Join(<-done, ctx.Err())
}

// Servers are real ones over a simulated region.
type Servers struct {
	Dayfly string // the binary
	Dir    string // a short path: sockets are in it
	Env    []string
}

// Setup starts the region. End ends it.
func Setup(ctx context.Context, dayfly, dir, listen string) (*Servers, error) {
	s := &Servers{Dayfly: dayfly, Dir: dir, Env: append(os.Environ(), "DAYFLY_REGION_DIR="+filepath.Join(dir, "region"))}
	if _, err := s.run(ctx, "region", "start", "--simulate", "--listen", listen); err != nil {
		return nil, err
	}
	out, err := s.run(ctx, "-o", "json", "region", "env")
	var env map[string]string
	if err == nil {
		err = json.Unmarshal(out, &env)
	}
	if err != nil {
		s.End(ctx)
		return nil, err
	}
	for k, v := range env {
		s.Env = append(s.Env, k+"="+v)
	}
	return s, nil
}

func (s *Servers) run(ctx context.Context, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, s.Dayfly, args...)
	c.Env, c.Dir = s.Env, s.Dir
	var said strings.Builder
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		err = fmt.Errorf("dayfly %s: %w: %s", strings.Join(args, " "), err, said.String())
	}
	return out, err
}

func (s *Servers) on(name string, args ...string) []string {
	return append([]string{"--state", filepath.Join(s.Dir, name)}, args...)
}

// End stops servers and region.
func (s *Servers) End(ctx context.Context, names ...string) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, n := range names {
		_, err := s.run(ctx, s.on(n, "server", "stop")...)
		errs = append(errs, err)
	}
	_, err := s.run(ctx, "region", "stop", "--force")
	return errors.Join(append(errs, err)...)
}

type status struct {
	PID    int  `json:"pid"`
	Active bool `json:"active"`
}

func (s *Servers) status(ctx context.Context, name string) (st status, err error) {
	out, err := s.run(ctx, append([]string{"-o", "json"}, s.on(name, "server", "status")...)...)
	if err == nil {
		err = json.Unmarshal(out, &st)
	}
	return st, err
}

func (s *Servers) active(ctx context.Context, name string) error {
	for until := time.Now().Add(time.Minute); ; {
		st, err := s.status(ctx, name)
		if err == nil && st.Active {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(until) {
			return cmp.Or(ctx.Err(), fmt.Errorf("%s never owned the work: %w", name, err))
		}
		sleep(ctx, 10*time.Millisecond)
	}
}

// Restart kills a server with SQLite and starts it at once: how long until it
// answers and owns the work again.
func (s *Servers) Restart(ctx context.Context) (time.Duration, error) {
	const name = "single"
	if _, err := s.run(ctx, s.on(name, "server", "start")...); err != nil {
		return 0, err
	}
	if err := s.active(ctx, name); err != nil {
		return 0, err
	}
	st, err := s.status(ctx, name)
	if err != nil {
		return 0, err
	}
	if err := syscall.Kill(st.PID, syscall.SIGKILL); err != nil {
		return 0, err
	}
	began := time.Now()
	for syscall.Kill(st.PID, 0) == nil && time.Since(began) < 5*time.Second { // a zombie of a process that is not ours goes by itself
		if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", st.PID)); err != nil || strings.Contains(string(raw), ") Z ") {
			break
		}
		sleep(ctx, time.Millisecond)
	}
	if _, err := s.run(ctx, s.on(name, "server", "start")...); err != nil {
		return 0, err
	}
	if err := s.active(ctx, name); err != nil {
		return 0, err
	}
	took := time.Since(began)
	_, err = s.run(ctx, s.on(name, "server", "stop")...)
	return took, err
}

// Takeover kills the active one of two servers on a PostgreSQL: how long until
// the other owns the work.
func (s *Servers) Takeover(ctx context.Context, database string) (time.Duration, error) {
	for _, n := range []string{"one", "two"} {
		if _, err := s.run(ctx, s.on(n, "server", "start", "--database", database)...); err != nil {
			return 0, err
		}
		if n == "one" {
			if err := s.active(ctx, n); err != nil {
				return 0, err
			}
		}
	}
	sleep(ctx, 2*time.Second)
	st, err := s.status(ctx, "one")
	if err != nil {
		return 0, err
	}
	if err := syscall.Kill(st.PID, syscall.SIGKILL); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := s.active(ctx, "two"); err != nil {
		return 0, err
	}
	took := time.Since(began)
	_, err = s.run(ctx, s.on("two", "server", "stop")...)
	return took, err
}
