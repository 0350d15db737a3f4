-- +goose Up

-- The same tables as in SQLite. Names are compared byte by byte, as Go does.
-- A record whose body is NULL is a tombstone: it tells watchers of the deletion
-- and keeps the version counting. The body is text and not jsonb: it comes back
-- as it was written.
CREATE TABLE record (
    kind     TEXT COLLATE "C" NOT NULL,
    name     TEXT COLLATE "C" NOT NULL,
    version  BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    updated  BIGINT NOT NULL, -- nanoseconds since 1970, UTC
    body     TEXT,
    PRIMARY KEY (kind, name)
);
CREATE UNIQUE INDEX record_by_revision ON record (revision);

-- One row: the last revision, who owns the work, and the last revision whose
-- tombstone was removed. Every writer changes it first, so that revisions are
-- committed in their order.
CREATE TABLE ledger (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    revision  BIGINT NOT NULL,
    epoch     BIGINT NOT NULL,
    holder    TEXT   NOT NULL, -- '' when nobody owns
    expires   BIGINT NOT NULL,
    forgotten BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
INSERT INTO ledger (id, revision, epoch, holder, expires) VALUES (1, 0, 0, '', 0);

-- What is too large for a record, such as packed blueprints, in parts.
CREATE TABLE blob (
    name TEXT COLLATE "C" NOT NULL,
    part INTEGER NOT NULL,
    data BYTEA   NOT NULL,
    PRIMARY KEY (name, part)
);

-- +goose Down
DROP TABLE blob;
DROP TABLE ledger;
DROP TABLE record;
