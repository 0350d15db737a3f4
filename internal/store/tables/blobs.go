package tables

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
)

const (
	partSize = 1 << 20
	maxBlob  = 128 << 20
)

// AddBlob implements store.Store.
func (s *Store) AddBlob(ctx context.Context, name string, r io.Reader) error {
	if err := check(store.Write{Kind: "blob", Name: name}); err != nil {
		return err
	}
	err := s.change(ctx, func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM blob WHERE name = $1 AND part = 0`, name).Scan(&n); err != nil || n > 0 {
			return err
		}
		for part := 0; ; part++ {
			data := make([]byte, partSize)
			n, err := io.ReadFull(r, data)
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return err
			}
			if part*partSize+n > maxBlob {
				return &fault.Error{Kind: fault.Invalid, Op: "store", Object: name, Message: fmt.Sprintf("it has more than %d MiB", maxBlob>>20)}
			}
			if n > 0 || part == 0 {
				if err := addPart(ctx, tx, name, part, data[:n]); err != nil {
					return err
				}
			}
			if err != nil {
				return nil
			}
		}
	})
	if err != nil {
		return fmt.Errorf("store %s: %w", name, err)
	}
	return nil
}

// addPart leaves a part alone that is there: a name is that of its content.
func addPart(ctx context.Context, tx *sql.Tx, name string, part int, data []byte) error {
	if data == nil {
		data = []byte{} // empty, not NULL
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO blob (name, part, data) VALUES ($1, $2, $3) ON CONFLICT (name, part) DO NOTHING`, name, part, data)
	return err
}

// Blob implements store.Store.
func (s *Store) Blob(ctx context.Context, name string) (io.ReadCloser, error) {
	b := &blob{s: s, ctx: ctx, name: name}
	if err := b.next(); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", name, store.ErrNotFound)
	} else if err != nil {
		return nil, err
	}
	return b, nil
}

// blob reads a part at a time: what is there never changes.
type blob struct {
	s    *Store
	ctx  context.Context
	name string
	part int
	data bytes.Reader
}

func (b *blob) next() error {
	var data []byte
	err := b.s.cfg.Read.QueryRowContext(b.ctx, `SELECT data FROM blob WHERE name = $1 AND part = $2`, b.name, b.part).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return io.EOF
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", b.name, err)
	}
	b.part++
	b.data.Reset(data)
	return nil
}

func (b *blob) Read(p []byte) (int, error) {
	for b.data.Len() == 0 {
		if err := b.next(); err != nil {
			return 0, err
		}
	}
	return b.data.Read(p)
}

func (b *blob) Close() error { return nil }
