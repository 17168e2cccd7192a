-- Run by psql once, on the empty primary. The authority owns its tables; begin.sh lets status servers read two of them.
\set ca_password `cat /var/lib/jpki/jpki_ca.password`
\set status_password `cat /var/lib/jpki/jpki_status.password`
\set replica_password `cat /var/lib/jpki/replicator.password`
CREATE ROLE jpki_ca LOGIN PASSWORD :'ca_password';
CREATE ROLE jpki_status LOGIN PASSWORD :'status_password' CONNECTION LIMIT 200;
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replica_password';
CREATE DATABASE jpki OWNER jpki_ca;
REVOKE ALL ON DATABASE jpki FROM PUBLIC;
GRANT CONNECT ON DATABASE jpki TO jpki_status;
\connect jpki
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO jpki_status;
GRANT USAGE, CREATE ON SCHEMA public TO jpki_ca;
-- From the next start on a commit waits for the standby: what is answered is not lost. Copied to the standby, so that it asks the same once it is the primary.
ALTER SYSTEM SET synchronous_standby_names = '*';
