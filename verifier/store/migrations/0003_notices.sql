-- What is delivered to one endpoint and is no change: tests, and verification events of streams.

-- +goose Up

CREATE TABLE notice (
    id         TEXT   PRIMARY KEY,
    endpoint   TEXT   NOT NULL REFERENCES endpoint (id),
    sealed     BYTEA  NOT NULL, -- what the receiver wants to see again, under the tenant's key
    created_at BIGINT NOT NULL
);
CREATE INDEX notice_endpoint ON notice (endpoint, created_at);
