-- +goose Up

-- The last revision whose tombstone was removed: who wants all changes since an
-- earlier one cannot have them.
ALTER TABLE ledger ADD COLUMN forgotten BIGINT NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE ledger DROP COLUMN forgotten;
