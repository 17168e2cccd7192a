-- What the authority has not yet been told of uses of certificates.

-- +goose Up

-- Put aside in the transaction that keeps the verdict, deleted once the authority has it. sealed names the certificate, under the
-- master key: it must outlive the tenant's. refused is the problem with which the authority refused it for good, or empty.
CREATE TABLE use_report (
    id      TEXT   PRIMARY KEY, -- the authority knows it by this
    tenant  TEXT   NOT NULL REFERENCES tenant (id),
    sealed  BYTEA  NOT NULL,
    used_at BIGINT NOT NULL,
    refused TEXT   NOT NULL
);
CREATE INDEX use_report_waiting ON use_report (tenant, used_at) WHERE refused = '';
