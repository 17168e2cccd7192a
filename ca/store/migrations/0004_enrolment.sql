-- +goose Up

-- A one-time token that has been presented: the SHA-256 of its identifier, never the token.
CREATE TABLE used_token (
    id_hash TEXT   PRIMARY KEY,
    used_at BIGINT NOT NULL
);
CREATE INDEX used_token_age ON used_token (used_at);

-- A station's certificate. The serial number is written down before anything is signed with it; der stays empty when it
-- is not known whether the key signed, and no station is enrolled with what is not here.
CREATE TABLE station_certificate (
    serial      BYTEA  PRIMARY KEY,
    station     TEXT   NOT NULL,
    actor       TEXT   NOT NULL,
    key_hash    TEXT   NOT NULL,
    reserved_at BIGINT NOT NULL,
    der         BYTEA,
    issued_at   BIGINT,
    not_after   BIGINT,
    revoked_at  BIGINT,
    CHECK ((der IS NULL) = (issued_at IS NULL)),
    CHECK ((der IS NULL) = (not_after IS NULL))
);
CREATE INDEX station_certificate_station ON station_certificate (station);
