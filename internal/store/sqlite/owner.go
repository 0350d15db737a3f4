package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Acquire implements store.Store.
func (s *Store) Acquire(ctx context.Context, holder string, ttl time.Duration) (epoch int64, ok bool, err error) {
	if holder == "" || ttl <= 0 {
		return 0, false, &fault.Error{Kind: fault.Invalid, Op: "acquire ownership", Object: holder, Message: "a holder has a name and a time to live"}
	}
	now := s.clock.Now()
	err = s.change(ctx, func(tx *sql.Tx) error {
		var owner string
		var expires int64
		if err := tx.QueryRowContext(ctx, `SELECT epoch, holder, expires FROM ledger WHERE id = 1`).Scan(&epoch, &owner, &expires); err != nil {
			return err
		}
		if owner != "" && owner != holder && expires > now.UnixNano() {
			return nil
		}
		r, err := tx.ExecContext(ctx, `UPDATE ledger SET epoch = $1, holder = $2, expires = $3 WHERE id = 1 AND epoch = $4`, epoch+1, holder, now.Add(ttl).UnixNano(), epoch)
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		epoch, ok = epoch+1, n == 1
		return err
	})
	if err != nil {
		return 0, false, fmt.Errorf("acquire ownership: %w", err)
	}
	if !ok {
		return 0, false, nil
	}
	return epoch, true, nil
}

// Renew implements store.Store.
func (s *Store) Renew(ctx context.Context, holder string, epoch int64, ttl time.Duration) error {
	return s.own(ctx, "renew", `UPDATE ledger SET expires = $1 WHERE id = 1 AND holder = $2 AND epoch = $3`, s.clock.Now().Add(ttl).UnixNano(), holder, epoch)
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
