// Package ssm is the region's Systems Manager: Run Command with the document
// AWS-RunShellScript, the list of managed instances, and parameters.
//
// A command is a record with one invocation for each instance. The loop (Run)
// hands pending invocations to the guests inside the instances and writes down
// their results; after a restart it hands those that were under way again with
// the same id, which a guest runs at most once.
//
// An instance is managed when it runs, its guest answers and its instance
// profile's role allows ssm:UpdateInstanceInformation, as
// AmazonSSMManagedInstanceCore does. The package must not know how commands
// reach a guest.
//
// Deviations from AWS: output to S3 and CloudWatch, notifications and alarms
// are refused; cancelling a command that runs stops waiting for it, and the
// script itself ends with its execution timeout at the latest; secure
// parameters are encrypted with a key file of the region's own, which stands
// for alias/aws/ssm; parameter policies, labels and the exit code 194
// (reboot and run again) are not there.
package ssm

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/ids"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// Guest reaches into instances; a hypervisor.Hypervisor is one.
type Guest interface {
	Run(ctx context.Context, id string, c hypervisor.Command) (hypervisor.Result, error)
	Ready(ctx context.Context, id string) error
}

// Roles tells what an instance profile's role may do. The profile is given as
// EC2 describes it, by its ARN.
type Roles interface {
	RoleAllows(ctx context.Context, profile, action, resource string) bool
}

// Config is what the service needs. Clock, Log and Rand may be nil.
type Config struct {
	Account, Region string
	Zones           []string
	DB              *state.DB
	Bus             *wire.Bus
	Clock           clock.Clock
	Log             *slog.Logger
	Rand            io.Reader // source of ids and nonces
	Guest           Guest
	Roles           Roles
	// KeyFile holds the key of SecureString parameters; it is made, 0600, when
	// it is missing. Without a path such parameters are refused.
	KeyFile string
}

// Service implements the operations of Systems Manager as methods.
type Service struct {
	c    Config
	seal cipher.AEAD

	commands    *state.Table[command]
	invocations *state.Table[invocation]
	parameters  *state.Table[parameter]

	ids *ids.Source

	kick   chan struct{}
	runMu  sync.Mutex
	runs   map[string]context.CancelCauseFunc // invocations that are handed out
	work   sync.WaitGroup
	readMu sync.Mutex
	ready  map[string]time.Time // guests that answered, when
}

// New declares the service's tables in the database.
func New(c Config) (*Service, error) {
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{c: c, ids: ids.New(c.Rand), kick: make(chan struct{}, 1), runs: map[string]context.CancelCauseFunc{}, ready: map[string]time.Time{}}
	var err error
	if c.KeyFile != "" {
		if s.seal, err = s.openKey(c.KeyFile); err != nil {
			return nil, fmt.Errorf("ssm: key of secure parameters: %w", err)
		}
	}
	if s.commands, err = state.NewTable[command](c.DB, "ssm.command"); err != nil {
		return nil, fmt.Errorf("ssm: %w", err)
	}
	if s.invocations, err = state.NewTable[invocation](c.DB, "ssm.invocation"); err != nil {
		return nil, fmt.Errorf("ssm: %w", err)
	}
	if s.parameters, err = state.NewTable[parameter](c.DB, "ssm.parameter"); err != nil {
		return nil, fmt.Errorf("ssm: %w", err)
	}
	return s, nil
}

const keySize = 32

func (s *Service) openKey(path string) (cipher.AEAD, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		key = make([]byte, keySize)
		s.ids.Fill(key)
		// Under another name first: a crash must not leave half a key.
		tmp, err := os.CreateTemp(filepath.Dir(path), ".key-*")
		if err != nil {
			return nil, err
		}
		defer os.Remove(tmp.Name())
		_, err = tmp.Write(key)
		if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
			return nil, err
		}
		if err := os.Rename(tmp.Name(), path); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	if len(key) != keySize {
		return nil, fmt.Errorf("%s has %d bytes, not %d", path, len(key), keySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (s *Service) now() time.Time { return s.c.Clock.Now().UTC().Truncate(time.Millisecond) }

func (s *Service) internal(ctx context.Context) context.Context {
	return wire.Internal(ctx, s.c.Account, "ssm")
}

func (s *Service) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func invalid(format string, args ...any) error {
	return wire.Errorf("ValidationException", format, args...)
}

// page cuts one page out of n items: the token is the position of the first.
func page(n int, token string, size *int64, usual, most int) (from, to int, next string, err error) {
	limit := usual
	if size != nil {
		if *size < 1 || *size > int64(most) {
			return 0, 0, "", invalid("MaxResults must be between 1 and %d", most)
		}
		limit = int(*size)
	}
	if token != "" {
		text, ours := strings.CutPrefix(token, "p")
		if from, err = strconv.Atoi(text); !ours || err != nil || from < 0 {
			return 0, 0, "", wire.Errorf("InvalidNextToken", "The specified token isn't valid.")
		}
	}
	from = min(from, n)
	to = min(from+limit, n)
	if to < n {
		next = fmt.Sprintf("p%d", to)
	}
	return from, to, next, nil
}
