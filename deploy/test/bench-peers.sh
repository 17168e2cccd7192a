#!/usr/bin/env bash
# usage: bench-peers.sh FOLDER [cfssl]
#
# Builds the peers of make bench-ca, or only the one of make bench-ocsp, into FOLDER, in exactly these versions and as far
# as they are not there: step-ca and cfssl from the Go module proxy, and cfssl's own PostgreSQL schema. The first time this
# takes minutes.
set -euo pipefail
(($# == 1)) || [[ $# == 2 && $2 == cfssl ]] || { sed -n '2,6s/^# \?//p' "$0" >&2; exit 2; }

go=${GO:-go}
mkdir -p "$1"
folder=$(cd "$1" && pwd)

# build PROGRAM MODULE VERSION: databases that the bench does not use stay out of step-ca; badger is its default and stays in.
build() {
  if [[ -x $folder/$1 ]] && "$go" version -m "$folder/$1" | grep -qP "^\tmod\t\Q$2\E\t\Q$3\E\t"; then
    return
  fi
  echo "building $1 $3"
  (cd "$folder" && CGO_ENABLED=0 GOBIN=$folder "$go" install -trimpath -tags nomysql,nobbolt,nopgx "$2/cmd/$1@$3")
}

(($# == 2)) || build step-ca github.com/smallstep/certificates v0.30.2
build cfssl github.com/cloudflare/cfssl v1.6.5
(($# == 1)) || exit 0

if [[ ! -s $folder/cfssl.sql ]]; then
  module=$(cd "$folder" && "$go" mod download -json github.com/cloudflare/cfssl@v1.6.5 | jq -r .Dir)
  # Migrations for goose: what stands behind "Down" undoes them.
  for migration in "$module"/certdb/pg/migrations/*.sql; do
    sed -n '/+goose Up/,/+goose Down/p' "$migration"
  done >"$folder/cfssl.sql.new"
  mv "$folder/cfssl.sql.new" "$folder/cfssl.sql"
fi
