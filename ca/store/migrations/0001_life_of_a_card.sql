-- One text for SQLite and PostgreSQL. Times are microseconds since 1970 UTC; BYTEA is PostgreSQL's word and means a blob to SQLite.

-- +goose Up

-- The ends of the two append-only sequences. A transaction that appends locks this row until it commits, so positions
-- become visible in order and without gaps.
CREATE TABLE head (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    audit_seq  BIGINT  NOT NULL,
    audit_hash TEXT    NOT NULL,
    status_seq BIGINT  NOT NULL
);
INSERT INTO head (id, audit_seq, audit_hash, status_seq)
VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000', 0);

CREATE TABLE generation (
    issuer      TEXT    PRIMARY KEY,
    certificate BYTEA   NOT NULL,
    active      INTEGER NOT NULL CHECK (active IN (0, 1)),
    created_at  BIGINT  NOT NULL
);

CREATE TABLE station (
    id           TEXT   PRIMARY KEY,
    role         TEXT   NOT NULL CHECK (role IN ('counter', 'call-centre', 'register')),
    municipality TEXT   NOT NULL,
    key_hash     TEXT   NOT NULL,
    enrolled_at  BIGINT NOT NULL,
    disabled_at  BIGINT
);

-- The only table with the four attributes.
CREATE TABLE holder (
    id                  TEXT    PRIMARY KEY,
    municipality        TEXT    NOT NULL,
    name                TEXT    NOT NULL,
    name_substitutes    TEXT    NOT NULL,
    sex                 TEXT    NOT NULL CHECK (sex IN ('1', '2', '3', '9')),
    birth_date          TEXT    NOT NULL,
    address             TEXT    NOT NULL,
    address_substitutes TEXT    NOT NULL,
    guardianship        INTEGER NOT NULL CHECK (guardianship IN (0, 1)),
    stay_until          BIGINT,
    ended               TEXT    NOT NULL CHECK (ended IN ('', 'died', 'left-register')),
    version             BIGINT  NOT NULL,
    updated_at          BIGINT  NOT NULL
);

CREATE TABLE token (
    id            TEXT   PRIMARY KEY,
    type          TEXT   NOT NULL CHECK (type IN ('card', 'phone')),
    holder        TEXT   NOT NULL REFERENCES holder (id),
    valid_until   BIGINT NOT NULL,
    parent_issuer TEXT,
    parent_serial BYTEA,
    created_at    BIGINT NOT NULL,
    CHECK ((type = 'phone') = (parent_serial IS NOT NULL))
);
CREATE INDEX token_holder ON token (holder);
CREATE INDEX token_parent ON token (parent_issuer, parent_serial) WHERE parent_serial IS NOT NULL;

-- A serial number is written here before anything is signed with it and never leaves again.
CREATE TABLE intent (
    issuer     TEXT   NOT NULL REFERENCES generation (issuer),
    serial     BYTEA  NOT NULL,
    kind       TEXT   NOT NULL,
    holder     TEXT   NOT NULL REFERENCES holder (id),
    token      TEXT   NOT NULL REFERENCES token (id),
    partition TEXT   NOT NULL,
    not_after  BIGINT NOT NULL,
    actor      TEXT   NOT NULL,
    idem_key   TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    outcome    TEXT   CHECK (outcome IN ('issued', 'abandoned')),
    ended_at   BIGINT,
    PRIMARY KEY (issuer, serial)
);
CREATE INDEX intent_open ON intent (created_at) WHERE outcome IS NULL;

CREATE TABLE certificate (
    issuer          TEXT   NOT NULL REFERENCES generation (issuer),
    serial          BYTEA  NOT NULL,
    kind            TEXT   NOT NULL CHECK (kind IN ('card-sign', 'card-auth', 'phone-sign', 'phone-auth')),
    holder          TEXT   NOT NULL REFERENCES holder (id),
    token           TEXT   NOT NULL REFERENCES token (id),
    key_hash        TEXT   NOT NULL,
    der             BYTEA  NOT NULL,
    not_before      BIGINT NOT NULL,
    not_after       BIGINT NOT NULL,
    issued_at       BIGINT NOT NULL,
    delivered_at    BIGINT,
    replaces_issuer TEXT,
    replaces_serial BYTEA,
    PRIMARY KEY (issuer, serial)
);
CREATE UNIQUE INDEX certificate_key ON certificate (key_hash);
CREATE INDEX certificate_holder ON certificate (holder);
CREATE INDEX certificate_token ON certificate (token);

-- What is true now of every serial number that was ever signed with, or might have been.
CREATE TABLE certificate_status (
    issuer     TEXT    NOT NULL,
    serial     BYTEA   NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('good', 'suspended', 'revoked')),
    reason     INTEGER NOT NULL CHECK (reason BETWEEN 0 AND 10),
    cause      TEXT    NOT NULL,
    since      BIGINT  NOT NULL,
    version    BIGINT  NOT NULL,
    partition TEXT    NOT NULL,
    not_after  BIGINT  NOT NULL,
    PRIMARY KEY (issuer, serial),
    CHECK (state <> 'suspended' OR reason = 6)
);
CREATE INDEX certificate_status_listed ON certificate_status (issuer, partition) WHERE state <> 'good';

CREATE TABLE status_log (
    seq        BIGINT  PRIMARY KEY,
    issuer     TEXT    NOT NULL,
    serial     BYTEA   NOT NULL,
    state      TEXT    NOT NULL,
    reason     INTEGER NOT NULL,
    cause      TEXT    NOT NULL,
    since      BIGINT  NOT NULL,
    version    BIGINT  NOT NULL,
    partition TEXT    NOT NULL,
    not_after  BIGINT  NOT NULL
);

CREATE TABLE audit (
    seq     BIGINT PRIMARY KEY,
    at      BIGINT NOT NULL,
    actor   TEXT   NOT NULL,
    action  TEXT   NOT NULL,
    subject TEXT   NOT NULL,
    detail  TEXT   NOT NULL,
    prev    TEXT   NOT NULL,
    hash    TEXT   NOT NULL
);

CREATE TABLE idempotency (
    actor        TEXT   NOT NULL,
    idem_key     TEXT   NOT NULL,
    request_hash TEXT   NOT NULL,
    result       TEXT,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (actor, idem_key)
);

-- body is the event, with personal data, until it is applied; then the outcome, without any, takes its place.
CREATE TABLE resident_event (
    id           TEXT   PRIMARY KEY,
    holder       TEXT   NOT NULL,
    type         TEXT   NOT NULL,
    effective_at BIGINT NOT NULL,
    received_at  BIGINT NOT NULL,
    applied_at   BIGINT,
    body_hash    TEXT   NOT NULL,
    body         TEXT   NOT NULL,
    actor        TEXT   NOT NULL
);
CREATE INDEX resident_event_due ON resident_event (effective_at) WHERE applied_at IS NULL;
