package tables

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// rival is what was last seen of another owner, and since when, by our own
// clock: one that only ever goes forward.
type rival struct {
	holder         string
	epoch, expires int64
	since          time.Time
}

// Acquire implements store.Store. The time of the database alone does not make
// another lose: a clock may be set. Its lease must also have stood unchanged
// for a whole ttl while we looked, and where the database's clock was set back,
// twice that is enough.
func (s *Store) Acquire(ctx context.Context, holder string, ttl time.Duration) (epoch int64, ok bool, err error) {
	if holder == "" || ttl <= 0 {
		return 0, false, &fault.Error{Kind: fault.Invalid, Op: "acquire ownership", Object: holder, Message: "a holder has a name and a time to live"}
	}
	var now rival
	var over bool
	err = s.cfg.Read.QueryRowContext(ctx, `SELECT holder, epoch, expires, expires <= `+s.cfg.Now()+` FROM ledger WHERE id = 1`).Scan(&now.holder, &now.epoch, &now.expires, &over)
	if err != nil {
		return 0, false, fmt.Errorf("acquire ownership: %w", err)
	}
	if now.holder != "" && now.holder != holder {
		if silent := s.silence(now); silent < ttl || (!over && silent < 2*ttl) {
			return 0, false, nil
		}
	}
	err = s.change(ctx, func(tx *sql.Tx) error {
		// Only over what was seen: who renewed meanwhile keeps it.
		r, err := tx.ExecContext(ctx, `UPDATE ledger SET epoch = epoch + 1, holder = $1, expires = `+s.cfg.Now()+` + $2 WHERE id = 1 AND epoch = $3 AND holder = $4 AND expires = $5`,
			holder, int64(ttl), now.epoch, now.holder, now.expires)
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		ok = n == 1
		return err
	})
	if err != nil {
		return 0, false, fmt.Errorf("acquire ownership: %w", err)
	}
	if !ok {
		return 0, false, nil
	}
	return now.epoch + 1, true, nil
}

// silence is how long we have seen a lease that did not change.
func (s *Store) silence(now rival) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now.since = s.rival.since
	if now != s.rival || now.since.IsZero() {
		now.since = s.cfg.Clock.Now()
		s.rival = now
	}
	return s.cfg.Clock.Now().Sub(now.since)
}

// Renew implements store.Store.
func (s *Store) Renew(ctx context.Context, holder string, epoch int64, ttl time.Duration) error {
	return s.own(ctx, "renew", `UPDATE ledger SET expires = `+s.cfg.Now()+` + $1 WHERE id = 1 AND holder = $2 AND epoch = $3`, int64(ttl), holder, epoch)
}

// Release implements store.Store.
func (s *Store) Release(ctx context.Context, holder string, epoch int64) error {
	return s.own(ctx, "release", `UPDATE ledger SET holder = '', expires = $1 WHERE id = 1 AND holder = $2 AND epoch = $3`, 0, holder, epoch)
}

func (s *Store) own(ctx context.Context, what, update string, expires int64, holder string, epoch int64) error {
	if holder == "" {
		return &fault.Error{Kind: fault.Invalid, Op: what + " ownership", Message: "a holder has a name"}
	}
	err := s.change(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, update, expires, holder, epoch)
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		if err == nil && n != 1 {
			err = fmt.Errorf("%s, epoch %d: %w", holder, epoch, store.ErrFenced)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s ownership: %w", what, err)
	}
	return nil
}
