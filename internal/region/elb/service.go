// Package elb is the region's Elastic Load Balancing (v2): application load
// balancers with HTTP listeners and network load balancers with TCP listeners,
// target groups, rules, and the health of targets in AWS's words.
//
// The service keeps records. A loop (Run) renders them into one
// balancer.Config per VPC, gives it to the balancer when it changed, and
// mirrors the balancer's health checks into the target states. What moves the
// requests outlives this process and is adopted after a restart.
//
// It must not know how requests are moved, nor what instances are beyond what
// EC2 says on the bus.
//
// Deviations from AWS, on purpose: the DNSName of a load balancer is its
// address (public where it is internet-facing, private where it is internal),
// because the host's resolver is not the region's to change; all of a load
// balancer's addresses are served by one process, so that its DNSName names the
// first alone. HTTPS, TLS and UDP listeners, redirects, sticky sessions,
// authentication, and conditions other than path and host are refused with
// NotImplemented, never accepted and ignored.
package elb

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/region/balancer"
	"github.com/dayfly-infra/dayfly/internal/region/ids"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// ManagedInterface is a network interface that belongs to a load balancer.
type ManagedInterface struct {
	ID, VPC    string
	IP, Public netip.Addr // Public is not valid where none was asked for
}

// Interfaces is where load balancers get their network interfaces.
type Interfaces interface {
	// CreateManagedInterface makes an interface in a subnet; public gives it
	// a public address as well.
	CreateManagedInterface(ctx context.Context, subnet string, groups []string, description string, public bool) (ManagedInterface, error)
	SetManagedInterfaceGroups(ctx context.Context, id string, groups []string) error
	// DeleteManagedInterface removes one. Unknown ids are no error.
	DeleteManagedInterface(ctx context.Context, id string) error
}

// Config is what the service needs. Clock, Log and Rand may be nil.
type Config struct {
	Account, Region string
	Zones           []string
	DB              *state.DB
	Bus             *wire.Bus
	Clock           clock.Clock
	Log             *slog.Logger
	Rand            io.Reader // source of ids
	Balancer        balancer.Balancer
	Interfaces      Interfaces
}

// Service implements the operations of Elastic Load Balancing as methods.
type Service struct {
	c Config

	balancers *state.Table[loadBalancer]
	groups    *state.Table[targetGroup]
	listeners *state.Table[listener]
	rules     *state.Table[rule]

	ids    *ids.Source
	making keyed // one at a time for each load balancer
	rounds keyed // and for each VPC

	kick     chan struct{}
	work     sync.WaitGroup
	busyMu   sync.Mutex
	busy     map[string]bool
	applyMu  sync.Mutex
	applied  map[string]balancer.Config // what each VPC's balancer was given last
	askAgain map[string]time.Time       // before when each is not asked about health
	dead     time.Time                  // when instances that ended were looked for; only the loop touches it
}

// New declares the service's tables in the database.
func New(c Config) (*Service, error) {
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{c: c, ids: ids.New(c.Rand), kick: make(chan struct{}, 1), busy: map[string]bool{}, applied: map[string]balancer.Config{}, askAgain: map[string]time.Time{}}
	var err error
	if s.balancers, err = state.NewTable[loadBalancer](c.DB, "elb.loadbalancer"); err != nil {
		return nil, fmt.Errorf("elb: %w", err)
	}
	if s.groups, err = state.NewTable[targetGroup](c.DB, "elb.targetgroup"); err != nil {
		return nil, fmt.Errorf("elb: %w", err)
	}
	if s.listeners, err = state.NewTable[listener](c.DB, "elb.listener"); err != nil {
		return nil, fmt.Errorf("elb: %w", err)
	}
	if s.rules, err = state.NewTable[rule](c.DB, "elb.rule"); err != nil {
		return nil, fmt.Errorf("elb: %w", err)
	}
	return s, nil
}

func (s *Service) now() time.Time { return s.c.Clock.Now().UTC().Truncate(time.Millisecond) }

func (s *Service) internal(ctx context.Context) context.Context {
	return wire.Internal(ctx, s.c.Account, "elasticloadbalancing")
}

func (s *Service) arn(resource string) string {
	return "arn:aws:elasticloadbalancing:" + s.c.Region + ":" + s.c.Account + ":" + resource
}

func invalid(format string, args ...any) error {
	return wire.Errorf("ValidationError", format, args...)
}

// page cuts one page out of n items: the marker is the position of the first.
func page(n int, marker string, size *int64) (from, to int, next string, err error) {
	limit := 400
	if size != nil {
		if *size < 1 || *size > 400 {
			return 0, 0, "", invalid("PageSize must be between 1 and 400")
		}
		limit = int(*size)
	}
	if marker != "" {
		if _, err := fmt.Sscanf(marker, "p%d", &from); err != nil || from < 0 {
			return 0, 0, "", invalid("Invalid marker '%s'", marker)
		}
	}
	from = min(from, n)
	to = min(from+limit, n)
	if to < n {
		next = fmt.Sprintf("p%d", to)
	}
	return from, to, next, nil
}

// keyed is a set of locks by name.
type keyed struct {
	mu sync.Mutex
	m  map[string]chan struct{}
}

// lock waits for the name; it fails when the context ends first.
func (k *keyed) lock(ctx context.Context, name string) (unlock func(), err error) {
	for {
		k.mu.Lock()
		if k.m == nil {
			k.m = map[string]chan struct{}{}
		}
		held, ok := k.m[name]
		if !ok {
			done := make(chan struct{})
			k.m[name] = done
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				delete(k.m, name)
				k.mu.Unlock()
				close(done)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-held:
		}
	}
}
