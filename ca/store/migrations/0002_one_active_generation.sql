-- +goose Up

-- A generation is written sign-1 or auth-1: its first four letters are the CA. At most one generation of a CA issues.
CREATE UNIQUE INDEX generation_active ON generation (substr(issuer, 1, 4)) WHERE active = 1;
