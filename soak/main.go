// Command soak lives through what production lives through, in minutes instead
// of months: an environment that survives a lost zone, under a constant load,
// goes through rollouts of images, deploys of releases, kills of instances, of
// the server and of the region's daemon, lost zones, a box that is down, and
// what is bad and has to go back by itself. It drives the real binary as a
// person would, counts the requests that failed and why, and writes
// build/soak.json and build/soak.html.
package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// plan is how much of everything there is.
type plan struct {
	Instances int
	Rate      int
	Minutes   float64
	Seed      uint64
	Dir       string // for the report

	Images, Releases, Rolling, Recreate int
	Kills, Zones, Servers, Regions      int
	BoxDown                             time.Duration
	BadReleases, BadImages              int
	Launches                            int // at least so many in all
}

// long is the plan that the numbers below are of.
const long = 30.0

// planned scales the long form's counts by the minutes; what is rare is done
// once at least, and bakes only where there is time for them.
func planned(minutes float64) plan {
	n := func(of, least int) int { return max(least, int(math.Round(float64(of)*minutes/long))) }
	slow := 1
	if minutes < 5 {
		slow = 0
	}
	return plan{
		Minutes: minutes,
		Images:  n(3, slow), Releases: n(3, 1), Rolling: 1, Recreate: slow,
		Kills: n(200, 5), Zones: n(3, 1), Servers: n(20, 1), Regions: n(5, 1),
		BoxDown:     time.Duration(float64(10*time.Minute) * minutes / long),
		BadReleases: 1, BadImages: slow,
	}
}

func number(name string, def, low, high float64) (float64, error) {
	s := os.Getenv(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%s must be a number from %g to %g, not %q", name, low, high, s)
	}
	return n, nil
}

func settings() (p plan, err error) {
	minutes, err := number("SOAK_MINUTES", long, 1, 24*60)
	if err != nil {
		return p, err
	}
	p = planned(minutes)
	instances, err := number("SOAK_INSTANCES", 45, 3, 500)
	if err != nil {
		return p, err
	}
	rate, err := number("SOAK_RATE", 100, 1, 10000)
	if err != nil {
		return p, err
	}
	seed, err := number("SOAK_SEED", 1, 0, 1<<52)
	if err != nil {
		return p, err
	}
	launches, err := number("SOAK_LAUNCHES", 0, 0, 1e6)
	if err != nil {
		return p, err
	}
	p.Launches = int(launches)
	p.Instances, p.Rate, p.Seed, p.Dir = int(instances), int(rate), uint64(seed), "build"
	return p, err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "\nsoak: FAILED:", err)
		os.Exit(1)
	}
	fmt.Println("\nsoak: no planned change failed a request, and the floor held")
}

func run(ctx context.Context) error {
	p, err := settings()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("the instances need namespaces, mounts and packet filters: run this as root")
	}
	root, err := filepath.Abs(".")
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, "bin/dayfly")); err != nil {
		return errors.New("bin/dayfly is not there: make build")
	}
	if err := os.MkdirAll(p.Dir, 0o755); err != nil {
		return err
	}
	w, err := open(ctx, root, p)
	if err == nil {
		err = w.scenario(ctx)
	}
	if w != nil {
		r := w.judge()
		if e := r.write(p.Dir); err == nil {
			err = e
		}
		fmt.Print(r.text())
		if err == nil {
			err = r.verdict()
		}
		if e := w.close(); err == nil {
			err = e
		}
	}
	return err
}
