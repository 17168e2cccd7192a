-- +goose Up

-- Whether the register protects the holder from being found (支援措置).
ALTER TABLE holder ADD COLUMN protected INTEGER NOT NULL DEFAULT 0 CHECK (protected IN (0, 1));

-- Operators of verifiers are enrolled like stations, in a role of their own. SQLite cannot change a CHECK: the table is made anew.
CREATE TABLE station_with_verifiers (
    id           TEXT   PRIMARY KEY,
    role         TEXT   NOT NULL CHECK (role IN ('counter', 'call-centre', 'register', 'responder', 'verifier')),
    municipality TEXT   NOT NULL,
    key_hash     TEXT   NOT NULL,
    enrolled_at  BIGINT NOT NULL,
    disabled_at  BIGINT
);
INSERT INTO station_with_verifiers SELECT id, role, municipality, key_hash, enrolled_at, disabled_at FROM station;
DROP TABLE station;
ALTER TABLE station_with_verifiers RENAME TO station;

-- An operator's feed: the position of its last change, and up to which position changes are not kept any more.
CREATE TABLE relying_operator (
    id            TEXT   PRIMARY KEY,
    feed          TEXT   NOT NULL UNIQUE,
    change_seq    BIGINT NOT NULL,
    forgotten_seq BIGINT NOT NULL
);

-- pairwise_key makes the identifiers under which the tenant knows people; it never changes.
CREATE TABLE relying_tenant (
    corporate_number TEXT   PRIMARY KEY,
    operator         TEXT   NOT NULL REFERENCES relying_operator (id),
    name             TEXT   NOT NULL,
    uses             TEXT   NOT NULL,
    pairwise_key     BYTEA  NOT NULL,
    created_at       BIGINT NOT NULL,
    ended_at         BIGINT
);

-- Whom a tenant has asked about. kinds are bits: of which kinds the tenant has seen certificates. known is the newest signature
-- certificate that the tenant has seen.
CREATE TABLE relying_user (
    tenant       TEXT   NOT NULL REFERENCES relying_tenant (corporate_number),
    user_id      TEXT   NOT NULL,
    holder       TEXT   NOT NULL REFERENCES holder (id),
    kinds        BIGINT NOT NULL,
    known_issuer TEXT,
    known_serial BYTEA,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (tenant, user_id)
);
CREATE UNIQUE INDEX relying_user_holder ON relying_user (holder, tenant);

-- A watch tells of what stands behind after_seq in the status log.
CREATE TABLE relying_watch (
    tenant     TEXT   NOT NULL,
    user_id    TEXT   NOT NULL,
    purpose    TEXT   NOT NULL,
    after_seq  BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, user_id, purpose),
    FOREIGN KEY (tenant, user_id) REFERENCES relying_user (tenant, user_id)
);

-- Up to which position of the status log changes have been derived. Who derives, and who makes or ends a watch, locks the row.
CREATE TABLE relying_cursor (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    status_seq BIGINT  NOT NULL
);
INSERT INTO relying_cursor (id, status_seq) SELECT 1, status_seq FROM head;

CREATE TABLE relying_change (
    operator   TEXT    NOT NULL,
    seq        BIGINT  NOT NULL,
    tenant     TEXT    NOT NULL,
    user_id    TEXT    NOT NULL,
    purpose    TEXT    NOT NULL,
    class      TEXT    NOT NULL CHECK (class IN ('attributes-changed', 'credential-renewed', 'suspended', 'resumed', 'ended')),
    kind       TEXT    NOT NULL,
    correction INTEGER NOT NULL CHECK (correction IN (0, 1)),
    at         BIGINT  NOT NULL,
    derived_at BIGINT  NOT NULL,
    PRIMARY KEY (operator, seq)
);

-- document is what the holder signed, with the certificate in it: evidence, with personal data. provided is the newest signature
-- certificate on the strength of which attributes were handed out under the consent, and under which request.
CREATE TABLE relying_consent (
    id           TEXT   PRIMARY KEY,
    tenant       TEXT   NOT NULL REFERENCES relying_tenant (corporate_number),
    operator     TEXT   NOT NULL,
    user_id      TEXT   NOT NULL,
    holder       TEXT   NOT NULL REFERENCES holder (id),
    purpose      TEXT   NOT NULL,
    description  TEXT   NOT NULL,
    items        TEXT   NOT NULL,
    lang         TEXT   NOT NULL,
    version      TEXT   NOT NULL,
    reference    TEXT   NOT NULL UNIQUE,
    text         TEXT   NOT NULL,
    document     BYTEA  NOT NULL,
    cert_issuer  TEXT   NOT NULL,
    cert_serial  BYTEA  NOT NULL,
    received_at  BIGINT NOT NULL,
    valid_from   BIGINT NOT NULL,
    valid_until  BIGINT NOT NULL,
    replaced_at  BIGINT,
    withdrawn_at BIGINT,
    withdrawal   TEXT,

    provided_issuer TEXT,
    provided_serial BYTEA,
    provided_key    TEXT NOT NULL
);
CREATE INDEX relying_consent_user ON relying_consent (tenant, user_id, purpose);
CREATE INDEX relying_consent_order ON relying_consent (tenant, received_at, id);
CREATE INDEX relying_consent_holder ON relying_consent (holder, received_at);

-- What relying parties did about holders, for the holders to read. ref is the operator's own name of a use, or drawn.
CREATE TABLE relying_record (
    operator TEXT   NOT NULL,
    ref      TEXT   NOT NULL,
    holder   TEXT   NOT NULL,
    tenant   TEXT   NOT NULL,
    action   TEXT   NOT NULL,
    purpose  TEXT   NOT NULL,
    items    TEXT   NOT NULL,
    consent  TEXT   NOT NULL,
    at       BIGINT NOT NULL,
    PRIMARY KEY (operator, ref)
);
CREATE INDEX relying_record_holder ON relying_record (holder, at, operator, ref);
