-- One text for SQLite and PostgreSQL. Times are microseconds since 1970 UTC; BYTEA is PostgreSQL's word and means a blob to SQLite.

-- +goose Up

CREATE TABLE tenant (
    id               TEXT    PRIMARY KEY,     -- Corporate Number
    name             TEXT    NOT NULL UNIQUE, -- in logs and challenges
    data_key         BYTEA   NOT NULL,        -- sealed under the master key; empty once destroyed
    retention_days   INTEGER NOT NULL CHECK (retention_days BETWEEN 0 AND 36525),
    store_attributes INTEGER NOT NULL CHECK (store_attributes IN (0, 1)),
    rate             INTEGER NOT NULL CHECK (rate >= 0),        -- requests a second, 0 for the server's own limit
    daily_quota      BIGINT  NOT NULL CHECK (daily_quota >= 0), -- verdicts a day, 0 for none
    created_at       BIGINT  NOT NULL,
    revoked_at       BIGINT
);

-- A bearer token or the key of a client certificate, by its SHA-256 only.
CREATE TABLE token (
    id         TEXT   PRIMARY KEY,
    hash       BYTEA  NOT NULL UNIQUE,
    kind       TEXT   NOT NULL CHECK (kind IN ('bearer', 'certificate')),
    tenant     TEXT   NOT NULL REFERENCES tenant (id),
    scopes     TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
);
CREATE INDEX token_tenant ON token (tenant);

-- What verdicts were reached from, sealed under the tenant's key. user_mac is a keyed digest of the tenant's name for a user.
CREATE TABLE evidence (
    id           TEXT   PRIMARY KEY,
    tenant       TEXT   NOT NULL REFERENCES tenant (id),
    user_mac     BYTEA,
    sealed       BYTEA  NOT NULL,
    created_at   BIGINT NOT NULL,
    delete_after BIGINT NOT NULL
);
CREATE INDEX evidence_user ON evidence (tenant, user_mac) WHERE user_mac IS NOT NULL;
CREATE INDEX evidence_delete_after ON evidence (delete_after);

-- Requests that were sent with an Idempotency-Key. Key and request are keyed digests, the answer is sealed.
CREATE TABLE once (
    tenant     TEXT   NOT NULL REFERENCES tenant (id),
    key_mac    BYTEA  NOT NULL,
    request    BYTEA  NOT NULL,
    answer     BYTEA,
    claimed_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, key_mac)
);
CREATE INDEX once_claimed_at ON once (claimed_at);

-- Who asked what about whose certificate. certificate_mac is a keyed digest, the same for all tenants: the holder asks with it.
CREATE TABLE certificate_use (
    id              TEXT   PRIMARY KEY,
    certificate_mac BYTEA  NOT NULL,
    tenant          TEXT   NOT NULL REFERENCES tenant (id),
    action          TEXT   NOT NULL,
    outcome         TEXT   NOT NULL,
    used_at         BIGINT NOT NULL
);
CREATE INDEX certificate_use_certificate ON certificate_use (certificate_mac, used_at);
