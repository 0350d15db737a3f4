// Package ec2 is the EC2 service of the region: VPCs and what is in them,
// security groups, images, launch templates, and instances that go from
// pending to terminated. It keeps its objects in the region's database, lets
// the hypervisor run what is to run and the network carry what may pass.
//
// It must not know how instances are isolated or packets filtered (ports
// hypervisor and network), who may call what (wire checks that before), nor
// any other service's package: it asks them over the bus.
//
// Every object is written to the database before anything is made of it, and
// everything made can be found from there again: a crash at any point is
// repaired by Adopt and Run. Packets are IPv4 only: IPv6 ranges are handed out
// of the documentation prefix and kept, so that templates work, but no
// instance gets an IPv6 address.
package ec2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/ids"
	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// Config is what the service needs. Zero values of the tuning fields mean
// their defaults.
type Config struct {
	Account    string   // twelve digits
	Region     string   // such as local-1
	Zones      []string // such as local-1a
	Hypervisor hypervisor.Hypervisor
	Network    network.Network
	DB         *state.DB
	Clock      clock.Clock
	Log        *slog.Logger
	Bus        *wire.Bus
	Rand       io.Reader // of ids; crypto/rand where nil
	Endpoint   string    // AWS_ENDPOINT_URL of instances

	Parallel  int           // instances that are made at a time; 4
	StopGrace time.Duration // between asking an instance to end and killing it; 30 s
	Quota     Quota
}

// Quota limits what the account may have; zero is no limit.
type Quota struct {
	VCPUs     int // of pending and running instances: VcpuLimitExceeded
	Instances int // InstanceLimitExceeded
	VPCs      int // VpcLimitExceeded
	Addresses int // AddressLimitExceeded
}

// Service is EC2. Its methods with the names of operations are the operations.
type Service struct {
	cfg   Config
	log   *slog.Logger
	clock clock.Clock
	hyper hypervisor.Hypervisor
	net   network.Network
	db    *state.DB
	tables
	ix index

	ids    *ids.Source
	work   queue
	slots  chan struct{} // one for each call to the hypervisor under way
	stops  chan struct{} // stopping waits for guests, so it has slots of its own
	net1   syncer
	save   gather[func(*state.Tx)]
	detach gather[card]
	census gather[*question]
	deaths suspects
	ready  readiness
	litter chan struct{} // wakes the collection of disks
	full   offerings
}

// tables are the kinds of objects that the service keeps.
type tables struct {
	vpcs      *state.Table[vpc]
	subnets   *state.Table[subnet]
	routes    *state.Table[routeTable]
	igws      *state.Table[gateway]
	eigws     *state.Table[gateway]
	nats      *state.Table[nat]
	eips      *state.Table[address]
	acls      *state.Table[acl]
	groups    *state.Table[group]
	cards     *state.Table[card]
	dhcp      *state.Table[dhcpOptions]
	instances *state.Table[instance]
	images    *state.Table[image]
	snapshots *state.Table[snapshot]
	templates *state.Table[template]
	versions  *state.Table[templateVersion]
	tagsOf    *state.Table[tagSet]
	tokens    *state.Table[token]
	garbage   *state.Table[garbage]
}

// New opens the service's tables. Call Adopt, then Run.
func New(cfg Config) (*Service, error) {
	switch {
	case cfg.Hypervisor == nil || cfg.Network == nil || cfg.DB == nil:
		return nil, errors.New("ec2: hypervisor, network and database are needed")
	case cfg.Account == "" || cfg.Region == "" || len(cfg.Zones) == 0:
		return nil, errors.New("ec2: account, region and zones are needed")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Bus == nil {
		cfg.Bus = wire.NewBus()
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = 4
	}
	if cfg.StopGrace <= 0 {
		cfg.StopGrace = 30 * time.Second
	}
	s := &Service{cfg: cfg, ids: ids.New(cfg.Rand), log: cfg.Log.With("service", "ec2"), clock: cfg.Clock, hyper: cfg.Hypervisor, net: cfg.Network, db: cfg.DB}
	s.slots = make(chan struct{}, cfg.Parallel)
	s.stops = make(chan struct{}, 16*cfg.Parallel)
	s.work.init()
	s.litter = make(chan struct{}, 1)
	s.net1.init()
	s.save.run = s.saveAll
	s.detach.run = s.detachAll
	s.census.run = s.count
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("ec2: %w", err)
	}
	s.ix.init()
	err := s.update(func(tx *state.Tx) error {
		for _, c := range s.cards.All(tx) {
			s.ix.addCard(c)
		}
		for _, a := range s.eips.All(tx) {
			s.ix.public[a.IP] = a.ID
		}
		for _, i := range s.instances.All(tx) {
			s.ix.addInstance(i)
		}
		for _, g := range s.groups.All(tx) {
			s.ix.addGroup(g)
		}
		s.ix.undo = nil
		return s.ensureDefaultDHCP(tx)
	})
	return s, err
}

func (s *Service) open() error {
	return errors.Join(
		open(s.db, "vpc", &s.vpcs), open(s.db, "subnet", &s.subnets), open(s.db, "route-table", &s.routes),
		open(s.db, "internet-gateway", &s.igws), open(s.db, "egress-only-internet-gateway", &s.eigws), open(s.db, "nat", &s.nats),
		open(s.db, "address", &s.eips), open(s.db, "network-acl", &s.acls), open(s.db, "security-group", &s.groups),
		open(s.db, "network-interface", &s.cards), open(s.db, "dhcp-options", &s.dhcp), open(s.db, "instance", &s.instances),
		open(s.db, "image", &s.images), open(s.db, "snapshot", &s.snapshots), open(s.db, "launch-template", &s.templates),
		open(s.db, "launch-template-version", &s.versions), open(s.db, "tags", &s.tagsOf), open(s.db, "token", &s.tokens),
		open(s.db, "garbage", &s.garbage))
}

func open[T any](d *state.DB, kind string, t **state.Table[T]) (err error) {
	*t, err = state.NewTable[T](d, "ec2."+kind)
	return err
}

// update runs f alone, with the index: both change together or not at all.
func (s *Service) update(f func(*state.Tx) error) error {
	s.ix.mu.Lock()
	defer s.ix.mu.Unlock()
	s.ix.undo = s.ix.undo[:0]
	done := false
	defer func() {
		if !done {
			for _, u := range slices.Backward(s.ix.undo) {
				u()
			}
		}
		s.ix.undo = nil
	}()
	if err := s.db.Update(f); err != nil {
		return err
	}
	done = true
	return nil
}

func (s *Service) view(f func(*state.Tx)) {
	s.ix.mu.RLock()
	defer s.ix.mu.RUnlock()
	s.db.View(f)
}

func (s *Service) now() time.Time { return s.clock.Now().UTC().Truncate(time.Millisecond) }

// newID makes an id of AWS's form: the prefix and 17 hexadecimal digits, of
// which the first is 0.
func (s *Service) newID(prefix string) string {
	return prefix + "-0" + s.ids.Hex(8)
}

// errDryRun ends a transaction that would have succeeded.
var errDryRun = &wire.Error{Code: "DryRunOperation", Message: "Request would have succeeded, but DryRun flag is set.", Status: http.StatusPreconditionFailed}

// dry is the last thing that a transaction asks, after every check.
func dry(flag *bool) error {
	if yes(flag) {
		return errDryRun
	}
	return nil
}

func yes(b *bool) bool { return b != nil && *b }

func internal(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return &wire.Error{Code: "RequestExpired", Message: "the request was given up: " + err.Error(), Status: http.StatusServiceUnavailable}
	}
	return &wire.Error{Code: "InternalError", Message: err.Error(), Status: http.StatusInternalServerError}
}

func unsupported(format string, a ...any) error {
	return wire.Errorf("UnsupportedOperation", "The local region cannot realise this: "+format, a...)
}
