package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// estateGroup is many environments side by side on this machine: the suites of
// one run, all up at the same time because a person decides each.
func estateGroup() group {
	return group{
		runs: 1, world: true, run: measureEstate,
		rows: []row{
			{"estate-24x45", "a run of 24 suites x 45 instances: from the command until all 1,080 are in service; against 24 times one such suite (ESTATE=4 for fewer suites)"},
			{"estate-memory", "the most memory of this machine that was in use meanwhile, beyond what was before"},
			{"estate-gone", "from the last suite's result until nothing of the run is left"},
		},
	}
}

// estateSuites is how many, unless ESTATE says otherwise.
func estateSuites() (int, error) {
	text := os.Getenv("ESTATE")
	if text == "" {
		return 24, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 48 {
		return 0, fmt.Errorf("ESTATE must be a number from 1 to 48, not %q", text)
	}
	return n, nil
}

func measureEstate(ctx context.Context, s *session, want func(string) bool) ([]result, error) {
	suites, err := estateSuites()
	if err != nil {
		return nil, err
	}
	w := s.world
	var single, all, memory, gone []float64
	for k := range s.runs {
		s.say("run %d of %d", k+1, s.runs)
		one, err := w.estate(ctx, fmt.Sprintf("one-%d", k), 1)
		if err != nil {
			return nil, fmt.Errorf("one suite: %w", err)
		}
		many, err := w.estate(ctx, fmt.Sprintf("many-%d", k), suites)
		if err != nil {
			return nil, fmt.Errorf("%d suites: %w", suites, err)
		}
		single, all = append(single, one.up.Seconds()*float64(suites)), append(all, many.up.Seconds())
		memory, gone = append(memory, float64(many.memory)/(1<<30)), append(gone, many.gone.Seconds())
	}
	// A row is what its name says, or it is another one.
	name := func(row string) string {
		if suites == 24 {
			return row
		}
		return strings.Replace(strings.TrimSuffix(row, "-24x45"), "estate", fmt.Sprintf("estate-%dx%d", suites, instances), 1)
	}
	var out []result
	if want("estate-24x45") {
		r := compare(name("estate-24x45"), "s", all, fmt.Sprintf("%d x one", suites), single).atLeast(1)
		out = append(out, r)
	}
	if want("estate-memory") {
		out = append(out, compare(name("estate-memory"), "GiB", memory, "", nil).atMost(20))
	}
	if want("estate-gone") {
		out = append(out, compare(name("estate-gone"), "s", gone, "", nil).atMost(60))
	}
	return out, nil
}

type estate struct {
	up     time.Duration
	gone   time.Duration
	memory int64 // bytes
}

// estateRun is what is read of a run.
type estateRun struct {
	Name, Phase, Error string
	Suites             []struct{ Name, Phase, Error, Waits, Environment string }
	Clean              *struct{ Left int }
}

// estate starts a run of manual suites, waits until all of their instances are
// in service, passes them, and waits until nothing is left.
func (w *world) estate(ctx context.Context, name string, suites int) (e estate, err error) {
	dir := filepath.Join(w.s.dir, "estate-"+name)
	if err := w.blueprint(ctx, dir, func(text string) string {
		at := strings.Index(text, "pipeline:")
		if at < 0 {
			return text
		}
		var b strings.Builder
		b.WriteString(text[:at] + "pipeline:\n  - stage: all\n    suites:\n")
		for i := range suites {
			fmt.Fprintf(&b, "      - { name: s%02d, manual: look, size: %d, lease: 1h }\n", i+1, instances)
		}
		return b.String()
	}); err != nil {
		return e, err
	}
	before, err := memoryUsed()
	if err != nil {
		return e, err
	}
	watch, stop := context.WithCancel(ctx)
	peak := make(chan int64)
	go func() {
		most := before
		for watch.Err() == nil {
			if m, err := memoryUsed(); err == nil {
				most = max(most, m)
			}
			_ = sleep(watch, 200*time.Millisecond)
		}
		peak <- most - before
	}()
	defer func() {
		stop()
		e.memory = <-peak
	}()
	began := time.Now()
	var r estateRun
	if err := w.cli(ctx, &r, "run", "start", dir, "--detach"); err != nil {
		return e, err
	}
	over := false
	defer func() {
		if !over { // whatever happened, it is not left to whoever comes next
			_ = w.cli(context.WithoutCancel(ctx), nil, "run", "cancel", r.Name)
		}
	}()
	look := func() error {
		r = estateRun{Name: r.Name}
		return w.cli(ctx, &r, "run", "show", r.Name)
	}
	said := time.Now()
	if err := until(ctx, 40*time.Minute, 100*time.Millisecond, func() error {
		if err := look(); err != nil {
			return err
		}
		up, why := 0, ""
		for _, s := range r.Suites {
			if s.Phase == "waiting" {
				up++
			}
			if s.Error != "" {
				return fatal{fmt.Errorf("the suite %s: %s", s.Name, s.Error)}
			}
			if s.Waits != "" && s.Phase != "waiting" {
				why = s.Name + ": " + s.Waits
			}
		}
		if time.Since(said) > 20*time.Second {
			said = time.Now()
			m, _ := memoryUsed()
			w.s.say("  %d of %d suites are up, %.1f GiB; %s", up, suites, float64(m-before)/(1<<30), why)
		}
		if r.Phase == "done" || r.Error != "" {
			return fatal{fmt.Errorf("the run ended: %s", r.Error)}
		}
		if up < suites {
			return fmt.Errorf("%d of %d suites are up; %s", up, suites, why)
		}
		return nil
	}); err != nil {
		return e, err
	}
	e.up = time.Since(began)
	// All of them at the same time, by the cloud's own word.
	running, err := w.running(ctx)
	if err != nil {
		return e, err
	}
	if running != suites*instances {
		return e, fmt.Errorf("%d instances run instead of %d", running, suites*instances)
	}
	w.s.say("  %-22s %.1f s", fmt.Sprintf("%d x %d in service", suites, instances), e.up.Seconds())
	for _, s := range r.Suites {
		if err := w.cli(ctx, nil, "run", "pass", r.Name, s.Name); err != nil {
			return e, err
		}
	}
	last := time.Now()
	if err := until(ctx, 10*time.Minute, 100*time.Millisecond, func() error {
		if err := look(); err != nil {
			return err
		}
		if r.Phase != "done" {
			return errors.New("the run is " + r.Phase)
		}
		return nil
	}); err != nil {
		return e, err
	}
	e.gone, over = time.Since(last), true
	w.s.say("  %-22s %.1f s", "everything gone", e.gone.Seconds())
	if r.Clean == nil || r.Clean.Left != 0 {
		return e, errors.New("something of the run is left: dayfly run show " + r.Name)
	}
	if running, err = w.running(ctx); err == nil && running != 0 {
		err = fmt.Errorf("%d instances still run", running)
	}
	return e, err
}

// running counts the instances of the region.
func (w *world) running(ctx context.Context) (int, error) {
	is, err := w.cloud.Instances(ctx, map[string]string{"instance-state-name": "pending,running"})
	return len(is), err
}

// memoryUsed is what this machine could not give to somebody else.
func memoryUsed() (int64, error) {
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	kib := map[string]int64{}
	for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) >= 2 {
			kib[strings.TrimSuffix(f[0], ":")], _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	if kib["MemTotal"] == 0 || kib["MemAvailable"] == 0 {
		return 0, errors.New("/proc/meminfo has no MemTotal or MemAvailable")
	}
	return (kib["MemTotal"] - kib["MemAvailable"]) << 10, nil
}
