package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		before := slices.Clone(c.in)
		if got := median(c.in); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.in, got, c.want)
		}
		if !slices.Equal(before, c.in) {
			t.Errorf("median changed its input to %v", c.in)
		}
	}
}

func TestRatioIsMoreWhenWeAreBetter(t *testing.T) {
	for _, c := range []struct {
		unit       string
		ours, peer float64
		want       float64
	}{
		{"s", 2, 10, 5}, {"ms", 10, 5, 0.5}, {"MiB", 4, 8, 2},
		{"changes/s", 100, 50, 2}, {"s", 0, 5, 0},
	} {
		r := compare("row", c.unit, []float64{c.ours}, "peer", []float64{c.peer})
		if r.Ratio != c.want || r.Peer != c.peer || r.PeerName != "peer" {
			t.Errorf("%g %s against %g: %+v, want the ratio %g", c.ours, c.unit, c.peer, r, c.want)
		}
	}
	r := compare("row", "s", []float64{1}, "", nil)
	if r.Ratio != 0 || r.Peer != 0 || r.PeerName != "" {
		t.Errorf("a row without a peer: %+v", r)
	}
}

func TestTargets(t *testing.T) {
	good := compare("a", "s", []float64{1}, "p", []float64{5})
	if !good.atLeast(5).met || good.atLeast(5.1).met {
		t.Error("a ratio of 5 reaches 5 and not 5.1")
	}
	if !good.atMost(1).met || good.atMost(0.9).met {
		t.Error("1 s is at most 1 and not at most 0.9")
	}
}

func TestTableSaysWhatMissedItsTarget(t *testing.T) {
	var b strings.Builder
	table(&b, []result{
		compare("launch-45", "s", []float64{4, 6, 5}, "docker", []float64{20}).atLeast(5),
		compare("agent-memory", "MiB", []float64{6}, "", nil).atMost(8),
	})
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines:\n%s", len(lines), b.String())
	}
	for line, words := range map[int][]string{
		1: {"launch-45", "5 (4-6)", "20", "docker", "4.00", "ratio ≥5", "MISSED"},
		2: {"agent-memory", "6", "-", "MiB", "≤8 MiB"},
	} {
		for _, w := range words {
			if !strings.Contains(lines[line], w) {
				t.Errorf("line %d has no %q: %s", line, w, lines[line])
			}
		}
	}
	if strings.Contains(lines[2], "MISSED") {
		t.Errorf("a target that was met is reported as missed: %s", lines[2])
	}
}

func TestResultsAreMergedByName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "build", "bench.json")
	order := []string{"launch-45", "teardown-45", "bake-unchanged"}
	old := []result{
		compare("bake-unchanged", "ms", []float64{9}, "", nil),
		compare("launch-45", "s", []float64{9}, "docker", []float64{9}),
		compare("launch-45", "s", []float64{9}, "bare-clone", []float64{9}),
	}
	if err := writeResults(file, old); err != nil {
		t.Fatal(err)
	}
	read, err := readResults(file)
	if err != nil {
		t.Fatal(err)
	}
	fresh := []result{compare("teardown-45", "s", []float64{1}, "", nil), compare("launch-45", "s", []float64{2}, "docker", []float64{8})}
	if err := writeResults(file, merge(read, fresh, order)); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	want := []map[string]any{
		{"name": "launch-45", "ours": 2.0, "peer": 8.0, "peer_name": "docker", "ratio": 4.0, "unit": "s"},
		{"name": "teardown-45", "ours": 1.0, "peer": 0.0, "peer_name": "", "ratio": 0.0, "unit": "s"},
		{"name": "bake-unchanged", "ours": 9.0, "peer": 0.0, "peer_name": "", "ratio": 0.0, "unit": "ms"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if none, err := readResults(filepath.Join(t.TempDir(), "none.json")); err != nil || none != nil {
		t.Errorf("no file: %v, %v", none, err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readResults(file); err == nil {
		t.Error("a file that is not JSON was read")
	}
}

func TestChoose(t *testing.T) {
	gs := groups()
	all := names(gs)
	if len(all) != len(slices.Compact(slices.Sorted(slices.Values(all)))) {
		t.Fatalf("a name is used twice: %v", all)
	}
	for _, c := range []struct {
		rows string
		want []string
	}{
		{"", all}, {" , ", all}, {"launch-45", []string{"launch-45"}}, {"reconcile-20k event-latency", []string{"reconcile-20k-cpu", "reconcile-20k-rss", "event-latency-sqlite", "event-latency-postgres"}}, {"launch-45,bake-unchanged teardown-45", []string{"launch-45", "bake-unchanged", "teardown-45"}},
	} {
		want, err := choose(gs, c.rows)
		if err != nil {
			t.Errorf("%q: %v", c.rows, err)
			continue
		}
		for _, n := range all {
			if want(n) != slices.Contains(c.want, n) {
				t.Errorf("ROWS=%q: %s is chosen: %v", c.rows, n, want(n))
			}
		}
	}
	want, err := choose(gs, "bake-unchanged")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range gs {
		if got := g.wanted(want); got != (g.rows[0].name == "bake-unchanged") {
			t.Errorf("the group of %s is wanted: %v", g.rows[0].name, got)
		}
	}
	if _, err := choose(gs, "launch-45,lunch-45"); err == nil || !strings.Contains(err.Error(), "lunch-45") || !strings.Contains(err.Error(), "teardown-45") {
		t.Errorf("a row that there is not: %v", err)
	}
	for _, g := range gs {
		if g.run == nil || g.runs < 1 {
			t.Errorf("the group of %s cannot run", g.rows[0].name)
		}
		for _, r := range g.rows {
			if r.about == "" || strings.ContainsAny(r.name, ", ") {
				t.Errorf("row %+v", r)
			}
		}
	}
}

func TestNewLayers(t *testing.T) {
	base, a, b, c := layer{"sha256:base", 100}, layer{"sha256:a", 10}, layer{"sha256:b", 7}, layer{"sha256:c", 5}
	for name, l := range map[string]struct {
		before, after []layer
		bytes         int64
		bad           string
	}{
		"a layer on the base":         {[]layer{base, a}, []layer{base, b}, 7, ""},
		"only the top changed":        {[]layer{base, a, b}, []layer{base, a, c}, 5, ""},
		"two new ones":                {[]layer{base, a}, []layer{base, b, c}, 12, ""},
		"the base was copied":         {[]layer{base, a}, []layer{c, b}, 0, "not even the base"},
		"an old one above a new one":  {[]layer{base, a}, []layer{base, b, a}, 0, "above a new one"},
		"nothing was made":            {[]layer{base, a}, []layer{base, a}, 0, "no new layer"},
		"the same digest, other size": {[]layer{base, a}, []layer{{"sha256:base", 1}, b}, 0, "not even the base"},
	} {
		got, err := newLayers(l.before, l.after)
		if got != l.bytes || (err == nil) != (l.bad == "") || (err != nil && !strings.Contains(err.Error(), l.bad)) {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
}

func TestPrivateMemory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "smaps_rollup")
	text := "5590-7ffc ---p 00000000 00:00 0    [rollup]\nRss:    4000 kB\nPss:    3000 kB\nShared_Clean:   900 kB\nPrivate_Clean:      96 kB\nPrivate_Dirty:    1500 kB\nPrivate_Hugetlb:        0 kB\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := privateMemory(file)
	if err != nil || got != 1596 {
		t.Errorf("%d KiB, %v; want 1596", got, err)
	}
	if _, err := privateMemory("/proc/self/smaps_rollup"); err != nil {
		t.Error(err)
	}
}

func TestPeersRunWhatTheImageSays(t *testing.T) {
	top, base := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(base, "etc/dayfly"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, "etc/dayfly/handoff.json"), []byte(`{"run":"/usr/lib/dayfly/handoff/deploy","service":"/srv/shop/current/bin/shop","user":"shop"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	argv, err := peerRun([]string{top, base})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/bin/sh", "-c", "/usr/lib/dayfly/handoff/deploy && exec setpriv --reuid shop --regid shop --init-groups /bin/sh -c 'exec /srv/shop/current/bin/shop'"}
	if !slices.Equal(argv, want) {
		t.Errorf("%q", argv)
	}
	if _, err := peerRun([]string{top}); err == nil {
		t.Error("an image without a hand-off was taken")
	}
}
