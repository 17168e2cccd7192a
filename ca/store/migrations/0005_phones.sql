-- +goose Up

-- A phone that may enrol by ACME until expires_at. sealed_key is the key of its external account binding (RFC 8555 §7.3.4),
-- encrypted under a secret that is only in the binding's key identifier, which is not kept; it goes when an account is bound.
CREATE TABLE phone_enrolment (
    id                 TEXT   PRIMARY KEY,
    holder             TEXT   NOT NULL REFERENCES holder (id),
    token              TEXT   NOT NULL,
    parent_issuer      TEXT   NOT NULL,
    parent_serial      BYTEA  NOT NULL,
    kinds              TEXT   NOT NULL,
    actor_role         TEXT   NOT NULL,
    actor_id           TEXT   NOT NULL,
    actor_municipality TEXT   NOT NULL,
    sealed_key         BYTEA,
    device_hash        TEXT   NOT NULL,
    created_at         BIGINT NOT NULL,
    expires_at         BIGINT NOT NULL
);
CREATE INDEX phone_enrolment_token ON phone_enrolment (token);
CREATE INDEX phone_enrolment_end ON phone_enrolment (expires_at);

-- An account counts from when it is bound to an enrolment.
CREATE TABLE acme_account (
    id         TEXT   PRIMARY KEY,
    key_id     TEXT   NOT NULL UNIQUE,
    public_key TEXT   NOT NULL,
    directory  TEXT   NOT NULL,
    location   TEXT   NOT NULL,
    status     TEXT   NOT NULL CHECK (status IN ('valid', 'deactivated')),
    enrolment  TEXT   UNIQUE REFERENCES phone_enrolment (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL
);

-- An authorization with its only challenge.
CREATE TABLE acme_authorization (
    id               TEXT   PRIMARY KEY,
    account          TEXT   NOT NULL REFERENCES acme_account (id) ON DELETE CASCADE,
    challenge        TEXT   NOT NULL,
    identifier       TEXT   NOT NULL,
    token            TEXT   NOT NULL,
    status           TEXT   NOT NULL CHECK (status IN ('pending', 'valid', 'invalid')),
    challenge_status TEXT   NOT NULL CHECK (challenge_status IN ('pending', 'valid', 'invalid')),
    challenge_error  TEXT   NOT NULL,
    validated_at     TEXT   NOT NULL,
    fingerprint      TEXT   NOT NULL,
    expires_at       BIGINT NOT NULL
);
CREATE INDEX acme_authorization_account ON acme_authorization (account);

-- An order. The first certification request that it is finalized with is the one that counts.
CREATE TABLE acme_order (
    id          TEXT   PRIMARY KEY,
    account     TEXT   NOT NULL REFERENCES acme_account (id) ON DELETE CASCADE,
    authz       TEXT   NOT NULL REFERENCES acme_authorization (id) ON DELETE CASCADE,
    status      TEXT   NOT NULL CHECK (status IN ('pending', 'ready', 'valid', 'invalid')),
    error       TEXT   NOT NULL,
    request     BYTEA,
    cert_issuer TEXT,
    cert_serial BYTEA,
    not_before  BIGINT NOT NULL,
    not_after   BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    CHECK ((status = 'valid') = (cert_serial IS NOT NULL)),
    CHECK ((cert_issuer IS NULL) = (cert_serial IS NULL))
);
CREATE INDEX acme_order_account ON acme_order (account);
CREATE INDEX acme_order_authz ON acme_order (authz);

-- A nonce that has been given out and not come back.
CREATE TABLE acme_nonce (
    nonce      TEXT   PRIMARY KEY,
    expires_at BIGINT NOT NULL
);
CREATE INDEX acme_nonce_end ON acme_nonce (expires_at);
