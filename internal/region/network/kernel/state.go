package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/network/topo"
)

// What is in the kernel is recorded beside the namespaces: before an addition,
// so that a crash leaves nothing unknown, and after a removal. The files live
// and die with the kernel objects, so they are not synced to disk.

func (n *Network) statePath(vpc string) string {
	return filepath.Join(n.cfg.RunDir, "state", filepath.Base(vpc)+".json")
}

func (n *Network) hostsPath() string { return filepath.Join(n.cfg.RunDir, "hosts.json") }

func (n *Network) saveState(m *topo.VPC) error { return writeJSON(n.statePath(m.ID), m) }

func (n *Network) loadStates() ([]*topo.VPC, error) {
	files, err := filepath.Glob(filepath.Join(n.cfg.RunDir, "state", "*.json"))
	if err != nil {
		return nil, err
	}
	var out []*topo.VPC
	for _, f := range files {
		m := topo.NewVPC(network.VPC{}, netip.Addr{})
		if err := readJSON(f, m); err != nil {
			return nil, err
		}
		if m.ID == "" || m.ID+".json" != filepath.Base(f) {
			return nil, fmt.Errorf("%s does not describe the VPC of its name", f)
		}
		out = append(out, m)
	}
	return out, nil
}

func (n *Network) saveHosts() error { return writeJSON(n.hostsPath(), n.hosts) }

func (n *Network) loadHosts() error {
	hosts := map[string]netip.Addr{}
	if err := readJSON(n.hostsPath(), &hosts); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	maps.DeleteFunc(hosts, func(name string, _ netip.Addr) bool { return !isNetNS(n.hostPath(name)) })
	for _, a := range hosts {
		n.pool.Mark(a)
	}
	n.hosts = hosts
	return nil
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", strings.TrimSpace(path), err)
	}
	return nil
}
