-- +goose Up

-- As of when the register told each field of a holder, JSON of times: an event older than that comes too late to overwrite it.
ALTER TABLE holder ADD COLUMN since TEXT NOT NULL DEFAULT '{}';

CREATE INDEX certificate_undelivered ON certificate (issued_at) WHERE delivered_at IS NULL;
