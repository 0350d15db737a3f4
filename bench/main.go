// Command bench measures Dayfly beside its peers, in turns on the same machine
// in the same minutes, and writes build/bench.json beside a table. A group of
// rows is a file of its own; the peers are Debian's docker and packer, and
// bareclone. It drives the real binary as a person would, and must not know
// how Dayfly does what it is measured at, but for where the region keeps the
// layers that the peers have to be given.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// home keeps images and base images between runs: without them every run
	// would begin with minutes of baking.
	home   = "/var/lib/dayfly-bench"
	output = "build/bench.json"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	gs := groups()
	if len(os.Args) > 1 {
		fmt.Fprintln(os.Stderr, usage(gs))
		os.Exit(2)
	}
	want, err := choose(gs, os.Getenv("ROWS"))
	runs := 0
	if s := os.Getenv("RUNS"); err == nil && s != "" {
		if runs, err = strconv.Atoi(s); err != nil || runs < 1 || runs > 100 {
			err = fmt.Errorf("RUNS must be a number from 1 to 100, not %q", s)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if err := all(ctx, gs, want, runs); err != nil {
		fmt.Fprintln(os.Stderr, "\nbench: FAILED:", err)
		if ctx.Err() != nil {
			os.Exit(130)
		}
		os.Exit(1)
	}
}

func usage(gs []group) string {
	var b strings.Builder
	b.WriteString("make bench [ROWS=ROW,ROW] [RUNS=N]\n\nIt writes " + output + ". The rows:\n")
	for _, g := range gs {
		for _, r := range g.rows {
			fmt.Fprintf(&b, "  %-20s %s\n", r.name, r.about)
		}
	}
	return b.String()
}

// all measures, group by group, and writes what there is also when a group
// fails: the others' rows are true.
func all(ctx context.Context, gs []group, want func(string) bool, runs int) error {
	began := time.Now()
	s, err := newSession(ctx)
	if err != nil {
		return err
	}
	var fresh []result
	var errs []error
	for _, g := range gs {
		if !g.wanted(want) || ctx.Err() != nil {
			continue
		}
		s.runs = g.runs
		if runs > 0 {
			s.runs = runs
		}
		rs, err := s.measure(ctx, g, want)
		fresh = append(fresh, rs...)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", g.rows[0].name, err))
		}
	}
	s.say("ending what was started")
	errs = append(errs, s.close())
	if ctx.Err() != nil {
		errs = []error{errors.New("interrupted"), errors.Join(errs...)}
	}
	old, err := readResults(output)
	errs = append(errs, err)
	if len(fresh) > 0 {
		errs = append(errs, writeResults(output, merge(old, fresh, names(gs))))
		fmt.Println()
		table(os.Stdout, fresh)
		fmt.Printf("\n%d rows in %s; %s has them beside those of earlier runs\n", len(fresh), time.Since(began).Round(time.Second), output)
	}
	return errors.Join(errs...)
}

// measure runs one group, in the world if it needs one.
func (s *session) measure(ctx context.Context, g group, want func(string) bool) ([]result, error) {
	if g.world && s.world == nil {
		w, err := newWorld(ctx, s)
		if err != nil {
			return nil, err
		}
		s.world = w
	}
	return g.run(ctx, s, want)
}
