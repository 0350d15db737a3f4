-- +goose Up

-- What is too large for a record, such as packed blueprints, in parts.
CREATE TABLE blob (
    name TEXT    NOT NULL,
    part INTEGER NOT NULL,
    data BLOB    NOT NULL,
    PRIMARY KEY (name, part)
);

-- +goose Down
DROP TABLE blob;
