-- What tenants are told about users whom they watch, and how far it was delivered.

-- +goose Up

-- How far the authority's feed was read.
CREATE TABLE authority_cursor (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    position BIGINT  NOT NULL
);
INSERT INTO authority_cursor (id, position) VALUES (1, 0);

-- The end of each tenant's feed, and up to where it is kept no longer.
CREATE TABLE feed (
    tenant    TEXT   PRIMARY KEY REFERENCES tenant (id),
    last      BIGINT NOT NULL,
    forgotten BIGINT NOT NULL
);

-- Tenants' feeds: 1, 2, 3 … each. user_id is the authority's pseudonym for this tenant.
CREATE TABLE change (
    tenant      TEXT    NOT NULL REFERENCES tenant (id),
    sequence    BIGINT  NOT NULL,
    id          TEXT    NOT NULL UNIQUE,
    user_id     TEXT    NOT NULL,
    purpose     TEXT    NOT NULL,
    class       TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    correction  INTEGER NOT NULL CHECK (correction IN (0, 1)),
    changed_at  BIGINT  NOT NULL,
    received_at BIGINT  NOT NULL,
    PRIMARY KEY (tenant, sequence)
);
CREATE INDEX change_received_at ON change (received_at);

-- Where changes are delivered to. Everything up to position is delivered, refused or was before. The receiver's address and secrets
-- are sealed under the tenant's key.
CREATE TABLE endpoint (
    id           TEXT    PRIMARY KEY,
    tenant       TEXT    NOT NULL REFERENCES tenant (id),
    method       TEXT    NOT NULL CHECK (method IN ('webhook', 'ssf-push', 'ssf-poll')),
    sealed       BYTEA   NOT NULL,
    enabled      INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    position     BIGINT  NOT NULL,
    attempts     INTEGER NOT NULL, -- in vain, for what comes next
    failure      TEXT    NOT NULL, -- why, from a closed list
    next_at      BIGINT  NOT NULL, -- when to try again
    leased_by    TEXT    NOT NULL,
    leased_until BIGINT  NOT NULL,
    created_at   BIGINT  NOT NULL
);
CREATE INDEX endpoint_tenant ON endpoint (tenant);

-- What a receiver refused, until it is delivered after all.
CREATE TABLE dead_letter (
    endpoint TEXT    NOT NULL REFERENCES endpoint (id),
    sequence BIGINT  NOT NULL,
    failure  TEXT    NOT NULL,
    died_at  BIGINT  NOT NULL,
    again    INTEGER NOT NULL CHECK (again IN (0, 1)), -- to be delivered once more
    PRIMARY KEY (endpoint, sequence)
);

-- What a polling receiver acknowledged behind something that it did not.
CREATE TABLE acknowledged (
    endpoint TEXT   NOT NULL REFERENCES endpoint (id),
    sequence BIGINT NOT NULL,
    PRIMARY KEY (endpoint, sequence)
);
