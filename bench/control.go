package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// controlGroup is the control plane by itself; bench/figures says what each row
// measures. It runs as a test, since the PostgreSQL that it starts is the
// tests'. No row has a peer.
func controlGroup() group {
	return group{
		runs: 1, run: measureControl,
		rows: []row{
			{"reconcile-20k-cpu", "20,000 records at rest, each looked at every 10 s: share of one core"},
			{"reconcile-20k-rss", "and the memory of that process"},
			{"event-latency-sqlite", "from a write until its loop is called"},
			{"event-latency-postgres", "the same from one server to another"},
			{"restart", "a killed server with SQLite works again"},
			{"takeover", "a dead server's work is another's"},
			{"promote-20x45", "from a promotion to all of 20 environments of 45, to the least that 2 launches a second and a boot of a minute allow"},
			{"promote-20x45-all", "the same without --image-budget"},
			{"suite-overhead", "the server's work for one suite more beside 48, to that beside 8 (the larger of cloud calls and processor time)"},
			{"suite-overhead-calls", "calls of the cloud for one suite of 2 instances, beside 48"},
			{"suite-overhead-cpu", "processor time of the server for it, with the cloud in memory"},
		},
	}
}

// controlLimits are what the rows should not be over.
var controlLimits = map[string]float64{"reconcile-20k-cpu": 5, "reconcile-20k-rss": 200, "event-latency-sqlite": 50, "event-latency-postgres": 50, "restart": 2, "takeover": 15, "suite-overhead": 1.5, "promote-20x45": 1.1}

// controlTests are the tests that measure rows.
var controlTests = map[string]string{
	"reconcile-20k-cpu": "TestFiguresAtRest", "reconcile-20k-rss": "TestFiguresAtRest", "event-latency-sqlite": "TestFiguresEvent", "event-latency-postgres": "TestFiguresEvent",
	"restart": "TestFiguresServers", "takeover": "TestFiguresServers",
	"promote-20x45": "TestPromotion", "promote-20x45-all": "TestPromotion",
	"suite-overhead": "TestSuiteOverhead", "suite-overhead-calls": "TestSuiteOverhead", "suite-overhead-cpu": "TestSuiteOverhead",
}

func measureControl(ctx context.Context, s *session, want func(string) bool) ([]result, error) {
	got, units := map[string][]float64{}, map[string]string{}
	var tests []string
	for _, r := range controlGroup().rows {
		if want(r.name) {
			tests = append(tests, controlTests[r.name])
		}
	}
	for k := range s.runs {
		s.say("run %d of %d", k+1, s.runs)
		c := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-run", "^("+strings.Join(tests, "|")+")$", "./bench/figures", "./internal/control")
		c.Env = append(os.Environ(), "DAYFLY_FIGURES=1")
		out, err := c.CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("bench/figures: %w\n%s", err, out)
		}
		for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
			f := strings.Fields(lines.Text())
			if len(f) != 4 || f[0] != "figure" || !want(f[1]) {
				continue
			}
			v, err := strconv.ParseFloat(f[3], 64)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", lines.Text(), err)
			}
			got[f[1]], units[f[1]] = append(got[f[1]], v), f[2]
			s.say("  %-22s %.4g %s", f[1], v, f[2])
		}
	}
	var rs []result
	var errs []error
	for _, r := range controlGroup().rows {
		switch {
		case !want(r.name):
		case len(got[r.name]) == 0:
			errs = append(errs, fmt.Errorf("%s was not measured: is PostgreSQL there? scripts/deps.sh test", r.name))
		default:
			rs = append(rs, compare(r.name, units[r.name], got[r.name], "", nil).atMost(controlLimits[r.name]))
		}
	}
	return rs, errors.Join(errs...)
}
