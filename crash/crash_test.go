package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// Every fifteenth point; make crash takes them all.
func TestEveryFifteenthPoint(t *testing.T) {
	if testing.Short() {
		t.Skip("takes most of a minute")
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "bin/dayfly")); err != nil {
		t.Fatal("bin/dayfly is not there: make build")
	}
	dir := t.TempDir()
	bin, report := filepath.Join(dir, "crash"), filepath.Join(dir, "crash.json")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command(bin, "-root", root, "-every", "15", "-out", report).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	raw, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var r Report
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	if r.Points < 8 || r.Missed > 2 || r.Bad() {
		t.Errorf("%s\n%s", raw, out)
	}
}

// The proxy forwards what it does not kill at, and nothing of what it kills
// before.
func TestProxyKillsOnTheRightSide(t *testing.T) {
	var heard, killed atomic.Int32 // by the servers' own goroutines
	region := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { heard.Add(1) }))
	defer region.Close()
	p, err := newProxy(strings.TrimPrefix(region.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.listen.Close()
	call := func(action string) error {
		res, err := http.PostForm("http://"+p.listen.Addr().String()+"/", url.Values{"Action": {action}})
		if err == nil {
			res.Body.Close()
		}
		return err
	}
	for _, c := range []struct {
		at    side
		heard int32
	}{{before, 2}, {after, 3}} {
		heard.Store(0)
		killed.Store(0)
		p.arm(2, c.at, func() { killed.Add(1) })
		if call("CreateVpc") != nil || call("DescribeVpcs") != nil || killed.Load() != 0 {
			t.Errorf("%s: killed too soon", c.at)
		}
		if call("DeleteVpc") == nil || killed.Load() != 1 {
			t.Errorf("%s: killed %d times", c.at, killed.Load())
		}
		calls, hit := p.disarm()
		if heard.Load() != c.heard || hit != "DeleteVpc" || len(calls) != 2 {
			t.Errorf("%s: heard %d, died at %q of %v", c.at, heard.Load(), hit, calls)
		}
	}
}

// Points are taken from all over a scenario, on both sides of calls.
func TestChosen(t *testing.T) {
	for _, c := range []struct{ of, each, want int }{{20, 3, 3}, {100, 3, 3}, {3, 3, 3}, {2, 3, 2}, {1, 3, 1}, {12, 1, 1}} {
		n := map[side]int{}
		for k := 1; k <= c.of; k++ {
			for _, at := range []side{before, after} {
				if chosen(k, c.of, at, c.each) {
					n[at]++
				}
			}
		}
		if n[before]+n[after] != c.want || c.want > 1 && n[before]*n[after] == 0 {
			t.Errorf("%d of %d: %v", c.each, c.of, n)
		}
	}
}
