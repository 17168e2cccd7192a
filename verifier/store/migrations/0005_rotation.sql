-- Keyed digests outlive the master key.

-- +goose Up

-- The key of digests that are the same for all tenants, sealed under the master key. It is the master key that the database began with.
CREATE TABLE digest_key (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    sealed BYTEA   NOT NULL
);
