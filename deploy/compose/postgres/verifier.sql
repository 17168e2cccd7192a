-- Run by psql once, on the verifier's empty server.
\set verifier_password `cat /var/lib/jpki/jpki_verifier.password`
CREATE ROLE jpki_verifier LOGIN PASSWORD :'verifier_password';
CREATE DATABASE verifier OWNER jpki_verifier;
REVOKE ALL ON DATABASE verifier FROM PUBLIC;
\connect verifier
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO jpki_verifier;
