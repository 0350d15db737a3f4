// Package cfn is the region's CloudFormation: stacks that are created, changed
// and deleted in the order of their dependencies, rolled back when something
// fails, with events, outputs, exports and change sets, in AWS's words.
//
// Every operation is level-triggered: what is to be done is on disk before it
// is begun, each resource's creation is noted before its call, and a restart
// goes on where it was, finding what an interrupted call has made. Resources
// are made by the providers in cfn/provider, which speak to the other services
// over the bus; this package knows no resource type.
//
// What AWS has and this engine has not: transforms, rules, macros, nested
// stacks, custom resources, notifications, drift, imports of resources, stack
// policies, and rolling updates of groups. Each is refused with a message.
package cfn

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/region/cfn/provider"
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

// Service implements the operations of CloudFormation as methods.
type Service struct {
	c Config

	stacks    *state.Table[stack]
	resources *state.Table[resource]
	events    *state.Table[event]
	sets      *state.Table[changeSet]

	lookup    func(resourceType string) (*provider.Provider, bool)
	patience  time.Duration // how long a deletion that is refused is tried again
	endurance time.Duration // how long a resource may take

	ids         *ids.Source
	eventNumber atomic.Int64

	kick chan struct{}
	mu   sync.Mutex
	busy map[string]context.CancelCauseFunc // stacks that are worked on
	work sync.WaitGroup
}

// New declares the service's tables in the database.
func New(c Config) (*Service, error) {
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		ids: ids.New(c.Rand),
		c:   c, kick: make(chan struct{}, 1), busy: map[string]context.CancelCauseFunc{},
		lookup: provider.For, patience: 5 * time.Minute, endurance: time.Hour,
	}
	var err error
	if s.stacks, err = state.NewTable[stack](c.DB, "cloudformation.stack"); err != nil {
		return nil, fmt.Errorf("cloudformation: %w", err)
	}
	if s.resources, err = state.NewTable[resource](c.DB, "cloudformation.resource"); err != nil {
		return nil, fmt.Errorf("cloudformation: %w", err)
	}
	if s.events, err = state.NewTable[event](c.DB, "cloudformation.event"); err != nil {
		return nil, fmt.Errorf("cloudformation: %w", err)
	}
	if s.sets, err = state.NewTable[changeSet](c.DB, "cloudformation.changeset"); err != nil {
		return nil, fmt.Errorf("cloudformation: %w", err)
	}
	return s, nil
}

// Run works on stacks until the context ends; it begins with those that were
// in progress when the region stopped.
func (s *Service) Run(ctx context.Context) error {
	defer s.work.Wait()
	for {
		var ids []string
		s.c.DB.View(func(tx *state.Tx) {
			for id, st := range s.stacks.All(tx) {
				if st.Op != "" {
					ids = append(ids, id)
				}
			}
		})
		for _, id := range ids {
			s.start(ctx, id)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.kick:
		}
	}
}

func (s *Service) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// start works on a stack unless somebody does already.
func (s *Service) start(ctx context.Context, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[id] != nil {
		return
	}
	work, cancel := context.WithCancelCause(ctx)
	s.busy[id] = cancel
	s.work.Go(func() {
		defer func() {
			cancel(nil)
			s.mu.Lock()
			delete(s.busy, id)
			s.mu.Unlock()
			s.wake() // an operation that took this one's place
		}()
		s.drive(s.internal(work), id)
	})
}

// interrupt stops the work on a stack: another operation takes its place.
func (s *Service) interrupt(id string) {
	s.mu.Lock()
	if cancel := s.busy[id]; cancel != nil {
		cancel(errSuperseded)
	}
	s.mu.Unlock()
	s.wake()
}

func (s *Service) now() time.Time { return s.c.Clock.Now().UTC().Truncate(time.Millisecond) }

// internal is the context of calls that the service makes for its user.
func (s *Service) internal(ctx context.Context) context.Context {
	return wire.Internal(ctx, s.c.Account, "cloudformation")
}

func (s *Service) arn(kind, name string) string {
	return fmt.Sprintf("arn:aws:cloudformation:%s:%s:%s/%s/%s", s.c.Region, s.c.Account, kind, name, s.ids.UUID())
}

// invalid is CloudFormation's error for anything that is wrong with a request.
func invalid(format string, args ...any) error {
	return wire.Errorf("ValidationError", format, args...)
}
