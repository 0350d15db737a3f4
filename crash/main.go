// Command crash shows law 3: it kills a real server with SIGKILL before and
// after every call by which a bake, a deploy, a teardown and a test run change
// the region, one call at a time, starts it again and looks at what became of
// it. A proxy between server and region counts the calls, so that the server is
// the one that people run. The region is simulated, and a process of its own.
// With -real its instances are real ones, and it takes a few points of each
// operation, since each takes as long as it does for people; it needs root.
//
//	go run ./crash [-every N] [-scenario bake] [-out build/crash.json]
//	go run ./crash -real [-each 3]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Report is what a run found.
type Report struct {
	Points      int            `json:"points"`
	Leaks       int            `json:"leaks"`
	Duplicates  int            `json:"duplicates"`
	Stuck       int            `json:"stuck"`
	LostRecords int            `json:"lost_records"`
	Undone      int            `json:"undone"`      // ended with a clean failure instead of success
	Missed      int            `json:"missed"`      // this time the operation made fewer calls, so nobody died
	Swept       int            `json:"swept"`       // things that only the sweep removed
	Calls       map[string]int `json:"calls"`       // that change something, by operation
	Real        int            `json:"real_points"` // of all points, those on real instances
	Seconds     float64        `json:"seconds"`
	Findings    []string       `json:"findings"`
}

func (r *Report) add(o Report) {
	r.Points += o.Points
	r.Real += o.Real
	r.Leaks += o.Leaks
	r.Duplicates += o.Duplicates
	r.Stuck += o.Stuck
	r.LostRecords += o.LostRecords
	r.Undone += o.Undone
	r.Missed += o.Missed
	r.Swept += o.Swept
	r.Findings = append(r.Findings, o.Findings...)
	if r.Calls == nil {
		r.Calls = map[string]int{}
	}
	for k, v := range o.Calls {
		r.Calls[k] = max(r.Calls[k], v)
	}
}

// Bad tells whether anything but a clean end was found.
func (r Report) Bad() bool { return r.Leaks+r.Duplicates+r.Stuck+r.LostRecords > 0 }

type options struct {
	root, only     string
	every          int
	shard, shards  int
	keep, twoSweep bool
	real           bool
	each           int    // points of each scenario; 0 = every says
	with           string // a report that this one is added to
}

func main() {
	var o options
	out := flag.String("out", "build/crash.json", "the report")
	flag.StringVar(&o.root, "root", ".", "the checkout, with bin/")
	flag.StringVar(&o.only, "scenario", "", "bake, deploy, teardown or test alone")
	flag.IntVar(&o.every, "every", 1, "only every Nth point")
	flag.IntVar(&o.shards, "parallel", 2, "how many worlds at a time")
	flag.IntVar(&o.shard, "shard", -1, "be one of them")
	flag.BoolVar(&o.keep, "keep", false, "keep the folders, with the logs")
	flag.BoolVar(&o.real, "real", false, "real instances, one world")
	flag.IntVar(&o.each, "each", 0, "so many points of each scenario, evenly; with -real 3")
	flag.StringVar(&o.with, "with", "", "a former report to add the figures to")
	flag.BoolVar(&o.twoSweep, "sweep", true, "sweep twice at the end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.real && o.each == 0 {
		o.each = 3
	}
	if o.real {
		o.shards, patience, pause = 1, 4*time.Minute, 50*time.Millisecond
	}
	var r Report
	var err error
	if o.shard >= 0 {
		r, err = work(ctx, o, os.Stderr)
	} else {
		r, err = spread(ctx, o)
	}
	if o.with != "" {
		var former Report
		raw, e := os.ReadFile(o.with)
		err = errors.Join(err, e, json.Unmarshal(raw, &former))
		r.add(former)
		r.Seconds += former.Seconds
	}
	if raw, e := json.MarshalIndent(r, "", "  "); e == nil && (r.Points > 0 || o.shard >= 0) {
		e = errors.Join(os.MkdirAll(filepath.Dir(*out), 0o755), os.WriteFile(*out, append(raw, '\n'), 0o644))
		err = errors.Join(err, e)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		os.Exit(1)
	}
	if o.shard >= 0 {
		return
	}
	fmt.Printf("%d points (%d on real instances) in %.0f s: %d leaks, %d duplicates, %d stuck, %d lost records; %d ended with a clean failure, %d things went by the sweep, %d points were not reached\n",
		r.Points, r.Real, r.Seconds, r.Leaks, r.Duplicates, r.Stuck, r.LostRecords, r.Undone, r.Swept, r.Missed)
	for _, f := range r.Findings {
		fmt.Println(" ", f)
	}
	if r.Bad() {
		os.Exit(1)
	}
}

// spread runs the shards, processes of their own: each has its own region, and
// the SDK takes that from the environment.
func spread(ctx context.Context, o options) (Report, error) {
	start := time.Now()
	self, err := os.Executable()
	if err != nil {
		return Report{}, err
	}
	dir, err := os.MkdirTemp("", "dayfly-crash-")
	if err != nil {
		return Report{}, err
	}
	defer os.RemoveAll(dir)
	var wg sync.WaitGroup
	errs := make([]error, o.shards)
	for i := range o.shards {
		wg.Go(func() {
			args := []string{"-shard", fmt.Sprint(i), "-parallel", fmt.Sprint(o.shards), "-every", fmt.Sprint(o.every), "-root", o.root, "-scenario", o.only,
				fmt.Sprintf("-real=%t", o.real), "-each", fmt.Sprint(o.each), fmt.Sprintf("-keep=%t", o.keep), fmt.Sprintf("-sweep=%t", o.twoSweep), "-out", filepath.Join(dir, fmt.Sprint(i))}
			cmd := exec.CommandContext(ctx, self, args...)
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
			cmd.WaitDelay = 10 * time.Second
			cmd.Stderr = os.Stderr
			errs[i] = cmd.Run()
		})
	}
	wg.Wait()
	var all Report
	for i := range o.shards {
		raw, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(i)))
		var one Report
		if err == nil {
			err = json.Unmarshal(raw, &one)
		}
		errs[i] = errors.Join(errs[i], err)
		all.add(one)
	}
	all.Seconds = time.Since(start).Seconds()
	return all, errors.Join(errs...)
}

// work goes through the points of a shard.
func work(ctx context.Context, o options, log io.Writer) (r Report, err error) {
	dir, err := os.MkdirTemp("", "dayfly-crash-")
	if err != nil {
		return r, err
	}
	defer func() {
		if o.keep {
			fmt.Fprintln(log, "kept:", dir)
		} else {
			os.RemoveAll(dir)
		}
	}()
	w, err := open(ctx, o.root, dir, o.real)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	r.Calls = map[string]int{}
	// The image that deploys and runs need is made once.
	files, err := w.send(ctx, false)
	if err != nil {
		return r, err
	}
	var b struct{ Name string }
	if err := w.api.Post(ctx, "/v1/bakes", nil, map[string]string{"files": files}, &b); err != nil {
		return r, err
	}
	if out, err := w.baked(ctx, b.Name); err != nil || out.undone != "" {
		return r, fmt.Errorf("the first bake: %w %s", err, out.undone)
	}
	n := 0
	for _, s := range scenarios {
		if o.only != "" && o.only != s.name || o.real && o.only == "" && !s.real {
			continue
		}
		// Twice: the first one makes what stays, such as the bucket's objects.
		var calls []string
		whole := 2
		if o.real {
			whole = 1
		}
		for range whole {
			start := time.Now()
			if out, err := s.run(ctx, w, func() { w.proxy.arm(0, "", nil) }); err != nil || out.undone != "" {
				return r, fmt.Errorf("%s without any crash: %w %s", s.name, err, out.undone)
			}
			calls, _ = w.proxy.disarm()
			fmt.Fprintf(log, "%-8s %3d calls that change something, %.1f s without a crash\n", s.name, len(calls), time.Since(start).Seconds())
		}
		r.Calls[s.name] = len(calls)
		time.Sleep(300 * time.Millisecond)
		base, err := w.inventory(ctx)
		if err != nil {
			return r, err
		}
		w.proxy.repeated()
		for k := range calls {
			for _, at := range []side{before, after} {
				n++
				if o.each == 0 && (n%o.shards != o.shard || n/o.shards%o.every != 0) || o.each > 0 && !chosen(k+1, len(calls), at, o.each) {
					continue
				}
				if ctx.Err() != nil {
					return r, ctx.Err()
				}
				w.point(ctx, s, k+1, at, len(calls), base, &r, log)
			}
		}
	}
	if o.twoSweep {
		err = w.sweeps(ctx, &r, log)
	}
	return r, err
}

// chosen takes so many of a scenario's points, evenly, one side after the other.
func chosen(k, of int, at side, each int) bool {
	n := min(each, of)
	for i := range n {
		side := before
		if i%2 == 0 {
			side = after
		}
		if k == (2*i+1)*of/(2*n)+1 && at == side {
			return true
		}
	}
	return false
}

// point is one death.
func (w *world) point(ctx context.Context, s scenario, k int, at side, of int, base []string, r *Report, log io.Writer) {
	start := time.Now()
	found := func(n *int, what string, args ...any) {
		*n++
		line := fmt.Sprintf("%s, %s call %d: ", s.name, at, k) + fmt.Sprintf(what, args...)
		r.Findings = append(r.Findings, line)
		fmt.Fprintln(log, "  FOUND", line)
	}
	out, err := s.run(ctx, w, func() { w.proxy.arm(k, at, w.kill) })
	_, hit := w.proxy.disarm()
	if ctx.Err() != nil {
		return
	}
	r.Points++
	if w.real {
		r.Real++
	}
	if hit == "" {
		r.Missed++
	}
	if err != nil {
		found(&r.Stuck, "%s: stuck: %v", hit, err)
	}
	if out.undone != "" {
		found(&r.Undone, "%s: it failed: %.300s", hit, out.undone)
	}
	for _, l := range out.lost {
		found(&r.LostRecords, "%s: lost: %s", hit, l)
	}
	if err == nil {
		left, err := w.left(ctx, base)
		if err != nil {
			found(&r.Leaks, "%s: what is left cannot be read: %v", hit, err)
		}
		for _, l := range left {
			found(&r.Swept, "%s: left for the sweep: %s", hit, l)
		}
	}
	twice, err := w.doubles(ctx)
	if err != nil {
		found(&r.Duplicates, "%s: what is there cannot be read: %v", hit, err)
	}
	for _, d := range twice {
		found(&r.Duplicates, "%s: twice: %s", hit, d)
	}
	fmt.Fprintf(log, "%-8s %3d/%d %-6s %-28s %.1f s\n", s.name, k, of, at, hit, time.Since(start).Seconds())
}

// sweeps sweeps twice; what is left then is a leak.
func (w *world) sweeps(ctx context.Context, r *Report, log io.Writer) error {
	for i := range 2 {
		if err := w.revive(ctx); err != nil {
			return err
		}
		rep, err := w.sweep(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(log, "sweep: %d things, %d orphans\n", rep.Seen, len(rep.Orphans))
		if len(rep.Orphans) == 0 {
			break
		}
		if i == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(61 * time.Second):
			}
		}
	}
	now, err := w.inventory(ctx)
	if err != nil {
		return err
	}
	// One image stays, that of the deploys.
	for _, l := range now {
		if l != "0 instances, 0 networks, 0 stacks, 0 groups" && !strings.HasPrefix(l, "image ") && !strings.HasPrefix(l, "snapshot ") {
			r.Leaks++
			r.Findings = append(r.Findings, "left after two sweeps: "+l)
		}
	}
	return nil
}
