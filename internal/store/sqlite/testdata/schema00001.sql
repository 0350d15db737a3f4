CREATE TABLE ledger (
    id       INTEGER PRIMARY KEY,
    revision BIGINT NOT NULL,
    epoch    BIGINT NOT NULL,
    holder   TEXT   NOT NULL, -- '' when nobody owns
    expires  BIGINT NOT NULL
);
CREATE TABLE record (
    kind     TEXT   NOT NULL,
    name     TEXT   NOT NULL,
    version  BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    updated  BIGINT NOT NULL, -- nanoseconds since 1970, UTC
    body     TEXT,
    PRIMARY KEY (kind, name)
);
CREATE TABLE schema_version (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		version_id INTEGER NOT NULL,
		is_applied INTEGER NOT NULL,
		tstamp TIMESTAMP DEFAULT (datetime('now'))
	);
CREATE UNIQUE INDEX record_by_revision ON record (revision);
INSERT INTO ledger VALUES (1, 7, 5, 'old', 1893456000000000000);
INSERT INTO record VALUES ('environment', 'shop-dev', 3, 5, 1893456000000000000, '{"name":"shop-dev","it''s":"ü"}');
INSERT INTO record VALUES ('image', 'shop-1', 1, 2, 1893456000000000000, '{"n":1}');
INSERT INTO record VALUES ('image', 'shop-0', 4, 7, 1893456000000000000, NULL);
INSERT INTO schema_version VALUES (1, 0, 1, '2026-11-23 08:25:21');
INSERT INTO schema_version VALUES (2, 1, 1, '2026-11-23 08:25:21');
