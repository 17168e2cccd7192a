#!/usr/bin/env bash
# Installs the outside programs that the tests check our output with, as far as they are missing.
# Says nothing when all are there. Needs Debian or a relative of it to install; elsewhere it lists what is missing.
set -euo pipefail

newest_initdb() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }
has() { command -v "$1" >/dev/null; }

missing() { # prints the Debian packages still to be installed
  newest_initdb || echo postgresql # a server of its own for with-postgres.sh; psql comes with it
  has openssl || echo openssl
  { has certtool && has ocsptool; } || echo gnutls-bin
  has curl || echo curl
  { has redis-server && has redis-cli; } || echo redis-server
  has jq || echo jq
  has pdfsig || echo poppler-utils
  has qpdf || echo qpdf
  { has certutil && has pk12util && has modutil && has tstclnt; } || echo libnss3-tools # keys for pdfsig to sign with; NSS with a card
  has firefox-esr || echo firefox-esr # a browser that logs in with a card
  has xmllint || echo libxml2-utils
  has xmlsec1 || echo xmlsec1
  { has opensc-tool && has pkcs11-tool; } || echo opensc
  compgen -G '/usr/lib/*/opensc-pkcs11.so' >/dev/null || echo opensc-pkcs11
  compgen -G '/usr/lib/*/engines-3/pkcs11.so' >/dev/null || echo libengine-pkcs11-openssl
  [[ -x /usr/sbin/pcscd ]] || echo pcscd
  [[ -e /usr/lib/pcsc/drivers/serial/libifdvpcd.so ]] || echo vsmartcard-vpcd # the virtual reader
  has javac || echo default-jdk-headless
  has softhsm2-util || echo softhsm2
  has nginx || echo nginx-light # what lies in deploy is tried with this and the next two
  { has prometheus && has promtool; } || echo prometheus
  { has systemd-analyze && has systemd-sysusers; } || echo systemd
  has cc || printf 'gcc\nlibc6-dev\n' # for jpki-signer, which loads PKCS #11 modules
  [[ -s /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
}

mapfile -t packages < <(missing)
((${#packages[@]})) || exit 0

if ! has apt-get; then
  echo "missing, and there is no apt-get to install it: ${packages[*]} (Debian's names)" >&2
  exit 1
fi
as_root=()
if ((EUID != 0)); then
  has sudo || { echo "missing: ${packages[*]}; run as root: apt-get install ${packages[*]}" >&2; exit 1; }
  as_root=(sudo)
fi

echo "installing ${packages[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -o Acquire::Retries=3 "$@" >"$log" 2>&1 </dev/null; }
# The package lists of a new machine are empty or old; an update that fails in part may still do.
apt update || true
apt install --no-install-recommends "${packages[@]}" || { cat "$log" >&2; exit 1; }

mapfile -t packages < <(missing)
if ((${#packages[@]})); then
  echo "still missing after apt-get install: ${packages[*]}" >&2
  exit 1
fi
