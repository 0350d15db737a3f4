package region

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/balancer/haproxy"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor/oci"
	"github.com/dayfly-infra/dayfly/internal/region/network/kernel"
)

func countOf(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Clean takes down what a region left that died with its daemon.
func Clean(ctx context.Context, cfg Config, force bool) error {
	if err := cfg.fill(); err != nil {
		return err
	}
	id, err := readIdentity(cfg.identityFile())
	if os.IsNotExist(err) {
		return nil // there never was one
	}
	if err != nil || id.Simulated { // a simulation is in its daemon alone
		return err
	}
	if err := Preflight(); err != nil {
		return err
	}
	hv, err := oci.New(cfg.hypervisor(id))
	if err != nil {
		return err
	}
	defer hv.Close()
	is, err := hv.List(ctx)
	if err != nil {
		return err
	}
	running := 0
	for _, i := range is {
		if i.State == hypervisor.Running {
			running++
		}
	}
	if running > 0 && !force {
		return &fault.Error{Kind: fault.Conflict, Op: "stop the region", Message: "its daemon is gone, and " + countOf(running, "instance") + " still run", Hint: "dayfly region start adopts them; dayfly region stop --force ends them"}
	}
	n, err := kernel.New(cfg.network(id))
	if err != nil {
		return err
	}
	defer n.Close()
	lb, err := haproxy.New(cfg.balancer(n))
	if err != nil {
		return err
	}
	defer lb.Close()
	return clean(ctx, hv, lb, n)
}

// RemoveEmpty removes the empty folders that a region which was stopped leaves
// below /run.
func RemoveEmpty(cfg Config) error {
	if err := cfg.fill(); err != nil {
		return err
	}
	var dirs []string
	err := filepath.WalkDir(cfg.RunDir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil //nolint:nilerr // what cannot be read is not empty
	})
	for _, d := range slices.Backward(dirs) {
		_ = os.Remove(d) // refuses what is not empty
	}
	return err
}

// Leftovers lists what is on this machine of the region: network links, packet
// filter tables, mounts, namespaces, cgroups, processes, and on its disk folders
// of instances and layers that belong to nothing. It asks the kernel and the
// disk, never the region's services.
func Leftovers(cfg Config) ([]string, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	id, err := readIdentity(cfg.identityFile())
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil || id.Simulated {
		return nil, err
	}
	var out []string
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name, id.Prefix) {
			out = append(out, "link "+l.Name)
		}
	}
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := c.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list packet filter tables: %w", err)
	}
	for _, t := range tables {
		if strings.HasPrefix(t.Name, id.Prefix) {
			out = append(out, "nft table "+t.Name)
		}
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer mounts.Close()
	for s := bufio.NewScanner(mounts); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) > 4 && (strings.HasPrefix(f[4], cfg.Dir+"/") || strings.HasPrefix(f[4], cfg.RunDir+"/")) {
			out = append(out, "mount "+f[4])
		}
	}
	groups, err := cgroups(id.Prefix)
	if err != nil {
		return nil, err
	}
	out = append(out, groups...)
	procs, err := processes(cfg, id.Prefix)
	if err != nil {
		return nil, err
	}
	out = append(out, procs...)
	is, err := os.ReadDir(filepath.Join(cfg.Dir, "hypervisor", "instances"))
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for _, i := range is {
		out = append(out, "instance folder "+i.Name())
	}
	layers, err := oci.OrphanLayers(filepath.Join(cfg.Dir, "hypervisor"))
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		out = append(out, "layer without an owner "+l)
	}
	return out, nil
}

func cgroups(prefix string) ([]string, error) {
	var out []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // a cgroup that ends while we look is no leftover
		}
		if strings.HasPrefix(d.Name(), prefix) {
			inside, _ := filepath.Glob(p + "/*/cgroup.procs")
			for _, i := range inside {
				out = append(out, "cgroup "+filepath.Dir(i))
			}
			return fs.SkipDir
		}
		return nil
	})
	return out, err
}

// processes are those whose command line names the region's run folder, or that
// are in one of its cgroups; the region's own daemon is not a leftover.
func processes(cfg Config, prefix string) ([]string, error) {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range all {
		cmd, err := os.ReadFile(p + "/cmdline")
		if err != nil || len(cmd) == 0 {
			continue // it ended, or is a kernel thread
		}
		line := strings.TrimSpace(strings.ReplaceAll(string(cmd), "\x00", " "))
		group, _ := os.ReadFile(p + "/cgroup")
		if strings.Contains(line, cfg.RunDir+"/") || strings.Contains(string(group), "/"+prefix) {
			out = append(out, "process "+filepath.Base(p)+" "+line)
		}
	}
	return out, nil
}
