package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// wrong is the suite that is made to fail.
const wrong = "discount"

type env struct {
	Address string `json:"address"`
	Serving int    `json:"serving"`
	Release string `json:"release"`
}

func (d *demo) run(ctx context.Context) error {
	shop := filepath.Join(d.dir, "shop")
	box := filepath.Join(d.dir, "box/shop")
	var ids [2]map[string]bool
	type step struct {
		name string
		f    func() error
	}
	steps := []step{
		{"region and server", func() error { return d.start(ctx) }},
		{"release 1.0.0 in the box", func() error { return d.release(ctx, "1.0.0", box) }},
		{"the box", func() error { return d.open(ctx) }},
	}
	if !d.code {
		steps = append(steps,
			step{"bake the Puppet server's image", func() error { return d.puppetImage(ctx) }},
			step{"start the Puppet server", func() error { return d.puppetServer(ctx) }})
	}
	for _, p := range append(steps, []step{
		{"the blueprint", func() error { return d.prepare(ctx, shop) }},
		{"bake the image", func() error { return d.bake(ctx, shop, false) }},
		{"bake it again", func() error { return d.bake(ctx, shop, true) }},
		{fmt.Sprintf("deploy %d instances", d.instances), func() error { return d.deploy(ctx, shop, 1) }},
		{"ask until all have answered", func() (err error) { ids[0], err = d.ask(ctx, "1.0.0", nil); return err }},
		{fmt.Sprintf("%d suites side by side", d.suites), func() error { return d.test(ctx, shop) }},
		{"release 1.1.0 in the box", func() error { return d.release(ctx, "1.1.0", box) }},
		{"deploy it", func() error { return d.deploy(ctx, shop, 2) }},
		{"ask the new ones", func() (err error) { ids[1], err = d.ask(ctx, "1.1.0", ids[0]); return err }},
		{"count", func() error { return d.count(ctx) }},
		{"terminate everything", func() error { return d.terminate(ctx) }},
	}...) {
		if err := ctx.Err(); err != nil {
			return errors.New("interrupted")
		}
		if err := d.phase(p.name, p.f); err != nil {
			return err
		}
	}
	d.result.Served = min(len(ids[0]), len(ids[1]))
	return nil
}

func (d *demo) start(ctx context.Context) error {
	// What an interrupted run left.
	if err := d.cli(ctx, nil, "server", "stop"); err != nil {
		return err
	}
	if err := d.cli(ctx, nil, "region", "stop", "--force"); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := l.Addr().String()
	l.Close()
	d.up = true
	if err := d.cli(ctx, nil, "region", "start", "--listen", address); err != nil {
		return err
	}
	var vars map[string]string
	if err := d.cli(ctx, &vars, "region", "env"); err != nil {
		return err
	}
	for k, v := range vars {
		d.env = append(d.env, k+"="+v)
	}
	if err := d.cli(ctx, nil, "server", "start"); err != nil {
		return err
	}
	return d.destroyAll(ctx)
}

// destroyAll ends what an interrupted run left in the records.
func (d *demo) destroyAll(ctx context.Context) error {
	var runs []struct{ Name, Phase string }
	if err := d.cli(ctx, &runs, "runs"); err != nil {
		return err
	}
	for _, r := range runs {
		if r.Phase != "done" {
			if err := d.cli(ctx, nil, "runs", "cancel", r.Name); err != nil {
				return err
			}
		}
	}
	var es []struct{ Name, Phase, Run string }
	if err := d.cli(ctx, &es, "env", "list"); err != nil {
		return err
	}
	for _, e := range es {
		if e.Phase != "gone" {
			if err := d.cli(ctx, nil, "env", "destroy", e.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *demo) release(ctx context.Context, version, box string) error {
	cmd := exec.CommandContext(ctx, "examples/shop/app/release.sh", version, box)
	cmd.Stderr = os.Stderr
	fmt.Println("$ examples/shop/app/release.sh", version, "BOX")
	return cmd.Run()
}

// open starts the on-premises box, a file server in a network namespace of its
// own outside every VPC.
func (d *demo) open(ctx context.Context) error {
	var host struct{ NetNS, Address string }
	if err := d.cli(ctx, &host, "region", "host", "add", "box"); err != nil {
		return err
	}
	d.netns, d.address = host.NetNS, "http://"+host.Address
	d.box = exec.Command("nsenter", "--net="+host.NetNS, d.dayfly, "box", "serve", filepath.Join(d.dir, "box"), "--address", host.Address+":80")
	d.box.Stderr = os.Stderr
	d.box.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to pass on
	if err := d.box.Start(); err != nil {
		return err
	}
	address := d.address + "/shop"
	if err := until(ctx, 5*time.Second, func() error { _, err := get(ctx, address+"/LATEST"); return err }); err != nil {
		return fmt.Errorf("the box does not answer at %s: %w", address, err)
	}
	return nil
}

// prepare copies the shop's blueprint, with the addresses of the box and of the
// Puppet server, and the size that is asked for.
func (d *demo) prepare(ctx context.Context, shop string) error {
	err := error(nil)
	if d.code {
		err = copyTree("examples/shop", shop)
	} else {
		err = d.sh(ctx, stage, "shop", d.address, d.puppet, shop)
	}
	if err != nil {
		return err
	}
	file := filepath.Join(shop, "dayfly.yaml")
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := strings.Replace(string(raw), "http://100.64.0.9", d.address, 1)
	text = strings.Replace(text, "dev: { size: 45,", fmt.Sprintf("dev: { size: %d,", d.instances), 1)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	return d.cli(ctx, nil, "check", shop)
}

func (d *demo) bake(ctx context.Context, shop string, again bool) error {
	var b struct {
		Cached bool
		Image  string
		AMI    string
		Checks []struct{ Name string }
		Steps  []struct {
			Step    string
			Seconds float64
		}
	}
	if err := d.cli(ctx, &b, "bake", shop); err != nil {
		return err
	}
	fmt.Printf("image %s (%s), %d checks passed, from the cache: %v\n", b.Image, b.AMI, len(b.Checks), b.Cached)
	switch {
	case again && !b.Cached:
		return errors.New("unchanged inputs were baked again")
	case !again:
		d.result.Cached = b.Cached
		if !b.Cached {
			d.result.Launched += 2 // the builder and the instance that the checks ran on
			for _, s := range b.Steps {
				fmt.Printf("  %-10s %6.1fs\n", s.Step, s.Seconds)
			}
		}
	}
	return nil
}

func (d *demo) deploy(ctx context.Context, shop string, generation int) error {
	var e env
	if err := d.cli(ctx, &e, "deploy", shop, "dev"); err != nil {
		return err
	}
	fmt.Printf("generation %d serves at %s, release %s\n", e.Serving, e.Address, e.Release)
	return nil
}

// ask sends requests, each on a connection of its own, until every instance has
// answered with the right release, and none of the old ones.
func (d *demo) ask(ctx context.Context, version string, old map[string]bool) (map[string]bool, error) {
	var shown struct{ Environment env }
	if err := d.cli(ctx, &shown, "env", "show", "shop-dev"); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	requests := 0
	err := until(ctx, time.Minute, func() error {
		for range 50 {
			raw, err := get(ctx, shown.Environment.Address+"/version")
			if err != nil {
				return err
			}
			requests++
			var v struct{ Version, Instance string }
			if err := json.Unmarshal(raw, &v); err != nil {
				return err
			}
			if v.Version != version || old[v.Instance] {
				return fatal{fmt.Errorf("instance %s answered with release %q instead of %s", v.Instance, v.Version, version)}
			}
			seen[v.Instance] = true
			if len(seen) == d.instances {
				return nil
			}
		}
		return fmt.Errorf("%d of %d instances have answered", len(seen), d.instances)
	})
	fmt.Printf("%d instances answered %d requests with release %s\n", len(seen), requests, version)
	return seen, err
}

func (d *demo) test(ctx context.Context, shop string) error {
	names := []string{wrong, "health", "orders", "version", "spread", "host"}[:d.suites]
	var r struct {
		Name   string
		Passed bool
		Error  string
		Suites []struct {
			Name, Error    string
			Passed, Failed int
			Started, Ended time.Time
			Launched, Lost int
			Failures       []struct{ Case, Message string }
		}
	}
	err := d.cli(ctx, &r, append([]string{"test", shop, "--junit", filepath.Join(d.dir, "results")}, names...)...)
	if r.Name == "" {
		return err
	}
	if r.Error != "" {
		return errors.New(r.Error)
	}
	if r.Passed {
		return errors.New("the suite that is made to fail was reported as passing")
	}
	for _, s := range r.Suites {
		d.result.Suites = append(d.result.Suites, suiteResult{s.Name, s.Passed, s.Failed, seconds(s.Ended.Sub(s.Started))})
		d.result.Launched += s.Launched
		d.result.Failed += s.Lost
		if s.Error != "" {
			return fmt.Errorf("suite %s: %s", s.Name, s.Error)
		}
		if bad := s.Failed > 0; bad != (s.Name == wrong) {
			return fmt.Errorf("suite %s: %d cases failed: %v", s.Name, s.Failed, s.Failures)
		}
		if _, err := os.Stat(filepath.Join(d.dir, "results", s.Name+".xml")); err != nil {
			return err
		}
	}
	fmt.Printf("%d suites ran; only %s failed, as it must\n", len(r.Suites), wrong)
	return nil
}

func (d *demo) count(ctx context.Context) error {
	var shown struct {
		Generations []struct {
			Number, Launched, Lost int
			Phase                  string
		}
	}
	if err := d.cli(ctx, &shown, "env", "show", "shop-dev"); err != nil {
		return err
	}
	for _, g := range shown.Generations {
		if g.Launched == 0 {
			continue // of an earlier life of the environment's name
		}
		if g.Number > len(shown.Generations)-2 {
			d.result.Launched += g.Launched
			d.result.Failed += g.Lost
		}
	}
	return nil
}

func (d *demo) terminate(ctx context.Context) error {
	if err := d.cli(ctx, nil, "env", "destroy", "shop-dev"); err != nil {
		return err
	}
	if !d.code {
		if err := d.cli(ctx, nil, "env", "destroy", "puppetserver-ca"); err != nil {
			return err
		}
	}
	var sweep struct {
		Orphans []struct{ Kind, ID, Why string }
	}
	if err := d.cli(ctx, &sweep, "sweep"); err != nil {
		return err
	}
	for _, o := range sweep.Orphans {
		d.result.LeftBehind = append(d.result.LeftBehind, o.Kind+" "+o.ID+": "+o.Why)
	}
	var s struct{ Instances, VPCs, Stacks, Groups int }
	if err := d.cli(ctx, &s, "region", "status"); err != nil {
		return err
	}
	for what, n := range map[string]int{"instances": s.Instances, "VPCs": s.VPCs, "stacks": s.Stacks, "groups": s.Groups} {
		if n != 0 {
			d.result.LeftBehind = append(d.result.LeftBehind, fmt.Sprintf("%d %s", n, what))
		}
	}
	return nil
}

// cleanup ends what the demo started, whatever happened before, and looks at
// the kernel for what is left.
func (d *demo) cleanup() error {
	if !d.up {
		return nil
	}
	return d.phase("stop, and look for what is left", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		var errs []error
		if d.box != nil && d.box.Process != nil {
			_ = d.box.Process.Signal(syscall.SIGTERM)
			_ = d.box.Wait()
		}
		if d.netns != "" {
			errs = append(errs, d.cli(ctx, nil, "region", "host", "rm", "box"))
		}
		errs = append(errs, d.cli(ctx, nil, "server", "stop"), d.cli(ctx, nil, "region", "stop", "--force"))
		var left []string
		errs = append(errs, d.cli(ctx, &left, "region", "leftovers"))
		d.result.LeftBehind = append(d.result.LeftBehind, left...)
		if n := len(d.result.LeftBehind); n > 0 {
			errs = append(errs, fmt.Errorf("%d things are left behind:\n  %s", n, strings.Join(d.result.LeftBehind, "\n  ")))
		}
		return errors.Join(errs...)
	})
}

type fatal struct{ error }

// until repeats f until it succeeds, fails for good, or the time is over.
func until(ctx context.Context, limit time.Duration, f func() error) error {
	end := time.Now().Add(limit)
	for {
		err := f()
		var stop fatal
		if err == nil || errors.As(err, &stop) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

var web = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := web.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s: %s", url, res.Status, strings.TrimSpace(string(raw)))
	}
	return raw, err
}
