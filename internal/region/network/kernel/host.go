package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/dayfly-infra/dayfly/internal/region/network/topo"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What a region changes on the host, and how it gives it back.

const (
	sysForward = "net.ipv4.ip_forward"
	sysNeigh   = "net.ipv4.neigh.default.gc_thresh"
	// manyCards is from where instances that resolve each other themselves
	// could fill the kernel's neighbour table, which all namespaces share.
	manyCards = 250
)

// hostDir is where the regions of a host note the settings that they found:
// the last one to go restores them.
const hostDir = "/run/dayfly-host"

// hostRules are the host's own table: instances reach the world by the host,
// but neither the host itself nor its link-local neighbours, and nobody else
// reaches the region's internet by the host.
func (n *Network) hostRules() *image {
	img := &image{table: n.cfg.Prefix}
	link := n.hostLink()
	input := img.base("input", nftables.ChainTypeFilter, nftables.ChainHookInput, *nftables.ChainPriorityFilter)
	input.rule(iif(link), established(), accept())
	input.rule(iif(link), drop())
	forward := img.base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityFilter)
	forward.rule(iif(link), within(offDest, linkLocal), drop())
	forward.rule(oif(link), established(), accept())
	forward.rule(oif(link), drop())
	post := img.base("snat", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource)
	post.rule(within(offSource, n.cfg.Internet), notOIF(link), []expr.Any{&expr.Masq{}})
	return img
}

// HostChanges says, for people, what the region has changed on the host.
func (n *Network) HostChanges() []string {
	out := []string{
		fmt.Sprintf("link %s with %s/%d, the host's end of the region's internet", n.hostLink(), n.hostAddr(), n.cfg.Internet.Bits()),
		fmt.Sprintf("nftables table ip %s: masquerades what leaves the host from %s, keeps it from the host's own services", n.cfg.Prefix, n.cfg.Internet),
	}
	found := map[string]string{}
	_ = readJSON(n.registry(), &found)
	for _, k := range slices.Sorted(maps.Keys(found)) {
		if have, err := readSysctl(k); err == nil && have != found[k] {
			out = append(out, fmt.Sprintf("%s: %s → %s", k, found[k], have))
		}
	}
	return out
}

func (n *Network) registry() string { return filepath.Join(hostDir, n.cfg.Prefix+".json") }

// changeHost writes a host setting unless enough says that what it has will do,
// and notes what it was.
func (n *Network) changeHost(name, value string, enough func(have string) bool) error {
	return lockedRegistry(func() error {
		found := map[string]string{}
		if err := readJSON(n.registry(), &found); err != nil && !missing(err) {
			return err
		}
		have, err := readSysctl(name)
		if err != nil {
			return err
		}
		if !enough(have) {
			if _, ok := found[name]; !ok {
				found[name] = have
			}
		}
		if err := writeJSON(n.registry(), found); err != nil {
			return err
		}
		if enough(have) {
			return nil
		}
		if err := sysctl(name, value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
		return nil
	})
}

// restoreHost undoes the changes of settings, or leaves that to a region that
// is still there.
func (n *Network) restoreHost() error {
	return lockedRegistry(func() error {
		found := map[string]string{}
		if err := readJSON(n.registry(), &found); err != nil && !missing(err) {
			return err
		}
		if err := os.Remove(n.registry()); err != nil && !missing(err) {
			return err
		}
		others, err := filepath.Glob(filepath.Join(hostDir, "*.json"))
		if err != nil {
			return err
		}
		if len(others) > 0 {
			heir := map[string]string{}
			if err := readJSON(others[0], &heir); err != nil {
				return err
			}
			for k, v := range found {
				if _, ok := heir[k]; !ok {
					heir[k] = v
				}
			}
			return writeJSON(others[0], heir)
		}
		var errs []error
		for k, v := range found {
			errs = append(errs, sysctl(k, v))
		}
		return errors.Join(errs...)
	})
}

func lockedRegistry(fn func() error) error {
	if err := os.MkdirAll(hostDir, 0o700); err != nil {
		return err
	}
	d, err := os.Open(hostDir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	return fn()
}

// count follows the number of interfaces and raises the host's limit of
// neighbours when there are many.
func (n *Network) count(delta int) error {
	n.mu.Lock()
	n.cards += delta
	many := delta > 0 && n.cards > manyCards
	n.mu.Unlock()
	if !many {
		return nil
	}
	for i, v := range []int{4096, 8192, 32768} {
		err := n.changeHost(sysNeigh+strconv.Itoa(i+1), strconv.Itoa(v), func(have string) bool {
			h, err := strconv.Atoi(have)
			return err == nil && h >= v
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Sweep removes the VPCs and interfaces that are not named, and namespaces
// that nothing knows.
func (n *Network) Sweep(ctx context.Context, vpcs, enis []string) ([]string, error) {
	var removed []string
	var errs []error
	known := map[string]bool{}
	ids, _ := n.VPCs(ctx)
	for _, id := range ids {
		v, err := n.lookup(id)
		if err != nil {
			continue
		}
		keep := slices.Contains(vpcs, id)
		var stray []string
		for _, c := range v.model.Cards {
			if !keep || !slices.Contains(enis, c.ID) {
				stray = append(stray, c.ID)
			} else {
				known[c.ID] = true
			}
		}
		v.mu.Unlock()
		slices.Sort(stray)
		if len(stray) > 0 {
			if err := n.Detach(ctx, id, stray); err != nil {
				errs = append(errs, err)
				continue
			}
			removed = append(removed, stray...)
		}
		if keep {
			continue
		}
		if err := n.emptyAndRemove(id); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, id)
	}
	left, err := os.ReadDir(filepath.Join(n.cfg.RunDir, "eni"))
	errs = append(errs, err)
	for _, f := range left {
		if known[f.Name()] || n.hasCard(f.Name()) {
			continue
		}
		errs = append(errs, dropNS(n.eniPath(f.Name())))
		removed = append(removed, f.Name())
	}
	return removed, errors.Join(errs...)
}

// hasCard guards an interface that is being attached while a sweep runs.
func (n *Network) hasCard(eni string) bool {
	n.mu.Lock()
	vs := slices.Collect(maps.Values(n.vpcs))
	n.mu.Unlock()
	for _, v := range vs {
		v.mu.Lock()
		_, ok := v.model.Cards[eni]
		v.mu.Unlock()
		if ok {
			return true
		}
	}
	return false
}

// emptyAndRemove removes a VPC that has no interfaces, with its subnets.
func (n *Network) emptyAndRemove(id string) error {
	defer n.lockMaking(id)()
	v, err := n.lookup(id)
	if err != nil {
		return ignoreMissing(err)
	}
	defer v.mu.Unlock()
	if len(v.model.Cards) > 0 {
		return topo.Conflict(id, "it has interfaces again")
	}
	return n.dropVPC(v)
}

// Teardown removes everything that the region has in the kernel, its files, and
// its changes on the host. The Network is of no use afterwards but to Close.
func (n *Network) Teardown(ctx context.Context) error {
	_, err := n.Sweep(ctx, nil, nil)
	errs := []error{err}
	n.mu.Lock()
	hosts := slices.Sorted(maps.Keys(n.hosts))
	n.mu.Unlock()
	for _, h := range hosts {
		errs = append(errs, n.RemoveHost(ctx, h))
	}
	errs = append(errs, inNS(n.hostNS, int(n.hostNS.Fd()), func() error {
		l, err := netlink.LinkByName(n.hostLink())
		if err != nil {
			if missing(err) {
				return nil
			}
			return err
		}
		return netlink.LinkDel(l)
	}))
	c, err := conn(int(n.hostNS.Fd()))
	if err == nil {
		t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: n.cfg.Prefix}
		c.AddTable(t)
		c.DelTable(t)
		err = c.Flush()
	}
	errs = append(errs, err, dropNS(n.internetPath()), n.restoreHost())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("network: tear down: %w", err)
	}
	for _, d := range []string{"vpc", "eni", "host", "state", "hosts.json", "."} {
		if err := os.Remove(filepath.Join(n.cfg.RunDir, d)); err != nil && !missing(err) {
			n.log.Warn("the run directory is not empty", "error", err)
		}
	}
	return nil
}
