#!/usr/bin/env bash
# usage: setup.sh CONFIGURATION FOLDER
#
# Makes a trial's keys, certificates and secrets, each into the folder of those programs that may have them. It may be run again: what is
# there stays, but for the configuration, which is copied anew. An authority in earnest is begun otherwise: its keys are made in a token
# before witnesses (docs/ceremony.md), and no machine ever has all that this script has had.
# OWNERS=no leaves everything to who runs it.
set -euo pipefail
umask 077
(($# == 2)) || { sed -n '2,7s/^# \?//p' "$0" >&2; exit 2; }
config=$(realpath "$1")
cd "$2"
mkdir -p ca signer run public relay status-{1,2,3} verifier verifier-db crl-watch canary helpdesk postgres-{1,2} redis redis-admin work
statuses=(status-1 status-2 status-3)

# 1. The infrastructure: who speaks with whom.
if [[ ! -e ca/infrastructure.key ]]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=infrastructure" \
    -addext keyUsage=critical,keyCertSign,cRLSign -keyout ca/infrastructure.key -out ca/infrastructure.pem 2>/dev/null
fi
for f in relay "${statuses[@]}" verifier verifier-db crl-watch canary postgres-{1,2} redis redis-admin; do cp ca/infrastructure.pem $f/; done
certify() { # FOLDER/FILE NAME USAGE [SUBJECT-ALT-NAMES]
  [[ ! -e $1.pem ]] || return 0
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" -keyout "$1.key" -out work/csr 2>/dev/null
  printf 'keyUsage=critical,digitalSignature\nextendedKeyUsage=%s\n%s\n' "$3" "${4:+subjectAltName=$4}" > work/ext
  openssl x509 -req -in work/csr -CA ca/infrastructure.pem -CAkey ca/infrastructure.key -days 365 -extfile work/ext -out "$1.pem" 2>/dev/null
}
certify ca/server ca serverAuth DNS:ca,DNS:localhost
certify verifier/server verifier serverAuth DNS:verifier,DNS:localhost
certify verifier/operator verifier-1 clientAuth
for n in postgres-1 postgres-2 verifier-db; do certify $n/server $n serverAuth DNS:$n,DNS:localhost; done
certify redis/server redis serverAuth,clientAuth "DNS:redis-1,DNS:redis-2,DNS:redis-3,DNS:redis-4,DNS:redis-5,DNS:redis-6,DNS:localhost"
for s in "${statuses[@]}"; do certify $s/responder $s clientAuth; done
for n in counter-1 call-centre register; do certify canary/$n $n clientAuth; done

# 2. The authorities' keys, by a rehearsal of a ceremony, and then into a token.
if [[ ! -e signer/softhsm2.conf ]]; then
  for w in 1 2; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "/CN=witness $w" -keyout work/w$w.key -out work/w$w.pem 2>/dev/null
  done
  mkdir -p signer/tokens
  openssl rand -hex 16 > signer/pin
  echo "directories.tokendir = $PWD/signer/tokens" > work/softhsm2.conf
  export SOFTHSM2_CONF=$PWD/work/softhsm2.conf
  softhsm2-util --init-token --free --label jpki-a --so-pin "$(cat signer/pin)" --pin "$(cat signer/pin)" >/dev/null
  for ca in sign auth; do
    rm -rf work/ceremony
    cat > work/$ca.yaml <<PLAN
title: Trial generation of $ca
kind: generation
place: Room 1
generation: $ca-1
profile: sandbox
algorithm: rsa-2048
ends: $(TZ=Asia/Tokyo date -d '+10 years -1 day' +%F)
witnesses:
  - {name: witness 1, role: auditor, certificate: w1.pem}
  - {name: witness 2, role: operator, certificate: w2.pem}
quorum: 2
PLAN
    jpki ceremony run work/$ca.yaml -out work/ceremony -yes >/dev/null
    id=01; [[ $ca = sign ]] || id=02
    softhsm2-util --import work/ceremony/$ca-1.key --token jpki-a --pin "$(cat signer/pin)" --label $ca-1 --id $id >/dev/null
    cp work/ceremony/$ca-1.pem ca/
    rm -rf work/ceremony
  done
  echo "directories.tokendir = ${TOKENS:-/var/lib/jpki/tokens}" > signer/softhsm2.conf
fi
for f in "${statuses[@]}" verifier crl-watch; do cp ca/{sign,auth}-1.pem $f/; done
for g in sign auth; do cp ca/$g-1.pem canary/$g-1.crt; done

# 3. Secrets.
secret() { [[ -e $1 ]] || openssl rand -"${2:-hex}" 32 > "$1"; }
secret ca/audit.key base64
secret verifier/master.key
secret relay/relay-key
secret status-1/shelf-secret
for s in "${statuses[@]}"; do cp relay/relay-key $s/; [[ $s = status-1 ]] || cp status-1/shelf-secret $s/; mkdir -p $s/delegates; done
if [[ ! -e ca/helpdesk.pub ]]; then # a JWK, RFC 7517
  openssl ecparam -genkey -name prime256v1 -noout -out helpdesk/helpdesk.key
  openssl ec -in helpdesk/helpdesk.key -pubout -outform DER -out work/point 2>/dev/null
  coordinate() { tail -c "$1" work/point | head -c 32 | basenc --base64url | tr -d '='; }
  printf '{"use": "sig", "kty": "EC", "alg": "ES256", "crv": "P-256", "kid": "helpdesk", "x": "%s", "y": "%s"}\n' "$(coordinate 64)" "$(coordinate 32)" > ca/helpdesk.pub
fi
for role in jpki_ca jpki_status replicator; do secret postgres-1/$role.password; done
secret verifier-db/jpki_verifier.password
secret postgres-1/postgres.password
secret verifier-db/postgres.password
for k in events receipts; do
  [[ -e verifier/$k.key ]] || openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out verifier/$k.key
done
pgpass() { printf '*:*:*:%s:%s\n' "$1" "$(cat "$2/$1.password")"; }
pgpass jpki_ca postgres-1 > ca/pgpass
for f in relay "${statuses[@]}"; do pgpass jpki_status postgres-1 > $f/pgpass; done
pgpass jpki_verifier verifier-db > verifier/pgpass
pgpass replicator postgres-1 > postgres-2/pgpass
cp postgres-2/pgpass postgres-1/pgpass # for the day on which it follows the other

# 4. Redis: our programs may do what docs/status.md lists, a replica follows, an administrator makes the cluster.
for user in jpki replica admin; do secret redis-admin/$user.password; done
for f in relay "${statuses[@]}"; do cp redis-admin/jpki.password $f/redis-password; done
hash() { printf %s "$(cat redis-admin/"$1".password)" | sha256sum | cut -d' ' -f1; }
cat > redis/users.acl <<ACL
user default off
user jpki on #$(hash jpki) resetkeys ~jpki:ocsp:* ~{jpki:log:* resetchannels -@all +ping +hello +auth +select +client|setname +readonly +cluster|slots +cluster|shards +get +mget +set +exists +del +pexpire +xadd +xrange +xrevrange +xread +xtrim +xinfo|stream +rpush +lpop +blpop +lrange +ltrim +multi +exec +eval +evalsha +script|load
user replica on #$(hash replica) resetkeys resetchannels -@all +psync +replconf +ping
user admin on #$(hash admin) ~* &* +@all
ACL
cat > redis/redis.conf <<CONF
port 0
tls-port 6379
tls-cert-file ${SERVER_FILES:-/var/lib/jpki}/server.pem
tls-key-file ${SERVER_FILES:-/var/lib/jpki}/server.key
tls-ca-cert-file ${SERVER_FILES:-/var/lib/jpki}/infrastructure.pem
tls-auth-clients no
tls-replication yes
tls-cluster yes
aclfile ${SERVER_FILES:-/var/lib/jpki}/users.acl
masteruser replica
masterauth $(cat redis-admin/replica.password)
cluster-enabled yes
cluster-preferred-endpoint-type hostname
cluster-node-timeout 3000
save ""
appendonly no
maxmemory 1gb
maxmemory-policy allkeys-lru
CONF

# 5. Configurations, and what names this trial's certificates.
cp "$config"/signer.yaml signer/signer.yaml
cp "$config"/ca.yaml ca/ca.yaml
cp "$config"/relay.yaml relay/relay.yaml
for s in "${statuses[@]}"; do cp "$config"/status.yaml $s/status.yaml; done
fingerprint() { openssl x509 -in "$1" -noout -fingerprint -sha256 | cut -d= -f2; }
{
  cat "$config"/verifier.yaml
  echo "anchors:"
  for g in sign-1 auth-1; do echo "  - {issuer: $g, certificate: $g.pem, sha256: \"$(fingerprint ca/$g.pem)\"}"; done
} > verifier/verifier.yaml
for g in sign-1 auth-1; do echo "http://status.example.jp/crl/$g/full.crl"; done > crl-watch/urls.txt
cat > canary/env <<ENV
OCSP_URL='http://status.example.jp/ocsp'
CA_URL='https://ca:8443'
STATION_CA='${CANARY_FILES:-/var/lib/jpki}/infrastructure.pem'
STATION_CERT='${CANARY_FILES:-/var/lib/jpki}/counter-1.pem'
STATION_KEY='${CANARY_FILES:-/var/lib/jpki}/counter-1.key'
HOTLINE_CERT='${CANARY_FILES:-/var/lib/jpki}/call-centre.pem'
HOTLINE_KEY='${CANARY_FILES:-/var/lib/jpki}/call-centre.key'
REGISTER_CERT='${CANARY_FILES:-/var/lib/jpki}/register.pem'
REGISTER_KEY='${CANARY_FILES:-/var/lib/jpki}/register.key'
TRUST_SIGN='${CANARY_FILES:-/var/lib/jpki}/sign-1.crt'
TRUST_AUTH='${CANARY_FILES:-/var/lib/jpki}/auth-1.crt'
ENV
mkdir -p ca/enrol
for s in "${statuses[@]}"; do cp $s/responder.pem ca/enrol/$s.pem; done
cp canary/{counter-1,call-centre,register}.pem verifier/operator.pem ca/enrol/
rm -rf work

# 6. To whom each folder belongs: the users of compose.yaml.
[[ ${OWNERS:-yes} = no ]] && exit
chmod 0755 public run
chown -R 1001:1100 ca public
chown -R 1002:1100 signer run
chmod 0750 run
chown -R 1003:1003 "${statuses[@]}"
chown -R 1004:1004 relay
chown -R 1005:1005 verifier
chown -R 1006:1006 crl-watch
chown -R 1007:1007 canary
chown -R 999:999 postgres-1 postgres-2 verifier-db redis redis-admin
