-- +goose Up

-- Nonces are kept in memory now.
DROP TABLE acme_nonce;

-- Whether an order's certificate takes the place of one that ends soon; decided with its request.
ALTER TABLE acme_order ADD COLUMN renews BIGINT NOT NULL DEFAULT 0 CHECK (renews IN (0, 1));
CREATE INDEX acme_order_certificate ON acme_order (cert_serial);
