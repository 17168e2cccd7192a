-- +goose Up

-- Status servers are enrolled like stations, in a role of their own. SQLite cannot change a CHECK: the table is made anew.
CREATE TABLE station_with_responders (
    id           TEXT   PRIMARY KEY,
    role         TEXT   NOT NULL CHECK (role IN ('counter', 'call-centre', 'register', 'responder')),
    municipality TEXT   NOT NULL,
    key_hash     TEXT   NOT NULL,
    enrolled_at  BIGINT NOT NULL,
    disabled_at  BIGINT
);
INSERT INTO station_with_responders SELECT id, role, municipality, key_hash, enrolled_at, disabled_at FROM station;
DROP TABLE station;
ALTER TABLE station_with_responders RENAME TO station;
