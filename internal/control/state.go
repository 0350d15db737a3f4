package control

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/currency"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/release"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/postgres"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

// openStore opens the database that several servers share, or the embedded one.
func openStore(ctx context.Context, cfg Config, clk clock.Clock) (store.Store, error) {
	if cfg.Database != "" {
		return postgres.Open(ctx, cfg.Database, clk)
	}
	return sqlite.Open(ctx, filepath.Join(cfg.Dir, "dayfly.db"), clk)
}

// remembered are the kinds that loops read again and again.
var remembered = []string{bake.Kind, image.Kind, image.ChannelKind, currency.FreezeKind, environment.Kind, environment.FoundationKind, environment.GenerationKind, instance.Kind, instance.FleetKind, pipeline.Kind, release.Kind}

// IsDatabase tells whether an address is one of a database that servers share.
func IsDatabase(address string) bool { return postgres.Is(address) }

// HasPassword tells whether the address of a database holds a password.
func HasPassword(address string) bool { return postgres.HasPassword(address) }

// installation is the record of what all servers of a database have in common.
type installation struct {
	Owner string `json:"owner"` // in every tag and name of what Dayfly makes
}

const (
	installationKind = "installation"
	installationName = "this"
)

// ownerID is this installation's id, made once: it is in every tag and name.
// The database has it, so that all replicas have the same.
func ownerID(ctx context.Context, st store.Store, cfg Config) (string, error) {
	old := filepath.Join(cfg.Dir, "owner") // where it was before, for the embedded database
	for {
		i, _, err := store.Get[installation](ctx, st, installationKind, installationName)
		if err == nil {
			return i.Owner, nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return "", err
		}
		if i.Owner, err = randomID(); err != nil {
			return "", err
		}
		if raw, err := os.ReadFile(old); cfg.Database == "" && err == nil {
			i.Owner = strings.TrimSpace(string(raw))
		}
		err = st.Apply(ctx, store.NoEpoch, store.Put(installationKind, installationName, 0, i))
		if err != nil && !errors.Is(err, store.ErrConflict) { // another replica was faster
			return "", err
		}
	}
}

// replicaName is unique among the servers of a database, and the same after a
// restart: the host is in it so that a copied folder makes no twin.
func replicaName(dir string) (string, error) {
	path := filepath.Join(dir, "replica")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		var id string
		if id, err = randomID(); err != nil {
			return "", err
		}
		raw = []byte(id + "\n")
		tmp := path + ".new"
		if err := os.WriteFile(tmp, raw, 0o600); err != nil {
			return "", err
		}
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return "", err
	}
	host, err := os.Hostname()
	return host + "/" + strings.TrimSpace(string(raw)), err
}

func randomID() (string, error) {
	b := make([]byte, 4)
	_, err := rand.Read(b)
	return hex.EncodeToString(b), err
}
