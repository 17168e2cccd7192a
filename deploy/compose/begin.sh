#!/usr/bin/env bash
# usage: begin.sh FOLDER
#
# Makes the authority's schema, or brings it forward, and, the first time, records the CAs' certificates and who may speak with the
# authority. FOLDER is what setup.sh made for it.
set -euo pipefail
cd "${1:?folder}"
ca() { jpki-ca -config ca.yaml -operator compose "$@"; }
ca migrate
psql --quiet --set ON_ERROR_STOP=1 "$(sed -n 's/^database: //p' ca.yaml)" -c 'GRANT SELECT ON certificate_status, status_log TO jpki_status'
[[ ! -e begun ]] || exit 0
ca init sign-1.pem auth-1.pem
ca enrol counter:counter-1:99101 enrol/counter-1.pem
ca enrol call-centre:call-centre enrol/call-centre.pem
ca enrol register:register enrol/register.pem
ca enrol verifier:verifier-1 enrol/operator.pem
ca tenant verifier-1 5835678256246 signature,authentication aoba-bank
for s in status-1 status-2 status-3; do ca enrol "responder:$s" "enrol/$s.pem"; done
touch begun
