-- +goose Up

-- A record whose body is NULL is a tombstone: it tells watchers of the deletion
-- and keeps the version counting, so that a name that is made again cannot be
-- mistaken for the one that was read before.
CREATE TABLE record (
    kind     TEXT   NOT NULL,
    name     TEXT   NOT NULL,
    version  BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    updated  BIGINT NOT NULL, -- nanoseconds since 1970, UTC
    body     TEXT,
    PRIMARY KEY (kind, name)
);
CREATE UNIQUE INDEX record_by_revision ON record (revision);

-- One row: the last revision, and who owns the work.
CREATE TABLE ledger (
    id       INTEGER PRIMARY KEY,
    revision BIGINT NOT NULL,
    epoch    BIGINT NOT NULL,
    holder   TEXT   NOT NULL, -- '' when nobody owns
    expires  BIGINT NOT NULL
);
INSERT INTO ledger (id, revision, epoch, holder, expires) VALUES (1, 0, 0, '', 0);

-- +goose Down
DROP TABLE ledger;
DROP TABLE record;
