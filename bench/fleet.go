package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// fleetGroup is what 45 instances of a slim image cost, from nothing to nothing.
func fleetGroup() group {
	return group{
		runs: 3, world: true, run: measureFleet,
		rows: []row{
			{"launch-45", "dayfly deploy of 45 until the balancer serves from all of them; against docker and bare clones"},
			{"teardown-45", "dayfly env destroy until the last of the 45 instances is gone; against docker rm -f"},
			{"env-destroy", "the whole of dayfly env destroy: the 45 and the network, roles, balancer they stood on"},
			{"agent-memory", "private memory of agent and guest per instance, median of 45"},
			{"replace-1", "SIGKILL of an instance's PID 1 until its replacement is in service"},
		},
	}
}

// peerRun is the deploy script and the service, as the agent runs them.
func peerRun(lowers []string) (argv []string, err error) {
	raw, err := readLayered(lowers, "etc/dayfly/handoff.json")
	if err != nil {
		return nil, err
	}
	var c struct{ Run, Service, User string }
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, err
	}
	sh := fmt.Sprintf("%s && exec setpriv --reuid %s --regid %[2]s --init-groups /bin/sh -c 'exec %s'", c.Run, c.User, c.Service)
	return []string{"/bin/sh", "-c", sh}, nil
}

// releaseAt is where a peer finds the release in the box on its bridge.
func releaseAt(gateway netip.Addr) string {
	return "http://" + gateway.String() + "/shop/shop-" + version + ".tar"
}

func readLayered(lowers []string, name string) ([]byte, error) {
	for _, l := range lowers {
		raw, err := os.ReadFile(filepath.Join(l, name))
		if err == nil {
			return raw, nil
		}
	}
	return nil, fmt.Errorf("the image has no /%s", name)
}

// fleetRun is what one group of rows measures.
type fleetRun struct {
	s       *session
	w       *world
	want    func(string) bool
	docker  *docker
	bare    *bare
	lowers  []string
	argv    []string
	digest  string
	atOnce  int // containers that docker is asked for at once; the faster of two ways
	samples map[string][]float64
}

func (f *fleetRun) add(name string, d time.Duration) {
	f.samples[name] = append(f.samples[name], d.Seconds())
	f.s.say("  %-22s %.3f s", name, d.Seconds())
}

func measureFleet(ctx context.Context, s *session, want func(string) bool) ([]result, error) {
	f := &fleetRun{s: s, w: s.world, want: want, samples: map[string][]float64{}}
	if err := f.setup(ctx); err != nil {
		return nil, err
	}
	var memory, replace []float64
	for k := range s.runs {
		s.say("run %d of %d", k+1, s.runs)
		if err := f.ours(ctx, &memory, &replace); err != nil {
			return nil, err
		}
		if err := f.peers(ctx); err != nil {
			return nil, err
		}
	}
	return f.results(memory, replace)
}

func (f *fleetRun) setup(ctx context.Context) (err error) {
	if f.lowers, err = f.w.lowers(f.w.image.AMI); err != nil {
		return err
	}
	if f.argv, err = peerRun(f.lowers); err != nil {
		return err
	}
	sums, err := os.ReadFile(filepath.Join(f.w.boxDir, "shop/SHA256SUMS"))
	if err != nil {
		return err
	}
	f.digest = "sha256:" + strings.Fields(string(sums))[0]
	if f.want("launch-45") || f.want("teardown-45") {
		if f.docker, err = f.s.docker(ctx); err != nil {
			return err
		}
		if err = f.s.serveBox(ctx, f.w.dayfly, f.w.boxDir, "", f.docker.gateway.String()); err != nil {
			return err
		}
		f.s.say("importing the image's root file system")
		if err = f.docker.importImage(ctx, f.lowers, "shop:bench"); err != nil {
			return err
		}
	}
	if f.want("launch-45") {
		if f.bare, err = newBare(ctx, f.s); err != nil {
			return err
		}
		err = f.s.serveBox(ctx, f.w.dayfly, f.w.boxDir, "", f.bare.gateway.Addr().String())
	}
	return err
}

// ours is one life of an environment: its foundation with one instance, then
// the 45 that are measured, then its end.
func (f *fleetRun) ours(ctx context.Context, memory, replace *[]float64) error {
	w := f.w
	d, err := w.launch(ctx, w.shop)
	if err != nil {
		return err
	}
	f.add("launch-45", d)
	if f.want("agent-memory") {
		m, err := w.memory(ctx)
		if err != nil {
			return err
		}
		*memory = append(*memory, m...)
		f.s.say("  %-22s %.2f MiB (median of %d)", "agent-memory", median(m), len(m))
	}
	if f.want("replace-1") {
		for range 3 {
			d, err := w.replace(ctx)
			if err != nil {
				return err
			}
			*replace = append(*replace, d.Seconds())
			f.s.say("  %-22s %.3f s", "replace-1", d.Seconds())
		}
	}
	return f.end(ctx)
}

// end destroys the environment and watches its instances go.
func (f *fleetRun) end(ctx context.Context) error {
	fl, err := f.w.fleet(ctx)
	if err != nil {
		return err
	}
	if len(fl.ids) != instances {
		return fmt.Errorf("%d instances run instead of %d", len(fl.ids), instances)
	}
	traces, err := f.w.traces(fl.ids)
	if err != nil {
		return err
	}
	began := time.Now()
	gone := make(chan error, 1)
	var last time.Duration
	watch, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		err := until(watch, 3*time.Minute, 5*time.Millisecond, func() error { return absent(traces) })
		last = time.Since(began)
		gone <- err
	}()
	if err := f.w.cli(ctx, nil, "env", "destroy", fleet); err != nil {
		return err
	}
	all := time.Since(began)
	if err := <-gone; err != nil {
		return err
	}
	f.add("teardown-45", last)
	f.add("env-destroy", max(all, last))
	return nil
}

// peers does the same with docker and with bare clones.
func (f *fleetRun) peers(ctx context.Context) error {
	env := []string{"DAYFLY_RELEASE_DIGEST=" + f.digest, "LANG=C.UTF-8"}
	if f.docker != nil {
		ways := []int{f.atOnce}
		if f.atOnce == 0 {
			ways = []int{4, 8}
		}
		var options []string
		for _, e := range append(env, "DAYFLY_RELEASE_URL="+releaseAt(f.docker.gateway)) {
			options = append(options, "-e", e)
		}
		fastest := time.Duration(0)
		for _, n := range ways {
			d, err := f.docker.launch(ctx, instances, n, options, "shop:bench", f.argv)
			if err != nil {
				return err
			}
			f.add(fmt.Sprintf("docker, %d at once", n), d)
			if fastest == 0 || d < fastest {
				fastest, f.atOnce = d, n
			}
			gone, err := f.docker.remove(ctx)
			if err != nil {
				return err
			}
			f.add("docker rm -f", gone)
		}
		f.samples["docker"] = append(f.samples["docker"], fastest.Seconds())
	}
	if f.bare == nil {
		return nil
	}
	up, _, err := f.bare.launch(ctx, instances, f.lowers, env, nil)
	if err != nil {
		return err
	}
	f.add("bare clones alone", up)
	up, _, err = f.bare.launch(ctx, instances, f.lowers, append(env, "DAYFLY_RELEASE_URL="+releaseAt(f.bare.gateway.Addr()), "DAYFLY_INSTANCE_ID=bare"), f.argv)
	if err != nil {
		return err
	}
	f.add("bare-clone", up)
	return nil
}

func (f *fleetRun) results(memory, replace []float64) ([]result, error) {
	var out []result
	v := f.samples
	var err error
	if f.want("launch-45") {
		out = append(out, compare("launch-45", "s", v["launch-45"], "docker", v["docker"]).atLeast(5))
		if alone := median(v["bare clones alone"]); alone > bareLimit {
			err = fmt.Errorf("the bare clones alone took %.2f s (median of %d), and %d of them take 0.3 to 0.7 s on an idle machine with two cores: the peer was slowed, so launch-45 against bare-clone is not reported; what else runs here?", alone, len(v["bare clones alone"]), instances)
		} else {
			out = append(out, compare("launch-45", "s", v["launch-45"], "bare-clone", v["bare-clone"]).atLeast(0.5))
		}
	}
	if f.want("teardown-45") {
		out = append(out, compare("teardown-45", "s", v["teardown-45"], "docker rm -f", v["docker rm -f"]).atLeast(5))
	}
	if f.want("env-destroy") {
		out = append(out, compare("env-destroy", "s", v["env-destroy"], "", nil))
	}
	if f.want("agent-memory") {
		out = append(out, compare("agent-memory", "MiB", memory, "", nil).atMost(8))
	}
	if f.want("replace-1") {
		out = append(out, compare("replace-1", "s", replace, "", nil))
	}
	return out, err
}

// launch deploys one instance, so that the foundation is there, and then
// measures the deploy of 45 in its place: from the command until each has
// answered through the balancer.
func (w *world) launch(ctx context.Context, dir string) (time.Duration, error) {
	if err := w.cli(ctx, nil, "deploy", dir, "dev", "--size", "1"); err != nil {
		return 0, err
	}
	before, err := w.fleet(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := w.cli(ctx, nil, "deploy", dir, "dev", "--size", fmt.Sprint(instances)); err != nil {
		return 0, err
	}
	address, err := w.address(ctx)
	if err != nil {
		return 0, err
	}
	seen := map[string]bool{}
	err = until(ctx, time.Minute, 10*time.Millisecond, func() error {
		for range 2 * instances {
			id, err := who(ctx, address)
			if err != nil {
				return err
			}
			if !slices.Contains(before.ids, id) {
				seen[id] = true
			}
			if len(seen) == instances {
				return nil
			}
		}
		return fmt.Errorf("%d of %d instances have answered", len(seen), instances)
	})
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	return took, w.alone(ctx)
}

// replace kills one instance and waits until another is in service.
func (w *world) replace(ctx context.Context) (time.Duration, error) {
	fl, err := w.fleet(ctx)
	if err != nil {
		return 0, err
	}
	victim := fl.ids[0]
	p, err := w.process(victim)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		return 0, err
	}
	err = until(ctx, 2*time.Minute, 20*time.Millisecond, func() error {
		now, err := w.fleet(ctx)
		if err != nil {
			return err
		}
		if len(now.ids) != instances || slices.Contains(now.ids, victim) {
			return errors.New("the replacement is not in service")
		}
		return nil
	})
	return time.Since(began), err
}
