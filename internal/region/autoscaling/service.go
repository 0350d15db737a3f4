// Package autoscaling is the region's Auto Scaling service: groups that keep a
// number of instances alive across zones, their lifecycle hooks, health checks
// and scaling activities, with AWS's words and error codes.
//
// One loop (Run) reads the records and what EC2 and the load balancer say,
// decides with a pure function (plan), writes the decision down, and only then
// acts: every launch has a stored intent whose id is the client token, so that
// a crash at any point is found again by asking the same question. The loop
// needs nothing but this process; no server has to run for dead instances to
// be replaced.
//
// It reaches EC2 and Elastic Load Balancing over the bus alone and must not
// know how instances run or how requests are moved.
//
// Known deviations: a launch hook may be completed by instance id as soon as
// the instance is in the group, not only in Pending:Wait (instances boot in
// milliseconds here, and who calls is running); failed launches are retried
// after one second, doubling to five minutes; a group that has failed for a
// day is not suspended.
package autoscaling

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/region/ids"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// Config is what the service needs. Clock, Log and Rand may be nil.
type Config struct {
	Account, Region string
	Zones           []string // the region's zones, such as local-1a
	DB              *state.DB
	Bus             *wire.Bus
	Clock           clock.Clock
	Log             *slog.Logger
	Rand            io.Reader // source of ids
}

// Service implements the operations of Auto Scaling as methods.
type Service struct {
	c Config

	groups     *state.Table[group]
	instances  *state.Table[instance]
	activities *state.Table[activity]

	ids *ids.Source

	byGroup   map[string][]string // activity ids of a group, oldest first; guarded by the database's write lock
	templates templateCache

	kick   chan struct{}
	busyMu sync.Mutex
	busy   map[string]bool // effects under way
	work   sync.WaitGroup
	eyes   eyes // what the loop saw and when; only the loop touches it
}

// New declares the service's tables in the database.
func New(c Config) (*Service, error) {
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{c: c, ids: ids.New(c.Rand), kick: make(chan struct{}, 1), busy: map[string]bool{}, byGroup: map[string][]string{}, templates: templateCache{m: map[string]template{}}}
	var err error
	if s.groups, err = state.NewTable[group](c.DB, "autoscaling.group"); err != nil {
		return nil, fmt.Errorf("autoscaling: %w", err)
	}
	if s.instances, err = state.NewTable[instance](c.DB, "autoscaling.instance"); err != nil {
		return nil, fmt.Errorf("autoscaling: %w", err)
	}
	if s.activities, err = state.NewTable[activity](c.DB, "autoscaling.activity"); err != nil {
		return nil, fmt.Errorf("autoscaling: %w", err)
	}
	s.indexActivities()
	return s, nil
}

func (s *Service) now() time.Time { return s.c.Clock.Now().UTC().Truncate(time.Millisecond) }

// internal is the context of calls that the service makes for its user.
func (s *Service) internal(ctx context.Context) context.Context {
	return wire.Internal(ctx, s.c.Account, "autoscaling")
}

func invalid(format string, args ...any) error {
	return wire.Errorf("ValidationError", format, args...)
}

func noGroup(name string) error {
	return invalid("AutoScalingGroup name not found - no such group: %s", name)
}

func noInstance(id string) error {
	return invalid("Instance Id not found - No managed instance found for instance ID: %s", id)
}

func messageOf(err error) string {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e.Message
	}
	return err.Error()
}

// page cuts one page out of n items: the token is the position of the first.
func page(n int, token string, size *int64, most int) (from, to int, next string, err error) {
	limit := most
	if size != nil {
		if *size < 1 || *size > int64(most) {
			return 0, 0, "", invalid("MaxRecords must be between 1 and %d", most)
		}
		limit = int(*size)
	}
	if token != "" {
		if _, err := fmt.Sscanf(token, "p%d", &from); err != nil || from < 0 {
			return 0, 0, "", wire.Errorf("InvalidNextToken", "The token '%s' is invalid.", token)
		}
	}
	from = min(from, n)
	to = min(from+limit, n)
	if to < n {
		next = fmt.Sprintf("p%d", to)
	}
	return from, to, next, nil
}
