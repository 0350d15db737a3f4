// Package kernel carries a region's packets with the Linux kernel: a network
// namespace per VPC that routes and filters, one per interface, and one that is
// the region's internet. Everything is made through netlink and outlives the
// process.
//
// Interfaces hang on the VPC's namespace by a point-to-point veth with a host
// route, not on a bridge: so every packet between two instances, in one subnet
// too, passes the forward hook where the security groups are, no ARP is needed
// (neighbours are permanent entries, which do not count against the kernel's
// limit), and one instance can neither see nor poison another's frames.
//
// The package knows nothing of instances or EC2.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/network/topo"
	"github.com/vishvananda/netlink"
)

// Config says where a region's kernel objects are and what they are called.
type Config struct {
	// Prefix begins every link's and table's name; at most 6 characters of
	// a-z0-9, unique on the host.
	Prefix string
	// RunDir holds the bind-mounted namespaces and the record of what is in
	// them. It must not survive a reboot's loss of the kernel objects for
	// anything but a harmless leftover: what has no namespace is forgotten.
	RunDir string
	// Internet is the prefix of the region's public addresses; the host has
	// the first one.
	Internet netip.Prefix
	Log      *slog.Logger
}

// Network is the kernel's network.Network.
type Network struct {
	cfg    Config
	log    *slog.Logger
	hostNS *os.File
	inet   *space // the region's internet

	mu     sync.Mutex // guards the maps and the pool; taken after a vpc's
	vpcs   map[string]*vpc
	making map[string]*sync.Mutex
	hosts  map[string]netip.Addr
	pool   *topo.Pool
	cards  int

	stop     chan struct{} // closed by Close
	closing  sync.Once
	cleaners sync.WaitGroup // see forgetSoon
}

var _ network.Network = (*Network)(nil)

// vpc is one VPC: its data, and the handles to its namespace.
type vpc struct {
	mu    sync.Mutex
	model *topo.VPC
	space *space
	up    int    // index of the uplink
	img   *image // the rule set that the kernel has; nil = not known
	gone  bool
	// used are addresses that an interface had whose connections the kernel may
	// still know; any may be where another process was here before.
	used    map[netip.Addr]bool
	anyUsed bool
	// left are public addresses whose interface is gone, and reached the private
	// ones behind them, while somebody may still be led there: see forgetSoon.
	left, reached map[netip.Addr]bool
}

var prefixRE = regexp.MustCompile(`^[a-z][a-z0-9]{0,5}$`)

// New makes the region's internet, or adopts what another process left.
func New(cfg Config) (*Network, error) {
	switch {
	case !prefixRE.MatchString(cfg.Prefix):
		return nil, &fault.Error{Kind: fault.Invalid, Op: "network", Object: cfg.Prefix, Message: "the prefix must be 1 to 6 characters of a-z and 0-9, a letter first"}
	case !cfg.Internet.IsValid() || !cfg.Internet.Addr().Is4() || cfg.Internet.Bits() > 28 || cfg.Internet.Bits() < 12:
		return nil, &fault.Error{Kind: fault.Invalid, Op: "network", Object: cfg.Internet.String(), Message: "the region's internet must be an IPv4 prefix between /12 and /28"}
	case !filepath.IsAbs(cfg.RunDir):
		return nil, &fault.Error{Kind: fault.Invalid, Op: "network", Object: cfg.RunDir, Message: "the run directory must be an absolute path"}
	case os.Geteuid() != 0:
		return nil, &fault.Error{Kind: fault.Denied, Op: "network", Message: "network namespaces need root", Hint: "run the region as root"}
	}
	cfg.Internet = cfg.Internet.Masked()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	for _, d := range []string{"vpc", "eni", "host", "state"} {
		if err := os.MkdirAll(filepath.Join(cfg.RunDir, d), 0o700); err != nil {
			return nil, fmt.Errorf("network: %w", err)
		}
	}
	hostNS, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	n := &Network{
		stop: make(chan struct{}),
		cfg:  cfg, log: cfg.Log, hostNS: hostNS,
		vpcs: map[string]*vpc{}, making: map[string]*sync.Mutex{}, hosts: map[string]netip.Addr{},
		pool: topo.NewPool(cfg.Internet),
	}
	if err := n.ensureInternet(); err != nil {
		n.Close()
		return nil, fmt.Errorf("network: make the region's internet: %w", err)
	}
	if err := n.adopt(); err != nil {
		n.Close()
		return nil, fmt.Errorf("network: adopt what is in %s: %w", cfg.RunDir, err)
	}
	return n, nil
}

// adopt takes over the VPCs that another process left, and brings their rules
// up to date.
func (n *Network) adopt() error {
	if err := n.loadHosts(); err != nil {
		return err
	}
	models, err := n.loadStates()
	if err != nil {
		return err
	}
	for _, m := range models {
		if !isNetNS(n.vpcPath(m.ID)) {
			n.log.Info("a VPC's namespace is gone", "vpc", m.ID)
			n.forget(m)
			continue
		}
		v, err := n.openVPC(m)
		if err != nil {
			return err
		}
		v.anyUsed = true
		n.vpcs[m.ID] = v
		n.pool.Mark(m.Router)
		for _, c := range m.Cards {
			n.pool.Mark(c.Public)
		}
		n.cards += len(m.Cards)
		if err := n.render(v, m); err != nil {
			return fmt.Errorf("%s: %w", m.ID, err)
		}
	}
	return nil
}

// forget removes the traces of a VPC whose namespace is gone.
func (n *Network) forget(m *topo.VPC) {
	for id := range m.Cards {
		dropNS(n.eniPath(id))
	}
	dropNS(n.vpcPath(m.ID))
	os.Remove(n.statePath(m.ID))
}

// Close gives back handles; the network goes on.
func (n *Network) Close() error {
	n.closing.Do(func() { close(n.stop) })
	n.cleaners.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, v := range n.vpcs {
		v.space.close()
	}
	n.vpcs = map[string]*vpc{}
	if n.inet != nil {
		n.inet.close()
		n.inet = nil
	}
	return n.hostNS.Close()
}

// lookup finds a VPC and locks it.
func (n *Network) lookup(id string) (*vpc, error) {
	n.mu.Lock()
	v := n.vpcs[id]
	n.mu.Unlock()
	if v == nil {
		return nil, topo.NotFound(id)
	}
	v.mu.Lock()
	if v.gone {
		v.mu.Unlock()
		return nil, topo.NotFound(id)
	}
	return v, nil
}

// NetNS is the path of a VPC's namespace.
func (n *Network) NetNS(vpc string) string { return n.vpcPath(vpc) }

// VPCs lists the networks.
func (n *Network) VPCs(context.Context) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ids := make([]string, 0, len(n.vpcs))
	for id := range n.vpcs {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

// AllocatePublic reserves a public address.
func (n *Network) AllocatePublic(context.Context) (netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pool.Take()
}

// ReleasePublic gives one back, unless an interface, a VPC's router or a host
// still has it.
func (n *Network) ReleasePublic(_ context.Context, a netip.Addr) error {
	n.mu.Lock()
	vs := make([]*vpc, 0, len(n.vpcs))
	for _, v := range n.vpcs {
		vs = append(vs, v)
	}
	for name, h := range n.hosts {
		if h == a {
			n.mu.Unlock()
			return topo.Conflict(a.String(), "it is the address of host %s", name)
		}
	}
	n.mu.Unlock()
	for _, v := range vs {
		v.mu.Lock()
		user := ""
		if v.model.Router == a {
			user = v.model.ID
		}
		for _, c := range v.model.Cards {
			if c.Public == a {
				user = c.ID
			}
		}
		v.mu.Unlock()
		if user != "" {
			return topo.Conflict(a.String(), "it is the address of %s", user)
		}
	}
	n.mu.Lock()
	n.pool.Release(a)
	n.mu.Unlock()
	return nil
}

func (n *Network) vpcPath(id string) string {
	return filepath.Join(n.cfg.RunDir, "vpc", filepath.Base(id))
}
func (n *Network) eniPath(id string) string {
	return filepath.Join(n.cfg.RunDir, "eni", filepath.Base(id))
}
func (n *Network) hostPath(name string) string {
	return filepath.Join(n.cfg.RunDir, "host", filepath.Base(name))
}
func (n *Network) hostAddr() netip.Addr { return n.cfg.Internet.Addr().Next() }

// missing tells whether an error only says that the thing is not there.
func missing(err error) bool {
	_, noLink := errors.AsType[netlink.LinkNotFoundError](err)
	return noLink || errors.Is(err, fs.ErrNotExist)
}
