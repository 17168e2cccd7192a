#!/usr/bin/env bash
# usage: replica.sh POSTGRES-ARGUMENT…
#
# Copies the primary once, then follows it.
set -euo pipefail
if [[ ! -s $PGDATA/PG_VERSION ]]; then
  until pg_basebackup --pgdata "$PGDATA" --wal-method stream --write-recovery-conf --checkpoint fast \
    --dbname "host=postgres-1 user=replicator passfile=/var/lib/jpki/pgpass sslmode=verify-full sslrootcert=/var/lib/jpki/infrastructure.pem"; do
    sleep 1
  done
  chmod 0700 "$PGDATA"
fi
exec postgres "$@"
