// Command demo runs Dayfly's main job with real parts on one machine and proves
// each step: base images, a Puppet server, a bake against it, an environment of 45 instances
// that pull a release from a box, test suites side by side, a second release,
// and the end of it all. It drives the real binary as a person would.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// home is what the demo keeps between two runs: images are its cache.
const home = "/var/lib/dayfly-demo"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := &demo{dayfly: "bin/dayfly", began: time.Now()}
	err := d.setup()
	if err == nil {
		err = d.run(ctx)
		if e := d.cleanup(); err == nil {
			err = e
		}
		d.report()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo: FAILED:", err)
		os.Exit(1)
	}
	fmt.Println("\ndemo: every step held")
}

type demo struct {
	dayfly    string
	instances int
	suites    int
	code      bool   // Puppet without a server
	address   string // of the box
	puppet    string // address of the Puppet server
	dir       string // of this run: blueprint, box, results
	began     time.Time
	env       []string
	netns     string
	box       *exec.Cmd
	up        bool // region or server may run

	result result
}

type result struct {
	Launched   int           `json:"instances_launched"`
	Failed     int           `json:"instances_failed"`
	Served     int           `json:"served"`
	Suites     []suiteResult `json:"suites"`
	Phases     []phase       `json:"phases"`
	Cached     bool          `json:"cached"`
	LeftBehind []string      `json:"left_behind"`
}

type suiteResult struct {
	Name    string  `json:"name"`
	Passed  int     `json:"passed"`
	Failed  int     `json:"failed"`
	Seconds float64 `json:"seconds"`
}

type phase struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

func number(name string, def, low, high int) (int, error) {
	s := os.Getenv(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%s must be a number from %d to %d, not %q", name, low, high, s)
	}
	return n, nil
}

// setup says what is missing before anything is begun.
func (d *demo) setup() (err error) {
	if d.instances, err = number("DEMO_INSTANCES", 45, 1, 500); err != nil {
		return err
	}
	if d.suites, err = number("DEMO_SUITES", 6, 1, 6); err != nil {
		return err
	}
	switch s := os.Getenv("DEMO_PUPPET"); s {
	case "code":
		d.code = true
	case "", "server":
	default:
		return fmt.Errorf("DEMO_PUPPET must be server, a Puppet server that runs as an instance, or code, Puppet without a server, not %q", s)
	}
	if os.Geteuid() != 0 {
		return errors.New("the instances need namespaces, mounts and packet filters: run this as root")
	}
	// Two generations at once for a moment, and the suites' instances.
	need := 512 + (2*d.instances+3*d.suites)*24
	if !d.code {
		need += 1024
	}
	if have := memory(); have < need {
		return fmt.Errorf("%d instances and %d suites need about %d MiB of memory, and %d MiB are free; make it smaller with DEMO_INSTANCES=%d", d.instances, d.suites, need, have, max(1, d.instances*have/need/2))
	}
	d.result.LeftBehind, d.result.Suites = []string{}, []suiteResult{}
	if d.dir, err = filepath.Abs("build/demo"); err != nil {
		return err
	}
	if err := os.RemoveAll(d.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(d.dir, "box/shop"), 0o755); err != nil {
		return err
	}
	d.env = append(os.Environ(), "DAYFLY_STATE="+home+"/server", "DAYFLY_REGION_DIR="+home+"/region")
	return nil
}

// memory is what programs can have, in MiB.
func memory() int {
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		var kib int
		if _, err := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); err == nil {
			return kib >> 10
		}
	}
	return 0
}

func (d *demo) phase(name string, f func() error) error {
	fmt.Printf("\n== %s\n", name)
	began := time.Now()
	err := f()
	d.result.Phases = append(d.result.Phases, phase{name, seconds(time.Since(began))})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func seconds(t time.Duration) float64 { return float64(t.Milliseconds()) / 1000 }

// cli runs dayfly, shows what it says, and reads its JSON answer into v.
func (d *demo) cli(ctx context.Context, v any, args ...string) error {
	fmt.Println("$ dayfly", strings.Join(args, " "))
	if v != nil {
		args = append([]string{"--output", "json"}, args...)
	}
	cmd := exec.CommandContext(ctx, d.dayfly, args...)
	cmd.Env, cmd.Stderr = d.env, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 2 * time.Minute // it cleans up
	var out strings.Builder
	cmd.Stdout = &out
	if v == nil {
		cmd.Stdout = os.Stdout
	}
	err := cmd.Run()
	if v != nil && out.Len() > 0 {
		if e := json.Unmarshal([]byte(out.String()), v); e != nil && err == nil {
			err = fmt.Errorf("dayfly's answer cannot be read: %w", e)
		}
	}
	if err != nil {
		return fmt.Errorf("dayfly %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// report prints the table and writes build/demo.json.
func (d *demo) report() {
	r := d.result
	fmt.Printf("\n%-34s %9s\n", "phase", "seconds")
	for _, p := range r.Phases {
		fmt.Printf("%-34s %9.1f\n", p.Name, p.Seconds)
	}
	fmt.Printf("%-34s %9.1f\n\n", "all", time.Since(d.began).Seconds())
	for _, s := range r.Suites {
		fmt.Printf("suite %-28s %3d passed %3d failed %7.1fs\n", s.Name, s.Passed, s.Failed, s.Seconds)
	}
	rate := 0.0
	if r.Launched > 0 {
		rate = 100 * float64(r.Failed) / float64(r.Launched)
	}
	fmt.Printf("\ninstances launched %d, failed %d (%.3f %%), answered %d, image from the cache: %v, left behind: %d\n", r.Launched, r.Failed, rate, r.Served, r.Cached, len(r.LeftBehind))
	raw, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.WriteFile("build/demo.json", append(raw, '\n'), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: build/demo.json:", err)
	}
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(p string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if rel == "app" { // the application's source is not part of the blueprint
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		in, err := os.Open(p)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(filepath.Join(to, rel), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, st.Mode().Perm())
		if err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			out.Close()
			return err
		}
		return out.Close()
	})
}
